//! An engine for tests, whose ops end as the test says: what comes of ops that are interrupted, which
//! no kernel does when asked to.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::*;
use crate::choice::{Chosen, Config, EngineName};
use crate::driver::Driver;
use crate::handle::{SharedHandle, owned_fd};

#[derive(Default)]
struct Script {
    /// Results of the ops to come, in the order of their submission; an op past the end goes on until
    /// it is cancelled.
    results: VecDeque<i32>,
    /// What a cancel makes of an op.
    cancelled: i32,
    links: bool,
    /// All that was submitted.
    submitted: Vec<Opcode>,
    waiting: Vec<Key>,
    ended: Vec<(Key, Completion)>,
}

struct Scripted {
    script: Rc<RefCell<Script>>,
    notifier: Arc<Notifier>,
}

impl Engine for Scripted {
    fn support(&self, _opcode: Opcode) -> Support {
        Support::Native
    }

    unsafe fn submit(&mut self, key: Key, op: &Op) -> Submitted {
        let mut script = self.script.borrow_mut();
        script.submitted.push(op.opcode());
        if let Op::Close { handle } = op {
            drop(owned_fd(handle.fd() as u32));
        }
        match script.results.pop_front() {
            Some(result) => script.ended.push((key, Completion::new(result))),
            None => script.waiting.push(key),
        }
        Submitted::Pending
    }

    unsafe fn submit_linked(&mut self, keys: [Key; 2], ops: [&Op; 2]) -> bool {
        let links = self.script.borrow().links;
        if links {
            for (key, op) in keys.into_iter().zip(ops) {
                // SAFETY: the caller's contract.
                let _ = unsafe { self.submit(key, op) };
            }
        }
        links
    }

    fn cancel(&mut self, key: Key) {
        let script = &mut *self.script.borrow_mut();
        if let Some(at) = script.waiting.iter().position(|&waiting| waiting == key) {
            script.waiting.remove(at);
            script.ended.push((key, Completion::new(script.cancelled)));
        }
    }

    fn turn(&mut self, _wait: Wait, table: &mut Table) -> io::Result<()> {
        for (key, completion) in self.script.borrow_mut().ended.drain(..) {
            table.complete(key, completion);
        }
        Ok(())
    }

    fn has_outcomes(&self) -> bool {
        false
    }

    fn spawn_call(&mut self, _call: Box<dyn FnOnce() + Send>) -> io::Result<()> {
        unreachable!("no test asks for it")
    }

    fn wants_nonblocking(&self) -> bool {
        false
    }

    fn forget(&mut self, _handle: Handle) {}

    fn provide(&mut self, _pool: &Rc<LeasePool>) {}

    fn notifier(&self) -> &Arc<Notifier> {
        &self.notifier
    }

    #[cfg(feature = "metrics")]
    fn entry_count(&self) -> u64 {
        0
    }

    fn thread_count(&self) -> usize {
        0
    }

    fn stop(&mut self, _deadline: Instant) -> bool {
        true
    }
}

mod tests {
    use std::os::fd::OwnedFd;
    use std::pin::Pin;

    use super::*;
    use crate::op::Position;
    use crate::ops;

    const EINTR: i32 = -libc::EINTR;
    const ECANCELED: i32 = -libc::ECANCELED;
    const LIMIT: Duration = Duration::from_secs(1);

    struct World {
        driver: Rc<Driver>,
        script: Rc<RefCell<Script>>,
        handle: SharedHandle,
    }

    /// A driver whose ops end with these results.
    fn world(results: impl IntoIterator<Item = i32>, links: bool) -> World {
        let results = results.into_iter().collect();
        let script = Script { results, cancelled: EINTR, links, ..Script::default() };
        let script = Rc::new(RefCell::new(script));
        let notifier = Arc::new(Notifier::new().unwrap());
        let engine = Box::new(Scripted { script: script.clone(), notifier });
        let chosen = Chosen { name: EngineName::Uring, engine, choice: String::new() };
        let driver = Rc::new(Driver::from_chosen(chosen, &Config::default()));
        let fd = OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let handle = SharedHandle::adopt(&driver, fd);
        World { driver, script, handle }
    }

    impl World {
        /// Polls and turns until the future is ready.
        fn run<F: Future + Unpin>(&self, mut future: F) -> F::Output {
            for _ in 0..10 {
                if let Poll::Ready(output) = self.poll(&mut future) {
                    return output;
                }
                self.driver.turn(false, None, || false).unwrap();
            }
            panic!("it is not ready after {:?}", self.script.borrow().submitted)
        }

        fn poll<F: Future + Unpin>(&self, future: &mut F) -> Poll<F::Output> {
            Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
        }

        fn read(&self) -> crate::OpFuture<ops::Read<Vec<u8>>> {
            ops::read(&self.handle, Vec::with_capacity(10), Position::At(0))
        }

        fn submitted(&self) -> Vec<Opcode> {
            self.script.borrow().submitted.clone()
        }
    }

    fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
        result.unwrap_err().raw_os_error().unwrap()
    }

    #[test]
    fn an_op_that_was_interrupted_by_chance_goes_again() {
        let world = world([EINTR, EINTR, 0], false);
        assert_eq!(world.run(world.read()).0.unwrap(), 0);
        assert_eq!(world.submitted(), [Opcode::Read; 3]);
    }

    #[test]
    fn an_op_that_was_interrupted_by_its_cancel_is_cancelled() {
        let world = world([], false);
        let mut read = world.read();
        assert!(world.poll(&mut read).is_pending());
        read.cancel();
        assert_eq!(errno(world.run(read).0), libc::ECANCELED);
        assert_eq!(world.submitted(), [Opcode::Read]);
    }

    #[test]
    fn a_close_that_was_interrupted_has_closed() {
        let world = world([EINTR], false);
        let close = ops::close(SharedHandle::adopt(
            &world.driver,
            std::fs::File::open("/dev/null").unwrap().into(),
        ));
        assert!(world.run(close.unwrap()).is_ok());
        assert_eq!(world.submitted(), [Opcode::Close]);
    }

    #[test]
    fn a_write_that_goes_again_takes_its_sync_along() {
        let world = world([EINTR, ECANCELED, 3, 0], true);
        let write = ops::write_synced(&world.handle, b"abc".to_vec(), Position::At(0));
        let (written, synced, _) = world.run(write);
        assert_eq!(written.unwrap(), 3);
        assert!(synced.expect("it was carried out").is_ok());
        use Opcode::{Fsync, Write};
        assert_eq!(world.submitted(), [Write, Fsync, Write, Fsync]);
    }

    #[test]
    fn a_sync_that_goes_again_leaves_its_write_alone() {
        let world = world([3, EINTR, 0], true);
        let write = ops::write_synced(&world.handle, b"abc".to_vec(), Position::At(0));
        let (written, synced, _) = world.run(write);
        assert_eq!(written.unwrap(), 3);
        assert!(synced.expect("it was carried out").is_ok());
        assert_eq!(world.submitted(), [Opcode::Write, Opcode::Fsync, Opcode::Fsync]);
    }

    #[test]
    fn a_linked_limit_says_whether_it_was_chance() {
        use Opcode::{Read, Timeout};
        let by_chance = world([EINTR, ECANCELED, 0], true);
        assert_eq!(by_chance.run(by_chance.read().with_timeout(LIMIT)).0.unwrap(), 0);
        assert_eq!(by_chance.submitted(), [Read, Timeout, Read, Timeout]);
        let late = world([EINTR, -libc::ETIME], true);
        assert_eq!(errno(late.run(late.read().with_timeout(LIMIT)).0), libc::ETIMEDOUT);
        assert_eq!(late.submitted(), [Read, Timeout]);
    }

    #[test]
    fn under_a_limit_of_its_own_an_op_goes_again_until_that_has_passed() {
        use Opcode::{Read, Timeout};
        let by_chance = world([EINTR], false);
        let mut read = by_chance.read().with_timeout(LIMIT);
        assert!(by_chance.poll(&mut read).is_pending());
        by_chance.driver.turn(false, None, || false).unwrap();
        by_chance.script.borrow_mut().results.push_back(0);
        assert_eq!(by_chance.run(read).0.unwrap(), 0);
        assert_eq!(by_chance.submitted(), [Read, Timeout, Read]);
    }

    #[test]
    fn an_op_that_its_limit_interrupted_is_late() {
        let world = world([], false);
        let mut read = world.read().with_timeout(LIMIT);
        assert!(world.poll(&mut read).is_pending());
        assert_eq!(world.submitted(), [Opcode::Read, Opcode::Timeout]);
        let script = &world.script;
        let timer = script.borrow_mut().waiting.pop().unwrap();
        script.borrow_mut().ended.push((timer, Completion::error(libc::ETIME)));
        assert_eq!(errno(world.run(read).0), libc::ETIMEDOUT);
        assert_eq!(world.submitted(), [Opcode::Read, Opcode::Timeout]);
    }

    #[test]
    fn cancelled_by_the_user_a_timed_op_does_not_go_again() {
        let world = world([], true);
        let mut read = world.read().with_timeout(LIMIT);
        assert!(world.poll(&mut read).is_pending());
        read.cancel();
        assert_eq!(errno(world.run(read).0), libc::ECANCELED);
        assert_eq!(world.submitted(), [Opcode::Read, Opcode::Timeout]);
    }
}
