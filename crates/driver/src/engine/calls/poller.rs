//! How readiness is waited for: `epoll(7)`, edge- or level-triggered, `poll(2)` or `select(2)`.
//!
//! Edge-triggered is told of a descriptor once, and says whenever something happens to it. The
//! others are level-triggered: a descriptor is armed for the events that ops wait for, and
//! reported for as long as they are there; whoever arms takes back what nobody waits for any
//! more, or the wait would end at once, over and over. Deliberately not here: which ops wait
//! (`calls`).

mod epoll;
mod poll;
mod select;

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

pub(super) use self::epoll::Epoll;
use self::poll::Poll;
use self::select::Select;

/// Events that are waited for, as `poll(2)` has them; `epoll(7)` has the same bits.
pub(super) type Events = i16;

/// Reported whether asked for or not.
pub(super) const ALWAYS: Events = libc::POLLERR | libc::POLLHUP;

/// By which call readiness is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Readiness {
    EpollEdge,
    EpollLevel,
    Poll,
    Select,
}

/// What a wait said of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    pub(super) fd: RawFd,
    pub(super) events: Events,
}

pub(super) enum Poller {
    Epoll(Epoll),
    Poll(Poll),
    Select(Box<Select>),
}

impl Poller {
    pub(super) fn new(readiness: Readiness) -> io::Result<Poller> {
        Ok(match readiness {
            Readiness::EpollEdge | Readiness::EpollLevel => Poller::Epoll(Epoll::new()?),
            Readiness::Poll => Poller::Poll(Poll::default()),
            Readiness::Select => Poller::Select(Box::default()),
        })
    }

    /// Adds a descriptor of the engine's own, which stays. Returns whether its readiness has to
    /// be cleared after each report.
    pub(super) fn add_own(&mut self, fd: RawFd) -> io::Result<bool> {
        match self {
            // Each signal is an edge: nobody has to read it.
            Poller::Epoll(epoll) => epoll.watch(fd, libc::POLLIN).map(|()| false),
            Poller::Poll(poll) => {
                poll.arm(fd, Some(libc::POLLIN));
                Ok(true)
            }
            Poller::Select(select) if select::is_in_range(fd) => {
                select.arm(fd, Some(libc::POLLIN));
                Ok(true)
            }
            Poller::Select(_) => Err(io::Error::other(format!(
                "its own descriptor would be number {fd}, and select(2) takes none past {}",
                select::FD_MAX
            ))),
        }
    }

    /// Edge-triggered: whatever happens to `fd` is reported from here on. `EPERM` if readiness is
    /// not defined for it.
    pub(super) fn watch(&mut self, fd: RawFd) -> io::Result<()> {
        let Poller::Epoll(epoll) = self else { unreachable!("only epoll is edge-triggered") };
        epoll.watch(fd, libc::POLLIN | libc::POLLOUT | libc::POLLPRI | libc::POLLRDHUP)
    }

    /// Ends what [`Poller::watch`] began.
    pub(super) fn unwatch(&mut self, fd: RawFd) {
        let Poller::Epoll(epoll) = self else { unreachable!("only epoll is edge-triggered") };
        epoll.remove(fd);
    }

    /// Level-triggered: before `fd` is armed for the first time. `EPERM` if readiness is not
    /// defined for it; with epoll, arming says so.
    pub(super) fn admit(&self, fd: RawFd) -> io::Result<()> {
        match self {
            Poller::Epoll(_) => Ok(()),
            _ if is_file(fd) => Err(io::Error::from_raw_os_error(libc::EPERM)),
            Poller::Select(_) if !select::is_in_range(fd) => {
                Err(io::Error::from_raw_os_error(libc::EMFILE))
            }
            _ => Ok(()),
        }
    }

    /// Level-triggered: reports `fd` for as long as some of `events` are there. `None` is not at
    /// all, not even for errors. `was` is what it was armed for.
    pub(super) fn arm(
        &mut self,
        fd: RawFd,
        was: Option<Events>,
        events: Option<Events>,
    ) -> io::Result<()> {
        match self {
            Poller::Epoll(epoll) => return epoll.arm(fd, was, events),
            Poller::Poll(poll) => poll.arm(fd, events),
            Poller::Select(select) => select.arm(fd, events),
        }
        Ok(())
    }

    /// Waits until something is ready or the time is over. Returns how many descriptors are.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<usize> {
        match self {
            Poller::Epoll(epoll) => epoll.wait(timeout),
            Poller::Poll(poll) => poll.wait(timeout),
            Poller::Select(select) => select.wait(timeout),
        }
    }

    /// One of those that the last wait said are ready.
    pub(super) fn ready(&self, at: usize) -> Ready {
        match self {
            Poller::Epoll(epoll) => epoll.ready(at),
            Poller::Poll(poll) => poll.ready(at),
            Poller::Select(select) => select.ready(at),
        }
    }

    /// Whether an op on `fd` that may have to wait can: `select(2)` knows no numbers past its own
    /// limit, which matters for what is no file.
    pub(super) fn takes(&self, fd: RawFd) -> bool {
        !matches!(self, Poller::Select(_)) || fd < 0 || select::is_in_range(fd) || is_file(fd)
    }
}

/// Whether `fd` is something that `poll(2)` calls ready whatever it is, and that epoll refuses.
pub(super) fn is_file(fd: RawFd) -> bool {
    // SAFETY: an all-zero stat is valid, and the kernel fills it in.
    let (result, stat) = unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        (libc::fstat(fd, &raw mut stat), stat)
    };
    let kind = stat.st_mode & libc::S_IFMT;
    result == 0 && matches!(kind, libc::S_IFREG | libc::S_IFDIR | libc::S_IFBLK)
}

fn timespec(timeout: Duration) -> libc::timespec {
    libc::timespec {
        tv_sec: timeout.as_secs().min(i64::MAX as u64) as i64,
        tv_nsec: timeout.subsec_nanos().into(),
    }
}
