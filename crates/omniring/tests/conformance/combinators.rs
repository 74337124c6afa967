//! `select!` and `join!` with our futures, which are not `Send`: nothing that the documentation calls
//! safe to drop is lost, and what is dropped is cancelled.

use std::cell::Cell;
use std::future::pending;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use omniring::future::FutureExt;
use omniring::net::TcpStream;
use omniring::time::{interval, sleep, timeout};
use omniring::{Runtime, join, select, select_biased, spawn, try_join, yield_now};

use crate::harness::conformance;
use crate::loopback::{listener, poll_once, tcp_pair};

conformance!(
    a_receive_that_is_kept_goes_on_in_the_next_select,
    a_receive_of_a_lease_made_anew_each_time_loses_nothing,
    a_connection_waited_for_anew_each_time_is_not_lost,
    a_tick_waited_for_anew_each_time_is_not_lost,
    what_a_select_drops_is_cancelled,
    a_biased_select_takes_the_first_that_is_ready,
    an_unbiased_select_takes_each_in_time,
    a_join_has_all_its_ops_in_flight_at_once,
    a_join_waits_for_the_last,
    a_try_join_drops_the_others_at_the_first_error,
);

const SOON: Duration = Duration::from_secs(30);

fn a_receive_that_is_kept_goes_on_in_the_next_select(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        for round in 0..20u8 {
            let mut received = pin!(server.recv_into(Vec::with_capacity(8)).fuse());
            let mut yields = 0u64;
            let (count, buf) = loop {
                select! {
                    (result, buf) = received => break (result.unwrap(), buf),
                    () = yield_now().fuse() => yields += 1,
                }
                if yields == u64::from(round) + 1 {
                    client.send_all(vec![round; 3]).await.0.unwrap();
                }
            };
            assert_eq!((count, buf), (3, vec![round; 3]));
        }
    });
}

fn a_receive_of_a_lease_made_anew_each_time_loses_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        const BYTES: usize = 2000;
        let (client, server) = tcp_pair().await;
        let sender = spawn(async move {
            for at in 0..BYTES {
                client.send_all(vec![at as u8]).await.0.unwrap();
                if at % 3 == 0 {
                    yield_now().await;
                }
            }
        });
        let mut received = Vec::new();
        let receive = async {
            while received.len() < BYTES {
                // Either may win, and the other is dropped.
                select! {
                    lease = server.recv().fuse() => received.extend_from_slice(&lease.unwrap()),
                    () = yield_now().fuse() => {}
                }
            }
        };
        timeout(SOON, receive).await.unwrap();
        assert!(received.iter().enumerate().all(|(at, byte)| *byte == at as u8));
        sender.await.unwrap();
    });
}

fn a_connection_waited_for_anew_each_time_is_not_lost(runtime: &Runtime) {
    runtime.block_on(async {
        const CONNECTIONS: usize = 30;
        let listener = listener().await;
        let addr = listener.local_addr().unwrap();
        let connecting = spawn(async move {
            let mut streams = Vec::new();
            for _ in 0..CONNECTIONS {
                streams.push(TcpStream::connect(addr).await.unwrap());
            }
            streams
        });
        let mut incoming = listener.incoming();
        let mut accepted = Vec::new();
        let accept = async {
            while accepted.len() < CONNECTIONS {
                select! {
                    stream = incoming.next().fuse() => accepted.push(stream.unwrap()),
                    () = yield_now().fuse() => {}
                }
            }
        };
        timeout(SOON, accept).await.unwrap();
        // Each is one of them.
        let streams = connecting.await.unwrap();
        for stream in &streams {
            stream.send_all("x").await.0.unwrap();
        }
        for stream in &accepted {
            assert_eq!(&stream.recv().await.unwrap()[..], b"x");
        }
    });
}

fn a_tick_waited_for_anew_each_time_is_not_lost(runtime: &Runtime) {
    runtime.block_on(async {
        let period = Duration::from_millis(2);
        let mut ticks = interval(period);
        let first = ticks.tick().await;
        let mut seen = 0;
        let count = async {
            while seen < 5 {
                select! {
                    due = ticks.tick().fuse() => {
                        seen += 1;
                        assert_eq!(due, first + period * seen);
                    }
                    () = yield_now().fuse() => {}
                }
            }
        };
        timeout(SOON, count).await.unwrap();
    });
}

fn what_a_select_drops_is_cancelled(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        let before = runtime.stats().in_flight_count;
        for _ in 0..10 {
            select! {
                _ = server.recv_into(vec![0; 8]).fuse() => panic!("nothing was sent"),
                () = sleep(Duration::from_micros(100)).fuse() => {}
            }
        }
        let none_left = async {
            while runtime.stats().in_flight_count > before {
                yield_now().await;
            }
        };
        timeout(SOON, none_left).await.unwrap();
        client.send_all("x").await.0.unwrap();
        assert_eq!(server.recv_into(vec![0; 8]).await.0.unwrap(), 1);
    });
}

fn a_biased_select_takes_the_first_that_is_ready(runtime: &Runtime) {
    runtime.block_on(async {
        for _ in 0..50 {
            let first = select_biased! {
                () = async {}.boxed_local().fuse() => true,
                () = async {}.boxed_local().fuse() => false,
            };
            assert!(first);
            let first = select_biased! {
                () = pending().fuse() => true,
                () = async {}.boxed_local().fuse() => false,
            };
            assert!(!first);
        }
    });
}

fn an_unbiased_select_takes_each_in_time(runtime: &Runtime) {
    runtime.block_on(async {
        let mut taken = [0; 2];
        while taken[0] == 0 || taken[1] == 0 {
            select! {
                () = async {}.boxed_local().fuse() => taken[0] += 1,
                () = async {}.boxed_local().fuse() => taken[1] += 1,
            }
            assert!(taken[0] + taken[1] < 1000, "{taken:?}");
        }
    });
}

fn a_join_has_all_its_ops_in_flight_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, server) = tcp_pair().await;
        // One after the other they would wait for each other for ever.
        let exchange = async {
            join!(
                async {
                    client.send_all("to the server").await.0.unwrap();
                    client.recv().await.unwrap().to_vec()
                },
                async {
                    let received = server.recv().await.unwrap().to_vec();
                    server.send_all("to the client").await.0.unwrap();
                    received
                },
            )
        };
        let (at_client, at_server) = timeout(SOON, exchange).await.unwrap();
        assert_eq!(
            (&at_client[..], &at_server[..]),
            (&b"to the client"[..], &b"to the server"[..])
        );
    });
}

fn a_join_waits_for_the_last(runtime: &Runtime) {
    runtime.block_on(async {
        let ended = Cell::new(0);
        let part = async |yields: u32| {
            for _ in 0..yields {
                yield_now().await;
            }
            ended.set(ended.get() + 1);
            yields
        };
        assert_eq!(join!(part(5), part(0), part(9)), (5, 0, 9));
        assert_eq!(ended.get(), 3);
    });
}

fn a_try_join_drops_the_others_at_the_first_error(runtime: &Runtime) {
    runtime.block_on(async {
        let (_client, server) = tcp_pair().await;
        let held = Rc::new(());
        let waiting = {
            let held = held.clone();
            async {
                let _held = held;
                server.recv_into(vec![0; 8]).await.0
            }
        };
        let failing = async {
            yield_now().await;
            io::Result::<()>::Err(io::ErrorKind::InvalidData.into())
        };
        let error = try_join!(waiting, failing).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(Rc::strong_count(&held), 1);
        assert!(poll_once(&mut server.recv()).await.is_pending());
        assert_eq!(try_join!(async { io::Result::Ok(1) }, async { Ok(2) }).unwrap(), (1, 2));
    });
}
