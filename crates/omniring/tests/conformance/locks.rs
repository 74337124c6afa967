//! Locks of files and of ranges, and vectored transfers that are complete.

use std::time::Duration;

use omniring::fs::{File, OpenOptions};
use omniring::time::timeout;
use omniring::{Runtime, spawn};

use crate::harness::{conformance, errno};
use crate::loopback::start;

conformance!(
    an_exclusive_lock_keeps_all_others_out,
    shared_locks_are_shared,
    a_lock_ends_with_the_file,
    clones_share_a_lock,
    whoever_waits_gets_the_lock_when_it_is_free,
    a_wait_that_is_given_up_leaves_no_lock,
    ranges_are_locked_one_by_one,
    a_part_of_a_range_is_given_up,
    a_range_is_waited_for,
    a_range_needs_a_file_that_is_open_for_it,
    a_range_without_bytes_is_refused,
    many_buffers_are_written_and_read_whole,
    a_file_that_ends_early_is_said_to,
);

const SOON: Duration = Duration::from_secs(20);

/// The same file, opened so many times, and where it is.
async fn opened(count: usize) -> (Vec<File>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    let mut files = Vec::new();
    for _ in 0..count {
        let mut options = OpenOptions::new();
        files.push(options.read(true).write(true).create(true).open(&path).await.unwrap());
    }
    (files, dir)
}

fn an_exclusive_lock_keeps_all_others_out(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(2).await;
        files[0].lock().await.unwrap();
        assert!(!files[1].try_lock().unwrap() && !files[1].try_lock_shared().unwrap());
        // One's own is no hindrance.
        assert!(files[0].try_lock().unwrap());
        files[0].unlock().unwrap();
        files[0].unlock().unwrap();
        assert!(files[1].try_lock().unwrap());
    });
}

fn shared_locks_are_shared(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(3).await;
        files[0].lock_shared().await.unwrap();
        files[1].lock_shared().await.unwrap();
        assert!(!files[2].try_lock().unwrap());
        files[0].unlock().unwrap();
        assert!(!files[2].try_lock().unwrap());
        files[1].unlock().unwrap();
        assert!(files[2].try_lock().unwrap());
        // From exclusive to shared.
        assert!(files[2].try_lock_shared().unwrap() && files[0].try_lock_shared().unwrap());
    });
}

fn a_lock_ends_with_the_file(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut files, _dir) = opened(2).await;
        files[0].lock().await.unwrap();
        files[0].lock_range(..).await.unwrap();
        files.remove(0).close().await.unwrap();
        // A thread of the kernel's that closes files may take a moment more.
        timeout(SOON, files[0].lock()).await.unwrap().unwrap();
        timeout(SOON, files[0].lock_range(..)).await.unwrap().unwrap();
    });
}

fn clones_share_a_lock(runtime: &Runtime) {
    runtime.block_on(async {
        let (mut files, _dir) = opened(2).await;
        let clone = files[0].clone();
        files[0].lock().await.unwrap();
        assert!(clone.try_lock().unwrap());
        drop(files.remove(0));
        assert!(!files[0].try_lock().unwrap());
        clone.unlock().unwrap();
        assert!(files[0].try_lock().unwrap());
    });
}

fn whoever_waits_gets_the_lock_when_it_is_free(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(2).await;
        files[0].lock().await.unwrap();
        let mut lock = Box::pin(files[1].lock());
        assert!(start(&mut lock).await.is_none());
        files[0].unlock().unwrap();
        timeout(SOON, lock).await.unwrap().unwrap();
        let mut lock = Box::pin(files[0].lock_shared());
        assert!(start(&mut lock).await.is_none());
        assert!(files[1].try_lock_shared().unwrap());
        timeout(SOON, lock).await.unwrap().unwrap();
    });
}

fn a_wait_that_is_given_up_leaves_no_lock(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(3).await;
        files[0].lock().await.unwrap();
        files[0].lock_range(..).await.unwrap();
        assert!(timeout(Duration::from_millis(5), files[1].lock()).await.is_err());
        assert!(timeout(Duration::from_millis(5), files[1].lock_range(..)).await.is_err());
        let waiting = files[1].clone();
        let task = spawn(async move { waiting.lock().await });
        omniring::yield_now().await;
        task.abort();
        assert!(task.await.unwrap_err().is_aborted());
        files[0].unlock().unwrap();
        files[0].unlock_range(..).unwrap();
        // The first file of these is not in the way of the second.
        assert!(files[2].try_lock().unwrap() && files[2].try_lock_range(..).unwrap());
    });
    assert_eq!(runtime.stats().task_count, 0);
}

fn ranges_are_locked_one_by_one(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(2).await;
        files[0].lock_range(10..20).await.unwrap();
        files[0].lock_range_shared(30..).await.unwrap();
        assert!(files[1].try_lock_range(..10).unwrap());
        assert!(!files[1].try_lock_range(5..=10).unwrap());
        assert!(files[1].try_lock_range(20..30).unwrap());
        assert!(!files[1].try_lock_range_shared(19..20).unwrap());
        assert!(files[1].try_lock_range_shared(1 << 40..).unwrap());
        assert!(!files[1].try_lock_range(1 << 40..).unwrap());
        // They do not know of locks of the whole file.
        assert!(files[1].try_lock().unwrap());
    });
}

fn a_part_of_a_range_is_given_up(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(2).await;
        files[0].lock_range(0..100).await.unwrap();
        files[0].unlock_range(40..60).unwrap();
        assert!(files[1].try_lock_range(40..60).unwrap());
        assert!(!files[1].try_lock_range(39..40).unwrap());
        assert!(!files[1].try_lock_range(60..61).unwrap());
    });
}

fn a_range_is_waited_for(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(2).await;
        files[0].lock_range_shared(5..6).await.unwrap();
        let mut lock = Box::pin(files[1].lock_range(0..10));
        assert!(start(&mut lock).await.is_none());
        files[0].unlock_range(..).unwrap();
        timeout(SOON, lock).await.unwrap().unwrap();
        assert!(!files[0].try_lock_range_shared(..).unwrap());
    });
}

fn a_range_needs_a_file_that_is_open_for_it(runtime: &Runtime) {
    runtime.block_on(async {
        let (_files, dir) = opened(1).await;
        let path = dir.path().join("file");
        let reader = File::open(&path).await.unwrap();
        let error = reader.lock_range(..).await.unwrap_err();
        assert!(error.to_string().contains("writing"), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::EBADF);
        let writer = OpenOptions::new().write(true).open(&path).await.unwrap();
        let error = writer.try_lock_range_shared(..).unwrap_err();
        assert!(error.to_string().contains("reading"), "{error}");
        assert!(reader.try_lock_range_shared(..).unwrap());
    });
}

fn a_range_without_bytes_is_refused(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(1).await;
        let error = files[0].try_lock_range(7..7).unwrap_err();
        assert!(error.to_string().contains("7..7"), "{error}");
        assert_eq!(errno(Err::<(), _>(error)), libc::EINVAL);
        assert_eq!(errno(files[0].try_lock_range(u64::MAX..)), libc::EINVAL);
        assert_eq!(errno(files[0].lock_range(..=u64::MAX).await), libc::EINVAL);
    });
}

/// Of lengths from 0 on: more of them than one call takes.
fn many_buffers_are_written_and_read_whole(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(1).await;
        let bufs: Vec<Vec<u8>> = (0..2500usize).map(|len| vec![len as u8; len % 7]).collect();
        let all = bufs.concat();
        let (result, bufs) = files[0].write_all_vectored_at(bufs, 3).await;
        result.unwrap();
        assert_eq!((bufs.len(), bufs.concat()), (2500, all.clone()));
        let room: Vec<Box<[u8]>> = (0..2500).map(|len| vec![0; len % 7].into()).collect();
        let (result, room) = files[0].read_exact_vectored_at(room, 3).await;
        result.unwrap();
        assert_eq!(room.concat(), all);
        let (result, bufs) = files[0].write_all_vectored_at(Vec::<Vec<u8>>::new(), 0).await;
        assert!(result.is_ok() && bufs.is_empty());
    });
}

fn a_file_that_ends_early_is_said_to(runtime: &Runtime) {
    runtime.block_on(async {
        let (files, _dir) = opened(1).await;
        files[0].write_all_at("0123456789", 0).await.0.unwrap();
        let room: Vec<Box<[u8]>> = vec![vec![0; 4].into(), vec![0; 4].into(), vec![0; 4].into()];
        let (result, room) = files[0].read_exact_vectored_at(room, 0).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        assert_eq!(
            (&room[0][..], &room[1][..], &room[2][..2]),
            (&b"0123"[..], &b"4567"[..], &b"89"[..])
        );
    });
}
