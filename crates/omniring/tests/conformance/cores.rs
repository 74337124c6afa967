//! Several cores: work moves by message, values stay where they are, and all of it ends.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use omniring::net::{TcpListener, TcpStream};
use omniring::time::sleep;
use omniring::{
    JoinError, Runtime, Sharded, core, core_count, on_all_cores, send_to, spawn_on, yield_now,
};
use omniring_driver::Cpus;

use crate::cancel::until;
use crate::harness::{conformance, fd_count, thread_count};

conformance! {
    a_task_runs_where_it_is_sent,
    messages_come_in_order_however_many,
    cores_talk_to_each_other_at_once,
    a_core_that_sleeps_is_woken,
    a_panic_on_another_core_comes_back,
    a_task_on_another_core_is_aborted,
    threads_outside_send_work,
    each_core_has_a_value_of_its_own,
    a_connection_is_handed_to_another_core,
    a_runtime_of_one_core_has_the_same_interface,
    a_core_that_panics_is_reported_and_the_others_go_on,
    each_core_stays_on_its_cpu_and_calls_that_block_do_not;
    isolated: cores_end_with_their_runtime,
    what_is_sent_to_cores_that_end_is_dropped,
    what_is_dropped_with_a_core_may_send,
}

fn with_cores(runtime: &Runtime, count: usize) -> Runtime {
    Runtime::builder().engine(runtime.engine()).cores(count).allow_unpolled(true).build().unwrap()
}

fn a_task_runs_where_it_is_sent(runtime: &Runtime) {
    let runtime = with_cores(runtime, 3);
    runtime.block_on(async {
        assert_eq!((core(), core_count()), (0, 3));
        for there in [0, 1, 2, 1] {
            let task = spawn_on(there, move || async move {
                yield_now().await;
                // Not `Send`, and it need not be.
                let here = Rc::new(core());
                sleep(Duration::from_micros(10)).await;
                (*here, std::thread::current().name().map(str::to_owned))
            });
            let (ran_on, name) = task.await.unwrap();
            assert_eq!(ran_on, there);
            if there > 0 {
                assert_eq!(name.unwrap(), format!("omniring-core-{there}"));
            }
        }
        let cores = on_all_cores(|core| async move { core * 2 }).await;
        assert_eq!(cores.into_iter().map(Result::unwrap).collect::<Vec<_>>(), [0, 2, 4]);
    });
}

fn messages_come_in_order_however_many(runtime: &Runtime) {
    // More than a mailbox holds.
    const COUNT: usize = 20_000;
    thread_local! {
        static NEXT: Cell<usize> = const { Cell::new(0) };
    }
    let runtime = with_cores(runtime, 2);
    runtime.block_on(async {
        for message in 0..COUNT {
            send_to(1, move || {
                assert_eq!(NEXT.get(), message);
                NEXT.set(message + 1);
            });
        }
        let counted = spawn_on(1, || async { NEXT.get() }).await.unwrap();
        assert_eq!(counted, COUNT, "what was sent before has arrived before");
    });
}

fn cores_talk_to_each_other_at_once(runtime: &Runtime) {
    const ROUNDS: usize = 200;
    let runtime = with_cores(runtime, 3);
    let sums = runtime.block_on(on_all_cores(|here| async move {
        let mut sum = 0;
        for round in 0..ROUNDS {
            let there = (here + round) % core_count();
            sum += spawn_on(there, move || async move { core() + 1 }).await.unwrap();
        }
        sum
    }));
    for (here, sum) in sums.into_iter().enumerate() {
        let expected: usize = (0..ROUNDS).map(|round| (here + round) % 3 + 1).sum();
        assert_eq!(sum.unwrap(), expected);
    }
}

fn a_core_that_sleeps_is_woken(runtime: &Runtime) {
    let runtime = with_cores(runtime, 2);
    runtime.block_on(async {
        for _ in 0..50 {
            // Both sleep in between.
            sleep(Duration::from_millis(1)).await;
            assert_eq!(spawn_on(1, || async { core() }).await.unwrap(), 1);
        }
    });
}

fn a_panic_on_another_core_comes_back(runtime: &Runtime) {
    let runtime = with_cores(runtime, 2);
    runtime.block_on(async {
        let task = spawn_on(1, || async { std::panic::resume_unwind(Box::new("in the task")) });
        let Err(JoinError::Panicked(payload)) = task.await.map(|(): ()| ()) else {
            panic!("it panicked")
        };
        assert_eq!(payload.downcast_ref(), Some(&"in the task"));
        let made = spawn_on(1, || -> std::future::Ready<()> {
            std::panic::resume_unwind(Box::new("in what makes it"))
        });
        assert!(matches!(made.await, Err(JoinError::Panicked(_))));
        send_to(1, || std::panic::resume_unwind(Box::new("in a message")));
        assert_eq!(spawn_on(1, || async { core() }).await.unwrap(), 1, "it goes on");
    });
    assert_eq!(runtime.panicked_cores(), []);
}

fn a_task_on_another_core_is_aborted(runtime: &Runtime) {
    let runtime = with_cores(runtime, 2);
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    runtime.block_on(async {
        let counted = Counted(dropped.clone());
        let mut task = spawn_on(1, move || async move {
            let _counted = counted;
            std::future::pending::<()>().await;
        });
        task.abort();
        assert!(matches!(task.await, Err(JoinError::Aborted)));
        assert_eq!(dropped.load(SeqCst), 1);
        // One whose handle is dropped runs on.
        let counted = Counted(dropped.clone());
        drop(spawn_on(1, move || async move {
            yield_now().await;
            drop(counted);
        }));
        until("it has run", || dropped.load(SeqCst) == 2).await;
    });
}

fn threads_outside_send_work(runtime: &Runtime) {
    let runtime = with_cores(runtime, 2);
    let handle = runtime.handle();
    assert_eq!(handle.core_count(), 2);
    let outside = std::thread::spawn(move || {
        let there = handle.spawn_on(1, || async { core() }).wait().unwrap();
        // The first core answers as long as somebody is in `block_on`.
        let here = handle.spawn_on(0, || async { core() }).wait().unwrap();
        (here, there)
    });
    runtime.block_on(async {
        until("the thread has its answers", || outside.is_finished()).await;
    });
    assert_eq!(outside.join().unwrap(), (0, 1));
}

fn each_core_has_a_value_of_its_own(runtime: &Runtime) {
    let runtime = with_cores(runtime, 3);
    let dropped = Arc::new(AtomicUsize::new(0));
    struct Value {
        made_on: usize,
        log: RefCell<Vec<usize>>,
        dropped: Arc<AtomicUsize>,
    }
    impl Drop for Value {
        fn drop(&mut self) {
            assert_eq!(core(), self.made_on, "dropped where it lives");
            self.dropped.fetch_add(1, SeqCst);
        }
    }
    runtime.block_on(async {
        let counter = dropped.clone();
        let make =
            move |made_on| Value { made_on, log: RefCell::default(), dropped: counter.clone() };
        let sharded = Sharded::new(make).await.unwrap();
        for number in 0..30 {
            sharded
                .with(number % 3, move |value| value.log.borrow_mut().push(number))
                .await
                .unwrap();
        }
        let sums = sharded.with_all(|core, value| {
            assert_eq!(core, value.made_on);
            value.log.borrow().iter().sum::<usize>()
        });
        let sums: Vec<_> = sums.await.into_iter().map(Result::unwrap).collect();
        assert_eq!(sums, [135, 145, 155]);
        assert_eq!(sharded.here().made_on, 0);
        let clone = sharded.clone();
        let from_there = spawn_on(2, move || async move { clone.here().log.borrow().len() });
        assert_eq!(from_there.await.unwrap(), 10);
        let later = sharded.with_async(1, |value| async move {
            yield_now().await;
            value.made_on
        });
        assert_eq!(later.await.unwrap(), 1);
        drop(sharded);
        until("each core has dropped its value", || dropped.load(SeqCst) == 3).await;
        let made = Sharded::new(|core| {
            if core == 1 {
                std::panic::resume_unwind(Box::new("no value"));
            }
        });
        assert!(matches!(made.await, Err(JoinError::Panicked(_))));
    });
}

fn a_connection_is_handed_to_another_core(runtime: &Runtime) {
    let runtime = with_cores(runtime, 2);
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let server = server.into_std().unwrap();
        let served = spawn_on(1, move || async move {
            let server = TcpStream::from_std(server);
            let lease = server.recv().await.unwrap();
            server.send_all(lease).await.0.unwrap();
            core()
        });
        client.send_all("to the other core").await.0.unwrap();
        let (result, buf) = client.recv_into(Vec::with_capacity(100)).await;
        assert_eq!((result.unwrap(), &buf[..]), (17, &b"to the other core"[..]));
        assert_eq!(served.await.unwrap(), 1);
    });
}

fn a_runtime_of_one_core_has_the_same_interface(runtime: &Runtime) {
    runtime.block_on(async {
        assert_eq!((core(), core_count()), (0, 1));
        assert_eq!(spawn_on(0, || async { 7 }).await.unwrap(), 7);
        let cell = Sharded::new(Cell::new).await.unwrap();
        cell.with(0, |cell| cell.set(5)).await.unwrap();
        assert_eq!(cell.here().get(), 5);
        assert_eq!(on_all_cores(|core| async move { core }).await.len(), 1);
    });
}

fn a_core_that_panics_is_reported_and_the_others_go_on(runtime: &Runtime) {
    /// Not a task's, whose panics are the task's own: the core itself calls this one.
    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            std::panic::resume_unwind(Box::new("in a waker"));
        }
    }
    let several = with_cores(runtime, 3);
    several.block_on(async {
        let waiting = spawn_on(1, std::future::pending::<()>);
        drop(spawn_on(1, || async {
            let waker = std::task::Waker::from(Arc::new(Panics));
            let mut sleep = Box::pin(sleep(Duration::from_millis(1)));
            let polled = sleep.as_mut().poll(&mut std::task::Context::from_waker(&waker));
            assert!(polled.is_pending());
            std::future::pending::<()>().await;
        }));
        assert!(matches!(waiting.await, Err(JoinError::Aborted)), "its core has ended");
        let late = spawn_on(1, || async {});
        assert!(matches!(late.await, Err(JoinError::Aborted)));
        assert_eq!(spawn_on(2, || async { core() }).await.unwrap(), 2);
        let outputs = on_all_cores(|core| async move { core }).await;
        assert_eq!(outputs.iter().filter(|output| output.is_ok()).count(), 2);
    });
    assert_eq!(several.panicked_cores(), [1]);
}

fn each_core_stays_on_its_cpu_and_calls_that_block_do_not(runtime: &Runtime) {
    let here = || Cpus::of_this_thread().unwrap().numbers();
    let allowed = here();
    let several = with_cores(runtime, 2);
    let cpus = several.block_on(on_all_cores(move |_| async move {
        let blocking = omniring::spawn_blocking(here).await.unwrap();
        (here(), blocking)
    }));
    for (core, cpus) in cpus.into_iter().enumerate() {
        let (on_core, blocking) = cpus.unwrap();
        assert_eq!(on_core, [allowed[core % allowed.len()]]);
        assert_eq!(blocking, allowed);
    }
    drop(several);
    assert_eq!(here(), allowed, "as before");
    let free = Runtime::builder().engine(runtime.engine()).cores(2).pin_cores(false);
    let free = free.allow_unpolled(true).build().unwrap();
    let there = free.block_on(async { spawn_on(1, move || async move { here() }).await });
    assert_eq!(there.unwrap(), allowed);
}

fn cores_end_with_their_runtime(runtime: &Runtime) {
    let rounds = if cfg!(debug_assertions) { 20 } else { 1000 };
    drop(with_cores(runtime, 2));
    let before = (fd_count(), thread_count());
    for round in 0..rounds {
        let several = with_cores(runtime, 2);
        several.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            for _ in 0..3 {
                // In flight when it ends, on both cores.
                drop(omniring::spawn(async move { drop(TcpStream::connect(address).await) }));
                drop(spawn_on(1, move || async move {
                    let stream = TcpStream::connect(address).await.unwrap();
                    drop(stream.recv().await);
                }));
                drop(spawn_on(1, || sleep(Duration::from_secs(1000))));
            }
            if round % 2 == 0 {
                drop(listener.accept().await.unwrap());
            }
        });
    }
    let deadline = omniring::time::now() + Duration::from_secs(10);
    while (fd_count(), thread_count()) > before && omniring::time::now() < deadline {
        std::thread::yield_now();
    }
    assert!(fd_count() <= before.0 && thread_count() <= before.1, "{before:?} before");
}

fn what_is_sent_to_cores_that_end_is_dropped(runtime: &Runtime) {
    let counter = Arc::new(());
    let several = with_cores(runtime, 2);
    let handle = several.handle();
    several.block_on(async {
        for _ in 0..5000 {
            let counter = counter.clone();
            send_to(1, move || drop(counter));
        }
    });
    drop(several);
    assert_eq!(Arc::strong_count(&counter), 1);
    let late = counter.clone();
    let task = handle.spawn_on(1, move || async move { drop(late) });
    assert!(!task.is_core_running());
    assert!(matches!(task.wait(), Err(JoinError::Aborted)));
    let late = counter.clone();
    handle.send_to(0, move || drop(late));
    assert_eq!(Arc::strong_count(&counter), 1);
}

/// Sends to every core when it is dropped, as the last handle of a `Sharded` does.
struct Farewell(Arc<AtomicUsize>);

impl Drop for Farewell {
    fn drop(&mut self) {
        if omniring::in_runtime() {
            (0..core_count()).for_each(|core| send_to(core, || {}));
        }
        self.0.fetch_add(1, SeqCst);
    }
}

fn what_is_dropped_with_a_core_may_send(runtime: &Runtime) {
    const COUNT: usize = 2000;
    let dropped = Arc::new(AtomicUsize::new(0));
    let several = with_cores(runtime, 2);
    let values = several.block_on(async {
        let farewell = || Farewell(dropped.clone());
        let made = dropped.clone();
        let values = Sharded::new(move |_| Farewell(made.clone())).await.unwrap();
        for _ in 0..COUNT {
            let (here, there) = (farewell(), farewell());
            send_to(0, move || drop(here));
            send_to(1, move || drop(there));
        }
        let waits = farewell();
        drop(spawn_on(1, move || async move {
            std::future::pending::<()>().await;
            drop(waits);
        }));
        values
    });
    // It takes the values along, whose handle is there still.
    drop(several);
    drop(values);
    assert_eq!(dropped.load(SeqCst), 2 * COUNT + 1 + 2);
    assert_eq!(Arc::strong_count(&dropped), 1);
}
