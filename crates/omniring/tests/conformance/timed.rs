//! Ops with a time limit.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use omniring::fs::File;
use omniring::net::UnixStream;
use omniring::time::{now, sleep};
use omniring::{Runtime, spawn, yield_now};
use omniring_driver::{SharedHandle, ops};
use rustix::event::{PollFd, PollFlags};

use crate::cancel::{Counted, small_queue, until};
use crate::harness::{conformance, drive, errno, new_driver};
use crate::loopback::poll_once;
use crate::pipes::{let_others_run, pipe};

conformance!(
    an_op_that_is_late_gives_its_buffer_back,
    an_op_that_is_in_time_has_its_result,
    an_op_that_need_not_wait_has_its_result,
    an_op_of_a_file_has_its_result,
    a_limit_without_end_is_none,
    an_op_under_way_is_given_a_limit,
    a_timed_op_is_cancelled,
    nothing_is_lost_however_close_the_limit,
    a_close_happens_whatever_its_limit,
    timed_ops_share_a_small_queue,
    timed_ops_dropped_free_each_buffer_once,
    timed_ops_end_with_their_runtime;
    isolated:
    a_late_open_leaks_no_descriptor,
);

const SHORT: Duration = Duration::from_millis(5);
const LONG: Duration = Duration::from_secs(3_600);

fn an_op_that_is_late_gives_its_buffer_back(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, _peer) = UnixStream::pair().unwrap();
        let (reader, _writer) = pipe();
        for limit in [SHORT, Duration::from_micros(100), Duration::ZERO] {
            let start = now();
            let (result, buf) = stream.recv_into(b"as it was".to_vec()).with_timeout(limit).await;
            let error = result.unwrap_err();
            assert_eq!(
                (error.kind(), error.raw_os_error()),
                (ErrorKind::TimedOut, Some(libc::ETIMEDOUT))
            );
            assert_eq!(buf, b"as it was");
            assert!(now() - start >= limit);
            let (result, buf) = reader.read_at(b"as it was".to_vec(), 0).with_timeout(limit).await;
            assert_eq!((errno(result), &buf[..]), (libc::ETIMEDOUT, &b"as it was"[..]));
            assert_eq!(errno(stream.poll(libc::POLLIN).with_timeout(limit).await), libc::ETIMEDOUT);
        }
        until("nothing is left", || runtime.stats().in_flight_count == 0).await;
    });
}

fn an_op_that_is_in_time_has_its_result(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, peer) = UnixStream::pair().unwrap();
        let recv = spawn({
            let stream = stream.clone();
            async move { stream.recv_into(Vec::with_capacity(10)).with_timeout(LONG).await }
        });
        let_others_run().await;
        assert!(!recv.is_finished());
        peer.send_all("hello").await.0.unwrap();
        let (result, buf) = recv.await.unwrap();
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
        until("the timer is gone too", || runtime.stats().in_flight_count == 0).await;
    });
}

fn an_op_that_need_not_wait_has_its_result(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, peer) = UnixStream::pair().unwrap();
        for _ in 0..1_000 {
            assert_eq!(peer.send("x").with_timeout(LONG).await.0.unwrap(), 1);
            assert_eq!(stream.recv_into(vec![0]).with_timeout(LONG).await.0.unwrap(), 1);
        }
        until("no timer is left", || runtime.stats().in_flight_count == 0).await;
    });
}

fn an_op_of_a_file_has_its_result(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        let (result, _) = file.write_at("hello", 0).with_timeout(LONG).await;
        assert_eq!(result.unwrap(), 5);
        let (result, buf) = file.read_at(Vec::with_capacity(10), 0).with_timeout(LONG).await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
        let (result, _) =
            File::open("/dev/null").await.unwrap().write_at("x", 0).with_timeout(LONG).await;
        assert_eq!(errno(result), libc::EBADF);
        until("no timer is left", || runtime.stats().in_flight_count == 0).await;
    });
}

fn a_limit_without_end_is_none(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, peer) = UnixStream::pair().unwrap();
        let mut recv = stream.recv_into(vec![0]).with_timeout(Duration::MAX);
        assert!(poll_once(&mut recv).await.is_pending());
        let_others_run().await;
        assert!(poll_once(&mut recv).await.is_pending());
        peer.send_all("x").await.0.unwrap();
        assert_eq!(recv.await.0.unwrap(), 1);
    });
}

fn an_op_under_way_is_given_a_limit(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, peer) = UnixStream::pair().unwrap();
        let mut recv = stream.recv_into(vec![0]);
        assert!(poll_once(&mut recv).await.is_pending());
        let_others_run().await;
        assert_eq!(errno(recv.with_timeout(SHORT).await.0), libc::ETIMEDOUT);
        let mut recv = stream.recv_into(vec![0]);
        assert!(poll_once(&mut recv).await.is_pending());
        peer.send_all("x").await.0.unwrap();
        assert_eq!(recv.with_timeout(LONG).await.0.unwrap(), 1);
    });
}

fn a_timed_op_is_cancelled(runtime: &Runtime) {
    runtime.block_on(async {
        let (stream, _peer) = UnixStream::pair().unwrap();
        for wait in [0, 1, 2] {
            let mut recv = stream.recv_into(b"as it was".to_vec()).with_timeout(LONG);
            if wait > 0 {
                assert!(poll_once(&mut recv).await.is_pending());
            }
            if wait > 1 {
                let_others_run().await;
            }
            recv.cancel();
            let (result, buf) = recv.await;
            assert_eq!((errno(result), &buf[..]), (libc::ECANCELED, &b"as it was"[..]));
        }
        until("no timer is left", || runtime.stats().in_flight_count == 0).await;
    });
}

fn nothing_is_lost_however_close_the_limit(runtime: &Runtime) {
    const COUNT: usize = 3_000;
    runtime.block_on(async {
        let (stream, peer) = UnixStream::pair().unwrap();
        let sending = spawn(async move {
            let mut random = fastrand::Rng::with_seed(7);
            for at in 0..COUNT {
                match random.u8(0..4) {
                    0 => sleep(Duration::from_micros(random.u64(0..300))).await,
                    1 => yield_now().await,
                    _ => {}
                }
                peer.send_all(vec![at as u8]).await.0.unwrap();
            }
        });
        let mut random = fastrand::Rng::with_seed(8);
        let (mut received, mut late) = (Vec::new(), 0);
        while received.len() < COUNT {
            let limit = Duration::from_micros(random.u64(0..200));
            match stream.recv_into(Vec::with_capacity(3)).with_timeout(limit).await {
                (Ok(count), part) => {
                    assert!(count > 0 && part.len() == count);
                    received.extend_from_slice(&part);
                }
                (result, _) => {
                    assert_eq!(errno(result), libc::ETIMEDOUT);
                    late += 1;
                }
            }
        }
        sending.await.unwrap();
        assert!(received.iter().enumerate().all(|(at, &byte)| byte == at as u8));
        assert!(late > 0, "the limits were close");
        until("nothing is left", || runtime.stats().in_flight_count == 0).await;
    });
}

fn a_close_happens_whatever_its_limit(runtime: &Runtime) {
    let driver = new_driver(runtime);
    for limit in [Duration::ZERO, LONG] {
        for _ in 0..50 {
            let (reader, writer) = std::io::pipe().unwrap();
            let handle = SharedHandle::adopt(&driver, reader.into());
            let close = ops::close(handle).unwrap_or_else(|_| panic!("nobody else has it"));
            drive(&driver, close.with_timeout(limit)).unwrap();
            // Nobody reads any more, now or as soon as a thread of the kernel's has let go of it.
            let mut gone = [PollFd::new(&writer, PollFlags::ERR)];
            let soon = rustix::event::Timespec { tv_sec: 20, tv_nsec: 0 };
            assert_eq!(rustix::event::poll(&mut gone, Some(&soon)).unwrap(), 1, "it stays open");
        }
    }
    drive(&driver, ops::nop(&driver)).unwrap();
}

fn timed_ops_share_a_small_queue(runtime: &Runtime) {
    for entries in [1, 2, 8] {
        let builder = Runtime::builder().engine(runtime.engine()).queue_entries(entries);
        let small = builder.build().unwrap();
        small.block_on(async {
            let file = File::from_std(tempfile::tempfile().unwrap());
            file.write_all_at(vec![7; 1_000], 0).await.0.unwrap();
            let (reader, _writer) = pipe();
            let tasks: Vec<_> = (0..600)
                .map(|at| {
                    let (file, reader) = (file.clone(), reader.clone());
                    spawn(async move {
                        if at % 2 == 0 {
                            let read = file.read_at(vec![0], at).with_timeout(LONG);
                            assert_eq!(read.await.0.unwrap(), 1);
                        } else {
                            let read = reader.read_at(vec![0], 0).with_timeout(SHORT);
                            assert_eq!(errno(read.await.0), libc::ETIMEDOUT);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            until("nothing is left", || small.stats().in_flight_count == 0).await;
        });
    }
}

fn timed_ops_dropped_free_each_buffer_once(runtime: &Runtime) {
    let small = small_queue(runtime.engine());
    let drops = Rc::new(Cell::new(0));
    small.block_on(async {
        let (reader, _writer) = pipe();
        for round in 0..20 {
            let limit = if round % 3 == 0 { Duration::from_micros(50) } else { LONG };
            let mut reads: Vec<_> = (0..50)
                .map(|_| reader.read_at(Counted::new(8, &drops), 0).with_timeout(limit))
                .collect();
            for (at, read) in reads.iter_mut().enumerate() {
                if at % 5 != 4 {
                    let _ = poll_once(read).await;
                }
            }
            if round % 2 == 0 {
                let_others_run().await;
                for read in reads.iter_mut().take(10) {
                    let _ = poll_once(read).await;
                }
            }
            drop(reads);
            until("each buffer is dropped", || drops.get() == 50).await;
            drops.set(0);
        }
        until("nothing is left", || small.stats().in_flight_count == 0).await;
    });
}

fn timed_ops_end_with_their_runtime(runtime: &Runtime) {
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let (reader, _writer) = other.block_on(async { pipe() });
    let mut read = reader.read_at(b"as it was".to_vec(), 0).with_timeout(LONG);
    let mut late = reader.read_at(b"as it was".to_vec(), 0).with_timeout(LONG);
    other.block_on(async {
        assert!(poll_once(&mut read).await.is_pending());
        let_others_run().await;
    });
    drop(other);
    for read in [&mut read, &mut late] {
        let (result, buf) = runtime.block_on(read);
        assert_eq!((errno(result), &buf[..]), (libc::ECANCELED, &b"as it was"[..]));
    }
}

fn a_late_open_leaks_no_descriptor(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let before = crate::harness::fd_count();
    for round in 0..300 {
        let path = std::ffi::CString::new("/dev/null").unwrap();
        let limit = Duration::from_micros(round % 60);
        let open = ops::open(&driver, path, libc::O_RDONLY, 0).with_timeout(limit);
        match drive(&driver, open) {
            Ok(handle) => drop(handle),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT)),
        }
    }
    while driver.in_flight_count() > 0 {
        driver.turn(true, Some(now() + SHORT), || false).unwrap();
    }
    assert_eq!(crate::harness::fd_count(), before);
}
