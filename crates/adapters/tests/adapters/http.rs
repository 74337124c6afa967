//! hyper's executor and timer.

use std::cell::Cell;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use hyper::rt::{Executor as _, Timer as _};
use omniring::Runtime;
use omniring::time::{now, timeout};
use omniring_adapters::http::{Executor, Timer};

use crate::harness::conformance;
use crate::site::settle;

conformance!(
    tasks_need_not_be_send,
    a_sleep_can_be_set_to_another_time,
    a_sleep_may_be_dropped_on_another_thread,
);

fn tasks_need_not_be_send(runtime: &Runtime) {
    runtime.block_on(async {
        let count = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let count = count.clone();
            Executor.execute(async move { count.set(count.get() + 1) });
        }
        settle(runtime).await;
        assert_eq!(count.get(), 10);
    });
}

fn a_sleep_can_be_set_to_another_time(runtime: &Runtime) {
    runtime.block_on(async {
        let start = now();
        let mut sleep = Timer.sleep(Duration::from_secs(3600));
        assert!(timeout(Duration::from_millis(1), sleep.as_mut()).await.is_err());
        Timer.reset(&mut sleep, start + Duration::from_millis(10));
        timeout(Duration::from_secs(5), sleep.as_mut()).await.expect("much earlier than an hour");
        assert!(now() - start >= Duration::from_millis(10));
        Timer.sleep_until(start).await;
        assert!(Timer.now() >= start);
    });
}

fn a_sleep_may_be_dropped_on_another_thread(runtime: &Runtime) {
    runtime.block_on(async {
        let mut sleep = Timer.sleep(Duration::from_millis(10));
        let polled = poll_fn(|cx| Poll::Ready(sleep.as_mut().poll(cx)));
        // Armed, as a rule; a slow machine may have taken that long.
        let _ = polled.await;
        std::thread::spawn(move || drop(sleep)).join().unwrap();
        // It fires, for nobody.
        omniring::time::sleep(Duration::from_millis(11)).await;
    });
}
