//! Many reads that are submitted together.

use std::cell::Cell;
use std::rc::Rc;

use omniring::buf::AlignedBuf;
use omniring::fs::{File, OpenOptions, ReadMany};
use omniring::{AsyncWrite, Runtime};

use crate::cancel::{Counted, small_queue, until};
use crate::harness::{conformance, errno, skip};
use crate::loopback::poll_once;
use crate::pipes::{let_others_run, pipe};

conformance!(
    many_reads_get_each_its_own,
    many_reads_are_in_flight_after_one_poll,
    many_reads_are_yielded_as_they_finish,
    no_reads_yield_nothing,
    merged_neighbours_get_what_separate_reads_get,
    merged_neighbours_find_the_end_of_the_file,
    merged_neighbours_fail_each_by_itself,
    merged_direct_reads_blame_the_one_that_is_not_aligned,
    more_reads_than_queue_entries_get_each_its_own,
    many_reads_dropped_free_each_buffer_once,
    many_reads_cancelled_give_every_buffer_back,
    many_reads_cancelled_before_they_were_submitted_never_are,
    many_reads_end_with_their_runtime;
    isolated:
    an_error_in_the_middle_of_merged_neighbours_hits_only_those_it_concerns,
);

const LEN: usize = 200_000;

fn pattern(offset: usize, len: usize) -> Vec<u8> {
    (offset..(offset + len).min(LEN)).map(|at| (at * 7 + at / 251) as u8).collect()
}

async fn pattern_file() -> File {
    let file = File::from_std(tempfile::tempfile().unwrap());
    file.write_all_at(pattern(0, LEN), 0).await.0.unwrap();
    file
}

fn buf(len: usize) -> Box<[u8]> {
    vec![0xEE; len].into_boxed_slice()
}

fn many_reads_get_each_its_own(runtime: &Runtime) {
    runtime.block_on(async {
        let file = pattern_file().await;
        let places: Vec<(usize, usize)> =
            (0..300).map(|at| (at * 7_919 % LEN, at * 31 % 5_000)).collect();
        let requests = || places.iter().map(|&(offset, len)| (offset as u64, buf(len)));
        let mut reads = file.read_many_at(requests());
        let mut seen = vec![false; places.len()];
        while let Some((index, result, buf)) = reads.next().await {
            let expected = pattern(places[index].0, places[index].1);
            assert_eq!(result.unwrap(), expected.len());
            assert!(buf.starts_with(&expected));
            assert!(!std::mem::replace(&mut seen[index], true), "{index} came twice");
        }
        assert!(seen.iter().all(|seen| *seen));
        assert!(reads.next().await.is_none(), "and it stays so");
        let all = file.read_many_at(requests()).collect().await;
        assert_eq!(all.len(), places.len());
        for ((result, buf), &(offset, len)) in all.into_iter().zip(&places) {
            assert_eq!(result.unwrap(), pattern(offset, len).len());
            assert!(buf.starts_with(&pattern(offset, len)));
        }
    });
}

fn many_reads_are_in_flight_after_one_poll(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, mut writer) = pipe();
        let mut reads = reader.read_many_at((0..20).map(|_| (0, Vec::with_capacity(1))));
        assert_eq!(runtime.stats().in_flight_count, 0);
        assert!(poll_once(&mut Box::pin(reads.next())).await.is_pending());
        assert_eq!((runtime.stats().in_flight_count, reads.left_count()), (20, 20));
        writer.write_all(vec![7; 20]).await.0.unwrap();
        for left in (0..20).rev() {
            assert_eq!(reads.next().await.unwrap().1.unwrap(), 1);
            assert_eq!(reads.left_count(), left);
        }
        assert!(reads.next().await.is_none());
    });
}

fn many_reads_are_yielded_as_they_finish(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, mut writer) = pipe();
        let mut reads = reader.read_many_at((0..3).map(|_| (0, Vec::with_capacity(10))));
        for word in ["one", "other", "last"] {
            assert!(poll_once(&mut Box::pin(reads.next())).await.is_pending());
            let_others_run().await;
            writer.write_all(word).await.0.unwrap();
            let (_, result, buf) = reads.next().await.unwrap();
            assert_eq!((result.unwrap(), &buf[..]), (word.len(), word.as_bytes()));
        }
    });
}

fn no_reads_yield_nothing(runtime: &Runtime) {
    runtime.block_on(async {
        let file = pattern_file().await;
        let none: [(u64, Vec<u8>); 0] = [];
        assert!(file.read_many_at(none).next().await.is_none());
        let none: [(u64, Vec<u8>); 0] = [];
        assert!(file.read_many_at(none).merge_neighbours(4096).collect().await.is_empty());
        let (results, bufs): (Vec<_>, Vec<_>) =
            file.read_many_at([(0, buf(0)), (5, buf(0))]).collect().await.into_iter().unzip();
        assert!(results.into_iter().all(|result| result.unwrap() == 0) && bufs.len() == 2);
    });
}

fn merged_neighbours_get_what_separate_reads_get(runtime: &Runtime) {
    let mut random = fastrand::Rng::with_seed(5);
    runtime.block_on(async {
        let file = pattern_file().await;
        for round in 0..50 {
            // Neighbours, gaps, overlaps, doubles and nothing at all, in any order.
            let mut at = random.u64(0..2 * LEN as u64 / 3);
            let mut places: Vec<(u64, usize)> = (0..random.usize(1..60))
                .map(|_| {
                    let len = random.usize(0..5_000);
                    let place = (at, len);
                    at = match random.u8(0..8) {
                        0 => at + len as u64 + 1,
                        1 => at + len as u64 / 2,
                        _ => at + len as u64,
                    };
                    place
                })
                .collect();
            random.shuffle(&mut places);
            let requests = places.iter().map(|&(offset, len)| (offset, buf(len)));
            let len_max = [1, 8_192, 100_000, usize::MAX][round % 4];
            let all = file.read_many_at(requests).merge_neighbours(len_max).collect().await;
            for ((result, buf), (offset, len)) in all.into_iter().zip(places) {
                let expected = pattern(offset as usize, len);
                assert_eq!(result.unwrap(), expected.len(), "{len} at {offset}");
                assert!(buf.starts_with(&expected), "{len} at {offset}");
                assert!(buf[expected.len()..].iter().all(|&byte| byte == 0xEE));
            }
        }
        // More than one call takes.
        let requests = (0..2_500).map(|at| (at, Vec::with_capacity(1)));
        let all = file.read_many_at(requests).merge_neighbours(usize::MAX).collect().await;
        let bytes: Vec<u8> = all.into_iter().map(|(_, buf)| buf[0]).collect();
        assert!(bytes == pattern(0, 2_500));
    });
}

fn merged_neighbours_find_the_end_of_the_file(runtime: &Runtime) {
    runtime.block_on(async {
        let file = File::from_std(tempfile::tempfile().unwrap());
        file.write_all_at("0123456789", 0).await.0.unwrap();
        for (len, expected) in [
            (3, vec![3, 3, 3, 1, 0, 0]),
            (5, vec![5, 5, 0, 0, 0, 0]),
            (20, vec![10, 0, 0, 0, 0, 0]),
        ] {
            let requests = (0..6).map(|at| (at * len as u64, b"old contents, long".to_vec()));
            let requests = requests.map(|(at, mut buf)| {
                buf.truncate(1);
                buf.shrink_to(len);
                buf.reserve_exact(len - buf.len());
                assert_eq!(buf.capacity(), len);
                (at, buf)
            });
            let all = file.read_many_at(requests).merge_neighbours(usize::MAX).collect().await;
            for (at, (result, buf)) in all.into_iter().enumerate() {
                assert_eq!((result.unwrap(), buf.len()), (expected[at], expected[at]));
                assert_eq!(buf, &b"0123456789"[(at * len).min(10)..][..expected[at]]);
            }
        }
    });
}

fn merged_neighbours_fail_each_by_itself(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let file = File::create(dir.path().join("file")).await.unwrap();
        for len_max in [0, usize::MAX] {
            let requests = (0..5).map(|at| (at * 10, buf(10)));
            let mut reads = file.read_many_at(requests).merge_neighbours(len_max);
            for _ in 0..5 {
                let (_, result, buf) = reads.next().await.unwrap();
                assert_eq!((errno(result), &buf[..]), (libc::EBADF, &[0xEE; 10][..]));
            }
            assert!(reads.next().await.is_none());
        }
        // Past what the kernel knows as an offset, from a neighbour before it.
        let file = pattern_file().await;
        let last = i64::MAX as u64 - 5;
        for len_max in [0, usize::MAX] {
            let requests = [(last - 10, buf(10)), (last, buf(10)), (last + 10, buf(10))];
            let all = file.read_many_at(requests).merge_neighbours(len_max).collect().await;
            let [first, middle, past] = <[_; 3]>::try_from(all).unwrap();
            assert_eq!(first.0.unwrap(), 0);
            let alone = file.read_at(buf(10), last).await.0;
            assert_eq!(middle.0.map_err(|e| e.raw_os_error()), alone.map_err(|e| e.raw_os_error()));
            assert_eq!(errno(past.0), libc::EINVAL);
        }
    });
}

fn merged_direct_reads_blame_the_one_that_is_not_aligned(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    std::fs::write(&path, pattern(0, 1 << 16)).unwrap();
    runtime.block_on(async {
        let Ok(file) = OpenOptions::new().read(true).direct(true).open(&path).await else {
            return skip("the file system of the temporary directory does not take O_DIRECT");
        };
        use omniring::buf::IoBufExt;
        let requests = [0, 1, 2, 3].map(|at| {
            let start = usize::from(at == 2);
            (at * 4096, AlignedBuf::new(8192, 4096).slice(start..start + 4096))
        });
        let all = file.read_many_at(requests).merge_neighbours(usize::MAX).collect().await;
        for (at, (result, buf)) in all.into_iter().enumerate() {
            if at == 2 {
                assert_eq!(errno(result), libc::EINVAL);
            } else {
                assert_eq!(result.unwrap(), 4096);
                assert!(buf.inner()[..4096] == pattern(at * 4096, 4096));
            }
        }
    });
}

fn more_reads_than_queue_entries_get_each_its_own(runtime: &Runtime) {
    let small = small_queue(runtime.engine());
    small.block_on(async {
        let file = pattern_file().await;
        let requests = (0..10_000).map(|at| (at * 13, buf(3)));
        let mut reads = file.read_many_at(requests);
        let mut count = 0;
        while let Some((index, result, buf)) = reads.next().await {
            assert_eq!(result.unwrap(), 3);
            assert!(*buf == pattern(index * 13, 3));
            count += 1;
        }
        assert_eq!(count, 10_000);
    });
    assert_eq!(small.stats().in_flight_count, 0);
}

/// Takes that many results, which are to be good.
async fn take<const COUNT: usize>(reads: &mut ReadMany<Counted>) {
    for _ in 0..COUNT {
        reads.next().await.unwrap().1.unwrap();
    }
}

fn many_reads_dropped_free_each_buffer_once(runtime: &Runtime) {
    runtime.block_on(async {
        let file = pattern_file().await;
        let (reader, mut writer) = pipe();
        let drops = Rc::new(Cell::new(0));
        let requests = |count| (0..count).map(|at| (at * 64, Counted::new(64, &drops)));
        drop(file.read_many_at(requests(10)));
        assert_eq!(drops.take(), 10, "never polled");
        for merge in [0, 1 << 16] {
            for take_some in [false, true] {
                let mut reads = file.read_many_at(requests(1_000)).merge_neighbours(merge);
                let _ = poll_once(&mut Box::pin(reads.next())).await;
                if take_some {
                    take::<500>(&mut reads).await;
                }
                drop(reads);
                until("each buffer is dropped", || drops.get() == 1_000).await;
                assert_eq!(drops.take(), 1_000);
            }
        }
        writer.write_all(vec![7; 3 * 64]).await.0.unwrap();
        let mut reads = reader.read_many_at(requests(10));
        take::<3>(&mut reads).await;
        assert!(poll_once(&mut Box::pin(reads.next())).await.is_pending());
        drop(reads);
        until("each buffer is dropped", || drops.get() == 10).await;
        // What was not read is still there for others.
        writer.write_all("next").await.0.unwrap();
        assert_eq!(reader.read_at(buf(10), 0).await.0.unwrap(), 4);
    });
}

fn many_reads_cancelled_give_every_buffer_back(runtime: &Runtime) {
    runtime.block_on(async {
        let (reader, _writer) = pipe();
        let mut reads = reader.read_many_at((0..10).map(|_| (0, b"as it was".to_vec())));
        assert!(poll_once(&mut Box::pin(reads.next())).await.is_pending());
        let_others_run().await;
        reads.cancel();
        for (result, buf) in reads.collect().await {
            assert_eq!((errno(result), &buf[..]), (libc::ECANCELED, &b"as it was"[..]));
        }
        let file = pattern_file().await;
        let requests = (0..1_000).map(|at| (at * 64, buf(64)));
        let mut reads = file.read_many_at(requests).merge_neighbours(1 << 16);
        let mut left = 1_000 - usize::from(poll_once(&mut Box::pin(reads.next())).await.is_ready());
        reads.cancel();
        while let Some((index, result, buf)) = reads.next().await {
            left -= 1;
            match result {
                Ok(count) => assert!(count == 64 && *buf == pattern(index * 64, 64)),
                result => assert_eq!(errno(result), libc::ECANCELED),
            }
        }
        assert_eq!(left, 0);
    });
    assert_eq!(runtime.stats().in_flight_count, 0);
}

fn many_reads_cancelled_before_they_were_submitted_never_are(runtime: &Runtime) {
    runtime.block_on(async {
        let file = pattern_file().await;
        let mut reads = file.read_many_at([(0, b"as it was".to_vec()), (9, b"so far".to_vec())]);
        reads.cancel();
        let all = reads.collect().await;
        assert_eq!([&all[0].1[..], &all[1].1[..]], [&b"as it was"[..], b"so far"]);
        assert!(all.into_iter().all(|(result, _)| errno(result) == libc::ECANCELED));
    });
}

fn many_reads_end_with_their_runtime(runtime: &Runtime) {
    let other = Runtime::builder().engine(runtime.engine()).build().unwrap();
    let drops = Rc::new(Cell::new(0));
    let (reader, _writer) = other.block_on(async { pipe() });
    let mut reads = reader.read_many_at((0..10).map(|_| (0, Counted::new(1, &drops))));
    other.block_on(async {
        assert!(poll_once(&mut Box::pin(reads.next())).await.is_pending());
    });
    drop(other);
    runtime.block_on(async {
        for _ in 0..10 {
            assert_eq!(errno(reads.next().await.unwrap().1), libc::ECANCELED);
        }
        assert!(reads.next().await.is_none());
    });
    assert_eq!(drops.get(), 10);
}

fn an_error_in_the_middle_of_merged_neighbours_hits_only_those_it_concerns(runtime: &Runtime) {
    const PAGE: usize = 4096;
    // A process's memory as a file: pages that are not mapped are errors.
    // SAFETY: a fresh mapping, of which a page in the middle goes; nothing refers to it.
    let start = unsafe {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let start = libc::mmap(std::ptr::null_mut(), 6 * PAGE, protection, flags, -1, 0);
        assert_ne!(start, libc::MAP_FAILED);
        std::slice::from_raw_parts_mut(start.cast::<u8>(), 6 * PAGE).fill(7);
        assert_eq!(libc::munmap(start.byte_add(2 * PAGE), PAGE), 0);
        start as u64
    };
    runtime.block_on(async {
        let memory = File::open("/proc/self/mem").await.unwrap();
        for len_max in [0, usize::MAX] {
            let requests = (0..6).map(|at| (start + at * PAGE as u64, buf(PAGE)));
            let all = memory.read_many_at(requests).merge_neighbours(len_max).collect().await;
            for (at, (result, buf)) in all.into_iter().enumerate() {
                if at == 2 {
                    assert_eq!(errno(result), libc::EIO);
                } else {
                    assert_eq!(result.unwrap(), PAGE, "page {at}, merged up to {len_max}");
                    assert!(buf.iter().all(|&byte| byte == 7));
                }
            }
        }
    });
}
