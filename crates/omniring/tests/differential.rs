//! Random sequences of ops give the same results on every engine (INV-PARITY).
//!
//! A sequence is drawn from a seed while it runs: files and directories, pipes, socket pairs,
//! cancels, buffers that are too short. What is drawn depends on the seed and on the results so
//! far, so that two engines do the same until they differ. No race decides a result: an op that
//! has to wait is known to have to, and is ended on purpose, by data, by a cancel, or by its drop.
//!
//! `OMNIRING_SEED=N cargo test --test differential` repeats one sequence.

use std::fmt::Write as _;
use std::future::Future;
use std::io::{self, SeekFrom};
use std::net::Shutdown;
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use fastrand::Rng;
use omniring::fs::{self, File, OpenOptions};
use omniring::net::UnixStream;
use omniring::time::now;
use omniring::{AsyncRead, AsyncWrite, Engine, OpFuture, Operation, Runtime, yield_now};

const STEPS: usize = 150;
const NAMES: [&str; 12] =
    ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "nothing/a", "a/below", "l", "."];

/// The channels of a world, each a stream of bytes in one direction.
const PIPES: usize = 2;
const SOCKETS: usize = 2;

type Bytes = (io::Result<usize>, Vec<u8>);

/// How bytes leave a channel.
enum Reader {
    Pipe(File),
    Socket(UnixStream),
}

/// How bytes enter a channel.
enum Writer {
    Pipe(File),
    Socket(UnixStream),
}

impl Reader {
    fn file(&self) -> Option<&File> {
        match self {
            Reader::Pipe(file) => Some(file),
            Reader::Socket(_) => None,
        }
    }
}

/// A read that waits. It can be cancelled or dropped.
trait Waiting {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Bytes>;
    fn cancel(&mut self);
}

impl<O: Operation<Output = Bytes>> Waiting for OpFuture<O> {
    fn poll(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Bytes> {
        Pin::new(self).poll(cx)
    }

    fn cancel(&mut self) {
        OpFuture::cancel(self);
    }
}

/// One direction, from a writer to a reader.
struct Channel {
    reader: Option<Reader>,
    writer: Option<Writer>,
    /// Bytes written and not read.
    buffered: usize,
    /// Nothing will be written any more.
    ended: bool,
    waiting: Option<Box<dyn Waiting>>,
}

struct World<'a> {
    runtime: &'a Runtime,
    root: &'a Path,
    rng: Rng,
    log: Vec<String>,
    files: [Option<File>; 3],
    channels: Vec<Channel>,
    /// Keeps sockets open whose both directions were shut down: when a reader learns of the close
    /// that follows is a race.
    _sockets: Vec<UnixStream>,
}

fn outcome<T: std::fmt::Debug>(result: &io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => match omniring::raw_os_error(error) {
            Some(errno) => format!("errno {errno}"),
            None => format!("{:?}", error.kind()),
        },
    }
}

/// Bytes for a log: their number, the first ones, and a sum over all.
fn digest(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0u32, |sum, &byte| sum.rotate_left(5) ^ u32::from(byte));
    format!("{} bytes {:02x?} {sum:08x}", bytes.len(), &bytes[..bytes.len().min(4)])
}

fn moved((result, buf): Bytes) -> String {
    format!("{} {}", outcome(&result), digest(&buf))
}

fn channel(reader: Reader, writer: Writer) -> Channel {
    Channel { reader: Some(reader), writer: Some(writer), buffered: 0, ended: false, waiting: None }
}

impl World<'_> {
    fn note(&mut self, what: impl std::fmt::Display, result: impl std::fmt::Display) {
        self.log.push(format!("{what}: {result}"));
    }

    fn name(&mut self) -> &'static str {
        NAMES[self.rng.usize(..NAMES.len())]
    }

    fn offset(&mut self) -> u64 {
        match self.rng.u8(..20) {
            0 => u64::MAX,
            1 => i64::MAX as u64,
            2..8 => self.rng.u64(..1 << 17),
            _ => self.rng.u64(..5_000),
        }
    }

    fn len(&mut self) -> usize {
        match self.rng.u8(..10) {
            0 => 0,
            1 => self.rng.usize(..100_000),
            _ => self.rng.usize(..3_000),
        }
    }

    fn data(&mut self, len: usize) -> Vec<u8> {
        let first = self.rng.u8(..);
        (0..len).map(|at| first.wrapping_add((at % 253) as u8)).collect()
    }

    /// Ops in flight that are meant to be.
    fn waiting_count(&self) -> usize {
        self.channels.iter().filter(|channel| channel.waiting.is_some()).count()
    }

    /// Until what was dropped in flight has ended.
    async fn settle(&self) {
        while self.runtime.stats().in_flight_count > self.waiting_count() {
            yield_now().await;
        }
    }

    async fn step(&mut self) {
        match self.rng.u8(..100) {
            0..14 => self.open().await,
            14..44 => self.use_file().await,
            44..64 => self.change_paths().await,
            64..95 => self.use_channel().await,
            _ => self.splice().await,
        }
    }

    async fn open(&mut self) {
        let slot = self.rng.usize(..self.files.len());
        let name = self.name();
        let mut options = OpenOptions::new();
        options.read(self.rng.bool()).write(self.rng.bool()).append(self.rng.u8(..5) == 0);
        options.create(self.rng.bool()).create_new(self.rng.u8(..8) == 0);
        options.truncate(self.rng.u8(..4) == 0);
        let result = options.open(self.root.join(name)).await;
        let outcome = outcome(&result.as_ref().map(drop).map_err(copy_error));
        if let Ok(file) = result {
            self.files[slot] = Some(file);
        }
        self.note(format_args!("open {name} {options:?} as {slot}"), outcome);
    }

    async fn use_file(&mut self) {
        let slot = self.rng.usize(..self.files.len());
        let Some(mut file) = self.files[slot].clone() else { return };
        let (len, offset) = (self.len(), self.offset());
        let at = format!("{len} at {offset} of {slot}");
        match self.rng.u8(..18) {
            0..3 => {
                let result = file.read_at(Vec::with_capacity(len), offset).await;
                self.note(format_args!("read {at}"), moved(result));
            }
            3..6 => {
                let data = self.data(len);
                let result = file.write_at(data, offset).await.0;
                self.note(format_args!("write {at}"), outcome(&result));
            }
            6 => {
                let result = file.read(Vec::with_capacity(len)).await;
                self.note(format_args!("read {len} of {slot}"), moved(result));
            }
            7 => {
                let data = self.data(len);
                let result = file.write(data).await.0;
                self.note(format_args!("write {len} to {slot}"), outcome(&result));
            }
            8 => {
                let bufs = vec![vec![0; len], vec![], vec![0; len / 3]];
                let (result, bufs) = file.read_vectored_at(bufs, offset).await;
                let bufs = bufs.iter().map(|buf| digest(buf)).collect::<Vec<_>>();
                self.note(
                    format_args!("read vectored {at}"),
                    format!("{} {bufs:?}", outcome(&result)),
                );
            }
            9 => {
                let bufs = vec![self.data(len), vec![], self.data(len / 3)];
                let result = file.write_vectored_at(bufs, offset).await.0;
                self.note(format_args!("write vectored {at}"), outcome(&result));
            }
            10 => {
                let (result, buf) =
                    file.read_exact_at(vec![9; len].into_boxed_slice(), offset).await;
                let result = format!("{} {}", outcome(&result), digest(&buf));
                self.note(format_args!("read exact {at}"), result);
            }
            11 => {
                let result = file.set_len(offset).await;
                self.note(format_args!("set length {offset} of {slot}"), outcome(&result));
            }
            12 => {
                let result = file.allocate(offset, len as u64).await;
                self.note(format_args!("allocate {at}"), outcome(&result));
            }
            13 => {
                let known = file.metadata().await.map(|known| {
                    (known.len(), known.mode(), known.link_count(), known.file_type())
                });
                self.note(format_args!("metadata of {slot}"), outcome(&known));
            }
            14 => {
                let to = match self.rng.u8(..3) {
                    0 => SeekFrom::Start(offset),
                    1 => SeekFrom::End(-(len as i64)),
                    _ => SeekFrom::Current(len as i64),
                };
                let result = file.seek(to);
                self.note(format_args!("seek {to:?} in {slot}"), outcome(&result));
            }
            15 => {
                let mut write = file.write_at(self.data(len), offset);
                write.cancel();
                let result = write.await;
                self.note(format_args!("cancelled write {at}"), moved(result));
            }
            16 => {
                let result = file.sync_data().await;
                self.note(format_args!("sync {slot}"), outcome(&result));
            }
            _ => {
                drop(file);
                let file = self.files[slot].take().expect("it was there");
                let result = file.close().await;
                self.note(format_args!("close {slot}"), outcome(&result));
            }
        }
    }

    async fn change_paths(&mut self) {
        let (name, other) = (self.name(), self.name());
        let (path, other_path) = (self.root.join(name), self.root.join(other));
        match self.rng.u8(..15) {
            0 => {
                let result = fs::rename(path, other_path).await;
                self.note(format_args!("rename {name} {other}"), outcome(&result));
            }
            1 => {
                let result = fs::remove_file(path).await;
                self.note(format_args!("remove file {name}"), outcome(&result));
            }
            2 => {
                let result = fs::remove_dir(path).await;
                self.note(format_args!("remove dir {name}"), outcome(&result));
            }
            3..5 => {
                let result = fs::create_dir(path).await;
                self.note(format_args!("create dir {name}"), outcome(&result));
            }
            5 => {
                let result = fs::create_dir_all(path).await;
                self.note(format_args!("create dirs {name}"), outcome(&result));
            }
            6 => {
                let result = fs::hard_link(path, other_path).await;
                self.note(format_args!("link {name} {other}"), outcome(&result));
            }
            7 => {
                let result = fs::symlink(name, other_path).await;
                self.note(format_args!("symlink {name} {other}"), outcome(&result));
            }
            8 => {
                let known = fs::symlink_metadata(path).await;
                let known = known.map(|known| (known.mode(), known.link_count()));
                self.note(format_args!("link metadata {name}"), outcome(&known));
            }
            9 => {
                let known = fs::metadata(path).await.map(|known| (known.mode(), known.len()));
                self.note(format_args!("metadata {name}"), outcome(&known));
            }
            10 => {
                let names = list(&path).await;
                self.note(format_args!("list {name}"), outcome(&names));
            }
            11 => {
                let contents = fs::read(path).await.map(|contents| digest(&contents));
                self.note(format_args!("read {name}"), outcome(&contents));
            }
            _ => {
                let len = self.len();
                let data = self.data(len);
                let result = fs::write(path, data).await;
                self.note(format_args!("write {len} to {name}"), outcome(&result));
            }
        }
    }

    async fn use_channel(&mut self) {
        let at = self.rng.usize(..self.channels.len());
        let len = self.rng.usize(..2_000);
        match self.rng.u8(..20) {
            0..7 => self.write_channel(at, len).await,
            7..14 => self.read_channel(at, len).await,
            14..16 => {
                let Some(mut waiting) = self.channels[at].waiting.take() else { return };
                waiting.cancel();
                let result = std::future::poll_fn(|cx| waiting.poll(cx)).await;
                self.note(format_args!("cancel in {at}"), moved(result));
            }
            16..18 => {
                if self.channels[at].waiting.take().is_some() {
                    self.settle().await;
                    self.note(format_args!("drop in {at}"), "done");
                }
            }
            18 => self.end_channel(at).await,
            _ => {
                let Channel { reader, buffered, ended, .. } = &self.channels[at];
                let ready = *buffered > 0 || *ended;
                let Some(reader) = reader else { return };
                let mut poll = match reader {
                    Reader::Pipe(file) => file.poll(libc::POLLIN),
                    Reader::Socket(socket) => socket.poll(libc::POLLIN),
                };
                if !ready {
                    let polled = std::future::poll_fn(|cx| {
                        Poll::Ready(Pin::new(&mut poll).poll(cx).is_ready())
                    });
                    let polled = polled.await;
                    poll.cancel();
                    self.log.push(format!("poll {at}: ready {polled}"));
                }
                let result = poll.await;
                self.note(format_args!("poll {at}"), outcome(&result));
            }
        }
    }

    async fn write_channel(&mut self, at: usize, len: usize) {
        if self.channels[at].buffered + len > 50_000 {
            return;
        }
        let data = self.data(len);
        let channel = &self.channels[at];
        let Some(writer) = &channel.writer else { return };
        let result = match writer {
            Writer::Pipe(file) => file.clone().write(data).await.0,
            Writer::Socket(socket) => socket.send(data).await.0,
        };
        let written = *result.as_ref().unwrap_or(&0);
        self.channels[at].buffered += written;
        self.note(format_args!("write {len} to channel {at}"), outcome(&result));
        if written > 0 {
            self.end_waiting(at).await;
        }
    }

    /// A read that waited has something to read now.
    async fn end_waiting(&mut self, at: usize) {
        if let Some(mut waiting) = self.channels[at].waiting.take() {
            let result = std::future::poll_fn(|cx| waiting.poll(cx)).await;
            self.channels[at].buffered -= result.0.as_ref().unwrap_or(&0);
            self.note(format_args!("waited for {at}"), moved(result));
        }
    }

    async fn read_channel(&mut self, at: usize, len: usize) {
        let len = len.max(1);
        let how = self.rng.u8(..3);
        let channel = &mut self.channels[at];
        if channel.waiting.is_some() {
            return;
        }
        let Some(reader) = &channel.reader else { return };
        let buf = Vec::with_capacity(len);
        let mut read: Box<dyn Waiting> = match reader {
            Reader::Pipe(file) => Box::new(file.read_at(buf, u64::from(how) * 77)),
            Reader::Socket(socket) if how == 0 && channel.buffered > 0 => {
                Box::new(socket.peek(buf))
            }
            Reader::Socket(socket) => Box::new(socket.recv_into(buf)),
        };
        let peeks = matches!(reader, Reader::Socket(_)) && how == 0 && channel.buffered > 0;
        if channel.buffered > 0 || channel.ended {
            let result = std::future::poll_fn(|cx| read.poll(cx)).await;
            if !peeks {
                channel.buffered -= result.0.as_ref().unwrap_or(&0);
            }
            self.note(format_args!("read {len} from channel {at}, {how}"), moved(result));
        } else {
            let polled = std::future::poll_fn(|cx| Poll::Ready(read.poll(cx))).await;
            let result = match polled {
                Poll::Ready(result) => moved(result),
                Poll::Pending => {
                    channel.waiting = Some(read);
                    "waits".to_owned()
                }
            };
            self.note(format_args!("read {len} from channel {at}, {how}"), result);
        }
    }

    /// Closes one side of a channel, or shuts it down.
    async fn end_channel(&mut self, at: usize) {
        let closes_reader = self.rng.u8(..4) == 0;
        let channel = &mut self.channels[at];
        if closes_reader && channel.waiting.is_none() {
            match channel.reader.take() {
                Some(Reader::Pipe(file)) => {
                    let result = file.close().await;
                    self.note(format_args!("close reader of {at}"), outcome(&result));
                }
                Some(Reader::Socket(socket)) => {
                    let result = socket.shutdown(Shutdown::Read).await;
                    self.note(format_args!("shut down reader of {at}"), outcome(&result));
                }
                None => {}
            }
            return;
        }
        match channel.writer.take() {
            Some(Writer::Pipe(file)) => {
                let result = file.close().await;
                self.note(format_args!("close writer of {at}"), outcome(&result));
            }
            Some(Writer::Socket(socket)) => {
                let result = socket.shutdown(Shutdown::Write).await;
                self.note(format_args!("shut down writer of {at}"), outcome(&result));
            }
            None => return,
        }
        self.channels[at].ended = true;
        self.end_waiting(at).await;
    }

    /// From a pipe to a file, the other way round, or between the pipes.
    async fn splice(&mut self) {
        let slot = self.rng.usize(..self.files.len());
        let (len, offset) = (self.rng.usize(1..5_000), self.rng.u64(..10_000));
        let (from, to) = if self.rng.bool() { (0, 1) } else { (1, 0) };
        let how = self.rng.u8(..3);
        let source = &self.channels[from];
        let readable = source.waiting.is_none() && (source.buffered > 0 || source.ended);
        let target = &self.channels[to];
        let reader = source.reader.as_ref().and_then(Reader::file).filter(|_| readable);
        let writer = match &target.writer {
            Some(Writer::Pipe(file)) if target.buffered < 50_000 => Some(file),
            _ => None,
        };
        let file = self.files[slot].as_ref();
        let result = match (how, reader, writer, file) {
            (0, Some(reader), _, Some(file)) => {
                let result = reader.splice_to(None, file, Some(offset), len).await;
                self.channels[from].buffered -= result.as_ref().unwrap_or(&0);
                result
            }
            (1, _, Some(writer), Some(file)) => {
                let result = file.splice_to(Some(offset), writer, None, len).await;
                self.channels[to].buffered += result.as_ref().unwrap_or(&0);
                result
            }
            (2, Some(reader), Some(writer), _) => {
                let result = reader.splice_to(None, writer, None, len).await;
                let count = *result.as_ref().unwrap_or(&0);
                self.channels[from].buffered -= count;
                self.channels[to].buffered += count;
                result
            }
            _ => return,
        };
        let count = *result.as_ref().unwrap_or(&0);
        self.note(
            format_args!("splice {how} {len} at {offset}, {from} to {to}, file {slot}"),
            outcome(&result),
        );
        if how > 0 && count > 0 {
            self.end_waiting(to).await;
        }
    }
}

fn copy_error(error: &io::Error) -> io::Error {
    omniring::raw_os_error(error).map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

async fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut entries = fs::read_dir(path).await?;
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        names.push(format!("{:?} {:?}", entry.file_name(), entry.file_type()));
    }
    names.sort();
    Ok(names)
}

/// What a sequence left behind.
fn tree(path: &Path, indent: usize, into: &mut Vec<String>) {
    let mut entries: Vec<_> = std::fs::read_dir(path).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(|entry| entry.file_name());
    for entry in entries {
        use std::os::unix::fs::MetadataExt;
        let known = entry.metadata().unwrap();
        let mut line = format!("{:indent$}{:?} {:o}", "", entry.file_name(), known.mode());
        let path = entry.path();
        if known.is_symlink() {
            write!(line, " -> {:?}", std::fs::read_link(&path).unwrap()).unwrap();
        } else if known.is_file() {
            let text = if known.len() > 1 << 24 {
                format!("{} bytes", known.len())
            } else {
                digest(&std::fs::read(&path).unwrap())
            };
            write!(line, " {} links, {text}", known.nlink()).unwrap();
        }
        into.push(line);
        if known.is_dir() {
            tree(&path, indent + 2, into);
        }
    }
}

/// An engine, and a runtime on it for some sequences: to make one, and to end it, takes some engines
/// longer than a sequence does.
struct Subject {
    engine: Engine,
    runtime: Runtime,
    sequence_count: u32,
}

/// So many sequences have a runtime together.
const SEQUENCES_PER_RUNTIME: u32 = 20;

impl Subject {
    fn new(engine: Engine) -> Subject {
        Subject {
            engine,
            runtime: Runtime::builder().engine(engine).build().unwrap(),
            sequence_count: 0,
        }
    }

    fn run(&mut self, seed: u64) -> Vec<String> {
        if self.sequence_count == SEQUENCES_PER_RUNTIME {
            *self = Subject::new(self.engine);
        }
        self.sequence_count += 1;
        run(&self.runtime, seed)
    }
}

/// Where a sequence has its files: on a disk one in four, in memory the others, where a sync, of which
/// a sequence has two or three on each engine, does not take longer than all the rest.
fn directory(seed: u64) -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if seed.is_multiple_of(4) || !memory.is_dir() {
        tempfile::tempdir().unwrap()
    } else {
        tempfile::tempdir_in(memory).unwrap()
    }
}

/// Runs the sequence of a seed: what each step yielded, and what is left at the end.
fn run(runtime: &Runtime, seed: u64) -> Vec<String> {
    let dir = directory(seed);
    let mut log = runtime.block_on(async {
        let mut channels = Vec::new();
        for _ in 0..PIPES {
            let (reader, writer) = io::pipe().unwrap();
            // Room for as many pieces as a sequence may leave in it.
            rustix::pipe::fcntl_setpipe_size(&writer, 1 << 20).unwrap();
            let reader = Reader::Pipe(File::from_fd(reader.into()));
            channels.push(channel(reader, Writer::Pipe(File::from_fd(writer.into()))));
        }
        let mut sockets = Vec::new();
        for _ in 0..SOCKETS {
            let (one, other) = UnixStream::pair().unwrap();
            sockets.extend([one.clone(), other.clone()]);
            channels.push(channel(Reader::Socket(one.clone()), Writer::Socket(other.clone())));
            channels.push(channel(Reader::Socket(other), Writer::Socket(one)));
        }
        let mut world = World {
            runtime,
            root: dir.path(),
            rng: Rng::with_seed(seed),
            log: Vec::new(),
            files: [const { None }; 3],
            channels,
            _sockets: sockets,
        };
        for _ in 0..STEPS {
            world.step().await;
        }
        let log = std::mem::take(&mut world.log);
        // What is left in flight ends with what it is on.
        drop(world);
        while runtime.stats().in_flight_count > 0 {
            yield_now().await;
        }
        log
    });
    log.push("left behind:".to_owned());
    tree(dir.path(), 2, &mut log);
    log
}

fn compare(seed: u64, subjects: &mut [Subject]) {
    let logs: Vec<_> =
        subjects.iter_mut().map(|subject| (subject.engine, subject.run(seed))).collect();
    for (at, (engine, log)) in logs.iter().enumerate() {
        for (other, other_log) in &logs[..at] {
            if let Some(line) = (0..log.len().max(other_log.len()))
                .find(|&line| log.get(line) != other_log.get(line))
            {
                panic!(
                    "OMNIRING_SEED={seed}: {other} and {engine} differ\n{}\n{other}: {:?}\n{engine}: {:?}",
                    log[..line.min(log.len())].join("\n"),
                    other_log.get(line),
                    log.get(line),
                );
            }
        }
    }
}

/// The engines that start here; those that do not are named.
fn subjects() -> Vec<Subject> {
    let starts = |engine: &Engine| match Runtime::builder().engine(*engine).build() {
        Ok(_) => true,
        Err(error) => {
            let required = std::env::var("OMNIRING_REQUIRE").is_ok_and(|value| value == "all");
            assert!(!required, "skipped, and OMNIRING_REQUIRE=all: {error}");
            eprintln!("skipped: {error}");
            false
        }
    };
    Engine::ALL.iter().copied().filter(starts).map(Subject::new).collect()
}

/// Compares so many sequences, on all engines, and so all pairs of them, or as many as there is
/// time for.
fn compare_sequences(count: u64, time_max: Duration) {
    let mut subjects = subjects();
    if let Ok(seed) = std::env::var("OMNIRING_SEED") {
        return compare(seed.parse().expect("OMNIRING_SEED is a number"), &mut subjects);
    }
    let first = fastrand::u64(..u64::MAX - count);
    let end = now() + time_max;
    for seed in first..first + count {
        if now() > end {
            let done = seed - first;
            assert!(done >= count / 10, "only {done} sequences in {time_max:?}");
            eprintln!("{done} sequences of {count}: no time for more");
            return;
        }
        compare(seed, &mut subjects);
    }
}

#[test]
fn engines_agree_on_random_sequences() {
    compare_sequences(200, Duration::from_secs(60));
}

#[test]
#[ignore = "takes an hour or two"]
fn engines_agree_on_many_random_sequences() {
    compare_sequences(10_000, Duration::from_secs(86_400));
}
