//! The floor: the cheapest bare ring loop that we could write for each row, with
//! no driver, no runtime and no tasks, so that everyone sees what those cost.
//!
//! There is a floor for each tier of buffers. That of the owned tier has plain
//! buffers, plain files, plain sockets and single-shot ops; that of the fixed tier
//! registered buffers and a registered file; that of the leased tier is
//! `leased`. [`mapping`] is what needs no ring at all.
//!
//! INV-BUF: memory that the kernel may touch belongs to the struct whose ring it
//! is, is never moved or resized after set-up, and `ring` is declared before it,
//! so that the ring is closed first. A slice leaves no file op in flight, and one
//! that breaks off leaks its buffers. Socket ops stay in flight between slices;
//! `EchoFloor` cancels and awaits them before it frees anything.
#![allow(unsafe_code)]

mod leased;
pub mod mapping;
mod ping;

use std::fs::{File, OpenOptions};
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, Fixed, FsyncFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::{PLAIN_FLOOR, SetupError, Spec, Subject, refusal_of_open};
use crate::clock::{self, Instant};
use crate::measure::Latency;
use crate::workload::{ALIGNMENT, ECHO_BUFFER_BYTES, Shape, Source, Tier, Workload};

/// How the ring of a row is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// SINGLE_ISSUER and DEFER_TASKRUN, where the kernel has them.
    pub defer_taskrun: bool,
    /// Completions to wait for at each kernel entry, or all in flight if fewer.
    pub wait: usize,
}

/// The tuning that measured cheapest in processor time per op without losing
/// rate, as ratios to DEFER_TASKRUN waiting for 1, in alternating slices on
/// Linux 6.18, 2 cores, a virtio disk:
///
/// | row | what was tried |
/// |---|---|
/// | O_DIRECT 4k, depth 32 | wait 8: 0.83-0.86; **12: 0.80-0.82**; 16: 0.82-0.87; 24: 0.86-0.90; no flags: 0.85 |
/// | O_DIRECT 8k, depth 32 | wait 8: 0.90-0.92; **12: 0.81-0.93**; 16: 0.82-0.89; no flags: 0.93-1.01 |
/// | O_DIRECT 16k, depth 32 | wait 8: 0.90-0.93; **12: 0.91**; 16: 0.80-0.94; no flags: 0.94-0.99 |
/// | O_DIRECT 32k-128k, depth 32 | 0.92-1.03 whatever is waited for |
/// | O_DIRECT 4k, depth 1 | no flags: 0.99; COOP_TASKRUN: 1.03; registered ring: 1.00 |
/// | page cache, depth 32 | wait 8: 1.02; 32: 1.01; no flags: 0.98-1.03; registered ring: 0.99-1.00 |
/// | write and fdatasync, depth 8 | linked: 0.98; no flags: 0.98; wait 4: 0.94, but 0.91 of the rate |
/// | echo, 64 connections | POLL_FIRST: 0.99-1.05; send linked to the next receive: 1.01-1.05; both at once: 1.03; no flags: 1.10; wait 4: 0.99, but it hangs with fewer connections |
pub fn tuning(workload: &Workload) -> Tuning {
    let wait = match workload.shape {
        // What is read from the page cache completes at submit.
        Shape::Read { source: Source::Device, depth, .. } => (depth * 3 / 8).max(1),
        _ => 1,
    };
    Tuning { defer_taskrun: true, wait }
}

/// Sets a row up. The plain floor runs a row of a tier without what the tier is
/// about.
pub fn set_up(spec: &Spec) -> Result<Box<dyn Subject>, SetupError> {
    let tuning = tuning(spec.workload);
    let tier = if spec.engine == PLAIN_FLOOR { Tier::Owned } else { spec.workload.tier };
    match (spec.workload.shape, tier) {
        (Shape::Echo { connections }, Tier::Leased) => {
            Ok(Box::new(leased::LeasedEchoFloor::new(connections, leased::TUNING)?))
        }
        (Shape::Echo { connections }, _) => Ok(Box::new(EchoFloor::new(connections, tuning)?)),
        (Shape::Cores(_), _) => Ok(Box::new(ping::PingFloor::new()?)),
        _ => Ok(Box::new(FileFloor::new(spec, tier == Tier::Fixed, tuning)?)),
    }
}

fn ring(entries: usize, tuning: Tuning) -> io::Result<IoUring> {
    let entries = entries.next_power_of_two() as u32;
    if tuning.defer_taskrun {
        let deferring =
            IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(entries);
        if deferring.is_ok() {
            return deferring;
        }
    }
    IoUring::new(entries)
}

/// Waits for `want` completions, submitting first, however often it is interrupted.
fn enter(submitter: &io_uring::Submitter<'_>, want: usize) -> io::Result<()> {
    loop {
        match submitter.submit_and_wait(want) {
            Ok(_) => return Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
}

fn push(queue: &mut squeue::SubmissionQueue<'_>, entry: &squeue::Entry) -> io::Result<()> {
    // SAFETY: every entry of this module names memory and descriptors that its
    // struct owns until the op has completed (INV-BUF at the head of the module).
    unsafe { queue.push(entry) }
        .map_err(|_| io::Error::other("the submission queue of the floor is too small"))
}

fn os_result(entry: &cqueue::Entry) -> io::Result<usize> {
    match entry.result() {
        error if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        result => Ok(result as usize),
    }
}

/// Memory aligned for O_DIRECT.
#[derive(Clone)]
#[repr(align(4096))]
struct Page([u8; ALIGNMENT]);

/// One op in flight, or one write and fdatasync pair.
struct Slot {
    pages: Vec<Page>,
    random: fastrand::Rng,
    start: Instant,
}

/// Random reads, or writes each followed by fdatasync.
struct FileFloor {
    ring: IoUring,
    file: File,
    slots: Vec<Slot>,
    block: usize,
    blocks: u64,
    writes: bool,
    /// Whether the buffers and the file are registered, each under its index.
    fixed: bool,
    /// Ops, or pairs, in flight: none between slices.
    in_flight: usize,
    tuning: Tuning,
}

impl Drop for FileFloor {
    fn drop(&mut self) {
        if self.in_flight > 0 {
            // INV-BUF: a slice broke off. Rather leak than free what the kernel
            // may still write to.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

/// Set in the user data of an fdatasync; the rest is the index of the slot.
const SYNC: u64 = 1 << 32;

impl FileFloor {
    fn new(spec: &Spec, fixed: bool, tuning: Tuning) -> Result<Self, SetupError> {
        let (block, depth, direct, writes) = match spec.workload.shape {
            Shape::Read { source, block, depth } => (block, depth, source == Source::Device, false),
            Shape::WriteSync { block, depth } => (block, depth, false, true),
            Shape::Echo { .. } | Shape::Cores(_) => unreachable!("this row has no file"),
        };
        let path = spec.file_path()?;
        let file = OpenOptions::new()
            .read(true)
            .write(writes)
            .custom_flags(if direct { libc::O_DIRECT } else { 0 })
            .open(path)
            .map_err(|error| refusal_of_open(error, direct))?;
        let mut slots: Vec<Slot> = (0..depth)
            .map(|index| Slot {
                pages: vec![Page([index as u8 + 1; ALIGNMENT]); block.div_ceil(ALIGNMENT)],
                random: fastrand::Rng::with_seed(index as u64 + 1),
                start: clock::now(),
            })
            .collect();
        let ring = ring(2 * depth, tuning)?;
        if fixed {
            register(&ring, &file, &mut slots)?;
        }
        Ok(FileFloor {
            ring,
            file,
            slots,
            block,
            blocks: spec.span / block as u64,
            writes,
            fixed,
            in_flight: 0,
            tuning,
        })
    }
}

/// Registers the pages of each slot under its index, and the file under 0.
fn register(ring: &IoUring, file: &File, slots: &mut [Slot]) -> Result<(), SetupError> {
    let memory = |slot: &mut Slot| libc::iovec {
        iov_base: slot.pages.as_mut_ptr().cast(),
        iov_len: std::mem::size_of_val(slot.pages.as_slice()),
    };
    let buffers: Vec<libc::iovec> = slots.iter_mut().map(memory).collect();
    // SAFETY: the slots outlive the ring (INV-BUF at the head of the module).
    let registered = unsafe { ring.submitter().register_buffers(&buffers) };
    registered.map_err(|error| match error.raw_os_error() {
        Some(libc::ENOMEM) => SetupError::Refused(
            "too little locked memory to register buffers; raise ulimit -l".to_owned(),
        ),
        _ => SetupError::from(error),
    })?;
    Ok(ring.submitter().register_files(&[file.as_raw_fd()])?)
}

impl Subject for FileFloor {
    fn run(&mut self, length: Duration, latency: &mut Latency) -> io::Result<u64> {
        let FileFloor { ring, file, slots, in_flight, .. } = self;
        let (block, blocks) = (self.block as u32, self.blocks);
        let (writes, fixed) = (self.writes, self.fixed);
        let wait = self.tuning.wait;
        let fd = Fd(file.as_raw_fd());
        let (submitter, mut submission, mut completion) = ring.split();

        let op = |index: usize, slot: &mut Slot| {
            let offset = slot.random.u64(0..blocks) * u64::from(block);
            let memory = slot.pages.as_mut_ptr().cast::<u8>();
            let entry = if fixed {
                let read = opcode::ReadFixed::new(Fixed(0), memory, block, index as u16);
                read.offset(offset).build()
            } else if writes {
                opcode::Write::new(fd, memory, block).offset(offset).build()
            } else {
                opcode::Read::new(fd, memory, block).offset(offset).build()
            };
            entry.user_data(index as u64)
        };
        let sync = |index: usize| {
            opcode::Fsync::new(fd)
                .flags(FsyncFlags::DATASYNC)
                .build()
                .user_data(index as u64 | SYNC)
        };

        let now = clock::now();
        let deadline = now + length;
        *in_flight = slots.len();
        for (index, slot) in slots.iter_mut().enumerate() {
            slot.start = now;
            push(&mut submission, &op(index, slot))?;
        }
        let mut ops = 0;
        let mut failure = None;
        while *in_flight > 0 {
            submission.sync();
            enter(&submitter, wait.min(*in_flight))?;
            completion.sync();
            submission.sync();
            for entry in &mut completion {
                let index = (entry.user_data() & !SYNC) as usize;
                let synced = entry.user_data() & SYNC != 0;
                match os_result(&entry) {
                    Ok(bytes) if synced || bytes == block as usize => {}
                    Ok(_) => failure = Some(io::Error::other("an op of the floor was short")),
                    Err(error) => failure = Some(error),
                }
                if writes && !synced && failure.is_none() {
                    push(&mut submission, &sync(index))?;
                    continue;
                }
                let slot = &mut slots[index];
                let now = clock::now();
                latency.record(now - slot.start);
                slot.start = now;
                ops += 1;
                if now < deadline && failure.is_none() {
                    push(&mut submission, &op(index, slot))?;
                } else {
                    *in_flight -= 1;
                }
            }
        }
        match failure {
            Some(error) => Err(error),
            None => Ok(ops),
        }
    }
}

/// User data of the ops of the echo server that belong to no connection.
const ACCEPT: u64 = u64::MAX;
const DEADLINE: u64 = u64::MAX - 1;
const CANCEL: u64 = u64::MAX - 2;
/// Set in the user data of a send; the rest is the index of the connection.
const SEND: u64 = 1 << 32;

struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// Bytes of the message that is being sent back, and how many are sent.
    length: usize,
    sent: usize,
}

/// An echo server: one receive or one send in flight for each connection.
struct EchoFloor {
    ring: IoUring,
    listener: TcpListener,
    connections: Vec<Connection>,
    connections_max: usize,
    accepting: bool,
    /// Ops staged or submitted and not completed, but for the deadline.
    in_flight: usize,
    tuning: Tuning,
}

impl EchoFloor {
    fn new(connections_max: usize, tuning: Tuning) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listen(&listener, connections_max);
        Ok(EchoFloor {
            ring: ring(2 * connections_max + 2, tuning)?,
            listener,
            connections: Vec::with_capacity(connections_max),
            connections_max,
            accepting: false,
            in_flight: 0,
            tuning,
        })
    }
}

/// Makes room for the connections that may be opened before the first is accepted.
fn listen(listener: &TcpListener, connections_max: usize) {
    // SAFETY: listen takes no memory, and the descriptor is open.
    unsafe { libc::listen(listener.as_raw_fd(), connections_max as i32 + 1) };
}

/// Cancels whatever is in flight and waits for the last completion of each op.
fn cancel_all(ring: &mut IoUring, in_flight: &mut usize) -> io::Result<()> {
    let cancel = opcode::AsyncCancel2::new(CancelBuilder::any()).build().user_data(CANCEL);
    let (submitter, mut submission, mut completion) = ring.split();
    submission.sync();
    enter(&submitter, 0)?; // what the last slice has staged
    submission.sync();
    push(&mut submission, &cancel)?;
    let mut cancelled = false;
    while !cancelled || *in_flight > 0 {
        submission.sync();
        enter(&submitter, 1)?;
        completion.sync();
        submission.sync();
        for entry in &mut completion {
            match entry.user_data() {
                CANCEL => cancelled = true,
                DEADLINE => {}
                _ => *in_flight -= usize::from(!cqueue::more(entry.flags())),
            }
        }
    }
    Ok(())
}

impl Drop for EchoFloor {
    fn drop(&mut self) {
        if cancel_all(&mut self.ring, &mut self.in_flight).is_err() {
            // INV-BUF: rather leak than free what the kernel may still write to.
            std::mem::take(&mut self.connections).into_iter().for_each(std::mem::forget);
        }
    }
}

fn receive(index: usize, connection: &mut Connection) -> squeue::Entry {
    let memory = connection.buffer.as_mut_ptr();
    let length = connection.buffer.len() as u32;
    opcode::Recv::new(Fd(connection.stream.as_raw_fd()), memory, length)
        .build()
        .user_data(index as u64)
}

fn send(index: usize, connection: &Connection) -> squeue::Entry {
    let rest = &connection.buffer[connection.sent..connection.length];
    opcode::Send::new(Fd(connection.stream.as_raw_fd()), rest.as_ptr(), rest.len() as u32)
        .build()
        .user_data(index as u64 | SEND)
}

impl Subject for EchoFloor {
    fn port(&self) -> Option<u16> {
        self.listener.local_addr().ok().map(|address| address.port())
    }

    fn run(&mut self, length: Duration, _: &mut Latency) -> io::Result<u64> {
        let EchoFloor { ring, listener, connections, connections_max, tuning, .. } = self;
        let (in_flight, accepting) = (&mut self.in_flight, &mut self.accepting);
        let (submitter, mut submission, mut completion) = ring.split();
        let listener = Fd(listener.as_raw_fd());
        let accept = opcode::Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut());
        let accept = accept.build().user_data(ACCEPT);
        // The kernel copies the time when the op is submitted, which is in this call.
        let time = Timespec::new().sec(length.as_secs()).nsec(length.subsec_nanos());
        push(&mut submission, &opcode::Timeout::new(&time).build().user_data(DEADLINE))?;

        let mut ops = 0;
        let mut running = true;
        while running {
            if !*accepting && connections.len() < *connections_max {
                push(&mut submission, &accept)?;
                *accepting = true;
                *in_flight += 1;
            }
            submission.sync();
            enter(&submitter, tuning.wait)?;
            completion.sync();
            submission.sync();
            for entry in &mut completion {
                let data = entry.user_data();
                if data == DEADLINE {
                    running = false;
                    continue;
                }
                *in_flight -= 1;
                let index = match data {
                    ACCEPT => connections.len(),
                    _ => (data & !SEND) as usize,
                };
                let result = os_result(&entry)?;
                let next = if data == ACCEPT {
                    *accepting = false;
                    // SAFETY: a successful accept gives a descriptor that nothing
                    // else owns.
                    let stream = unsafe { TcpStream::from_raw_fd(result as i32) };
                    stream.set_nodelay(true)?;
                    let buffer = vec![0; ECHO_BUFFER_BYTES];
                    connections.push(Connection { stream, buffer, length: 0, sent: 0 });
                    receive(index, &mut connections[index])
                } else if data & SEND != 0 {
                    let connection = &mut connections[index];
                    connection.sent += result;
                    if connection.sent < connection.length {
                        send(index, connection)
                    } else {
                        ops += 1;
                        receive(index, connection)
                    }
                } else {
                    if result == 0 {
                        continue; // the peer has closed
                    }
                    let connection = &mut connections[index];
                    (connection.length, connection.sent) = (result, 0);
                    send(index, connection)
                };
                push(&mut submission, &next)?;
                *in_flight += 1;
            }
        }
        Ok(ops)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::answers_in_slices;
    use crate::workload::Workload;
    use std::io::Write;

    fn spec(workload: &str, file: Option<&std::path::Path>, span: u64) -> Spec {
        Spec {
            engine: super::super::FLOOR.to_owned(),
            workload: Workload::named(workload).unwrap(),
            file: file.map(ToOwned::to_owned),
            span,
            core: None,
        }
    }

    fn set_up_or_skip(spec: &Spec) -> Option<Box<dyn Subject>> {
        match set_up(spec) {
            Ok(subject) => Some(subject),
            Err(error) => {
                // A container that forbids rings, a file system without O_DIRECT.
                let _ = writeln!(io::stderr(), "skipped: {error:?}");
                None
            }
        }
    }

    #[test]
    fn file_rows_complete_ops_in_every_slice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 2 << 20]).unwrap();
        for workload in [
            "read-direct-4k-d1",
            "read-direct-8k-d32",
            "read-direct-4k-d32-fixed",
            "read-hot-1k-d32",
            "read-hot-4k-d32-fixed",
        ] {
            let Some(mut subject) = set_up_or_skip(&spec(workload, Some(&path), 2 << 20)) else {
                continue;
            };
            for _ in 0..2 {
                let mut latency = Latency::new();
                let ops = subject.run(Duration::from_millis(20), &mut latency).unwrap();
                assert!(ops > 0);
                assert_eq!(latency.count(), ops);
            }
        }
        assert_eq!(std::fs::read(&path).unwrap(), vec![7; 2 << 20]);
    }

    #[test]
    fn what_is_in_the_file_arrives_in_each_registered_buffer() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![77; 2 << 20]).unwrap();
        for workload in ["read-direct-4k-d32-fixed", "read-hot-4k-d32-fixed"] {
            let spec = spec(workload, Some(&path), 2 << 20);
            let mut floor = match FileFloor::new(&spec, true, tuning(spec.workload)) {
                Ok(floor) => floor,
                Err(error) => {
                    let _ = writeln!(io::stderr(), "skipped: {error:?}");
                    continue;
                }
            };
            assert!(floor.slots.iter().all(|slot| slot.pages[0].0 != [77; ALIGNMENT]));
            floor.run(Duration::from_millis(20), &mut Latency::new()).unwrap();
            assert!(floor.slots.iter().all(|slot| slot.pages[0].0 == [77; ALIGNMENT]));
        }
    }

    #[test]
    fn writes_reach_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let Some(mut subject) = set_up_or_skip(&spec("write-sync-4k-d8", Some(&path), 1 << 20))
        else {
            return;
        };
        assert!(subject.run(Duration::from_millis(50), &mut Latency::new()).unwrap() > 0);
        assert!(std::fs::read(&path).unwrap().iter().any(|&byte| byte != 0));
    }

    #[test]
    fn a_read_past_the_end_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let Some(mut subject) = set_up_or_skip(&spec("read-hot-4k-d32", Some(&path), 1 << 30))
        else {
            return;
        };
        assert!(subject.run(Duration::from_millis(20), &mut Latency::new()).is_err());
    }

    #[test]
    fn the_echo_server_answers_in_every_slice_and_cancels_at_the_end() {
        answers_in_slices(64, || set_up_or_skip(&spec("echo-64", None, 0)));
    }

    #[test]
    fn the_plain_floor_runs_the_rows_of_the_tiers_too() {
        let spec = Spec { engine: PLAIN_FLOOR.to_owned(), ..spec("echo-64-leased", None, 0) };
        answers_in_slices(64, || set_up_or_skip(&spec));
    }
}
