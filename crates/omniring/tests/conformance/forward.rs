//! What arrives at one socket, passed on to another without a copy in user memory.

use std::net::Shutdown;

use omniring::net::{TcpStream, UnixStream};
use omniring::{Engine, Runtime, spawn};

use crate::cancel::until;
use crate::denial::{Denial, denied};
use crate::harness::{conformance, errno, fd_count};
use crate::loopback::{recv_to_end, start, tcp_pair};
use crate::pipes::let_others_run;

conformance!(
    everything_is_passed_on_up_to_the_end,
    over_unix_sockets_too,
    what_was_received_in_advance_comes_first,
    a_slow_receiver_holds_it_up,
    a_receiver_that_is_gone_is_an_error,
    waiting_can_be_given_up_without_loss;
    isolated: waiting_takes_no_descriptors,
);

const BIG: usize = 1 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 11 + at / 253) as u8).collect()
}

/// Passes on until the end, and passes that on too: the bytes.
async fn pass_all(from: TcpStream, to: TcpStream) -> usize {
    let mut passed = 0;
    loop {
        match from.forward(&to).await.unwrap() {
            0 => break,
            count => passed += count,
        }
    }
    to.shutdown(Shutdown::Write).await.unwrap();
    passed
}

/// Sends through two sockets that are joined, and back the same way, each direction ending by itself.
async fn send_through_and_back() {
    let (client, inlet) = tcp_pair().await;
    let (outlet, server) = tcp_pair().await;
    let there = spawn(pass_all(inlet.clone(), outlet.clone()));
    let back = spawn(pass_all(outlet, inlet));
    let serving = spawn(async move {
        let request = recv_to_end(&server).await;
        server.send_all(request).await.0.unwrap();
    });
    let answer = spawn(recv_to_end(client.clone()));
    client.send_all(pattern(BIG)).await.0.unwrap();
    client.shutdown(Shutdown::Write).await.unwrap();
    assert!(answer.await.unwrap() == pattern(BIG));
    serving.await.unwrap();
    assert_eq!((there.await.unwrap(), back.await.unwrap()), (BIG, BIG));
}

fn everything_is_passed_on_up_to_the_end(runtime: &Runtime) {
    runtime.block_on(send_through_and_back());
    assert_eq!(runtime.stats().in_flight_count, 0);
}

#[test]
fn without_splice_it_is_copied() {
    for engine in [Engine::Epoll, Engine::Threads] {
        denied(Denial::Splice, move || {
            let runtime = Runtime::builder().engine(engine).build().unwrap();
            runtime.block_on(async {
                // As the filter has it.
                let file = omniring::fs::File::open("/dev/zero").await.unwrap();
                let (sender, _receiver) = UnixStream::pair().unwrap();
                assert_eq!(errno(sender.send_file(&file, 0, 10).await), libc::EPERM);
                send_through_and_back().await;
            });
        });
    }
}

fn over_unix_sockets_too(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, inlet) = UnixStream::pair().unwrap();
        let (outlet, server) = UnixStream::pair().unwrap();
        let passing = spawn(async move { while inlet.forward(&outlet).await.unwrap() > 0 {} });
        let received = spawn(recv_to_end(server));
        client.send_all(pattern(BIG)).await.0.unwrap();
        drop(client);
        passing.await.unwrap();
        assert!(received.await.unwrap() == pattern(BIG));
    });
}

fn what_was_received_in_advance_comes_first(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, inlet) = tcp_pair().await;
        let (outlet, server) = tcp_pair().await;
        client.send_all("first").await.0.unwrap();
        assert_eq!(&inlet.recv().await.unwrap()[..], b"first");
        // On a ring the receive goes on.
        client.send_all("second").await.0.unwrap();
        let_others_run().await;
        assert_eq!(inlet.forward(&outlet).await.unwrap(), 6);
        assert_eq!(&server.recv().await.unwrap()[..], b"second");
        drop(client);
        assert_eq!(inlet.forward(&outlet).await.unwrap(), 0);
    });
}

fn a_slow_receiver_holds_it_up(runtime: &Runtime) {
    runtime.block_on(async {
        // Whose buffers are small.
        let (client, inlet) = UnixStream::pair().unwrap();
        let (outlet, server) = UnixStream::pair().unwrap();
        let len = 2 * BIG;
        let sending = spawn(async move { client.send_all(pattern(len)).await.0.unwrap() });
        let passing = spawn(async move { while inlet.forward(&outlet).await.unwrap() > 0 {} });
        let_others_run().await;
        assert!(!sending.is_finished() && !passing.is_finished());
        assert!(recv_to_end(server).await == pattern(len));
        sending.await.unwrap();
        passing.await.unwrap();
    });
}

fn a_receiver_that_is_gone_is_an_error(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, inlet) = UnixStream::pair().unwrap();
        let (outlet, server) = UnixStream::pair().unwrap();
        drop(server);
        client.send_all("lost").await.0.unwrap();
        assert_eq!(errno(inlet.forward(&outlet).await), libc::EPIPE);
        // What was lost is not what the next one passes on.
        let (outlet, server) = UnixStream::pair().unwrap();
        client.send_all("found").await.0.unwrap();
        assert_eq!(inlet.forward(&outlet).await.unwrap(), 5);
        assert_eq!(&server.recv().await.unwrap()[..], b"found");
    });
}

fn waiting_can_be_given_up_without_loss(runtime: &Runtime) {
    runtime.block_on(async {
        let (client, inlet) = tcp_pair().await;
        let (outlet, server) = tcp_pair().await;
        for _ in 0..20 {
            let mut waiting = Box::pin(inlet.forward(&outlet));
            assert!(start(&mut waiting).await.is_none());
            drop(waiting);
        }
        client.send_all("all of it").await.0.unwrap();
        assert_eq!(inlet.forward(&outlet).await.unwrap(), 9);
        assert_eq!(&server.recv().await.unwrap()[..], b"all of it");
        drop((client, inlet, outlet, server));
        until("all have ended", || runtime.stats().in_flight_count == 0).await;
    });
}

fn waiting_takes_no_descriptors(runtime: &Runtime) {
    runtime.block_on(async {
        let (_client, inlet) = tcp_pair().await;
        let (outlet, _server) = tcp_pair().await;
        // What an engine has once for all.
        let mut first = Box::pin(inlet.forward(&outlet));
        assert!(start(&mut first).await.is_none());
        let_others_run().await;
        let before = fd_count();
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(inlet.forward(&outlet))).collect();
        for waiting in &mut waiting {
            assert!(start(waiting).await.is_none());
        }
        let_others_run().await;
        assert_eq!(fd_count(), before);
    });
}
