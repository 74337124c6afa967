//! Files as memory.

use omniring::Runtime;
use omniring::fs::{Advice, File, Mmap};
use omniring::net::UnixStream;

use crate::harness::conformance;
use crate::loopback::recv_to_end;

conformance!(
    a_file_is_mapped,
    a_mapping_outlives_its_file,
    every_advice_leaves_the_contents,
    advice_past_the_end_panics,
    an_empty_file_is_an_empty_slice,
    what_cannot_be_mapped_is_an_error,
    a_mapping_is_written_to_files_and_sockets,
);

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

async fn file(len: usize) -> File {
    let file = File::from_std(tempfile::tempfile().unwrap());
    file.write_all_at(pattern(len), 0).await.0.unwrap();
    file
}

/// Maps a temporary file of this process, which nobody changes or cuts while it is mapped.
fn map(file: &File) -> Mmap {
    // SAFETY: as said above.
    unsafe { Mmap::map(file).unwrap() }
}

fn a_file_is_mapped(runtime: &Runtime) {
    runtime.block_on(async {
        let file = file(100_000).await;
        assert!(map(&file)[..] == pattern(100_000));
        for (offset, len) in [(0, 100_000), (1, 10), (4096, 4096), (5_000, 95_000), (100, 0)] {
            // SAFETY: as for `map`, and the file is that long.
            let part = unsafe { Mmap::map_range(&file, offset as u64, len).unwrap() };
            assert!(part[..] == pattern(100_000)[offset..][..len], "{len} at {offset}");
        }
    });
}

fn a_mapping_outlives_its_file(runtime: &Runtime) {
    let mmap = runtime.block_on(async {
        let file = file(10_000).await;
        let mmap = map(&file);
        file.close().await.unwrap();
        mmap
    });
    let thread = std::thread::spawn(move || mmap.as_ref() == pattern(10_000));
    assert!(thread.join().unwrap());
}

const ALL: [Advice; 5] =
    [Advice::Normal, Advice::Random, Advice::Sequential, Advice::WillNeed, Advice::DontNeed];

fn every_advice_leaves_the_contents(runtime: &Runtime) {
    runtime.block_on(async {
        let mmap = map(&file(100_000).await);
        for advice in ALL {
            mmap.advise(advice).unwrap();
            assert!(mmap[..] == pattern(100_000), "{advice:?}");
            for (start, len) in [(0, 1), (5_000, 10_000), (99_999, 1), (100_000, 0), (7, 0)] {
                mmap.advise_range(advice, start, len).unwrap();
            }
            assert!(mmap[..] == pattern(100_000), "{advice:?}");
        }
    });
}

fn advice_past_the_end_panics(runtime: &Runtime) {
    runtime.block_on(async {
        let mmap = map(&file(1_000).await);
        for (start, len) in [(0, 1_001), (1_001, 0), (500, usize::MAX)] {
            let advise = std::panic::AssertUnwindSafe(|| {
                let _ = mmap.advise_range(Advice::Random, start, len);
            });
            assert!(std::panic::catch_unwind(advise).is_err(), "{len} from {start}");
        }
    });
}

fn an_empty_file_is_an_empty_slice(runtime: &Runtime) {
    runtime.block_on(async {
        let mmap = map(&file(0).await);
        assert!(mmap.is_empty());
        mmap.advise(Advice::WillNeed).unwrap();
    });
}

fn what_cannot_be_mapped_is_an_error(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    runtime.block_on(async {
        let unreadable = File::create(dir.path().join("file")).await.unwrap();
        unreadable.write_all_at("x", 0).await.0.unwrap();
        // SAFETY: it fails.
        let error = unsafe { Mmap::map(&unreadable).unwrap_err() };
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
        let (reader, _writer) = std::io::pipe().unwrap();
        // SAFETY: it fails.
        assert!(unsafe { Mmap::map_range(&reader, 0, 10) }.is_err());
    });
}

fn a_mapping_is_written_to_files_and_sockets(runtime: &Runtime) {
    runtime.block_on(async {
        let source = file(300_000).await;
        let copy = File::from_std(tempfile::tempfile().unwrap());
        let (result, mmap) = copy.write_all_at(map(&source), 0).await;
        result.unwrap();
        assert!(map(&copy)[..] == mmap[..]);
        let (sender, receiver) = UnixStream::pair().unwrap();
        let received = omniring::spawn(recv_to_end(receiver));
        sender.send_all(mmap).await.0.unwrap();
        drop(sender);
        assert!(received.await.unwrap() == pattern(300_000));
    });
}
