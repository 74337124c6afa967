//! Reading and writing files.

use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;

use omniring::buf::{AlignedBuf, IoBuf, IoBufExt, IoBufMut};
use omniring::fs::{self, File, OpenOptions};
use omniring::{AsyncRead, AsyncWrite, Runtime, copy};

use crate::harness::{conformance, errno, skip};

conformance!(
    a_read_gets_what_was_written_at_its_offset,
    a_read_stops_at_the_end_of_the_file,
    a_read_past_the_end_yields_nothing,
    a_write_past_the_end_leaves_a_hole_of_zeros,
    buffers_without_room_move_nothing,
    the_cursor_moves_with_reads_and_writes,
    clones_share_the_cursor,
    appending_ignores_the_position,
    read_exact_fails_at_an_early_end,
    write_all_writes_all,
    vectored_io_fills_buffers_in_order,
    vectored_io_uses_1024_buffers_at_most,
    vectored_io_without_buffers_moves_nothing,
    offsets_past_what_the_kernel_knows_are_invalid,
    offsets_beyond_4_gib_are_kept,
    reading_what_was_opened_for_writing_is_a_bad_descriptor,
    writing_what_was_opened_for_reading_is_a_bad_descriptor,
    reading_a_directory_fails,
    direct_io_moves_aligned_memory,
    direct_io_refuses_what_is_not_aligned,
    a_file_system_that_refuses_direct_io_is_named,
    syncing_succeeds_and_a_pipe_refuses_it,
    set_len_cuts_and_extends,
    allocate_makes_the_file_longer,
    seek_finds_the_end,
    every_buffer_type_writes_its_bytes,
    every_mutable_buffer_type_is_read_into,
    a_slice_is_read_into_where_it_starts,
    close_succeeds_and_leaves_the_file_to_clones,
    into_std_and_back_keeps_the_cursor,
    into_std_needs_the_last_clone,
    no_room_on_the_device_is_an_error,
    many_reads_in_flight_keep_their_offsets,
    a_cursor_read_does_not_stop_at_what_is_cached,
    copy_moves_all,
    whole_files_are_read_and_written,
);

pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

pub async fn new_file(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).open(path).await.unwrap()
}

/// Runs a case with a new file, for reading and writing.
fn with_file(runtime: &Runtime, case: impl AsyncFnOnce(File, &Path)) {
    let dir = scratch();
    let path = dir.path().join("file");
    runtime.block_on(async { case(new_file(&path).await, &path).await });
}

pub fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

fn a_read_gets_what_was_written_at_its_offset(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        let data = pattern(100_000);
        assert_eq!(file.write_at(data.clone(), 5_000).await.0.unwrap(), data.len());
        for (offset, len) in [(0, 1), (4_999, 2), (5_000, 100_000), (70_000, 4_096)] {
            let (result, buf) = file.read_at(Vec::with_capacity(len), offset).await;
            assert_eq!(result.unwrap(), len);
            let mut expected = vec![0; 5_000];
            expected.extend_from_slice(&data);
            assert!(buf == expected[offset as usize..][..len], "{len} bytes at {offset}");
        }
    });
}

fn a_read_stops_at_the_end_of_the_file(runtime: &Runtime) {
    with_file(runtime, async |mut file, _| {
        file.write_at(pattern(10_000), 0).await.0.unwrap();
        let (result, buf) = file.read_at(Vec::with_capacity(8_192), 8_192).await;
        assert_eq!((result.unwrap(), buf.len()), (10_000 - 8_192, 10_000 - 8_192));
        let (result, buf) = file.read(Vec::with_capacity(20_000)).await;
        assert_eq!(result.unwrap(), 10_000);
        assert!(buf == pattern(10_000));
        let (result, buf) = file.read(buf).await;
        assert_eq!((result.unwrap(), buf.len()), (0, 0), "the end, again and again");
    });
}

fn a_read_past_the_end_yields_nothing(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        file.write_at("abc", 0).await.0.unwrap();
        for offset in [3, 4, 1 << 20, 1 << 40] {
            let (result, buf) = file.read_at(b"old contents".to_vec(), offset).await;
            assert_eq!((result.unwrap(), buf.len()), (0, 0), "at {offset}");
        }
    });
}

fn a_write_past_the_end_leaves_a_hole_of_zeros(runtime: &Runtime) {
    with_file(runtime, async |file, path| {
        assert_eq!(file.write_at("x", 9).await.0.unwrap(), 1);
        assert_eq!(fs::read(path).await.unwrap(), b"\0\0\0\0\0\0\0\0\0x");
    });
}

fn buffers_without_room_move_nothing(runtime: &Runtime) {
    with_file(runtime, async |mut file, _| {
        file.write_at("abc", 0).await.0.unwrap();
        assert_eq!(file.read_at(Vec::new(), 0).await.0.unwrap(), 0);
        assert_eq!(file.read(Vec::new()).await.0.unwrap(), 0);
        assert_eq!(file.read_at(AlignedBuf::new(0, 4096), 1).await.0.unwrap(), 0);
        assert_eq!(file.write_at(Vec::new(), 0).await.0.unwrap(), 0);
        assert_eq!(file.write_at("", 100).await.0.unwrap(), 0);
        assert_eq!(file.write(Vec::with_capacity(10)).await.0.unwrap(), 0);
        file.read_exact_at(Vec::new(), 100).await.0.unwrap();
        file.write_all_at("", 100).await.0.unwrap();
        assert_eq!(file.metadata().await.unwrap().len(), 3, "nothing was written");
        assert_eq!(file.seek(SeekFrom::Current(0)).unwrap(), 0, "the cursor stayed");
    });
}

fn the_cursor_moves_with_reads_and_writes(runtime: &Runtime) {
    with_file(runtime, async |mut file, _| {
        file.write_all("hello ").await.0.unwrap();
        file.write_all("world").await.0.unwrap();
        // Positions leave the cursor alone.
        file.write_at("H", 0).await.0.unwrap();
        file.read_at(Vec::with_capacity(3), 2).await.0.unwrap();
        assert_eq!(file.seek(SeekFrom::Current(0)).unwrap(), 11);
        assert_eq!(file.seek(SeekFrom::Start(4)).unwrap(), 4);
        let (result, buf) = file.read_exact(Vec::with_capacity(3)).await;
        result.unwrap();
        assert_eq!(buf, b"o w");
        let (result, buf) = file.read(Vec::with_capacity(100)).await;
        assert_eq!((result.unwrap(), &buf[..]), (4, &b"orld"[..]));
        file.write_all("!").await.0.unwrap();
        let (result, buf) = file.read_at(Vec::with_capacity(100), 0).await;
        assert_eq!((result.unwrap(), &buf[..]), (12, &b"Hello world!"[..]));
    });
}

fn clones_share_the_cursor(runtime: &Runtime) {
    with_file(runtime, async |mut file, _| {
        let mut clone = file.clone();
        file.write_all("one").await.0.unwrap();
        clone.write_all("two").await.0.unwrap();
        let (_, buf) = file.read_at(Vec::with_capacity(10), 0).await;
        assert_eq!(buf, b"onetwo");
    });
}

fn appending_ignores_the_position(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    runtime.block_on(async {
        let mut file = OpenOptions::new().append(true).create(true).open(&path).await.unwrap();
        file.write("one,").await.0.unwrap();
        file.write_at("two,", 0).await.0.unwrap();
        file.write_vectored_at(vec!["three", ","], 2).await.0.unwrap();
        std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(17).unwrap();
        file.write("four").await.0.unwrap();
        assert_eq!(fs::read(&path).await.unwrap(), b"one,two,three,\0\0\0four");
    });
}

fn read_exact_fails_at_an_early_end(runtime: &Runtime) {
    with_file(runtime, async |mut file, _| {
        file.write_at(pattern(1_000), 0).await.0.unwrap();
        let (result, buf) = file.read_exact_at(vec![0; 500].into_boxed_slice(), 500).await;
        result.unwrap();
        assert!(buf[..] == pattern(1_000)[500..]);
        let (result, _) = file.read_exact_at(vec![0; 501].into_boxed_slice(), 500).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
        let (result, _) = file.read_exact(vec![0; 1_001].into_boxed_slice()).await;
        assert_eq!(result.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

fn write_all_writes_all(runtime: &Runtime) {
    with_file(runtime, async |mut file, path| {
        let data = pattern(3 << 20);
        let (result, data) = file.write_all_at(data, 7).await;
        result.unwrap();
        let (result, data) = file.write_all(data).await;
        result.unwrap();
        assert!(fs::read(path).await.unwrap()[..3 << 20] == data[..]);
        assert_eq!(file.metadata().await.unwrap().len(), (3 << 20) + 7);
    });
}

fn vectored_io_fills_buffers_in_order(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        let bufs = vec![b"one".to_vec(), Vec::new(), b"three".to_vec()];
        let (result, bufs) = file.write_vectored_at(bufs, 2).await;
        assert_eq!((result.unwrap(), bufs.len()), (8, 3));
        let bufs = [4, 0, 3, 10].map(Vec::<u8>::with_capacity);
        // A Vec may have more room than was asked for.
        assert_eq!(bufs.each_ref().map(Vec::capacity), [4, 0, 3, 10]);
        let (result, bufs) = file.read_vectored_at(bufs.into(), 0).await;
        assert_eq!(result.unwrap(), 10);
        assert_eq!(bufs, [&b"\0\0on"[..], b"", b"eth", b"ree"]);
        let bufs = vec![b"old".to_vec(), b"older".to_vec()];
        let (result, bufs) = file.read_vectored_at(bufs, 10).await;
        assert_eq!(result.unwrap(), 0);
        assert!(bufs.iter().all(Vec::is_empty), "nothing arrived");
    });
}

fn vectored_io_uses_1024_buffers_at_most(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        let bufs: Vec<Vec<u8>> = (0..1_500u32).map(|at| vec![at as u8; 3]).collect();
        let (result, bufs) = file.write_vectored_at(bufs, 0).await;
        assert_eq!((result.unwrap(), bufs.len()), (1_024 * 3, 1_500));
        let bufs: Vec<Vec<u8>> = (0..2_000).map(|_| Vec::with_capacity(3)).collect();
        let (result, bufs) = file.read_vectored_at(bufs, 0).await;
        assert_eq!((result.unwrap(), bufs.len()), (1_024 * 3, 2_000));
        for (at, buf) in bufs.iter().enumerate() {
            let expected = if at < 1_024 { vec![at as u8; 3] } else { vec![] };
            assert_eq!(*buf, expected, "buffer {at}");
        }
    });
}

fn vectored_io_without_buffers_moves_nothing(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        let (result, bufs) = file.write_vectored_at(Vec::<Vec<u8>>::new(), 5).await;
        assert_eq!((result.unwrap(), bufs.len()), (0, 0));
        let (result, bufs) = file.read_vectored_at(Vec::<Vec<u8>>::new(), 5).await;
        assert_eq!((result.unwrap(), bufs.len()), (0, 0));
        assert_eq!(file.metadata().await.unwrap().len(), 0);
    });
}

fn offsets_past_what_the_kernel_knows_are_invalid(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        file.write_at("abc", 0).await.0.unwrap();
        const LAST: u64 = i64::MAX as u64;
        for offset in [u64::MAX, u64::MAX - 1, LAST + 1, LAST] {
            let (result, buf) = file.read_at(Vec::with_capacity(10), offset).await;
            assert_eq!((errno(result), buf.capacity()), (libc::EINVAL, 10), "read at {offset}");
            let (result, buf) = file.write_at(b"abc".to_vec(), offset).await;
            assert_eq!((errno(result), &buf[..]), (libc::EINVAL, &b"abc"[..]), "write at {offset}");
            let (result, _) = file.read_vectored_at(vec![vec![0; 5]; 2], offset).await;
            assert_eq!(errno(result), libc::EINVAL, "vectored read at {offset}");
            let (result, _) = file.write_vectored_at(vec!["abc"; 2], offset).await;
            assert_eq!(errno(result), libc::EINVAL, "vectored write at {offset}");
        }
        // In range for the kernel, and past what the file system can hold.
        assert_eq!(errno(file.write_at("abc", LAST - 3).await.0), libc::EFBIG);
        assert_eq!(file.read_at(Vec::with_capacity(3), LAST - 3).await.0.unwrap(), 0);
        assert_eq!(errno(file.set_len(u64::MAX).await), libc::EINVAL);
        assert_eq!(errno(file.set_len(LAST + 1).await), libc::EINVAL);
        assert_eq!(errno(file.set_len(LAST).await), libc::EFBIG);
        assert_eq!(errno(file.allocate(u64::MAX, 1).await), libc::EINVAL);
        assert_eq!(errno(file.allocate(0, u64::MAX).await), libc::EINVAL);
        assert_eq!(errno(file.allocate(LAST, 1).await), libc::EFBIG);
        assert_eq!(file.metadata().await.unwrap().len(), 3);
    });
}

fn offsets_beyond_4_gib_are_kept(runtime: &Runtime) {
    with_file(runtime, async |mut file, _| {
        const FAR: u64 = (5 << 30) + 123;
        file.write_at("near", FAR & 0xffff_ffff).await.0.unwrap();
        file.write_at("far", FAR).await.0.unwrap();
        assert_eq!(file.metadata().await.unwrap().len(), FAR + 3);
        let (_, buf) = file.read_at(Vec::with_capacity(10), FAR).await;
        assert_eq!(buf, b"far");
        file.seek(SeekFrom::Start(FAR + 1)).unwrap();
        let (_, buf) = file.read(Vec::with_capacity(10)).await;
        assert_eq!(buf, b"ar");
        file.set_len(FAR + (1 << 33)).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().len(), FAR + (1 << 33));
    });
}

fn reading_what_was_opened_for_writing_is_a_bad_descriptor(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let mut file = File::create(dir.path().join("file")).await.unwrap();
        for room in [10, 0] {
            let (result, buf) = file.read_at(Vec::with_capacity(room), 0).await;
            assert_eq!((errno(result), buf.len()), (libc::EBADF, 0), "{room} bytes at 0");
            let (result, buf) = file.read(Vec::with_capacity(room)).await;
            assert_eq!((errno(result), buf.len()), (libc::EBADF, 0), "{room} bytes");
        }
        assert_eq!(errno(file.read_vectored_at(vec![vec![0; 5]], 0).await.0), libc::EBADF);
        assert_eq!(errno(file.read_at(vec![0; 5], u64::MAX).await.0), libc::EBADF);
    });
}

fn writing_what_was_opened_for_reading_is_a_bad_descriptor(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    std::fs::write(&path, "contents").unwrap();
    runtime.block_on(async {
        let mut file = File::open(&path).await.unwrap();
        for what in ["x", ""] {
            assert_eq!(errno(file.write_at(what, 0).await.0), libc::EBADF, "{what:?} at 0");
            assert_eq!(errno(file.write(what).await.0), libc::EBADF, "{what:?}");
        }
        assert_eq!(errno(file.write_vectored_at(vec!["x"], 0).await.0), libc::EBADF);
        assert_eq!(errno(file.write_at("x", u64::MAX).await.0), libc::EBADF);
        assert_eq!(errno(file.set_len(0).await), libc::EINVAL);
        assert_eq!(errno(file.allocate(0, 1).await), libc::EBADF);
    });
    assert_eq!(std::fs::read(&path).unwrap(), b"contents");
}

fn reading_a_directory_fails(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let mut opened = File::open(dir.path()).await.unwrap();
        assert!(opened.metadata().await.unwrap().is_dir());
        assert_eq!(errno(opened.read_at(Vec::with_capacity(10), 0).await.0), libc::EISDIR);
        assert_eq!(errno(opened.read(Vec::with_capacity(10)).await.0), libc::EISDIR);
        assert_eq!(errno(opened.read_vectored_at(vec![vec![0; 5]], 0).await.0), libc::EISDIR);
        assert_eq!(errno(fs::read(dir.path()).await), libc::EISDIR);
        opened.sync_all().await.unwrap();
    });
}

/// A file of 64 KiB opened past the page cache, with the alignment it needs.
pub async fn direct_file(path: &Path) -> Option<(File, usize)> {
    std::fs::write(path, pattern(1 << 16)).unwrap();
    match OpenOptions::new().read(true).write(true).direct(true).open(path).await {
        Ok(file) => {
            let known = file.metadata().await.unwrap().direct_alignment();
            let align = known.map_or(4096, |(memory, offset)| memory.max(offset) as usize);
            Some((file, align))
        }
        Err(error) => {
            skip(&error.to_string());
            None
        }
    }
}

fn direct_io_moves_aligned_memory(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    runtime.block_on(async {
        let Some((file, align)) = direct_file(&path).await else { return };
        let mut expected = pattern(1 << 16);
        let (result, buf) = file.read_at(AlignedBuf::new(8 * align, align), align as u64).await;
        assert_eq!(result.unwrap(), 8 * align);
        assert!(buf[..] == expected[align..9 * align]);
        let mut buf = AlignedBuf::new(2 * align, align);
        buf.fill(7);
        expected[4 * align..6 * align].fill(7);
        assert_eq!(file.write_at(buf, 4 * align as u64).await.0.unwrap(), 2 * align);
        let (result, _) = file.read_at(AlignedBuf::new(align, align), 1 << 16).await;
        assert_eq!(result.unwrap(), 0, "the end of the file");
        let bufs = vec![AlignedBuf::new(align, align), AlignedBuf::new(3 * align, align)];
        let (result, bufs) = file.read_vectored_at(bufs, 3 * align as u64).await;
        assert_eq!(result.unwrap(), 4 * align);
        assert!(bufs[1][..] == expected[4 * align..7 * align]);
    });
}

fn direct_io_refuses_what_is_not_aligned(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    runtime.block_on(async {
        let Some((mut file, align)) = direct_file(&path).await else { return };
        let known = file.metadata().await.unwrap().direct_alignment();
        let refused = |result: std::io::Result<usize>, wrong: &[&str]| {
            let error = result.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
            assert_eq!(omniring::raw_os_error(&error), Some(libc::EINVAL));
            let text = error.to_string();
            if let Some((memory, offset)) = known {
                assert!(text.contains(&format!("multiples of {offset},")), "{text}");
                assert!(text.contains(&format!(" of {memory} bytes: ")), "{text}");
            }
            let said = text.rsplit_once(": ").unwrap().1;
            let said: Vec<_> = said.split(", ").collect();
            assert_eq!(said.len(), wrong.len(), "{text}");
            assert!(said.iter().zip(wrong).all(|(said, wrong)| said.contains(wrong)), "{text}");
        };
        let (result, _) = file.read_at(AlignedBuf::new(align, align), 1).await;
        refused(result, &["offset 1 is not"]);
        let length = format!("length {} is not", align - 1);
        let (result, _) = file.read_at(AlignedBuf::new(align - 1, align), 0).await;
        refused(result, &[&length]);
        let (result, _) = file.read(AlignedBuf::new(align - 1, align)).await;
        refused(result, &[&length]);
        let longer = format!("length {} is not", 2 * align - 1);
        let (result, _) = file.write_at(AlignedBuf::new(2 * align, align).slice(1..), 0).await;
        match known {
            // Some devices take memory at any address.
            Some((..2, _)) => refused(result, &[&longer]),
            _ => refused(result, &[&longer, "memory at 0x"]),
        }
        let (result, _) = file.write_at(AlignedBuf::new(align, align), 1).await;
        refused(result, &["offset 1 is not"]);
        let bufs = || vec![AlignedBuf::new(align, align), AlignedBuf::new(align - 1, align)];
        refused(file.read_vectored_at(bufs(), 0).await.0, &[&length]);
        refused(file.write_vectored_at(bufs(), 1).await.0, &["offset 1 is not", &length]);
        let requests = [0, align as u64].map(|offset| (offset, AlignedBuf::new(align - 1, align)));
        for (result, _) in file.read_many_at(requests).collect().await {
            refused(result.and(Ok(0)), &[&length]);
        }
        // At the end of what is appended to, whatever the position.
        file.set_len(1).await.unwrap();
        let append = OpenOptions::new().append(true).direct(true).open(&path).await.unwrap();
        let (result, _) = append.write_at(AlignedBuf::new(align, align), 0).await;
        refused(result, &["offset 1 is not"]);
        // What is wrong for another reason stays as it is.
        let (result, _) = file.read_at(AlignedBuf::new(align, align), u64::MAX).await;
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EINVAL));
    });
    assert_eq!(std::fs::read(&path).unwrap(), pattern(1), "nothing was written");
}

fn a_file_system_that_refuses_direct_io_is_named(runtime: &Runtime) {
    runtime.block_on(async {
        let mut options = OpenOptions::new();
        options.read(true).direct(true);
        let refused = async |path: &str, why: &str| {
            let error = options.open(path).await.unwrap_err();
            assert_eq!(omniring::raw_os_error(&error), Some(libc::EINVAL));
            let text = error.to_string();
            assert!(text.contains(&format!("'{path}' cannot be opened with O_DIRECT")), "{text}");
            assert!(text.contains(why), "{text}");
        };
        refused("/proc/self/status", "its file system, proc of proc at /proc, refuses it").await;
        refused("/dev/null", "it is a character device").await;
        let dir = scratch();
        let missing = options.open(dir.path().join("missing")).await.unwrap_err();
        assert_eq!(missing.raw_os_error(), Some(libc::ENOENT));
    });
}

fn syncing_succeeds_and_a_pipe_refuses_it(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        file.write_at("abc", 0).await.0.unwrap();
        file.sync_data().await.unwrap();
        file.sync_all().await.unwrap();
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = File::from_fd(reader.into());
        assert_eq!(errno(pipe.sync_all().await), libc::EINVAL);
        assert_eq!(errno(pipe.sync_data().await), libc::EINVAL);
    });
}

fn set_len_cuts_and_extends(runtime: &Runtime) {
    with_file(runtime, async |file, path| {
        file.write_at("hello world", 0).await.0.unwrap();
        file.set_len(5).await.unwrap();
        assert_eq!(fs::read(path).await.unwrap(), b"hello");
        file.set_len(8).await.unwrap();
        assert_eq!(fs::read(path).await.unwrap(), b"hello\0\0\0");
        file.set_len(0).await.unwrap();
        assert_eq!(file.metadata().await.unwrap().len(), 0);
    });
}

fn allocate_makes_the_file_longer(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        match file.allocate(4096, 100_000).await {
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                return skip("the file system of the temporary directory has no fallocate");
            }
            result => result.unwrap(),
        }
        let metadata = file.metadata().await.unwrap();
        assert_eq!(metadata.len(), 104_096);
        assert!(metadata.allocated_len() >= 100_000);
        assert_eq!(errno(file.allocate(0, 0).await), libc::EINVAL);
        let (reader, _writer) = std::io::pipe().unwrap();
        assert_eq!(errno(File::from_fd(reader.into()).allocate(0, 1).await), libc::EBADF);
        let (_reader, writer) = std::io::pipe().unwrap();
        assert_eq!(errno(File::from_fd(writer.into()).allocate(0, 1).await), libc::ESPIPE);
    });
}

fn seek_finds_the_end(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        file.write_at("hello", 0).await.0.unwrap();
        assert_eq!(file.seek(SeekFrom::End(-2)).unwrap(), 3);
        assert_eq!(file.seek(SeekFrom::End(10)).unwrap(), 15);
        assert_eq!(file.seek(SeekFrom::Current(-15)).unwrap(), 0);
        assert_eq!(errno(file.seek(SeekFrom::Current(-1))), libc::EINVAL);
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = File::from_fd(reader.into());
        assert_eq!(errno(pipe.seek(SeekFrom::Start(0))), libc::ESPIPE);
    });
}

fn every_buffer_type_writes_its_bytes(runtime: &Runtime) {
    async fn check<B: IoBuf>(file: &File, buf: B) {
        let address = buf.as_ptr();
        let (result, buf) = file.write_at(buf, 0).await;
        assert_eq!((result.unwrap(), buf.as_bytes()), (5, &b"12345"[..]));
        assert_eq!(buf.as_ptr(), address, "the same buffer comes back");
        let (_, read) = file.read_at(Vec::with_capacity(10), 0).await;
        assert_eq!(read, b"12345");
        file.set_len(0).await.unwrap();
    }
    with_file(runtime, async |file, _| {
        let mut aligned = AlignedBuf::new(5, 512);
        aligned.copy_from_slice(b"12345");
        check(&file, aligned).await;
        check(&file, b"12345".to_vec()).await;
        check(&file, b"12345".to_vec().into_boxed_slice()).await;
        check(&file, &b"12345"[..]).await;
        check(&file, "12345").await;
        check(&file, "12345".to_owned()).await;
        check(&file, Arc::<[u8]>::from(&b"12345"[..])).await;
        check(&file, "0123456789".slice(1..=5)).await;
        check(&file, "12345".slice(..)).await;
        check(&file, "0012345".to_owned().slice(1..).slice(1..)).await;
    });
}

fn every_mutable_buffer_type_is_read_into(runtime: &Runtime) {
    async fn check<B: IoBufMut>(file: &File, buf: B, count: usize) -> B {
        let address = buf.as_ptr();
        let (result, buf) = file.read_at(buf, 0).await;
        assert_eq!((result.unwrap(), &buf.as_bytes()[..count]), (count, &b"1234567890"[..count]));
        assert_eq!(buf.as_ptr(), address, "the same buffer comes back");
        buf
    }
    with_file(runtime, async |file, _| {
        file.write_at("1234567890", 0).await.0.unwrap();
        assert_eq!(check(&file, Vec::with_capacity(100), 10).await.len(), 10);
        assert_eq!(check(&file, vec![0; 8], 8).await.len(), 8);
        let buf = check(&file, vec![9; 12].into_boxed_slice(), 10).await;
        assert_eq!(buf[10..], [9, 9], "past what was read it is as it was");
        assert_eq!(check(&file, AlignedBuf::new(512, 512), 10).await.len(), 512);
        assert_eq!(check(&file, Vec::with_capacity(100).slice(..4), 4).await.into_inner().len(), 4);
    });
}

fn a_slice_is_read_into_where_it_starts(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        file.write_at("1234567890", 0).await.0.unwrap();
        let mut buf = Vec::with_capacity(100);
        buf.extend_from_slice(b"abc");
        let (result, slice) = file.read_at(buf.slice(2..6), 0).await;
        assert_eq!((result.unwrap(), slice.as_bytes()), (4, &b"1234"[..]));
        assert_eq!(slice.into_inner(), b"ab1234");
        let buf = vec![b'.'; 8].into_boxed_slice();
        let (result, slice) = file.read_at(buf.slice(3..5), 8).await;
        assert_eq!(result.unwrap(), 2);
        assert_eq!(&slice.into_inner()[..], b"...90...");
    });
}

fn close_succeeds_and_leaves_the_file_to_clones(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        let clone = file.clone();
        file.close().await.unwrap();
        clone.write_at("abc", 0).await.0.unwrap();
        clone.close().await.unwrap();
    });
}

fn into_std_and_back_keeps_the_cursor(runtime: &Runtime) {
    use std::io::{Read, Write};
    with_file(runtime, async |mut file, _| {
        file.write_all("one,").await.0.unwrap();
        let mut file = file.into_std().unwrap();
        file.write_all(b"two,").unwrap();
        let mut file = File::from_std(file);
        file.write_all("three").await.0.unwrap();
        file.seek(SeekFrom::Start(2)).unwrap();
        let mut text = String::new();
        file.into_std().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(text, "e,two,three");
    });
}

fn into_std_needs_the_last_clone(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        let clone = file.clone();
        let file = file.into_std().unwrap_err();
        drop(clone);
        file.into_std().unwrap();
    });
}

fn no_room_on_the_device_is_an_error(runtime: &Runtime) {
    runtime.block_on(async {
        let mut full = OpenOptions::new().read(true).write(true).open("/dev/full").await.unwrap();
        let (result, buf) = full.write(b"abc".to_vec()).await;
        assert_eq!((errno(result), &buf[..]), (libc::ENOSPC, &b"abc"[..]));
        assert_eq!(errno(full.write_at("abc", 0).await.0), libc::ENOSPC);
        assert_eq!(errno(full.write_all("abc").await.0), libc::ENOSPC);
        assert_eq!(errno(full.write_vectored_at(vec!["abc"; 3], 0).await.0), libc::ENOSPC);
        assert_eq!(errno(fs::write("/dev/full", "abc").await), libc::ENOSPC);
        let (result, buf) = full.read(vec![1; 5].into_boxed_slice()).await;
        assert_eq!((result.unwrap(), &buf[..]), (5, &[0; 5][..]));
    });
}

fn many_reads_in_flight_keep_their_offsets(runtime: &Runtime) {
    with_file(runtime, async |file, _| {
        let data: Vec<u8> = (0..10_000u32).flat_map(u32::to_le_bytes).collect();
        file.write_all_at(data, 0).await.0.unwrap();
        let tasks: Vec<_> = (0..10_000u32)
            .map(|at| {
                let file = file.clone();
                omniring::spawn(async move {
                    let (result, buf) =
                        file.read_at(Vec::with_capacity(4), u64::from(at) * 4).await;
                    assert_eq!((result.unwrap(), buf), (4, at.to_le_bytes().to_vec()));
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
    });
}

fn a_cursor_read_does_not_stop_at_what_is_cached(runtime: &Runtime) {
    with_file(runtime, async |file, path| {
        const LEN: usize = 1 << 20;
        file.write_all_at(pattern(LEN), 0).await.0.unwrap();
        file.sync_all().await.unwrap();
        let mut file = File::open(path).await.unwrap();
        // Nothing in the page cache but the first page, on a file system that forgets on request.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).unwrap();
        file.read_at(Vec::with_capacity(1), 0).await.0.unwrap();
        let (result, buf) = file.read(Vec::with_capacity(LEN)).await;
        assert_eq!(result.unwrap(), LEN);
        assert!(buf == pattern(LEN));
    });
}

fn copy_moves_all(runtime: &Runtime) {
    with_file(runtime, async |mut file, path| {
        file.write_all_at(pattern(1_000_000), 0).await.0.unwrap();
        let other = path.with_file_name("copy");
        let mut to = File::create(&other).await.unwrap();
        assert_eq!(copy(&mut file, &mut to).await.unwrap(), 1_000_000);
        assert!(fs::read(&other).await.unwrap() == pattern(1_000_000));
        assert_eq!(copy(&mut file, &mut to).await.unwrap(), 0);
    });
}

fn whole_files_are_read_and_written(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    runtime.block_on(async {
        for len in [0, 1, 4096, 1_000_000] {
            fs::write(&path, pattern(len)).await.unwrap();
            assert!(fs::read(&path).await.unwrap() == pattern(len), "{len} bytes");
        }
        fs::write(&path, "text").await.unwrap();
        assert_eq!(fs::read_to_string(&path).await.unwrap(), "text");
        fs::write(&path, b"\xff").await.unwrap();
        let error = fs::read_to_string(&path).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
        // A file whose length the kernel does not say.
        let status = fs::read_to_string("/proc/self/status").await.unwrap();
        assert!(status.contains("Pid:"));
    });
}
