//! What the log needs of a disk: one directory of files.
//!
//! The real one is [`Files`](super::Files); the tests have one that loses and tears what was not synced. All
//! writes begin and end at multiples of [`Disk::alignment`], and no byte is written twice after it was synced.
//!
//! What is assumed of the medium stands in `docs/kv-format.md`.
#![allow(async_fn_in_trait)] // The log lives on one core and names its disk: no future has to be Send.

use std::io;
use std::ops::DerefMut;
use std::time::Duration;

/// Bytes of a buffer that is written in one piece.
pub const BUF_LEN: usize = 256 * 1024;

/// A directory on a disk. Names are those of files in it.
pub trait Disk: 'static {
    /// An open file.
    type File: 'static;
    /// A buffer of up to [`BUF_LEN`] bytes.
    type Buf: DerefMut<Target = [u8]> + 'static;

    /// What offsets and lengths of writes are multiples of, in bytes: a power of two, at most [`BUF_LEN`].
    fn alignment(&self) -> usize;

    /// A buffer of `len` bytes at least, [`BUF_LEN`] at most, as soon as one is free.
    async fn buffer(&self, len: usize) -> Self::Buf;

    /// The names of all files, in no promised order.
    async fn list(&self) -> io::Result<Vec<String>>;

    /// Makes a file to be written, or empties it, with room for `len` bytes kept free.
    async fn create(&self, name: &str, len: u64) -> io::Result<Self::File>;

    /// Opens once more a file that is being written. Whatever goes wrong with the file is told to each open file once,
    /// so that writes which overlap have to be synced by files of their own.
    async fn reopen(&self, name: &str) -> io::Result<Self::File>;

    /// Opens a file to be read.
    async fn open(&self, name: &str) -> io::Result<Self::File>;

    /// The length of a file in bytes.
    async fn len(&self, file: &Self::File) -> io::Result<u64>;

    /// Reads up to `len` bytes at `at`: fewer only at the end of the file.
    async fn read(&self, file: &Self::File, at: u64, len: usize) -> io::Result<Vec<u8>>;

    /// Writes the first `len` bytes of a buffer at `at`; with `sync`, success means that they and all that was
    /// written to the file before are durable. After an error nothing is known of them.
    async fn write(
        &self,
        file: &Self::File,
        buf: Self::Buf,
        len: usize,
        at: u64,
        sync: bool,
    ) -> (io::Result<()>, Self::Buf);

    /// Makes durable what was written. After an error it is not known what is, and trying again says nothing.
    async fn sync(&self, file: &Self::File) -> io::Result<()>;

    /// Cuts a file to `len` bytes and makes that durable.
    async fn cut(&self, name: &str, len: u64) -> io::Result<()>;

    /// Gives a file another name, in the place of one that had it.
    async fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    async fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which names there are.
    async fn sync_dir(&self) -> io::Result<()>;

    /// Waits.
    async fn pause(&self, time: Duration);
}
