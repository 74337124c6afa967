//! Bytes that nobody meant: to the parser of the protocol, as the files of a log, and as a dump of Redis'.
//!
//! All inputs of the corpus first, then changed ones, by a seed that is printed, for OMNIRING_FUZZ_SECONDS (2). The
//! corpus, `fuzz-corpus`, has requests; directories that a server left behind when it was killed, without and with a
//! snapshot; and dumps of the store's and of Redis', the latter compact, and with everything in its long form.
// How long it runs is real time, and what it did is shown with its seed.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use omniring_kv::Error;
use omniring_kv::log::{Files, Piece, Target, check, recover};
use omniring_kv::protocol::{Args, Bounds, OwnedArgs, Parser};
use omniring_kv::rdb;
use omniring_kv::store::Limits;

fn random(name: &str) -> fastrand::Rng {
    let given = std::env::var("OMNIRING_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: OMNIRING_FUZZ_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

fn corpus(target: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus").join(target)
}

fn until() -> Instant {
    let given = std::env::var("OMNIRING_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    Instant::now() + Duration::from_secs(given.unwrap_or(2))
}

/// Changes some bytes: flips, takes away, repeats, puts in what is special to the format.
fn change(bytes: &mut Vec<u8>, random: &mut fastrand::Rng, special: &[&[u8]]) {
    for _ in 0..random.usize(1..5) {
        let at = random.usize(..=bytes.len());
        let len = random.usize(..=(bytes.len() - at).min(64));
        match random.u8(..7) {
            0 | 1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..at + len)),
            4 => {
                let copy = bytes[at..at + len].to_vec();
                let to = random.usize(..=bytes.len());
                bytes.splice(to..to, copy);
            }
            5 if at < bytes.len() => bytes[at] = random.u8(..),
            _ => {
                let put = special[random.usize(..special.len())];
                bytes.splice(at..at, put.iter().copied());
            }
        }
    }
}

/// The requests in these bytes, as they come in pieces, and the error that ends them.
fn requests<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<OwnedArgs>, Option<String>) {
    let bounds = Bounds { word_max: 512 << 20, stranger: false };
    let mut parser = Parser::default();
    let (mut requests, mut arrived) = (Vec::new(), 0);
    for mut piece in pieces {
        arrived += piece.len();
        loop {
            match parser.next(&mut piece, bounds) {
                Ok(Some(args)) => requests.push(args.to_owned()),
                Ok(None) => break,
                Err(error) => return (requests, Some(error.to_string())),
            }
        }
        // A long word that lay in one piece is there twice until its request is complete.
        let kept = parser.kept();
        assert!(kept <= 2 * arrived, "{kept} bytes are kept of {arrived} that have arrived");
    }
    (requests, None)
}

fn same(a: &[OwnedArgs], b: &[OwnedArgs]) -> bool {
    let words = |args: &OwnedArgs| -> Vec<Vec<u8>> {
        args.args().iter_from(0).map(<[u8]>::to_vec).collect()
    };
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| words(a) == words(b))
}

fn parse(bytes: &[u8], random: &mut fastrand::Rng) {
    let (whole, error) = requests([bytes].into_iter());
    let len_max = if random.bool() { 8 } else { 4096 };
    let len = random.usize(1..=len_max);
    let (pieces, pieces_error) = requests(bytes.chunks(len));
    assert!(
        same(&whole, &pieces) && error == pieces_error,
        "pieces of {len} bytes make a difference, {error:?} and {pieces_error:?}: {}",
        bytes.escape_ascii()
    );
}

#[test]
fn requests_do_not_depend_on_how_their_bytes_arrive() {
    let mut random = random("protocol");
    let inputs: Vec<Vec<u8>> =
        files(&corpus("protocol")).into_iter().map(|(_, bytes)| bytes).collect();
    inputs.iter().for_each(|input| parse(input, &mut random));
    let special: &[&[u8]] = &[
        b"\r\n",
        b"*",
        b"$",
        b"*3\r\n",
        b"$5\r\n",
        b"$-1\r\n",
        b"*-7\r\n",
        b"\"",
        b"'",
        b"\\x",
        b"\n",
        b"$536870913\r\n",
        b"$40000\r\n",
        b"*1048577\r\n",
    ];
    let (until, mut count) = (until(), 0);
    while Instant::now() < until {
        let mut input = inputs[random.usize(..inputs.len())].clone();
        change(&mut input, &mut random, special);
        parse(&input, &mut random);
        count += 1;
    }
    println!("protocol: {count} inputs");
}

/// The files of a directory of the corpus, in the order of their names.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .expect("the corpus is there")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let name = entry.file_name().into_string().expect("a plain name");
            (name, std::fs::read(entry.path()).expect("it can be read"))
        })
        .collect();
    files.sort();
    files
}

/// What recovery carries out, in words.
#[derive(Default)]
struct Done(Vec<String>);

fn say(args: Args<'_>) -> String {
    args.iter_from(0).map(|word| format!("{} ", word.escape_ascii())).collect()
}

impl Target for Done {
    fn command(&mut self, db: usize, args: Args<'_>) -> Result<(), Error> {
        self.0.push(format!("{db}: {}", say(args)));
        Ok(())
    }

    fn piece(&mut self, piece: &Piece<'_>) -> Result<(), Error> {
        let elements: Vec<_> = piece.elements().collect();
        self.0.push(format!("{piece:?} {elements:?}"));
        Ok(())
    }
}

/// Recovers from these files: what there was, and whether that was all it had to say.
async fn recover_from(dir: &Path, files: &[(String, Vec<u8>)]) -> (Vec<String>, bool) {
    for entry in std::fs::read_dir(dir).expect("the directory is there").flatten() {
        std::fs::remove_file(entry.path()).expect("the directory is ours");
    }
    for (name, bytes) in files {
        std::fs::write(dir.join(name), bytes).expect("the disk has room");
    }
    let files = Files::open_unlocked(dir).await.expect("the directory is there");
    // Whatever it says, it says something.
    let _ = check(&files, None).await.map(|report| report.to_string());
    let mut done = Done::default();
    let outcome = recover(&files, &mut done).await;
    (done.0, outcome.is_ok())
}

/// Bytes to be recovered from: what a server that was killed has left in its directory.
struct Case {
    files: Vec<(String, Vec<u8>)>,
    /// What recovery carries out.
    whole: Vec<String>,
}

async fn cases(dir: &Path) -> Vec<Case> {
    let mut cases = Vec::new();
    for name in ["log", "snapshot"] {
        let files = files(&corpus("recovery").join(name));
        let (whole, is_complete) = recover_from(dir, &files).await;
        assert!(is_complete && whole.len() > 20, "{name}: {} commands and pieces", whole.len());
        cases.push(Case { files, whole });
    }
    cases
}

/// What an import gives.
#[derive(Default)]
struct Imported(usize);

impl rdb::Import for Imported {
    fn entry(&mut self, entry: rdb::Entry) -> Result<(), Error> {
        // All of it can be looked at.
        self.0 += 1 + rdb::dump(entry.value.as_ref()).len();
        Ok(())
    }

    fn command(&mut self, _db: usize, args: Args<'_>) -> Result<(), Error> {
        self.0 += say(args).len();
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits::default()
    }
}

#[test]
fn recovery_from_changed_files_invents_nothing() {
    let mut random = random("recovery");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let runtime =
        omniring::Runtime::builder().engine(omniring::Engine::Epoll).build().expect("epoll runs");
    runtime.block_on(async {
        let cases = cases(dir.path()).await;
        let special: &[&[u8]] = &[&[0; 8], &[0xff; 8], &[0; 512], &[0, 0, 0, 0x80]];
        let (until, mut count, mut refused) = (until(), 0, 0);
        while Instant::now() < until {
            let case = &cases[random.usize(..cases.len())];
            let mut files = case.files.clone();
            let changed = random.usize(..files.len());
            change(&mut files[changed].1, &mut random, special);
            let (done, is_complete) = recover_from(dir.path(), &files).await;
            assert!(case.whole.starts_with(&done), "something was made up or left out: {done:?}");
            refused += usize::from(!is_complete);
            count += 1;
        }
        println!("recovery: {count} inputs, {refused} refused");
        assert!(refused > 0, "no damage was noticed");
    });
}

#[test]
fn a_changed_dump_of_redis_is_refused_or_imported() {
    let mut random = random("rdb");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let path = dir.path().join("dump.rdb");
    let runtime =
        omniring::Runtime::builder().engine(omniring::Engine::Epoll).build().expect("epoll runs");
    runtime.block_on(async {
        let inputs = files(&corpus("rdb"));
        for (name, bytes) in &inputs {
            std::fs::write(&path, bytes).expect("the disk has room");
            let mut imported = Imported::default();
            let outcome = rdb::import(&path, &mut imported).await;
            assert!(outcome.is_ok_and(|(keys, _)| keys > 10) && imported.0 > 0, "{name}");
        }
        let special: &[&[u8]] =
            &[&[0x80, 0xff, 0xff, 0xff, 0xff], &[0x81], &[0xc3], &[0xff], &[0; 8], &[18], &[14]];
        let (until, mut count, mut refused) = (until(), 0, 0);
        while Instant::now() < until {
            let mut input = inputs[random.usize(..inputs.len())].1.clone();
            change(&mut input, &mut random, special);
            std::fs::write(&path, &input).expect("the disk has room");
            refused += usize::from(rdb::import(&path, &mut Imported::default()).await.is_err());
            count += 1;
        }
        println!("rdb: {count} inputs, {refused} refused");
        assert!(refused > 0, "no damage was noticed");
    });
}
