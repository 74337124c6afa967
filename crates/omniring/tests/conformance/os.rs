//! Counters, timers and news of files.

use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::{Duration, SystemTime};

use omniring::os::{Clock, EventFd, Inotify, TimerFd};
use omniring::time::{now, timeout};
use omniring::{Runtime, fs, spawn, yield_now};

use crate::harness::{conformance, errno};
use crate::loopback::start;
use crate::pipes::let_others_run;
use crate::time::assert_idle;

const SOON: Duration = Duration::from_secs(20);

conformance!(
    a_counter_adds_up_and_is_taken,
    a_semaphore_is_taken_one_by_one,
    a_full_counter_makes_who_adds_wait,
    another_thread_adds,
    a_dropped_take_takes_nothing,
    a_timer_expires,
    a_timer_counts_what_nobody_waited_for,
    a_timer_that_is_disarmed_does_not_expire,
    a_timer_goes_by_the_time_of_day,
    a_timer_that_cannot_be_is_refused,
    what_happens_in_a_directory_is_told,
    what_is_not_watched_any_more_ends_with_a_last_event,
    many_events_come_in_order,
    a_dropped_wait_loses_no_event,
    what_cannot_be_watched_is_named,
);

fn a_counter_adds_up_and_is_taken(runtime: &Runtime) {
    runtime.block_on(async {
        let counter = EventFd::new(5).unwrap();
        assert_eq!(counter.take().await.unwrap(), 5);
        for _ in 0..3 {
            let mut take = pin!(counter.take());
            assert!(start(&mut take).await.is_none());
            counter.add(2).await.unwrap();
            assert_eq!(timeout(SOON, take).await.unwrap().unwrap(), 2);
        }
        counter.add(3).await.unwrap();
        counter.add(4).await.unwrap();
        assert_eq!(counter.take().await.unwrap(), 7);
        assert_eq!(errno(counter.add(u64::MAX).await), libc::EINVAL);
        let mut take = pin!(counter.take());
        assert!(start(&mut take).await.is_none());
        assert_idle(now() + Duration::from_millis(100)).await;
    });
}

fn a_semaphore_is_taken_one_by_one(runtime: &Runtime) {
    runtime.block_on(async {
        let counter = EventFd::semaphore(2).unwrap();
        counter.add(1).await.unwrap();
        for _ in 0..3 {
            assert_eq!(timeout(SOON, counter.take()).await.unwrap().unwrap(), 1);
        }
        assert!(start(&mut pin!(counter.take())).await.is_none());
    });
}

fn a_full_counter_makes_who_adds_wait(runtime: &Runtime) {
    runtime.block_on(async {
        for count in [1, 1 << 40] {
            let counter = EventFd::new(0).unwrap();
            counter.add(u64::MAX - 1).await.unwrap();
            let mut add = pin!(counter.add(count));
            assert!(start(&mut add).await.is_none());
            let_others_run().await;
            assert!(start(&mut add).await.is_none());
            assert_eq!(counter.take().await.unwrap(), u64::MAX - 1);
            timeout(SOON, add).await.unwrap().unwrap();
            assert_eq!(counter.take().await.unwrap(), count);
        }
    });
}

fn another_thread_adds(runtime: &Runtime) {
    runtime.block_on(async {
        let counter = EventFd::new(0).unwrap();
        let fd = counter.as_fd().try_clone_to_owned().unwrap();
        let thread = std::thread::spawn(move || {
            for _ in 0..100 {
                rustix::io::write(&fd, &1u64.to_ne_bytes()).unwrap();
            }
        });
        let mut sum = 0;
        while sum < 100 {
            sum += timeout(SOON, counter.take()).await.unwrap().unwrap();
        }
        assert_eq!(sum, 100);
        thread.join().unwrap();
    });
}

fn a_dropped_take_takes_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let counter = EventFd::new(0).unwrap();
        for round in 1..20 {
            {
                let mut take = pin!(counter.take());
                assert!(start(&mut take).await.is_none());
                counter.add(round).await.unwrap();
                if round % 2 == 0 {
                    let_others_run().await;
                }
            }
            assert_eq!(timeout(SOON, counter.take()).await.unwrap().unwrap(), round);
        }
    });
}

fn a_timer_expires(runtime: &Runtime) {
    runtime.block_on(async {
        for clock in [Clock::Monotonic, Clock::Boottime, Clock::Realtime] {
            let timer = TimerFd::new(clock).unwrap();
            assert_eq!(timer.remaining().unwrap(), None);
            let before = now();
            timer.arm(Duration::from_millis(20), None).unwrap();
            assert!(timer.remaining().unwrap().unwrap() <= Duration::from_millis(20));
            assert_eq!(timeout(SOON, timer.expired()).await.unwrap().unwrap(), 1);
            assert!(before.elapsed() >= Duration::from_millis(19));
            assert_eq!(timer.remaining().unwrap(), None);
            assert!(start(&mut pin!(timer.expired())).await.is_none());
        }
    });
}

fn a_timer_counts_what_nobody_waited_for(runtime: &Runtime) {
    runtime.block_on(async {
        let timer = TimerFd::new(Clock::Monotonic).unwrap();
        let period = Duration::from_millis(2);
        let before = now();
        timer.arm(period, Some(period)).unwrap();
        let mut count = 0;
        while count < 10 {
            omniring::time::sleep(3 * period).await;
            count += timeout(SOON, timer.expired()).await.unwrap().unwrap();
        }
        assert!(before.elapsed() >= period * count as u32);
    });
}

fn a_timer_that_is_disarmed_does_not_expire(runtime: &Runtime) {
    runtime.block_on(async {
        let timer = TimerFd::new(Clock::Monotonic).unwrap();
        timer.arm(Duration::from_millis(1), None).unwrap();
        let waiting = spawn(async move {
            timer.poll_and_disarm().await;
            timer
        });
        let timer = timeout(SOON, waiting).await.unwrap().unwrap();
        assert!(start(&mut pin!(timer.expired())).await.is_none(), "it is forgotten");
        timer.arm(Duration::from_millis(1), None).unwrap();
        assert_eq!(timeout(SOON, timer.expired()).await.unwrap().unwrap(), 1);
    });
}

trait PollAndDisarm {
    async fn poll_and_disarm(&self);
}

impl PollAndDisarm for TimerFd {
    /// Disarms it after it has expired, and before anybody has asked.
    async fn poll_and_disarm(&self) {
        while self.remaining().unwrap().is_some() {
            yield_now().await;
        }
        self.disarm().unwrap();
    }
}

fn a_timer_goes_by_the_time_of_day(runtime: &Runtime) {
    runtime.block_on(async {
        let timer = TimerFd::new(Clock::Realtime).unwrap();
        let time = SystemTime::now() + Duration::from_millis(20);
        timer.arm_at(time, None).unwrap();
        assert_eq!(timeout(SOON, timer.expired()).await.unwrap().unwrap(), 1);
        assert!(SystemTime::now() >= time);
        timer.arm_at(SystemTime::now() - Duration::from_secs(5), None).unwrap();
        assert_eq!(timeout(SOON, timer.expired()).await.unwrap().unwrap(), 1, "it has passed");
    });
}

fn a_timer_that_cannot_be_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let timer = TimerFd::new(Clock::Monotonic).unwrap();
        let second = Duration::from_secs(1);
        for result in [
            timer.arm(Duration::ZERO, None),
            timer.arm(second, Some(Duration::ZERO)),
            timer.arm(Duration::MAX, None),
            timer.arm_at(SystemTime::now() + second, None),
            TimerFd::new(Clock::Realtime).unwrap().arm_at(SystemTime::UNIX_EPOCH - second, None),
        ] {
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        assert_eq!(timer.remaining().unwrap(), None);
    });
}

fn what_happens_in_a_directory_is_told(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let mut inotify = Inotify::new().unwrap();
        let mask = libc::IN_CREATE | libc::IN_MOVE | libc::IN_DELETE;
        let watch = inotify.watch(dir.path(), mask).await.unwrap();
        let event = {
            let mut next = pin!(inotify.next());
            assert!(start(&mut next).await.is_none());
            fs::write(dir.path().join("one"), "x").await.unwrap();
            timeout(SOON, next).await.unwrap().unwrap()
        };
        assert_eq!((event.watch, event.mask), (Some(watch), libc::IN_CREATE));
        assert_eq!((event.name.unwrap(), event.cookie), ("one".into(), 0));
        fs::rename(dir.path().join("one"), dir.path().join("two")).await.unwrap();
        let from = timeout(SOON, inotify.next()).await.unwrap().unwrap();
        let to = timeout(SOON, inotify.next()).await.unwrap().unwrap();
        assert_eq!((from.mask, to.mask), (libc::IN_MOVED_FROM, libc::IN_MOVED_TO));
        assert_eq!((from.name.unwrap(), to.name.unwrap()), ("one".into(), "two".into()));
        assert!(from.cookie == to.cookie && to.cookie != 0);
        fs::create_dir(dir.path().join("dir")).await.unwrap();
        let event = timeout(SOON, inotify.next()).await.unwrap().unwrap();
        assert_eq!(event.mask, libc::IN_CREATE | libc::IN_ISDIR);
    });
}

fn what_is_not_watched_any_more_ends_with_a_last_event(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "x").unwrap();
    runtime.block_on(async {
        let mut inotify = Inotify::new().unwrap();
        let watch = inotify.watch(&path, libc::IN_MODIFY).await.unwrap();
        assert_eq!(inotify.watch(&path, libc::IN_MODIFY | libc::IN_OPEN).await.unwrap(), watch);
        inotify.unwatch(watch).unwrap();
        let event = timeout(SOON, inotify.next()).await.unwrap().unwrap();
        assert_eq!((event.watch, event.mask, event.name), (Some(watch), libc::IN_IGNORED, None));
        assert_eq!(errno(inotify.unwatch(watch)), libc::EINVAL);
        let other = inotify.watch(&path, libc::IN_DELETE_SELF).await.unwrap();
        assert_ne!(other, watch);
        fs::remove_file(&path).await.unwrap();
        for mask in [libc::IN_DELETE_SELF, libc::IN_IGNORED] {
            let event = timeout(SOON, inotify.next()).await.unwrap().unwrap();
            assert_eq!((event.watch, event.mask), (Some(other), mask));
        }
    });
}

fn many_events_come_in_order(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let mut inotify = Inotify::new().unwrap();
        inotify.watch(dir.path(), libc::IN_CREATE).await.unwrap();
        // More than fit into one read.
        let name = |number: u32| format!("a-file-with-a-long-name-{number:0100}");
        for number in 0..200 {
            std::fs::write(dir.path().join(name(number)), "").unwrap();
        }
        for number in 0..200 {
            let event = timeout(SOON, inotify.next()).await.unwrap().unwrap();
            assert_eq!(event.name.unwrap().to_str().unwrap(), name(number));
        }
        assert!(start(&mut pin!(inotify.next())).await.is_none());
    });
}

fn a_dropped_wait_loses_no_event(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let mut inotify = Inotify::new().unwrap();
        inotify.watch(dir.path(), libc::IN_CREATE).await.unwrap();
        for number in 0..20 {
            let name = number.to_string();
            {
                let mut next = pin!(inotify.next());
                assert!(start(&mut next).await.is_none());
                std::fs::write(dir.path().join(&name), "").unwrap();
                if number % 2 == 0 {
                    let_others_run().await;
                }
            }
            let event = timeout(SOON, inotify.next()).await.unwrap().unwrap();
            assert_eq!(event.name.unwrap().to_str().unwrap(), name);
        }
    });
}

fn what_cannot_be_watched_is_named(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nothing");
    runtime.block_on(async {
        let inotify = Inotify::new().unwrap();
        let error = inotify.watch(&path, libc::IN_MODIFY).await.unwrap_err();
        assert!(error.to_string().contains("/nothing"), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::ENOENT);
        assert_eq!(errno(inotify.watch(dir.path(), 0).await), libc::EINVAL);
    });
}
