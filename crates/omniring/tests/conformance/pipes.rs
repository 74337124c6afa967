//! What files are not: pipes, FIFOs, terminals, counters and devices. Their reads wait for a peer.

use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use omniring::fs::{File, OpenOptions};
use omniring::{AsyncRead, AsyncWrite, Runtime, spawn, yield_now};
use rustix::fs::{CWD, Mode};

use crate::harness::{conformance, errno};
use crate::loopback::poll_once;

conformance!(
    a_read_waits_for_the_writer,
    a_read_gets_what_is_there_and_no_more,
    a_read_ends_when_the_writer_goes,
    a_write_without_a_reader_is_a_broken_pipe,
    a_full_pipe_makes_the_writer_wait,
    a_write_larger_than_the_pipe_is_short,
    a_position_is_ignored,
    readers_and_writers_of_one_pipe_lose_nothing,
    a_cancelled_read_leaves_the_data,
    a_dropped_read_leaves_the_data,
    reads_of_one_pipe_do_not_hold_up_another,
    vectored_reads_wait_too,
    buffers_without_room_do_not_wait,
    a_fifo_connects_two_opens,
    an_eventfd_counts,
    devices_without_end,
    a_poll_tells_what_is_ready,
    a_poll_waits_for_its_event,
    a_poll_sees_the_other_side_go,
    a_poll_of_a_file_is_ready_at_once,
    several_polls_of_one_pipe_all_end,
    splice_moves_bytes_between_files_and_pipes,
    splice_moves_bytes_between_pipes,
    splice_of_an_ended_pipe_yields_nothing,
    splice_waits_for_data,
    splice_waits_for_room,
    splice_without_a_pipe_is_invalid,
    a_cancelled_splice_moves_nothing,
    a_terminal_is_read_line_by_line,
    a_descriptor_left_nonblocking_waits_all_the_same,
    many_pipes_wait_at_once,
);

/// The two ends of a new pipe: for reading and for writing.
pub fn pipe() -> (File, File) {
    let (reader, writer) = std::io::pipe().unwrap();
    (File::from_fd(reader.into()), File::from_fd(writer.into()))
}

/// Gives an op time to begin to wait: many turns of the loop, and what threads do meanwhile.
pub async fn let_others_run() {
    for _ in 0..50 {
        yield_now().await;
    }
    omniring::time::sleep(Duration::from_millis(2)).await;
}

fn fill(fd: impl AsFd) -> usize {
    let flags = rustix::fs::fcntl_getfl(&fd).unwrap();
    rustix::fs::fcntl_setfl(&fd, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
    let mut filled = 0;
    while let Ok(count) = rustix::io::write(&fd, &[7; 4096]) {
        filled += count;
    }
    rustix::fs::fcntl_setfl(&fd, flags).unwrap();
    filled
}

fn a_read_waits_for_the_writer(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut reader, mut writer) = pipe();
        let read = spawn(async move { reader.read(Vec::with_capacity(10)).await });
        let_others_run().await;
        assert!(!read.is_finished());
        writer.write_all("hello").await.0.unwrap();
        let (result, buf) = read.await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
    });
}

fn a_read_gets_what_is_there_and_no_more(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut reader, mut writer) = pipe();
        writer.write_all("hello").await.0.unwrap();
        let (result, buf) = reader.read(Vec::with_capacity(3)).await;
        assert_eq!((result.unwrap(), &buf[..]), (3, &b"hel"[..]));
        let (result, buf) = reader.read(Vec::with_capacity(100)).await;
        assert_eq!((result.unwrap(), &buf[..]), (2, &b"lo"[..]));
    });
}

fn a_read_ends_when_the_writer_goes(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut reader, mut writer) = pipe();
        writer.write_all("last words").await.0.unwrap();
        writer.close().await.unwrap();
        assert_eq!(reader.read(Vec::with_capacity(100)).await.0.unwrap(), 10);
        for _ in 0..3 {
            let (result, buf) = reader.read(b"old".to_vec()).await;
            assert_eq!((result.unwrap(), buf.len()), (0, 0));
        }
        let (mut reader, writer) = pipe();
        let read = spawn(async move { reader.read(Vec::with_capacity(10)).await });
        let_others_run().await;
        drop(writer);
        assert_eq!(read.await.unwrap().0.unwrap(), 0, "also for who waited already");
    });
}

fn a_write_without_a_reader_is_a_broken_pipe(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, mut writer) = pipe();
        drop(reader);
        let (result, buf) = writer.write(b"abc".to_vec()).await;
        assert_eq!((errno(result), &buf[..]), (libc::EPIPE, &b"abc"[..]));
        assert_eq!(errno(writer.write_at("abc", 0).await.0), libc::EPIPE);
        assert_eq!(errno(writer.write_vectored_at(vec!["abc"; 2], 0).await.0), libc::EPIPE);
        let (reader, mut writer) = pipe();
        fill(&writer);
        let write = spawn(async move { writer.write("x").await.0 });
        let_others_run().await;
        drop(reader);
        assert_eq!(errno(write.await.unwrap()), libc::EPIPE, "also for who waited already");
    });
}

fn a_full_pipe_makes_the_writer_wait(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut reader, mut writer) = pipe();
        let filled = fill(&writer);
        let write = spawn(async move { writer.write("x").await.0.unwrap() });
        let_others_run().await;
        assert!(!write.is_finished());
        let (result, _) = reader.read_exact(vec![0; filled].into_boxed_slice()).await;
        result.unwrap();
        assert_eq!(write.await.unwrap(), 1);
        let (result, buf) = reader.read(Vec::with_capacity(10)).await;
        assert_eq!((result.unwrap(), &buf[..]), (1, &b"x"[..]));
    });
}

fn a_write_larger_than_the_pipe_is_short(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut reader, mut writer) = pipe();
        let room = rustix::pipe::fcntl_getpipe_size(&writer).unwrap();
        let (result, data) = writer.write(vec![1; 3 * room]).await;
        assert_eq!(result.unwrap(), room);
        let writes = spawn(async move { writer.write_all(data).await.0.unwrap() });
        let mut count = 0;
        let mut buf = Vec::with_capacity(10_000);
        while count < 4 * room {
            let (result, filled) = reader.read(buf).await;
            count += result.unwrap();
            buf = filled;
        }
        writes.await.unwrap();
        assert_eq!(count, 4 * room);
        assert_eq!(reader.read(buf).await.0.unwrap(), 0);
    });
}

fn a_position_is_ignored(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let read = spawn({
            let reader = reader.clone();
            async move { reader.read_at(Vec::with_capacity(5), 12_345).await }
        });
        let_others_run().await;
        assert!(!read.is_finished());
        assert_eq!(errno(writer.write_at("x", u64::MAX).await.0), libc::EINVAL);
        assert_eq!(errno(reader.read_at(vec![0; 5], 1 << 63).await.0), libc::EINVAL);
        writer.write_at("hello world", 1 << 40).await.0.unwrap();
        let (result, buf) = read.await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
        let (result, bufs) = reader.read_vectored_at(vec![vec![0; 2], vec![0; 9]], 7).await;
        assert_eq!((result.unwrap(), &bufs[1][..]), (6, &b"orld"[..]));
        let filled = fill(&writer);
        let write = spawn({
            let writer = writer.clone();
            async move { writer.write_at("x", 99).await.0.unwrap() }
        });
        let_others_run().await;
        assert!(!write.is_finished());
        reader.read_exact_at(vec![0; filled].into_boxed_slice(), 0).await.0.unwrap();
        assert_eq!(write.await.unwrap(), 1);
    });
}

fn readers_and_writers_of_one_pipe_lose_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let mut reader = reader.clone();
                spawn(async move {
                    let mut got = Vec::new();
                    loop {
                        let (result, buf) = reader.read(Vec::with_capacity(4)).await;
                        if result.unwrap() == 0 {
                            return got;
                        }
                        got.push(u32::from_le_bytes(buf.try_into().unwrap()));
                    }
                })
            })
            .collect();
        let writers: Vec<_> = (0..10u32)
            .map(|number| {
                let mut writer = writer.clone();
                spawn(async move {
                    for at in 0..200 {
                        let message = (number * 1000 + at).to_le_bytes().to_vec();
                        assert_eq!(writer.write(message).await.0.unwrap(), 4);
                    }
                })
            })
            .collect();
        drop(writer);
        for writer in writers {
            writer.await.unwrap();
        }
        let mut all = Vec::new();
        for reader in readers {
            all.extend(reader.await.unwrap());
        }
        all.sort_unstable();
        let expected: Vec<u32> =
            (0..10).flat_map(|number| number * 1000..number * 1000 + 200).collect();
        assert_eq!(all, expected);
    });
}

fn a_cancelled_read_leaves_the_data(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, mut writer) = pipe();
        let mut read = reader.read_at(Vec::with_capacity(10), 0);
        assert!(poll_once(&mut read).await.is_pending());
        let_others_run().await;
        read.cancel();
        let (result, buf) = read.await;
        assert_eq!((errno(result), buf.capacity()), (libc::ECANCELED, 10));
        writer.write_all("hello").await.0.unwrap();
        let (result, buf) = reader.read_at(buf, 0).await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
    });
}

fn a_dropped_read_leaves_the_data(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut reader, mut writer) = pipe();
        for round in 0..50u8 {
            {
                let mut read = reader.read_at(Vec::with_capacity(10), 0);
                let mut other = std::pin::pin!(reader.clone().read_into());
                assert!(poll_once(&mut read).await.is_pending());
                assert!(poll_once(&mut other).await.is_pending());
                if round % 2 == 0 {
                    let_others_run().await;
                }
            }
            let_others_run().await;
            writer.write_all(vec![round]).await.0.unwrap();
            let (result, buf) = reader.read(Vec::with_capacity(10)).await;
            assert_eq!((result.unwrap(), &buf[..]), (1, &[round][..]));
        }
    });
}

/// A read at the cursor that owns its file.
trait ReadInto {
    fn read_into(self) -> impl Future<Output = std::io::Result<usize>>;
}

impl ReadInto for File {
    async fn read_into(mut self) -> std::io::Result<usize> {
        self.read(Vec::with_capacity(10)).await.0
    }
}

fn reads_of_one_pipe_do_not_hold_up_another(runtime: &Runtime) {
    // More reads that wait than the pool has threads.
    runtime.block_on(async {
        let idle: Vec<_> = (0..64).map(|_| pipe()).collect();
        let tasks: Vec<_> = idle
            .iter()
            .flat_map(|(reader, _)| {
                let reader = reader.clone();
                let at = reader.clone();
                [
                    spawn(async move { reader.read_into().await.unwrap() }),
                    spawn(async move { at.read_at(Vec::with_capacity(1), 0).await.0.unwrap() }),
                ]
            })
            .collect();
        let_others_run().await;
        let (mut reader, mut writer) = pipe();
        for _ in 0..20 {
            writer.write_all("ping").await.0.unwrap();
            assert_eq!(reader.read(Vec::with_capacity(10)).await.0.unwrap(), 4);
        }
        assert!(tasks.iter().all(|task| !task.is_finished()));
        drop(idle);
        for task in tasks {
            assert_eq!(task.await.unwrap(), 0);
        }
    });
}

fn vectored_reads_wait_too(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let read = spawn(async move { reader.read_vectored_at(vec![vec![0; 3]; 3], 0).await });
        let_others_run().await;
        let (result, _) = writer.write_vectored_at(vec!["ab", "cde"], 0).await;
        assert_eq!(result.unwrap(), 5);
        let (result, bufs) = read.await.unwrap();
        assert_eq!(result.unwrap(), 5);
        assert_eq!(bufs, [&b"abc"[..], b"de", b""]);
    });
}

fn buffers_without_room_do_not_wait(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut reader, mut writer) = pipe();
        assert_eq!(reader.read(Vec::new()).await.0.unwrap(), 0);
        assert_eq!(reader.read_at(Vec::new(), 0).await.0.unwrap(), 0);
        assert_eq!(reader.read_vectored_at(Vec::<Vec<u8>>::new(), 0).await.0.unwrap(), 0);
        fill(&writer);
        assert_eq!(writer.write("").await.0.unwrap(), 0);
        assert_eq!(writer.write_at("", 5).await.0.unwrap(), 0);
        drop(reader);
        assert_eq!(writer.write("").await.0.unwrap(), 0, "nobody is missed");
    });
}

fn a_fifo_connects_two_opens(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    runtime.block_on(async {
        // Both ends at once, so that neither open has to wait.
        let both = OpenOptions::new().read(true).write(true).open(&path).await.unwrap();
        let mut reader = File::open(&path).await.unwrap();
        let mut writer = OpenOptions::new().write(true).open(&path).await.unwrap();
        drop(both);
        let read = spawn(async move {
            let (result, buf) = reader.read(Vec::with_capacity(10)).await;
            result.unwrap();
            assert_eq!(reader.read(Vec::with_capacity(10)).await.0.unwrap(), 0);
            buf
        });
        let_others_run().await;
        assert!(!read.is_finished());
        writer.write_all("hello").await.0.unwrap();
        let_others_run().await;
        drop(writer);
        assert_eq!(read.await.unwrap(), b"hello");
    });
}

fn an_eventfd_counts(runtime: &Runtime) {
    runtime.block_on(async {
        let flags = rustix::event::EventfdFlags::CLOEXEC;
        let mut counter = File::from_fd(rustix::event::eventfd(0, flags).unwrap());
        let mut clone = counter.clone();
        let read = spawn(async move { clone.read(Vec::with_capacity(8)).await });
        let_others_run().await;
        assert!(!read.is_finished());
        for _ in 0..2 {
            assert_eq!(counter.write(7u64.to_ne_bytes().to_vec()).await.0.unwrap(), 8);
        }
        let (result, buf) = read.await.unwrap();
        let mut count = u64::from_ne_bytes(buf.try_into().unwrap());
        assert_eq!(result.unwrap(), 8);
        if count < 14 {
            let (_, buf) = counter.read_at(Vec::with_capacity(8), 0).await;
            count += u64::from_ne_bytes(buf.try_into().unwrap());
        }
        assert_eq!(count, 14);
        assert_eq!(errno(counter.read(Vec::with_capacity(4)).await.0), libc::EINVAL);
        let (result, _) = counter.write((u64::MAX - 1).to_ne_bytes().to_vec()).await;
        assert_eq!(result.unwrap(), 8);
        let mut clone = counter.clone();
        let write = spawn(async move { clone.write(1u64.to_ne_bytes().to_vec()).await.0 });
        let_others_run().await;
        assert!(!write.is_finished(), "the counter is full");
        assert_eq!(counter.read(Vec::with_capacity(8)).await.0.unwrap(), 8);
        assert_eq!(write.await.unwrap().unwrap(), 8);
    });
}

fn devices_without_end(runtime: &Runtime) {
    runtime.block_on(async {
        let mut zero = File::open("/dev/zero").await.unwrap();
        // A read of it is short where the kernel has something else for the thread to do.
        for offset in [0, 1 << 50] {
            let buf = vec![1; 100_000].into_boxed_slice();
            let (result, buf) = zero.read_exact_at(buf, offset).await;
            result.unwrap();
            assert!(buf.iter().all(|&byte| byte == 0));
        }
        let (result, buf) = zero.read_exact(vec![1; 5_000].into_boxed_slice()).await;
        result.unwrap();
        assert!(buf.iter().all(|&byte| byte == 0));
        let mut null = OpenOptions::new().read(true).write(true).open("/dev/null").await.unwrap();
        assert_eq!(null.read(Vec::with_capacity(10)).await.0.unwrap(), 0);
        assert_eq!(null.read_at(Vec::with_capacity(10), 5).await.0.unwrap(), 0);
        assert_eq!(null.write(vec![0; 1 << 20]).await.0.unwrap(), 1 << 20);
        assert_eq!(null.write_vectored_at(vec!["abc"; 5], 5).await.0.unwrap(), 15);
    });
}

const IN: u32 = libc::POLLIN as u32;
const OUT: u32 = libc::POLLOUT as u32;

fn a_poll_tells_what_is_ready(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        assert_eq!(writer.poll(libc::POLLOUT).await.unwrap(), OUT);
        assert_eq!(writer.poll(libc::POLLIN | libc::POLLOUT).await.unwrap(), OUT);
        writer.write_at("x", 0).await.0.unwrap();
        assert_eq!(reader.poll(libc::POLLIN).await.unwrap(), IN);
        assert_eq!(reader.poll(libc::POLLIN).await.unwrap(), IN, "it takes nothing");
        assert_eq!(reader.poll(libc::POLLIN | libc::POLLPRI).await.unwrap(), IN);
    });
}

fn a_poll_waits_for_its_event(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let mut poll = reader.poll(libc::POLLIN);
        assert!(poll_once(&mut poll).await.is_pending());
        let_others_run().await;
        assert!(poll_once(&mut poll).await.is_pending());
        let filled = fill(&writer);
        assert_eq!(poll.await.unwrap(), IN);
        let mut poll = writer.poll(libc::POLLOUT);
        assert!(poll_once(&mut poll).await.is_pending());
        let_others_run().await;
        assert!(poll_once(&mut poll).await.is_pending(), "full");
        reader.read_exact_at(vec![0; filled].into_boxed_slice(), 0).await.0.unwrap();
        assert_eq!(poll.await.unwrap(), OUT);
        // Nothing of it is left over for the next one.
        let mut poll = reader.poll(libc::POLLIN);
        assert!(poll_once(&mut poll).await.is_pending());
        let_others_run().await;
        assert!(poll_once(&mut poll).await.is_pending(), "empty");
        writer.write_at("x", 0).await.0.unwrap();
        assert_eq!(poll.await.unwrap(), IN);
    });
}

fn a_poll_sees_the_other_side_go(runtime: &Runtime) {
    runtime.block_on(async {
        const HANG_UP: u32 = libc::POLLHUP as u32;
        const ERROR: u32 = libc::POLLERR as u32;
        let (reader, writer) = pipe();
        let mut poll = reader.poll(libc::POLLIN);
        assert!(poll_once(&mut poll).await.is_pending());
        let_others_run().await;
        drop(writer);
        assert_eq!(poll.await.unwrap(), HANG_UP);
        assert_eq!(reader.poll(libc::POLLPRI).await.unwrap(), HANG_UP, "asked for or not");
        let (reader, writer) = pipe();
        fill(&writer);
        let mut poll = writer.poll(libc::POLLIN);
        assert!(poll_once(&mut poll).await.is_pending());
        let_others_run().await;
        drop(reader);
        assert_eq!(poll.await.unwrap(), ERROR);
    });
}

fn a_poll_of_a_file_is_ready_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        assert_eq!(file.poll(libc::POLLIN).await.unwrap(), IN);
        assert_eq!(file.poll(libc::POLLIN | libc::POLLOUT).await.unwrap(), IN | OUT);
        let null = File::open("/dev/null").await.unwrap();
        assert_eq!(null.poll(libc::POLLIN).await.unwrap(), IN);
    });
}

fn several_polls_of_one_pipe_all_end(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let polls: Vec<_> = (0..100)
            .map(|_| {
                let reader = reader.clone();
                spawn(async move { reader.poll(libc::POLLIN).await.unwrap() })
            })
            .collect();
        let_others_run().await;
        writer.write_at("x", 0).await.0.unwrap();
        for poll in polls {
            assert_eq!(poll.await.unwrap(), IN);
        }
    });
}

fn splice_moves_bytes_between_files_and_pipes(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    runtime.block_on(async {
        let file =
            OpenOptions::new().read(true).write(true).create(true).open(&path).await.unwrap();
        file.write_at("hello world", 0).await.0.unwrap();
        let (reader, writer) = pipe();
        assert_eq!(file.splice_to(Some(6), &writer, None, 100).await.unwrap(), 5);
        assert_eq!(reader.splice_to(None, &file, Some(0), 3).await.unwrap(), 3);
        assert_eq!(reader.splice_to(None, &file, Some(100), 100).await.unwrap(), 2);
        assert_eq!(file.metadata().await.unwrap().len(), 102);
        let (_, buf) = file.read_at(Vec::with_capacity(11), 0).await;
        assert_eq!(buf, b"worlo world");
        let (_, buf) = file.read_at(Vec::with_capacity(11), 100).await;
        assert_eq!(buf, b"ld");
        // At the cursor, which moves.
        assert_eq!(file.splice_to(None, &writer, None, 4).await.unwrap(), 4);
        assert_eq!(file.splice_to(None, &writer, None, 4).await.unwrap(), 4);
        let (_, buf) = reader.read_at(Vec::with_capacity(100), 0).await;
        assert_eq!(buf, b"worlo wo");
        assert_eq!(file.splice_to(Some(200), &writer, None, 4).await.unwrap(), 0, "past the end");
        assert_eq!(file.splice_to(Some(0), &writer, None, 0).await.unwrap(), 0, "no length");
    });
}

fn splice_moves_bytes_between_pipes(runtime: &Runtime) {
    runtime.block_on(async {
        let (first_reader, first_writer) = pipe();
        let (second_reader, second_writer) = pipe();
        first_writer.write_at("hello", 0).await.0.unwrap();
        assert_eq!(first_reader.splice_to(None, &second_writer, None, 3).await.unwrap(), 3);
        assert_eq!(first_reader.splice_to(None, &second_writer, None, 3).await.unwrap(), 2);
        let (_, buf) = second_reader.read_at(Vec::with_capacity(10), 0).await;
        assert_eq!(buf, b"hello");
    });
}

fn splice_of_an_ended_pipe_yields_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let (_other_reader, other_writer) = pipe();
        drop(writer);
        assert_eq!(reader.splice_to(None, &other_writer, None, 10).await.unwrap(), 0);
        let (reader, writer) = pipe();
        let waiting = spawn({
            let other_writer = other_writer.clone();
            async move { reader.splice_to(None, &other_writer, None, 10).await.unwrap() }
        });
        let_others_run().await;
        drop(writer);
        assert_eq!(waiting.await.unwrap(), 0);
        let (reader, writer) = pipe();
        writer.write_at("x", 0).await.0.unwrap();
        drop(_other_reader);
        let result = reader.splice_to(None, &other_writer, None, 10).await;
        assert_eq!(errno(result), libc::EPIPE);
    });
}

fn splice_waits_for_data(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let (other_reader, other_writer) = pipe();
        let splice =
            spawn(async move { reader.splice_to(None, &other_writer, None, 10).await.unwrap() });
        let_others_run().await;
        assert!(!splice.is_finished());
        writer.write_at("hello", 0).await.0.unwrap();
        assert_eq!(splice.await.unwrap(), 5);
        assert_eq!(other_reader.read_at(Vec::with_capacity(10), 0).await.1, b"hello");
    });
}

fn splice_waits_for_room(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        file.write_at("hello", 0).await.0.unwrap();
        let (reader, writer) = pipe();
        let filled = fill(&writer);
        let splice =
            spawn(async move { file.splice_to(Some(0), &writer, None, 10).await.unwrap() });
        let_others_run().await;
        assert!(!splice.is_finished());
        reader.read_exact_at(vec![0; filled].into_boxed_slice(), 0).await.0.unwrap();
        assert_eq!(splice.await.unwrap(), 5);
        assert_eq!(reader.read_at(Vec::with_capacity(10), 0).await.1, b"hello");
    });
}

fn splice_without_a_pipe_is_invalid(runtime: &Runtime) {
    runtime.block_on(async {
        let from = File::from_std(tempfile::tempfile().unwrap());
        let to = File::from_std(tempfile::tempfile().unwrap());
        assert_eq!(errno(from.splice_to(Some(0), &to, Some(0), 10).await), libc::EINVAL);
        let (reader, writer) = pipe();
        assert_eq!(errno(reader.splice_to(Some(0), &to, Some(0), 10).await), libc::ESPIPE);
        assert_eq!(errno(from.splice_to(Some(0), &writer, Some(0), 10).await), libc::ESPIPE);
        assert_eq!(errno(from.splice_to(Some(u64::MAX), &writer, None, 10).await), libc::EINVAL);
        assert_eq!(errno(writer.splice_to(None, &to, Some(0), 10).await), libc::EBADF);
        assert_eq!(errno(reader.splice_to(None, &writer, None, 10).await), libc::EINVAL);
    });
}

fn a_cancelled_splice_moves_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let file = File::from_std(tempfile::tempfile().unwrap());
        let mut splice = reader.splice_to(None, &file, Some(0), 10);
        assert!(poll_once(&mut splice).await.is_pending());
        let_others_run().await;
        splice.cancel();
        assert_eq!(errno(splice.await), libc::ECANCELED);
        {
            let mut splice = reader.splice_to(None, &file, Some(0), 10);
            assert!(poll_once(&mut splice).await.is_pending());
            let_others_run().await;
        }
        while runtime.stats().in_flight_count > 0 {
            yield_now().await;
        }
        writer.write_at("hello", 0).await.0.unwrap();
        assert_eq!(reader.read_at(Vec::with_capacity(10), 0).await.1, b"hello");
        assert_eq!(file.metadata().await.unwrap().len(), 0);
    });
}

/// The two sides of a new terminal.
fn terminal() -> (OwnedFd, OwnedFd) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let controller = openpt(flags).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
    let user = rustix::fs::open(name, flags, Mode::empty()).unwrap();
    (controller, user)
}

fn a_terminal_is_read_line_by_line(runtime: &Runtime) {
    runtime.block_on(async {
        let (controller, user) = terminal();
        let mut controller = File::from_fd(controller);
        let user = File::from_fd(user);
        for _ in 0..3 {
            let mut clone = user.clone();
            let read = spawn(async move { clone.read(Vec::with_capacity(100)).await });
            let_others_run().await;
            controller.write_all("hel").await.0.unwrap();
            let_others_run().await;
            assert!(!read.is_finished(), "half a line");
            controller.write_all("lo\nworld\n").await.0.unwrap();
            let (result, buf) = read.await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (6, &b"hello\n"[..]));
            let (result, buf) = user.read_at(Vec::with_capacity(100), 0).await;
            assert_eq!((result.unwrap(), &buf[..]), (6, &b"world\n"[..]));
        }
        let mut echo = Vec::new();
        while echo.len() < 3 * 14 {
            let (result, buf) = controller.read(Vec::with_capacity(100)).await;
            assert!(result.unwrap() > 0);
            echo.extend_from_slice(&buf);
        }
        assert_eq!(echo, b"hello\r\nworld\r\n".repeat(3));
        let mut clone = controller.clone();
        let read = spawn(async move { clone.read(Vec::with_capacity(100)).await.0 });
        let_others_run().await;
        drop(user);
        assert_eq!(errno(read.await.unwrap()), libc::EIO, "nobody has the other side open");
    });
}

fn a_descriptor_left_nonblocking_waits_all_the_same(runtime: &Runtime) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    runtime.block_on(async {
        for nonblocking in [false, true] {
            let (reader, writer) = std::io::pipe().unwrap();
            if nonblocking {
                fcntl_setfl(&reader, OFlags::NONBLOCK).unwrap();
                fcntl_setfl(&writer, fcntl_getfl(&writer).unwrap() | OFlags::NONBLOCK).unwrap();
            }
            let reader = File::from_fd(reader.into());
            let writer = File::from_fd(writer.into());
            let filled = fill(&writer);
            let write = spawn(async move { writer.write_at("x", 0).await.0.unwrap() });
            let_others_run().await;
            reader.read_exact_at(vec![0; filled].into_boxed_slice(), 0).await.0.unwrap();
            assert_eq!(write.await.unwrap(), 1);
            assert_eq!(reader.read_at(Vec::with_capacity(10), 0).await.1, b"x");
            let std = reader.into_std().unwrap();
            assert!(!fcntl_getfl(&std).unwrap().contains(OFlags::NONBLOCK));
        }
    });
}

fn many_pipes_wait_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let pipes: Vec<_> = (0..200).map(|_| pipe()).collect();
        let reads: Vec<_> = pipes
            .iter()
            .map(|(reader, _)| {
                let mut reader = reader.clone();
                spawn(async move { reader.read(Vec::with_capacity(4)).await })
            })
            .collect();
        for (at, (_, writer)) in pipes.iter().enumerate().rev() {
            writer.write_at((at as u32).to_le_bytes().to_vec(), 0).await.0.unwrap();
        }
        for (at, read) in reads.into_iter().enumerate() {
            let (result, buf) = read.await.unwrap();
            assert_eq!((result.unwrap(), buf), (4, (at as u32).to_le_bytes().to_vec()));
        }
    });
}
