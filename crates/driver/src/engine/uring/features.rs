//! What the kernel's io_uring can do here: each feature is tried on a small ring of its own, with
//! real descriptors and data, within a bound in time.
//!
//! A kernel's version or its flags say less: a feature may be there and refused, or be buggy.
//! Deliberately not here: what is said about it (`doctor`).

use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU16, AtomicU32, Ordering};
use std::time::Duration;

use libc::c_void;
use linux_raw_sys::io_uring as sys;
use sys::io_uring_op as code;
use sys::io_uring_register_op as register;

use super::ring::{Cqe, Mode, Ring, RingWait, Sqe};
use crate::diagnosis::{Failure, Step};
use crate::system::KernelVersion;

/// How long an op of a trial may take.
const TIME_MAX: Duration = Duration::from_secs(2);

/// One feature.
pub(crate) struct Feature {
    pub(crate) name: &'static str,
    /// What it is, and what for.
    pub(crate) about: &'static str,
    /// The first kernel that has it.
    pub(crate) since: KernelVersion,
    /// What programs get where it is missing; `None` if nothing takes its place.
    pub(crate) instead: Option<&'static str>,
    /// Tries it.
    pub(crate) attempt: fn() -> Result<(), Lack>,
}

/// How a feature failed.
#[derive(Debug)]
pub(crate) struct Lack {
    /// Doing what.
    pub(crate) doing: &'static str,
    pub(crate) error: io::Error,
}

impl Lack {
    fn at(doing: &'static str) -> impl Fn(io::Error) -> Lack {
        move |error| Lack { doing, error }
    }
}

type Trial = Result<(), Lack>;

const fn since(major: u32, minor: u32) -> KernelVersion {
    KernelVersion::new(major, minor)
}

/// Every feature that is tried.
pub(crate) const FEATURES: &[Feature] = &[
    Feature {
        name: "defer-taskrun",
        about: "completions are worked off when the program asks (SINGLE_ISSUER, DEFER_TASKRUN)",
        since: since(6, 1),
        instead: Some("completions interrupt the program, or are worked off at any system call"),
        attempt: defer_taskrun,
    },
    Feature {
        name: "registered-ring-fd",
        about: "the kernel need not look the ring's descriptor up",
        since: since(5, 18),
        instead: Some("the ring's descriptor is looked up at each entry"),
        attempt: registered_ring_fd,
    },
    Feature {
        name: "min-wait-timeout",
        about: "one entry waits for a batch, for a bounded time",
        since: since(6, 12),
        instead: Some("waiting for a batch may take a second entry"),
        attempt: min_wait_timeout,
    },
    Feature {
        name: "no-iowait",
        about: "a waiting program counts as idle",
        since: since(6, 15),
        instead: Some("an idle server may be shown as waiting for a disk (iowait)"),
        attempt: no_iowait,
    },
    Feature {
        name: "multishot-accept",
        about: "one submission accepts many connections",
        since: since(5, 19),
        instead: Some("one submission for each connection"),
        attempt: multishot_accept,
    },
    Feature {
        name: "multishot-recv",
        about: "one submission receives many times, into a ring of provided buffers",
        since: since(6, 0),
        instead: Some("one submission for each receive"),
        attempt: multishot_recv,
    },
    Feature {
        name: "incremental-buffers",
        about: "several receives share one provided buffer",
        since: since(6, 12),
        instead: Some("each receive takes a provided buffer of its own"),
        attempt: incremental_buffers,
    },
    Feature {
        name: "recv-bundles",
        about: "one completion fills several provided buffers",
        since: since(6, 10),
        instead: Some("one completion for each provided buffer"),
        attempt: recv_bundles,
    },
    Feature {
        name: "fixed-buffers",
        about: "memory is mapped into the kernel once, not for each O_DIRECT op",
        since: since(5, 1),
        instead: Some("plain reads and writes"),
        attempt: fixed_buffers,
    },
    Feature {
        name: "direct-descriptors",
        about: "accepted and opened files live in the ring's own table",
        since: since(5, 19),
        instead: Some("descriptors of the process"),
        attempt: direct_descriptors,
    },
    Feature {
        name: "zero-copy-send",
        about: "large sends are not copied into the kernel",
        since: since(6, 0),
        instead: Some("sends are copied"),
        attempt: zero_copy_send,
    },
    Feature {
        name: "linked-timeouts",
        about: "an op and its time limit are one submission",
        since: since(5, 5),
        instead: Some("a timer of the runtime's cancels the op"),
        attempt: linked_timeouts,
    },
    Feature {
        name: "sqpoll",
        about: "a kernel thread takes the submissions",
        since: since(5, 11),
        instead: None,
        attempt: sqpoll,
    },
    Feature {
        name: "iopoll",
        about: "a ring that polls the device (whether a device can be: polled-devices)",
        since: since(5, 1),
        instead: None,
        attempt: iopoll,
    },
    Feature {
        name: "hybrid-iopoll",
        about: "the same, asleep for a part of the time",
        since: since(6, 13),
        instead: None,
        attempt: hybrid_iopoll,
    },
];

/// Whether there is a ring at all: the condition of each feature.
pub(crate) fn ring_works() -> Result<(), Failure> {
    let ring = patiently(|| Ring::new(8, 16, Mode::default())).map_err(Failure::at(Step::SetUp))?;
    ring.probe().map_err(Failure::at(Step::Register))?;
    let mut bench = Bench::of(ring);
    bench.nop("").map_err(|lack| Failure { step: Step::Prove, error: lack.error })
}

/// How long all trials together wait for locked memory.
const MEMORY_TIME_MAX: Duration = Duration::from_secs(2);

/// Makes a ring. The charge of those before, of locked memory, goes back only some time after
/// they were closed.
fn patiently(make: impl Fn() -> io::Result<Ring>) -> io::Result<Ring> {
    static WAITED_MS: AtomicU32 = AtomicU32::new(0);
    const PAUSE: Duration = Duration::from_millis(5);
    loop {
        match make() {
            Err(error) if error.raw_os_error() == Some(libc::ENOMEM) => {
                let pause_ms = PAUSE.as_millis() as u32;
                let waited_ms = WAITED_MS.fetch_add(pause_ms, Ordering::Relaxed);
                if u128::from(waited_ms) >= MEMORY_TIME_MAX.as_millis() {
                    return Err(error);
                }
                std::thread::sleep(PAUSE);
            }
            result => return result,
        }
    }
}

fn defer_taskrun() -> Trial {
    let flags = sys::IORING_SETUP_SINGLE_ISSUER | sys::IORING_SETUP_DEFER_TASKRUN;
    Bench::with_flags(flags)?.nop("a no-op on such a ring")
}

fn registered_ring_fd() -> Trial {
    let mut bench = Bench::new()?;
    if !bench.ring.has_registered_fd() {
        return Err(lack("registering the descriptor", libc::EINVAL));
    }
    bench.nop("entering by the registered descriptor")
}

fn min_wait_timeout() -> Trial {
    let doing = "waiting for two completions of which one comes";
    let mut bench = Bench::new()?;
    if !bench.ring.has_min_wait() {
        return Err(lack("looking for it among the ring's features", libc::EOPNOTSUPP));
    }
    bench.push(entry(code::IORING_OP_NOP, -1));
    let start = crate::clock::now();
    let batch_time = Duration::from_millis(1);
    let wait = RingWait { count: 2, batch_time, timeout: Some(TIME_MAX) };
    bench.ring.enter_and_wait(&wait).map_err(Lack::at(doing))?;
    if start.elapsed() >= TIME_MAX {
        return Err(lack(doing, libc::ETIME));
    }
    bench.next(doing)?;
    Ok(())
}

fn no_iowait() -> Trial {
    let mut bench = Bench::new()?;
    if !bench.ring.has_no_iowait() {
        return Err(lack("looking for it among the ring's features", libc::EOPNOTSUPP));
    }
    bench.nop("waiting so")
}

fn multishot_accept() -> Trial {
    let doing = "accepting two connections by one submission";
    let mut bench = Bench::new()?;
    let (listener, address) = listener().map_err(Lack::at("a listening socket"))?;
    let mut accept = entry(code::IORING_OP_ACCEPT, listener.as_raw_fd());
    accept.ioprio = sys::IORING_ACCEPT_MULTISHOT as u16;
    bench.push(accept);
    for _ in 0..2 {
        let _client = UnixStream::connect_addr(&address).map_err(Lack::at("connecting"))?;
        let cqe = bench.next(doing)?;
        // SAFETY: just made, owned by nobody else.
        drop(unsafe { OwnedFd::from_raw_fd(cqe.result) });
        expect(cqe.flags & sys::IORING_CQE_F_MORE != 0, doing)?;
    }
    bench.cancel_armed(doing)
}

fn multishot_recv() -> Trial {
    let doing = "receiving twice by one submission";
    let mut bench = Bench::new()?;
    bench.provide_buffers(64, 4, 0)?;
    let (mut here, there) = pair()?;
    bench.push(provided_recv(there.as_fd(), sys::IORING_RECV_MULTISHOT));
    for text in [b"one", b"two"] {
        send(&mut here, text)?;
        let cqe = bench.next(doing)?;
        expect(cqe.flags & sys::IORING_CQE_F_MORE != 0, doing)?;
        let at = bench.provided(&cqe, doing)? * 64;
        bench.expect_data(at, cqe.result, text, doing)?;
    }
    drop(here);
    let end = bench.next(doing)?;
    expect(end.result == 0 && end.flags & sys::IORING_CQE_F_MORE == 0, doing)
}

fn incremental_buffers() -> Trial {
    let doing = "receiving twice into one buffer";
    let mut bench = Bench::new()?;
    bench.provide_buffers(
        256,
        1,
        sys::io_uring_register_pbuf_ring_flags::IOU_PBUF_RING_INC as u16,
    )?;
    let (mut here, there) = pair()?;
    for (at, text) in [(0, b"one"), (3, b"two")] {
        bench.push(provided_recv(there.as_fd(), 0));
        send(&mut here, text)?;
        let cqe = bench.next(doing)?;
        expect(cqe.flags & sys::IORING_CQE_F_BUF_MORE != 0, doing)?;
        expect(bench.provided(&cqe, doing)? == 0, doing)?;
        bench.expect_data(at, cqe.result, text, doing)?;
    }
    Ok(())
}

fn recv_bundles() -> Trial {
    let doing = "receiving into several buffers at once";
    let mut bench = Bench::new()?;
    bench.provide_buffers(4, 8, 0)?;
    // Over TCP, which tells how much there is: the first completion may take one buffer only.
    let sockets = || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        let here = std::net::TcpStream::connect(listener.local_addr()?)?;
        io::Result::Ok((here, listener.accept()?.0))
    };
    let (mut here, there) = sockets().map_err(Lack::at("a connection over loopback"))?;
    let text = b"several buffers at once";
    here.write_all(text).map_err(Lack::at("sending over loopback"))?;
    drop(here);
    let flags = sys::IORING_RECV_MULTISHOT | sys::IORING_RECVSEND_BUNDLE;
    bench.push(provided_recv(there.as_fd(), flags));
    let (mut received, mut len_max) = (0, 0);
    while received < text.len() {
        let cqe = bench.next(doing)?;
        let (first, len) = (bench.provided(&cqe, doing)? * 4, cqe.result as usize);
        expect(first + len <= 8 * 4 && received + len <= text.len(), doing)?;
        bench.expect_data(first, cqe.result, &text[received..received + len], doing)?;
        received += len;
        len_max = len.max(len_max);
        expect(cqe.flags & sys::IORING_CQE_F_MORE != 0, doing)?;
    }
    expect(len_max > 4, doing)?;
    bench.next(doing).map(drop)
}

fn fixed_buffers() -> Trial {
    let doing = "reading into a registered buffer";
    let mut bench = Bench::new()?;
    let mut file = memory_file().map_err(Lack::at("a file in memory"))?;
    file.write_all(b"fixed").map_err(Lack::at("writing a file in memory"))?;
    let iov = libc::iovec { iov_base: bench.pages.data(0).cast(), iov_len: Pages::DATA_LEN };
    // SAFETY: one vector, a local; the memory is the trial's own.
    unsafe { bench.ring.register(register::IORING_REGISTER_BUFFERS, (&raw const iov) as _, 1) }
        .map_err(|errno| lack("registering a buffer", errno))?;
    let mut read = entry(code::IORING_OP_READ_FIXED, file.as_raw_fd());
    read.addr = bench.pages.data(0) as u64;
    read.len = 64;
    bench.push(read);
    let cqe = bench.next(doing)?;
    bench.expect_data(0, cqe.result, b"fixed", doing)
}

fn direct_descriptors() -> Trial {
    let doing = "receiving from a connection accepted into the ring's table";
    let mut bench = Bench::new()?;
    let table = sys::io_uring_rsrc_register {
        nr: 4,
        flags: sys::IORING_RSRC_REGISTER_SPARSE,
        resv2: 0,
        data: 0,
        tags: 0,
    };
    let len = size_of_val(&table) as u32;
    // SAFETY: a structure of this length, a local.
    unsafe { bench.ring.register(register::IORING_REGISTER_FILES2, (&raw const table) as _, len) }
        .map_err(|errno| lack("registering an empty table", errno))?;
    let (listener, address) = listener().map_err(Lack::at("a listening socket"))?;
    let mut client = UnixStream::connect_addr(&address).map_err(Lack::at("connecting"))?;
    let mut accept = entry(code::IORING_OP_ACCEPT, listener.as_raw_fd());
    accept.file_index = sys::IORING_FILE_INDEX_ALLOC;
    bench.push(accept);
    let index = bench.next("accepting into the ring's table")?.result;
    send(&mut client, b"direct")?;
    let mut recv = entry(code::IORING_OP_RECV, index);
    recv.flags = 1 << (sys::io_uring_sqe_flags_bit::IOSQE_FIXED_FILE_BIT as u8);
    recv.addr = bench.pages.data(0) as u64;
    recv.len = 64;
    bench.push(recv);
    let cqe = bench.next(doing)?;
    bench.expect_data(0, cqe.result, b"direct", doing)
}

fn zero_copy_send() -> Trial {
    let doing = "sending without a copy over loopback";
    let mut bench = Bench::new()?;
    let sockets = || {
        let to = std::net::UdpSocket::bind("127.0.0.1:0")?;
        let from = std::net::UdpSocket::bind("127.0.0.1:0")?;
        from.connect(to.local_addr()?)?;
        to.set_read_timeout(Some(TIME_MAX))?;
        io::Result::Ok((from, to))
    };
    let (from, to) = sockets().map_err(Lack::at("two sockets on loopback"))?;
    bench.pages.fill(0, b"zero copies");
    let mut send = entry(code::IORING_OP_SEND_ZC, from.as_raw_fd());
    send.addr = bench.pages.data(0) as u64;
    send.len = 11;
    bench.push(send);
    let sent = bench.next(doing)?;
    expect(sent.result == 11 && sent.flags & sys::IORING_CQE_F_MORE != 0, doing)?;
    let mut received = [0; 16];
    let count = to.recv(&mut received).map_err(Lack::at("receiving it"))?;
    expect(&received[..count] == b"zero copies", doing)?;
    let notice = bench.next("the notice that the memory is free")?;
    expect(notice.flags & sys::IORING_CQE_F_NOTIF != 0, doing)
}

fn linked_timeouts() -> Trial {
    let doing = "ending a wait by a linked timeout";
    let mut bench = Bench::new()?;
    let (_here, there) = pair()?;
    let time = sys::__kernel_timespec { tv_sec: 0, tv_nsec: 1_000_000 };
    // SAFETY: aligned as a page is, and within it.
    unsafe { bench.pages.data(0).cast::<sys::__kernel_timespec>().write(time) };
    let mut recv = entry(code::IORING_OP_RECV, there.as_raw_fd());
    recv.flags = 1 << (sys::io_uring_sqe_flags_bit::IOSQE_IO_LINK_BIT as u8);
    recv.addr = bench.pages.data(64) as u64;
    recv.len = 64;
    recv.user_data = 1;
    let mut timeout = entry(code::IORING_OP_LINK_TIMEOUT, -1);
    timeout.addr = bench.pages.data(0) as u64;
    timeout.len = 1;
    timeout.user_data = 2;
    bench.push(recv);
    bench.push(timeout);
    for _ in 0..2 {
        let cqe = bench.next_any(doing)?;
        let expected = if cqe.user_data == 1 { -libc::ECANCELED } else { -libc::ETIME };
        if cqe.result != expected {
            return Err(lack(doing, -cqe.result));
        }
    }
    Ok(())
}

fn sqpoll() -> Trial {
    let mut bench = Bench::with_flags(sys::IORING_SETUP_SQPOLL)?;
    bench.nop("a no-op through the kernel thread")
}

fn iopoll() -> Trial {
    Bench::with_flags(sys::IORING_SETUP_IOPOLL).map(drop)
}

fn hybrid_iopoll() -> Trial {
    let flags = sys::IORING_SETUP_IOPOLL | sys::IORING_SETUP_HYBRID_IOPOLL;
    Bench::with_flags(flags).map(drop)
}

fn lack(doing: &'static str, errno: i32) -> Lack {
    Lack { doing, error: io::Error::from_raw_os_error(errno) }
}

fn expect(holds: bool, doing: &'static str) -> Trial {
    match holds {
        true => Ok(()),
        false => Err(Lack { doing, error: io::Error::other("it did not do what it says") }),
    }
}

fn entry(code: code, fd: RawFd) -> Sqe {
    Sqe { opcode: code as u8, fd, ..Sqe::default() }
}

/// A receive into whatever buffer the kernel picks of group 0.
fn provided_recv(socket: BorrowedFd<'_>, flags: u32) -> Sqe {
    let mut recv = entry(code::IORING_OP_RECV, socket.as_raw_fd());
    recv.flags = 1 << (sys::io_uring_sqe_flags_bit::IOSQE_BUFFER_SELECT_BIT as u8);
    recv.ioprio = flags as u16;
    recv
}

fn pair() -> Result<(UnixStream, UnixStream), Lack> {
    UnixStream::pair().map_err(Lack::at("a pair of sockets"))
}

fn send(stream: &mut UnixStream, text: &[u8]) -> Trial {
    stream.write_all(text).map_err(Lack::at("sending to a socket"))
}

/// A listening socket that leaves no name behind.
fn listener() -> io::Result<(UnixListener, SocketAddr)> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let name = format!("omniring-doctor-{}-{number}", std::process::id());
    let address = SocketAddr::from_abstract_name(name)?;
    Ok((UnixListener::bind_addr(&address)?, address))
}

/// A file that no directory has.
pub(crate) fn memory_file() -> io::Result<std::fs::File> {
    // SAFETY: a string that ends in zero.
    let fd = unsafe { libc::memfd_create(c"omniring-doctor".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) }.into())
}

/// Memory that a trial shares with the kernel: a page for a ring of provided buffers and one for
/// data, at least.
struct Pages {
    start: NonNull<u8>,
}

impl Pages {
    const RING_LEN: usize = 64 << 10;
    const DATA_LEN: usize = 4 << 10;
    const LEN: usize = Pages::RING_LEN + Pages::DATA_LEN;

    fn new() -> io::Result<Pages> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping at an address of the kernel's choice.
        let start = unsafe { libc::mmap(null_mut(), Pages::LEN, protection, flags, -1, 0) };
        match NonNull::new(start) {
            Some(start) if start.as_ptr() != libc::MAP_FAILED => Ok(Pages { start: start.cast() }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    fn ring(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    fn data(&self, at: usize) -> *mut u8 {
        assert!(at < Pages::DATA_LEN);
        // SAFETY: within the mapping.
        unsafe { self.start.as_ptr().add(Pages::RING_LEN + at) }
    }

    fn fill(&mut self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= Pages::DATA_LEN);
        // SAFETY: within the mapping, which only a trial in flight shares.
        unsafe { self.data(at).copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    fn read(&self, at: usize, len: usize) -> Vec<u8> {
        assert!(at + len <= Pages::DATA_LEN);
        // SAFETY: within the mapping, all of which is initialised.
        unsafe { std::slice::from_raw_parts(self.data(at), len) }.to_vec()
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`, and no op is in flight that uses it (see `Bench`).
        unsafe { libc::munmap(self.start.as_ptr().cast(), Pages::LEN) };
    }
}

/// A ring to try something on.
struct Bench {
    ring: Ring,
    pages: std::mem::ManuallyDrop<Pages>,
    /// Submissions whose last completion has not come. INV-BUF: the pages stay as long as there
    /// are any, if need be for ever.
    armed_count: usize,
}

impl Drop for Bench {
    fn drop(&mut self) {
        if self.armed_count == 0 {
            // SAFETY: dropped once, here.
            unsafe { std::mem::ManuallyDrop::drop(&mut self.pages) };
        }
    }
}

impl Bench {
    fn new() -> Result<Bench, Lack> {
        patiently(|| Ring::new(8, 16, Mode::default()))
            .map(Bench::of)
            .map_err(Lack::at("making a ring"))
    }

    fn with_flags(flags: u32) -> Result<Bench, Lack> {
        let ring = patiently(|| Ring::with_flags(8, 16, flags));
        ring.map(Bench::of).map_err(Lack::at("making such a ring"))
    }

    fn of(ring: Ring) -> Bench {
        let pages = Pages::new().expect("a few pages of memory are there");
        Bench { ring, pages: std::mem::ManuallyDrop::new(pages), armed_count: 0 }
    }

    /// Stages an entry, which points into the bench's pages if anywhere.
    fn push(&mut self, sqe: Sqe) {
        // SAFETY: INV-BUF, by `armed_count`.
        assert!(unsafe { self.ring.push(sqe) }, "a trial has fewer ops than the queue entries");
        self.armed_count += 1;
    }

    /// The next completion, of an op that succeeded.
    fn next(&mut self, doing: &'static str) -> Result<Cqe, Lack> {
        let cqe = self.next_any(doing)?;
        if cqe.result < 0 { Err(lack(doing, -cqe.result)) } else { Ok(cqe) }
    }

    fn next_any(&mut self, doing: &'static str) -> Result<Cqe, Lack> {
        let deadline = crate::clock::now() + TIME_MAX;
        loop {
            if let Some(cqe) = self.ring.pop() {
                self.ring.release_popped();
                self.armed_count -= usize::from(cqe.flags & sys::IORING_CQE_F_MORE == 0);
                return Ok(cqe);
            }
            let left = deadline.saturating_duration_since(crate::clock::now());
            if left.is_zero() {
                return Err(lack(doing, libc::ETIME));
            }
            let wait = RingWait { count: 1, batch_time: Duration::ZERO, timeout: Some(left) };
            self.ring.enter_and_wait(&wait).map_err(Lack::at(doing))?;
        }
    }

    fn nop(&mut self, doing: &'static str) -> Trial {
        self.push(entry(code::IORING_OP_NOP, -1));
        self.next(doing).map(drop)
    }

    /// Ends the one op that is in flight, whose user data is 0.
    fn cancel_armed(&mut self, doing: &'static str) -> Trial {
        let mut cancel = entry(code::IORING_OP_ASYNC_CANCEL, -1);
        cancel.user_data = 1;
        self.push(cancel);
        while self.armed_count > 0 {
            self.next_any(doing)?;
        }
        Ok(())
    }

    /// Gives the kernel so many buffers of this length, a power of two of them, as group 0.
    fn provide_buffers(&mut self, len: u32, count: u16, flags: u16) -> Trial {
        // SAFETY: all-zero is what the kernel wants in what is reserved.
        let mut group: sys::io_uring_buf_reg = unsafe { std::mem::zeroed() };
        group.ring_addr = self.pages.ring() as u64;
        group.ring_entries = count.into();
        group.flags = flags;
        let operation = register::IORING_REGISTER_PBUF_RING;
        // SAFETY: one structure, a local; the ring it names is the bench's page.
        unsafe { self.ring.register(operation, (&raw mut group).cast::<c_void>(), 1) }
            .map_err(|errno| lack("registering a ring of buffers", errno))?;
        let ring: *mut sys::io_uring_buf = self.pages.ring().cast();
        for id in 0..count {
            let addr = self.pages.data(usize::from(id) * len as usize) as u64;
            let buf = sys::io_uring_buf { addr, len, bid: id, resv: 0 };
            // SAFETY: the page has room for the entries. The tail lies in what the first one
            // reserves, and is written last.
            unsafe { ring.add(id.into()).write(buf) };
        }
        // SAFETY: as above: the tail, which the kernel reads.
        let tail = unsafe { AtomicU16::from_ptr((&raw mut (*ring).resv).cast()) };
        tail.store(count, Ordering::Release);
        Ok(())
    }

    /// Which provided buffer a completion used.
    fn provided(&self, cqe: &Cqe, doing: &'static str) -> Result<usize, Lack> {
        expect(cqe.flags & sys::IORING_CQE_F_BUFFER != 0, doing)?;
        Ok((cqe.flags >> sys::IORING_CQE_BUFFER_SHIFT) as usize)
    }

    fn expect_data(&self, at: usize, len: i32, text: &[u8], doing: &'static str) -> Trial {
        expect(len as usize == text.len() && self.pages.read(at, text.len()) == text, doing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feature_that_the_kernel_is_new_enough_for_works() {
        if ring_works().is_err() {
            return; // a container may forbid io_uring
        }
        let version = crate::system::kernel_version().unwrap();
        for feature in FEATURES.iter().filter(|feature| feature.since <= version) {
            let result = (feature.attempt)();
            assert!(result.is_ok(), "{}: {result:?}", feature.name);
        }
    }

    #[test]
    fn what_does_not_answer_is_given_up() {
        let Ok(mut bench) = Bench::new() else { return };
        let (_here, there) = pair().unwrap();
        let mut recv = entry(code::IORING_OP_RECV, there.as_raw_fd());
        recv.addr = bench.pages.data(0) as u64;
        recv.len = 1;
        bench.push(recv);
        let error = bench.next("nothing").err().unwrap().error;
        assert_eq!(error.raw_os_error(), Some(libc::ETIME));
        assert_eq!(bench.armed_count, 1);
    }
}
