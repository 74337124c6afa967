//! Files sent to sockets without a copy in user memory.

use omniring::fs::File;
use omniring::net::{TcpStream, UnixStream};
use omniring::{Runtime, spawn};

use crate::cancel::until;
use crate::harness::{conformance, errno, fd_count, thread_count};
use crate::loopback::{poll_once, recv_to_end, tcp_pair};
use crate::pipes::{let_others_run, pipe};

conformance!(
    a_file_is_sent_over_tcp,
    a_file_is_sent_over_a_unix_socket,
    a_part_of_a_file_is_sent,
    sending_stops_at_the_end_of_the_file,
    the_cursor_stays_where_it_is,
    sending_waits_for_a_slow_receiver,
    what_cannot_be_sent_is_an_error,
    a_receiver_that_is_gone_is_a_broken_pipe,
    a_receiver_that_goes_in_the_middle_ends_it,
    many_files_are_sent_at_once,
    what_a_dropped_send_left_behind_is_nobodys;
    isolated:
    pipes_are_used_again_and_go_with_the_runtime,
    a_receiver_that_is_gone_does_not_end_the_process,
);

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

async fn file(len: usize) -> File {
    let file = File::from_std(tempfile::tempfile().unwrap());
    file.write_all_at(pattern(len), 0).await.0.unwrap();
    file
}

/// Calls until everything is sent or the file ends: the bytes sent.
macro_rules! send_all {
    ($stream:expr, $file:expr, $offset:expr, $len:expr) => {{
        let (mut sent, len): (u64, u64) = (0, $len);
        loop {
            match $stream.send_file($file, $offset + sent, len - sent).await.unwrap() {
                0 => break sent,
                count => sent += count,
            }
        }
    }};
}

const BIG: usize = 2 << 20;

fn a_file_is_sent_over_tcp(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let received = spawn(recv_to_end(server));
        let file = file(BIG).await;
        assert_eq!(send_all!(client, &file, 0, BIG as u64), BIG as u64);
        drop(client);
        assert!(received.await.unwrap() == pattern(BIG));
    });
    assert_eq!(runtime.stats().in_flight_count, 0);
}

fn a_file_is_sent_over_a_unix_socket(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let received = spawn(recv_to_end(receiver));
        let file = file(BIG).await;
        assert_eq!(send_all!(sender, &file, 0, u64::MAX), BIG as u64);
        drop(sender);
        assert!(received.await.unwrap() == pattern(BIG));
    });
}

fn a_part_of_a_file_is_sent(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let file = file(100_000).await;
        for (offset, len) in [(0, 1), (4_095, 2), (99_999, 1), (12_345, 30_000)] {
            assert_eq!(
                sender.send_file(&file, offset as u64, len as u64).await.unwrap(),
                len as u64
            );
            let mut received = Vec::new();
            while received.len() < len {
                let (result, part) = receiver.recv_into(Vec::with_capacity(len)).await;
                assert!(result.unwrap() > 0);
                received.extend_from_slice(&part);
            }
            assert!(received == pattern(100_000)[offset..][..len]);
        }
    });
}

fn sending_stops_at_the_end_of_the_file(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let file = file(1_000).await;
        assert_eq!(sender.send_file(&file, 400, 10_000).await.unwrap(), 600);
        for offset in [1_000, 1_001, 1 << 40] {
            assert_eq!(sender.send_file(&file, offset, 10).await.unwrap(), 0);
        }
        assert_eq!(sender.send_file(&file, 0, 0).await.unwrap(), 0);
        drop(sender);
        assert!(recv_to_end(receiver).await == pattern(1_000)[400..]);
    });
}

fn the_cursor_stays_where_it_is(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, _receiver) = UnixStream::pair().unwrap();
        let file = file(1_000).await;
        file.seek(std::io::SeekFrom::Start(7)).unwrap();
        assert_eq!(sender.send_file(&file, 100, 200).await.unwrap(), 200);
        assert_eq!(file.seek(std::io::SeekFrom::Current(0)).unwrap(), 7);
    });
}

fn sending_waits_for_a_slow_receiver(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let file = file(BIG).await;
        let sending = spawn(async move { send_all!(sender, &file, 0, BIG as u64) });
        let mut received = Vec::new();
        while received.len() < BIG {
            if received.len() < 10_000 {
                let_others_run().await;
                assert!(!sending.is_finished());
            }
            let (result, part) = receiver.recv_into(Vec::with_capacity(100_000)).await;
            assert!(result.unwrap() > 0);
            received.extend_from_slice(&part);
        }
        assert_eq!(sending.await.unwrap(), BIG as u64);
        assert!(received == pattern(BIG));
    });
}

fn what_cannot_be_sent_is_an_error(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let unreadable = File::create(dir.path().join("file")).await.unwrap();
        assert_eq!(errno(sender.send_file(&unreadable, 0, 10).await), libc::EBADF);
        let (reader, writer) = pipe();
        writer.write_all_at("abc", 0).await.0.unwrap();
        assert_eq!(errno(sender.send_file(&reader, 0, 10).await), libc::ESPIPE, "no offsets");
        let file = file(10).await;
        assert_eq!(errno(sender.send_file(&file, u64::MAX, 10).await), libc::EINVAL);
        // And the next one is none the worse for it.
        assert_eq!(sender.send_file(&file, 0, 10).await.unwrap(), 10);
        drop(sender);
        assert!(recv_to_end(receiver).await == pattern(10));
    });
}

fn a_receiver_that_is_gone_is_a_broken_pipe(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = UnixStream::pair().unwrap();
        let file = file(100_000).await;
        drop(receiver);
        for _ in 0..3 {
            assert_eq!(errno(sender.send_file(&file, 0, 100_000).await), libc::EPIPE);
        }
        // What was in the pipe by then is not what the next one sends.
        let (sender, receiver) = UnixStream::pair().unwrap();
        let received = spawn(recv_to_end(receiver));
        assert_eq!(send_all!(sender, &file, 50_000, 50_000), 50_000);
        drop(sender);
        assert!(received.await.unwrap() == pattern(100_000)[50_000..]);
    });
}

fn a_receiver_that_goes_in_the_middle_ends_it(runtime: &Runtime) {
    runtime.block_on(async {
        let (sender, receiver) = tcp_pair().await;
        let file = file(8 * BIG).await;
        let sending = spawn(async move {
            let mut sent = 0;
            loop {
                match sender.send_file(&file, sent, 8 * BIG as u64 - sent).await {
                    Ok(0) => panic!("all was sent, to nobody"),
                    Ok(count) => sent += count,
                    Err(error) => return (sent, error.raw_os_error()),
                }
            }
        });
        let_others_run().await;
        assert!(receiver.recv_into(Vec::with_capacity(10)).await.0.unwrap() > 0);
        drop(receiver);
        let (sent, error) = sending.await.unwrap();
        assert!(sent < 8 * BIG as u64);
        assert!(matches!(error, Some(libc::EPIPE | libc::ECONNRESET)), "{error:?}");
    });
}

fn many_files_are_sent_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let tasks: Vec<_> = (0..30)
            .map(|at| {
                spawn(async move {
                    let len = 100_000 + at * 1_000;
                    let file = file(len).await;
                    let (sender, receiver) = UnixStream::pair().unwrap();
                    let received = spawn(recv_to_end(receiver));
                    assert_eq!(send_all!(sender, &file, 0, u64::MAX), len as u64);
                    drop(sender);
                    assert!(received.await.unwrap() == pattern(len));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn what_a_dropped_send_left_behind_is_nobodys(runtime: &Runtime) {
    runtime.block_on(async {
        let (file, all) = (file(BIG).await, pattern(BIG));
        for round in 0..20 {
            let (sender, receiver) = UnixStream::pair().unwrap();
            let mut sending = Box::pin(sender.send_file(&file, 0, BIG as u64));
            for _ in 0..round % 5 {
                if poll_once(&mut sending).await.is_ready() {
                    break;
                }
                if round % 2 == 0 {
                    let_others_run().await;
                } else {
                    omniring::yield_now().await;
                }
            }
            drop(sending);
            drop(sender);
            // What arrived is the start of the file, as far as it came.
            let received = recv_to_end(receiver).await;
            assert!(received.len() < BIG);
            assert!(received == all[..received.len()]);
            // The next one sends what it is asked to and nothing else.
            let (sender, receiver) = UnixStream::pair().unwrap();
            assert_eq!(sender.send_file(&file, 1_000, 2_000).await.unwrap(), 2_000);
            drop(sender);
            assert!(recv_to_end(receiver).await == all[1_000..3_000]);
        }
        until("all have ended", || runtime.stats().in_flight_count == 0).await;
    });
}

fn pipes_are_used_again_and_go_with_the_runtime(runtime: &Runtime) {
    let before = fd_count();
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    other.block_on(async {
        let file = file(100_000).await;
        let mut counts = Vec::new();
        for _ in 0..5 {
            let tasks: Vec<_> = (0..20)
                .map(|_| {
                    let file = file.clone();
                    spawn(async move {
                        let (sender, receiver) = UnixStream::pair().unwrap();
                        let received = spawn(recv_to_end(receiver));
                        assert_eq!(send_all!(sender, &file, 0, u64::MAX), 100_000);
                        drop(sender);
                        assert_eq!(received.await.unwrap().len(), 100_000);
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            counts.push(fd_count());
        }
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
        assert!(thread_count() < 100);
    });
    drop(other);
    assert_eq!(fd_count(), before);
}

fn a_receiver_that_is_gone_does_not_end_the_process(runtime: &Runtime) {
    // SAFETY: what the signal does by default. The process is this case's.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    runtime.block_on(async {
        let file = file(100_000).await;
        let (sender, receiver) = UnixStream::pair().unwrap();
        drop(receiver);
        assert_eq!(errno(sender.send_file(&file, 0, 100_000).await), libc::EPIPE);
        let (sender, receiver) = tcp_pair().await;
        drop(receiver);
        let sending: &TcpStream = &sender;
        let error = loop {
            if let Err(error) = sending.send_file(&file, 0, 100_000).await {
                break error.raw_os_error();
            }
        };
        assert!(matches!(error, Some(libc::EPIPE | libc::ECONNRESET)), "{error:?}");
    });
}
