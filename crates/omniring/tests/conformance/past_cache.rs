//! Reads and writes past the page cache (`O_DIRECT`): at the end of a file, more than a queue
//! takes, cancelled, dropped, and beside everything else.

use std::path::Path;
use std::time::Duration;

use omniring::buf::AlignedBuf;
use omniring::fs::{File, OpenOptions};
use omniring::time::{sleep, timeout};
use omniring::{Builder, Runtime, spawn, yield_now};

use crate::files::direct_file;
use crate::harness::{conformance, errno};
use crate::loopback::{start, tcp_pair};

const SOON: Duration = Duration::from_secs(20);

conformance!(
    a_direct_read_stops_at_the_end_of_the_file,
    more_direct_reads_than_the_queue_takes_all_end,
    direct_reads_end_when_cancelled_or_with_their_data,
    direct_reads_that_nobody_waits_for_end_all_the_same,
    a_runtime_may_end_with_direct_reads_in_flight,
    direct_writes_behind_the_end_make_the_file_longer,
    vectored_direct_io_is_aligned_as_a_whole_or_refused,
    a_sync_follows_the_writes_that_it_is_awaited_after,
    direct_reads_and_sockets_wait_side_by_side,
    a_number_that_meant_a_direct_file_may_mean_another,
);

/// A runtime on the same engine, polling or not.
fn another(runtime: &Runtime) -> Builder {
    Runtime::builder().engine(runtime.engine()).allow_unpolled(true)
}

/// Bytes of a file whose blocks of `align` bytes all differ.
fn blocks(count: usize, align: usize) -> Vec<u8> {
    (0..count * align).map(|at| (at / align * 7 + at % 251) as u8).collect()
}

/// A file of so many blocks, open past the page cache, what it holds, and the size of a block.
async fn file_of(path: &Path, count: usize) -> Option<(File, Vec<u8>, usize)> {
    let (file, align) = direct_file(path).await?;
    let data = blocks(count, align);
    std::fs::write(path, &data).unwrap();
    Some((file, data, align))
}

fn with_file(runtime: &Runtime, count: usize, case: impl AsyncFnOnce(File, Vec<u8>, usize, &Path)) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    runtime.block_on(async {
        if let Some((file, data, align)) = file_of(&path, count).await {
            case(file, data, align, &path).await;
        }
    });
}

fn a_direct_read_stops_at_the_end_of_the_file(runtime: &Runtime) {
    with_file(runtime, 4, async |file, data, align, path| {
        let len = 3 * align + 100;
        let set = std::fs::OpenOptions::new().write(true).open(path).unwrap();
        set.set_len(len as u64).unwrap();
        let (result, buf) = file.read_at(AlignedBuf::new(4 * align, align), 0).await;
        assert_eq!(result.unwrap(), len);
        assert!(buf[..len] == data[..len]);
        let (result, buf) = file.read_at(AlignedBuf::new(align, align), 3 * align as u64).await;
        assert_eq!(result.unwrap(), 100);
        assert!(buf[..100] == data[3 * align..len]);
        for block in [4, 5, 1 << 20] {
            let at = (block * align) as u64;
            let (result, _) = file.read_at(AlignedBuf::new(align, align), at).await;
            assert_eq!(result.unwrap(), 0, "behind the end, at {at}");
        }
        let (result, _) = file.read_at(AlignedBuf::new(align, align), u64::MAX).await;
        assert_eq!(errno(result), libc::EINVAL);
        let at = i64::MAX as u64 & !(align as u64 - 1);
        let (result, _) = file.read_at(AlignedBuf::new(align, align), at).await;
        assert_eq!(result.map_err(|error| error.raw_os_error()), Err(Some(libc::EINVAL)));
    });
}

fn more_direct_reads_than_the_queue_takes_all_end(runtime: &Runtime) {
    const BLOCKS: usize = 16;
    let small = another(runtime).queue_entries(4).build().unwrap();
    for (runtime, count) in [(runtime, 700), (&small, 100)] {
        with_file(runtime, BLOCKS, async |file, data, align, _| {
            let mut tasks = Vec::new();
            for at in 0..count {
                let file = file.clone();
                tasks.push(spawn(async move {
                    let offset = (at * 5 % BLOCKS * align) as u64;
                    file.read_at(AlignedBuf::new(align, align), offset).await
                }));
            }
            for (at, task) in tasks.into_iter().enumerate() {
                let (result, buf) = timeout(SOON, task).await.unwrap().unwrap();
                assert_eq!(result.unwrap(), align);
                assert!(buf[..] == data[at * 5 % BLOCKS * align..][..align], "read {at}");
            }
        });
    }
}

fn direct_reads_end_when_cancelled_or_with_their_data(runtime: &Runtime) {
    with_file(runtime, 64, async |file, data, align, _| {
        for yields in 0..3 {
            let buf = || AlignedBuf::new(align, align);
            let offset = |at: usize| (at * align) as u64;
            let mut reads: Vec<_> = (0..64).map(|at| file.read_at(buf(), offset(at))).collect();
            for read in &mut reads {
                // It may have completed, on engines that read on the spot.
                if yields > 0 && start(read).await.is_some() {
                    return;
                }
            }
            for _ in 1..yields {
                yield_now().await;
            }
            reads.iter_mut().for_each(|read| read.cancel());
            for (at, read) in reads.into_iter().enumerate() {
                let (result, buf) = timeout(SOON, read).await.unwrap();
                match result {
                    Ok(len) => {
                        assert_eq!(len, align);
                        assert!(buf[..] == data[at * align..][..align]);
                    }
                    Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ECANCELED)),
                }
            }
        }
    });
}

/// Waits until nothing is in flight.
async fn settle(runtime: &Runtime) {
    let settled = async {
        while runtime.stats().in_flight_count > 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(SOON, settled).await.expect("what was dropped ends");
}

fn direct_reads_that_nobody_waits_for_end_all_the_same(runtime: &Runtime) {
    with_file(runtime, 16, async |file, data, align, _| {
        for _ in 0..20 {
            for at in 0..16 {
                let mut read = file.read_at(AlignedBuf::new(align, align), (at * align) as u64);
                let _ = start(&mut read).await;
            }
            // The memory of those that were dropped is in use until they end: what is allocated
            // now is other memory, and stays as it is.
            let fresh: Vec<AlignedBuf> = (0..16).map(|_| AlignedBuf::new(align, align)).collect();
            settle(runtime).await;
            assert!(fresh.iter().all(|buf| buf.iter().all(|&byte| byte == 0)));
        }
        let (result, buf) = file.read_at(AlignedBuf::new(align, align), 0).await;
        assert_eq!(result.unwrap(), align);
        assert!(buf[..] == data[..align]);
    });
}

fn a_runtime_may_end_with_direct_reads_in_flight(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    for _ in 0..5 {
        let inner = another(runtime).build().unwrap();
        inner.block_on(async {
            let Some((file, _, align)) = file_of(&path, 16).await else { return };
            for at in 0..300 {
                let file = file.clone();
                drop(spawn(async move {
                    let offset = (at % 16 * align) as u64;
                    file.read_at(AlignedBuf::new(align, align), offset).await
                }));
            }
            yield_now().await;
        });
        drop(inner);
    }
}

fn direct_writes_behind_the_end_make_the_file_longer(runtime: &Runtime) {
    with_file(runtime, 1, async |file, data, align, path| {
        let mut tasks = Vec::new();
        // From the last one on, so that each leaves a hole that another one fills.
        for at in (1..64).rev() {
            let file = file.clone();
            tasks.push(spawn(async move {
                let mut buf = AlignedBuf::new(align, align);
                buf.fill(at as u8);
                file.write_at(buf, (at * align) as u64).await.0
            }));
        }
        for task in tasks {
            assert_eq!(timeout(SOON, task).await.unwrap().unwrap().unwrap(), align);
        }
        let written = std::fs::read(path).unwrap();
        assert_eq!(written.len(), 64 * align);
        assert!(written[..align] == data[..]);
        for (at, block) in written.chunks(align).enumerate().skip(1) {
            assert!(block.iter().all(|&byte| byte == at as u8), "block {at}");
        }
    });
}

fn vectored_direct_io_is_aligned_as_a_whole_or_refused(runtime: &Runtime) {
    with_file(runtime, 8, async |file, mut data, align, path| {
        let bufs = (1..4).map(|byte| {
            let mut buf = AlignedBuf::new(align, align);
            buf.fill(byte);
            buf
        });
        let (result, _) = file.write_vectored_at(bufs.collect(), align as u64).await;
        assert_eq!(result.unwrap(), 3 * align);
        for byte in 1..4 {
            data[byte * align..][..align].fill(byte as u8);
        }
        assert!(std::fs::read(path).unwrap() == data);
        let bufs = vec![AlignedBuf::new(2 * align, align), AlignedBuf::new(align, align)];
        let (result, bufs) = file.read_vectored_at(bufs, 6 * align as u64).await;
        assert_eq!(result.unwrap(), 2 * align, "the end of the file");
        assert!(bufs[0][..] == data[6 * align..]);
        let (result, _) = file.read_vectored_at(Vec::<AlignedBuf>::new(), 0).await;
        assert_eq!(result.unwrap(), 0);
        let bufs = vec![AlignedBuf::new(align, align), AlignedBuf::new(align - 1, align)];
        assert_eq!(errno(file.read_vectored_at(bufs, 0).await.0), libc::EINVAL);
        let bufs = vec![AlignedBuf::new(align, align)];
        assert_eq!(errno(file.write_vectored_at(bufs, 1).await.0), libc::EINVAL);
        assert!(std::fs::read(path).unwrap() == data, "nothing was written");
    });
}

fn a_sync_follows_the_writes_that_it_is_awaited_after(runtime: &Runtime) {
    with_file(runtime, 8, async |file, _, align, path| {
        for round in 0..4u8 {
            let writes: Vec<_> = (0..8)
                .map(|at| {
                    let file = file.clone();
                    spawn(async move {
                        let mut buf = AlignedBuf::new(align, align);
                        buf.fill(round * 8 + at);
                        file.write_at(buf, u64::from(at) * align as u64).await.0
                    })
                })
                .collect();
            // Beside the writes a sync is allowed, and says nothing about them.
            let beside = file.clone();
            let beside = spawn(async move { beside.sync_data().await });
            for write in writes {
                assert_eq!(timeout(SOON, write).await.unwrap().unwrap().unwrap(), align);
            }
            timeout(SOON, beside).await.unwrap().unwrap().unwrap();
            timeout(SOON, file.sync_all()).await.unwrap().unwrap();
            let written = std::fs::read(path).unwrap();
            for (at, block) in written.chunks(align).enumerate() {
                assert!(block.iter().all(|&byte| byte == round * 8 + at as u8));
            }
        }
    });
}

fn direct_reads_and_sockets_wait_side_by_side(runtime: &Runtime) {
    with_file(runtime, 16, async |file, data, align, _| {
        let (client, server) = tcp_pair().await;
        let echo = spawn(async move {
            let mut buf = Vec::with_capacity(64);
            loop {
                let (result, received) = server.recv_into(buf).await;
                if result.unwrap() == 0 {
                    return;
                }
                buf = server.send_all(received).await.1;
            }
        });
        let readers: Vec<_> = (0..16)
            .map(|reader| {
                let (file, data) = (file.clone(), data.clone());
                spawn(async move {
                    for at in 0..40 {
                        let start = (reader + at * 3) % 16 * align;
                        let buf = AlignedBuf::new(align, align);
                        let (result, buf) = file.read_at(buf, start as u64).await;
                        assert_eq!(result.unwrap(), align);
                        assert!(buf[..] == data[start..][..align]);
                    }
                })
            })
            .collect();
        for round in 0..40u8 {
            client.send_all(vec![round; 8]).await.0.unwrap();
            let (result, buf) =
                timeout(SOON, client.recv_into(Vec::with_capacity(8))).await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (8, &[round; 8][..]));
        }
        for reader in readers {
            timeout(SOON, reader).await.unwrap().unwrap();
        }
        drop(client);
        timeout(SOON, echo).await.unwrap().unwrap();
    });
}

fn a_number_that_meant_a_direct_file_may_mean_another(runtime: &Runtime) {
    with_file(runtime, 2, async |file, data, align, path| {
        let (result, _) = file.read_at(AlignedBuf::new(align, align), 0).await;
        assert_eq!(result.unwrap(), align);
        drop(file);
        for direct in [false, true, false] {
            let file = OpenOptions::new().read(true).direct(direct).open(path).await.unwrap();
            let len = if direct { align } else { 5 };
            let (result, buf) = file.read_at(AlignedBuf::new(len, align), 0).await;
            assert_eq!(result.unwrap(), len);
            assert!(buf[..] == data[..len]);
            let (result, _) = file.read_at(AlignedBuf::new(5, align), 1).await;
            assert_eq!(result.map_err(|error| error.raw_os_error()).ok(), (!direct).then_some(5));
            file.close().await.unwrap();
        }
    });
}
