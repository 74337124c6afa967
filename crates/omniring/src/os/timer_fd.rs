//! Timers of the kernel's other clocks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_gettime, timerfd_settime,
};

use crate::readiness::{Direction, Readiness};

/// Which clock a [`TimerFd`] goes by: see `clock_gettime(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Clock {
    /// It never jumps, and stands still while the machine is suspended.
    Monotonic,
    /// It never jumps, and goes on while the machine is suspended.
    Boottime,
    /// The time of day, which is set at times.
    Realtime,
}

/// A timer in the kernel (`timerfd(2)`), for what [`time`](crate::time) does not do: the time of day,
/// time that goes on while the machine is suspended, or a descriptor to hand on.
///
/// ```
/// # omniring::Runtime::new()?.block_on(async {
/// use omniring::os::{Clock, TimerFd};
/// use std::time::Duration;
/// let timer = TimerFd::new(Clock::Boottime)?;
/// timer.arm(Duration::from_millis(1), None)?;
/// assert_eq!(timer.expired().await?, 1);
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct TimerFd {
    readiness: Readiness,
    clock: Clock,
}

impl TimerFd {
    /// A timer that is not armed. Fails if there are no descriptors left.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn new(clock: Clock) -> io::Result<TimerFd> {
        let id = match clock {
            Clock::Monotonic => TimerfdClockId::Monotonic,
            Clock::Boottime => TimerfdClockId::Boottime,
            Clock::Realtime => TimerfdClockId::Realtime,
        };
        let fd = timerfd_create(id, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        Ok(TimerFd { readiness: Readiness::new(fd), clock })
    }

    /// Expires after this time, and with `every` again each time that is over. What it was armed for
    /// before is forgotten, and so is what had expired. Fails with `InvalidInput` if `after` or
    /// `every` is zero, or more seconds than the kernel can count.
    pub fn arm(&self, after: Duration, every: Option<Duration>) -> io::Result<()> {
        self.set(TimerfdTimerFlags::empty(), after, every)
    }

    /// Expires at this time of day, at once if it has passed, and with `every` again each time that
    /// is over. Else as [`arm`](TimerFd::arm). If the time of day is set meanwhile,
    /// [`expired`](TimerFd::expired) fails with `ECANCELED` once, and the timer stays armed. Only for
    /// [`Clock::Realtime`]; fails with `InvalidInput` for other clocks, and for times before 1970.
    pub fn arm_at(&self, time: SystemTime, every: Option<Duration>) -> io::Result<()> {
        if self.clock != Clock::Realtime {
            return invalid("a timer expires at a time of day only with Clock::Realtime");
        }
        let Ok(since) = time.duration_since(UNIX_EPOCH) else {
            return invalid("a timer cannot expire before 1970");
        };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        self.set(flags, since, every)
    }

    /// Does not expire any more, unless armed again. What had expired is forgotten.
    pub fn disarm(&self) -> io::Result<()> {
        let never = Timespec { tv_sec: 0, tv_nsec: 0 };
        let spec = Itimerspec { it_interval: never, it_value: never };
        timerfd_settime(&self.readiness, TimerfdTimerFlags::empty(), &spec)?;
        Ok(())
    }

    fn set(
        &self,
        flags: TimerfdTimerFlags,
        value: Duration,
        every: Option<Duration>,
    ) -> io::Result<()> {
        if value.is_zero() || every.is_some_and(|every| every.is_zero()) {
            return invalid("a timer needs a time longer than zero: see `disarm`");
        }
        let timespec = |time: Duration| {
            Timespec::try_from(time).or_else(|_| invalid("more seconds than the kernel can count"))
        };
        let it_interval = timespec(every.unwrap_or_default())?;
        let spec = Itimerspec { it_interval, it_value: timespec(value)? };
        timerfd_settime(&self.readiness, flags, &spec)?;
        Ok(())
    }

    /// Time until it expires next; `None` if it is not armed.
    pub fn remaining(&self) -> io::Result<Option<Duration>> {
        let left = timerfd_gettime(&self.readiness)?.it_value;
        let left = Duration::new(left.tv_sec as u64, left.tv_nsec as u32);
        Ok(Some(left).filter(|left| !left.is_zero()))
    }

    /// Waits until it expires: how often it has since it was armed or asked last.
    ///
    /// Dropping the future loses nothing. A timer that is not armed is waited for forever.
    pub async fn expired(&self) -> io::Result<u64> {
        let mut count = [0; 8];
        let read = |fd: BorrowedFd<'_>| Ok(rustix::io::read(fd, &mut count)?);
        self.readiness.io(Direction::Read, read).await?;
        Ok(u64::from_ne_bytes(count))
    }
}

fn invalid<T>(what: &str) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

impl AsFd for TimerFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

impl std::fmt::Debug for TimerFd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TimerFd").field("clock", &self.clock).finish_non_exhaustive()
    }
}
