//! The bytes of a file, from a disk to a stream and from a stream to a disk.
//!
//! What has arrived is kept in a file beside the one that it becomes, `.NAME.part`, which is locked while
//! somebody writes to it. It gets its name when all of it is there, its checksum is right, and the disk has
//! it; until then it is what a transfer that was cut off goes on from.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use omniring::buf::IoBufExt;
use omniring::fs::{self, File, OpenOptions};
use omniring::time::timeout;
use quinn::{RecvStream, SendStream};
use sha2::{Digest, Sha256};

use crate::progress::Progress;
use crate::protocol::{IDLE_TIME_MAX, Offer, Sum, read_array, read_exact, read_u64};

/// Bytes that are read, and sent, at once.
const CHUNK_LEN: usize = 128 * 1024;

/// How long to wait for another transfer of the same file. One whose peer died without a word ends within
/// that time.
const LOCK_TIME_MAX: Duration = Duration::from_secs(IDLE_TIME_MAX.as_secs() + 2);

/// Sends a file, from where the receiver's copy of it ends; yields where that was.
pub async fn send(
    file: &File,
    offer: &Offer,
    stream: &mut SendStream,
    progress: &Progress,
) -> io::Result<u64> {
    let len = file.metadata().await?.len();
    let mut hasher = Sha256::new();
    let mut start = 0;
    if offer.have > 0 && offer.have <= len {
        let theirs = hash(file, offer.have).await?;
        if Offer::of(offer.have, &theirs).sum == offer.sum {
            (hasher, start) = (theirs, offer.have);
        }
    }
    stream.write_all(&len.to_be_bytes()).await?;
    stream.write_all(&start.to_be_bytes()).await?;
    let mut at = start;
    while at < len {
        let chunk = read_chunk(file, at, len).await?;
        hasher.update(&chunk);
        at += chunk.len() as u64;
        progress.add(chunk.len());
        stream.write_chunk(Bytes::from(chunk)).await?;
    }
    stream.write_all(&hasher.finalize()).await?;
    Ok(start)
}

/// Some bytes of a file that has `end` of them, at least one.
async fn read_chunk(file: &File, at: u64, end: u64) -> io::Result<Vec<u8>> {
    let len = usize::try_from(end - at).map_or(CHUNK_LEN, |left| left.min(CHUNK_LEN));
    let (read, buf) = file.read_at(Vec::with_capacity(len).slice(..len), at).await;
    match read? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it became shorter meanwhile")),
        _ => Ok(buf.into_inner()),
    }
}

/// Of the first `len` bytes of a file.
async fn hash(file: &File, len: u64) -> io::Result<Sha256> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < len {
        let chunk = read_chunk(file, at, len).await?;
        hasher.update(&chunk);
        at += chunk.len() as u64;
    }
    Ok(hasher)
}

/// A file on its way in.
pub struct Partial {
    path: PathBuf,
    part_path: PathBuf,
    part: File,
    /// What there is of it, and where: in the part, or in a file that has the name already.
    have: u64,
    hasher: Sha256,
    old: Option<File>,
}

impl Partial {
    /// Begins one, or takes up where it was left.
    pub async fn open(path: &Path) -> io::Result<Partial> {
        let part_path = part_path(path)?;
        // A link there is not followed: it will be replaced.
        let there = fs::symlink_metadata(path).await.ok();
        if there.as_ref().is_some_and(|there| there.is_dir()) {
            let what = "a directory has its name there";
            return Err(io::Error::new(io::ErrorKind::IsADirectory, what));
        }
        let part = open_locked(&part_path).await?;
        let mut have = part.metadata().await?.len();
        let mut old = None;
        if have == 0 && there.is_some_and(|there| there.is_file()) {
            let mut options = OpenOptions::new();
            let file = options.read(true).custom_flags(libc::O_NOFOLLOW).open(path).await?;
            (have, old) = (file.metadata().await?.len(), Some(file));
        }
        let hasher = hash(old.as_ref().unwrap_or(&part), have).await?;
        Ok(Partial { path: path.to_owned(), part_path, part, have, hasher, old })
    }

    pub fn offer(&self) -> Offer {
        Offer::of(self.have, &self.hasher)
    }

    /// Takes the body of the file; on success the file is there under its name. What has come is kept if
    /// the rest does not. Yields how many bytes were there already.
    pub async fn receive(
        mut self,
        stream: &mut RecvStream,
        progress: &Progress,
    ) -> io::Result<u64> {
        let received = self.receive_body(stream, progress).await;
        if received.is_err() {
            self.give_up().await;
        }
        received
    }

    /// Leaves no part behind if nothing is in it.
    pub async fn give_up(&self) {
        if self.part.metadata().await.is_ok_and(|part| part.len() == 0) {
            let _ = fs::remove_file(&self.part_path).await;
        }
    }

    async fn receive_body(
        &mut self,
        stream: &mut RecvStream,
        progress: &Progress,
    ) -> io::Result<u64> {
        let len = read_u64(stream).await?;
        let start = read_u64(stream).await?;
        if start > len || (start != 0 && start != self.have) {
            let what = format!("bytes from {start} on, of {len}, after {} were offered", self.have);
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let is_old_one = self.old.is_some() && start == len && start > 0;
        if start == 0 {
            self.hasher = Sha256::new();
            self.part.set_len(0).await?;
        } else if !is_old_one && let Some(old) = &self.old {
            copy(old, &self.part, start).await?;
        }
        let mut at = start;
        while at < len {
            let count = usize::try_from(len - at).map_or(CHUNK_LEN, |left| left.min(CHUNK_LEN));
            let mut chunk = vec![0; count];
            read_exact(stream, &mut chunk).await?;
            self.hasher.update(&chunk);
            let (written, _) = self.part.write_all_at(chunk, at).await;
            written?;
            at += count as u64;
            progress.add(count);
        }
        let said: Sum = read_array(stream).await?;
        let found: Sum = self.hasher.finalize_reset().into();
        if said != found {
            self.part.set_len(0).await?;
            let (said, found) = (crate::trust::hex(&said), crate::trust::hex(&found));
            let what = format!("the SHA-256 of what has come is {found}, and was to be {said}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        if is_old_one {
            fs::remove_file(&self.part_path).await?;
        } else {
            self.part.sync_all().await?;
            fs::rename(&self.part_path, &self.path).await?;
        }
        Ok(start)
    }
}

async fn copy(from: &File, to: &File, len: u64) -> io::Result<()> {
    let mut at = 0;
    while at < len {
        let chunk = read_chunk(from, at, len).await?;
        let count = chunk.len() as u64;
        to.write_all_at(chunk, at).await.0?;
        at += count;
    }
    Ok(())
}

/// Whether a file has a name that only parts have.
pub fn is_part(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    name.starts_with(b".") && name.ends_with(b".part")
}

fn part_path(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().filter(|_| !is_part(path));
    let name = name.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, "not a name that a file can have here")
    })?;
    let mut part = std::ffi::OsString::from(".");
    part.push(name);
    part.push(".part");
    Ok(path.with_file_name(part))
}

async fn open_locked(path: &Path) -> io::Result<File> {
    loop {
        let part = OpenOptions::new().read(true).write(true).create(true).open(path).await?;
        let Ok(locked) = timeout(LOCK_TIME_MAX, part.lock()).await else {
            let what = "another transfer of this file is under way";
            return Err(io::Error::new(io::ErrorKind::ResourceBusy, what));
        };
        locked?;
        // Whoever had it before may have given it its name, or removed it, since it was opened.
        match fs::metadata(path).await {
            Ok(now) if now.inode() == part.metadata().await?.inode() => return Ok(part),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
}
