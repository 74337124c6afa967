//! What all stream sockets do alike.

/// The methods and traits of a type whose field `handle` is a connected stream socket.
macro_rules! stream_socket {
    ($Stream:ident) => {
        impl $Stream {
            /// Receives into `buf`, up to its capacity: the bytes received, 0 at the end of the
            /// stream. With no capacity it waits for data all the same, and yields 0.
            ///
            /// Dropping the future cancels the receive; bytes that had arrived in the buffer by
            /// then are lost.
            pub fn recv<B: IoBufMut>(&self, buf: B) -> OpFuture<ops::Recv<B>> {
                ops::recv(&self.handle, buf, 0)
            }

            /// As [`recv`](Self::recv), but leaves the bytes in the socket.
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

            /// Sends several buffers in order: the bytes that the socket took in all.
            pub fn send_vectored<B: IoBuf>(&self, bufs: Vec<B>) -> OpFuture<ops::SendMsg<B>> {
                ops::send_msg(&self.handle, bufs, None, 0)
            }

            /// Sends all initialised bytes of `buf`. If the future is dropped, part of them may
            /// have been sent.
            pub async fn send_all<B: IoBuf>(&self, buf: B) -> (io::Result<()>, B) {
                // As a rule the socket takes all of them at once.
                match self.send(buf).await {
                    (Ok(sent), buf) => {
                        write_rest(buf, sent, async |slice, _| self.send(slice).await).await
                    }
                    (Err(error), buf) => (Err(error), buf),
                }
            }

            /// Ends one or both directions of the connection.
            pub async fn shutdown(&self, how: std::net::Shutdown) -> io::Result<()> {
                ops::shutdown(&self.handle, how).await.map(drop)
            }

            /// Waits for some of these events of `poll(2)`: which are ready.
            pub fn poll(&self, events: i16) -> OpFuture<ops::OnHandle> {
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
                self.recv(buf).await
            }
        }

        impl AsyncWrite for &$Stream {
            async fn write<B: IoBuf>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.send(buf).await
            }
        }

        impl AsyncRead for $Stream {
            async fn read<B: IoBufMut>(&mut self, buf: B) -> (io::Result<usize>, B) {
                self.recv(buf).await
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
