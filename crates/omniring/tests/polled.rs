//! `uring-iopoll` on a device without polled queues: refused by the device's name, or used by
//! interrupts where that is allowed. (`tests/qemu/run.sh` has a device with them.)

use std::os::unix::fs::MetadataExt;

use omniring::buf::AlignedBuf;
use omniring::fs::{File, OpenOptions};
use omniring::{Engine, Runtime};

/// A file on a device without polled queues, and the device's numbers; `None`, said aloud, if there
/// is none here.
fn unpolled_file() -> Option<(tempfile::NamedTempFile, String)> {
    let skip = |reason: &str| {
        let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
        assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {reason}");
        eprintln!("skipped: {reason}");
    };
    let file = tempfile::NamedTempFile::new().unwrap();
    let device = file.as_file().metadata().unwrap().dev();
    let numbers = format!("{}:{}", libc::major(device), libc::minor(device));
    let polled = ["queue/io_poll", "../queue/io_poll"].iter().any(|queue| {
        let path = format!("/sys/dev/block/{numbers}/{queue}");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
    });
    if polled {
        skip("the device of the temporary directory has polled queues");
        return None;
    }
    let runtime = Runtime::builder().engine(Engine::Uring).build();
    let opened = runtime.map(|runtime| {
        let mut options = OpenOptions::new();
        runtime.block_on(options.read(true).direct(true).open(file.path())).is_ok()
    });
    if !matches!(opened, Ok(true)) {
        skip("no io_uring, or no O_DIRECT in the temporary directory");
        return None;
    }
    Some((file, numbers))
}

#[test]
fn a_device_without_polled_queues_is_refused_by_name() {
    let Some((path, numbers)) = unpolled_file() else { return };
    let runtime = Runtime::builder().engine(Engine::UringIopoll).build().unwrap();
    runtime.block_on(async {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).direct(true);
        let error = options.open(path.path()).await.expect_err("it cannot be polled");
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
        let text = error.to_string();
        assert!(text.contains(&numbers), "{text}");
        // What was opened elsewhere is refused as it is used.
        use std::os::unix::fs::OpenOptionsExt;
        let mut elsewhere = std::fs::OpenOptions::new();
        let elsewhere = elsewhere.read(true).custom_flags(libc::O_DIRECT).open(path.path());
        let file = File::from_std(elsewhere.unwrap());
        let (result, _) = file.read_at(AlignedBuf::new(4096, 4096), 0).await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        // Through the page cache all is as ever; also on the number that the file had.
        drop(file);
        let file = File::open(path.path()).await.unwrap();
        assert_eq!(file.read_at(vec![0; 10], 0).await.0.unwrap(), 0);
    });
}

#[test]
fn a_device_without_polled_queues_is_used_by_interrupts_where_allowed() {
    let Some((path, _)) = unpolled_file() else { return };
    let builder = Runtime::builder().engine(Engine::UringIopoll);
    let runtime = builder.allow_unpolled(true).build().unwrap();
    runtime.block_on(async {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).direct(true);
        let file = options.open(path.path()).await.unwrap();
        let mut buf = AlignedBuf::new(4096, 4096);
        buf.fill(7);
        let (result, mut buf) = file.write_at(buf, 0).await;
        assert_eq!(result.unwrap(), 4096);
        buf.fill(0);
        let (result, buf) = file.read_at(buf, 0).await;
        assert_eq!(result.unwrap(), 4096);
        assert!(buf.iter().all(|&byte| byte == 7));
    });
}
