//! Socket addresses as the kernel has them.

use std::ffi::OsStr;
use std::io;
use std::mem::{offset_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::SocketAddr as UnixAddr;

use libc::{sockaddr, sockaddr_storage, sockaddr_un, socklen_t};

const ROOM: socklen_t = size_of::<sockaddr_storage>() as socklen_t;
const UNIX_PATH: usize = offset_of!(sockaddr_un, sun_path);

/// An address of any family, with its length in bytes.
#[derive(Clone)]
pub struct RawAddr {
    storage: sockaddr_storage,
    len: socklen_t,
}

impl RawAddr {
    /// No address: for a connected socket.
    pub fn none() -> RawAddr {
        // SAFETY: all-zero is a valid storage, of no family.
        RawAddr { storage: unsafe { zeroed() }, len: 0 }
    }

    /// Room for the kernel to write any address to.
    pub(crate) fn room() -> RawAddr {
        RawAddr { len: ROOM, ..RawAddr::none() }
    }

    /// Whether there is no address.
    pub fn is_none(&self) -> bool {
        self.len == 0
    }

    pub(crate) fn as_ptr(&self) -> *const sockaddr {
        (&raw const self.storage).cast()
    }

    pub(crate) fn len(&self) -> socklen_t {
        self.len
    }

    pub(crate) fn set_len(&mut self, len: socklen_t) {
        self.len = len.min(ROOM);
    }

    /// Takes an address of so many of these bytes.
    pub(crate) fn set_bytes(&mut self, bytes: &[u8], len: socklen_t) {
        let count = bytes.len().min(len as usize).min(ROOM as usize);
        // SAFETY: the storage has room for so many bytes, any of which are valid there.
        unsafe {
            let storage = (&raw mut self.storage).cast::<u8>();
            storage.copy_from_nonoverlapping(bytes.as_ptr(), count);
        }
        self.len = count as socklen_t;
    }

    pub(crate) fn as_out(&mut self) -> (*mut sockaddr, *mut socklen_t) {
        ((&raw mut self.storage).cast(), &raw mut self.len)
    }

    /// The address family: `AF_INET` and so on.
    pub fn family(&self) -> i32 {
        self.storage.ss_family.into()
    }

    /// The address that a socket is bound to.
    pub fn local(fd: BorrowedFd<'_>) -> io::Result<RawAddr> {
        // SAFETY: room and length are valid.
        RawAddr::ask(|addr, len| unsafe { libc::getsockname(fd.as_raw_fd(), addr, len) })
    }

    /// The address that a socket is connected to.
    pub fn peer(fd: BorrowedFd<'_>) -> io::Result<RawAddr> {
        // SAFETY: room and length are valid.
        RawAddr::ask(|addr, len| unsafe { libc::getpeername(fd.as_raw_fd(), addr, len) })
    }

    fn ask(call: impl FnOnce(*mut sockaddr, *mut socklen_t) -> i32) -> io::Result<RawAddr> {
        let mut addr = RawAddr::room();
        let (storage, len) = addr.as_out();
        match call(storage, len) {
            0 => Ok(addr),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// As an Internet address, if it is one.
    pub fn to_inet(&self) -> io::Result<SocketAddr> {
        match self.family() {
            libc::AF_INET => {
                // SAFETY: the storage is large enough, and the family says what it is.
                let addr = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in>() };
                let ip = Ipv4Addr::from(u32::from_be(addr.sin_addr.s_addr));
                Ok(SocketAddrV4::new(ip, u16::from_be(addr.sin_port)).into())
            }
            libc::AF_INET6 => {
                // SAFETY: as above.
                let addr = unsafe { *(&raw const self.storage).cast::<libc::sockaddr_in6>() };
                let ip = Ipv6Addr::from(addr.sin6_addr.s6_addr);
                let port = u16::from_be(addr.sin6_port);
                Ok(SocketAddrV6::new(ip, port, addr.sin6_flowinfo, addr.sin6_scope_id).into())
            }
            family => Err(wrong_family("an Internet", family)),
        }
    }

    /// As a Unix address, if it is one; an unnamed socket's has no name.
    pub fn to_unix(&self) -> io::Result<UnixAddr> {
        if self.len as usize <= UNIX_PATH {
            return UnixAddr::from_pathname("");
        }
        if self.family() != libc::AF_UNIX {
            return Err(wrong_family("a Unix", self.family()));
        }
        // SAFETY: the storage is large enough, and the family says what it is.
        let addr = unsafe { &*(&raw const self.storage).cast::<sockaddr_un>() };
        let len = (self.len as usize - UNIX_PATH).min(addr.sun_path.len());
        let bytes: Vec<u8> = addr.sun_path[..len].iter().map(|&byte| byte as u8).collect();
        match bytes.split_first() {
            Some((0, name)) => UnixAddr::from_abstract_name(name),
            _ => {
                let path = bytes.split(|&byte| byte == 0).next().unwrap_or_default();
                UnixAddr::from_pathname(OsStr::from_bytes(path))
            }
        }
    }
}

impl std::fmt::Debug for RawAddr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.is_none(), self.family()) {
            (true, _) => f.write_str("none"),
            (_, libc::AF_UNIX) => self.to_unix().fmt(f),
            _ => self.to_inet().fmt(f),
        }
    }
}

fn wrong_family(wanted: &str, family: i32) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("expected {wanted} address, the socket has one of family {family}"),
    )
}

impl From<SocketAddr> for RawAddr {
    fn from(addr: SocketAddr) -> RawAddr {
        let mut raw = RawAddr::none();
        match addr {
            SocketAddr::V4(addr) => {
                let inet = libc::sockaddr_in {
                    sin_family: libc::AF_INET as u16,
                    sin_port: addr.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: u32::from(*addr.ip()).to_be() },
                    sin_zero: [0; 8],
                };
                // SAFETY: the storage is large enough for every family's address.
                unsafe { (&raw mut raw.storage).cast::<libc::sockaddr_in>().write(inet) };
                raw.len = size_of_val(&inet) as socklen_t;
            }
            SocketAddr::V6(addr) => {
                let inet = libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as u16,
                    sin6_port: addr.port().to_be(),
                    sin6_flowinfo: addr.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
                    sin6_scope_id: addr.scope_id(),
                };
                // SAFETY: as above.
                unsafe { (&raw mut raw.storage).cast::<libc::sockaddr_in6>().write(inet) };
                raw.len = size_of_val(&inet) as socklen_t;
            }
        }
        raw
    }
}

impl From<&UnixAddr> for RawAddr {
    fn from(addr: &UnixAddr) -> RawAddr {
        let mut raw = RawAddr::none();
        raw.storage.ss_family = libc::AF_UNIX as u16;
        let (is_abstract, name) = match (addr.as_pathname(), addr.as_abstract_name()) {
            (Some(path), _) => (false, path.as_os_str().as_bytes()),
            (None, Some(name)) => (true, name),
            (None, None) => {
                raw.len = UNIX_PATH as socklen_t;
                return raw;
            }
        };
        // SAFETY: the storage is large enough for every family's address.
        let unix = unsafe { &mut *(&raw mut raw.storage).cast::<sockaddr_un>() };
        let start = usize::from(is_abstract);
        for (at, &byte) in unix.sun_path[start..].iter_mut().zip(name) {
            *at = byte as libc::c_char;
        }
        // A path ends with a zero; an abstract name begins with one.
        raw.len = (UNIX_PATH + name.len() + 1) as socklen_t;
        raw
    }
}
