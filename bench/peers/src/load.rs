//! The echo load: a closed loop over N connections with one message each on the
//! way, on one thread.
//!
//! A ring of its own, with multishot receives into a buffer ring, so that a
//! message costs one submission entry and no system call of its own: measured
//! against an edge-triggered epoll loop it took a fifth less CPU per message, and
//! the cheaper the load, the surer the server's core is what limits the run.
//!
//! INV-LOAD-MEMORY: what the kernel reads or writes (the message, the buffers,
//! the ring of buffers) is leaked, and so outlives the ring.

use std::mem::size_of;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail, ensure};
use io_uring::types::{BufRingEntry, Fixed, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

/// Bytes of a message.
const MESSAGE_LEN: usize = 64;

/// Time without any reply after which the server counts as dead.
const PATIENCE: Duration = Duration::from_secs(2);

/// Receive buffers: more than messages on the way.
const BUFFER_COUNT: u16 = 1024;

/// Tells a send's completion, which only comes when it failed.
const SEND: u64 = 1 << 32;

/// What one window of load saw.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// Messages that came back.
    pub ops: u64,
    /// Time that passed.
    pub elapsed: Duration,
}

/// Connections to one server and the ring that drives them.
pub struct Load {
    ring: IoUring,
    buffers: BufferRing,
    message: &'static [u8; MESSAGE_LEN],
    /// Bytes of the current reply, per connection.
    received: Vec<usize>,
    /// Connections to arm, and to send on, in the turn at hand.
    unarmed: Vec<u32>,
    idle: Vec<u32>,
    /// Open until the load ends.
    _streams: Vec<TcpStream>,
}

impl Load {
    /// Connects and stages the first message of each connection.
    pub fn start(server: SocketAddr, connection_count: usize) -> Result<Load> {
        ensure!(
            connection_count < BUFFER_COUNT as usize,
            "too many connections"
        );
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_cqsize(4 * BUFFER_COUNT as u32)
            .build(2 * BUFFER_COUNT as u32)
            .context("setting up the load's ring")?;
        let buffers = BufferRing::register(&ring)?;
        let streams = (0..connection_count)
            .map(|_| {
                let stream = TcpStream::connect_timeout(&server, PATIENCE)?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
            .collect::<Result<Vec<_>>>()
            .with_context(|| format!("connecting to {server}"))?;
        let fds: Vec<_> = streams.iter().map(AsRawFd::as_raw_fd).collect();
        ring.submitter()
            .register_files(&fds)
            .context("registering the connections")?;
        Ok(Load {
            ring,
            buffers,
            message: Box::leak(Box::new(std::array::from_fn(|index| index as u8))),
            received: vec![0; connection_count],
            unarmed: (0..connection_count as u32).collect(),
            idle: (0..connection_count as u32).collect(),
            _streams: streams,
        })
    }

    /// Keeps the loop going for `duration`; the messages on the way at its end
    /// count in the next window.
    pub fn run(&mut self, duration: Duration) -> Result<Window> {
        let start = Instant::now();
        let mut ops = 0;
        loop {
            self.stage()?;
            self.submit_and_wait()?;
            ops += self.reap()?;
            let elapsed = start.elapsed();
            if elapsed >= duration {
                return Ok(Window { ops, elapsed });
            }
        }
    }

    fn stage(&mut self) -> Result<()> {
        let mut queue = self.ring.submission();
        for connection in self.unarmed.drain(..) {
            let receive = opcode::RecvMulti::new(Fixed(connection), BufferRing::GROUP).build();
            // SAFETY: the kernel takes the buffer from the ring of buffers, which
            // INV-LOAD-MEMORY keeps.
            unsafe { queue.push(&receive.user_data(connection.into())) }?;
        }
        for connection in self.idle.drain(..) {
            let message = self.message.as_ptr();
            let send = opcode::Send::new(Fixed(connection), message, MESSAGE_LEN as u32)
                .build()
                .flags(squeue::Flags::SKIP_SUCCESS)
                .user_data(SEND | u64::from(connection));
            // SAFETY: INV-LOAD-MEMORY keeps the message.
            unsafe { queue.push(&send) }?;
        }
        Ok(())
    }

    fn submit_and_wait(&self) -> Result<()> {
        let patience = Timespec::from(PATIENCE);
        let limit = SubmitArgs::new().timespec(&patience);
        match self.ring.submitter().submit_with_args(1, &limit) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => Ok(()),
            Err(error) if error.raw_os_error() == Some(libc::ETIME) => {
                bail!("no reply within {PATIENCE:?}")
            }
            entered => Ok(entered.map(drop)?),
        }
    }

    /// Takes all replies that have come; returns how many are complete.
    fn reap(&mut self) -> Result<u64> {
        for completion in self.ring.completion() {
            let connection = completion.user_data() as u32;
            if completion.user_data() & SEND != 0 {
                bail!("sending: {}", os_error(completion.result()));
            }
            if !cqueue::more(completion.flags()) {
                self.unarmed.push(connection);
            }
            let len = match completion.result() {
                0 => bail!("the server closed a connection"),
                len if len > 0 => len as usize,
                // Out of buffers for a moment: armed again in the next turn.
                error if error == -libc::ENOBUFS => continue,
                error => bail!("receiving: {}", os_error(error)),
            };
            let buffer = cqueue::buffer_select(completion.flags()).context("no buffer")?;
            let received = &mut self.received[connection as usize];
            let expected = self.message.get(*received..*received + len);
            ensure!(
                Some(self.buffers.bytes(buffer, len)) == expected,
                "wrong echo"
            );
            self.buffers.give(buffer);
            *received = (*received + len) % MESSAGE_LEN;
            if *received == 0 {
                self.idle.push(connection);
            }
        }
        self.buffers.publish();
        Ok(self.idle.len() as u64)
    }
}

fn os_error(result: i32) -> anyhow::Error {
    anyhow!(std::io::Error::from_raw_os_error(-result))
}

/// Receive buffers that the kernel picks from.
struct BufferRing {
    /// Page-aligned, [`BUFFER_COUNT`] entries.
    entries: *mut BufRingEntry,
    /// [`BUFFER_COUNT`] buffers of [`MESSAGE_LEN`] bytes.
    memory: *mut u8,
    tail: u16,
}

impl BufferRing {
    const GROUP: u16 = 0;

    /// Registers the buffers, all of them free.
    fn register(ring: &IoUring) -> Result<BufferRing> {
        let entries =
            crate::aligned::AlignedBuf::new(BUFFER_COUNT as usize * size_of::<BufRingEntry>());
        let memory = vec![0; BUFFER_COUNT as usize * MESSAGE_LEN].leak();
        let mut buffers = BufferRing {
            entries: entries.into_slice().as_mut_ptr().cast(),
            memory: memory.as_mut_ptr(),
            tail: 0,
        };
        let address = buffers.entries as u64;
        // SAFETY: the address is page-aligned, holds that many zeroed entries,
        // and INV-LOAD-MEMORY keeps it.
        unsafe {
            ring.submitter()
                .register_buf_ring_with_flags(address, BUFFER_COUNT, Self::GROUP, 0)
        }
        .context("registering the load's buffers")?;
        (0..BUFFER_COUNT).for_each(|buffer| buffers.give(buffer));
        buffers.publish();
        Ok(buffers)
    }

    /// What the kernel put into `buffer`.
    fn bytes(&self, buffer: u16, len: usize) -> &[u8] {
        assert!(buffer < BUFFER_COUNT && len <= MESSAGE_LEN);
        // SAFETY: within the leaked memory by the assertion, and the kernel does
        // not write to a buffer between its completion and `give`.
        unsafe { std::slice::from_raw_parts(self.memory.add(buffer as usize * MESSAGE_LEN), len) }
    }

    /// Gives `buffer` back; the kernel sees it after `publish`.
    fn give(&mut self, buffer: u16) {
        let index = self.tail % BUFFER_COUNT;
        // SAFETY: the index is within the entries, and the kernel does not read
        // an entry beyond the published tail.
        let entry = unsafe { &mut *self.entries.add(index as usize) };
        // SAFETY: within the leaked memory.
        entry.set_addr(unsafe { self.memory.add(buffer as usize * MESSAGE_LEN) } as u64);
        entry.set_len(MESSAGE_LEN as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        // SAFETY: the tail lies in the first entry, in memory that is leaked; the
        // kernel reads it concurrently, hence the atomic.
        unsafe {
            let tail = BufRingEntry::tail(self.entries).cast_mut();
            AtomicU16::from_ptr(tail).store(self.tail, Ordering::Release);
        }
    }
}
