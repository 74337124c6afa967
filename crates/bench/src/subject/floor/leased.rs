//! The floor of the leased tier: an echo server whose buffers belong to nobody
//! until the data is there.
//!
//! One multishot accept puts connections into direct descriptors; one multishot
//! receive for each takes buffers from a ring of provided buffers; a message is
//! sent from the buffer it arrived in, which goes back to the ring when the send
//! has completed. So a round trip submits one entry and reaps two completions.
//!
//! INV-BUF as at the head of the module above: the ring of buffers and what it
//! lists belong to the struct whose ring it is, and are declared after it.

use std::collections::VecDeque;
use std::io;
use std::mem::size_of;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, Fd, Fixed, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use super::{ACCEPT, DEADLINE, Page, SEND, Tuning, cancel_all, enter, listen, os_result, push};
use crate::measure::Latency;
use crate::subject::{SetupError, Subject};
use crate::workload::ALIGNMENT;

/// How the buffers are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Buffers {
    /// Bytes of each.
    pub bytes: usize,
    /// How many there are for each connection.
    pub per_connection: usize,
}

/// What measured cheapest.
pub const TUNING: (Tuning, Buffers) =
    (Tuning { defer_taskrun: true, wait: 1 }, Buffers { bytes: 4096, per_connection: 2 });

/// User data of closing a connection that its peer has closed.
const CLOSE: u64 = 1 << 33;

/// Group of the only ring of buffers.
const GROUP: u16 = 0;

/// A connection, under the number of its direct descriptor.
#[derive(Default)]
struct Connection {
    /// What is being sent back, if anything.
    sending: Option<Message>,
    /// What arrived meanwhile.
    waiting: VecDeque<Message>,
    /// Whether the peer has closed.
    ended: bool,
}

/// Bytes in a buffer of the ring, `sent` of which are on their way.
struct Message {
    buffer: u16,
    sent: usize,
    length: usize,
}

/// An echo server: one receive in flight for each connection, and a send for
/// each message that has arrived.
pub struct LeasedEchoFloor {
    ring: IoUring,
    buffers: BufferRing,
    listener: TcpListener,
    connections: Vec<Connection>,
    /// Connections whose receive ended for want of a buffer.
    starved: Vec<usize>,
    accepting: bool,
    /// Ops staged or submitted that may still complete, but for the deadline.
    in_flight: usize,
    wait: usize,
}

impl LeasedEchoFloor {
    /// A server for so many connections.
    pub fn new(
        connections_max: usize,
        (tuning, buffers): (Tuning, Buffers),
    ) -> Result<Self, SetupError> {
        let ring = super::ring(4 * connections_max + 2, tuning)?;
        // One more than is needed, so that the accept does not end when all are there.
        let descriptors = connections_max as u32 + 1;
        ring.submitter().register_files_sparse(descriptors)?;
        let count = (connections_max * buffers.per_connection).next_power_of_two();
        let buffers = BufferRing::register(&ring, count as u16, buffers.bytes).map_err(
            |error| match error.raw_os_error() {
                Some(libc::EINVAL) => SetupError::Refused(
                    "the kernel has no rings of provided buffers; they came with Linux 5.19"
                        .to_owned(),
                ),
                _ => SetupError::from(error),
            },
        )?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listen(&listener, connections_max);
        // A direct descriptor takes no socket options; it has the listener's.
        no_delay(&listener)?;
        Ok(LeasedEchoFloor {
            ring,
            buffers,
            listener,
            connections: (0..descriptors).map(|_| Connection::default()).collect(),
            starved: Vec::new(),
            accepting: false,
            in_flight: 0,
            wait: tuning.wait,
        })
    }
}

impl Drop for LeasedEchoFloor {
    fn drop(&mut self) {
        if cancel_all(&mut self.ring, &mut self.in_flight).is_err() {
            // INV-BUF: rather leak than free what the kernel may still write to.
            self.buffers.leak();
        }
    }
}

fn no_delay(listener: &TcpListener) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is the integer above, which outlives the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn receive(index: usize) -> squeue::Entry {
    opcode::RecvMulti::new(Fixed(index as u32), GROUP).build().user_data(index as u64)
}

fn send(index: usize, message: &Message, buffers: &BufferRing) -> squeue::Entry {
    let rest = &buffers.bytes_of(message.buffer)[message.sent..message.length];
    opcode::Send::new(Fixed(index as u32), rest.as_ptr(), rest.len() as u32)
        .build()
        .user_data(index as u64 | SEND)
}

impl Subject for LeasedEchoFloor {
    fn port(&self) -> Option<u16> {
        self.listener.local_addr().ok().map(|address| address.port())
    }

    fn run(&mut self, length: Duration, _: &mut Latency) -> io::Result<u64> {
        let LeasedEchoFloor { ring, buffers, listener, connections, starved, .. } = self;
        let (in_flight, accepting) = (&mut self.in_flight, &mut self.accepting);
        let (submitter, mut submission, mut completion) = ring.split();
        let accept = opcode::AcceptMulti::new(Fd(listener.as_raw_fd())).allocate_file_index(true);
        let accept = accept.build().user_data(ACCEPT);
        // The kernel copies the time when the op is submitted, which is in this call.
        let time = Timespec::new().sec(length.as_secs()).nsec(length.subsec_nanos());
        push(&mut submission, &opcode::Timeout::new(&time).build().user_data(DEADLINE))?;

        let mut ops = 0;
        let mut running = true;
        while running {
            if !*accepting {
                push(&mut submission, &accept)?;
                *accepting = true;
                *in_flight += 1;
            }
            submission.sync();
            enter(&submitter, self.wait)?;
            completion.sync();
            submission.sync();
            for entry in &mut completion {
                let data = entry.user_data();
                if data == DEADLINE {
                    running = false;
                    continue;
                }
                let ended = !cqueue::more(entry.flags());
                *in_flight -= usize::from(ended);
                let index = (data & !(SEND | CLOSE)) as usize;
                let next = if data == ACCEPT {
                    *accepting = !ended;
                    let index = os_result(&entry)?;
                    connections[index] = Connection::default();
                    receive(index)
                } else if data & CLOSE != 0 {
                    os_result(&entry)?;
                    continue;
                } else if data & SEND != 0 {
                    let connection = &mut connections[index];
                    let message = connection.sending.as_mut().expect("a send has its message");
                    message.sent += os_result(&entry)?;
                    if message.sent == message.length {
                        buffers.give(message.buffer);
                        ops += 1;
                        connection.sending = connection.waiting.pop_front();
                    }
                    match &connection.sending {
                        Some(message) => send(index, message, buffers),
                        None if connection.ended => close(index),
                        None => continue,
                    }
                } else if entry.result() == -libc::ENOBUFS {
                    starved.push(index);
                    continue;
                } else if let length @ 1.. = os_result(&entry)? {
                    if ended {
                        push(&mut submission, &receive(index))?;
                        *in_flight += 1;
                    }
                    let buffer = cqueue::buffer_select(entry.flags());
                    let buffer = buffer.expect("what was received is in a buffer");
                    buffers.held += 1;
                    let message = Message { buffer, sent: 0, length };
                    let connection = &mut connections[index];
                    if connection.sending.is_some() {
                        connection.waiting.push_back(message);
                        continue;
                    }
                    send(index, connection.sending.insert(message), buffers)
                } else {
                    let connection = &mut connections[index];
                    connection.ended = true;
                    if connection.sending.is_some() {
                        continue;
                    }
                    close(index)
                };
                push(&mut submission, &next)?;
                *in_flight += 1;
            }
            buffers.publish();
            // With fewer held than there are, the kernel has some by now. Otherwise a
            // send that completes will give one back.
            while buffers.held <= buffers.mask
                && let Some(index) = starved.pop()
            {
                push(&mut submission, &receive(index))?;
                *in_flight += 1;
            }
        }
        Ok(ops)
    }
}

fn close(index: usize) -> squeue::Entry {
    opcode::Close::new(Fixed(index as u32)).build().user_data(index as u64 | CLOSE)
}

/// Receive buffers that the kernel picks from.
struct BufferRing {
    /// As many entries as there are buffers.
    entries: Vec<Page>,
    memory: Vec<Page>,
    bytes: usize,
    /// Where the next buffer goes that is given back; counts on and on.
    tail: u16,
    mask: u16,
    /// How many the kernel has filled that have not been given back.
    held: u16,
}

impl BufferRing {
    /// Registers `count` buffers, a power of two, all of them free.
    fn register(ring: &IoUring, count: u16, bytes: usize) -> io::Result<BufferRing> {
        let pages = |bytes: usize| vec![Page([0; ALIGNMENT]); bytes.div_ceil(ALIGNMENT)];
        let mut buffers = BufferRing {
            entries: pages(count as usize * size_of::<BufRingEntry>()),
            memory: pages(count as usize * bytes),
            bytes,
            tail: 0,
            mask: count - 1,
            held: count,
        };
        let address = buffers.entries.as_mut_ptr() as u64;
        // SAFETY: the address is page-aligned and holds that many zeroed entries;
        // the ring is closed before they are freed (INV-BUF).
        unsafe { ring.submitter().register_buf_ring_with_flags(address, count, GROUP, 0) }?;
        (0..count).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        Ok(buffers)
    }

    /// What a buffer holds; what the kernel has put there stands at its start.
    fn bytes_of(&self, buffer: u16) -> &[u8] {
        assert!(buffer <= self.mask);
        let memory = self.memory.as_ptr().cast::<u8>();
        // SAFETY: within the memory by the assertion; between its completion and
        // `give` the kernel only reads a buffer.
        unsafe { std::slice::from_raw_parts(memory.add(buffer as usize * self.bytes), self.bytes) }
    }

    /// Gives a buffer back; the kernel sees it after `publish`.
    fn give(&mut self, buffer: u16) {
        assert!(buffer <= self.mask);
        let entries = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        let memory = self.memory.as_mut_ptr().cast::<u8>();
        let index = (self.tail & self.mask) as usize;
        // SAFETY: the mask keeps the index within the entries, and the kernel reads
        // no entry beyond the published tail.
        let entry = unsafe { &mut *entries.add(index) };
        // SAFETY: within the memory by the assertion.
        entry.set_addr(unsafe { memory.add(buffer as usize * self.bytes) } as u64);
        entry.set_len(self.bytes as u32);
        entry.set_bid(buffer);
        self.held -= 1;
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&mut self) {
        let entries = self.entries.as_mut_ptr().cast::<BufRingEntry>();
        // SAFETY: the tail lies in the first entry; the kernel reads it at the same
        // time, hence the atomic.
        unsafe {
            let tail = BufRingEntry::tail(entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }

    /// Never frees the memory.
    fn leak(&mut self) {
        std::mem::forget(std::mem::take(&mut self.entries));
        std::mem::forget(std::mem::take(&mut self.memory));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subject::testing::answers_in_slices;
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpStream};
    use std::sync::mpsc::{TryRecvError, channel};

    const SMALL: (Tuning, Buffers) = (TUNING.0, Buffers { bytes: 512, per_connection: 1 });

    fn set_up_or_skip(
        connections_max: usize,
        tuning: (Tuning, Buffers),
    ) -> Option<LeasedEchoFloor> {
        match LeasedEchoFloor::new(connections_max, tuning) {
            Ok(floor) => Some(floor),
            Err(error) => {
                let _ = writeln!(io::stderr(), "skipped: {error:?}");
                None
            }
        }
    }

    #[test]
    fn the_server_answers_in_every_slice_and_cancels_at_the_end() {
        answers_in_slices(64, || Some(Box::new(set_up_or_skip(64, TUNING)?)));
    }

    /// Runs the server while so many clients at a time do what they do, `rounds`
    /// times over.
    fn serves(clients: usize, rounds: usize, client: impl Fn(usize, TcpStream) + Sync) {
        std::thread::scope(|scope| {
            let (sender, port) = channel();
            let (done, served) = channel::<()>();
            scope.spawn(move || {
                let Some(mut floor) = set_up_or_skip(clients, SMALL) else { return };
                sender.send(floor.port().unwrap()).unwrap();
                while served.try_recv() == Err(TryRecvError::Empty) {
                    floor.run(Duration::from_millis(10), &mut Latency::new()).unwrap();
                }
            });
            let Ok(port) = port.recv() else { return };
            for _ in 0..rounds {
                std::thread::scope(|round| {
                    for index in 0..clients {
                        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                        let client = &client;
                        round.spawn(move || client(index, stream));
                    }
                });
            }
            drop(done);
        });
    }

    #[test]
    fn every_byte_comes_back_in_order_though_buffers_run_out() {
        serves(8, 1, |index, mut stream| {
            let mut random = fastrand::Rng::with_seed(index as u64);
            for _ in 0..50 {
                let mut message = vec![0; random.usize(1..20_000)];
                random.fill(&mut message);
                stream.write_all(&message).unwrap();
                let mut answer = vec![0; message.len()];
                stream.read_exact(&mut answer).unwrap();
                assert!(answer == message);
            }
        });
    }

    #[test]
    fn descriptors_of_closed_connections_are_used_again() {
        serves(2, 20, |_, mut stream| {
            stream.write_all(&[9; 5000]).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, [9; 5000]);
        });
    }
}
