//! Writes that are durable when they complete.

use std::cell::Cell;
use std::rc::Rc;

use omniring::Runtime;
use omniring::buf::IoBuf;
use omniring::fs::{self, File, OpenOptions};
use omniring_driver::op::Position;
use omniring_driver::ops::write_synced;
use omniring_driver::{Driver, SharedHandle};

use crate::cancel::{Counted, small_queue, until};
use crate::harness::{conformance, drive, errno, new_driver};
use crate::loopback::poll_once;
use crate::pipes::{let_others_run, pipe};

conformance!(
    a_durable_write_writes_all,
    a_durable_write_appends,
    a_durable_write_needs_a_file_opened_for_writing,
    a_durable_write_fails_where_nothing_is_durable,
    a_short_write_is_not_synced,
    a_durable_write_goes_on_after_a_short_write,
    durable_writes_share_a_small_queue_with_others,
    durable_writes_dropped_free_each_buffer_once,
    durable_writes_end_with_their_runtime;
    isolated:
    a_durable_write_that_finds_no_room_is_an_error,
);

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn a_durable_write_writes_all(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    runtime.block_on(async {
        let file = File::create(&path).await.unwrap();
        let (result, buf) = file.write_durable_at(pattern(3 << 20), 7).await;
        result.unwrap();
        assert!(fs::read(&path).await.unwrap()[7..] == buf[..]);
        let (result, _) = file.write_durable_at("", 1 << 30).await;
        result.unwrap();
        assert_eq!(file.metadata().await.unwrap().len(), (3 << 20) + 7);
        file.write_durable_at("first", 0).await.0.unwrap();
        assert!(fs::read(&path).await.unwrap().starts_with(b"first"));
    });
    assert_eq!(runtime.stats().in_flight_count, 0);
}

fn a_durable_write_appends(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    runtime.block_on(async {
        let file = OpenOptions::new().append(true).create(true).open(&path).await.unwrap();
        file.write_durable_at("one,", 0).await.0.unwrap();
        file.write_durable_at("two,", 0).await.0.unwrap();
        file.write_durable_at("three", 100).await.0.unwrap();
        assert_eq!(fs::read(&path).await.unwrap(), b"one,two,three");
    });
}

fn a_durable_write_needs_a_file_opened_for_writing(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, "contents").unwrap();
    runtime.block_on(async {
        let file = File::open(&path).await.unwrap();
        for what in ["x", ""] {
            let (result, buf) = file.write_durable_at(what, 0).await;
            assert_eq!((errno(result), buf), (libc::EBADF, what));
        }
        let file = OpenOptions::new().write(true).open(&path).await.unwrap();
        assert_eq!(errno(file.write_durable_at("x", u64::MAX).await.0), libc::EINVAL);
    });
    assert_eq!(std::fs::read(&path).unwrap(), b"contents");
}

fn a_durable_write_fails_where_nothing_is_durable(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, writer) = pipe();
        let (result, buf) = writer.write_durable_at("hello", 0).await;
        assert_eq!((errno(result), buf), (libc::EINVAL, "hello"), "no sync of a pipe");
        assert_eq!(reader.read_at(Vec::with_capacity(10), 0).await.0.unwrap(), 5);
        drop(reader);
        assert_eq!(errno(writer.write_durable_at("hello", 0).await.0), libc::EPIPE);
    });
}

/// Two pages of 7s, of which the second cannot be read until the address was asked for again.
struct HalfThere {
    start: *mut u8,
    asked_count: Cell<usize>,
}

const PAGE: usize = 4096;

impl HalfThere {
    fn new() -> HalfThere {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a fresh mapping of two pages, filled while both are there.
        let start = unsafe {
            let start = libc::mmap(std::ptr::null_mut(), 2 * PAGE, protection, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            start.cast::<u8>().write_bytes(7, 2 * PAGE);
            assert_eq!(libc::mprotect(start.byte_add(PAGE), PAGE, libc::PROT_NONE), 0);
            start.cast()
        };
        HalfThere { start, asked_count: Cell::new(0) }
    }
}

impl Drop for HalfThere {
    fn drop(&mut self) {
        // SAFETY: mapped in `new`.
        unsafe { libc::munmap(self.start.cast(), 2 * PAGE) };
    }
}

// SAFETY: the memory stays where it is. That the second page is not always there concerns only
// the kernel, which stops before it: nothing here reads the bytes.
unsafe impl IoBuf for HalfThere {
    fn as_ptr(&self) -> *const u8 {
        if self.asked_count.replace(self.asked_count.get() + 1) > 0 {
            let second = self.start.wrapping_add(PAGE);
            // SAFETY: the page was mapped in `new`.
            assert_eq!(unsafe { libc::mprotect(second.cast(), PAGE, libc::PROT_READ) }, 0);
        }
        self.start
    }

    fn len(&self) -> usize {
        2 * PAGE
    }
}

fn temporary_handle(driver: &std::rc::Rc<Driver>) -> SharedHandle {
    SharedHandle::adopt(driver, tempfile::tempfile().unwrap().into())
}

fn a_short_write_is_not_synced(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let handle = temporary_handle(&driver);
    let write = write_synced(&handle, HalfThere::new(), Position::At(0));
    let (result, synced, _) = drive(&driver, write);
    assert_eq!(result.unwrap(), PAGE);
    assert!(synced.is_none(), "not to be reported: {synced:?}");
    let write = write_synced(&handle, "whole", Position::At(0));
    let (result, synced, _) = drive(&driver, write);
    assert_eq!(result.unwrap(), 5);
    synced.expect("carried out").unwrap();
    let bad = SharedHandle::adopt(&driver, std::fs::File::open("/dev/null").unwrap().into());
    let (result, synced, _) = drive(&driver, write_synced(&bad, "x", Position::At(0)));
    assert_eq!(errno(result), libc::EBADF);
    assert!(synced.is_none());
    assert_eq!(driver.in_flight_count(), 0);
}

fn a_durable_write_goes_on_after_a_short_write(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        let (result, buf) = file.write_durable_at(HalfThere::new(), 10).await;
        result.unwrap();
        assert_eq!(buf.asked_count.get(), 2, "it took two writes");
        let (result, all) = file.read_at(Vec::with_capacity(3 * PAGE), 0).await;
        assert_eq!(result.unwrap(), 10 + 2 * PAGE);
        assert!(all[10..].iter().all(|&byte| byte == 7));
    });
}

fn durable_writes_share_a_small_queue_with_others(runtime: &Runtime) {
    const COUNT: usize = 300;
    for entries in [1, 2, 8] {
        let builder = Runtime::builder().engine(runtime.engine()).queue_entries(entries);
        let small = builder.build().unwrap();
        small.block_on(async {
            let file = File::from_std(tempfile::tempfile().unwrap());
            let tasks: Vec<_> = (0..COUNT)
                .map(|at| {
                    let file = file.clone();
                    omniring::spawn(async move {
                        let _ = file.read_at(Vec::with_capacity(1), 0).await;
                        let (result, _) =
                            file.write_durable_at(vec![at as u8; 10], 10 * at as u64).await;
                        result.unwrap();
                        if at % 3 == 0 {
                            let mut dropped = Box::pin(file.write_durable_at("", 0));
                            let _ = poll_once(&mut dropped).await;
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.unwrap();
            }
            let (result, all) = file.read_at(Vec::with_capacity(10 * COUNT), 0).await;
            assert_eq!(result.unwrap(), 10 * COUNT);
            assert!(all.chunks(10).enumerate().all(|(at, chunk)| chunk == [at as u8; 10]));
            until("all have ended", || small.stats().in_flight_count == 0).await;
        });
    }
}

fn durable_writes_dropped_free_each_buffer_once(runtime: &Runtime) {
    let small = small_queue(runtime.engine());
    let drops = Rc::new(Cell::new(0));
    small.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        for round in 0..20 {
            let mut writes: Vec<_> = (0..50)
                .map(|at| Box::pin(file.write_durable_at(Counted::new(64, &drops), 64 * at)))
                .collect();
            for (at, write) in writes.iter_mut().enumerate() {
                if at % 5 != 4 {
                    let _ = poll_once(write).await;
                }
            }
            if round % 2 == 0 {
                let_others_run().await;
            }
            drop(writes);
            until("each buffer is dropped", || drops.get() == 50).await;
            drops.set(0);
        }
        // One that waits for its peer.
        let (_reader, writer) = pipe();
        writer.write_at(vec![7; 1 << 16], 0).await.0.unwrap();
        let mut write = Box::pin(writer.write_durable_at(Counted::new(64, &drops), 0));
        assert!(poll_once(&mut write).await.is_pending());
        let_others_run().await;
        drop(write);
        until("the buffer is dropped", || drops.get() == 1).await;
        until("both have ended", || small.stats().in_flight_count == 0).await;
    });
}

fn durable_writes_end_with_their_runtime(runtime: &Runtime) {
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let (_reader, writer) = other.block_on(async { pipe() });
    let mut write = Box::pin(writer.write_durable_at(vec![7; 1 << 20], 0));
    other.block_on(async {
        // Part of it is taken, so that it goes on after a short write.
        while poll_once(&mut write).await.is_pending() && other.stats().in_flight_count == 0 {}
        let_others_run().await;
    });
    drop(other);
    let (result, buf) = runtime.block_on(write);
    assert_eq!((errno(result), buf.len()), (libc::ECANCELED, 1 << 20));
}

fn a_durable_write_that_finds_no_room_is_an_error(runtime: &Runtime) {
    // SAFETY: the signal is to be ignored, and the limit is a local. The process is this case's.
    unsafe {
        libc::signal(libc::SIGXFSZ, libc::SIG_IGN);
        let limit = libc::rlimit { rlim_cur: 5_000, rlim_max: libc::RLIM_INFINITY };
        assert_eq!(libc::setrlimit(libc::RLIMIT_FSIZE, &raw const limit), 0);
    }
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        let (result, buf) = file.write_durable_at(pattern(10_000), 0).await;
        assert_eq!((errno(result), buf.len()), (libc::EFBIG, 10_000));
        assert_eq!(file.metadata().await.unwrap().len(), 5_000, "what there was room for");
        file.write_durable_at(pattern(5_000), 0).await.0.unwrap();
    });
}
