//! Operations on sockets.

use std::ffi::c_int;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use libc::socklen_t;

use super::file::{OnHandle, filled, iovec_mut, on_handle};
use super::path::{close_unwanted, handle_of};
use super::{count, op_len, unit};
use crate::addr::RawAddr;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::Driver;
use crate::future::{OpFuture, Operation};
use crate::handle::SharedHandle;
use crate::multishot::{Multishot, OpStream};
use crate::op::{Completion, Op};
use crate::receiver::Received;

/// See [`socket`].
pub struct Socket {
    driver: Rc<Driver>,
    domain: c_int,
    kind: c_int,
    protocol: c_int,
    direct: bool,
}

// SAFETY: no pointers.
unsafe impl Operation for Socket {
    type Output = io::Result<SharedHandle>;

    fn driver(&self) -> &Rc<Driver> {
        &self.driver
    }

    fn prepare(&mut self) -> Op {
        self.direct = self.direct || self.driver.reserve_direct();
        let Socket { domain, kind, protocol, direct, .. } = *self;
        Op::Socket { domain, kind, protocol, direct }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        handle_of(&self.driver, completion, self.direct)
    }

    fn discard(self, completion: Completion) {
        close_unwanted(&self.driver, completion, self.direct);
    }
}

/// Makes a socket. `SOCK_CLOEXEC` is always set; `SOCK_NONBLOCK` is the engine's business.
pub fn socket(
    driver: &Rc<Driver>,
    domain: c_int,
    kind: c_int,
    protocol: c_int,
) -> OpFuture<Socket> {
    OpFuture::new(Socket { driver: driver.clone(), domain, kind, protocol, direct: false })
}

/// An operation on a socket that takes an address: see [`bind`] and [`connect`].
pub struct OnAddress {
    handle: SharedHandle,
    addr: Box<RawAddr>,
    is_bind: bool,
}

// SAFETY: the address is on the heap and the operation owns it.
unsafe impl Operation for OnAddress {
    type Output = io::Result<()>;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        let (handle, addr, addr_len) = (self.handle.handle(), self.addr.as_ptr(), self.addr.len());
        if self.is_bind {
            Op::Bind { handle, addr, addr_len }
        } else {
            Op::Connect { handle, addr, addr_len }
        }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        unit(completion)
    }
}

/// Gives a socket its own address.
pub fn bind(handle: &SharedHandle, addr: RawAddr) -> OpFuture<OnAddress> {
    let operation = OnAddress { handle: handle.clone(), addr: Box::new(addr), is_bind: true };
    OpFuture::new(operation)
}

/// Connects a socket. After a cancel its state is undefined: it is only good for closing.
pub fn connect(handle: &SharedHandle, addr: RawAddr) -> OpFuture<OnAddress> {
    let operation = OnAddress { handle: handle.clone(), addr: Box::new(addr), is_bind: false };
    OpFuture::new(operation)
}

/// Makes a socket listen. Yields 0.
pub fn listen(handle: &SharedHandle, backlog: c_int) -> OpFuture<OnHandle> {
    on_handle(
        handle,
        |handle, [backlog, ..]| Op::Listen { handle, backlog: backlog as c_int },
        [backlog as u64, 0, 0],
    )
}

/// Ends one or both directions of a connection. Yields 0.
pub fn shutdown(handle: &SharedHandle, how: std::net::Shutdown) -> OpFuture<OnHandle> {
    let how = match how {
        std::net::Shutdown::Read => libc::SHUT_RD,
        std::net::Shutdown::Write => libc::SHUT_WR,
        std::net::Shutdown::Both => libc::SHUT_RDWR,
    };
    on_handle(
        handle,
        |handle, [how, ..]| Op::Shutdown { handle, how: how as c_int },
        [how as u64, 0, 0],
    )
}

/// See [`set_option`].
pub struct SetOption {
    handle: SharedHandle,
    level: c_int,
    name: c_int,
    value: Box<[u8]>,
}

// SAFETY: the value is on the heap and the operation owns it.
unsafe impl Operation for SetOption {
    type Output = io::Result<()>;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        Op::SetOption {
            handle: self.handle.fd_handle(),
            level: self.level,
            name: self.name,
            value: self.value.as_ptr().cast(),
            len: self.value.len() as socklen_t,
        }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        unit(completion)
    }
}

/// Sets a socket option to a value of these bytes.
pub fn set_option(
    handle: &SharedHandle,
    level: c_int,
    name: c_int,
    value: Box<[u8]>,
) -> OpFuture<SetOption> {
    OpFuture::new(SetOption { handle: handle.clone(), level, name, value })
}

/// See [`option`].
pub struct GetOption {
    handle: SharedHandle,
    level: c_int,
    name: c_int,
    value: Box<[u8]>,
    len: Box<socklen_t>,
}

// SAFETY: value and length are on the heap and the operation owns them.
unsafe impl Operation for GetOption {
    type Output = io::Result<Vec<u8>>;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        Op::GetOption {
            handle: self.handle.fd_handle(),
            level: self.level,
            name: self.name,
            value: self.value.as_mut_ptr().cast(),
            len: &raw mut *self.len,
        }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        unit(completion)?;
        let mut value = self.value.into_vec();
        value.truncate(*self.len as usize);
        Ok(value)
    }
}

/// The value of a socket option, of at most `len_max` bytes.
pub fn option(
    handle: &SharedHandle,
    level: c_int,
    name: c_int,
    len_max: usize,
) -> OpFuture<GetOption> {
    let value = vec![0; len_max].into_boxed_slice();
    let len = Box::new(len_max as socklen_t);
    OpFuture::new(GetOption { handle: handle.clone(), level, name, value, len })
}

/// See [`accept`].
pub struct Accept {
    handle: SharedHandle,
    addr: Box<RawAddr>,
    direct: bool,
}

// SAFETY: the address is on the heap and the operation owns it.
unsafe impl Operation for Accept {
    type Output = io::Result<(SharedHandle, RawAddr)>;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        self.direct = self.direct || self.handle.driver().reserve_direct();
        let (addr, addr_len) = self.addr.as_out();
        Op::Accept { handle: self.handle.handle(), addr, addr_len, direct: self.direct }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        Ok((handle_of(self.handle.driver(), completion, self.direct)?, *self.addr))
    }

    fn discard(self, completion: Completion) {
        close_unwanted(self.handle.driver(), completion, self.direct);
    }
}

/// Takes the next connection: its handle and the peer's address.
pub fn accept(handle: &SharedHandle) -> OpFuture<Accept> {
    let addr = Box::new(RawAddr::room());
    OpFuture::new(Accept { handle: handle.clone(), addr, direct: false })
}

/// The op of [`incoming`].
struct AcceptMulti {
    handle: SharedHandle,
    direct: bool,
}

impl AcceptMulti {
    fn handle_of(&self, completion: Completion) -> io::Result<SharedHandle> {
        let driver = self.handle.driver();
        if self.direct {
            driver.count_direct();
        }
        handle_of(driver, completion, self.direct)
    }
}

// SAFETY: no pointers.
unsafe impl Multishot for AcceptMulti {
    /// As many connections may be accepted before anybody asks for them.
    const READY_MAX: u32 = 64;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        self.direct = self.handle.driver().has_room_for_direct();
        Op::AcceptMulti { handle: self.handle.handle(), direct: self.direct }
    }

    fn discard(&mut self, completion: Completion) {
        drop(self.handle_of(completion));
    }
}

/// See [`incoming`].
pub struct Incoming {
    accepts: OpStream<AcceptMulti>,
}

impl Incoming {
    /// The next connection.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<SharedHandle>> {
        loop {
            let was_armed = self.accepts.is_armed();
            let completion = ready!(self.accepts.poll_next(cx));
            let result = self.accepts.operation().handle_of(completion);
            match &result {
                // It was told to end, because connections were not taken.
                Err(error) if was_armed && error.raw_os_error() == Some(libc::ECANCELED) => {}
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                _ => return Poll::Ready(result),
            }
        }
    }
}

/// Takes connections, one after the other, without the peers' addresses. A few are accepted in
/// advance where the engine has a multishot form; they are closed if nobody takes them.
pub fn incoming(handle: &SharedHandle) -> Incoming {
    Incoming { accepts: OpStream::new(AcceptMulti { handle: handle.clone(), direct: false }) }
}

/// See [`recv`].
pub struct Recv<B> {
    handle: SharedHandle,
    buf: B,
    flags: c_int,
}

// SAFETY: the buffer's memory is where IoBufMut promises, and the operation owns it.
unsafe impl<B: IoBufMut> Operation for Recv<B> {
    type Output = (io::Result<usize>, B);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    #[inline]
    fn before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completion>> {
        let Recv { handle, buf, flags } = self;
        let take = |received: Received<'_>| {
            // SAFETY: the buffer has room for so many bytes, and nobody else uses it.
            unsafe { received.copy_to(&[iovec_mut(buf)], *flags).0 }
        };
        handle.poll_received(cx, take).map(received)
    }

    #[inline]
    fn prepare(&mut self) -> Op {
        Op::Recv {
            handle: self.handle.handle(),
            buf: self.buf.as_mut_ptr(),
            len: op_len(self.buf.capacity()),
            flags: self.flags,
        }
    }

    #[inline]
    fn complete(self, completion: Completion) -> Self::Output {
        filled(count(completion), self.buf)
    }
}

/// What was received in advance, as the completion of an op that asks for it.
pub(super) fn received(received: Result<Option<usize>, i32>) -> Option<Completion> {
    match received {
        Ok(None) => None,
        Ok(Some(count)) => Some(Completion::new(count as i32)),
        Err(errno) => Some(Completion::error(errno)),
    }
}

/// Receives into `buf`, up to its capacity: the bytes received, 0 at the end of the stream.
/// `flags` may hold `MSG_PEEK`.
pub fn recv<B: IoBufMut>(handle: &SharedHandle, buf: B, flags: c_int) -> OpFuture<Recv<B>> {
    OpFuture::new(Recv { handle: handle.clone(), buf, flags })
}

/// See [`send`].
pub struct Send<B> {
    handle: SharedHandle,
    buf: B,
    flags: c_int,
}

// SAFETY: the buffer's memory is where IoBuf promises, and the operation owns it.
unsafe impl<B: IoBuf> Operation for Send<B> {
    type Output = (io::Result<usize>, B);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    #[inline]
    fn prepare(&mut self) -> Op {
        Op::Send {
            handle: self.handle.handle(),
            buf: self.buf.as_ptr(),
            len: op_len(self.buf.len()),
            flags: self.flags,
        }
    }

    #[inline]
    fn complete(self, completion: Completion) -> Self::Output {
        (count(completion), self.buf)
    }
}

/// Sends the initialised bytes of `buf`: the bytes sent, which may be fewer.
pub fn send<B: IoBuf>(handle: &SharedHandle, buf: B, flags: c_int) -> OpFuture<Send<B>> {
    OpFuture::new(Send { handle: handle.clone(), buf, flags })
}

/// Fewer bytes than this are copied. A send without a copy was measured to cost 5.5 us more than
/// one with (the pages are pinned, and there is a second completion), and a copy 0.2 us for each
/// KiB.
const ZERO_COPY_LEN_MIN: u32 = 32 << 10;

/// See [`send_zero_copy`].
pub struct SendZeroCopy<B: IoBuf> {
    sends: Option<OpStream<SendMulti<B>>>,
    /// The send was interrupted, and is made again when the kernel is done with the buffer.
    is_interrupted: bool,
}

struct SendMulti<B> {
    handle: SharedHandle,
    /// There until the op has ended.
    buf: Option<B>,
    flags: c_int,
}

// SAFETY: the buffer's memory is where IoBuf promises, and the operation owns it until the last
// completion.
unsafe impl<B: IoBuf> Multishot for SendMulti<B> {
    const READY_MAX: u32 = u32::MAX;

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        let SendMulti { handle, buf, flags } = self;
        let buf = buf.as_ref().expect("prepared once");
        let (handle, len, flags) = (handle.handle(), op_len(buf.len()), *flags);
        let buf = buf.as_ptr();
        if len < ZERO_COPY_LEN_MIN {
            return Op::Send { handle, buf, len, flags };
        }
        Op::SendZeroCopy { handle, buf, len, flags }
    }

    fn discard(&mut self, _completion: Completion) {}
}

impl<B: IoBuf> Future for SendZeroCopy<B> {
    type Output = (io::Result<usize>, InUse<B>);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let completion = loop {
            let this = &mut *self;
            let sends = this.sends.as_mut().expect("not polled after it has finished");
            let completion = ready!(sends.poll_next(cx));
            // The last completion of the send before says nothing of the one to come.
            let is_of_before = this.is_interrupted;
            this.is_interrupted = completion.result == -libc::EINTR || is_of_before;
            if !this.is_interrupted {
                break completion;
            }
            this.is_interrupted = sends.is_armed();
        };
        let sends = self.sends.take().expect("it was there a moment ago");
        Poll::Ready((count(completion), InUse { sends }))
    }
}

/// The buffer of a send without a copy, which the kernel may still read from. Awaiting this yields
/// the buffer when it does not; dropping this frees the buffer then.
#[must_use = "the buffer comes back when this is awaited"]
pub struct InUse<B: IoBuf> {
    sends: OpStream<SendMulti<B>>,
}

impl<B: IoBuf> InUse<B> {
    /// Whether the kernel may still read from the buffer.
    pub fn is_in_use(&self) -> bool {
        self.sends.is_armed()
    }
}

impl<B: IoBuf> Future for InUse<B> {
    type Output = B;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<B> {
        while self.sends.is_armed() {
            let _ = ready!(self.sends.poll_next(cx));
        }
        Poll::Ready(self.sends.operation().buf.take().expect("polled once after it is free"))
    }
}

/// Sends the initialised bytes of `buf` without copying them, where they are 32 KiB or more and the
/// kernel and the network device can (6.0): the bytes sent, which may be fewer, and the buffer as soon as it is free.
/// Dropping the future cancels the send; the buffer goes when the kernel is done with it.
pub fn send_zero_copy<B: IoBuf>(handle: &SharedHandle, buf: B, flags: c_int) -> SendZeroCopy<B> {
    let send = SendMulti { handle: handle.clone(), buf: Some(buf), flags };
    SendZeroCopy { sends: Some(OpStream::new(send)), is_interrupted: false }
}
