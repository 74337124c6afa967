//! A UDP socket for quinn: system calls that do not wait, and who waits for what under a lock. At home one
//! task for each direction waits for readiness.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use omniring::sync::Notify;
use quinn::udp::{RecvMeta, Transmit, UdpSocketState};
use quinn::{AsyncUdpSocket, UdpPoller};

pub(super) struct Socket {
    io: std::net::UdpSocket,
    udp: UdpSocketState,
    shared: Arc<Shared>,
}

/// What the socket and the tasks at home share.
#[derive(Default)]
struct Shared {
    incoming: Direction,
    outgoing: Direction,
    /// The socket is gone.
    is_closed: AtomicBool,
}

/// Who waits for one kind of readiness.
#[derive(Default)]
struct Direction {
    state: Mutex<Waiting>,
    /// Somebody has begun to wait, or the socket is gone.
    wanted: Notify,
}

#[derive(Default)]
struct Waiting {
    /// The last call would have had to wait, and the socket was not found ready since.
    is_blocked: bool,
    wakers: Vec<Waker>,
}

impl Direction {
    fn state(&self) -> MutexGuard<'_, Waiting> {
        self.state.lock().expect("nothing panics under this lock")
    }

    fn block(&self) {
        self.state().is_blocked = true;
    }

    /// Ready unless the last call would have had to wait.
    fn poll_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state();
        if !state.is_blocked {
            return Poll::Ready(());
        }
        if !state.wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
            state.wakers.push(cx.waker().clone());
        }
        drop(state);
        self.wanted.notify_one();
        Poll::Pending
    }

    fn unblock(&self) {
        let wakers = {
            let mut state = self.state();
            state.is_blocked = false;
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Waits for these events whenever somebody wants them, until the socket is gone.
    async fn watch(&self, socket: &omniring::net::UdpSocket, events: i16, is_closed: &AtomicBool) {
        loop {
            self.wanted.notified().await;
            let mut ready = socket.poll(events);
            loop {
                if is_closed.load(Ordering::Acquire) {
                    return;
                }
                let mut wanted = pin!(self.wanted.notified());
                let is_ready = poll_fn(|cx| match Pin::new(&mut ready).poll(cx) {
                    // Of an error the next call tells.
                    Poll::Ready(_) => Poll::Ready(true),
                    Poll::Pending => wanted.as_mut().poll(cx).map(|()| false),
                });
                if is_ready.await {
                    break;
                }
            }
            self.unblock();
        }
    }
}

impl Socket {
    /// The socket, and what is to be done at home for it.
    pub(super) fn new(
        io: std::net::UdpSocket,
    ) -> io::Result<(Arc<Socket>, impl FnOnce() + Send + 'static)> {
        let udp = UdpSocketState::new((&io).into())?;
        let at_home = io.try_clone()?;
        let shared = Arc::new(Shared::default());
        let socket = Arc::new(Socket { io, udp, shared: shared.clone() });
        let watch = move || {
            let mode = at_home.try_clone();
            let at_home = omniring::net::UdpSocket::from_std(at_home);
            // A ring has put the socket in blocking mode, which its polls do not need. Nothing has used it
            // yet: quinn's tasks come home after this.
            if let Ok(mode) = mode {
                let _ = mode.set_nonblocking(true);
            }
            for outgoing in [false, true] {
                let (socket, shared) = (at_home.clone(), shared.clone());
                drop(omniring::spawn(async move {
                    let (direction, events) = match outgoing {
                        false => (&shared.incoming, libc::POLLIN),
                        true => (&shared.outgoing, libc::POLLOUT),
                    };
                    direction.watch(&socket, events, &shared.is_closed).await;
                }));
            }
        };
        Ok((socket, watch))
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.shared.is_closed.store(true, Ordering::Release);
        self.shared.incoming.wanted.notify_one();
        self.shared.outgoing.wanted.notify_one();
    }
}

impl AsyncUdpSocket for Socket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let sent = self.udp.send((&self.io).into(), transmit);
        if sent.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            self.shared.outgoing.block();
        }
        sent
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.udp.recv((&self.io).into(), bufs, meta) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            self.shared.incoming.block();
            if self.shared.incoming.poll_ready(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn may_fragment(&self) -> bool {
        self.udp.may_fragment()
    }

    fn max_transmit_segments(&self) -> usize {
        self.udp.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.udp.gro_segments()
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket").field("io", &self.io).finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct Writable(Arc<Socket>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.shared.outgoing.poll_ready(cx).map(Ok)
    }
}
