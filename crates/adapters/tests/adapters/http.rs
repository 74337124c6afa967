//! hyper's executor and timer, and its way to write.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};
use std::time::Duration;

use hyper::rt::{Executor as _, Read, Timer as _, Write};
use omniring::net::TcpSocket;
use omniring::time::{now, timeout};
use omniring::{Runtime, spawn, yield_now};
use omniring_adapters::StreamIo;
use omniring_adapters::http::{Executor, Timer};

use crate::harness::conformance;
use crate::site::{listener, pattern, settle};

conformance!(
    tasks_need_not_be_send,
    a_sleep_can_be_set_to_another_time,
    a_sleep_may_be_dropped_on_another_thread,
    what_a_flush_left_to_the_engine_arrives,
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

/// hyper's way: whoever writes flushes, goes on to reading when the flush says so, and looks after the
/// writing whenever it is woken.
fn what_a_flush_left_to_the_engine_arrives(runtime: &Runtime) {
    const ROUNDS: usize = 50;
    const ROUND_LEN: usize = 20_000;
    runtime.block_on(async {
        let (listener, addr) = listener().await;
        let socket = TcpSocket::new_v4().await.unwrap();
        // So that the socket takes a part of a send only, again and again.
        socket.set_send_buffer_size(4096).unwrap();
        let stream = socket.connect(addr).await.unwrap();
        let (peer, _) = listener.accept().await.unwrap();
        let reader = spawn(async move {
            let mut all = Vec::with_capacity(ROUNDS * ROUND_LEN);
            for round in 1..=ROUNDS {
                while all.len() < round * ROUND_LEN {
                    yield_now().await;
                    all.extend_from_slice(&peer.recv().await.unwrap());
                }
                peer.send_all("thanks").await.0.unwrap();
            }
            all
        });
        let bytes = pattern(ROUNDS * ROUND_LEN);
        let mut io = StreamIo::new(stream);
        for mut left in bytes.chunks(ROUND_LEN) {
            let answer = poll_fn(|cx| {
                while !left.is_empty() {
                    let piece = &left[..left.len().min(4000)];
                    let written = ready!(Write::poll_write(Pin::new(&mut io), cx, piece)).unwrap();
                    left = &left[written..];
                }
                let _ = Write::poll_flush(Pin::new(&mut io), cx).map(Result::unwrap);
                let mut room = [0; 16];
                let mut buf = hyper::rt::ReadBuf::new(&mut room);
                ready!(Read::poll_read(Pin::new(&mut io), cx, buf.unfilled())).unwrap();
                Poll::Ready(buf.filled().to_vec())
            });
            let answer = timeout(Duration::from_secs(10), answer).await.expect("nothing is stuck");
            assert_eq!(answer, b"thanks");
        }
        assert!(reader.await.unwrap() == bytes);
        assert!(io.into_socket().is_ok(), "all is sent");
    });
}
