//! Bytes of a file, or of another socket, to a socket, through a pipe of the runtime's, without a copy in user
//! memory.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;

use omniring_driver::{SharedHandle, ops};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

use super::stream::SendAll;
use crate::executor::current;

/// Idle pipes that a runtime keeps for the next ones.
const IDLE_MAX: usize = 8;
/// What a pipe is to hold, if the system allows it: one round for so many bytes.
const CAPACITY: usize = 512 * 1024;

struct Pipe {
    reader: SharedHandle,
    writer: SharedHandle,
    capacity: usize,
}

/// The idle pipes of a runtime: each is empty.
#[derive(Default)]
pub(crate) struct Pipes(RefCell<Vec<Pipe>>);

impl Pipes {
    /// The runtime ends.
    pub(crate) fn clear(&self) {
        let pipes = self.0.take();
        drop(pipes);
    }
}

/// A pipe in use. It goes back to the idle ones only if it is known to be empty: when the future
/// that uses it is dropped, nobody knows.
struct Lent {
    pipe: Option<Pipe>,
    is_empty: bool,
}

impl Lent {
    fn take() -> io::Result<Lent> {
        let core = current();
        let idle = core.pipes.0.borrow_mut().pop();
        let pipe = match idle {
            Some(pipe) => pipe,
            None => {
                let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                // Beyond what an ordinary user may have, it stays as it is.
                let capacity = fcntl_setpipe_size(&writer, CAPACITY)
                    .or_else(|_| fcntl_getpipe_size(&writer))?;
                Pipe {
                    reader: SharedHandle::adopt(&core.driver, reader),
                    writer: SharedHandle::adopt(&core.driver, writer),
                    capacity,
                }
            }
        };
        Ok(Lent { pipe: Some(pipe), is_empty: true })
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if self.is_empty
            && let Some(pipe) = self.pipe.take()
            && let Some(core) = crate::executor::try_current()
        {
            let mut idle = core.pipes.0.borrow_mut();
            if idle.len() < IDLE_MAX {
                idle.push(pipe);
            }
        }
    }
}

/// Sends up to `len` bytes of `file` from `offset` on: the bytes that the socket took.
pub(super) async fn send_file(
    socket: &SharedHandle,
    file: &SharedHandle,
    offset: u64,
    len: u64,
) -> io::Result<u64> {
    let mut lent = Lent::take()?;
    let mut sent = 0;
    while sent < len {
        match send_round(&mut lent, socket, file, offset.saturating_add(sent), len - sent).await {
            (0, Ok(())) => break,
            (count, Ok(())) => sent += count,
            // As any send: what was taken before an error counts, and the error comes again.
            (count, Err(_)) if sent + count > 0 => return Ok(sent + count),
            (_, Err(error)) => return Err(error),
        }
    }
    Ok(sent)
}

/// Fills the pipe once and empties it: the bytes that the socket took, 0 at the end of the file.
async fn send_round(
    lent: &mut Lent,
    socket: &SharedHandle,
    file: &SharedHandle,
    offset: u64,
    len: u64,
) -> (u64, io::Result<()>) {
    let Some(Pipe { reader, writer, capacity }) = &lent.pipe else {
        unreachable!("there until it is dropped")
    };
    let len = usize::try_from(len).unwrap_or(usize::MAX).min(*capacity);
    lent.is_empty = false;
    let filled = match ops::splice(file, Some(offset), writer, None, len).await {
        Ok(filled) => filled,
        Err(error) => return (0, Err(error)),
    };
    let (sent, result) = empty(reader, writer, socket, filled).await;
    lent.is_empty = result.is_ok();
    (sent as u64, result)
}

/// Sends so many bytes that are in the pipe: those that the socket took.
async fn empty(
    reader: &SharedHandle,
    writer: &SharedHandle,
    socket: &SharedHandle,
    filled: usize,
) -> (usize, io::Result<()>) {
    let mut sent = 0;
    while sent < filled {
        match ops::splice_to_socket([reader, writer], socket, filled - sent).await {
            Ok(0) => return (sent, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => sent += count,
            Err(error) => return (sent, Err(error)),
        }
    }
    (sent, Ok(()))
}

/// Waits for bytes that arrive at `from`, and passes those that are there on to `to`: how many.
pub(super) async fn forward(from: &SharedHandle, to: &SharedHandle) -> io::Result<usize> {
    // A socket that leases were received from may have received in advance what is to come first.
    if from.has_receiver() {
        return forward_copied(from, to).await;
    }
    // The pipe is taken only when there is something for it: an idle connection has none, and no thread
    // of the kernel's waits in a splice for it.
    ops::poll(from, libc::POLLIN | libc::POLLRDHUP).await?;
    let mut lent = Lent::take()?;
    let Some(Pipe { reader, writer, capacity }) = &lent.pipe else {
        unreachable!("there until it is dropped")
    };
    lent.is_empty = false;
    let filled = match ops::splice(from, None, writer, None, *capacity).await {
        Ok(filled) => filled,
        Err(error) if is_missing(&error) => {
            lent.is_empty = true;
            return forward_copied(from, to).await;
        }
        Err(error) => return Err(error),
    };
    empty(reader, writer, to, filled).await.1?;
    lent.is_empty = true;
    Ok(filled)
}

/// Whether there is no splice here: not for this kind of socket, or not in this container.
fn is_missing(error: &io::Error) -> bool {
    let errno = error.raw_os_error();
    matches!(errno, Some(libc::EINVAL | libc::ENOSYS | libc::EPERM | libc::EOPNOTSUPP))
}

/// The same by way of memory of the runtime's.
async fn forward_copied(from: &SharedHandle, to: &SharedHandle) -> io::Result<usize> {
    let lease = poll_fn(|cx| from.poll_recv(cx)).await?;
    let count = lease.len();
    if count > 0 {
        SendAll::new(to, lease).await.0?;
    }
    Ok(count)
}
