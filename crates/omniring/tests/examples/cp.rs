//! Copies, compared by diff and cmp.

use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use omniring::Runtime;

use crate::harness::disk_dir;
use crate::program::{command, fails};
use crate::programs::is_there;

on_some_engines!(
    diff_finds_no_difference_between_a_tree_and_its_copy,
    modes_times_links_and_holes_are_kept,
    a_large_file_is_copied_in_parts,
    what_would_destroy_or_never_end_is_refused,
    what_goes_wrong_is_named_and_the_rest_is_copied,
);

/// Runs the copy, which succeeds, and returns what it says.
fn copy(runtime: &Runtime, arguments: &[&str]) -> String {
    let mut command = command("cp", arguments, runtime);
    let output = command.arg("--verbose").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{:?}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Whether another program sees them as the same.
fn same(program: &str, arguments: &[&str], one: &Path, other: &Path) {
    let output = Command::new(program).args(arguments).args([one, other]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn pattern(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

fn diff_finds_no_difference_between_a_tree_and_its_copy(runtime: &Runtime) {
    if !is_there("diff") {
        return;
    }
    let dir = disk_dir();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    for at in 0..60 {
        let deep = from.join(format!("{}/{}", at % 7, at % 3));
        fs::create_dir_all(&deep).unwrap();
        fs::write(deep.join(format!("file {at}")), pattern(at * 997)).unwrap();
    }
    fs::create_dir(from.join("empty")).unwrap();
    let said = copy(runtime, &[text(&from), text(&to), "--part-len", "10000"]);
    same("diff", &["-r", "--no-dereference"], &from, &to);
    assert!(said.starts_with("60 files (") && said.contains(" 30 directories"), "{said}");
    // Once more, into the directory that is there by now, and over what is in it.
    copy(runtime, &[text(&from), text(&to)]);
    same("diff", &["-r", "--no-dereference"], &from, &to.join("from"));
    fs::write(to.join("from/0/0/file 0"), "longer than it was").unwrap();
    copy(runtime, &[text(&from), text(&to)]);
    same("diff", &["-r", "--no-dereference"], &from, &to.join("from"));
}

fn modes_times_links_and_holes_are_kept(runtime: &Runtime) {
    let dir = disk_dir();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir(&from).unwrap();
    let mut sparse = File::create(from.join("sparse")).unwrap();
    sparse.write_all(b"start").unwrap();
    sparse.seek(SeekFrom::Start(40 << 20)).unwrap();
    sparse.write_all(b"middle").unwrap();
    sparse.set_len(60 << 20).unwrap();
    fs::write(from.join("secret"), "").unwrap();
    symlink("secret", from.join("link")).unwrap();
    symlink("/nowhere", from.join("dangling")).unwrap();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    let before = SystemTime::UNIX_EPOCH - Duration::new(1_000, 250_000_000);
    let set = |path: &Path, mode: u32, time| {
        let file = File::open(path).unwrap();
        file.set_times(FileTimes::new().set_accessed(time).set_modified(time)).unwrap();
        file.set_permissions(fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&from.join("secret"), 0o400, long_ago);
    set(&from.join("sparse"), 0o751, before);
    set(&from, 0o500, long_ago);
    copy(runtime, &[text(&from), text(&to)]);
    for name in ["secret", "sparse", "link", "dangling", ""] {
        let facts = |root: &Path| {
            let known = fs::symlink_metadata(root.join(name)).unwrap();
            (
                known.mode(),
                known.mtime(),
                known.mtime_nsec(),
                known.is_file().then_some(known.len()),
            )
        };
        assert_eq!(facts(&to), facts(&from), "{name}");
    }
    assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("/nowhere"));
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("secret"));
    let (is, was) = (fs::metadata(to.join("sparse")).unwrap(), sparse.metadata().unwrap());
    assert!(is.blocks() <= was.blocks(), "{} blocks, {} before", is.blocks(), was.blocks());
    // So that an ordinary user can remove them.
    for root in [&from, &to] {
        fs::set_permissions(root, fs::Permissions::from_mode(0o700)).unwrap();
    }
}

fn a_large_file_is_copied_in_parts(runtime: &Runtime) {
    if !is_there("cmp") {
        return;
    }
    let dir = disk_dir();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::write(&from, pattern(5_000_001)).unwrap();
    for part_len in ["4097", "1048576"] {
        copy(runtime, &[text(&from), text(&to), "--part-len", part_len, "--parts", "7"]);
        same("cmp", &[], &from, &to);
        fs::remove_file(&to).unwrap();
    }
}

fn make_fifo(dir: &Path) -> PathBuf {
    let fifo = dir.join("fifo");
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    fifo
}

fn what_would_destroy_or_never_end_is_refused(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let (tree, file, link) =
        (dir.path().join("tree"), dir.path().join("file"), dir.path().join("hard link"));
    fs::create_dir_all(tree.join("sub")).unwrap();
    fs::write(&file, "precious").unwrap();
    fs::hard_link(&file, &link).unwrap();
    symlink(&tree, dir.path().join("by another name")).unwrap();
    for to in ["tree", "tree/sub", "tree/new", "by another name/sub/new/newer"] {
        let said = fails(1, "cp", &[text(&tree), text(&dir.path().join(to))], runtime);
        assert!(said.contains("into itself") && said.contains(text(&tree)), "{said}");
    }
    for to in [&file, &link] {
        let said = fails(1, "cp", &[text(&file), text(to)], runtime);
        assert!(said.contains("onto itself") && said.contains(text(&file)), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
    let fifo = make_fifo(dir.path());
    let said = fails(1, "cp", &[text(&file), text(&fifo)], runtime);
    assert!(said.contains(text(&fifo)) && said.contains("Fifo"), "{said}");
    assert!(fs::symlink_metadata(&fifo).is_ok(), "it stays");
    let said = fails(2, "cp", &[text(&file), text(&link), "/nowhere/at/all"], runtime);
    assert!(said.contains("/nowhere/at/all: not a directory"), "{said}");
}

fn what_goes_wrong_is_named_and_the_rest_is_copied(runtime: &Runtime) {
    let dir = tempfile::tempdir().unwrap();
    let (from, to) = (dir.path().join("from"), dir.path().join("to"));
    fs::create_dir_all(from.join("sub")).unwrap();
    fs::write(from.join("sub/file"), "there").unwrap();
    let fifo = make_fifo(&from);
    let said = fails(1, "cp", &[text(&from), text(&to)], runtime);
    assert!(said.contains(text(&fifo)) && said.contains("Fifo"), "{said}");
    assert_eq!(fs::read_to_string(to.join("sub/file")).unwrap(), "there");
    let said = fails(1, "cp", &["/nowhere/at/all", text(&to)], runtime);
    assert!(
        said.contains("/nowhere/at/all: No such file") && said.contains("os error 2"),
        "{said}"
    );
    // A directory where a file is to go, and a file where a directory is.
    fs::write(dir.path().join("sub"), "").unwrap();
    let said = fails(1, "cp", &[text(&dir.path().join("sub")), text(&to)], runtime);
    assert!(said.contains(text(&to.join("sub"))) && said.contains("Dir"), "{said}");
    let said = fails(1, "cp", &[text(&from), text(&dir.path().join("sub"))], runtime);
    assert!(said.contains("not a directory"), "{said}");
}
