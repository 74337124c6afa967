//! Calls that block, on the runtime's pool of threads.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use tokio::sync::oneshot;

use crate::executor::current;
use crate::task::JoinError;

/// Runs a call that blocks or computes for long on a thread of the pool, and yields what it
/// returns; a panic of the call comes as [`JoinError::Panicked`].
///
/// A call that has begun cannot be cancelled: dropping the future leaves it to itself. One that
/// has not begun when the runtime ends is dropped.
///
/// # Panics
/// Outside of a runtime, or if not even one thread can be started.
///
/// ```
/// # let runtime = omniring::Runtime::new()?;
/// # runtime.block_on(async {
/// let sum = omniring::spawn_blocking(|| (1..=1000u64).sum::<u64>()).await;
/// assert_eq!(sum.unwrap(), 500_500);
/// # });
/// # Ok::<(), omniring::StartError>(())
/// ```
pub fn spawn_blocking<T: Send + 'static>(
    call: impl FnOnce() -> T + Send + 'static,
) -> impl Future<Output = Result<T, JoinError>> {
    let receiver = start(call).unwrap_or_else(|error| panic!("no thread for the call: {error}"));
    async move { receiver.await.unwrap_or(Err(JoinError::Aborted)) }
}

/// Runs a call that blocks and yields an I/O result; there may be no thread to run it.
pub(crate) async fn offload<T: Send + 'static>(
    call: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    match start(call)?.await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => error.resume(),
        Err(_) => Err(io::Error::from_raw_os_error(libc::ECANCELED)),
    }
}

type Receiver<T> = oneshot::Receiver<Result<T, JoinError>>;

fn start<T: Send + 'static>(call: impl FnOnce() -> T + Send + 'static) -> io::Result<Receiver<T>> {
    let (sender, receiver) = oneshot::channel();
    current().driver.spawn_call(Box::new(move || {
        let result = catch_unwind(AssertUnwindSafe(call)).map_err(JoinError::Panicked);
        // Nobody may want it any more; then it is dropped here.
        let _ = sender.send(result);
    }))?;
    Ok(receiver)
}
