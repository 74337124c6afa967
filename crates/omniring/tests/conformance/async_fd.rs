//! Readiness of descriptors that others read and write.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::pin::pin;
use std::time::Duration;

use omniring::time::{now, timeout};
use omniring::{AsyncFd, Runtime, spawn, yield_now};
use rustix::fs::{OFlags, fcntl_getfl};

use crate::harness::{conformance, fd_count};
use crate::loopback::start;
use crate::pipes::let_others_run;
use crate::time::assert_idle;

const SOON: Duration = Duration::from_secs(20);
const WHILE: Duration = Duration::from_millis(150);

conformance!(
    a_guard_waits_for_data_and_again_after_would_block,
    what_is_ready_stays_so_until_somebody_says_otherwise,
    forgetting_too_early_loses_nothing,
    a_poll_asks_anew_each_time,
    a_writer_waits_for_room,
    a_writer_waits_for_room_while_the_peer_sends_no_more,
    calls_go_on_as_often_as_it_takes,
    both_directions_wait_at_the_same_time,
    several_tasks_wait_for_one_descriptor,
    a_dropped_wait_loses_nothing,
    an_end_and_an_error_are_ready,
    the_mode_stays_as_it_is,
    what_is_inside_may_be_replaced,
    what_is_always_ready_lets_others_run,
    a_file_is_always_ready;
    isolated: no_descriptor_is_left_behind,
);

/// Two ends, the first of them for [`AsyncFd`].
fn pair() -> (AsyncFd<UnixStream>, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    ours.set_nonblocking(true).unwrap();
    (AsyncFd::new(ours).unwrap(), theirs)
}

/// Writes until there is no room.
fn fill(mut stream: &UnixStream) -> usize {
    let mut filled = 0;
    loop {
        match stream.write(&[7; 4096]) {
            Ok(count) => filled += count,
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                return filled;
            }
        }
    }
}

fn a_guard_waits_for_data_and_again_after_would_block(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        for round in 0..3u8 {
            {
                let mut readable = pin!(ours.readable());
                assert!(start(&mut readable).await.is_none(), "there is nothing");
                theirs.write_all(&[round; 5]).unwrap();
                let mut guard = timeout(SOON, readable).await.unwrap().unwrap();
                assert_eq!(guard.events() & libc::POLLIN, libc::POLLIN);
                let mut buf = [0; 16];
                let count = guard.try_io(|fd| fd.get_ref().read(&mut buf)).unwrap().unwrap();
                assert_eq!(buf[..count], [round; 5]);
                assert!(guard.try_io(|fd| fd.get_ref().read(&mut buf)).is_err(), "nothing more");
                assert_eq!(guard.get_inner().as_fd().try_clone_to_owned().map(drop).ok(), Some(()));
            }
            let_others_run().await;
        }
        assert_idle(now() + WHILE).await;
    });
}

fn what_is_ready_stays_so_until_somebody_says_otherwise(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        drop(ours.readable().await.unwrap());
        let mut byte = [0];
        assert_eq!(ours.get_ref().read(&mut byte).unwrap(), 1);
        // Nobody said so.
        let mut guard = timeout(SOON, ours.readable()).await.unwrap().unwrap();
        guard.clear_ready();
        drop(guard);
        let mut readable = pin!(ours.readable());
        assert!(start(&mut readable).await.is_none());
        theirs.write_all(b"y").unwrap();
        drop(timeout(SOON, readable).await.unwrap().unwrap());
    });
}

fn forgetting_too_early_loses_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"ab").unwrap();
        let mut byte = [0];
        for expected in [b'a', b'b'] {
            let mut guard = timeout(SOON, ours.readable()).await.unwrap().unwrap();
            guard.try_io(|fd| fd.get_ref().read(&mut byte)).unwrap().unwrap();
            assert_eq!(byte[0], expected);
            // There may be more, and there is.
            guard.clear_ready();
        }
    });
}

fn a_poll_asks_anew_each_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        assert_eq!(ours.poll(libc::POLLOUT).await.unwrap() as i16, libc::POLLOUT);
        let mut poll = ours.poll(libc::POLLIN);
        assert!(start(&mut poll).await.is_none());
        theirs.write_all(b"x").unwrap();
        assert_eq!(timeout(SOON, poll).await.unwrap().unwrap() as i16, libc::POLLIN);
        for _ in 0..3 {
            assert_eq!(ours.poll(libc::POLLIN).await.unwrap() as i16, libc::POLLIN);
        }
        assert_eq!(ours.get_ref().read(&mut [0]).unwrap(), 1);
        assert!(start(&mut ours.poll(libc::POLLIN)).await.is_none());
    });
}

fn a_writer_waits_for_room(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        drop(timeout(SOON, ours.writable()).await.unwrap().unwrap());
        let filled = fill(ours.get_ref());
        ours.writable().await.unwrap().clear_ready();
        {
            let mut writable = pin!(ours.writable());
            assert!(start(&mut writable).await.is_none(), "there is no room");
            let_others_run().await;
            theirs.read_exact(&mut vec![0; filled]).unwrap();
            drop(timeout(SOON, writable).await.unwrap().unwrap());
        }
        assert_eq!(ours.write_with(|mut stream| stream.write(b"hello")).await.unwrap(), 5);
    });
}

fn a_writer_waits_for_room_while_the_peer_sends_no_more(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        theirs.shutdown(Shutdown::Write).unwrap();
        for _ in 0..3 {
            let filled = fill(ours.get_ref());
            let mut write = pin!(ours.write_with(|mut stream| stream.write(b"hello")));
            assert!(start(&mut write).await.is_none(), "there is no room");
            assert_idle(now() + WHILE).await;
            theirs.read_exact(&mut vec![0; filled]).unwrap();
            assert_eq!(timeout(SOON, write).await.unwrap().unwrap(), 5);
            theirs.read_exact(&mut [0; 5]).unwrap();
        }
        // The other direction has its end.
        assert_eq!(ours.read_with(|mut stream| stream.read(&mut [0; 8])).await.unwrap(), 0);
    });
}

fn calls_go_on_as_often_as_it_takes(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        let reader = spawn(async move {
            let mut all = Vec::new();
            let mut buf = [0; 1000];
            loop {
                let count = ours.read_with(|mut stream| stream.read(&mut buf)).await.unwrap();
                if count == 0 {
                    return all;
                }
                all.extend_from_slice(&buf[..count]);
            }
        });
        for round in 0..100u8 {
            theirs.write_all(&[round; 999]).unwrap();
            if round % 3 == 0 {
                let_others_run().await;
            }
        }
        drop(theirs);
        let all = timeout(SOON, reader).await.unwrap().unwrap();
        let expected: Vec<u8> = (0..100).flat_map(|round| [round; 999]).collect();
        assert!(all == expected);
    });
}

fn both_directions_wait_at_the_same_time(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        let filled = fill(ours.get_ref());
        let mut writable = pin!(ours.writable());
        let mut readable = pin!(ours.readable());
        assert!(start(&mut writable).await.is_none());
        assert!(start(&mut readable).await.is_none());
        theirs.write_all(b"x").unwrap();
        drop(timeout(SOON, readable).await.unwrap().unwrap());
        assert!(start(&mut writable).await.is_none());
        theirs.read_exact(&mut vec![0; filled]).unwrap();
        drop(timeout(SOON, writable).await.unwrap().unwrap());
    });
}

fn several_tasks_wait_for_one_descriptor(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let ours = std::rc::Rc::new(AsyncFd::new(ours).unwrap());
        let readers: Vec<_> = (0..20)
            .map(|_| {
                let ours = ours.clone();
                spawn(async move {
                    let mut byte = [0];
                    assert_eq!(ours.read_with(|socket| socket.recv(&mut byte)).await.unwrap(), 1);
                    byte[0]
                })
            })
            .collect();
        let_others_run().await;
        let mut sent = Vec::new();
        for number in 0..20u8 {
            while theirs.send(&[number]).is_err() {
                yield_now().await;
            }
            sent.push(number);
            if number % 7 == 0 {
                let_others_run().await;
            }
        }
        let mut received = Vec::new();
        for reader in readers {
            received.push(timeout(SOON, reader).await.unwrap().unwrap());
        }
        received.sort_unstable();
        assert_eq!(received, sent);
    });
}

fn a_dropped_wait_loses_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        for round in 0..50u8 {
            let mut byte = [0];
            {
                let mut read = pin!(ours.read_with(|mut stream| stream.read(&mut byte)));
                assert!(start(&mut read).await.is_none());
                if round % 2 == 0 {
                    let_others_run().await;
                }
                theirs.write_all(&[round]).unwrap();
                if round % 3 == 0 {
                    // The poll ends, and nobody hears of it.
                    let_others_run().await;
                }
            }
            let read = ours.read_with(|mut stream| stream.read(&mut byte));
            assert_eq!(timeout(SOON, read).await.unwrap().unwrap(), 1);
            assert_eq!(byte[0], round);
        }
        // What is dropped with a wait in flight is gone for good.
        let mut poll = ours.poll(libc::POLLIN);
        assert!(start(&mut poll).await.is_none());
        let ours = ours.into_inner();
        drop(poll);
        let_others_run().await;
        theirs.write_all(b"z").unwrap();
        assert_eq!((&ours).read(&mut [0; 4]).unwrap(), 1);
        drop(ours);
        while runtime.stats().in_flight_count > 0 {
            yield_now().await;
        }
        assert_eq!(theirs.read(&mut [0; 4]).unwrap(), 0, "nobody else has it open");
    });
}

fn an_end_and_an_error_are_ready(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, theirs) = pair();
        let mut readable = pin!(ours.readable());
        assert!(start(&mut readable).await.is_none());
        drop(theirs);
        let mut guard = timeout(SOON, readable).await.unwrap().unwrap();
        assert_eq!(guard.events() & libc::POLLHUP, libc::POLLHUP);
        assert_eq!(guard.try_io(|fd| fd.get_ref().read(&mut [0; 4])).unwrap().unwrap(), 0);
        let mut guard = timeout(SOON, ours.writable()).await.unwrap().unwrap();
        let error = guard.try_io(|fd| fd.get_ref().write(b"x")).unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

fn the_mode_stays_as_it_is(runtime: &Runtime) {
    runtime.block_on(async {
        for nonblocking in [false, true] {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            ours.set_nonblocking(nonblocking).unwrap();
            let ours = AsyncFd::new(ours).unwrap();
            theirs.write_all(b"x").unwrap();
            drop(ours.readable().await.unwrap());
            let is_nonblocking =
                |fd: &UnixStream| fcntl_getfl(fd).unwrap().contains(OFlags::NONBLOCK);
            assert_eq!(is_nonblocking(ours.get_ref()), nonblocking);
            assert_eq!(is_nonblocking(&ours.into_inner()), nonblocking);
        }
    });
}

fn what_is_inside_may_be_replaced(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut ours, mut theirs) = pair();
        let (other, _other_peer) = UnixStream::pair().unwrap();
        let before = std::mem::replace(ours.get_mut(), other);
        theirs.write_all(b"x").unwrap();
        drop(timeout(SOON, ours.readable()).await.unwrap().unwrap());
        drop(before);
        drop(ours);
    });
}

fn what_is_always_ready_lets_others_run(runtime: &Runtime) {
    runtime.block_on(async {
        let (ours, mut theirs) = pair();
        theirs.write_all(b"x").unwrap();
        let busy = spawn(async move {
            loop {
                drop(ours.readable().await.unwrap());
            }
        });
        let_others_run().await;
        assert!(!busy.is_finished());
        busy.abort();
    });
}

fn a_file_is_always_ready(runtime: &Runtime) {
    runtime.block_on(async {
        let file = AsyncFd::new(tempfile::tempfile().unwrap()).unwrap();
        drop(timeout(SOON, file.readable()).await.unwrap().unwrap());
        assert_eq!(file.write_with(|mut file| file.write(b"hello")).await.unwrap(), 5);
    });
}

fn no_descriptor_is_left_behind(runtime: &Runtime) {
    runtime.block_on(async {
        let settle = async || {
            while runtime.stats().in_flight_count > 0 {
                yield_now().await;
            }
        };
        let one_round = async || {
            let (ours, theirs) = pair();
            theirs.shutdown(Shutdown::Write).unwrap();
            fill(ours.get_ref());
            let mut write = pin!(ours.write_with(|mut stream| stream.write(b"hello")));
            assert!(start(&mut write).await.is_none());
            let_others_run().await;
        };
        one_round().await;
        settle().await;
        let before = fd_count();
        for _ in 0..20 {
            one_round().await;
        }
        settle().await;
        assert_eq!(fd_count(), before);
    });
}
