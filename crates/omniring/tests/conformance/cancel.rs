//! Cancelling ops, dropping their futures, and more of them than fit.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::path::Path;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use omniring::buf::{IoBuf, IoBufMut};
use omniring::fs::{self, File, OpenOptions};
use omniring::net::UnixStream;
use omniring::time::{now, sleep};
use omniring::{AsyncRead, Engine, Runtime, spawn, yield_now};
use omniring_driver::ops;
use rustix::fs::{CWD, Mode};

use crate::harness::{conformance, drive, errno, fd_count, new_driver};
use crate::loopback::poll_once;
use crate::pipes::{let_others_run, pipe};

conformance!(
    an_op_cancelled_before_it_was_submitted_never_is,
    an_op_cancelled_in_flight_gives_its_buffer_back,
    an_op_cancelled_after_it_completed_keeps_its_result,
    a_poll_is_cancelled,
    a_timeout_is_cancelled,
    a_timeout_ends_by_itself,
    cancelling_twice_is_cancelling_once,
    a_cancelled_op_wakes_its_task,
    a_close_happens_even_if_dropped,
    a_future_dropped_before_it_was_polled_does_nothing,
    a_buffer_outlives_the_op_of_a_dropped_future,
    a_buffer_of_a_completed_op_is_dropped_with_its_future,
    a_buffer_is_dropped_once_however_its_op_ends,
    thousands_of_reads_are_dropped_at_once,
    buffers_that_start_ops_when_dropped_do_no_harm,
    more_ops_than_queue_entries_complete,
    more_ops_than_queue_entries_are_cancelled,
    more_cancels_than_queue_entries_are_carried_out,
    ops_end_with_the_runtime,
    a_future_that_outlives_its_runtime_is_cancelled,
    a_file_that_outlives_its_runtime_is_closed,
    ops_that_never_wait_do_not_starve_others,
    ops_that_never_wait_do_not_starve_others_from_the_main_future;
    isolated:
    opens_dropped_in_flight_leak_no_descriptor,
    an_open_that_waits_for_its_peer_is_dropped,
    everything_dropped_leaves_no_descriptor,
);

const SOON: Duration = Duration::from_secs(20);

/// Polls without a runtime around it.
fn poll_now<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(Waker::noop()))
}

/// A buffer that counts how often it is dropped.
pub struct Counted {
    bytes: Box<[u8]>,
    drops: Rc<Cell<usize>>,
}

impl Counted {
    pub fn new(len: usize, drops: &Rc<Cell<usize>>) -> Counted {
        Counted { bytes: vec![0; len].into_boxed_slice(), drops: drops.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
    }
}

// SAFETY: the bytes are on the heap and stay there until the buffer is dropped.
unsafe impl IoBuf for Counted {
    fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

// SAFETY: as above; all of them are initialised.
unsafe impl IoBufMut for Counted {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }

    unsafe fn set_filled(&mut self, _len: usize) {}
}

/// Turns the loop until the condition holds, which has to be soon: a disk that others use as well may take
/// seconds for a few syncs.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let end = now() + SOON;
    while !condition() {
        assert!(now() < end, "it did not come to pass in {SOON:?}: {what}");
        yield_now().await;
        sleep(Duration::from_micros(100)).await;
    }
}

fn an_op_cancelled_before_it_was_submitted_never_is(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        let mut write = file.write_at(b"abc".to_vec(), 0);
        write.cancel();
        let (result, buf) = write.await;
        assert_eq!((errno(result), &buf[..]), (libc::ECANCELED, &b"abc"[..]));
        let mut allocate = file.write_vectored_at(vec!["abc"; 3], 0);
        allocate.cancel();
        assert_eq!(errno(allocate.await.0), libc::ECANCELED);
        assert_eq!(file.metadata().await.unwrap().len(), 0);
        let (reader, writer) = pipe();
        writer.write_at("x", 0).await.0.unwrap();
        let mut read = reader.read_at(Vec::with_capacity(10), 0);
        read.cancel();
        assert_eq!(errno(read.await.0), libc::ECANCELED);
        assert_eq!(reader.read_at(Vec::with_capacity(10), 0).await.0.unwrap(), 1);
    });
}

fn an_op_cancelled_in_flight_gives_its_buffer_back(runtime: &Runtime) {
    runtime.block_on(async {
        for waits in [false, true] {
            let (reader, _writer) = pipe();
            let mut read = reader.read_at(b"as it was".to_vec(), 0);
            assert!(poll_once(&mut read).await.is_pending());
            if waits {
                let_others_run().await;
            }
            read.cancel();
            let (result, buf) = read.await;
            assert_eq!((errno(result), &buf[..]), (libc::ECANCELED, &b"as it was"[..]));
        }
        let (socket, _other) = UnixStream::pair().unwrap();
        let mut recv = socket.recv_into(Vec::with_capacity(10));
        assert!(poll_once(&mut recv).await.is_pending());
        let_others_run().await;
        recv.cancel();
        assert_eq!(errno(recv.await.0), libc::ECANCELED);
    });
}

fn an_op_cancelled_after_it_completed_keeps_its_result(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let mut read = reader.read_at(Vec::with_capacity(10), 0);
        assert!(poll_once(&mut read).await.is_pending());
        writer.write_at("hello", 0).await.0.unwrap();
        // The read took the data; nobody has looked at its result yet.
        until("the pipe is empty", || rustix::io::ioctl_fionread(&reader).unwrap() == 0).await;
        let_others_run().await;
        read.cancel();
        let (result, buf) = read.await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &b"hello"[..]));
    });
}

fn a_poll_is_cancelled(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let mut poll = reader.poll(libc::POLLIN);
        let mut other = reader.poll(libc::POLLIN);
        assert!(poll_once(&mut poll).await.is_pending());
        assert!(poll_once(&mut other).await.is_pending());
        let_others_run().await;
        poll.cancel();
        assert_eq!(errno(poll.await), libc::ECANCELED);
        writer.write_at("x", 0).await.0.unwrap();
        assert_eq!(other.await.unwrap(), libc::POLLIN as u32);
    });
}

fn a_timeout_is_cancelled(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let mut unsubmitted = ops::timeout(&driver, Duration::from_secs(3600));
    unsubmitted.cancel();
    assert_eq!(errno(drive(&driver, unsubmitted)), libc::ECANCELED);
    for duration in [Duration::from_secs(3600), Duration::MAX] {
        let mut timeout = ops::timeout(&driver, duration);
        assert!(poll_now(&mut timeout).is_pending());
        driver.turn(false, None, || false).unwrap();
        assert!(poll_now(&mut timeout).is_pending());
        timeout.cancel();
        assert_eq!(errno(drive(&driver, timeout)), libc::ECANCELED);
    }
    let mut dropped = ops::timeout(&driver, Duration::from_secs(3600));
    assert!(poll_now(&mut dropped).is_pending());
    drop(dropped);
    while driver.in_flight_count() > 0 {
        driver.turn(true, None, || false).unwrap();
    }
}

fn a_timeout_ends_by_itself(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let start = now();
    drive(&driver, ops::timeout(&driver, Duration::from_millis(5))).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(5));
    drive(&driver, ops::timeout(&driver, Duration::ZERO)).unwrap();
    // The shortest first, whatever their order.
    let timeouts = [30, 10, 20].map(|milliseconds| {
        let mut timeout = ops::timeout(&driver, Duration::from_millis(milliseconds));
        assert!(poll_now(&mut timeout).is_pending());
        timeout
    });
    let [last, first, second] = timeouts;
    drive(&driver, first).unwrap();
    drive(&driver, second).unwrap();
    assert!(start.elapsed() < Duration::from_secs(10));
    drive(&driver, last).unwrap();
    drive(&driver, ops::nop(&driver)).unwrap();
}

fn cancelling_twice_is_cancelling_once(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        for _ in 0..100 {
            let mut read = reader.read_at(Vec::with_capacity(10), 0);
            assert!(poll_once(&mut read).await.is_pending());
            read.cancel();
            read.cancel();
            yield_now().await;
            read.cancel();
            assert_eq!(errno((&mut read).await.0), libc::ECANCELED);
            // The op's slot is another op's by now, which is to stay in flight.
            let mut other = reader.read_at(Vec::with_capacity(10), 0);
            assert!(poll_once(&mut other).await.is_pending());
            read.cancel();
            drop(read);
            writer.write_at("x", 0).await.0.unwrap();
            assert_eq!(other.await.0.unwrap(), 1);
        }
    });
}

fn a_cancelled_op_wakes_its_task(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, _writer) = pipe();
        let read = Rc::new(RefCell::new(reader.read_at(Vec::with_capacity(10), 0)));
        let task = spawn({
            let read = read.clone();
            std::future::poll_fn(move |cx| Pin::new(&mut *read.borrow_mut()).poll(cx))
        });
        let_others_run().await;
        read.borrow_mut().cancel();
        assert_eq!(errno(task.await.unwrap().0), libc::ECANCELED);
    });
}

fn a_close_happens_even_if_dropped(runtime: &Runtime) {
    runtime.block_on(async {
        for polled in [false, true] {
            let (reader, writer) = pipe();
            {
                let mut close = pin!(writer.close());
                if polled {
                    let _ = poll_once(&mut close).await;
                }
            }
            // Closed: the reader sees the end.
            assert_eq!(reader.read_at(Vec::with_capacity(1), 0).await.0.unwrap(), 0);
        }
    });
}

fn a_future_dropped_before_it_was_polled_does_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let drops = Rc::new(Cell::new(0));
        let file = File::from_std(tempfile::tempfile().unwrap());
        drop(file.write_at(Counted::new(10, &drops), 0));
        assert_eq!(drops.get(), 1, "at once");
        drop(file.read_vectored_at(vec![Counted::new(1, &drops), Counted::new(1, &drops)], 0));
        assert_eq!(drops.get(), 3);
        let_others_run().await;
        assert_eq!(file.metadata().await.unwrap().len(), 0);
    });
}

fn a_buffer_outlives_the_op_of_a_dropped_future(runtime: &Runtime) {
    runtime.block_on(async {
        for waits in [false, true] {
            let drops = Rc::new(Cell::new(0));
            let (reader, writer) = pipe();
            let mut read = reader.read_at(Counted::new(10, &drops), 0);
            assert!(poll_once(&mut read).await.is_pending());
            if waits {
                let_others_run().await;
            }
            drop(read);
            assert_eq!(drops.get(), 0, "the op is in flight: it ends in a turn of the loop");
            until("the buffer is dropped", || drops.get() == 1).await;
            let_others_run().await;
            assert_eq!(drops.get(), 1);
            writer.write_at("x", 0).await.0.unwrap();
            assert_eq!(reader.read_at(Vec::with_capacity(9), 0).await.1, b"x");
        }
    });
}

fn a_buffer_of_a_completed_op_is_dropped_with_its_future(runtime: &Runtime) {
    runtime.block_on(async {
        let drops = Rc::new(Cell::new(0));
        let (reader, writer) = pipe();
        let mut read = reader.read_at(Counted::new(10, &drops), 0);
        assert!(poll_once(&mut read).await.is_pending());
        writer.write_at("hello", 0).await.0.unwrap();
        until("the pipe is empty", || rustix::io::ioctl_fionread(&reader).unwrap() == 0).await;
        let_others_run().await;
        assert_eq!(drops.get(), 0);
        drop(read);
        assert_eq!(drops.get(), 1);
    });
}

fn a_buffer_is_dropped_once_however_its_op_ends(runtime: &Runtime) {
    runtime.block_on(async {
        let drops = Rc::new(Cell::new(0));
        let file = File::from_std(tempfile::tempfile().unwrap());
        let (reader, writer) = pipe();
        let mut made = 0;
        for round in 0..500 {
            // Some complete at once, some when polled again, some when dropped, some not.
            let mut write = file.write_at(Counted::new(100, &drops), round * 100);
            let mut read = file.read_at(Counted::new(100, &drops), round * 50);
            let mut waiting = reader.read_at(Counted::new(1, &drops), 0);
            let bufs = vec![Counted::new(1, &drops), Counted::new(2, &drops)];
            let mut vectored = reader.read_vectored_at(bufs, 0);
            made += 5;
            let _ = poll_once(&mut waiting).await;
            if let Poll::Pending = poll_once(&mut write).await
                && round % 3 == 0
            {
                write.await.0.unwrap();
            }
            let _ = poll_once(&mut vectored).await;
            if let Poll::Pending = poll_once(&mut read).await
                && round % 5 == 0
            {
                read.cancel();
                let _ = read.await;
            }
            if round % 7 == 0 {
                writer.write_at("four", 0).await.0.unwrap();
            }
        }
        until("all are dropped", || drops.get() == made).await;
        let_others_run().await;
        assert_eq!(drops.get(), made);
    });
}

fn thousands_of_reads_are_dropped_at_once(runtime: &Runtime) {
    runtime.block_on(async {
        const COUNT: usize = 5_000;
        let drops = Rc::new(Cell::new(0));
        let (reader, writer) = pipe();
        for waits in [false, true] {
            drops.set(0);
            let mut reads: Vec<_> =
                (0..COUNT).map(|_| reader.read_at(Counted::new(16, &drops), 0)).collect();
            for read in &mut reads {
                assert!(poll_once(read).await.is_pending());
            }
            if waits {
                let_others_run().await;
            }
            drop(reads);
            until("all are dropped", || drops.get() == COUNT).await;
        }
        writer.write_at("x", 0).await.0.unwrap();
        assert_eq!(reader.read_at(Vec::with_capacity(9), 0).await.1, b"x");
    });
}

/// A buffer that starts an op, polls it and drops it when it is dropped itself.
struct Meddling {
    bytes: Box<[u8]>,
    reader: File,
}

impl Drop for Meddling {
    fn drop(&mut self) {
        let mut read = self.reader.read_at(vec![0; 10], 0);
        let _ = poll_now(&mut read);
        read.cancel();
    }
}

// SAFETY: the bytes are on the heap and stay there until the buffer is dropped.
unsafe impl IoBuf for Meddling {
    fn as_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }
}

// SAFETY: as above; all of them are initialised.
unsafe impl IoBufMut for Meddling {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    fn capacity(&self) -> usize {
        self.bytes.len()
    }

    unsafe fn set_filled(&mut self, _len: usize) {}
}

fn buffers_that_start_ops_when_dropped_do_no_harm(runtime: &Runtime) {
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let (reader, _writer) = other.block_on(async {
        let (reader, writer) = pipe();
        for _ in 0..100 {
            let buf = Meddling { bytes: vec![0; 10].into_boxed_slice(), reader: reader.clone() };
            let mut read = reader.read_at(buf, 0);
            assert!(poll_once(&mut read).await.is_pending());
        }
        let_others_run().await;
        // And one for the end of the runtime.
        let task_reader = reader.clone();
        let _task = spawn(async move {
            let bytes = vec![0; 10].into_boxed_slice();
            let buf = Meddling { bytes, reader: task_reader.clone() };
            task_reader.read_at(buf, 0).await.0.unwrap()
        });
        let_others_run().await;
        (reader, writer)
    });
    drop(other);
    drop(reader);
}

pub fn small_queue(engine: Engine) -> Runtime {
    Runtime::builder().engine(engine).queue_entries(8).build().unwrap()
}

/// More ops than any queue of the engine has room for.
const CROWD: usize = 10_000;
const PIPES: usize = 50;

fn more_ops_than_queue_entries_complete(runtime: &Runtime) {
    let small = small_queue(runtime.engine());
    small.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        file.write_all_at(vec![7; CROWD], 0).await.0.unwrap();
        let pipes: Vec<_> = (0..PIPES).map(|_| pipe()).collect();
        let tasks: Vec<_> = (0..CROWD)
            .map(|at| {
                let (file, reader) = (file.clone(), pipes[at % PIPES].0.clone());
                spawn(async move {
                    if at % 2 == 0 {
                        file.read_at(Vec::with_capacity(1), at as u64).await.0.unwrap()
                    } else {
                        reader.read_at(Vec::with_capacity(1), 0).await.0.unwrap()
                    }
                })
            })
            .collect();
        for _ in 0..200 {
            yield_now().await;
        }
        for (at, (_, writer)) in pipes.iter().enumerate() {
            if at % 2 == 1 {
                writer.write_all_at(vec![1; CROWD / PIPES], 0).await.0.unwrap();
            }
        }
        for task in tasks {
            assert_eq!(task.await.unwrap(), 1);
        }
    });
    assert_eq!(small.stats().in_flight_count, 0);
}

fn more_ops_than_queue_entries_are_cancelled(runtime: &Runtime) {
    let small = small_queue(runtime.engine());
    small.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        file.write_all_at(vec![7; CROWD], 0).await.0.unwrap();
        let (reader, _writer) = pipe();
        let mut reads: Vec<_> =
            (0..CROWD).map(|_| reader.read_at(Vec::with_capacity(1), 0)).collect();
        for read in &mut reads {
            assert!(poll_once(read).await.is_pending());
        }
        reads.iter_mut().for_each(|read| read.cancel());
        for read in reads {
            assert_eq!(errno(read.await.0), libc::ECANCELED);
        }
        // Ops that end by themselves: each with one of the two results.
        let mut reads: Vec<_> =
            (0..CROWD).map(|at| file.read_at(Vec::with_capacity(1), at as u64)).collect();
        let mut completed = 0;
        let mut left = Vec::new();
        for mut read in reads.drain(..) {
            match poll_once(&mut read).await {
                Poll::Ready((result, _)) => completed += result.unwrap(),
                Poll::Pending => left.push(read),
            }
        }
        left.iter_mut().for_each(|read| read.cancel());
        for read in left {
            match read.await.0 {
                Ok(count) => completed += count,
                result => {
                    assert_eq!(errno(result), libc::ECANCELED);
                    completed += 1;
                }
            }
        }
        assert_eq!(completed, CROWD);
    });
    assert_eq!(small.stats().in_flight_count, 0);
}

fn more_cancels_than_queue_entries_are_carried_out(runtime: &Runtime) {
    let small = small_queue(runtime.engine());
    let drops = Rc::new(Cell::new(0));
    small.block_on(async {
        let (reader, _writer) = pipe();
        let mut reads: Vec<_> =
            (0..CROWD).map(|_| reader.read_at(Counted::new(1, &drops), 0)).collect();
        for read in &mut reads {
            assert!(poll_once(read).await.is_pending());
        }
        let_others_run().await;
        drop(reads);
        until("all are dropped", || drops.get() == CROWD).await;
    });
    assert_eq!(small.stats().in_flight_count, 0);
}

fn ops_end_with_the_runtime(runtime: &Runtime) {
    let drops = Rc::new(Cell::new(0));
    let started = Rc::new(Cell::new(0));
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let (pipes, file) = other.block_on(async {
        let pipes: Vec<_> = (0..10).map(|_| pipe()).collect();
        let file = File::from_std(tempfile::tempfile().unwrap());
        for at in 0..1_000 {
            let (reader, drops) = (pipes[at % 10].0.clone(), drops.clone());
            let file = file.clone();
            let started = started.clone();
            drop(spawn(async move {
                started.set(started.get() + 1);
                let mut write = file.write_at(Counted::new(4096, &drops), at as u64 * 4096);
                let _ = poll_once(&mut write).await;
                let _ = reader.read_at(Counted::new(16, &drops), 0).await;
            }));
        }
        until("all have started", || started.get() == 1_000).await;
        (pipes, file)
    });
    drop(other);
    assert_eq!(drops.get(), 2_000, "each buffer once");
    drop((pipes, file));
}

fn a_future_that_outlives_its_runtime_is_cancelled(runtime: &Runtime) {
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let drops = Rc::new(Cell::new(0));
    let (reader, _writer) = other.block_on(async { pipe() });
    let mut unpolled = reader.read_at(Counted::new(5, &drops), 0);
    let mut in_flight = reader.read_at(b"as it was".to_vec(), 0);
    let mut never_again = reader.read_at(Counted::new(5, &drops), 0);
    let mut poll = reader.poll(libc::POLLIN);
    other.block_on(async {
        assert!(poll_once(&mut in_flight).await.is_pending());
        assert!(poll_once(&mut never_again).await.is_pending());
        assert!(poll_once(&mut poll).await.is_pending());
        let_others_run().await;
    });
    drop(other);
    let Poll::Ready((result, buf)) = poll_now(&mut in_flight) else { panic!("it is to end") };
    assert_eq!((errno(result), &buf[..]), (libc::ECANCELED, &b"as it was"[..]));
    let Poll::Ready((result, buf)) = poll_now(&mut unpolled) else { panic!("it is to end") };
    assert_eq!((errno(result), drops.get()), (libc::ECANCELED, 0));
    drop(buf);
    let Poll::Ready(result) = poll_now(&mut poll) else { panic!("it is to end") };
    assert_eq!(errno(result), libc::ECANCELED);
    drop(never_again);
    assert_eq!(drops.get(), 2);
    // And one that is cancelled too late for anybody to carry that out.
    let mut late = reader.read_at(Vec::with_capacity(1), 0);
    late.cancel();
    let Poll::Ready((result, _)) = poll_now(&mut late) else { panic!("it is to end") };
    assert_eq!(errno(result), libc::ECANCELED);
}

fn a_file_that_outlives_its_runtime_is_closed(runtime: &Runtime) {
    use std::io::Read;
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let (writer, clone) = other.block_on(async {
        let writer = File::from_fd(writer.into());
        writer.write_at("x", 0).await.0.unwrap();
        (writer.clone(), writer)
    });
    drop(other);
    drop(writer);
    drop(clone);
    let mut all = Vec::new();
    reader.read_to_end(&mut all).unwrap();
    assert_eq!(all, b"x");
}

/// Ops of one kind whose result is there at once, on engines that can tell, as long as the flag
/// is clear. No kind is such a one on every engine, and one on each is.
async fn never_wait(kind: usize, done: Rc<Cell<bool>>) {
    let file = File::open("/dev/zero").await.unwrap();
    let (one, other) = UnixStream::pair().unwrap();
    while !done.get() {
        match kind {
            0 => assert_eq!(file.read_at(Vec::with_capacity(16), 0).await.0.unwrap(), 16),
            1 => {
                assert_eq!(one.send("ping").await.0.unwrap(), 4);
                assert_eq!(other.recv_into(Vec::with_capacity(16)).await.0.unwrap(), 4);
            }
            _ => assert_eq!(file.poll(libc::POLLIN).await.unwrap(), libc::POLLIN as u32),
        }
    }
}

const KINDS: usize = 3;

fn ops_that_never_wait_do_not_starve_others(runtime: &Runtime) {
    runtime.block_on(async {
        for kind in 0..KINDS {
            let done = Rc::new(Cell::new(false));
            let busy = spawn(never_wait(kind, done.clone()));
            let turns = spawn(async {
                for _ in 0..100 {
                    yield_now().await;
                }
            });
            turns.await.unwrap();
            sleep(Duration::from_millis(5)).await;
            assert_eq!(omniring::spawn_blocking(|| 1).await.unwrap(), 1);
            done.set(true);
            busy.await.unwrap();
        }
    });
}

fn ops_that_never_wait_do_not_starve_others_from_the_main_future(runtime: &Runtime) {
    runtime.block_on(async {
        for kind in 0..KINDS {
            let done = Rc::new(Cell::new(false));
            let task = spawn({
                let done = done.clone();
                async move {
                    let (mut reader, writer) = pipe();
                    let late = spawn(async move {
                        sleep(Duration::from_millis(5)).await;
                        writer.write_at("x", 0).await.0.unwrap();
                    });
                    assert_eq!(reader.read(Vec::with_capacity(1)).await.0.unwrap(), 1);
                    late.await.unwrap();
                    done.set(true);
                }
            });
            never_wait(kind, done).await;
            task.await.unwrap();
        }
    });
}

fn opens_dropped_in_flight_leak_no_descriptor(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    runtime.block_on(async {
        fs::write(&path, "x").await.unwrap();
        let before = fd_count();
        for round in 0..500 {
            let options = OpenOptions::new().read(true).write(true).create(round % 2 == 0).clone();
            let mut open = Box::pin(options.open(&path));
            let _ = poll_once(&mut open).await;
            if round % 3 == 0 {
                yield_now().await;
            }
            if round % 7 == 0 {
                let_others_run().await;
            }
        }
        until("every descriptor is closed", || fd_count() == before).await;
    });
}

fn an_open_that_waits_for_its_peer_is_dropped(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let nonblocking = |path: &Path| {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK;
        rustix::fs::open(path, flags, Mode::empty()).unwrap()
    };
    // Only what may have to be made is opened with waiting: see `Op::Open`.
    let options = OpenOptions::new().write(true).create(true).clone();
    if runtime.engine() == Engine::Blocking {
        // This engine opens inline: there is no future to drop while it waits.
        let reader = std::thread::spawn({
            let path = path.clone();
            move || std::fs::read(path).unwrap()
        });
        runtime.block_on(async {
            let writer = options.open(&path).await.unwrap();
            writer.write_at("hello", 0).await.0.unwrap();
        });
        return assert_eq!(reader.join().unwrap(), b"hello");
    }
    runtime.block_on(async {
        fs::metadata(&path).await.unwrap();
        let before = fd_count();
        let mut open = Box::pin(options.open(&path));
        assert!(poll_once(&mut open).await.is_pending());
        let_others_run().await;
        assert!(poll_once(&mut open).await.is_pending(), "nobody reads");
        drop(open);
        let_others_run().await;
        // Whoever still waits inside the call has its peer now.
        drop(nonblocking(&path));
        until("every descriptor is closed", || fd_count() == before).await;
        // Other ops went on meanwhile, and an open whose peer comes succeeds.
        let mut open = Box::pin(options.open(&path));
        assert!(poll_once(&mut open).await.is_pending());
        let_others_run().await;
        let reader = nonblocking(&path);
        let writer = open.await.unwrap();
        writer.write_at("hello", 0).await.0.unwrap();
        let mut buf = [0; 10];
        assert_eq!(rustix::io::read(&reader, &mut buf).unwrap(), 5);
    });
}

fn everything_dropped_leaves_no_descriptor(runtime: &Runtime) {
    let before = fd_count();
    for _ in 0..5 {
        let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
        other.block_on(async {
            for _ in 0..20 {
                let (mut reader, writer) = pipe();
                drop(spawn(async move { reader.read(Vec::with_capacity(1)).await.0 }));
                drop(spawn(async move { writer.poll(libc::POLLERR).await }));
                let (one, other) = UnixStream::pair().unwrap();
                drop(spawn(async move { one.recv_into(Vec::with_capacity(1)).await.0 }));
                drop(spawn(async move { other.recv_into(Vec::with_capacity(1)).await.0 }));
                drop(spawn(async move { File::open("/dev/null").await }));
            }
            for _ in 0..5 {
                yield_now().await;
            }
        });
    }
    assert_eq!(fd_count(), before);
}
