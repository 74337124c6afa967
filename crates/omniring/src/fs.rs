//! Files and directories.

mod dir;
mod direct;
mod file;
mod lock;
mod metadata;
mod mmap;
mod vectored;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use omniring_driver::ops;

pub use dir::{DirEntry, ReadDir, read_dir};
pub use file::{File, OpenOptions};
pub use metadata::{FileType, Metadata};
pub use mmap::{Advice, Mmap};
pub use omniring_driver::ops::ReadMany;

use crate::executor::current;
use crate::io::{AsyncRead, AsyncWrite};

/// A path as the kernel takes it.
pub(crate) fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| {
        let what = format!("the path {path:?} contains a zero byte");
        io::Error::new(io::ErrorKind::InvalidInput, what)
    })
}

/// The contents of a file.
pub async fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let mut file = File::open(path).await?;
    // One byte more than the file has shows its end without a further growth.
    let len = usize::try_from(file.metadata().await?.len()).unwrap_or(usize::MAX);
    let mut buf: Vec<u8> = Vec::new();
    buf.try_reserve(len.saturating_add(1)).map_err(|_| io::ErrorKind::OutOfMemory)?;
    loop {
        if buf.len() == buf.capacity() {
            buf.reserve(64 * 1024);
        }
        let filled = buf.len();
        let (result, slice) = file.read(crate::buf::IoBufExt::slice(buf, filled..)).await;
        buf = slice.into_inner();
        if result? == 0 {
            return Ok(buf);
        }
    }
}

/// The contents of a file that holds UTF-8 text.
pub async fn read_to_string(path: impl AsRef<Path>) -> io::Result<String> {
    String::from_utf8(read(path).await?)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Replaces the contents of a file, which is made if it is not there.
pub async fn write(path: impl AsRef<Path>, contents: impl Into<Vec<u8>>) -> io::Result<()> {
    let mut file = File::create(path).await?;
    let (result, _) = file.write_all(contents.into()).await;
    result?;
    file.close().await
}

/// What is known of the file at `path`, following symbolic links.
pub async fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let stat = ops::stat_path(&current().driver, c_path(path.as_ref())?, 0);
    stat.await.map(Metadata::new)
}

/// What is known of the file at `path`, of the link itself if it is one.
pub async fn symlink_metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = c_path(path.as_ref())?;
    ops::stat_path(&current().driver, path, libc::AT_SYMLINK_NOFOLLOW).await.map(Metadata::new)
}

/// Gives the file at `from` the name `to`, replacing what has that name.
pub async fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (c_path(from.as_ref())?, c_path(to.as_ref())?);
    ops::rename(&current().driver, from, to, 0).await
}

/// Removes a file's name.
pub async fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    ops::unlink(&current().driver, c_path(path.as_ref())?, 0).await
}

/// Removes an empty directory.
pub async fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    ops::unlink(&current().driver, c_path(path.as_ref())?, libc::AT_REMOVEDIR).await
}

/// Makes a directory.
pub async fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    ops::make_dir(&current().driver, c_path(path.as_ref())?, 0o777).await
}

/// Makes a directory and those above it, as far as they are missing.
pub async fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let mut missing = Vec::new();
    for directory in path.ancestors().filter(|path| !path.as_os_str().is_empty()) {
        match create_dir(directory).await {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(directory),
            Err(error) => {
                // It may be there already, as a directory or a link to one.
                match metadata(directory).await {
                    Ok(known) if known.is_dir() => break,
                    _ => return Err(error),
                }
            }
        }
    }
    for directory in missing.into_iter().rev() {
        match create_dir(directory).await {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// Gives the file at `from` the further name `to`.
pub async fn hard_link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (c_path(from.as_ref())?, c_path(to.as_ref())?);
    ops::link(&current().driver, from, to).await
}

/// Makes `link` a symbolic link to `target`.
pub async fn symlink(target: impl AsRef<Path>, link: impl AsRef<Path>) -> io::Result<()> {
    let (target, link) = (c_path(target.as_ref())?, c_path(link.as_ref())?);
    ops::symlink(&current().driver, target, link).await
}
