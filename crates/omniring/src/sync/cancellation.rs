//! Telling tasks to end, wherever they are.

use std::fmt;
use std::future::{Future, poll_fn};
use std::iter::successors;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::task::Poll;

use tokio::sync::Notify;

/// Tells all who wait for it, once and for good, that they are to end. Clones are the same token;
/// children are told with their parent, but not the other way round. It may be used by any thread.
///
/// ```
/// use omniring::sync::CancellationToken;
/// use omniring::spawn;
/// # omniring::Runtime::new()?.block_on(async {
/// let token = CancellationToken::new();
/// let for_task = token.child();
/// let task = spawn(async move {
///     for_task.run_until_cancelled(std::future::pending::<()>()).await
/// });
/// token.cancel();
/// assert_eq!(task.await.unwrap(), None);
/// # });
/// # Ok::<(), omniring::StartError>(())
/// ```
#[derive(Clone, Default)]
pub struct CancellationToken(Arc<Inner>);

#[derive(Default)]
struct Inner {
    is_cancelled: AtomicBool,
    notify: Notify,
    parent: Option<CancellationToken>,
}

impl CancellationToken {
    /// A token that nobody has cancelled.
    pub fn new() -> CancellationToken {
        CancellationToken::default()
    }

    /// A token that is cancelled with this one, or before it by itself. Waiting for it waits for
    /// each of its ancestors too.
    pub fn child(&self) -> CancellationToken {
        CancellationToken(Arc::new(Inner { parent: Some(self.clone()), ..Inner::default() }))
    }

    /// Tells all who wait for the token or for a child of it, and whoever asks later.
    pub fn cancel(&self) {
        // Whoever registers after the flag was set sees it.
        self.0.is_cancelled.store(true, Release);
        self.0.notify.notify_waiters();
    }

    /// Whether it was cancelled, or an ancestor.
    pub fn is_cancelled(&self) -> bool {
        self.and_ancestors().any(|token| token.0.is_cancelled.load(Acquire))
    }

    fn and_ancestors(&self) -> impl Iterator<Item = &CancellationToken> {
        successors(Some(self), |token| token.0.parent.as_ref())
    }

    /// Waits until it is cancelled, or an ancestor. Dropping the future does nothing.
    pub async fn cancelled(&self) {
        let mut notified: Vec<_> =
            self.and_ancestors().map(|token| Box::pin(token.0.notify.notified())).collect();
        // A notification that comes from here on is not missed.
        poll_fn(|cx| {
            let was_told = notified.iter_mut().any(|told| told.as_mut().poll(cx).is_ready());
            if was_told || self.is_cancelled() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// Runs `future` until it is ready or the token is cancelled, and drops it then, which cancels its
    /// ops. What is ready at the same time as the token is not lost.
    pub async fn run_until_cancelled<F: Future>(&self, future: F) -> Option<F::Output> {
        let (mut future, mut cancelled) = (pin!(future), pin!(self.cancelled()));
        poll_fn(|cx| {
            if let Poll::Ready(output) = future.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            cancelled.as_mut().poll(cx).map(|()| None)
        })
        .await
    }
}

impl fmt::Debug for CancellationToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_cancelled = self.is_cancelled();
        f.debug_struct("CancellationToken").field("is_cancelled", &is_cancelled).finish()
    }
}
