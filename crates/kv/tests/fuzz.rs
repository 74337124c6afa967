//! Bytes that nobody meant: to the parser of the protocol, and as the files of a log.
//!
//! All inputs of the corpus first, then changed ones, by a seed that is printed, for OMNIRING_FUZZ_SECONDS (2).
// How long it runs is real time, and what it did is shown with its seed.
#![allow(clippy::disallowed_methods, clippy::print_stdout)]

use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use omniring_kv::Error;
use omniring_kv::log::{Files, Log, Options, Piece, Policy, Target, check, recover};
use omniring_kv::protocol::{Args, Bounds, OwnedArgs, Parser};
use omniring_kv::server::{Journal, Logged};

/// A log's only segment here.
const SEGMENT: &str = "0000000000000001.log";

fn random(name: &str) -> fastrand::Rng {
    let given = std::env::var("OMNIRING_FUZZ_SEED").ok().and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| fastrand::u64(..));
    println!("{name}: OMNIRING_FUZZ_SEED={seed}");
    fastrand::Rng::with_seed(seed)
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
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz-corpus/protocol");
    let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(corpus)
        .expect("the corpus is there")
        .map(|entry| std::fs::read(entry.expect("an entry").path()).expect("it can be read"))
        .collect();
    inputs.sort();
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

/// What recovery carries out.
#[derive(Default)]
struct Done(Vec<OwnedArgs>);

impl Target for Done {
    fn command(&mut self, _db: usize, args: Args<'_>) -> Result<(), Error> {
        self.0.push(args.to_owned());
        Ok(())
    }

    fn piece(&mut self, _piece: &Piece<'_>) -> Result<(), Error> {
        panic!("there is no snapshot");
    }
}

/// The bytes of a log's segment, and the commands in it.
async fn segment(dir: &Path, random: &mut fastrand::Rng) -> (Vec<u8>, Vec<OwnedArgs>) {
    let mut files = Files::open(dir).await.expect("an empty directory can be used");
    files.set_zero(false);
    let recovered = recover(&files, &mut Done::default()).await.expect("an empty log is fine");
    let options = Options { policy: Policy::Always, segment_len: 256 << 10, ..Options::default() };
    let log = Log::start(Rc::new(files), recovered, options, Box::new(|_| ()))
        .await
        .expect("the disk is fine");
    let mut commands = Vec::new();
    for index in 0..40 {
        let value = "v".repeat(random.usize(..if index % 8 == 0 { 3000 } else { 40 }));
        let args = OwnedArgs::of(["SET", &format!("k{index}"), &value]);
        log.append(&[Logged { db: 0, args: args.args() }]);
        log.flush().await.expect("the disk is fine");
        commands.push(args);
    }
    log.stop().await.expect("the disk is fine");
    (std::fs::read(dir.join(SEGMENT)).expect("the segment is there"), commands)
}

/// Recovers a log of one file with these bytes; how many commands there were.
async fn recover_from(dir: &Path, bytes: &[u8], commands: &[OwnedArgs]) -> Option<usize> {
    std::fs::write(dir.join(SEGMENT), bytes).expect("the disk has room");
    let files = Files::open_unlocked(dir).await.expect("the directory is there");
    // Whatever it says, it says something.
    let _ = check(&files, None).await.map(|report| report.to_string());
    let mut done = Done::default();
    let outcome = recover(&files, &mut done).await;
    assert!(
        same(&done.0, &commands[..done.0.len().min(commands.len())]),
        "something was made up or left out"
    );
    outcome.is_ok().then_some(done.0.len())
}

#[test]
fn recovery_from_changed_files_invents_nothing() {
    let mut random = random("recovery");
    let dir = tempfile::tempdir().expect("a scratch directory");
    let runtime =
        omniring::Runtime::builder().engine(omniring::Engine::Epoll).build().expect("epoll runs");
    runtime.block_on(async {
        let (bytes, commands) = segment(dir.path(), &mut random).await;
        for entry in std::fs::read_dir(dir.path()).expect("the directory is there").flatten() {
            if entry.file_name() != SEGMENT {
                std::fs::remove_file(entry.path()).expect("the directory is ours");
            }
        }
        assert_eq!(recover_from(dir.path(), &bytes, &commands).await, Some(commands.len()));
        let special: &[&[u8]] = &[&[0; 8], &[0xff; 8], &[0; 512], &[0, 0, 0, 0x80]];
        let (until, mut count, mut refused) = (until(), 0, 0);
        while Instant::now() < until {
            let mut input = bytes.clone();
            change(&mut input, &mut random, special);
            refused += usize::from(recover_from(dir.path(), &input, &commands).await.is_none());
            count += 1;
        }
        println!("recovery: {count} inputs, {refused} refused");
        assert!(refused > 0, "no damage was noticed");
    });
}
