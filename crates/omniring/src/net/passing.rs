//! What Unix sockets pass beside bytes: descriptors and credentials.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use omniring_driver::addr::RawAddr;
use omniring_driver::ops::{self, ControlReceived, ControlToSend};
use omniring_driver::{Explained, SharedHandle};

use crate::buf::{IoBuf, IoBufMut};
use crate::time::sleep;

/// The most descriptors that go with one message (`SCM_MAX_FD`).
const FDS_MAX: usize = 253;

/// A process and whom it runs as (`unix(7)`).
///
/// ```
/// use omniring::net::UnixStream;
/// # omniring::Runtime::new()?.block_on(async {
/// let (one, _other) = UnixStream::pair()?;
/// assert_eq!(one.peer_credentials()?.pid, Some(std::process::id()));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Credentials {
    /// Its process id; `None` if it cannot be seen from this process's namespace.
    pub pid: Option<u32>,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group.
    pub gid: u32,
}

impl From<libc::ucred> for Credentials {
    fn from(libc::ucred { pid, uid, gid }: libc::ucred) -> Credentials {
        Credentials { pid: u32::try_from(pid).ok().filter(|&pid| pid != 0), uid, gid }
    }
}

/// What came with the bytes of a message.
///
/// ```
/// use std::os::fd::AsFd;
/// use omniring::net::UnixStream;
/// # omniring::Runtime::new()?.block_on(async {
/// let (one, other) = UnixStream::pair()?;
/// let file = std::fs::File::open("/dev/null")?;
/// one.send_with_fds("a file", &[file.as_fd()]).await.0?;
/// let (result, buf) = other.recv_with_fds(Vec::with_capacity(16), 1).await;
/// let message = result?;
/// assert_eq!((&buf[..], message.fds.len()), (&b"a file"[..], 1));
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Passed {
    /// Bytes received.
    pub count: usize,
    /// Descriptors, closed on exec; those that are not taken out are closed with this.
    pub fds: Vec<OwnedFd>,
    /// Whether more descriptors came than were asked for, which are closed.
    pub is_cut: bool,
    /// Who sent this, if `set_pass_credentials` was called.
    pub credentials: Option<Credentials>,
}

impl Passed {
    fn new(count: usize, control: ControlReceived) -> Passed {
        let ControlReceived { fds, is_cut, credentials, .. } = control;
        Passed { count, fds, is_cut, credentials: credentials.map(Credentials::from) }
    }
}

/// Waits a little longer each time, for what the kernel gives no sign of.
pub(super) struct Backoff(Duration);

impl Backoff {
    pub(super) fn new() -> Backoff {
        Backoff(Duration::from_micros(50))
    }

    pub(super) async fn wait(&mut self) {
        sleep(self.0).await;
        self.0 = (self.0 * 2).min(Duration::from_millis(5));
    }
}

/// Sends a message, and waits for room here instead of in the op, for two reasons. The kernel takes
/// the bytes out of the buffers before it finds a receiver's queue full; when the ring then tries
/// again, an empty datagram is sent (seen with Linux 6.18). And a socket that is not connected counts
/// as writable whether or not the receiver has room.
pub(super) async fn send_waiting<B: IoBuf>(
    handle: &SharedHandle,
    buf: B,
    to: Option<RawAddr>,
    mut control: ControlToSend,
) -> (io::Result<usize>, B) {
    let mut bufs = vec![buf];
    let mut backoff = None::<Backoff>;
    let result = loop {
        let flags = libc::MSG_DONTWAIT;
        let (result, back) = if control.is_empty() {
            ops::send_msg(handle, bufs, to.clone(), flags).await
        } else {
            let send = ops::send_msg_with_control(handle, bufs, to.clone(), flags, control);
            let (result, bufs, again) = send.await;
            control = again;
            (result, bufs)
        };
        bufs = back;
        match result {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => break result,
        }
        if let Some(backoff) = &mut backoff {
            backoff.wait().await;
        }
        backoff.get_or_insert_with(Backoff::new);
        if let Err(error) = ops::poll(handle, libc::POLLOUT).await {
            break Err(error);
        }
    };
    (result, bufs.pop().expect("the buffer comes back"))
}

/// Sends `buf` with these descriptors, of which the op has its own.
pub(super) async fn send_with_fds<B: IoBuf>(
    handle: &SharedHandle,
    buf: B,
    to: Option<RawAddr>,
    fds: &[BorrowedFd<'_>],
    is_stream: bool,
) -> (io::Result<usize>, B) {
    if fds.len() > FDS_MAX {
        let what = format!("{} descriptors, where a message takes {FDS_MAX}", fds.len());
        return (Err(Explained::new(libc::EINVAL, what).into()), buf);
    }
    if is_stream && buf.is_empty() && !fds.is_empty() {
        let what = "descriptors go over a stream with at least one byte";
        return (Err(Explained::new(libc::EINVAL, what).into()), buf);
    }
    let own = fds.iter().map(BorrowedFd::try_clone_to_owned).collect::<io::Result<Vec<_>>>();
    let mut control = ControlToSend::default();
    match own {
        Ok(own) => control.push_fds(own),
        Err(error) => return (Err(error), buf),
    }
    send_waiting(handle, buf, to, control).await
}

/// Receives into `buf`, with descriptors and credentials.
pub(super) async fn recv_with_fds<B: IoBufMut>(
    handle: &SharedHandle,
    buf: B,
    fds_max: usize,
) -> (io::Result<(Passed, RawAddr)>, B) {
    let (result, mut bufs) = ops::recv_msg_with_control(handle, vec![buf], 0, fds_max).await;
    let result =
        result.map(|(message, control)| (Passed::new(message.count, control), message.from));
    (result, bufs.pop().expect("the buffer comes back"))
}

/// The methods of a type whose field `handle` is a Unix socket.
macro_rules! passing {
    ($Socket:ident, $is_stream:expr) => {
        impl $Socket {
            /// Sends the initialised bytes of `buf` and these descriptors, of which the receiver gets
            /// its own (`SCM_RIGHTS`): the bytes that the socket took, which have the descriptors with
            /// them however few they are. At most 253, and over a stream with at least one byte.
            ///
            /// The descriptors are duplicated first, and may be closed while this goes on. Dropping
            /// the future cancels the send; the message may have been sent.
            pub async fn send_with_fds<B: IoBuf>(
                &self,
                buf: B,
                fds: &[BorrowedFd<'_>],
            ) -> (io::Result<usize>, B) {
                $crate::net::passing::send_with_fds(&self.handle, buf, None, fds, $is_stream).await
            }

            /// Receives into `buf`, and up to `fds_max` descriptors with it. A stream yields the bytes
            /// of one message that has descriptors at a time.
            ///
            /// Descriptors are closed when nobody takes them: if the future is dropped, a message that
            /// had arrived by then is lost, and its descriptors are closed; and the other receives,
            /// leased ones above all, which may receive in advance, take the bytes and leave the
            /// descriptors. So on a socket that passes descriptors use this one only.
            pub async fn recv_with_fds<B: IoBufMut>(
                &self,
                buf: B,
                fds_max: usize,
            ) -> (io::Result<$crate::net::Passed>, B) {
                let (result, buf) =
                    $crate::net::passing::recv_with_fds(&self.handle, buf, fds_max).await;
                (result.map(|(passed, _)| passed), buf)
            }

            /// Whether each message that is received says who sent it (`SO_PASSCRED`): see
            /// [`recv_with_fds`](Self::recv_with_fds). To be set before the sender sends.
            pub fn set_pass_credentials(&self, pass: bool) -> io::Result<()> {
                socket2::SockRef::from(&self.handle.fd()?).set_passcred(pass)
            }
        }
    };
}

pub(super) use passing;
