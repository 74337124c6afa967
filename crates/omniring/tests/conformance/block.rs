//! Block devices, and files used as such.

use std::cell::Cell;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use omniring::Runtime;
use omniring::block::{BlockDevice, Options};
use omniring::buf::{AlignedBuf, IoBuf, IoBufExt, IoBufMut};
use omniring_driver::SharedHandle;
use omniring_driver::ops::{SplitLimits, discard, read_split, write_split};

use crate::cancel::until;
use crate::harness::{conformance, drive, errno, new_driver, skip};
use crate::loopback::poll_once;
use crate::pipes::let_others_run;

conformance!(
    a_file_is_a_device,
    what_was_written_is_read_whatever_the_split,
    a_read_ends_with_the_device,
    a_device_does_not_grow,
    what_is_not_aligned_is_refused_with_what_is_needed,
    a_file_reads_as_zeros_where_it_was_discarded,
    zeros_are_written,
    a_device_opened_for_reading_is_not_written,
    what_is_no_device_is_refused,
    what_refuses_direct_io_is_buffered_only_if_allowed,
    a_loop_device_is_a_device,
    a_partial_sector_at_the_end_is_read,
    split_requests_dropped_free_their_buffer_once,
    a_split_request_needs_nothing_to_move_nothing,
    a_discard_is_for_devices;
    isolated:
    the_first_sector_that_fails_is_found,
);

const LEN: usize = 1 << 20;

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A file of 1 MiB, opened as a device that takes so many bytes at a time. `None`, said aloud, if
/// it cannot be opened past the page cache.
async fn device(dir: &Path, request_len_max: usize) -> Option<BlockDevice> {
    let path = dir.join("device");
    std::fs::write(&path, pattern(LEN)).unwrap();
    match Options::new().request_len_max(request_len_max).open(&path).await {
        Ok(device) => Some(device),
        Err(error) => {
            assert!(error.to_string().contains("O_DIRECT"), "{error}");
            skip(&error.to_string());
            None
        }
    }
}

/// Runs a case with such a device.
fn with_device(runtime: &Runtime, request_len_max: usize, case: impl AsyncFnOnce(BlockDevice)) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        if let Some(device) = device(dir.path(), request_len_max).await {
            case(device).await;
        }
    });
    assert_eq!(runtime.stats().in_flight_count, 0);
}

fn a_file_is_a_device(runtime: &Runtime) {
    with_device(runtime, usize::MAX, async |device| {
        let geometry = *device.geometry();
        assert_eq!(geometry.len, LEN as u64);
        assert!(geometry.logical_sector_len.is_power_of_two(), "{geometry:?}");
        assert!(geometry.memory_align.is_power_of_two(), "{geometry:?}");
        assert!(geometry.physical_sector_len >= geometry.logical_sector_len, "{geometry:?}");
        assert_eq!(geometry.request_len_max % geometry.logical_sector_len as usize, 0);
        assert!(geometry.request_len_max >= 4096, "{geometry:?}");
        assert!(device.is_direct() && !device.is_device());
        let mut buf = device.aligned_buf(100_000);
        assert!(buf.len() >= 100_000);
        buf.fill(7);
        let (result, buf) = device.write_at(buf, 8192).await;
        result.unwrap();
        device.flush().await.unwrap();
        let (result, read) = device.read_at(device.aligned_buf(buf.len()), 8192).await;
        assert_eq!(result.unwrap(), buf.len());
        assert!(read[..] == buf[..]);
        device.close().await.unwrap();
    });
}

fn what_was_written_is_read_whatever_the_split(runtime: &Runtime) {
    for request_len_max in [1, 4096, 10_000, 300_000] {
        with_device(runtime, request_len_max, async |device| {
            let sector_len = device.geometry().logical_sector_len as usize;
            assert!(device.geometry().request_len_max <= request_len_max.max(sector_len));
            let mut expected = pattern(LEN);
            for (offset, len) in [(0, LEN), (4096, 8192), (8192, 500 * 1024), (LEN - 4096, 4096)] {
                let (result, read) = device.read_at(device.aligned_buf(len), offset as u64).await;
                assert_eq!(result.unwrap(), len);
                assert!(read[..] == expected[offset..][..len], "{len} at {offset}");
                let mut buf = read;
                buf.iter_mut().for_each(|byte| *byte = !*byte);
                expected[offset..][..len].copy_from_slice(&buf);
                device.write_at(buf, offset as u64).await.0.unwrap();
            }
            let (result, read) = device.read_at(device.aligned_buf(LEN), 0).await;
            assert_eq!(result.unwrap(), LEN);
            assert!(read[..] == expected[..]);
        });
    }
}

fn a_read_ends_with_the_device(runtime: &Runtime) {
    for request_len_max in [8192, usize::MAX] {
        with_device(runtime, request_len_max, async |device| {
            for (offset, expected) in
                [(LEN - 64 * 1024, 64 * 1024), (LEN - 4096, 4096), (LEN, 0), (2 * LEN, 0)]
            {
                let buf = device.aligned_buf(100 * 1024);
                let (result, read) = device.read_at(buf, offset as u64).await;
                assert_eq!(result.unwrap(), expected, "at {offset}");
                assert!(read[..expected] == pattern(LEN)[offset.min(LEN)..][..expected]);
            }
            // A Vec takes the bytes read as its length.
            let sector_len = device.geometry().logical_sector_len as usize;
            let aligned = |buf: &mut Vec<u8>| {
                let memory_align = device.geometry().memory_align as usize;
                buf.as_mut_ptr().addr().is_multiple_of(memory_align)
                    && buf.capacity().is_multiple_of(sector_len)
            };
            let mut buf = Vec::with_capacity(1 << 19);
            if aligned(&mut buf) {
                let (result, read) = device.read_at(buf, (LEN - 4096) as u64).await;
                assert_eq!((result.unwrap(), read.len()), (4096, 4096));
            }
        });
    }
}

fn a_device_does_not_grow(runtime: &Runtime) {
    with_device(runtime, usize::MAX, async |device| {
        for offset in [LEN as u64, (LEN - 4096) as u64, 1 << 40, u64::MAX - 4095] {
            let error = device.write_at(device.aligned_buf(8192), offset).await.0.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains("1048576 bytes"), "{error}");
            assert_eq!(error.offset(), offset);
            assert!(device.discard(offset, 8192).await.is_err());
            assert!(device.write_zeros(offset, 8192).await.is_err());
        }
        assert_eq!(device.file().metadata().await.unwrap().len(), LEN as u64);
        let (result, read) = device.read_at(device.aligned_buf(LEN), 0).await;
        assert_eq!(result.unwrap(), LEN);
        assert!(read[..] == pattern(LEN), "nothing was written");
    });
}

fn what_is_not_aligned_is_refused_with_what_is_needed(runtime: &Runtime) {
    with_device(runtime, 16 * 1024, async |device| {
        let sector_len = device.geometry().logical_sector_len;
        let needed = format!("multiples of {sector_len} bytes");
        let sector = device.aligned_buf(1);
        let (result, sector) = device.read_at(sector, 1).await;
        let error = result.unwrap_err();
        assert!(error.to_string().contains(&needed), "{error}");
        assert!(error.to_string().contains("at offset 1"), "{error}");
        assert_eq!((error.offset(), error.raw_os_error()), (1, None));
        let (result, part) = device.write_at(sector.slice(..10), 0).await;
        assert!(result.unwrap_err().to_string().contains("write of 10 bytes"));
        let (result, _) = device.read_at(AlignedBuf::new(100_001, 4096), 0).await;
        assert!(result.unwrap_err().to_string().contains(&needed));
        drop(part);
        if device.geometry().memory_align > 1 {
            let buf = AlignedBuf::new(2 * sector_len as usize, 4096).slice(1..);
            let (result, _) =
                device.read_at(buf.into_inner().slice(1..=sector_len as usize), 0).await;
            let error = result.unwrap_err().to_string();
            assert!(error.contains("address"), "{error}");
            assert!(error.contains(&format!("of {} bytes", device.geometry().memory_align)));
        }
        for error in [device.discard(1, 4096).await, device.write_zeros(0, 1).await] {
            assert!(error.unwrap_err().to_string().contains(&needed));
        }
    });
}

fn a_file_reads_as_zeros_where_it_was_discarded(runtime: &Runtime) {
    with_device(runtime, 64 * 1024, async |device| {
        let before = device.file().metadata().await.unwrap().allocated_len();
        match device.discard(4096, 512 * 1024).await {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return skip("the file system of the temporary directory punches no holes");
            }
            result => result.unwrap(),
        }
        let mut expected = pattern(LEN);
        expected[4096..4096 + 512 * 1024].fill(0);
        let (result, read) = device.read_at(device.aligned_buf(LEN), 0).await;
        assert_eq!(result.unwrap(), LEN);
        assert!(read[..] == expected[..]);
        let metadata = device.file().metadata().await.unwrap();
        assert!(metadata.allocated_len() + 256 * 1024 < before, "room was given back");
        assert_eq!(metadata.len(), LEN as u64);
        device.discard(0, 0).await.unwrap();
    });
}

fn zeros_are_written(runtime: &Runtime) {
    with_device(runtime, 64 * 1024, async |device| {
        match device.write_zeros(8192, 100 * 4096).await {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return skip("the file system of the temporary directory zeroes no ranges");
            }
            result => result.unwrap(),
        }
        let mut expected = pattern(LEN);
        expected[8192..8192 + 100 * 4096].fill(0);
        let (result, read) = device.read_at(device.aligned_buf(LEN), 0).await;
        assert_eq!(result.unwrap(), LEN);
        assert!(read[..] == expected[..]);
        device.write_zeros(0, 0).await.unwrap();
    });
}

fn a_device_opened_for_reading_is_not_written(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        if device(dir.path(), 4096).await.is_none() {
            return;
        }
        let path = dir.path().join("device");
        let device =
            Options::new().read_only(true).request_len_max(4096).open(&path).await.unwrap();
        let (result, _) = device.read_at(device.aligned_buf(64 * 1024), 0).await;
        assert_eq!(result.unwrap(), 64 * 1024);
        for len in [4096, 64 * 1024] {
            let error = device.write_at(device.aligned_buf(len), 4096).await.0.unwrap_err();
            assert_eq!((error.raw_os_error(), error.offset()), (Some(libc::EBADF), 4096));
        }
        assert_eq!(device.discard(0, 4096).await.unwrap_err().raw_os_error(), Some(libc::EBADF));
        assert_eq!(std::io::Error::from(error_of(&device).await).raw_os_error(), Some(libc::EBADF));
    });
}

async fn error_of(device: &BlockDevice) -> omniring::block::Error {
    device.write_at(device.aligned_buf(4096), 0).await.0.unwrap_err()
}

fn what_is_no_device_is_refused(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let error = BlockDevice::open("/dev/null").await.unwrap_err().to_string();
        assert!(error.starts_with("/dev/null: "), "{error}");
        let missing = dir.path().join("missing");
        let error = BlockDevice::open(&missing).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert!(error.to_string().contains("missing"), "{error}");
        let error = Options::new().read_only(true).open(dir.path()).await.unwrap_err();
        assert!(error.to_string().contains("neither"), "{error}");
    });
}

fn what_refuses_direct_io_is_buffered_only_if_allowed(runtime: &Runtime) {
    runtime.block_on(async {
        let path = "/proc/self/status";
        let mut options = Options::new();
        options.read_only(true);
        let error = options.open(path).await.unwrap_err().to_string();
        assert!(error.contains(path) && error.contains("buffered_if_refused"), "{error}");
        let device = options.buffered_if_refused(true).open(path).await.unwrap();
        assert!(!device.is_direct());
        let (result, read) = device.read_at(device.aligned_buf(8192).slice(..), 0).await;
        assert!(result.unwrap() > 10);
        assert!(read.as_bytes().starts_with(b"Name:"));
    });
}

/// A loop device, detached when dropped.
struct Loop(PathBuf);

impl Loop {
    fn attach(backing: &Path, sector_len: u32) -> Result<Loop, String> {
        let attach = || {
            let mut command = Command::new("losetup");
            command.args(["--find", "--show", "--sector-size", &sector_len.to_string()]);
            command.arg(backing).output()
        };
        // Others may be faster to take the device that was found free.
        let mut reason = String::new();
        for _ in 0..20 {
            let output = attach().map_err(|error| format!("losetup: {error}"))?;
            if output.status.success() {
                return Ok(Loop(String::from_utf8(output.stdout).unwrap().trim().into()));
            }
            reason = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            if !reason.contains("busy") {
                break;
            }
        }
        Err(reason)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let status = Command::new("losetup").arg("--detach").arg(&self.0).status();
        assert!(status.is_ok_and(|status| status.success()), "{} stays", self.0.display());
    }
}

fn a_loop_device_is_a_device(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let backing = dir.path().join("backing");
    for sector_len in [512, 4096] {
        std::fs::write(&backing, pattern(LEN)).unwrap();
        let attached = match Loop::attach(&backing, sector_len) {
            Ok(attached) => attached,
            Err(reason) => return skip(&format!("no loop device: {reason}")),
        };
        runtime.block_on(async {
            let device = Options::new().request_len_max(64 * 1024).open(&attached.0).await.unwrap();
            let geometry = *device.geometry();
            assert!(device.is_device() && device.is_direct());
            assert_eq!((geometry.len, geometry.logical_sector_len), (LEN as u64, sector_len));
            assert!(geometry.physical_sector_len >= sector_len);
            let mut expected = pattern(LEN);
            let (result, mut buf) = device.read_at(device.aligned_buf(2 * LEN), 0).await;
            assert_eq!(result.unwrap(), LEN, "it ends there");
            assert!(buf[..LEN] == expected[..]);
            buf.fill(7);
            expected[8192..8192 + 300 * 1024].fill(7);
            device.write_at(buf.slice(..300 * 1024), 8192).await.0.unwrap();
            device.flush().await.unwrap();
            let error = device.write_at(device.aligned_buf(4096), LEN as u64).await.0.unwrap_err();
            assert!(error.to_string().contains("ends past"), "{error}");
            let error = device.read_at(device.aligned_buf(4096), 100).await.0.unwrap_err();
            assert!(error.to_string().contains(&format!("multiples of {sector_len}")), "{error}");
            match geometry.discard {
                None => skip("the loop device does not discard"),
                Some(discard) => {
                    assert!(discard.granularity >= u64::from(sector_len));
                    device.discard(64 * 1024, 128 * 1024).await.unwrap();
                    // A loop device punches a hole in its file.
                    expected[64 * 1024..192 * 1024].fill(0);
                }
            }
            device.write_zeros(512 * 1024, 64 * 1024).await.unwrap();
            expected[512 * 1024..576 * 1024].fill(0);
            let (result, read) = device.read_at(device.aligned_buf(LEN), 0).await;
            assert_eq!(result.unwrap(), LEN);
            assert!(read[..] == expected[..]);
            device.flush().await.unwrap();
            device.close().await.unwrap();
            assert!(std::fs::read(&backing).unwrap() == expected);
            // Its number is in its metadata.
            let rdev = std::fs::metadata(&attached.0).unwrap().rdev();
            let (major, minor) =
                omniring::fs::metadata(&attached.0).await.unwrap().special_device();
            assert_eq!((libc::major(rdev), libc::minor(rdev)), (major, minor));
        });
    }
}

fn a_partial_sector_at_the_end_is_read(runtime: &Runtime) {
    with_device(runtime, 4096, async |device| {
        device.file().set_len(20_000).await.unwrap();
        let (result, read) = device.read_at(device.aligned_buf(64 * 1024), 4096).await;
        assert_eq!(result.unwrap(), 20_000 - 4096);
        assert!(read[..20_000 - 4096] == pattern(LEN)[4096..20_000]);
    });
}

/// Aligned memory that counts how often it is dropped.
struct Counted {
    memory: AlignedBuf,
    drops: Rc<Cell<usize>>,
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.drops.set(self.drops.get() + 1);
    }
}

// SAFETY: as for the memory.
unsafe impl IoBuf for Counted {
    fn as_ptr(&self) -> *const u8 {
        IoBuf::as_ptr(&self.memory)
    }

    fn len(&self) -> usize {
        self.memory.len()
    }
}

// SAFETY: as above; all of it is initialised.
unsafe impl IoBufMut for Counted {
    fn as_mut_ptr(&mut self) -> *mut u8 {
        IoBufMut::as_mut_ptr(&mut self.memory)
    }

    fn capacity(&self) -> usize {
        self.memory.len()
    }

    unsafe fn set_filled(&mut self, _len: usize) {}
}

fn split_requests_dropped_free_their_buffer_once(runtime: &Runtime) {
    with_device(runtime, 4096, async |device| {
        let drops = Rc::new(Cell::new(0));
        for round in 0..20 {
            let (memory, drops) = (device.aligned_buf(256 * 1024), drops.clone());
            let buf = Counted { memory, drops };
            let mut read = Box::pin(async {
                if round % 2 == 0 {
                    drop(device.read_at(buf, 0).await);
                } else {
                    drop(device.write_at(buf, 0).await);
                }
            });
            for _ in 0..round % 3 {
                if poll_once(&mut read).await.is_ready() {
                    break;
                }
            }
            if round % 5 == 0 {
                let_others_run().await;
            }
        }
        until("each buffer is dropped", || drops.get() == 20).await;
        until("all have ended", || runtime.stats().in_flight_count == 0).await;
    });
}

fn a_split_request_needs_nothing_to_move_nothing(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let handle = SharedHandle::adopt(&driver, tempfile::tempfile().unwrap().into());
    let limits = SplitLimits { part_len: 1024, align: 512 };
    let (result, _) = drive(&driver, read_split(&handle, Vec::new(), 0, limits));
    assert_eq!(result.unwrap(), 0);
    let (result, _) = drive(&driver, write_split(&handle, "", 1 << 20, limits));
    assert_eq!(result.unwrap(), 0);
    let (result, read) = drive(&driver, read_split(&handle, vec![7; 10_000], 0, limits));
    assert_eq!((result.unwrap(), read.len()), (0, 0), "an empty file");
    drop(read_split(&handle, vec![7; 10_000], 0, limits));
    let bad = SharedHandle::adopt(&driver, std::fs::File::open("/dev/null").unwrap().into());
    let (result, _) = drive(&driver, write_split(&bad, "", 5, limits));
    let (offset, error) = result.unwrap_err();
    assert_eq!((offset, error.raw_os_error()), (5, Some(libc::EBADF)));
    assert_eq!(driver.in_flight_count(), 0);
}

fn a_discard_is_for_devices(runtime: &Runtime) {
    let driver = new_driver(runtime);
    let file = SharedHandle::adopt(&driver, tempfile::tempfile().unwrap().into());
    assert_eq!(errno(drive(&driver, discard(&file, 0, 4096))), libc::ENOTTY);
}

fn the_first_sector_that_fails_is_found(runtime: &Runtime) {
    const PAGE: usize = 4096;
    const PAGES: usize = 200;
    // A process's memory as a device: pages that are not mapped are bad sectors.
    for bad in [vec![], vec![0], vec![1], vec![70, 40, 199], vec![199], vec![16, 17]] {
        // SAFETY: a fresh mapping, of which some pages go; nothing refers to it.
        let start = unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let start = libc::mmap(std::ptr::null_mut(), PAGES * PAGE, protection, flags, -1, 0);
            assert_ne!(start, libc::MAP_FAILED);
            std::slice::from_raw_parts_mut(start.cast::<u8>(), PAGES * PAGE).fill(7);
            for &page in &bad {
                // Not to be taken by another mapping, and not to be read.
                let no_file = libc::mmap(
                    start.byte_add(page * PAGE),
                    PAGE,
                    libc::PROT_READ,
                    libc::MAP_SHARED | libc::MAP_FIXED,
                    std::os::fd::AsRawFd::as_raw_fd(&tempfile::tempfile().unwrap()),
                    0,
                );
                assert_ne!(no_file, libc::MAP_FAILED);
            }
            start as u64
        };
        let driver = new_driver(runtime);
        let memory = std::fs::File::options().read(true).write(true).open("/proc/self/mem");
        let handle = SharedHandle::adopt(&driver, memory.unwrap().into());
        for part_len in [PAGE, 5 * PAGE, 64 * PAGE, PAGES * PAGE] {
            let limits = SplitLimits { part_len, align: 512 };
            let first = bad.iter().min();
            let read = read_split(&handle, vec![0; PAGES * PAGE], start, limits);
            let write = write_split(&handle, vec![9; PAGES * PAGE], start, limits);
            let (read, buf) = drive(&driver, read);
            let (written, _) = drive(&driver, write);
            for result in [read, written] {
                match first {
                    None => assert_eq!(result.unwrap(), PAGES * PAGE),
                    Some(&first) => {
                        let (offset, error) = result.unwrap_err();
                        assert_eq!(error.raw_os_error(), Some(libc::EIO));
                        assert_eq!(offset - start, (first * PAGE) as u64, "in parts of {part_len}");
                    }
                }
            }
            let good = first.map_or(PAGES, |&first| first) * PAGE;
            assert!(buf[..good].iter().all(|&byte| byte == 7 || byte == 9));
        }
        // SAFETY: mapped above, and nothing refers to it.
        unsafe { libc::munmap(start as *mut libc::c_void, PAGES * PAGE) };
    }
}
