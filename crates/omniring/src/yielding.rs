//! Letting other tasks run.

use std::future::poll_fn;
use std::task::Poll;

use crate::executor;

/// Lets others go on first: the tasks that are ready, then those that I/O, timers or other threads make ready when the
/// runtime has looked at these, which it does once for all who have yielded by then. If there are always tasks that are
/// ready, 128 polls of them are enough.
///
/// The future of `block_on` goes on when the runtime has looked, before the tasks that it has woken. Where no runtime
/// polls the future, it wakes its task at once.
pub async fn yield_now() {
    let mut yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut yielded, true) {
            return Poll::Ready(());
        }
        executor::wake_after_turn(cx.waker());
        Poll::Pending
    })
    .await;
}
