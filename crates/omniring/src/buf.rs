//! Buffers: the memory that ops use.
//!
//! An op owns its buffer while it is in flight and gives it back with the result. There are three
//! kinds:
//!
//! - **Owned**: any [`IoBuf`] or [`IoBufMut`], such as a `Vec<u8>`, or an [`AlignedBuf`] for
//!   `O_DIRECT`. A [`Slice`] is a part of one.
//! - **Leased**: a [`Lease`](crate::net::Lease) on memory of the runtime's pool, which a socket's data
//!   is received into when it is there.
//! - **Fixed**: a [`FixedBuf`] from a [`FixedPool`]: aligned memory that the kernel knows.

use std::fmt;

pub use omniring_driver::buf::fixed::{
    ClassStats, FixedBuf, HugePages, NotRegistered, PoolError, Registration, TakeError,
};
pub use omniring_driver::buf::{AlignedBuf, IoBuf, IoBufExt, IoBufMut, IoBufMutExt, Slice};

use omniring_driver::buf::fixed::{Pool, PoolOptions};

use crate::executor::current;

/// A pool of aligned buffers, in memory that is registered with the runtime's engine.
///
/// On `uring` (Linux 5.19 or later) the kernel pins and maps the memory once, so that reads and
/// writes of it cost less, above all past the page cache. On the other engines, and where the
/// kernel refuses, the same buffers are plain memory and behave the same:
/// [`FixedPool::not_registered`] says why, and [`FixedPoolBuilder::require_registered`] makes it an
/// error. Registered memory counts as locked memory (`ulimit -l`; 8 MiB for ordinary users as a
/// rule).
///
/// Clones share the pool. Its memory is freed when the last clone and the last of its buffers are
/// gone. It belongs to the runtime that it was made in; ops of another runtime of the same thread
/// take its buffers as plain memory.
///
/// ```
/// use omniring::buf::FixedPool;
/// # use omniring::{Runtime, fs};
/// # let runtime = Runtime::new()?;
/// # let path = std::env::temp_dir().join(format!("omniring-fixed-{}", std::process::id()));
/// # runtime.block_on(async {
/// let pool = FixedPool::builder().class(4096, 8).class(64 * 1024, 2).build()?;
/// let mut buf = pool.take(4096).await?;
/// buf.fill(b'x');
/// let file = fs::OpenOptions::new().read(true).write(true).create(true).open(&path).await?;
/// let (result, buf) = file.write_at(buf, 0).await;
/// assert_eq!(result?, 4096);
/// drop(buf); // back in the pool
/// let (result, buf) = file.read_at(pool.take(100).await?, 0).await;
/// assert_eq!((result?, buf.len(), buf[99]), (100, 100, b'x'));
/// # fs::remove_file(&path).await?;
/// # Ok::<(), std::io::Error>(())
/// # })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct FixedPool(Pool);

/// How a [`FixedPool`] is to be made.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder makes a pool only when built"]
pub struct FixedPoolBuilder {
    options: PoolOptions,
}

impl FixedPoolBuilder {
    /// A size class: `count` buffers (at least 1) of `len` bytes (1 to 1 GiB). At least one class
    /// is needed.
    pub fn class(mut self, len: usize, count: usize) -> FixedPoolBuilder {
        self.options.classes.push((len, count));
        self
    }

    /// Alignment in bytes of every buffer: a power of two up to 1 GiB (default 4096, which is
    /// enough for `O_DIRECT` on every device in use).
    pub fn alignment(mut self, alignment: usize) -> FixedPoolBuilder {
        self.options.alignment = alignment;
        self
    }

    /// Whether the memory is on huge pages (default: [`HugePages::No`]). With them a buffer of
    /// more than 4 KiB is one piece of physical memory, which spares kernel and device some work.
    pub fn huge_pages(mut self, huge_pages: HugePages) -> FixedPoolBuilder {
        self.options.huge_pages = huge_pages;
        self
    }

    /// Whether memory that cannot be registered is an error (default: it is not, and the buffers
    /// are plain memory).
    pub fn require_registered(mut self, required: bool) -> FixedPoolBuilder {
        self.options.require_registered = required;
        self
    }

    /// Makes the pool, in the runtime that the calling code runs in. The memory is mapped and
    /// registered before this returns, which takes about 0.1 ms for each MiB. The error says in
    /// one line what is wrong and what to do.
    ///
    /// # Panics
    /// Outside of a runtime.
    pub fn build(self) -> Result<FixedPool, PoolError> {
        Pool::new(&current().driver, &self.options).map(FixedPool)
    }
}

impl FixedPool {
    /// How to make one.
    pub fn builder() -> FixedPoolBuilder {
        FixedPoolBuilder::default()
    }

    /// A buffer of `len` bytes, from the smallest class whose buffers are that long, as soon as one
    /// is free. Who asked first gets the first.
    ///
    /// Dropping the future gives the place in the queue up, and loses no buffer. Fails if no class
    /// has buffers that long.
    pub async fn take(&self, len: usize) -> Result<FixedBuf, TakeError> {
        self.0.take(len).await
    }

    /// As [`FixedPool::take`], but fails with [`TakeError::Exhausted`] if none is free. It does not
    /// overtake tasks that wait.
    pub fn try_take(&self, len: usize) -> Result<FixedBuf, TakeError> {
        self.0.try_take(len)
    }

    /// The size classes, the shortest first, and what is free in each.
    pub fn stats(&self) -> Vec<ClassStats> {
        self.0.stats()
    }

    /// Whether the memory is registered with the engine.
    pub fn is_registered(&self) -> bool {
        self.0.not_registered().is_none()
    }

    /// Why the memory is not registered, and what to do; `None` if it is.
    pub fn not_registered(&self) -> Option<&NotRegistered> {
        self.0.not_registered()
    }

    /// Whether all of the memory is on reserved huge pages.
    pub fn is_on_huge_pages(&self) -> bool {
        self.0.is_on_huge_pages()
    }
}

impl fmt::Debug for FixedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FixedPool")
            .field("classes", &self.stats())
            .field("registered", &self.is_registered())
            .finish()
    }
}
