//! What all stream sockets do alike.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use omniring_driver::addr::RawAddr;
use omniring_driver::{Lease, OpFuture, SharedHandle, ops};

use crate::buf::{IoBuf, IoBufExt, Slice};

/// The future of the next bytes of a socket. It may be dropped and asked for again without loss.
#[derive(Debug)]
#[must_use = "nothing is received until this is awaited"]
pub struct RecvLease<'a> {
    pub(super) handle: &'a SharedHandle,
}

impl Future for RecvLease<'_> {
    type Output = io::Result<Lease>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Lease>> {
        self.handle.poll_recv(cx)
    }
}

/// The future of a send of all bytes: see `send_all` of the streams.
#[must_use = "nothing is sent until this is awaited"]
pub struct SendAll<'a, B: IoBuf> {
    handle: &'a SharedHandle,
    sending: Sending<B>,
}

enum Sending<B: IoBuf> {
    /// As a rule the socket takes all of them at once.
    Whole(OpFuture<ops::Send<B>>),
    /// What is left after so many.
    Rest(OpFuture<ops::Send<Slice<B>>>, usize),
}

impl<'a, B: IoBuf> SendAll<'a, B> {
    #[inline]
    pub(super) fn new(handle: &'a SharedHandle, buf: B) -> SendAll<'a, B> {
        SendAll { handle, sending: Sending::Whole(ops::send(handle, buf, 0)) }
    }
}

impl<B: IoBuf> Future for SendAll<'_, B> {
    type Output = (io::Result<()>, B);

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let (result, buf, before) = match &mut self.sending {
                Sending::Whole(send) => {
                    let (result, buf) = ready!(Pin::new(send).poll(cx));
                    (result, buf, 0)
                }
                Sending::Rest(send, before) => {
                    let (result, slice) = ready!(Pin::new(send).poll(cx));
                    let result = result.and_then(|count| match count {
                        0 => Err(io::ErrorKind::WriteZero.into()),
                        _ => Ok(count),
                    });
                    (result, slice.into_inner(), *before)
                }
            };
            let sent = match result {
                Ok(count) => before + count,
                Err(error) => return Poll::Ready((Err(error), buf)),
            };
            if sent >= buf.len() {
                return Poll::Ready((Ok(()), buf));
            }
            self.sending = Sending::Rest(ops::send(self.handle, buf.slice(sent..), 0), sent);
        }
    }
}

impl<B: IoBuf> std::fmt::Debug for SendAll<'_, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SendAll")
    }
}

/// The next datagram of a socket: its payload and its sender.
pub(super) async fn recv_datagram(handle: &SharedHandle) -> io::Result<(Lease, RawAddr)> {
    let (lease, from, _) = poll_fn(|cx| handle.poll_recv_from(cx)).await?;
    Ok((lease, from))
}

/// The connections of a listener, one after the other: see `incoming` of the listeners.
pub struct Incoming<S> {
    pub(super) accepted: omniring_driver::ops::Incoming,
    pub(super) stream: fn(SharedHandle) -> S,
}

impl<S> Incoming<S> {
    /// The next connection. Dropping the future loses none.
    pub async fn next(&mut self) -> io::Result<S> {
        let handle = poll_fn(|cx| self.accepted.poll_next(cx)).await?;
        Ok((self.stream)(handle))
    }
}

impl<S> std::fmt::Debug for Incoming<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Incoming")
    }
}

/// The methods and traits of a type whose field `handle` is a connected stream socket.
macro_rules! stream_socket {
    ($Stream:ident) => {
        impl $Stream {
            /// The next bytes, in memory that the runtime gives when they are there: an idle
            /// connection pins none. The lease is empty at the end of the stream. To send it on,
            /// or to hold it for a while, costs nothing; dropping it gives the memory back.
            ///
            /// Dropping the future loses nothing: what arrives is there for the next receive, of
            /// whichever kind. On a ring the receive stays armed meanwhile (multishot), and a
            /// little may be received in advance.
            pub fn recv(&self) -> RecvLease<'_> {
                RecvLease { handle: &self.handle }
            }

            /// Receives into `buf`, up to its capacity: the bytes received, 0 at the end of the
            /// stream. With no capacity it waits for data all the same, and yields 0.
            ///
            /// Dropping the future cancels the receive; bytes that had arrived in the buffer by
            /// then are lost.
            pub fn recv_into<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Recv<B>> {
                ops::recv(&self.handle, buf, 0)
            }

            /// As [`recv_into`](Self::recv_into), but leaves the bytes in the socket.
            pub fn peek<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Recv<B>> {
                ops::recv(&self.handle, buf, libc::MSG_PEEK)
            }

            /// Receives into several buffers in order: the bytes received in all.
            pub async fn recv_vectored<B: IoBufMut>(
                &self,
                bufs: Vec<B>,
            ) -> (io::Result<usize>, Vec<B>) {
                let (result, bufs) = ops::recv_msg(&self.handle, bufs, 0).await;
                (result.map(|message| message.count), bufs)
            }

            /// Sends the initialised bytes of `buf`: the bytes that the socket took, which may be
            /// fewer.
            ///
            /// Dropping the future cancels the send; part of it may have happened.
            pub fn send<B: IoBuf>(&self, buf: B) -> OpFuture<ops::Send<B>> {
                ops::send(&self.handle, buf, 0)
            }

            /// Sends what the socket takes of these bytes at once, without owning them: the bytes
            /// sent, which may be fewer. `None` where that would have to wait, and on engines that
            /// do not make the call on this thread (such as the ring); nothing was sent then.
            pub fn try_send(&self, parts: &[io::IoSlice<'_>]) -> Option<io::Result<usize>> {
                ops::try_send(&self.handle, parts)
            }

            /// Sends several buffers in order: the bytes that the socket took in all.
            pub fn send_vectored<B: IoBuf>(&self, bufs: Vec<B>) -> OpFuture<ops::SendMsg<B>> {
                ops::send_msg(&self.handle, bufs, None, 0)
            }

            /// Sends all initialised bytes of `buf`. If the future is dropped, part of them may
            /// have been sent.
            pub fn send_all<B: IoBuf>(&self, buf: B) -> SendAll<'_, B> {
                SendAll::new(&self.handle, buf)
            }

            /// Sends the initialised bytes of `buf` without copying them, where the kernel and the
            /// network device can (6.0): the bytes that the socket took, which may be fewer, and
            /// the buffer as soon as it is free, which this does not wait for. Buffers of less than
            /// 32 KiB are copied, which costs less, and free at once. On a loopback device the
            /// kernel copies in any case.
            ///
            /// Dropping the future cancels the send; part of it may have happened. The buffer goes
            /// when the kernel is done with it.
            pub fn send_zero_copy<B: IoBuf>(&self, buf: B) -> ops::SendZeroCopy<B> {
                ops::send_zero_copy(&self.handle, buf, 0)
            }

            /// Sends up to `len` bytes of `file` from `offset` in bytes on, without copying them to user
            /// memory (`splice(2)`, through a pipe of the runtime's): the bytes that the socket took,
            /// fewer at the end of the file or if an error came after some of them; 0 only at the
            /// end. What is to be sent after that takes another call.
            ///
            /// If the future is dropped, part of them may have been sent.
            ///
            /// ```
            /// # let path = std::env::temp_dir().join(format!("omniring-send-{}", std::process::id()));
            /// # omniring::Runtime::new()?.block_on(async {
            /// # omniring::fs::write(&path, "the quick brown fox").await?;
            /// use omniring::net::UnixStream;
            /// let (stream, peer) = UnixStream::pair()?;
            /// let file = omniring::fs::File::open(&path).await?;
            /// assert_eq!(stream.send_file(&file, 4, 5).await?, 5);
            /// let (result, buf) = peer.recv_into(Vec::with_capacity(100)).await;
            /// assert_eq!((result?, &buf[..]), (5, &b"quick"[..]));
            /// # omniring::fs::remove_file(&path).await
            /// # })?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub async fn send_file(&self, file: &File, offset: u64, len: u64) -> io::Result<u64> {
                send_file(&self.handle, &file.handle, offset, len).await
            }

            /// Waits for bytes, and passes those that are there on to another socket without copying them
            /// to user memory (`splice(2)`, through a pipe of the runtime's): how many, 0 at the end of the
            /// stream. Half of a proxy is a loop around it.
            ///
            /// Where there is no splice they are copied, in memory of the runtime's; so are those of a
            /// socket that [`recv`](Self::recv) was used on. An error is that of either socket; bytes that
            /// were under way then are lost. Dropping the future loses nothing while it waits for
            /// bytes; those that are under way are lost.
            ///
            /// ```
            /// # omniring::Runtime::new()?.block_on(async {
            /// use omniring::net::UnixStream;
            /// let ((client, inlet), (outlet, server)) = (UnixStream::pair()?, UnixStream::pair()?);
            /// client.send_all("through").await.0?;
            /// assert_eq!(inlet.forward(&outlet).await?, 7);
            /// assert_eq!(&server.recv().await?[..], b"through");
            /// drop(client);
            /// assert_eq!(inlet.forward(&outlet).await?, 0);
            /// # Ok::<(), std::io::Error>(())
            /// # })?;
            /// # Ok::<(), Box<dyn std::error::Error>>(())
            /// ```
            pub async fn forward(&self, to: &$Stream) -> io::Result<usize> {
                forward(&self.handle, &to.handle).await
            }

            /// Ends one or both directions of the connection.
            pub async fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
                ops::shutdown(&self.handle, how).await.map(drop)
            }

            /// Waits for some of these events of `poll(2)`: which are ready.
            pub fn poll(&self, events: i16) -> OpFuture<ops::PollEvents> {
                ops::poll(&self.handle, events)
            }

            /// Closes the connection and says whether that went well. With a clone or an op in
            /// flight, it is closed when those are gone.
            pub async fn close(self) -> io::Result<()> {
                close(self.handle).await
            }
        }

        /// So that one task can read while another, or the same, writes: clones are cheap too.
        impl AsyncRead for &$Stream {
            async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.recv_into(buf).await
            }
        }

        impl AsyncWrite for &$Stream {
            async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.send(buf).await
            }
        }

        impl AsyncRead for $Stream {
            async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.recv_into(buf).await
            }
        }

        impl AsyncWrite for $Stream {
            async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.send(buf).await
            }
        }
    };
}

/// The conversions of a type whose field `handle` is a socket.
macro_rules! socket_conversions {
    ($Socket:ident, $Std:ty) => {
        impl $Socket {
            /// Takes in a socket that was made elsewhere. Whether it is in non-blocking mode is
            /// the engine's business from here on.
            ///
            /// # Panics
            /// Outside of a runtime.
            pub fn from_std(socket: $Std) -> $Socket {
                $Socket { handle: SharedHandle::adopt(&current().driver, socket.into()) }
            }

            /// Hands the socket out, in blocking mode. Fails with the socket if a clone or an op
            /// in flight still uses it.
            pub fn into_std(self) -> Result<$Std, $Socket> {
                self.handle.into_fd().map(<$Std>::from).map_err(|handle| $Socket { handle })
            }
        }

        impl AsFd for $Socket {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.handle.as_fd()
            }
        }

        impl AsRawFd for $Socket {
            fn as_raw_fd(&self) -> RawFd {
                self.handle.as_raw_fd()
            }
        }
    };
}

pub(super) use {socket_conversions, stream_socket};
