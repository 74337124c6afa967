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
    let (segment_len, congested_len) = (16 << 10, 1 << 20);
    Options { policy, segment_len, congested_len, retry: Duration::ZERO, syncs_at_once: None }
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
    self::Log::start(
        Rc::new(disk.clone()),
        recovered,
        options(policy),
        Box::new(|_| Duration::ZERO),
    )
    .await
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
        let spacing = Duration::from_micros(random.u64(..3000) * random.u64(..2));
        let hook = Box::new(move |lsn| {
            shown.set(lsn);
            spacing
        });
        let syncs_at_once = Some(random.usize(1..=4));
        let options = Options { syncs_at_once, ..options(policy) };
        let starting = self::Log::start(Rc::new(disk.clone()), recovered, options, hook);
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
                // A task takes turns with the log's.
                omniring::spawn(live(seed)).await.unwrap_or_else(|aborted| aborted.resume());
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

#[test]
fn a_damaged_log_is_repaired_up_to_the_damage_and_told_of_before() {
    block_on(async {
        let disk = Simulated::new(1);
        let records = some_records();
        written(&disk, &records, true).await;
        let disk = disk.restart(false);
        let sound = check(&disk, None).await.expect("the disk is fine");
        let count = records.len() as Lsn;
        assert_eq!((sound.last, &sound.damage, sound.lost), (count, &None, 0), "{sound}");
        assert_eq!(sound.files.iter().map(|found| found.count).sum::<u64>(), count);
        let files = disk.files();
        let mut repaired = 0;
        for (name, bytes) in &files {
            for at in (0..bytes.len()).step_by(509) {
                files.iter().for_each(|(name, bytes)| disk.put(name, bytes));
                let mut flipped = bytes.clone();
                flipped[at] ^= 4;
                disk.put(name, &flipped);
                let alone = check(&disk, Some(name)).await.expect("the disk is fine");
                let report = repair(&disk).await.expect("it is no snapshot");
                let (recovered, done) = recover_all(&disk).await.expect("it is repaired");
                let expected = records[..recovered.last as usize].iter().flatten();
                assert_eq!(done, expected.cloned().collect::<Done>(), "{name} {at}");
                assert_eq!(report.last, recovered.last, "{name} {at}: {report}");
                let cut: Vec<_> =
                    disk.files().into_iter().filter(|(name, _)| name.ends_with(".cut")).collect();
                if let Some(damage) = &report.damage {
                    assert!(damage.file == *name && damage.offset <= at as u64, "{report}");
                    let lost = count - recovered.last;
                    assert!(report.lost <= lost && report.lost + 1 >= lost, "{lost} {report}");
                    assert!(recovered.last == count || !cut.is_empty());
                    assert!(alone.damage.is_some() || number_of_last(&files) != *name);
                    repaired += 1;
                } else {
                    assert!(cut.is_empty());
                }
                for (name, _) in cut {
                    disk.remove(&name).await.expect("it is there");
                }
                for (name, _) in disk.files() {
                    disk.remove(&name).await.expect("it is there");
                }
            }
        }
        assert!(repaired > 10, "{repaired}");
    });
}

fn number_of_last(files: &[(String, Vec<u8>)]) -> String {
    files.iter().map(|(name, _)| name.clone()).max().unwrap_or_default()
}

#[test]
fn a_full_disk_refuses_writes_and_loses_nothing_and_goes_on_when_there_is_room() {
    block_on(async {
        let disk = Simulated::new(5);
        let (recovered, _) = recover_all(&disk).await.expect("an empty disk is fine");
        let log = start(&disk, recovered, Policy::Always).await.expect("the disk is fine");
        let mut random = fastrand::Rng::with_seed(5);
        let mut appended = Vec::new();
        // Every operation fails.
        disk.set_faults(1, u64::MAX);
        for name in 0..5 {
            let commands = random_commands(&mut random, name);
            append(&log, &commands);
            appended.extend(commands);
        }
        while log.refusal().is_none() {
            omniring::yield_now().await;
        }
        let refusal = log.refusal().expect("it refuses").to_string();
        assert!(refusal.starts_with("MISCONF Errors writing to the AOF file: "), "{refusal}");
        for _ in 0..200 {
            omniring::yield_now().await;
        }
        assert_eq!(log.synced(), 0, "nothing is acknowledged");
        disk.set_faults(0, u64::MAX);
        while log.refusal().is_some() || log.synced() < 5 {
            omniring::yield_now().await;
        }
        log.stop().await.expect("the disk is fine");
        let (_, done) = recover_all(&disk.restart(true)).await.expect("it is whole");
        assert_eq!(done, appended);
    });
}

#[test]
fn a_log_with_more_than_it_may_hold_is_congested_until_the_disk_has_it() {
    block_on(async {
        let disk = Simulated::new(6);
        let (recovered, _) = recover_all(&disk).await.expect("an empty disk is fine");
        let log = start(&disk, recovered, Policy::Always).await.expect("the disk is fine");
        assert!(!log.is_congested());
        let args = OwnedArgs::of([&b"SET"[..], b"k", &vec![b'v'; 1 << 20]]);
        append(&log, &vec![(0, args.clone())]);
        append(&log, &vec![(0, args)]);
        assert!(log.is_congested());
        log.room().await;
        assert!(!log.is_congested() && log.synced() == 2);
    });
}

/// The same files on a real disk, by the engine that runs.
#[test]
fn a_directory_outlives_the_log_that_wrote_it_and_is_nobody_elses() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    let records = some_records();
    for round in 0..3u64 {
        block_on(async {
            let disk = Rc::new(Files::open(&path).await.expect("it is free"));
            let other = Files::open(&path).await.expect_err("it is taken");
            assert_eq!(other.kind(), std::io::ErrorKind::AlreadyExists);
            let mut done = Done::new();
            let recovered = recover(&*disk, &mut done).await.expect("it is whole");
            let all = (0..round).flat_map(|_| records.iter().flatten().cloned());
            assert_eq!(done, all.collect::<Done>());
            assert_eq!(recovered.notices, Vec::<String>::new());
            let policy = [Policy::Always, Policy::EverySecond, Policy::No][round as usize];
            let hook = Box::new(|_| Duration::ZERO);
            let log = Log::start(disk, recovered, options(policy), hook).await.expect("it begins");
            let mut last = 0;
            for commands in &records {
                last = append(&log, commands);
                omniring::yield_now().await;
            }
            log.stop().await.expect("the disk is fine");
            assert_eq!(log.synced(), last);
        });
    }
}
