//! A whole RDB file.

use std::io;
use std::path::{Path, PathBuf};

use omniring::fs::{self, File};

use super::source::{Source, Wrong};
use super::value::{self, CRC64, VERSION};
use crate::error::Error;
use crate::protocol::Args;
use crate::store::{DBS, Keys, Limits, Value};

/// Bytes that are read or written at once.
pub(super) const WINDOW_LEN: usize = 1 << 20;
const MAGIC: &[u8; 5] = b"REDIS";

/// What stands in a file besides keys.
mod op {
    pub const FUNCTION_2: u8 = 245;
    pub const FUNCTION: u8 = 246;
    pub const MODULE_AUX: u8 = 247;
    pub const IDLE: u8 = 248;
    pub const FREQ: u8 = 249;
    pub const AUX: u8 = 250;
    pub const RESIZE: u8 = 251;
    pub const EXPIRES_MS: u8 = 252;
    pub const EXPIRES: u8 = 253;
    pub const SELECT: u8 = 254;
    pub const END: u8 = 255;
}

/// A key of a file.
#[derive(Debug)]
pub struct Entry {
    /// Its database.
    pub db: usize,
    /// Its name.
    pub key: Vec<u8>,
    /// Its value.
    pub value: Value,
    /// When it expires, in milliseconds since 1970.
    pub expires_ms: Option<u64>,
    /// How long it has not been used, in seconds.
    pub idle_seconds: Option<u64>,
    /// How often it was used, on the logarithmic counter.
    pub frequency: Option<u8>,
}

/// Who takes what is imported.
pub trait Import {
    /// A key. One whose time has come is given too.
    ///
    /// # Errors
    /// Where it cannot be taken: the import ends with that.
    fn entry(&mut self, entry: Entry) -> Result<(), Error>;

    /// A command of an append-only file.
    ///
    /// # Errors
    /// Where it cannot be carried out: the import ends with that.
    fn command(&mut self, db: usize, args: Args<'_>) -> Result<(), Error>;

    /// Up to which sizes values are compact.
    fn limits(&self) -> Limits;
}

/// Why a file of Redis' cannot be imported.
#[derive(Debug)]
#[non_exhaustive]
pub enum Failure {
    /// The disk did not do what it was asked to.
    Disk {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// The file is not as it should be.
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where, in bytes.
        offset: u64,
        /// What is wrong.
        why: String,
    },
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Disk { path, error } => write!(f, "'{}': {error}", path.display()),
            Failure::Wrong { path, offset, why } => {
                write!(f, "'{}' at byte {offset}: {why}", path.display())
            }
        }
    }
}

impl std::error::Error for Failure {}

/// A file that is read from front to back, through a window that grows when something does not fit.
pub(super) struct Window {
    file: File,
    pub path: PathBuf,
    /// Where the window begins.
    at: u64,
    buf: Vec<u8>,
    used: usize,
    is_end: bool,
    digest: crc::Digest<'static, u64, crc::Table<16>>,
}

impl Window {
    pub async fn open(path: &Path) -> Result<Window, Failure> {
        let open = File::open(path).await;
        let file = open.map_err(|error| Failure::Disk { path: path.to_owned(), error })?;
        let digest = CRC64.digest();
        let path = path.to_owned();
        Ok(Window { file, path, at: 0, buf: Vec::new(), used: 0, is_end: false, digest })
    }

    /// Where the next byte is.
    pub fn offset(&self) -> u64 {
        self.at + self.used as u64
    }

    /// What is there of the rest.
    pub fn rest(&self) -> &[u8] {
        &self.buf[self.used..]
    }

    pub fn use_up(&mut self, len: usize) {
        self.digest.update(&self.buf[self.used..self.used + len]);
        self.used += len;
    }

    /// The checksum of all that was used up.
    pub fn checksum(&self) -> u64 {
        self.digest.clone().finalize()
    }

    /// Reads on, twice as much as there is. False at the end of the file.
    pub async fn more(&mut self) -> Result<bool, Failure> {
        if self.is_end {
            return Ok(false);
        }
        self.at += self.used as u64;
        self.buf.drain(..std::mem::take(&mut self.used));
        let filled = self.buf.len();
        self.buf.reserve(filled.max(WINDOW_LEN));
        let buf = std::mem::take(&mut self.buf);
        let slice = omniring::buf::IoBufExt::slice(buf, filled..);
        let (result, slice) = self.file.read_at(slice, self.at + filled as u64).await;
        self.buf = slice.into_inner();
        let path = self.path.clone();
        self.is_end = result.map_err(|error| Failure::Disk { path, error })? == 0;
        Ok(!self.is_end)
    }

    pub fn wrong(&self, why: impl Into<String>) -> Failure {
        Failure::Wrong { path: self.path.clone(), offset: self.offset(), why: why.into() }
    }

    /// Takes something: `f` is called again with more where it finds too little.
    pub async fn parse<T>(
        &mut self,
        mut f: impl FnMut(&mut Source<'_>) -> Result<T, Wrong>,
    ) -> Result<Result<T, Wrong>, Failure> {
        loop {
            let mut source = Source::new(self.rest());
            match f(&mut source) {
                Ok(value) => {
                    let len = source.at();
                    self.use_up(len);
                    return Ok(Ok(value));
                }
                Err(Wrong::Incomplete) if self.more().await? => {}
                Err(wrong) => return Ok(Err(wrong)),
            }
        }
    }
}

/// What comes next in a file.
enum Item {
    Db(u64),
    ExpiresMs(u64),
    Idle(u64),
    Frequency(u8),
    Passed,
    Function,
    Key(Vec<u8>, Option<Value>),
    End,
}

fn next(source: &mut Source<'_>, limits: &Limits, key: &mut Vec<u8>) -> Result<Item, Wrong> {
    Ok(match source.u8()? {
        op::SELECT => Item::Db(value::read_len(source)?),
        op::EXPIRES_MS => Item::ExpiresMs(source.i64()?.max(0) as u64),
        op::EXPIRES => Item::ExpiresMs(source.i32()?.max(0) as u64 * 1000),
        op::IDLE => Item::Idle(value::read_len(source)?),
        op::FREQ => Item::Frequency(source.u8()?),
        op::RESIZE => {
            value::read_len(source)?;
            value::read_len(source)?;
            Item::Passed
        }
        op::AUX => {
            value::read_string(source)?;
            value::read_string(source)?;
            Item::Passed
        }
        op::FUNCTION_2 => {
            value::read_string(source)?;
            Item::Function
        }
        op::FUNCTION => {
            return Err(Wrong::Unsupported("functions of a release candidate of Redis"));
        }
        op::MODULE_AUX => return Err(Wrong::Unsupported("data of modules")),
        op::END => Item::End,
        kind => {
            key.clear();
            key.extend_from_slice(&value::read_string(source)?);
            let value = value::read(kind, source, limits)?;
            Item::Key(key.clone(), value)
        }
    })
}

/// Imports an RDB file. Gives the number of keys, and what somebody should know of.
///
/// # Errors
/// Where it cannot be read, or something in it is damaged or not supported: keys before it have been given then.
pub async fn import(path: &Path, to: &mut impl Import) -> Result<(u64, Vec<String>), Failure> {
    let mut window = Window::open(path).await?;
    let found = import_from(&mut window, to).await?;
    if !window.rest().is_empty() || window.more().await? {
        return Err(window.wrong("something follows on the end of the dump"));
    }
    Ok(found)
}

/// Imports the dump that begins here.
pub(super) async fn import_from(
    window: &mut Window,
    to: &mut impl Import,
) -> Result<(u64, Vec<String>), Failure> {
    let limits = to.limits();
    let mut notices = Vec::new();
    let header = window.parse(|source| source.array::<9>()).await?;
    let version = header.ok().and_then(|header| {
        let digits = std::str::from_utf8(header.strip_prefix(MAGIC)?).ok()?;
        digits.parse::<u16>().ok()
    });
    match version {
        None => return Err(window.wrong("it does not begin as a dump of Redis does")),
        Some(1..=VERSION) => {}
        Some(other) => {
            let why = format!("it is of version {other}; versions up to {VERSION} are supported");
            return Err(window.wrong(why));
        }
    }
    let (mut db, mut keys) = (0, 0);
    let (mut expires_ms, mut idle_seconds, mut frequency) = (None, None, None);
    loop {
        let mut name = Vec::new();
        let item = window.parse(|source| next(source, &limits, &mut name)).await?;
        let item = item.map_err(|wrong| {
            let of = match name.is_empty() {
                true => String::new(),
                false => format!("the key \"{}\" of database {db}: ", name.escape_ascii()),
            };
            window.wrong(format!("{of}{wrong}"))
        })?;
        match item {
            Item::Db(number) => match usize::try_from(number) {
                Ok(number) if number < DBS => db = number,
                _ => {
                    let why = format!("it has a database {number}, and there are {DBS}");
                    return Err(window.wrong(why));
                }
            },
            Item::ExpiresMs(at) => expires_ms = Some(at),
            Item::Idle(seconds) => idle_seconds = Some(seconds),
            Item::Frequency(count) => frequency = Some(count),
            Item::Passed => {}
            Item::Function => notices.push(format!(
                "'{}' at byte {}: a library of functions is left out",
                window.path.display(),
                window.offset()
            )),
            Item::Key(key, value) => {
                let (expires_ms, idle_seconds, frequency) =
                    (expires_ms.take(), idle_seconds.take(), frequency.take());
                if let Some(value) = value {
                    let shown = key.escape_ascii().to_string();
                    let entry = Entry { db, key, value, expires_ms, idle_seconds, frequency };
                    to.entry(entry).map_err(|error| {
                        window.wrong(format!("the key \"{shown}\" is refused: {error}"))
                    })?;
                    keys += 1;
                }
            }
            Item::End => break,
        }
    }
    if version >= Some(5) {
        let computed = window.checksum();
        let told = window.parse(|source| source.array::<8>()).await?;
        let told = told.map_err(|wrong| window.wrong(wrong.to_string()))?;
        let told = u64::from_le_bytes(told);
        // Redis writes 0 where it was told not to compute one.
        if told != 0 && told != computed {
            return Err(window.wrong("the checksum of the dump is wrong"));
        }
    }
    Ok((keys, notices))
}

/// Writes all keys, whose shards are at hand, to a file that Redis 7 loads. Gives their number.
///
/// # Errors
/// Where the disk fails: the file is as it was before.
pub async fn export(keys: &mut Keys, path: &Path) -> io::Result<u64> {
    let temporary = path.with_extension("tmp");
    let file = File::create(&temporary).await?;
    let mut out = Out { file: &file, at: 0, buf: Vec::new(), digest: CRC64.digest() };
    out.buf.extend_from_slice(format!("REDIS{VERSION:04}").as_bytes());
    for (name, text) in [("redis-ver", crate::REDIS_VERSION), ("redis-bits", "64")] {
        out.buf.push(op::AUX);
        value::write_string(&mut out.buf, name.as_bytes());
        value::write_string(&mut out.buf, text.as_bytes());
    }
    let mut written = 0;
    for db in 0..DBS {
        let sizes = keys.shards().map(|shard| (shard.dbs[db].len(), shard.dbs[db].expiring()));
        let (count, expiring) = sizes.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        if count == 0 {
            continue;
        }
        out.buf.push(op::SELECT);
        value::write_len(&mut out.buf, db as u64);
        out.buf.push(op::RESIZE);
        value::write_len(&mut out.buf, count as u64);
        value::write_len(&mut out.buf, expiring as u64);
        for shard in 0..keys.shard_count() {
            let mut cursor = 0;
            loop {
                // Nothing is changed meanwhile, so that each key is visited once.
                cursor = keys.shard(shard).dbs[db].scan(cursor, 64, |table, slot| {
                    if let Some(at) = table.expires_ms(slot) {
                        out.buf.push(op::EXPIRES_MS);
                        out.buf.extend_from_slice(&at.to_le_bytes());
                    }
                    let before = out.buf.len();
                    value::write(&mut out.buf, table.value(slot));
                    // The key stands between the type and the value.
                    let value = out.buf.split_off(before + 1);
                    value::write_string(&mut out.buf, table.key(slot));
                    out.buf.extend_from_slice(&value);
                    written += 1;
                });
                if out.buf.len() >= WINDOW_LEN {
                    out.flush().await?;
                }
                if cursor == 0 {
                    break;
                }
            }
        }
    }
    out.buf.push(op::END);
    out.flush().await?;
    out.buf = out.digest.clone().finalize().to_le_bytes().to_vec();
    out.flush().await?;
    file.sync_all().await?;
    fs::rename(&temporary, path).await?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new("."))).await?.sync_all().await?;
    Ok(written)
}

struct Out<'a> {
    file: &'a File,
    at: u64,
    buf: Vec<u8>,
    digest: crc::Digest<'static, u64, crc::Table<16>>,
}

impl Out<'_> {
    async fn flush(&mut self) -> io::Result<()> {
        self.digest.update(&self.buf);
        let (result, buf) = self.file.write_all_at(std::mem::take(&mut self.buf), self.at).await;
        self.at += buf.len() as u64;
        self.buf = buf;
        self.buf.clear();
        result
    }
}
