//! Runtimes: how they end, with whatever is in flight, and that several get along.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use omniring::buf::AlignedBuf;
use omniring::fs::{File, OpenOptions};
use omniring::net::{TcpStream, UdpSocket, UnixStream};
use omniring::time::{now, sleep, timeout};
use omniring::{AsyncRead, Engine, Runtime, spawn, spawn_blocking, yield_now};

use crate::harness::{conformance, disk_dir, fd_count, thread_count};
use crate::loopback::{listener, poll_once, start, tcp_pair};

conformance!(
    block_on_again_goes_on,
    several_runtimes_run_on_several_threads,
    two_runtimes_of_one_thread_take_turns,
    block_on_inside_of_block_on_panics_and_says_why,
    a_panic_in_block_on_leaves_the_runtime_usable,
    a_runtime_is_dropped_inside_of_another,
    a_future_polled_after_its_runtime_ended_is_cancelled,
    a_future_dropped_after_its_runtime_ended_frees_its_buffer,
    handles_that_outlive_their_runtime_cancel_their_ops,
    a_destructor_that_spawns_at_shutdown_is_harmless,
    a_destructor_that_starts_ops_at_shutdown_is_harmless,
    a_task_that_holds_its_own_handle_ends_with_the_runtime,
    what_needs_a_runtime_says_so_outside_of_one,
    one_queue_entry_is_enough,
    more_ops_than_queue_entries_all_complete;
    isolated:
    ending_with_a_thousand_ops_in_flight_is_quick_and_leaks_nothing,
    ending_with_tasks_that_hold_handles_closes_them,
    handles_that_outlive_their_runtime_close,
    a_thousand_runtimes_after_each_other_leave_nothing,
);

const SOON: Duration = Duration::from_secs(20);

fn another(engine: Engine) -> Runtime {
    Runtime::builder().engine(engine).build().unwrap()
}

fn block_on_again_goes_on(runtime: &Runtime) {
    let (client, server) = runtime.block_on(tcp_pair());
    let task = runtime.spawn(async move { server.recv_into(vec![0; 8]).await.0.unwrap() });
    runtime.block_on(yield_now());
    for _ in 0..3 {
        assert_eq!(runtime.block_on(async { 5 }), 5);
    }
    runtime.block_on(async { client.send_all("x").await.0.unwrap() });
    assert_eq!(runtime.block_on(async { timeout(SOON, task).await.unwrap().unwrap() }), 1);
}

fn several_runtimes_run_on_several_threads(runtime: &Runtime) {
    let engine = runtime.engine();
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                another(engine).block_on(async {
                    let (client, server) = tcp_pair().await;
                    for round in 0..100u8 {
                        client.send_all(vec![round]).await.0.unwrap();
                        let (result, buf) = server.recv_into(vec![0]).await;
                        assert_eq!((result.unwrap(), buf[0]), (1, round));
                    }
                })
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

fn two_runtimes_of_one_thread_take_turns(runtime: &Runtime) {
    let other = another(runtime.engine());
    let (client, server) = runtime.block_on(tcp_pair());
    let (other_client, other_server) = other.block_on(tcp_pair());
    let mut recv = server.recv_into(vec![0; 8]);
    let mut other_recv = other_server.recv_into(vec![0; 8]);
    assert!(runtime.block_on(start(&mut recv)).is_none());
    assert!(other.block_on(start(&mut other_recv)).is_none());
    runtime.block_on(async { client.send_all("one").await.0.unwrap() });
    other.block_on(async { other_client.send_all("other").await.0.unwrap() });
    assert_eq!(other.block_on(other_recv).0.unwrap(), 5);
    assert_eq!(runtime.block_on(recv).0.unwrap(), 3);
    // A task of one wakes a task of the other.
    let (send, receive) = omniring::sync::oneshot::channel();
    let waiting = other.spawn(receive);
    other.block_on(yield_now());
    runtime.block_on(async { spawn(async { send.send(1).unwrap() }).await.unwrap() });
    assert_eq!(other.block_on(waiting).unwrap().unwrap(), 1);
}

fn message(payload: Box<dyn std::any::Any + Send>) -> String {
    match payload.downcast::<String>() {
        Ok(message) => *message,
        Err(payload) => payload.downcast_ref::<&str>().unwrap().to_string(),
    }
}

fn block_on_inside_of_block_on_panics_and_says_why(runtime: &Runtime) {
    let other = another(runtime.engine());
    for inner in [runtime, &other] {
        runtime.block_on(async {
            let panic = catch_unwind(AssertUnwindSafe(|| inner.block_on(async {}))).unwrap_err();
            let message = message(panic);
            assert!(message.contains("cannot run inside of another"), "{message}");
            // Neither took harm.
            assert_eq!(spawn(async { 1 }).await.unwrap(), 1);
        });
        assert_eq!(inner.block_on(async { spawn(async { 2 }).await.unwrap() }), 2);
    }
}

fn a_panic_in_block_on_leaves_the_runtime_usable(runtime: &Runtime) {
    let (client, server) = runtime.block_on(tcp_pair());
    let waiting = runtime.spawn({
        let server = server.clone();
        async move { server.recv_into(vec![0; 8]).await.0.unwrap() }
    });
    for _ in 0..3 {
        let panic = catch_unwind(AssertUnwindSafe(|| {
            runtime.block_on(async {
                let mut recv = client.recv_into(vec![0; 64]);
                assert!(start(&mut recv).await.is_none());
                // With an op in flight and a timer armed.
                let mut timer = sleep(SOON);
                assert!(poll_once(&mut timer).await.is_pending());
                panic!("in the middle");
            })
        }));
        assert_eq!(message(panic.unwrap_err()), "in the middle");
    }
    runtime.block_on(async {
        client.send_all("x").await.0.unwrap();
        assert_eq!(timeout(SOON, waiting).await.unwrap().unwrap(), 1);
        server.send_all("y").await.0.unwrap();
        assert_eq!(timeout(SOON, client.recv_into(vec![0; 8])).await.unwrap().0.unwrap(), 1);
    });
}

fn a_runtime_is_dropped_inside_of_another(runtime: &Runtime) {
    let dropped = Rc::new(());
    runtime.block_on(async {
        let other = another(runtime.engine());
        let held = dropped.clone();
        drop(other.spawn(async move {
            let _held = held;
            std::future::pending::<()>().await;
        }));
        let queued = spawn(async { 1 });
        drop(other);
        assert_eq!(Rc::strong_count(&dropped), 1);
        // This one runs on.
        assert_eq!(queued.await.unwrap(), 1);
        sleep(Duration::from_millis(1)).await;
    });
}

#[allow(clippy::async_yields_async, reason = "the call is awaited after the runtime ended")]
fn a_future_polled_after_its_runtime_ended_is_cancelled(runtime: &Runtime) {
    let ended = another(runtime.engine());
    let (client, _server) = ended.block_on(tcp_pair());
    let mut in_flight = client.recv_into(vec![7; 64]);
    assert!(ended.block_on(start(&mut in_flight)).is_none());
    let not_begun = client.recv_into(vec![7; 32]);
    let blocking = ended.block_on(async { spawn_blocking(|| 5) });
    drop(ended);
    runtime.block_on(async {
        let (result, buf) = timeout(SOON, in_flight).await.unwrap();
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert_eq!(buf, [7; 64]);
        let (result, buf) = timeout(SOON, not_begun).await.unwrap();
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        assert_eq!(buf, [7; 32]);
        // It ran, or it did not.
        match timeout(SOON, blocking).await.unwrap() {
            Ok(number) => assert_eq!(number, 5),
            Err(error) => assert!(error.is_aborted()),
        }
    });
}

fn a_future_dropped_after_its_runtime_ended_frees_its_buffer(runtime: &Runtime) {
    let data: std::sync::Arc<[u8]> = vec![1u8; 4 << 20].into();
    let ended = another(runtime.engine());
    let (client, _server) = ended.block_on(tcp_pair());
    // Nobody receives: the socket fills up and the last one waits.
    let mut sends: Vec<_> = (0..8).map(|_| client.send(data.clone())).collect();
    ended.block_on(async {
        for send in &mut sends {
            let _ = start(send).await;
        }
    });
    assert!(ended.stats().in_flight_count > 0);
    drop(ended);
    drop(sends);
    assert_eq!(std::sync::Arc::strong_count(&data), 1);
}

fn handles_that_outlive_their_runtime_cancel_their_ops(runtime: &Runtime) {
    let ended = another(runtime.engine());
    let (client, server) = ended.block_on(tcp_pair());
    let (file, listener, udp) = ended.block_on(async {
        let file = File::open("/proc/self/exe").await.unwrap();
        (file, listener().await, UdpSocket::bind("127.0.0.1:0").await.unwrap())
    });
    drop(ended);
    runtime.block_on(async {
        let canceled = |result: std::io::Result<()>| {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
        };
        canceled(client.send("x").await.0.map(drop));
        canceled(server.recv_into(vec![0; 8]).await.0.map(drop));
        canceled(client.shutdown(std::net::Shutdown::Both).await);
        canceled(file.read_at(vec![0; 8], 0).await.0.map(drop));
        canceled(file.sync_all().await);
        canceled(file.metadata().await.map(drop));
        canceled(listener.accept().await.map(drop));
        canceled(udp.recv_from_into(vec![0; 8]).await.0.map(drop));
        // What asks no engine works on.
        client.local_addr().unwrap();
        // And a socket can be handed on to a runtime that is there.
        let client = TcpStream::from_std(client.into_std().unwrap());
        let server = TcpStream::from_std(server.into_std().unwrap());
        client.send_all("moved").await.0.unwrap();
        assert_eq!(server.recv_into(vec![0; 8]).await.0.unwrap(), 5);
    });
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

fn a_destructor_that_spawns_at_shutdown_is_harmless(runtime: &Runtime) {
    let (dropped, ran) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(0)));
    let ended = another(runtime.engine());
    for _ in 0..10 {
        let (dropped, ran) = (dropped.clone(), ran.clone());
        drop(ended.spawn(async move {
            let _spawns = OnDrop(move || {
                let (dropped, ran) = (DropCounter(dropped.clone()), ran.clone());
                drop(spawn(async move {
                    let _dropped = dropped;
                    ran.set(ran.get() + 1);
                }));
                drop(spawn_blocking(|| ()));
            });
            std::future::pending::<()>().await;
        }));
    }
    ended.block_on(yield_now());
    drop(ended);
    assert_eq!((dropped.get(), ran.get()), (10, 0), "dropped without having run");
}

struct DropCounter(Rc<Cell<i32>>);

impl Drop for DropCounter {
    fn drop(&mut self) {
        self.0.set(self.0.get() + 1);
    }
}

fn a_destructor_that_starts_ops_at_shutdown_is_harmless(runtime: &Runtime) {
    let ended = another(runtime.engine());
    ended.block_on(async {
        for _ in 0..10 {
            let (client, server) = tcp_pair().await;
            drop(spawn(async move {
                let mut late = client.recv_into(vec![0; 64]);
                let _starts = OnDrop(move || {
                    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
                    let _ = std::future::Future::poll(std::pin::Pin::new(&mut late), &mut cx);
                });
                server.recv_into(vec![0; 64]).await.0.unwrap();
            }));
        }
        yield_now().await;
    });
    let begin = now();
    drop(ended);
    assert!(begin.elapsed() < Duration::from_secs(2), "{:?}", begin.elapsed());
}

fn a_task_that_holds_its_own_handle_ends_with_the_runtime(runtime: &Runtime) {
    let ended = another(runtime.engine());
    let dropped = Rc::new(Cell::new(0));
    let slot = Rc::new(RefCell::new(None));
    let task = ended.spawn({
        let (slot, dropped) = (slot.clone(), DropCounter(dropped.clone()));
        async move {
            let _held = (slot, dropped);
            std::future::pending::<()>().await;
        }
    });
    *slot.borrow_mut() = Some(task);
    ended.block_on(yield_now());
    drop(ended);
    assert_eq!(dropped.get(), 1);
    drop(slot);
}

fn what_needs_a_runtime_says_so_outside_of_one(_: &Runtime) {
    let panic = catch_unwind(|| drop(spawn(async {}))).unwrap_err();
    assert!(message(panic).contains("needs a runtime"));
    let panic = catch_unwind(|| drop(spawn_blocking(|| ()))).unwrap_err();
    assert!(message(panic).contains("needs a runtime"));
    let panic = catch_unwind(|| drop(UnixStream::pair())).unwrap_err();
    assert!(message(panic).contains("needs a runtime"));
}

fn one_queue_entry_is_enough(runtime: &Runtime) {
    let small = Runtime::builder().engine(runtime.engine()).queue_entries(1).build().unwrap();
    in_flight_all_complete(&small, 200);
}

fn more_ops_than_queue_entries_all_complete(runtime: &Runtime) {
    let small = Runtime::builder().engine(runtime.engine()).queue_entries(8).build().unwrap();
    in_flight_all_complete(&small, 2000);
}

/// Has so many receives and reads in flight at once, and sees all of them complete.
fn in_flight_all_complete(runtime: &Runtime, count: usize) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![5u8; 1 << 16]).unwrap();
    runtime.block_on(async {
        let file = Rc::new(File::open(&path).await.unwrap());
        let (one, other) = UnixStream::pair().unwrap();
        let receives: Vec<_> = (0..count)
            .map(|_| {
                let other = other.clone();
                spawn(async move { other.recv_into(vec![0; 1]).await.0.unwrap() })
            })
            .collect();
        let reads: Vec<_> = (0..count)
            .map(|number| {
                let file = file.clone();
                spawn(async move {
                    let (result, buf) = file.read_at(vec![0; 16], number as u64 % 1000).await;
                    assert_eq!((result.unwrap(), &buf[..]), (16, &[5u8; 16][..]));
                })
            })
            .collect();
        for read in reads {
            timeout(SOON, read).await.unwrap().unwrap();
        }
        // Half are served, the other half cancelled: neither is lost in a full queue.
        one.send_all(vec![1; count / 2]).await.0.unwrap();
        let mut served = 0;
        timeout(SOON, async {
            loop {
                served = receives.iter().filter(|receive| receive.is_finished()).count();
                if served == count / 2 {
                    break;
                }
                yield_now().await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("{served} of {}", count / 2));
        receives.iter().for_each(|receive| receive.abort());
        for receive in receives {
            match timeout(SOON, receive).await.unwrap() {
                Ok(received) => assert_eq!(received, 1),
                Err(error) => assert!(error.is_aborted()),
            }
        }
        timeout(SOON, async {
            while runtime.stats().in_flight_count > 0 {
                yield_now().await;
            }
        })
        .await
        .unwrap();
    });
}

fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// A thread that has been joined, or has just returned from a call of the user's, may take a
/// moment to be gone from the process; the notifier's descriptor goes with it.
fn assert_settles(count: fn() -> usize, at_most: usize) {
    let deadline = now() + SOON;
    while count() > at_most {
        assert!(now() < deadline, "{} are left, {at_most} before", count());
        std::thread::yield_now();
    }
}

/// Leaves a thousand ops of many kinds in flight, and ends: the time that took.
fn end_with_a_thousand_in_flight(engine: Engine, path: &std::path::Path) -> Duration {
    let ended = another(engine);
    let pipes: Vec<_> = (0..100).map(|_| std::io::pipe().unwrap()).collect();
    ended.block_on(async {
        let direct = match OpenOptions::new().read(true).direct(true).open(path).await {
            Ok(file) => file,
            // The file system has no O_DIRECT.
            Err(_) => File::open(path).await.unwrap(),
        };
        let direct = Rc::new(direct);
        let listener = listener().await;
        let (client, server) = tcp_pair().await;
        let udp = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        for (number, (reader, _)) in (0..).zip(&pipes) {
            let mut reader = File::from_fd(reader.try_clone().unwrap().into());
            drop(spawn(async move { drop(reader.read(vec![0; 64]).await) }));
            let direct = direct.clone();
            drop(spawn(async move {
                let at = number % 16 * 4096;
                let _ = direct.read_at(AlignedBuf::new(4096, 4096), at).await;
                sleep(SOON * 10).await;
            }));
            for _ in 0..2 {
                let listener = listener.clone();
                drop(spawn(async move { drop(listener.accept().await) }));
                let server = server.clone();
                drop(spawn(async move { drop(server.recv_into(vec![0; 64]).await) }));
                let udp = udp.clone();
                drop(spawn(async move { drop(udp.recv_from_into(vec![0; 64]).await) }));
                let client = client.clone();
                drop(spawn(async move { drop(client.poll(libc::POLLPRI).await) }));
            }
            let client = client.clone();
            drop(spawn(async move {
                let _ = timeout(SOON * 100, client.recv_into(vec![0; 64])).await;
            }));
        }
        // As many turns as it takes to poll every task once.
        let begun = async {
            while ended.stats().in_flight_count < 1000 {
                yield_now().await;
            }
        };
        timeout(SOON, begun).await.unwrap_or_else(|_| panic!("{:?}", ended.stats()));
        // Some are dropped just before the end: their cancels are on the way.
        let mut dropped: Vec<_> = (0..200).map(|_| client.recv_into(vec![0; 64])).collect();
        for recv in &mut dropped {
            assert!(poll_once(recv).await.is_pending());
        }
        yield_now().await;
        drop(dropped);
    });
    let begin = now();
    drop(ended);
    begin.elapsed()
}

fn ending_with_a_thousand_ops_in_flight_is_quick_and_leaks_nothing(runtime: &Runtime) {
    let dir = disk_dir();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![1u8; 1 << 16]).unwrap();
    let (fds, threads) = (fd_count(), thread_count());
    let mut resident = 0;
    for round in 0..50 {
        let time = end_with_a_thousand_in_flight(runtime.engine(), &path);
        assert!(time < Duration::from_secs(2), "{time:?}");
        assert_settles(fd_count, fds);
        assert_settles(thread_count, threads);
        if round == 9 {
            resident = resident_kib();
        }
    }
    let after = resident_kib();
    // Forty rounds: even 200 bytes lost with each op would be 8 MiB.
    assert!(after < resident + 6 * 1024, "{resident} KiB, then {after} KiB");
}

fn ending_with_tasks_that_hold_handles_closes_them(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let before = fd_count();
    for _ in 0..20 {
        let ended = another(runtime.engine());
        ended.block_on(async {
            for _ in 0..20 {
                let file = File::create(&path).await.unwrap();
                let (client, server) = tcp_pair().await;
                let receiver = server.clone();
                drop(spawn(async move {
                    let _held = (file, client, server);
                    std::future::pending::<()>().await;
                }));
                drop(spawn(async move { drop(receiver.recv_into(vec![0; 8]).await) }));
            }
            yield_now().await;
            // Not even begun: an open and an accept whose results nobody takes.
            let listener = listener().await;
            let peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            {
                let mut open = pin!(File::open(&path));
                let mut accept = pin!(listener.accept());
                let _ = poll_once(&mut open).await;
                let _ = poll_once(&mut accept).await;
            }
            drop(peer);
        });
        drop(ended);
        assert_settles(fd_count, before);
    }
}

fn handles_that_outlive_their_runtime_close(runtime: &Runtime) {
    let before = fd_count();
    for _ in 0..20 {
        let ended = another(runtime.engine());
        let handles = ended.block_on(async {
            let (client, server) = tcp_pair().await;
            (client, server, listener().await, File::open("/proc/self/exe").await.unwrap())
        });
        drop(ended);
        // Those four, and what wakes the driver that they still refer to.
        assert_settles(fd_count, before + 5);
        let (client, server, listener, file) = handles;
        drop((server, listener));
        runtime.block_on(async {
            let _ = client.close().await;
            let _ = file.close().await;
        });
        assert_settles(fd_count, before);
    }
}

fn a_thousand_runtimes_after_each_other_leave_nothing(runtime: &Runtime) {
    let cycle = |round: u32| {
        let next = another(runtime.engine());
        next.block_on(async {
            assert_eq!(spawn(async move { round }).await.unwrap(), round);
            let (one, other) = UnixStream::pair().unwrap();
            one.send_all("x").await.0.unwrap();
            assert_eq!(other.recv_into(vec![0; 8]).await.0.unwrap(), 1);
            if round.is_multiple_of(10) {
                assert_eq!(spawn_blocking(|| 1).await.unwrap(), 1);
                let mut recv = other.recv_into(vec![0; 8]);
                assert!(start(&mut recv).await.is_none());
            }
        });
    };
    let (fds, threads) = (fd_count(), thread_count());
    // On a busy machine fewer have to do.
    let deadline = now() + SOON;
    (0..1000).take_while(|&round| round < 100 || now() < deadline).for_each(cycle);
    assert_settles(fd_count, fds);
    assert_settles(thread_count, threads);
}
