//! Reading directories.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use omniring_driver::{SharedHandle, ops};

use super::{FileType, c_path};
use crate::executor::current;

/// Room for entries of one call.
const BUF_LEN: usize = 32 * 1024;
/// Where things stand in a `linux_dirent64`: see `getdents64(2)`.
const RECORD_LEN_AT: usize = 16;
const TYPE_AT: usize = 18;
const NAME_AT: usize = 19;

/// Opens a directory for reading its entries.
pub async fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    let path = path.as_ref();
    let flags = libc::O_RDONLY | libc::O_DIRECTORY;
    let handle = ops::open(&current().driver, c_path(path)?, flags, 0).await?;
    Ok(ReadDir { handle, path: path.to_owned(), buf: Vec::with_capacity(BUF_LEN), at: 0 })
}

/// The entries of a directory, in the file system's order.
#[derive(Debug)]
pub struct ReadDir {
    handle: SharedHandle,
    path: PathBuf,
    buf: Vec<u8>,
    at: usize,
}

impl ReadDir {
    /// The next entry, `None` after the last. `.` and `..` are left out.
    ///
    /// If the future is dropped, entries may be left out too.
    pub async fn next_entry(&mut self) -> io::Result<Option<DirEntry>> {
        loop {
            if self.at == self.buf.len() {
                // Dropped in flight, this future leaves an empty buffer behind.
                let mut buf = std::mem::take(&mut self.buf);
                self.at = 0;
                buf.clear();
                buf.reserve(BUF_LEN);
                let (result, buf) = ops::read_dir(&self.handle, buf).await;
                self.buf = buf;
                if result? == 0 {
                    self.buf.clear();
                    return Ok(None);
                }
            }
            let record = &self.buf[self.at..];
            let len =
                usize::from(u16::from_ne_bytes([record[RECORD_LEN_AT], record[RECORD_LEN_AT + 1]]));
            let inode = u64::from_ne_bytes(record[..8].try_into().expect("8 bytes"));
            let kind = record[TYPE_AT];
            let name = record[NAME_AT..len].split(|&byte| byte == 0).next().unwrap_or_default();
            self.at += len;
            if name != b"." && name != b".." {
                let name = OsString::from_vec(name.to_vec());
                return Ok(Some(DirEntry { path: self.path.join(&name), name, inode, kind }));
            }
        }
    }
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    path: PathBuf,
    name: OsString,
    inode: u64,
    kind: u8,
}

impl DirEntry {
    /// The directory's path with the entry's name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The entry's name.
    pub fn file_name(&self) -> &OsStr {
        OsStr::from_bytes(self.name.as_bytes())
    }

    /// Number of the file on its device.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// What kind of file it is, where the file system keeps that in the directory.
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(u32::from(self.kind) << 12)
    }
}
