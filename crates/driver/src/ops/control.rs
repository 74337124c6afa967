//! Control data: what goes beside the bytes of a message (`cmsg(3)`), in safe form.
//!
//! Descriptors are owned on both sides: those to be sent stay open until the op has ended, those
//! received are taken out exactly once.

use std::ffi::c_int;
use std::fmt;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{NonNull, null_mut};

use libc::{SCM_CREDENTIALS, UDP_GRO, UDP_SEGMENT, c_void, cmsghdr, msghdr, ucred};

/// A block of control data, aligned as its headers are.
#[derive(Clone, Default)]
struct Block {
    words: Vec<u64>,
    /// Bytes of it in use.
    len: usize,
}

const _: () = assert!(align_of::<cmsghdr>() <= align_of::<u64>());

/// Bytes that a control message with so many bytes of data takes in a block.
fn space(data_len: usize) -> usize {
    // SAFETY: arithmetic.
    unsafe { libc::CMSG_SPACE(data_len as u32) as usize }
}

impl Block {
    fn with_room(len: usize) -> Block {
        Block { words: vec![0; len.div_ceil(size_of::<u64>())], len }
    }

    fn as_mut_ptr(&mut self) -> *mut c_void {
        if self.len == 0 { null_mut() } else { self.words.as_mut_ptr().cast() }
    }

    /// Adds a message with this data.
    fn push(&mut self, level: c_int, kind: c_int, data: &[u8]) {
        let start = self.len;
        self.len += space(data.len());
        self.words.resize(self.len.div_ceil(size_of::<u64>()), 0);
        // SAFETY: `space` bytes from `start` on are the block's, and a multiple of a header's
        // alignment is in front of them.
        unsafe {
            let header = self.words.as_mut_ptr().cast::<u8>().add(start).cast::<cmsghdr>();
            (*header).cmsg_level = level;
            (*header).cmsg_type = kind;
            (*header).cmsg_len = libc::CMSG_LEN(data.len() as u32) as _;
            libc::CMSG_DATA(header).copy_from_nonoverlapping(data.as_ptr(), data.len());
        }
    }

    /// Each message in the first `len` bytes: level, kind and data.
    fn each(&mut self, len: usize, mut take: impl FnMut(c_int, c_int, &[u8])) {
        let len = len.min(self.len);
        // SAFETY: an all-zero header is an empty message.
        let mut outer: msghdr = unsafe { std::mem::zeroed() };
        outer.msg_control = self.words.as_mut_ptr().cast();
        outer.msg_controllen = len as _;
        // SAFETY: the block has `len` bytes that the kernel has written; the macros stay within
        // them, and so does the data of each message, whose length is cut at the block's end.
        unsafe {
            let end = self.words.as_ptr().cast::<u8>().add(len);
            let mut next = NonNull::new(libc::CMSG_FIRSTHDR(&raw const outer));
            while let Some(header) = next {
                let data = libc::CMSG_DATA(header.as_ptr()).cast_const();
                let room = end.addr().saturating_sub(data.addr());
                let header_len = libc::CMSG_LEN(0) as usize;
                let data_len = header.as_ref().cmsg_len.saturating_sub(header_len);
                let data = std::slice::from_raw_parts(data, data_len.min(room));
                take(header.as_ref().cmsg_level, header.as_ref().cmsg_type, data);
                next = NonNull::new(libc::CMSG_NXTHDR(&raw const outer, header.as_ptr()));
            }
        }
    }
}

/// What is to be sent beside the bytes of a message.
///
/// ```
/// use omniring_driver::ops::ControlToSend;
/// let fd = std::fs::File::open("/dev/null")?.into();
/// let mut control = ControlToSend::default();
/// control.push_fds(vec![fd]);
/// assert!(!control.is_empty());
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Default)]
pub struct ControlToSend {
    block: Block,
    /// What the block names by number.
    fds: Vec<OwnedFd>,
}

impl ControlToSend {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.block.len == 0
    }

    /// Descriptors (`SCM_RIGHTS`), at most 253 in a message: the receiver gets its own of them, and
    /// these are closed with the value.
    pub fn push_fds(&mut self, fds: Vec<OwnedFd>) {
        if fds.is_empty() {
            return;
        }
        let numbers = fds.iter().flat_map(|fd| fd.as_raw_fd().to_ne_bytes());
        self.block.push(libc::SOL_SOCKET, libc::SCM_RIGHTS, &numbers.collect::<Vec<u8>>());
        self.fds.extend(fds);
    }

    /// Who sends (`SCM_CREDENTIALS`); others than one's own need privileges.
    pub fn push_credentials(&mut self, credentials: ucred) {
        let ucred { pid, uid, gid } = credentials;
        let data = [pid.to_ne_bytes(), uid.to_ne_bytes(), gid.to_ne_bytes()].concat();
        self.block.push(libc::SOL_SOCKET, SCM_CREDENTIALS, &data);
    }

    /// The message is several datagrams of so many bytes, the last of which may be shorter
    /// (`UDP_SEGMENT`, 4.18).
    pub fn push_segment_len(&mut self, len: u16) {
        self.block.push(libc::SOL_UDP, UDP_SEGMENT, &len.to_ne_bytes());
    }

    /// For the op: the block, and its length.
    pub(super) fn as_in(&mut self) -> (*mut c_void, usize) {
        (self.block.as_mut_ptr(), self.block.len)
    }
}

impl fmt::Debug for ControlToSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlToSend")
            .field("len", &self.block.len)
            .field("fds", &self.fds)
            .finish()
    }
}

/// Room for what comes beside the bytes of a message.
pub(super) struct ControlRoom {
    block: Block,
    fds_max: usize,
}

impl ControlRoom {
    pub(super) fn new(fds_max: usize) -> ControlRoom {
        // A kernel passes no more.
        let fds_len = fds_max.min(FDS_MAX) * size_of::<RawFd>();
        let fds = if fds_len == 0 { 0 } else { space(fds_len) };
        let others = space(size_of::<ucred>()) + 2 * space(size_of::<c_int>());
        ControlRoom { block: Block::with_room(fds + others), fds_max }
    }

    /// For the op: the room, and its length.
    pub(super) fn as_out(&mut self) -> (*mut c_void, usize) {
        (self.block.as_mut_ptr(), self.block.len)
    }

    /// Takes out what the kernel wrote.
    ///
    /// # Safety
    /// The kernel wrote `len` bytes here, for an op that was just completed, or none if the op was
    /// not submitted; the descriptors among them belong to nobody yet.
    pub(super) unsafe fn take(&mut self, len: usize) -> ControlReceived {
        let mut received = ControlReceived::default();
        self.block.each(len, |level, kind, data| match (level, kind) {
            (libc::SOL_SOCKET, libc::SCM_RIGHTS) => {
                let numbers = data.chunks_exact(size_of::<RawFd>());
                let numbers = numbers.map(|bytes| RawFd::from_ne_bytes(bytes.try_into().unwrap()));
                // SAFETY: the caller's contract: the kernel has just made them for this op.
                received.fds.extend(numbers.map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
            (libc::SOL_SOCKET, SCM_CREDENTIALS) if data.len() == size_of::<ucred>() => {
                let (pid, uid, gid) = (int(data), int(&data[4..]), int(&data[8..]));
                received.credentials = Some(ucred { pid, uid: uid as u32, gid: gid as u32 });
            }
            (libc::SOL_UDP, UDP_GRO) if data.len() >= size_of::<c_int>() => {
                received.segment_len = u16::try_from(int(data)).ok();
            }
            (libc::SOL_IP, libc::IP_TOS) if !data.is_empty() => {
                received.traffic_class = Some(data[0]);
            }
            (libc::SOL_IPV6, libc::IPV6_TCLASS) if data.len() >= size_of::<c_int>() => {
                received.traffic_class = Some(int(data) as u8);
            }
            _ => {}
        });
        // The kernel uses the room of the other kinds too.
        received.is_cut = received.fds.len() > self.fds_max;
        received.fds.truncate(self.fds_max);
        received
    }
}

/// The most descriptors in one message (`SCM_MAX_FD`).
const FDS_MAX: usize = 253;

fn int(bytes: &[u8]) -> c_int {
    c_int::from_ne_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// What came beside the bytes of a message.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ControlReceived {
    /// Descriptors (`SCM_RIGHTS`), closed on exec.
    pub fds: Vec<OwnedFd>,
    /// Whether more of them came than there was room for, which were closed.
    pub is_cut: bool,
    /// Who sent the message (`SCM_CREDENTIALS`), on a socket with `SO_PASSCRED`.
    pub credentials: Option<ucred>,
    /// The length of each datagram but the last, where several came as one (`UDP_GRO`).
    pub segment_len: Option<u16>,
    /// The traffic class (`IP_TOS`, `IPV6_TCLASS`), on a socket with `IP_RECVTOS` or
    /// `IPV6_RECVTCLASS`.
    pub traffic_class: Option<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_is_taken_out() {
        let mut control = ControlToSend::default();
        control.push_segment_len(1200);
        control.push_credentials(ucred { pid: 1, uid: 2, gid: 3 });
        let mut seen = Vec::new();
        let len = control.block.len;
        control.block.each(len, |level, kind, data| seen.push((level, kind, data.to_vec())));
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0], (libc::SOL_UDP, UDP_SEGMENT, 1200u16.to_ne_bytes().to_vec()));
        assert_eq!((seen[1].1, seen[1].2.len()), (SCM_CREDENTIALS, 12));
        // Cut anywhere, it says nothing that is not there.
        for cut in 0..len {
            control.block.each(cut, |_, _, data| assert!(data.len() <= cut));
        }
    }

    #[test]
    fn nothing_is_no_control_data() {
        let mut control = ControlToSend::default();
        control.push_fds(Vec::new());
        assert!(control.is_empty() && control.as_in().0.is_null());
    }
}
