//! Time: sleeping, timeouts and intervals, all on the runtime's deadline queue.
//!
//! [`timeout`] is for any future, and drops it when the time is over. A single op has
//! [`with_timeout`](crate::OpFuture::with_timeout), which gives the buffer back, and loses no result
//! that was there just in time:
//!
//! ```
//! # omniring::Runtime::new()?.block_on(async {
//! use std::time::Duration;
//! let (stream, _peer) = omniring::net::UnixStream::pair()?;
//! let recv = stream.recv_into(Vec::with_capacity(100)).with_timeout(Duration::from_millis(1));
//! let (result, buf) = recv.await;
//! assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
//! assert_eq!(buf.capacity(), 100);
//! # Ok::<(), std::io::Error>(())
//! # })?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub(crate) mod wheel;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

pub use omniring_driver::clock::{Instant, now};

use self::wheel::TimerKey;
use crate::executor::{Core, current};

/// Waits for `duration`: at least that long, and as a rule less than 20 microseconds longer plus
/// what the kernel takes to wake the thread.
///
/// Dropping the future costs a few instructions. See [`sleep_until`].
pub fn sleep(duration: Duration) -> Sleep {
    sleep_until(saturating_add(now(), duration))
}

/// Waits until `deadline`; not at all if it has passed.
///
/// # Panics
/// When polled outside of a runtime.
pub fn sleep_until(deadline: Instant) -> Sleep {
    Sleep { deadline, armed: None }
}

/// A time so far away that it never comes stands for one that cannot be said.
fn saturating_add(instant: Instant, duration: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 86_400);
    instant.checked_add(duration).unwrap_or_else(|| instant + CENTURY)
}

/// The future of [`sleep`] and [`sleep_until`].
#[must_use = "a sleep waits only when awaited"]
pub struct Sleep {
    deadline: Instant,
    armed: Option<(Rc<Core>, TimerKey)>,
}

impl Sleep {
    /// When it ends.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Ends at another time.
    pub fn reset(&mut self, deadline: Instant) {
        self.disarm();
        self.deadline = deadline;
    }

    fn disarm(&mut self) {
        if let Some((core, key)) = self.armed.take() {
            let waker = core.timers.borrow_mut().remove(key);
            drop(waker);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some((core, key)) = &self.armed else {
            if self.deadline <= now() {
                return Poll::Ready(());
            }
            let core = current();
            let key = core.timers.borrow_mut().insert(self.deadline, cx.waker().clone());
            self.armed = Some((core, key));
            return Poll::Pending;
        };
        let polled = core.timers.borrow_mut().poll(key, cx.waker());
        match polled {
            Ok(()) => {
                self.disarm();
                Poll::Ready(())
            }
            Err(_) => Poll::Pending,
        }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.disarm();
    }
}

impl fmt::Debug for Sleep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sleep").field("deadline", &self.deadline).finish()
    }
}

/// The time was over before the future was ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(());

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the deadline has elapsed")
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

/// Gives `future` so much time, and drops it when that is over, which cancels its ops.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// use std::time::Duration;
/// let late = omniring::time::timeout(Duration::from_millis(1), std::future::pending::<()>());
/// assert!(late.await.is_err());
/// # });
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn timeout<F: Future>(
    duration: Duration,
    future: F,
) -> impl Future<Output = Result<F::Output, Elapsed>> {
    timeout_at(saturating_add(now(), duration), future)
}

/// Gives `future` time until `deadline`: see [`timeout`].
pub async fn timeout_at<F: Future>(deadline: Instant, future: F) -> Result<F::Output, Elapsed> {
    let mut future = pin!(future);
    let mut sleep = sleep_until(deadline);
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Ok(output));
        }
        Pin::new(&mut sleep).poll(cx).map(|()| Err(Elapsed(())))
    })
    .await
}

/// Ticks every `period`, the first time at once.
///
/// A tick that was waited for too late does not delay the later ones; several missed ones come
/// one after the other without a wait.
///
/// # Panics
/// If `period` is zero.
pub fn interval(period: Duration) -> Interval {
    assert!(!period.is_zero(), "an interval needs a period longer than zero");
    Interval { period, next: now() }
}

/// See [`interval`].
#[derive(Debug)]
pub struct Interval {
    period: Duration,
    next: Instant,
}

impl Interval {
    /// Waits for the next tick: the time it was due. Dropping the future loses no tick.
    pub async fn tick(&mut self) -> Instant {
        sleep_until(self.next).await;
        let due = self.next;
        self.next = saturating_add(due, self.period);
        due
    }

    /// The time between ticks.
    pub fn period(&self) -> Duration {
        self.period
    }
}
