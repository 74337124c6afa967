//! Messages: several buffers, an address, and what goes beside the bytes (`recvmsg(2)`,
//! `sendmsg(2)`).

use std::ffi::c_int;
use std::io::{self, IoSlice};
use std::mem::zeroed;
use std::rc::Rc;
use std::task::{Context, Poll};

use libc::{iovec, msghdr};

use super::control::{ControlReceived, ControlRoom, ControlToSend};
use super::file::{fill_in_order, iovec_mut, iovec_ref};
use super::net::received;
use super::{count, op_len};
use crate::addr::RawAddr;
use crate::buf::{IoBuf, IoBufMut};
use crate::driver::Driver;
use crate::future::{OpFuture, Operation};
use crate::handle::SharedHandle;
use crate::op::{Completion, Op};
use crate::receiver::Received;

/// The parts of a message that the kernel finds through pointers.
struct Message {
    header: msghdr,
    iov: Vec<iovec>,
    addr: RawAddr,
}

impl Message {
    fn new(addr: RawAddr) -> Box<Message> {
        // SAFETY: an all-zero header is an empty message.
        let header = unsafe { zeroed() };
        Box::new(Message { header, iov: Vec::new(), addr })
    }

    /// Points the header at the parts, which stay where they are in the box.
    fn link(&mut self, iov: Vec<iovec>) -> *mut msghdr {
        self.iov = iov;
        self.header.msg_iov = self.iov.as_mut_ptr();
        self.header.msg_iovlen = self.iov.len();
        if !self.addr.is_none() {
            self.header.msg_namelen = self.addr.len();
            self.header.msg_name = self.addr.as_ptr().cast_mut().cast();
        }
        &raw mut self.header
    }
}

/// See [`recv_msg`].
pub struct RecvMsg<B> {
    handle: SharedHandle,
    bufs: Vec<B>,
    message: Box<Message>,
    flags: c_int,
}

/// What a message brought.
#[derive(Clone, Debug)]
pub struct MessageReceived {
    /// Bytes received in all buffers.
    pub count: usize,
    /// The sender's address, where the socket is one that tells.
    pub from: RawAddr,
    /// `MSG_TRUNC` and the like: see `recvmsg(2)`.
    pub flags: c_int,
}

// SAFETY: header, iovecs and address are on the heap, the buffers' memory is where IoBufMut
// promises, and the operation owns them all.
unsafe impl<B: IoBufMut> Operation for RecvMsg<B> {
    type Output = (io::Result<MessageReceived>, Vec<B>);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completion>> {
        let RecvMsg { handle, bufs, flags, message } = self;
        let take = |received: Received<'_>| {
            let iov: Vec<iovec> = bufs.iter_mut().map(iovec_mut).collect();
            // SAFETY: the buffers have room for so many bytes, and nobody else uses them.
            let (count, datagram) = unsafe { received.copy_to(&iov, *flags) };
            if let Some((from, flags)) = datagram {
                (message.header.msg_namelen, message.header.msg_flags) = (from.len(), flags);
                message.addr = from;
            }
            count
        };
        handle.poll_received(cx, take).map(received)
    }

    fn prepare(&mut self) -> Op {
        let iov = self.bufs.iter_mut().take(super::file::IOV_MAX).map(iovec_mut).collect();
        let msg = self.message.link(iov);
        Op::RecvMsg { handle: self.handle.handle(), msg, flags: self.flags }
    }

    fn complete(mut self, completion: Completion) -> Self::Output {
        let result = count(completion).map(|count| {
            fill_in_order(&mut self.bufs, count);
            let mut from = self.message.addr.clone();
            from.set_len(self.message.header.msg_namelen);
            MessageReceived { count, from, flags: self.message.header.msg_flags }
        });
        (result, self.bufs)
    }
}

/// Receives one message, or what a stream has, into several buffers in order.
pub fn recv_msg<B: IoBufMut>(
    handle: &SharedHandle,
    bufs: Vec<B>,
    flags: c_int,
) -> OpFuture<RecvMsg<B>> {
    let message = Message::new(RawAddr::room());
    OpFuture::new(RecvMsg { handle: handle.clone(), bufs, message, flags })
}

/// See [`send_msg`].
pub struct SendMsg<B> {
    handle: SharedHandle,
    bufs: Vec<B>,
    message: Box<Message>,
    flags: c_int,
}

// SAFETY: as for RecvMsg.
unsafe impl<B: IoBuf> Operation for SendMsg<B> {
    type Output = (io::Result<usize>, Vec<B>);

    fn driver(&self) -> &Rc<Driver> {
        self.handle.driver()
    }

    fn prepare(&mut self) -> Op {
        let iov = self.bufs.iter().take(super::file::IOV_MAX).map(iovec_ref).collect();
        let msg = self.message.link(iov);
        Op::SendMsg { handle: self.handle.handle(), msg, flags: self.flags }
    }

    fn complete(self, completion: Completion) -> Self::Output {
        (count(completion), self.bufs)
    }
}

/// Sends several buffers in order as one message, to `to` where that is given.
pub fn send_msg<B: IoBuf>(
    handle: &SharedHandle,
    bufs: Vec<B>,
    to: Option<RawAddr>,
    flags: c_int,
) -> OpFuture<SendMsg<B>> {
    let message = Message::new(to.unwrap_or_else(RawAddr::none));
    OpFuture::new(SendMsg { handle: handle.clone(), bufs, message, flags })
}

/// Parts of no more bytes than this together are copied into one: sendmsg(2) costs more than that.
const GATHERED_MAX: usize = 512;

/// Sends what a stream takes of `parts` at once, without owning them: the bytes sent, which may be
/// fewer. Nothing is done, and `None` returned, where that would have to wait and on engines that do
/// not make the call on this thread.
pub fn try_send(handle: &SharedHandle, parts: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
    // SAFETY: an all-zero header is an empty message.
    let mut header: msghdr = unsafe { std::mem::zeroed() };
    let mut gathered = [0; GATHERED_MAX];
    let op = match parts {
        [part] => {
            let (buf, len) = (part.as_ptr(), op_len(part.len()));
            Op::Send { handle: handle.handle(), buf, len, flags: 0 }
        }
        parts if parts.iter().map(|part| part.len()).sum::<usize>() <= GATHERED_MAX => {
            let mut len = 0;
            for part in parts {
                gathered[len..len + part.len()].copy_from_slice(part);
                len += part.len();
            }
            let (buf, len) = (gathered.as_ptr(), op_len(len));
            Op::Send { handle: handle.handle(), buf, len, flags: 0 }
        }
        parts => {
            // A slice is laid out as an iovec, and is not written to.
            header.msg_iov = parts.as_ptr().cast_mut().cast();
            header.msg_iovlen = parts.len().min(super::file::IOV_MAX) as _;
            Op::SendMsg { handle: handle.handle(), msg: &raw const header, flags: 0 }
        }
    };
    // SAFETY: header, parts and their copy live until the call has returned.
    let completion = unsafe { handle.driver().attempt(&op) }?;
    Some(count(completion))
}

/// See [`recv_msg_with_control`].
pub struct RecvMsgWithControl<B> {
    message: RecvMsg<B>,
    room: ControlRoom,
}

// SAFETY: as for RecvMsg; the room for control data is on the heap, and the operation owns it.
unsafe impl<B: IoBufMut> Operation for RecvMsgWithControl<B> {
    type Output = (io::Result<(MessageReceived, ControlReceived)>, Vec<B>);

    fn driver(&self) -> &Rc<Driver> {
        self.message.driver()
    }

    fn before(&mut self, cx: &mut Context<'_>) -> Poll<Option<Completion>> {
        self.message.before(cx)
    }

    fn prepare(&mut self) -> Op {
        let header = &mut self.message.message.header;
        (header.msg_control, header.msg_controllen) = self.room.as_out();
        self.message.prepare()
    }

    fn complete(self, completion: Completion) -> Self::Output {
        let RecvMsgWithControl { message, mut room } = self;
        let libc::msghdr { msg_controllen: len, msg_flags, .. } = message.message.header;
        let mut control = match completion.result {
            // SAFETY: the kernel has filled in so many bytes, or none if the message was received
            // in advance, and they are taken once.
            0.. => unsafe { room.take(len) },
            _ => ControlReceived::default(),
        };
        control.is_cut |= completion.result >= 0 && msg_flags & libc::MSG_CTRUNC != 0;
        let (result, bufs) = message.complete(completion);
        (result.map(|message| (message, control)), bufs)
    }

    /// INV-ORPHAN: descriptors that nobody takes are closed.
    fn discard(self, completion: Completion) {
        drop(self.complete(completion));
    }
}

/// As [`recv_msg`], with what goes beside the bytes: room for `fds_max` descriptors (which are
/// closed on exec; the kernel closes those that there is no room for, and says `MSG_CTRUNC`) and for
/// one each of the other kinds in [`ControlReceived`]. Descriptors that nobody takes are closed.
pub fn recv_msg_with_control<B: IoBufMut>(
    handle: &SharedHandle,
    bufs: Vec<B>,
    flags: c_int,
    fds_max: usize,
) -> OpFuture<RecvMsgWithControl<B>> {
    let message = RecvMsg {
        handle: handle.clone(),
        bufs,
        message: Message::new(RawAddr::room()),
        flags: flags | libc::MSG_CMSG_CLOEXEC,
    };
    OpFuture::new(RecvMsgWithControl { message, room: ControlRoom::new(fds_max) })
}

/// See [`send_msg_with_control`].
pub struct SendMsgWithControl<B> {
    message: SendMsg<B>,
    control: ControlToSend,
}

// SAFETY: as for SendMsg; the control data is on the heap, and the operation owns it and the
// descriptors that it names.
unsafe impl<B: IoBuf> Operation for SendMsgWithControl<B> {
    type Output = (io::Result<usize>, Vec<B>, ControlToSend);

    fn driver(&self) -> &Rc<Driver> {
        self.message.driver()
    }

    fn prepare(&mut self) -> Op {
        let header = &mut self.message.message.header;
        (header.msg_control, header.msg_controllen) = self.control.as_in();
        self.message.prepare()
    }

    fn complete(self, completion: Completion) -> Self::Output {
        let (result, bufs) = self.message.complete(completion);
        (result, bufs, self.control)
    }
}

/// As [`send_msg`], with what goes beside the bytes, which comes back with the buffers.
pub fn send_msg_with_control<B: IoBuf>(
    handle: &SharedHandle,
    bufs: Vec<B>,
    to: Option<RawAddr>,
    flags: c_int,
    control: ControlToSend,
) -> OpFuture<SendMsgWithControl<B>> {
    let message = Message::new(to.unwrap_or_else(RawAddr::none));
    let message = SendMsg { handle: handle.clone(), bufs, message, flags };
    OpFuture::new(SendMsgWithControl { message, control })
}
