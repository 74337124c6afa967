//! Which file system refuses `O_DIRECT`: its errno, `EINVAL`, does not say. Asked only after the
//! fact.

use std::io;
use std::path::Path;

use omniring_driver::Explained;

use super::{FileType, Metadata, metadata};

/// The error of opening with `O_DIRECT`, which names the file and its file system if that refuses.
pub(super) async fn explain_direct(error: io::Error, path: &Path) -> io::Error {
    if error.raw_os_error() != Some(libc::EINVAL) {
        return error;
    }
    let Ok(metadata) = metadata(path).await else { return error };
    let whose = match metadata.file_type() {
        FileType::Dir => "it is a directory".to_owned(),
        FileType::CharDevice => "it is a character device".to_owned(),
        FileType::BlockDevice => "the device refuses it".to_owned(),
        _ => match mount(&metadata) {
            Some(mount) => format!("its file system, {mount}, refuses it"),
            None => "its file system refuses it".to_owned(),
        },
    };
    let what = format!("'{}' cannot be opened with O_DIRECT: {whose}", path.display());
    Explained::new(libc::EINVAL, what).into()
}

/// The file system that a file is on: its kind, and where it is or comes from.
fn mount(metadata: &Metadata) -> Option<String> {
    let number = metadata.mount()?.to_string();
    // The kernel makes it up: nothing to wait for.
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let line = mounts.lines().find(|line| line.split(' ').next() == Some(&number))?;
    // See proc_pid_mountinfo(5): fields, some optional ones, a dash, kind and source.
    let mount_point = line.split(' ').nth(4)?;
    let (_, rest) = line.split_once(" - ")?;
    let mut rest = rest.split(' ');
    let (kind, source) = (rest.next()?, rest.next()?);
    Some(format!("{kind} of {source} at {mount_point}"))
}
