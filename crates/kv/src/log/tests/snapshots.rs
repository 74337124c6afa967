//! Snapshots that are written while commands go on, on a disk that fails: what is recovered is the outcome of a
//! prefix of the commands, with all of those that were acknowledged.

use std::collections::BTreeMap;

use super::*;
use crate::command::{Call, resolve};
use crate::config::Config;
use crate::protocol::Reply;
use crate::server::{Client, Server, call, follow};
use crate::store::{DBS, Keys, Shard, Slice, ValueRef};

const SHARDS: usize = 2;

/// A server of one client.
struct Live {
    keys: Keys,
    server: Server,
}

impl Live {
    fn new(journal: Option<Box<dyn Journal>>) -> Live {
        let mut keys = Keys::new(SHARDS);
        (0..SHARDS).for_each(|index| keys.put(Box::new(Shard::new(index))));
        Live { keys, server: Server::new(Config::default(), journal, SHARDS) }
    }

    fn run(&mut self, db: usize, args: &OwnedArgs) {
        let mut client = Client { db, ..Client::default() };
        let mut reply = Reply::new(client.proto);
        let args = args.args();
        self.keys.effects = Default::default();
        self.keys.begin(db, 1_700_000_000_000);
        let config = self.server.config();
        let mut with = Call {
            keys: &mut self.keys,
            reply: &mut reply,
            config: &config,
            server: &self.server,
            deliveries: &mut Vec::new(),
        };
        let command = resolve(args).expect("there is such a command");
        // What is refused changes nothing.
        let _ = call(command, &mut with, &mut client, args);
        follow(&mut self.keys, &self.server, args);
    }

    /// All keys, in an order, with all that is told of them.
    fn dump(&mut self) -> BTreeMap<(usize, Vec<u8>), String> {
        let mut all = BTreeMap::new();
        for db in 0..DBS {
            for shard in self.keys.shards() {
                let mut cursor = 0;
                loop {
                    cursor = shard.dbs[db].scan(cursor, 1000, |table, slot| {
                        let shown = show(table.value(slot));
                        let shown = format!("{:?} {shown}", table.expires_ms(slot));
                        all.insert((db, table.key(slot).to_vec()), shown);
                    });
                    if cursor == 0 {
                        break;
                    }
                }
            }
        }
        all
    }
}

fn show(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Str(string) => format!("{:?}", string.to_vec()),
        ValueRef::List(list) => format!("{:?}", list.iter_from(0).collect::<Vec<_>>()),
        ValueRef::Set(set) => {
            let mut members: Vec<_> = set.iter().map(|member| member.to_vec()).collect();
            members.sort();
            format!("set {members:?}")
        }
        ValueRef::Hash(hash) => {
            let mut fields: Vec<_> = hash.iter().collect();
            fields.sort();
            format!("hash {fields:?}")
        }
        ValueRef::Zset(zset) => format!("zset {:?}", zset.iter_from(0).collect::<Vec<_>>()),
    }
}

fn random_command(random: &mut fastrand::Rng) -> OwnedArgs {
    let key = |kind: &str, random: &mut fastrand::Rng| format!("{kind}{}", random.u32(..6));
    let element = |random: &mut fastrand::Rng| random.u32(..40).to_string();
    let words = match random.u32(..60) {
        0 => vec!["FLUSHDB".to_owned()],
        1 | 2 => {
            vec!["SWAPDB".to_owned(), random.u32(..3).to_string(), random.u32(..3).to_string()]
        }
        3..6 => {
            let mut words = vec!["RPUSH".to_owned(), "large list".to_owned()];
            words.extend((0..70).map(|_| element(random)));
            words
        }
        6..8 => {
            let mut words = vec!["HSET".to_owned(), "large hash".to_owned()];
            words.extend((0..160).map(|_| random.u32(..200).to_string()));
            words
        }
        8 => vec!["SET".to_owned(), "large".to_owned(), "x".repeat(1000)],
        9..12 => vec!["APPEND".to_owned(), "large".to_owned(), element(random)],
        12..16 => {
            let key = key(["s", "l", "z", "h", "set"][random.usize(..5)], random);
            vec!["DEL".to_owned(), key]
        }
        16..18 => vec!["DEL".to_owned(), "large list".to_owned(), "large hash".to_owned()],
        18..26 => vec!["SET".to_owned(), key("s", random), element(random)],
        26..30 => {
            let at = (1_800_000_000_000 + random.u64(..1000)).to_string();
            vec!["SET".to_owned(), key("s", random), element(random), "PXAT".to_owned(), at]
        }
        30..36 => vec!["RPUSH".to_owned(), key("l", random), element(random)],
        36..38 => vec!["LPOP".to_owned(), key("l", random)],
        38..44 => vec!["SADD".to_owned(), key("set", random), element(random)],
        44..46 => vec!["SREM".to_owned(), key("set", random), element(random)],
        46..52 => vec!["HSET".to_owned(), key("h", random), element(random), element(random)],
        _ => vec!["ZADD".to_owned(), key("z", random), element(random), element(random)],
    };
    OwnedArgs::of(words)
}

async fn load(disk: &Simulated, live: &mut Live) -> Result<Recovered, Failure> {
    let mut target = IntoKeys::new(&mut live.keys, &live.server);
    recover(disk, &mut target).await
}

async fn lives(seed: u64, snapshots: &Cell<u32>) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut disk = Simulated::new(random.u64(..));
    let mut history: Vec<(usize, OwnedArgs)> = Vec::new();
    let acknowledged = Rc::new(Cell::new(0));
    let count = random.u32(2..5);
    for life in 0..=count {
        let mut live = Live::new(None);
        let recovered = match load(&disk, &mut live).await {
            Ok(recovered) => recovered,
            Err(failure) => panic!("seed {seed}, life {life}: {failure}"),
        };
        let last = recovered.last;
        assert!(
            last >= acknowledged.get() && last <= history.len() as Lsn,
            "seed {seed}, life {life}: {last} of {}, {} acknowledged",
            history.len(),
            acknowledged.get()
        );
        history.truncate(last as usize);
        let mut model = Live::new(None);
        history.iter().for_each(|(db, args)| model.run(*db, args));
        assert!(live.dump() == model.dump(), "seed {seed}, life {life}: not what was at {last}");
        if life == count {
            return;
        }
        let shown = acknowledged.clone();
        let hook = Box::new(move |lsn| {
            shown.set(lsn);
            Duration::ZERO
        });
        let policy = [Policy::Always, Policy::EverySecond, Policy::No][random.usize(..3)];
        let log = Log::start(Rc::new(disk.clone()), recovered, options(policy), hook).await;
        let log = log.expect("the disk is fine");
        live.server = Server::new(Config::default(), Some(Box::new(log.clone())), SHARDS);
        let faults = if random.bool() { 0 } else { random.u32(20..100) };
        disk.set_faults(faults, random.u64(20..300));
        let mut writing: Option<omniring::JoinHandle<Result<Saved, Failure>>> = None;
        for _ in 0..150 {
            if disk.is_off() {
                break;
            }
            let is_over = writing.as_ref().is_some_and(omniring::JoinHandle::is_finished);
            if let Some(over) = writing.take_if(|_| is_over)
                && over.await.expect("it does not panic").is_ok()
            {
                snapshots.set(snapshots.get() + 1);
            }
            if writing.is_none()
                && random.u32(..8) == 0
                && let Some(snapshot) = Snapshot::begin(&mut live.keys, log.cut(), 1)
            {
                let disk = disk.clone();
                writing = Some(omniring::spawn(async move { snapshot.write(&disk).await }));
            }
            for _ in 0..random.usize(..6) {
                let (db, args) = (random.usize(..3), random_command(&mut random));
                let key = args.args().get(1).map(<[u8]>::to_vec).unwrap_or_default();
                if random.bool() {
                    live.keys.shards().for_each(|shard| {
                        let _ = shard.must_save_first(db, &key);
                    });
                }
                let before = lock(&log.shared.staging).last;
                live.run(db, &args);
                if lock(&log.shared.staging).last != before {
                    history.push((db, args));
                }
            }
            for shard in live.keys.shards() {
                for _ in 0..random.usize(..4) {
                    if save_slice(shard, Duration::ZERO) != Slice::More {
                        break;
                    }
                }
            }
            for _ in 0..random.usize(..12) {
                omniring::yield_now().await;
            }
        }
        disk = disk.restart(random.bool());
    }
}

#[test]
fn a_snapshot_and_the_log_since_are_the_state() {
    let seeds: Vec<u64> = match std::env::var("OMNIRING_SEED") {
        Ok(seed) => vec![seed.parse().expect("OMNIRING_SEED is a number")],
        Err(_) => (0..60).collect(),
    };
    let snapshots = Cell::new(0);
    for some in seeds.chunks(20) {
        block_on(async {
            for &seed in some {
                lives(seed, &snapshots).await;
            }
        });
    }
    assert!(snapshots.get() as usize >= seeds.len() / 4, "{} were written", snapshots.get());
}
