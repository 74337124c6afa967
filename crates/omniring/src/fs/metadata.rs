//! What the kernel knows of a file: see `statx(2)`.

use std::fmt;
use std::time::{Duration, SystemTime};

/// What the kernel knows of a file, at the time it was asked.
#[derive(Clone)]
pub struct Metadata {
    stat: Box<libc::statx>,
}

/// What kind of file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharDevice,
    /// A pipe with a name.
    Fifo,
    /// A Unix socket.
    Socket,
    /// The file system does not say.
    Unknown,
}

impl FileType {
    pub(super) fn from_mode(mode: u32) -> FileType {
        match mode & libc::S_IFMT {
            libc::S_IFREG => FileType::File,
            libc::S_IFDIR => FileType::Dir,
            libc::S_IFLNK => FileType::Symlink,
            libc::S_IFBLK => FileType::BlockDevice,
            libc::S_IFCHR => FileType::CharDevice,
            libc::S_IFIFO => FileType::Fifo,
            libc::S_IFSOCK => FileType::Socket,
            _ => FileType::Unknown,
        }
    }
}

impl Metadata {
    pub(super) fn new(stat: Box<libc::statx>) -> Metadata {
        Metadata { stat }
    }

    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "as std's")]
    pub fn len(&self) -> u64 {
        self.stat.stx_size
    }

    /// What kind of file it is.
    pub fn file_type(&self) -> FileType {
        FileType::from_mode(self.stat.stx_mode.into())
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.file_type() == FileType::File
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.file_type() == FileType::Dir
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.file_type() == FileType::Symlink
    }

    /// Kind and permissions, as in `st_mode`.
    pub fn mode(&self) -> u32 {
        self.stat.stx_mode.into()
    }

    /// Number of the file on its device.
    pub fn inode(&self) -> u64 {
        self.stat.stx_ino
    }

    /// Number of names the file has.
    pub fn link_count(&self) -> u32 {
        self.stat.stx_nlink
    }

    /// Major and minor number of the device the file is on.
    pub fn device(&self) -> (u32, u32) {
        (self.stat.stx_dev_major, self.stat.stx_dev_minor)
    }

    /// Major and minor number of the device that a device file stands for.
    pub fn special_device(&self) -> (u32, u32) {
        (self.stat.stx_rdev_major, self.stat.stx_rdev_minor)
    }

    /// The length in bytes of the blocks that the file system deals in.
    pub fn block_len(&self) -> u32 {
        self.stat.stx_blksize
    }

    /// User and group that own the file.
    pub fn owner(&self) -> (u32, u32) {
        (self.stat.stx_uid, self.stat.stx_gid)
    }

    /// Bytes that the file takes on its device.
    pub fn allocated_len(&self) -> u64 {
        self.stat.stx_blocks * 512
    }

    /// When the contents last changed.
    pub fn modified(&self) -> SystemTime {
        system_time(self.stat.stx_mtime)
    }

    /// When the contents were last read, as far as the file system notes it.
    pub fn accessed(&self) -> SystemTime {
        system_time(self.stat.stx_atime)
    }

    /// When the file was made, where the file system knows.
    pub fn created(&self) -> Option<SystemTime> {
        (self.stat.stx_mask & libc::STATX_BTIME != 0).then(|| system_time(self.stat.stx_btime))
    }

    /// The number of the mount the file is on, where the kernel (5.8) says it.
    pub(super) fn mount(&self) -> Option<u64> {
        (self.stat.stx_mask & libc::STATX_MNT_ID != 0).then_some(self.stat.stx_mnt_id)
    }

    /// The alignment in bytes that `O_DIRECT` needs, of memory and of offsets and lengths.
    /// `None` where the file system does not take `O_DIRECT`, or the kernel (before 6.1) does not
    /// say.
    pub fn direct_alignment(&self) -> Option<(u32, u32)> {
        let said = self.stat.stx_mask & libc::STATX_DIOALIGN != 0;
        let (memory, offset) = (self.stat.stx_dio_mem_align, self.stat.stx_dio_offset_align);
        (said && offset != 0).then_some((memory, offset))
    }
}

fn system_time(time: libc::statx_timestamp) -> SystemTime {
    let nanos = Duration::from_nanos(time.tv_nsec.into());
    let seconds = Duration::from_secs(time.tv_sec.unsigned_abs());
    let whole = if time.tv_sec < 0 {
        SystemTime::UNIX_EPOCH - seconds
    } else {
        SystemTime::UNIX_EPOCH + seconds
    };
    whole + nanos
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metadata")
            .field("file_type", &self.file_type())
            .field("len", &self.len())
            .field("mode", &format_args!("{:o}", self.mode()))
            .finish_non_exhaustive()
    }
}
