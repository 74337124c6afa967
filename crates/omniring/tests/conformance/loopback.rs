//! Connections over the loopback device, what comes over them, and looking at a future without waiting for it.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;

use omniring::AsyncRead;
use omniring::net::{TcpListener, TcpStream};

/// A listener on a free port.
pub async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Two ends of one TCP connection: the one that connected, and the one that was accepted.
pub async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = listener().await;
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    (client, server)
}

/// The same, of which the second end is the standard library's, in blocking mode.
pub async fn tcp_pair_with_std() -> (TcpStream, std::net::TcpStream) {
    let (client, server) = tcp_pair().await;
    (client, server.into_std().unwrap())
}

/// Receives until the end of the stream.
pub async fn recv_to_end(mut stream: impl AsyncRead) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let (result, buf) = stream.read(Vec::with_capacity(4096)).await;
        if result.unwrap() == 0 {
            return all;
        }
        all.extend_from_slice(&buf);
    }
}

/// Polls `future` once, which starts its op, and a turn of the loop hands the op over. The output
/// if it has completed by then.
pub async fn start<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    if let Poll::Ready(output) = poll_once(future).await {
        return Some(output);
    }
    omniring::yield_now().await;
    None
}

/// Polls `future` once.
pub async fn poll_once<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(Pin::new(&mut *future).poll(cx))).await
}
