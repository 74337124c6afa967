//! The log above a disk that fails.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use super::simulated::Simulated;
use super::*;
use crate::protocol::{Args, OwnedArgs};

mod snapshots;

/// What was carried out, a command each.
type Done = Vec<(usize, OwnedArgs)>;

impl Target for Done {
    fn command(&mut self, db: usize, args: Args<'_>) -> Result<(), Error> {
        self.push((db, args.to_owned()));
        Ok(())
    }

    fn piece(&mut self, _piece: &Piece<'_>) -> Result<(), Error> {
        panic!("there is no snapshot");
    }
}

fn options(policy: Policy) -> Options {
    Options { policy, segment_len: 16 << 10, congested_len: 1 << 20, retry: Duration::ZERO }
}

fn append(log: &Log, commands: &Done) -> Lsn {
    let logged: Vec<Logged<'_>> =
        commands.iter().map(|(db, args)| Logged { db: *db, args: args.args() }).collect();
    log.append(&logged)
}

/// A record's commands.
fn random_commands(random: &mut fastrand::Rng, name: u64) -> Done {
    let len = if random.u32(..12) == 0 { random.usize(..9000) } else { random.usize(..60) };
    let value = vec![random.u8(..); len];
    let count = random.usize(1..=3);
    (0..count)
        .map(|index| {
            let key = format!("{name}:{index}");
            (random.usize(..16), OwnedArgs::of([&b"SET"[..], key.as_bytes(), &value]))
        })
        .collect()
}

async fn recover_all(disk: &Simulated) -> Result<(Recovered, Done), Failure> {
    let mut done = Done::new();
    let recovered = recover(disk, &mut done).await?;
    Ok((recovered, done))
}

/// A log of these records, each of its own batch and segment as the seed wants it, that was ended well or not.
async fn written(disk: &Simulated, records: &[Done], stop: bool) {
    let (recovered, _) = recover_all(disk).await.expect("an empty disk is fine");
    let log = start(disk, recovered, Policy::Always).await.expect("the disk is fine");
    for commands in records {
        let lsn = append(&log, commands);
        while log.synced() < lsn {
            omniring::yield_now().await;
        }
    }
    if stop {
        log.stop().await.expect("the disk is fine");
    }
}

async fn start(disk: &Simulated, recovered: Recovered, policy: Policy) -> Result<Log, Failure> {
    self::Log::start(Rc::new(disk.clone()), recovered, options(policy), Box::new(|_| ())).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    omniring::Runtime::new().expect("an engine runs").block_on(future)
}

/// Lives of a server on a disk that fails and loses power, then one where all is well: nothing that was
/// acknowledged is lost, nothing is half there, and nothing comes that was never appended.
async fn live(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = Simulated::new(random.u64(..));
    // By LSN, from 1 on.
    let mut appended: Vec<Done> = Vec::new();
    let acknowledged = Rc::new(Cell::new(0));
    let mut name = 0;
    for life in 0..random.u32(2..5) {
        let (recovered, done) = match recover_all(&disk).await {
            Ok(found) => found,
            Err(failure) => panic!("seed {seed}, life {life}: {failure}"),
        };
        let last = recovered.last;
        assert!(
            last >= acknowledged.get() && last <= appended.len() as Lsn,
            "seed {seed}, life {life}: {} of {} records were acknowledged, {last} are there",
            acknowledged.get(),
            appended.len(),
        );
        appended.truncate(last as usize);
        let expected: Done = appended.iter().flatten().cloned().collect();
        assert_eq!(done, expected, "seed {seed}, life {life}");
        let faults = if random.bool() { 0 } else { random.u32(3..60) };
        disk.set_faults(faults, random.u64(1..80));
        let policy = [Policy::Always, Policy::EverySecond, Policy::No][random.usize(..3)];
        let shown = acknowledged.clone();
        let hook = Box::new(move |lsn| shown.set(lsn));
        let starting = self::Log::start(Rc::new(disk.clone()), recovered, options(policy), hook);
        let mut starting = std::pin::pin!(starting);
        let mut started = None;
        while started.is_none() && !disk.is_off() {
            started = std::future::poll_fn(|cx| match starting.as_mut().poll(cx) {
                std::task::Poll::Ready(started) => std::task::Poll::Ready(Some(started)),
                std::task::Poll::Pending => std::task::Poll::Ready(None),
            })
            .await;
            omniring::yield_now().await;
        }
        if let Some(Ok(log)) = started {
            let mut turns = 0;
            while !disk.is_off() && turns < 120 {
                turns += 1;
                // A server refuses new ones then, but those that run are logged.
                if log.refusal().is_none() || random.u32(..20) == 0 {
                    for _ in 0..random.usize(..4) {
                        name += 1;
                        let commands = random_commands(&mut random, name);
                        assert_eq!(append(&log, &commands), appended.len() as Lsn + 1);
                        appended.push(commands);
                    }
                }
                if random.u32(..60) == 0 {
                    log.cut();
                }
                if random.u32(..60) == 0 {
                    log.set_policy([Policy::Always, Policy::EverySecond][random.usize(..2)]);
                }
                for _ in 0..random.usize(..6) {
                    omniring::yield_now().await;
                }
            }
        }
        disk = disk.restart(random.bool());
    }
    let (recovered, done) = recover_all(&disk).await.expect("all is well in the end");
    assert!(recovered.last >= acknowledged.get(), "seed {seed}");
    appended.truncate(recovered.last as usize);
    assert_eq!(done, appended.into_iter().flatten().collect::<Done>(), "seed {seed}");
}

#[test]
fn on_a_failing_disk_nothing_acknowledged_is_lost_and_nothing_is_half_there() {
    let seeds: Vec<u64> = match std::env::var("OMNIRING_SEED") {
        Ok(seed) => vec![seed.parse().expect("OMNIRING_SEED is a number")],
        Err(_) => (0..1000).collect(),
    };
    for some in seeds.chunks(50) {
        // With the runtime end the tasks whose disk has gone.
        block_on(async {
            for &seed in some {
                live(seed).await;
            }
        });
    }
}

fn some_records() -> Vec<Done> {
    let mut random = fastrand::Rng::with_seed(3);
    (0..12).map(|name| random_commands(&mut random, name)).collect()
}

#[test]
fn a_log_cut_off_at_any_byte_is_a_prefix() {
    block_on(async {
        let disk = Simulated::new(1);
        let records = some_records();
        written(&disk, &records, false).await;
        let disk = disk.restart(false);
        let files = disk.files();
        let (name, bytes) = files.last().expect("there is a segment");
        let (whole, _) = recover_all(&disk).await.expect("it is whole");
        assert_eq!(whole.last, records.len() as Lsn);
        let (mut seen, mut last) = (0, 0);
        // Steps that meet all offsets within records and within sectors.
        for len in (0..bytes.len()).step_by(19) {
            disk.put(name, &bytes[..len]);
            match recover_all(&disk).await {
                Ok((recovered, done)) => {
                    assert!(recovered.last >= last);
                    last = recovered.last;
                    let expected = records[..last as usize].iter().flatten();
                    assert_eq!(done, expected.cloned().collect::<Done>(), "cut at {len}");
                    seen += 1;
                }
                Err(failure) => assert!(len < 512, "cut at {len}: {failure}"),
            }
        }
        assert!(seen > 500 && last > 5);
    });
}

#[test]
fn no_flipped_byte_gives_a_wrong_value() {
    block_on(async {
        let disk = Simulated::new(1);
        let records = some_records();
        written(&disk, &records, true).await;
        let disk = disk.restart(false);
        let expected: Done = records.iter().flatten().cloned().collect();
        let mut refused = 0;
        for (name, bytes) in disk.files() {
            let used = bytes.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            for at in (0..used).step_by(7).chain(used.saturating_sub(64)..bytes.len().min(used + 9))
            {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                disk.put(&name, &flipped);
                match recover_all(&disk).await {
                    Ok((recovered, done)) => {
                        assert_eq!(done, expected[..done.len()], "{name} {at}");
                        // Where another segment goes on, what is left of this one counts for nothing.
                        let told = recovered.notices.iter().any(|notice| notice.contains(&name));
                        assert!(told || done == expected, "{name} {at}: nobody is told");
                    }
                    Err(Failure::Damaged(damage)) => {
                        assert!(damage.file == name && damage.offset <= at as u64, "{damage}");
                        refused += 1;
                    }
                    Err(other) => panic!("{name} {at}: {other}"),
                }
            }
            disk.put(&name, &bytes);
        }
        assert!(refused > 100);
    });
}
