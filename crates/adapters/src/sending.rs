//! What is on its way out of a stream: bytes that were copied and belong to a send in flight.
//!
//! A write is accepted when its bytes are copied and their send is started; there is one send at a time.
//! It ends at the latest when the stream is flushed. Its error comes from the next write, flush or
//! shutdown.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use omniring::OpFuture;
use omniring::buf::{IoBufExt, Slice};
use omniring_driver::ops;

use crate::stream::Socket;

/// Bytes that one send takes at most.
const LEN_MAX: usize = 128 * 1024;
/// Memory that is kept for the next send; what is larger is freed.
const KEPT_MAX: usize = 4 * 1024;

type Send = OpFuture<ops::Send<Slice<Vec<u8>>>>;

/// The send in flight, or the memory for the next one.
pub(crate) enum Sending {
    Idle(Vec<u8>),
    InFlight {
        send: Send,
        /// Bytes that are left to be sent.
        #[cfg_attr(not(feature = "hyper"), allow(dead_code))]
        // Only hyper's flush looks at it.
        len: usize,
    },
    /// The last send has failed, and nobody was told.
    Failed(io::Error),
}

impl Default for Sending {
    fn default() -> Sending {
        Sending::Idle(Vec::new())
    }
}

impl Sending {
    /// Whether no send is in flight. One that has ended and was not looked at counts as in flight.
    pub(crate) fn is_idle(&self) -> bool {
        matches!(self, Sending::Idle(_))
    }

    /// Waits until the socket has taken every byte.
    #[inline]
    pub(crate) fn poll_idle(
        &mut self,
        socket: &impl Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Sending::InFlight { send, .. } = self else { return Poll::Ready(self.tell()) };
            let ended = ready!(Pin::new(send).poll(cx));
            self.go_on(socket, ended)?;
        }
    }

    /// As `poll_idle`, but does not wait for a send that needs nobody any more. Whoever polled is woken if
    /// the socket does not take every byte, and has to poll again then.
    #[inline]
    #[cfg_attr(not(feature = "hyper"), allow(dead_code))] // Only hyper asks for it.
    pub(crate) fn poll_handed_over(
        &mut self,
        socket: &impl Socket,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let Sending::InFlight { send, len } = self else { return Poll::Ready(self.tell()) };
            if *len > KEPT_MAX {
                // Its memory is to be freed, and not to wait for the next write.
                return self.poll_idle(socket, cx);
            }
            let Poll::Ready(ended) = send.poll_quietly(cx, *len as i32) else {
                return Poll::Ready(Ok(()));
            };
            self.go_on(socket, ended)?;
        }
    }

    /// How the last send went, which was looked at.
    #[inline]
    fn tell(&mut self) -> io::Result<()> {
        match self {
            Sending::Failed(_) => match std::mem::take(self) {
                Sending::Failed(error) => Err(error),
                _ => unreachable!("matched above"),
            },
            _ => Ok(()),
        }
    }

    /// A send has ended: another one has what is left, or the memory is kept.
    #[inline]
    fn go_on(
        &mut self,
        socket: &impl Socket,
        (result, sent): (io::Result<usize>, Slice<Vec<u8>>),
    ) -> io::Result<()> {
        let (start, mut buf) = (sent.start(), sent.into_inner());
        let end = match result {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => Ok(start + count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(start),
            Err(error) => Err(error),
        };
        match end {
            Ok(end) if end < buf.len() => {
                let len = buf.len() - end;
                *self = Sending::InFlight { send: socket.send(buf.slice(end..)), len };
                Ok(())
            }
            end => {
                buf.clear();
                let kept = if buf.capacity() > KEPT_MAX { Vec::new() } else { buf };
                *self = Sending::Idle(kept);
                end.map(drop)
            }
        }
    }

    /// Sends of `parts` what the socket takes at once; else copies what one send takes, and starts it: how
    /// many bytes.
    pub(crate) fn poll_write(
        &mut self,
        socket: &impl Socket,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_idle(socket, cx))?;
        let len = parts.iter().fold(0, |len: usize, part| len.saturating_add(part.len()));
        if len == 0 {
            return Poll::Ready(Ok(0));
        }
        if let Some(result) = socket.try_send(parts) {
            return Poll::Ready(result);
        }
        let Sending::Idle(memory) = self else { unreachable!("it was waited for") };
        let mut buf = std::mem::take(memory);
        let len = len.min(LEN_MAX);
        buf.reserve_exact(len);
        for part in parts {
            let count = part.len().min(len - buf.len());
            buf.extend_from_slice(&part[..count]);
        }
        let mut send = socket.send(buf.slice(..));
        let Poll::Ready(ended) = Pin::new(&mut send).poll(cx) else {
            *self = Sending::InFlight { send, len };
            return Poll::Ready(Ok(len));
        };
        // What failed at once was not accepted.
        self.go_on(socket, ended)?;
        match self.poll_idle(socket, cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(len)),
        }
    }
}
