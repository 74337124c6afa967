//! Fixed buffers and their pools.

use std::cell::RefCell;
use std::pin::pin;
use std::rc::Rc;

use omniring::buf::{AlignedBuf, FixedBuf, FixedPool, HugePages, IoBuf, IoBufExt, TakeError};
use omniring::fs::File;
use omniring::net::UnixStream;
use omniring::{AsyncRead, AsyncWrite, Engine, Runtime, spawn, yield_now};

use crate::cancel::until;
use crate::files::{direct_file, new_file, pattern, scratch};
use crate::harness::{conformance, errno, skip};
use crate::loopback::poll_once;
use crate::pipes::{let_others_run, pipe};

conformance!(
    a_fixed_buffer_moves_what_it_holds,
    a_fixed_buffer_is_read_into_to_its_capacity,
    a_read_sets_the_length_and_a_write_takes_it,
    direct_io_takes_fixed_buffers,
    slices_of_fixed_buffers_keep_to_their_part,
    the_ends_of_a_large_pool_are_reached,
    pipes_sockets_and_the_cursor_take_fixed_buffers,
    what_a_fixed_buffer_cannot_be_used_for_is_the_same_error,
    buffers_of_a_pool_do_not_overlap,
    the_smallest_class_that_fits_gives_the_buffer,
    an_exhausted_pool_fails_or_waits,
    who_asked_first_gets_the_first_buffer,
    a_take_that_is_dropped_loses_no_buffer,
    a_buffer_dropped_in_flight_comes_back,
    a_buffer_cancelled_in_flight_comes_back,
    a_pool_is_dropped_before_its_buffers,
    a_pool_is_dropped_with_ops_in_flight,
    a_runtime_ends_with_fixed_buffers_in_flight,
    buffers_and_pools_outlive_their_runtime,
    several_pools_come_and_go,
    more_pools_than_can_be_registered_work_all_the_same,
    a_buffer_of_another_runtime_is_plain_memory,
    a_pool_says_whether_it_is_registered,
    huge_pages_are_had_or_refused_as_asked,
    a_pool_that_cannot_be_is_refused_with_a_reason;
    isolated:
    what_a_pool_pins_and_maps_goes_with_it,
);

fn pool(classes: &[(usize, usize)]) -> FixedPool {
    let builder = FixedPool::builder();
    let add =
        |builder: omniring::buf::FixedPoolBuilder, &(len, count): &_| builder.class(len, count);
    classes.iter().fold(builder, add).build().unwrap()
}

fn free_count(pool: &FixedPool) -> usize {
    pool.stats().iter().map(|class| class.free_count).sum()
}

/// A buffer of the pool that holds these bytes.
fn holding(pool: &FixedPool, bytes: &[u8]) -> FixedBuf {
    let mut buf = pool.try_take(bytes.len()).unwrap();
    buf.copy_from_slice(bytes);
    buf
}

fn a_fixed_buffer_moves_what_it_holds(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        let pool = pool(&[(4096, 2), (100_000, 2)]);
        for (offset, len) in [(0, 1), (1, 4096), (5_000, 100_000), (123_456, 70_001)] {
            let data = pattern(len);
            let (result, buf) = file.write_at(holding(&pool, &data), offset).await;
            assert_eq!((result.unwrap(), buf.len()), (len, len));
            drop(buf);
            let (_, plain) = file.read_at(Vec::with_capacity(len), offset).await;
            assert!(plain == data, "{len} bytes at {offset}, written from a fixed buffer");
            let (result, buf) = file.read_at(pool.take(len).await.unwrap(), offset).await;
            assert_eq!(result.unwrap(), len);
            assert!(buf[..] == data, "{len} bytes at {offset}, read into a fixed buffer");
        }
        assert_eq!(free_count(&pool), 4);
    });
}

fn a_fixed_buffer_is_read_into_to_its_capacity(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        file.write_all_at(pattern(10_000), 0).await.0.unwrap();
        let pool = pool(&[(8192, 1)]);
        let mut buf = pool.try_take(8192).unwrap();
        buf.fill(9);
        for (len, offset, count) in [(8192, 0, 8192), (100, 0, 100), (8192, 9_000, 1_000)] {
            drop(buf);
            buf = pool.try_take(len).unwrap();
            assert_eq!((buf.len(), buf.capacity()), (len, len));
            let (result, read) = file.read_at(buf, offset as u64).await;
            assert_eq!((result.unwrap(), read.len()), (count, count), "{len} at {offset}");
            assert!(read[..] == pattern(10_000)[offset..][..count]);
            buf = read;
        }
        let (result, buf) = file.read_at(buf, 10_000).await;
        assert_eq!((result.unwrap(), buf.len(), buf.capacity()), (0, 0, 8192), "the end");
        drop(buf);
        let (result, buf) = file.read_at(pool.try_take(0).unwrap(), 0).await;
        assert_eq!((result.unwrap(), buf.capacity()), (0, 0));
    });
}

fn a_read_sets_the_length_and_a_write_takes_it(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        let pool = pool(&[(64, 1)]);
        let mut buf = holding(&pool, b"0123456789");
        buf.set_len(4);
        let (result, mut buf) = file.write_at(buf, 0).await;
        assert_eq!(result.unwrap(), 4);
        buf.set_len(10);
        assert_eq!(&buf[..], b"0123456789", "what lies past the length stays");
        let (result, buf) = file.read_at(buf, 0).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"0123"[..]));
        let (result, mut buf) = file.write_at(buf, 4).await;
        assert_eq!(result.unwrap(), 4);
        buf.set_len(0);
        assert_eq!(file.write_at(buf, 4).await.0.unwrap(), 0);
        assert_eq!(omniring::fs::read(dir.path().join("file")).await.unwrap(), b"01230123");
    });
}

fn direct_io_takes_fixed_buffers(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let Some((file, align)) = direct_file(&dir.path().join("file")).await else { return };
        let pool = pool(&[(align, 2), (8 * align, 2)]);
        let mut expected = pattern(1 << 16);
        let (result, buf) = file.read_at(pool.try_take(8 * align).unwrap(), align as u64).await;
        assert_eq!(result.unwrap(), 8 * align);
        assert!(buf[..] == expected[align..9 * align]);
        expected[4 * align..5 * align].fill(7);
        let mut buf = pool.try_take(align).unwrap();
        buf.fill(7);
        assert_eq!(file.write_at(buf, 4 * align as u64).await.0.unwrap(), align);
        let (result, plain) = file.read_at(AlignedBuf::new(1 << 16, align), 0).await;
        assert_eq!(result.unwrap(), 1 << 16);
        assert!(plain[..] == expected);
        let (result, buf) = file.read_at(pool.try_take(align).unwrap(), 1 << 16).await;
        assert_eq!((result.unwrap(), buf.len()), (0, 0), "the end of the file");
        drop(buf);
        assert_eq!(errno(file.read_at(pool.try_take(align).unwrap(), 1).await.0), libc::EINVAL);
        assert_eq!(errno(file.read_at(pool.try_take(align - 1).unwrap(), 0).await.0), libc::EINVAL);
        // Many at once.
        let tasks: Vec<_> = (0..16u64)
            .map(|at| {
                let (file, pool) = (file.clone(), pool.clone());
                spawn(async move {
                    let buf = pool.take(align).await.unwrap();
                    let (result, buf) = file.read_at(buf, at % 4 * align as u64).await;
                    assert_eq!(result.unwrap(), align);
                    assert!(buf[..] == pattern(1 << 16)[(at % 4) as usize * align..][..align]);
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn slices_of_fixed_buffers_keep_to_their_part(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        file.write_at("1234567890", 0).await.0.unwrap();
        let pool = pool(&[(8192, 1)]);
        let buf = holding(&pool, b"........");
        let (result, slice) = file.read_at(buf.slice(3..5), 8).await;
        assert_eq!((result.unwrap(), slice.as_bytes()), (2, &b"90"[..]));
        let mut buf = slice.into_inner();
        assert_eq!(&buf[..], b"...90", "as long as what was read");
        buf.set_len(8);
        assert_eq!(&buf[..], b"...90...");
        let (result, slice) = file.write_at(buf.slice(3..=5).slice(1..), 0).await;
        assert_eq!((result.unwrap(), slice.as_bytes()), (2, &b"0."[..]));
        let mut buf = slice.into_inner().into_inner();
        buf.set_len(6);
        let (result, buf) = file.read_exact_at(buf, 0).await;
        result.unwrap();
        assert_eq!(&buf[..], b"0.345678", "to the capacity");
        let (result, _) = file.write_all_at(buf, 20).await;
        result.unwrap();
        let (_, plain) = file.read_at(Vec::with_capacity(100), 20).await;
        assert_eq!(plain, b"0.345678");
    });
}

fn the_ends_of_a_large_pool_are_reached(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        let pool = pool(&[(4096, 3), (1 << 20, 3)]);
        let bufs: Vec<_> =
            (0..6).map(|at| pool.try_take(if at < 3 { 4096 } else { 1 << 20 }).unwrap()).collect();
        for (at, mut buf) in (0..).zip(bufs) {
            let len = buf.len();
            buf.fill(at);
            buf[len - 1] = b'$';
            let (result, slice) = file.write_at(buf.slice(len - 2..), 0).await;
            assert_eq!(result.unwrap(), 2);
            let (result, slice) = file.read_at(slice.into_inner().slice(len - 1..), 0).await;
            assert_eq!((result.unwrap(), slice.as_bytes()), (1, &[at][..]));
        }
    });
}

fn pipes_sockets_and_the_cursor_take_fixed_buffers(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let pool = pool(&[(4096, 4)]);
        let (reader, writer) = pipe();
        assert_eq!(writer.write_at(holding(&pool, b"hello"), 7).await.0.unwrap(), 5);
        let (result, buf) = reader.read_at(pool.try_take(100).unwrap(), 7).await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
        let mut read = reader.read_at(buf, 0);
        assert!(poll_once(&mut read).await.is_pending());
        let_others_run().await;
        writer.write_at(holding(&pool, b"later"), 0).await.0.unwrap();
        let (result, buf) = read.await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"later"[..]));
        drop(writer);
        assert_eq!(reader.read_at(buf, 0).await.0.unwrap(), 0);

        let (one, other) = UnixStream::pair().unwrap();
        one.send_all(holding(&pool, b"socket")).await.0.unwrap();
        let (result, buf) = other.recv_into(pool.try_take(100).unwrap()).await;
        assert_eq!((result.unwrap(), &buf[..]), (6, &b"socket"[..]));

        let path = dir.path().join("file");
        let mut file = new_file(&path).await;
        for text in ["one,", "two,"] {
            assert_eq!(file.write(holding(&pool, text.as_bytes())).await.0.unwrap(), 4);
        }
        let mut file = File::open(&path).await.unwrap();
        let (result, buf) = file.read(pool.try_take(6).unwrap()).await;
        assert_eq!((result.unwrap(), &buf[..]), (6, &b"one,tw"[..]));
        let (result, buf) = file.read(buf).await;
        assert_eq!((result.unwrap(), &buf[..]), (2, &b"o,"[..]));
        drop(buf);
        let bufs = vec![pool.try_take(3).unwrap(), pool.try_take(3).unwrap()];
        let (result, bufs) = file.read_vectored_at(bufs, 0).await;
        assert_eq!((result.unwrap(), &bufs[0][..], &bufs[1][..]), (6, &b"one"[..], &b",tw"[..]));
        let (result, _) = file.write_vectored_at(bufs, 0).await;
        assert_eq!(errno(result), libc::EBADF, "opened for reading");
    });
}

fn what_a_fixed_buffer_cannot_be_used_for_is_the_same_error(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let pool = pool(&[(4096, 1)]);
        let path = dir.path().join("file");
        std::fs::write(&path, "contents").unwrap();
        let buf = || pool.try_take(8).unwrap();
        let opened = File::open(&path).await.unwrap();
        for len in [8, 0] {
            let mut buf = buf();
            buf.set_len(len);
            assert_eq!(errno(opened.write_at(buf, 0).await.0), libc::EBADF, "{len} bytes");
        }
        let (result, buf) = opened.read_at(buf(), u64::MAX).await;
        assert_eq!((errno(result), buf.len()), (libc::EINVAL, 8));
        drop(buf);
        let created = File::create(&path).await.unwrap();
        for len in [8, 0] {
            let buf = pool.try_take(len).unwrap();
            assert_eq!(errno(created.read_at(buf, 0).await.0), libc::EBADF, "{len} bytes");
        }
        let directory = File::open(dir.path()).await.unwrap();
        assert_eq!(errno(directory.read_at(pool.try_take(8).unwrap(), 0).await.0), libc::EISDIR);
        let full = omniring::fs::OpenOptions::new().write(true).open("/dev/full").await.unwrap();
        let (result, buf) = full.write_at(holding(&pool, b"abc"), 0).await;
        assert_eq!((errno(result), &buf[..]), (libc::ENOSPC, &b"abc"[..]));
        drop(buf);
        // Files whose driver knows no iterators, or makes its contents up.
        for path in ["/proc/self/status", "/dev/zero"] {
            let file = File::open(path).await.unwrap();
            let (result, buf) = file.read_at(pool.try_take(4).unwrap(), 0).await;
            let (_, plain) = file.read_at(Vec::with_capacity(4), 0).await;
            assert_eq!((result.unwrap(), &buf[..]), (4, &plain[..]), "{path}");
        }
    });
}

fn buffers_of_a_pool_do_not_overlap(runtime: &Runtime) {
    runtime.block_on(async {
        for alignment in [1, 64, 4096, 1 << 16, 1 << 22] {
            let pool = FixedPool::builder()
                .class(1, 3)
                .class(5000, 3)
                .class(4096, 2)
                .class(4096, 1)
                .alignment(alignment)
                .build()
                .unwrap();
            let lens = [1, 1, 1, 4096, 4096, 4096, 5000, 5000, 5000];
            let mut bufs: Vec<_> = lens.iter().map(|&len| pool.try_take(len).unwrap()).collect();
            for (at, buf) in (0..).zip(&mut bufs) {
                assert!(buf.as_ptr().addr().is_multiple_of(alignment), "{alignment}");
                assert!(buf.iter().all(|&byte| byte == 0), "new memory is zeros");
                buf.fill(at);
            }
            for (at, buf) in (0..).zip(&bufs) {
                assert!(buf.iter().all(|&byte| byte == at), "buffer {at}, alignment {alignment}");
            }
        }
    });
}

fn the_smallest_class_that_fits_gives_the_buffer(runtime: &Runtime) {
    runtime.block_on(async {
        let pool = pool(&[(64 * 1024, 1), (4096, 2)]);
        let free = |pool: &FixedPool| -> Vec<_> {
            pool.stats().iter().map(|class| (class.len, class.free_count)).collect()
        };
        let small = pool.try_take(100).unwrap();
        assert_eq!((small.capacity(), free(&pool)), (100, vec![(4096, 1), (65_536, 1)]));
        let exact = pool.try_take(4096).unwrap();
        assert_eq!(free(&pool), [(4096, 0), (65_536, 1)]);
        let large = pool.try_take(4097).unwrap();
        assert_eq!((large.capacity(), free(&pool)), (4097, vec![(4096, 0), (65_536, 0)]));
        drop((small, exact, large));
        assert_eq!(free(&pool), [(4096, 2), (65_536, 1)]);
        let error = pool.try_take(65_537).unwrap_err();
        assert_eq!(error, TakeError::TooLong { len: 65_537, len_max: 65_536 });
        assert!(pool.take(usize::MAX).await.unwrap_err().to_string().contains("larger class"));
    });
}

fn an_exhausted_pool_fails_or_waits(runtime: &Runtime) {
    runtime.block_on(async {
        let pool = pool(&[(4096, 2), (8192, 1)]);
        let (first, second) = (pool.try_take(1).unwrap(), pool.take(1).await.unwrap());
        let error = pool.try_take(1).unwrap_err();
        assert_eq!(error, TakeError::Exhausted { class_len: 4096, total_count: 2 });
        assert_eq!(std::io::Error::from(error).kind(), std::io::ErrorKind::WouldBlock);
        let waiting = spawn({
            let pool = pool.clone();
            async move { pool.take(7).await.unwrap().capacity() }
        });
        yield_now().await;
        assert_eq!((pool.stats()[0].waiting_count, waiting.is_finished()), (1, false));
        drop(first);
        // It is the waiting task's.
        assert!(pool.try_take(1).is_err());
        assert_eq!(waiting.await.unwrap(), 7);
        drop(second);
        let stats = pool.stats()[0];
        assert_eq!((stats.free_count, stats.total_count, stats.waiting_count), (2, 2, 0));
    });
}

fn who_asked_first_gets_the_first_buffer(runtime: &Runtime) {
    runtime.block_on(async {
        let pool = pool(&[(4096, 2)]);
        let order = Rc::new(RefCell::new(Vec::new()));
        let held = [pool.try_take(1).unwrap(), pool.try_take(1).unwrap()];
        let tasks: Vec<_> = (0..10)
            .map(|at| {
                let (pool, order) = (pool.clone(), order.clone());
                spawn(async move {
                    let _buf = pool.take(1).await.unwrap();
                    order.borrow_mut().push(at);
                    yield_now().await;
                })
            })
            .collect();
        yield_now().await;
        drop(held);
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.borrow(), (0..10).collect::<Vec<_>>());
    });
}

fn a_take_that_is_dropped_loses_no_buffer(runtime: &Runtime) {
    runtime.block_on(async {
        let pool = pool(&[(4096, 1)]);
        let held = pool.try_take(1).unwrap();
        {
            let mut first = pin!(pool.take(1));
            let mut second = pin!(pool.take(1));
            let mut third = Box::pin(pool.take(1));
            assert!(poll_once(&mut first).await.is_pending());
            assert!(poll_once(&mut second).await.is_pending());
            assert!(poll_once(&mut third).await.is_pending());
            // One that waits gives its place up.
            drop(third);
            assert_eq!(pool.stats()[0].waiting_count, 2);
            drop(held);
            assert!(poll_once(&mut second).await.is_pending(), "it is the first one's");
            assert_eq!(free_count(&pool), 0);
        }
        // The first was given the buffer, and was dropped without coming for it.
        assert_eq!((free_count(&pool), pool.stats()[0].waiting_count), (1, 0));
        let held = pool.try_take(1).unwrap();
        let mut first = Box::pin(pool.take(1));
        let mut second = Box::pin(pool.take(1));
        assert!(poll_once(&mut first).await.is_pending());
        assert!(poll_once(&mut second).await.is_pending());
        drop(held);
        drop(first);
        assert!(second.await.is_ok(), "handed on");
        assert_eq!(free_count(&pool), 1);
    });
}

fn a_buffer_dropped_in_flight_comes_back(runtime: &Runtime) {
    runtime.block_on(async {
        let pool = pool(&[(4096, 2)]);
        for waits in [false, true] {
            let (reader, writer) = pipe();
            let mut read = reader.read_at(pool.try_take(10).unwrap(), 0);
            assert!(poll_once(&mut read).await.is_pending());
            if waits {
                let_others_run().await;
            }
            drop(read);
            assert_eq!(free_count(&pool), 1, "the op is in flight: it ends in a turn of the loop");
            until("the buffer is back", || free_count(&pool) == 2).await;
            writer.write_at("x", 0).await.0.unwrap();
            let (_, buf) = reader.read_at(pool.try_take(10).unwrap(), 0).await;
            assert_eq!(&buf[..], b"x");
        }
        // A task that waits gets the buffer of an op that nobody waits for.
        let (reader, _writer) = pipe();
        let mut read = reader.read_at(pool.try_take(10).unwrap(), 0);
        let _other = pool.try_take(10).unwrap();
        assert!(poll_once(&mut read).await.is_pending());
        let waiting = spawn({
            let pool = pool.clone();
            async move { pool.take(20).await.unwrap().capacity() }
        });
        let_others_run().await;
        drop(read);
        assert_eq!(waiting.await.unwrap(), 20);
    });
}

fn a_buffer_cancelled_in_flight_comes_back(runtime: &Runtime) {
    runtime.block_on(async {
        let pool = pool(&[(4096, 1)]);
        for waits in [false, true] {
            let (reader, _writer) = pipe();
            let mut read = reader.read_at(holding(&pool, b"as it was"), 0);
            assert!(poll_once(&mut read).await.is_pending());
            if waits {
                let_others_run().await;
            }
            read.cancel();
            let (result, buf) = read.await;
            assert_eq!((errno(result), &buf[..]), (libc::ECANCELED, &b"as it was"[..]));
            drop(buf);
            assert_eq!(free_count(&pool), 1);
        }
    });
}

fn a_pool_is_dropped_before_its_buffers(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        let pool = pool(&[(4096, 2)]);
        let (one, other) = (holding(&pool, b"one"), holding(&pool, b"other"));
        drop(pool);
        assert_eq!(file.write_at(one, 0).await.0.unwrap(), 3);
        let (result, other) = file.read_at(other, 0).await;
        assert_eq!((result.unwrap(), &other[..]), (3, &b"one"[..]));
    });
}

fn a_pool_is_dropped_with_ops_in_flight(runtime: &Runtime) {
    runtime.block_on(async {
        let pool = pool(&[(4096, 2)]);
        let (reader, writer) = pipe();
        let mut read = reader.read_at(pool.try_take(10).unwrap(), 0);
        let mut dropped = reader.read_at(pool.try_take(10).unwrap(), 0);
        assert!(poll_once(&mut read).await.is_pending());
        assert!(poll_once(&mut dropped).await.is_pending());
        drop(pool);
        drop(dropped);
        let_others_run().await;
        writer.write_at("x", 0).await.0.unwrap();
        let (result, buf) = read.await;
        assert_eq!((result.unwrap(), &buf[..]), (1, &b"x"[..]));
    });
}

fn another(engine: Engine) -> Runtime {
    Runtime::builder().engine(engine).build().unwrap()
}

fn a_runtime_ends_with_fixed_buffers_in_flight(runtime: &Runtime) {
    let ended = another(runtime.engine());
    let (kept, pool) = ended.block_on(async {
        let pool = pool(&[(4096, 8)]);
        let (reader, writer) = pipe();
        for _ in 0..4 {
            let (reader, buf) = (reader.clone(), pool.try_take(4096).unwrap());
            drop(spawn(async move { reader.read_at(buf, 0).await.0 }));
        }
        let mut kept = reader.read_at(pool.try_take(10).unwrap(), 0);
        assert!(poll_once(&mut kept).await.is_pending());
        let_others_run().await;
        assert_eq!(free_count(&pool), 3);
        ((kept, writer), pool)
    });
    drop(ended);
    assert_eq!(free_count(&pool), 7, "the runtime's tasks are gone, and their ops have ended");
    let (mut read, _writer) = kept;
    runtime.block_on(async {
        let (result, buf) = (&mut read).await;
        assert_eq!(errno(result), libc::ECANCELED);
        drop(buf);
    });
    assert_eq!(free_count(&pool), 8);
}

fn buffers_and_pools_outlive_their_runtime(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    let ended = another(runtime.engine());
    let (pool, buf) = ended.block_on(async {
        let pool = pool(&[(4096, 2)]);
        let buf = holding(&pool, b"outlived");
        (pool, buf)
    });
    drop(ended);
    runtime.block_on(async {
        let file = new_file(&path).await;
        let (result, buf) = file.write_at(buf, 0).await;
        assert_eq!(result.unwrap(), 8);
        drop(pool);
        let (result, buf) = file.read_at(buf, 2).await;
        assert_eq!((result.unwrap(), &buf[..]), (6, &b"tlived"[..]));
    });
}

fn several_pools_come_and_go(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        let mut pools: Vec<_> = (0..4).map(|_| pool(&[(4096, 2), (8192, 1)])).collect();
        for round in 0..40u8 {
            let (first, last) = (&pools[0], &pools[3]);
            let (result, buf) = file.write_at(holding(first, &[round; 100]), 0).await;
            assert_eq!(result.unwrap(), 100);
            let (result, other) = file.read_at(last.try_take(8192).unwrap(), 0).await;
            assert_eq!((result.unwrap(), &other[..]), (100, &buf[..]));
            // The pool goes, its buffer stays a little; another takes its place.
            pools.remove(usize::from(round) % 4);
            pools.push(pool(&[(4096, 2), (8192, 1)]));
            let (result, buf) = file.read_at(buf, 0).await;
            assert_eq!((result.unwrap(), &buf[..]), (100, &[round; 100][..]));
        }
    });
}

fn more_pools_than_can_be_registered_work_all_the_same(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        let mut pools: Vec<_> = (0..300).map(|_| pool(&[(16, 1)])).collect();
        for (at, pool) in pools.iter().enumerate() {
            let text = at.to_string();
            let (result, buf) = file.write_at(holding(pool, text.as_bytes()), 0).await;
            assert_eq!(result.unwrap(), text.len());
            let (result, buf) = file.read_at(buf, 0).await;
            assert_eq!((result.unwrap(), &buf[..]), (text.len(), text.as_bytes()));
        }
        if pools[0].is_registered() {
            let why = pools[299].not_registered().unwrap().to_string();
            assert!(why.contains("too many pools"), "{why}");
            pools.truncate(200);
            assert!(pool(&[(16, 1)]).is_registered(), "there is room again");
        }
    });
}

fn a_buffer_of_another_runtime_is_plain_memory(runtime: &Runtime) {
    let dir = scratch();
    let other = another(runtime.engine());
    // So that each ring has an entry of the same number.
    let pools = [
        runtime.block_on(async { pool(&[(8192, 2)]) }),
        other.block_on(async { pool(&[(4096, 2)]) }),
    ];
    for (at, own) in [runtime, &other].into_iter().enumerate() {
        own.block_on(async {
            let file = new_file(&dir.path().join(at.to_string())).await;
            let (here, there) = (&pools[at], &pools[1 - at]);
            assert_eq!(file.write_at(holding(there, b"theirs"), 0).await.0.unwrap(), 6);
            let (result, buf) = file.read_at(here.try_take(6).unwrap(), 0).await;
            assert_eq!((result.unwrap(), &buf[..]), (6, &b"theirs"[..]));
            let (result, buf) = file.read_at(there.try_take(4096).unwrap().slice(1..), 0).await;
            assert_eq!((result.unwrap(), buf.as_bytes()), (6, &b"theirs"[..]));
        });
    }
    assert_eq!(pools.iter().map(free_count).sum::<usize>(), 4);
}

fn a_pool_says_whether_it_is_registered(runtime: &Runtime) {
    runtime.block_on(async {
        let builder = FixedPool::builder().class(4096, 1);
        let known = builder.clone().build().unwrap();
        let required = builder.require_registered(true).build();
        match known.not_registered() {
            None => {
                assert!(known.is_registered() && required.unwrap().is_registered());
                assert!(runtime.engine().name().starts_with("uring"));
            }
            Some(why) => {
                assert!(!known.is_registered());
                let error = required.unwrap_err();
                assert!(error.to_string().ends_with(&why.to_string()), "{error}");
                if runtime.engine().name().starts_with("uring") {
                    return skip(&error.to_string());
                }
                let name = format!("engine '{}'", runtime.engine());
                assert!(why.to_string().contains(&name), "{why}");
            }
        }
    });
}

fn huge_pages_are_had_or_refused_as_asked(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = new_file(&dir.path().join("file")).await;
        let builder = FixedPool::builder().class(4096, 4).class(1 << 20, 2);
        assert!(!builder.clone().build().unwrap().is_on_huge_pages());
        let pool = builder.clone().huge_pages(HugePages::IfAvailable).build().unwrap();
        let data = pattern(1 << 20);
        assert_eq!(file.write_at(holding(&pool, &data), 0).await.0.unwrap(), 1 << 20);
        let (result, buf) = file.read_at(pool.try_take(1 << 20).unwrap(), 0).await;
        assert_eq!(result.unwrap(), 1 << 20);
        assert!(buf[..] == data);
        match builder.huge_pages(HugePages::Required).build() {
            Ok(pool) => assert!(pool.is_on_huge_pages()),
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("vm.nr_hugepages"), "{text}");
            }
        }
    });
}

fn a_pool_that_cannot_be_is_refused_with_a_reason(runtime: &Runtime) {
    runtime.block_on(async {
        let check = |builder: omniring::buf::FixedPoolBuilder, expected: &str| {
            let text = builder.build().unwrap_err().to_string();
            assert!(text.contains(expected), "{text}");
        };
        check(FixedPool::builder(), "needs a size class");
        check(FixedPool::builder().class(0, 1), "not 1 of 0");
        check(FixedPool::builder().class(4096, 0), "not 0 of 4096");
        check(FixedPool::builder().class((1 << 30) + 1, 1), "not 1 of 1073741825");
        check(FixedPool::builder().class(4096, 1).alignment(0), "not 0");
        check(FixedPool::builder().class(4096, 1).alignment(3000), "not 3000");
        check(FixedPool::builder().class(1 << 30, 1 << 40), "buffers are more");
        check(FixedPool::builder().class(1 << 30, 1 << 20), "more than the machine's");
    });
}

/// A line of this process's status, in KiB.
fn status_kib(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

fn what_a_pool_pins_and_maps_goes_with_it(runtime: &Runtime) {
    const POOL_KIB: u64 = 4 * 1024;
    runtime.block_on(async {
        drop(pool(&[(1 << 20, 4)]));
        let (pinned, mapped) = (status_kib("VmPin"), status_kib("VmSize"));
        for _ in 0..20 {
            let pool = pool(&[(1 << 20, 4)]);
            let expected = if pool.is_registered() { POOL_KIB } else { 0 };
            assert_eq!(status_kib("VmPin") - pinned, expected);
            assert!(status_kib("VmSize") >= mapped + POOL_KIB);
            let held = pool.try_take(1).unwrap();
            drop(pool);
            assert_eq!(status_kib("VmPin") - pinned, expected, "a buffer is out");
            drop(held);
            assert_eq!(status_kib("VmPin"), pinned);
        }
        assert!(status_kib("VmSize") < mapped + POOL_KIB);
    });
}
