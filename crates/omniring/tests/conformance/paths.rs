//! Paths: opening, asking, and changing directories.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::future::Future;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::task::Poll;

use omniring::Runtime;
use omniring::fs::{self, File, FileType, OpenOptions};
use rustix::fs::{CWD, Mode};

use crate::harness::{conformance, errno};

conformance!(
    opening_what_is_not_there_fails,
    opening_says_why_a_path_leads_nowhere,
    a_path_with_a_zero_byte_is_refused,
    create_new_fails_on_what_is_there,
    open_options_that_make_no_sense_are_refused,
    truncate_empties_and_create_makes,
    the_mode_is_that_asked_for,
    a_directory_cannot_be_opened_for_writing,
    a_file_without_permission_cannot_be_opened,
    opened_files_are_not_inherited,
    a_fifo_opens_for_reading_at_once,
    rename_replaces,
    rename_says_why_not,
    remove_file_removes_a_name,
    remove_dir_wants_it_empty,
    create_dir_fails_where_something_is,
    create_dir_all_makes_what_is_missing,
    create_dir_all_fails_at_a_file,
    a_hard_link_is_the_same_file,
    a_symlink_leads_to_its_target,
    metadata_agrees_with_std,
    metadata_knows_every_kind_of_file,
    read_dir_lists_nothing_in_an_empty_directory,
    read_dir_lists_every_entry_once,
    read_dir_knows_kinds_and_inodes,
    read_dir_of_what_is_no_directory_fails,
    an_entry_that_nobody_waited_for_does_no_harm,
    relative_paths_start_at_the_current_directory,
);

fn scratch() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn opening_what_is_not_there_fails(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("nothing");
        assert_eq!(errno(File::open(&path).await), libc::ENOENT);
        assert_eq!(errno(File::create(path.join("file")).await), libc::ENOENT);
        assert_eq!(errno(OpenOptions::new().write(true).open(&path).await), libc::ENOENT);
        assert_eq!(errno(File::open("").await), libc::ENOENT);
        assert_eq!(errno(fs::read(&path).await), libc::ENOENT);
        assert_eq!(errno(fs::metadata(&path).await), libc::ENOENT);
        assert_eq!(errno(fs::symlink_metadata(&path).await), libc::ENOENT);
        assert_eq!(errno(fs::remove_file(&path).await), libc::ENOENT);
        assert_eq!(errno(fs::remove_dir(&path).await), libc::ENOENT);
        assert_eq!(errno(fs::create_dir(path.join("dir")).await), libc::ENOENT);
        assert_eq!(errno(fs::rename(&path, dir.path().join("new")).await), libc::ENOENT);
        assert_eq!(errno(fs::hard_link(&path, dir.path().join("new")).await), libc::ENOENT);
        assert_eq!(errno(fs::symlink("target", path.join("link")).await), libc::ENOENT);
        assert_eq!(errno(fs::read_dir(&path).await), libc::ENOENT);
    });
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "nothing was made");
}

fn opening_says_why_a_path_leads_nowhere(runtime: &Runtime) {
    let dir = scratch();
    let file = dir.path().join("file");
    let cycle = dir.path().join("cycle");
    std::fs::write(&file, "").unwrap();
    std::os::unix::fs::symlink(&cycle, &cycle).unwrap();
    runtime.block_on(async {
        assert_eq!(errno(File::open(file.join("below")).await), libc::ENOTDIR);
        assert_eq!(errno(File::create(file.join("below")).await), libc::ENOTDIR);
        assert_eq!(errno(fs::metadata(file.join("below")).await), libc::ENOTDIR);
        assert_eq!(errno(File::open(&cycle).await), libc::ELOOP);
        assert_eq!(errno(fs::metadata(&cycle).await), libc::ELOOP);
        assert!(fs::symlink_metadata(&cycle).await.unwrap().is_symlink());
        let long = dir.path().join("n".repeat(256));
        assert_eq!(errno(File::create(&long).await), libc::ENAMETOOLONG);
        assert_eq!(errno(fs::create_dir(&long).await), libc::ENAMETOOLONG);
        let long = PathBuf::from("d/".repeat(2_048));
        assert_eq!(errno(File::open(&long).await), libc::ENAMETOOLONG);
        let options = OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).clone();
        assert_eq!(errno(options.open(&file).await), libc::ENOTDIR);
        let options = OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW).clone();
        assert_eq!(errno(options.open(&cycle).await), libc::ELOOP);
    });
}

fn a_path_with_a_zero_byte_is_refused(runtime: &Runtime) {
    let path = Path::new("/tmp/zero\0byte");
    runtime.block_on(async {
        let errors = [
            File::open(path).await.unwrap_err(),
            fs::metadata(path).await.unwrap_err(),
            fs::remove_file(path).await.unwrap_err(),
            fs::rename("/tmp", path).await.unwrap_err(),
            fs::create_dir(path).await.unwrap_err(),
            fs::read_dir(path).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
            assert!(error.to_string().contains("zero byte"), "{error}");
        }
    });
}

fn create_new_fails_on_what_is_there(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("file");
        let options = OpenOptions::new().write(true).create_new(true).clone();
        options.open(&path).await.unwrap();
        assert_eq!(errno(options.open(&path).await), libc::EEXIST);
        assert_eq!(errno(options.open(dir.path()).await), libc::EEXIST);
        let link = dir.path().join("link");
        fs::symlink("nowhere", &link).await.unwrap();
        assert_eq!(errno(options.open(&link).await), libc::EEXIST, "a link that leads nowhere");
    });
}

fn open_options_that_make_no_sense_are_refused(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("file");
        let refused: [OpenOptions; 6] = [
            OpenOptions::new(),
            OpenOptions::new().create(true).clone(),
            OpenOptions::new().read(true).create(true).clone(),
            OpenOptions::new().read(true).truncate(true).clone(),
            OpenOptions::new().read(true).create_new(true).clone(),
            OpenOptions::new().append(true).truncate(true).clone(),
        ];
        for options in refused {
            let error = options.open(&path).await.unwrap_err();
            assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{options:?}");
        }
        assert!(!path.exists());
    });
}

fn truncate_empties_and_create_makes(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    runtime.block_on(async {
        OpenOptions::new().append(true).create(true).open(&path).await.unwrap();
        std::fs::write(&path, "contents").unwrap();
        OpenOptions::new().write(true).create(true).open(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).await.unwrap().len(), 8);
        OpenOptions::new().write(true).truncate(true).open(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).await.unwrap().len(), 0);
        std::fs::write(&path, "contents").unwrap();
        File::create(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).await.unwrap().len(), 0);
    });
}

fn the_mode_is_that_asked_for(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("file");
        OpenOptions::new().write(true).create(true).mode(0o600).open(&path).await.unwrap();
        assert_eq!(fs::metadata(&path).await.unwrap().mode(), libc::S_IFREG | 0o600);
        let path = dir.path().join("default");
        File::create(&path).await.unwrap();
        let std = dir.path().join("std");
        std::fs::File::create(&std).unwrap();
        let expected = std::fs::metadata(&std).unwrap().mode();
        assert_eq!(fs::metadata(&path).await.unwrap().mode(), expected);
        let path = dir.path().join("dir");
        fs::create_dir(&path).await.unwrap();
        std::fs::create_dir(dir.path().join("std-dir")).unwrap();
        let expected = std::fs::metadata(dir.path().join("std-dir")).unwrap().mode();
        assert_eq!(fs::metadata(&path).await.unwrap().mode(), expected);
    });
}

fn a_directory_cannot_be_opened_for_writing(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        assert_eq!(errno(File::create(dir.path()).await), libc::EISDIR);
        assert_eq!(errno(OpenOptions::new().write(true).open(dir.path()).await), libc::EISDIR);
        assert_eq!(errno(fs::write(dir.path(), "x").await), libc::EISDIR);
    });
}

fn a_file_without_permission_cannot_be_opened(runtime: &Runtime) {
    runtime.block_on(async {
        let writing = OpenOptions::new().write(true).clone();
        // Not even the superuser may: what the kernel only tells, and a program that runs.
        assert_eq!(errno(writing.open("/proc/sys/kernel/ostype").await), libc::EACCES);
        assert_eq!(errno(writing.open("/proc/self/exe").await), libc::ETXTBSY);
    });
}

fn opened_files_are_not_inherited(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let file = File::create(dir.path().join("file")).await.unwrap();
        let flags = rustix::io::fcntl_getfd(&file).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
    });
}

fn a_fifo_opens_for_reading_at_once(runtime: &Runtime) {
    use omniring::{AsyncRead, AsyncWrite};
    let dir = scratch();
    let path = dir.path().join("fifo");
    rustix::fs::mknodat(CWD, &path, rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    runtime.block_on(async {
        let writing = OpenOptions::new().write(true).clone();
        assert_eq!(errno(writing.open(&path).await), libc::ENXIO, "nobody reads");
        let mut reader = File::open(&path).await.unwrap();
        let mut clone = reader.clone();
        let read = omniring::spawn(async move { clone.read(Vec::with_capacity(10)).await.1 });
        crate::pipes::let_others_run().await;
        assert!(!read.is_finished(), "a read waits for the first writer");
        let mut writer = writing.open(&path).await.unwrap();
        for file in [&reader, &writer] {
            let flags = rustix::fs::fcntl_getfl(file).unwrap();
            assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "{flags:?}");
        }
        crate::pipes::let_others_run().await;
        assert!(!read.is_finished());
        writer.write_all("hello").await.0.unwrap();
        assert_eq!(read.await.unwrap(), b"hello");
        drop(writer);
        assert_eq!(reader.read(Vec::with_capacity(10)).await.0.unwrap(), 0, "the last one left");
    });
}

fn rename_replaces(runtime: &Runtime) {
    let dir = scratch();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    runtime.block_on(async {
        fs::write(&one, "one").await.unwrap();
        fs::write(&other, "other").await.unwrap();
        fs::rename(&one, &other).await.unwrap();
        assert_eq!(fs::read(&other).await.unwrap(), b"one");
        assert_eq!(errno(fs::metadata(&one).await), libc::ENOENT);
        fs::rename(&other, &other).await.unwrap();
        fs::create_dir(&one).await.unwrap();
        fs::create_dir(dir.path().join("empty")).await.unwrap();
        fs::rename(&one, dir.path().join("empty")).await.unwrap();
    });
}

fn rename_says_why_not(runtime: &Runtime) {
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    runtime.block_on(async {
        fs::write(path("file"), "").await.unwrap();
        fs::create_dir(path("dir")).await.unwrap();
        fs::write(path("dir/inside"), "").await.unwrap();
        fs::create_dir(path("empty")).await.unwrap();
        assert_eq!(errno(fs::rename(path("file"), path("dir")).await), libc::EISDIR);
        assert_eq!(errno(fs::rename(path("dir"), path("file")).await), libc::ENOTDIR);
        assert_eq!(errno(fs::rename(path("empty"), path("dir")).await), libc::ENOTEMPTY);
        assert_eq!(errno(fs::rename(path("dir"), path("dir/below")).await), libc::EINVAL);
        assert_eq!(errno(fs::rename(path("file"), "/proc/self/file").await), libc::EXDEV);
    });
}

fn remove_file_removes_a_name(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("file");
        fs::write(&path, "contents").await.unwrap();
        let file = File::open(&path).await.unwrap();
        fs::remove_file(&path).await.unwrap();
        assert_eq!(errno(fs::remove_file(&path).await), libc::ENOENT);
        let (_, buf) = file.read_at(Vec::with_capacity(10), 0).await;
        assert_eq!(buf, b"contents", "it is still there for who has it open");
        assert_eq!(file.metadata().await.unwrap().link_count(), 0);
        assert_eq!(errno(fs::remove_file(dir.path()).await), libc::EISDIR);
        fs::symlink("nowhere", &path).await.unwrap();
        fs::remove_file(&path).await.unwrap();
    });
}

fn remove_dir_wants_it_empty(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("dir");
        fs::create_dir(&path).await.unwrap();
        fs::write(path.join("file"), "").await.unwrap();
        assert_eq!(errno(fs::remove_dir(&path).await), libc::ENOTEMPTY);
        assert_eq!(errno(fs::remove_dir(path.join("file")).await), libc::ENOTDIR);
        fs::remove_file(path.join("file")).await.unwrap();
        fs::remove_dir(&path).await.unwrap();
        assert!(!path.exists());
        assert_eq!(errno(fs::remove_dir("/").await), libc::EBUSY);
    });
}

fn create_dir_fails_where_something_is(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("dir");
        fs::create_dir(&path).await.unwrap();
        assert_eq!(errno(fs::create_dir(&path).await), libc::EEXIST);
        fs::write(path.join("file"), "").await.unwrap();
        assert_eq!(errno(fs::create_dir(path.join("file")).await), libc::EEXIST);
        assert_eq!(errno(fs::create_dir(path.join("file/below")).await), libc::ENOTDIR);
        assert_eq!(errno(fs::create_dir("/").await), libc::EEXIST);
    });
}

fn create_dir_all_makes_what_is_missing(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("a/b/c/d");
        fs::create_dir_all(&path).await.unwrap();
        assert!(path.is_dir());
        fs::create_dir_all(&path).await.unwrap();
        fs::create_dir_all(path.join("e/")).await.unwrap();
        assert!(path.join("e").is_dir());
        fs::create_dir_all("/").await.unwrap();
        fs::create_dir_all("").await.unwrap();
        fs::symlink(&path, dir.path().join("link")).await.unwrap();
        fs::create_dir_all(dir.path().join("link/f/g")).await.unwrap();
        assert!(path.join("f/g").is_dir());
        fs::create_dir_all(dir.path().join("link")).await.unwrap();
    });
}

fn create_dir_all_fails_at_a_file(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        let path = dir.path().join("file");
        fs::write(&path, "").await.unwrap();
        assert_eq!(errno(fs::create_dir_all(&path).await), libc::EEXIST);
        assert_eq!(errno(fs::create_dir_all(path.join("a/b")).await), libc::ENOTDIR);
    });
}

fn a_hard_link_is_the_same_file(runtime: &Runtime) {
    let dir = scratch();
    let (one, other) = (dir.path().join("one"), dir.path().join("other"));
    runtime.block_on(async {
        fs::write(&one, "before").await.unwrap();
        fs::hard_link(&one, &other).await.unwrap();
        fs::write(&one, "after").await.unwrap();
        assert_eq!(fs::read(&other).await.unwrap(), b"after");
        let (first, second) =
            (fs::metadata(&one).await.unwrap(), fs::metadata(&other).await.unwrap());
        assert_eq!((first.inode(), first.link_count()), (second.inode(), 2));
        assert_eq!(errno(fs::hard_link(&one, &other).await), libc::EEXIST);
        assert_eq!(errno(fs::hard_link(dir.path(), dir.path().join("dir")).await), libc::EPERM);
        let link = dir.path().join("link");
        fs::symlink("one", &link).await.unwrap();
        fs::hard_link(&link, dir.path().join("link-too")).await.unwrap();
        let metadata = fs::symlink_metadata(dir.path().join("link-too")).await.unwrap();
        assert!(metadata.is_symlink(), "of the link itself");
    });
}

fn a_symlink_leads_to_its_target(runtime: &Runtime) {
    let dir = scratch();
    let link = dir.path().join("link");
    runtime.block_on(async {
        fs::symlink("file", &link).await.unwrap();
        assert_eq!(std::fs::read_link(&link).unwrap(), Path::new("file"));
        assert_eq!(errno(fs::read(&link).await), libc::ENOENT);
        fs::write(&link, "through the link").await.unwrap();
        assert_eq!(fs::read(dir.path().join("file")).await.unwrap(), b"through the link");
        assert!(fs::metadata(&link).await.unwrap().is_file());
        let metadata = fs::symlink_metadata(&link).await.unwrap();
        assert_eq!((metadata.is_symlink(), metadata.len()), (true, 4));
        assert_eq!(errno(fs::symlink("file", &link).await), libc::EEXIST);
        assert_eq!(errno(fs::symlink("", dir.path().join("empty")).await), libc::ENOENT);
        fs::remove_file(&link).await.unwrap();
        assert!(dir.path().join("file").exists());
    });
}

fn metadata_agrees_with_std(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    std::fs::write(&path, vec![1; 10_000]).unwrap();
    std::os::unix::fs::symlink("file", dir.path().join("link")).unwrap();
    runtime.block_on(async {
        let opened = File::open(&path).await.unwrap().metadata().await.unwrap();
        let by_path = fs::metadata(&path).await.unwrap();
        let by_link = fs::metadata(dir.path().join("link")).await.unwrap();
        let expected = std::fs::metadata(&path).unwrap();
        for metadata in [opened, by_path, by_link] {
            assert_eq!(metadata.len(), expected.len());
            assert_eq!(metadata.mode(), expected.mode());
            assert_eq!(metadata.inode(), expected.ino());
            assert_eq!(u64::from(metadata.link_count()), expected.nlink());
            assert_eq!(metadata.owner(), (expected.uid(), expected.gid()));
            assert_eq!(metadata.allocated_len(), expected.blocks() * 512);
            assert_eq!(metadata.modified(), expected.modified().unwrap());
            assert_eq!(metadata.accessed(), expected.accessed().unwrap());
            assert_eq!(metadata.created(), expected.created().ok());
            let (major, minor) = metadata.device();
            assert_eq!(libc::makedev(major, minor), expected.dev());
            assert!(metadata.is_file() && !metadata.is_dir() && !metadata.is_symlink());
        }
    });
}

fn metadata_knows_every_kind_of_file(runtime: &Runtime) {
    let dir = scratch();
    let path = |name: &str| dir.path().join(name);
    rustix::fs::mknodat(CWD, path("fifo"), rustix::fs::FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
    runtime.block_on(async {
        let kind = async |path: PathBuf| fs::metadata(path).await.unwrap().file_type();
        assert_eq!(kind(path("fifo")).await, FileType::Fifo);
        assert_eq!(kind(path("socket")).await, FileType::Socket);
        assert_eq!(kind("/dev/null".into()).await, FileType::CharDevice);
        assert_eq!(kind(path("")).await, FileType::Dir);
        let (reader, _writer) = std::io::pipe().unwrap();
        let pipe = File::from_fd(reader.into());
        assert_eq!(pipe.metadata().await.unwrap().file_type(), FileType::Fifo);
        assert_eq!(errno(File::open(path("socket")).await), libc::ENXIO);
    });
}

async fn names(path: &Path) -> Vec<OsString> {
    let mut entries = fs::read_dir(path).await.unwrap();
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await.unwrap() {
        assert_eq!(entry.path(), path.join(entry.file_name()));
        names.push(entry.file_name().to_owned());
    }
    assert_eq!(entries.next_entry().await.unwrap(), None, "the end, again and again");
    names
}

fn read_dir_lists_nothing_in_an_empty_directory(runtime: &Runtime) {
    let dir = scratch();
    runtime.block_on(async {
        assert!(names(dir.path()).await.is_empty());
        File::create(dir.path().join("one")).await.unwrap();
        assert_eq!(names(dir.path()).await, [OsStr::new("one")]);
    });
}

fn read_dir_lists_every_entry_once(runtime: &Runtime) {
    let dir = scratch();
    let mut expected = BTreeSet::new();
    for at in 0..3_000usize {
        // Lengths from 4 to 255 bytes, and bytes that are no UTF-8.
        let mut name = format!("{at:04}").into_bytes();
        name.resize(4 + at % 252, if at % 3 == 0 { 0xff } else { b'n' });
        let name = OsString::from_vec(name);
        std::fs::File::create(dir.path().join(&name)).unwrap();
        expected.insert(name);
    }
    runtime.block_on(async {
        let names = names(dir.path()).await;
        assert_eq!(names.len(), 3_000);
        assert!(names.into_iter().collect::<BTreeSet<_>>() == expected);
    });
}

fn read_dir_knows_kinds_and_inodes(runtime: &Runtime) {
    let dir = scratch();
    std::fs::create_dir(dir.path().join("dir")).unwrap();
    std::fs::write(dir.path().join("file"), "").unwrap();
    std::os::unix::fs::symlink("file", dir.path().join("symlink")).unwrap();
    runtime.block_on(async {
        let mut entries = fs::read_dir(dir.path()).await.unwrap();
        while let Some(entry) = entries.next_entry().await.unwrap() {
            let metadata = fs::symlink_metadata(entry.path()).await.unwrap();
            assert_eq!(entry.inode(), metadata.inode());
            let kind = entry.file_type();
            assert!(kind == metadata.file_type() || kind == FileType::Unknown, "{entry:?}");
        }
    });
}

fn read_dir_of_what_is_no_directory_fails(runtime: &Runtime) {
    let dir = scratch();
    let path = dir.path().join("file");
    std::fs::write(&path, "").unwrap();
    runtime.block_on(async {
        assert_eq!(errno(fs::read_dir(&path).await), libc::ENOTDIR);
        assert_eq!(errno(fs::read_dir("/dev/null").await), libc::ENOTDIR);
        let gone = dir.path().join("gone");
        std::fs::create_dir(&gone).unwrap();
        let mut entries = fs::read_dir(&gone).await.unwrap();
        std::fs::remove_dir(&gone).unwrap();
        assert_eq!(errno(entries.next_entry().await), libc::ENOENT);
    });
}

fn an_entry_that_nobody_waited_for_does_no_harm(runtime: &Runtime) {
    let dir = scratch();
    for at in 0..2_000 {
        std::fs::write(dir.path().join(format!("file-{at}")), "").unwrap();
    }
    runtime.block_on(async {
        let mut entries = fs::read_dir(dir.path()).await.unwrap();
        let mut count = 0;
        loop {
            // Polled once and dropped: in flight, unless the engine completes it at once.
            let entry = {
                let mut next = pin!(entries.next_entry());
                std::future::poll_fn(|cx| Poll::Ready(next.as_mut().poll(cx))).await
            };
            let entry = match entry {
                Poll::Ready(entry) => entry.unwrap(),
                Poll::Pending => entries.next_entry().await.unwrap(),
            };
            match entry {
                Some(_) => count += 1,
                None => break,
            }
        }
        assert!(count <= 2_000);
    });
}

fn relative_paths_start_at_the_current_directory(runtime: &Runtime) {
    runtime.block_on(async {
        let here = std::fs::metadata(".").unwrap();
        assert_eq!(fs::metadata(".").await.unwrap().inode(), here.ino());
        let manifest = fs::read("Cargo.toml").await.unwrap();
        assert!(manifest == std::fs::read("Cargo.toml").unwrap());
    });
}
