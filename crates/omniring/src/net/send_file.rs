//! Bytes of a file to a socket, through a pipe of the runtime's, without a copy in user memory.

use std::cell::RefCell;
use std::io;

use omniring_driver::{SharedHandle, ops};
use rustix::pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with};

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
    let mut sent = 0;
    while sent < filled {
        match ops::splice_to_socket([reader, writer], socket, filled - sent).await {
            Ok(0) => return (sent as u64, Err(io::ErrorKind::WriteZero.into())),
            Ok(count) => sent += count,
            Err(error) => return (sent as u64, Err(error)),
        }
    }
    lent.is_empty = true;
    (sent as u64, Ok(()))
}
