//! What the table of keys costs: bytes a key and nanoseconds of processor time an operation.
//!
//!     cargo run --release -p omniring-kv --example store_cost -- KEYS VALUE-BYTES [ttl]
//!     cargo run --release -p omniring-kv --example store_cost -- types ELEMENTS
//!     cargo run --release -p omniring-kv --example store_cost -- churn KEYS
#![allow(clippy::print_stdout)]

use std::collections::HashMap;
use std::io::Error;

use omniring_kv::store::{Db, Expiry, Hash, Keys, Limits, List, Set, Shard, Side, Zset, hash_of};

fn main() -> Result<(), Error> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |at: usize, or: usize| args.get(at).and_then(|arg| arg.parse().ok()).unwrap_or(or);
    if args.first().is_some_and(|arg| arg == "types") {
        return types(number(1, 1_000_000));
    }
    if args.first().is_some_and(|arg| arg == "churn") {
        return churn(number(1, 1_000_000));
    }
    let (count, value_bytes) = (number(0, 1_000_000), number(1, 8));
    let ttl = args.get(2).is_some_and(|arg| arg == "ttl");

    let before = resident()?;
    let mut db = Db::new();
    let value = vec![b'v'; value_bytes];
    let mut key = *b"key:000000000000";
    let start = busy_ns();
    for i in 0..count {
        write_key(&mut key, i);
        let hash = hash_of(&key);
        let expiry = Expiry::Set(ttl.then_some(1 << 41));
        let found = db.find_hashed(hash, &key);
        db.put_string(hash, &key, found, &value, expiry, 1);
    }
    let insert_ns = (busy_ns() - start) / count as u64;
    let resident_bytes = resident()? - before;
    println!(
        "{count} keys of 16 + {value_bytes} bytes{}: {:.1} bytes a key resident, {:.1} by its own count",
        if ttl { " with ttl" } else { "" },
        resident_bytes as f64 / count as f64,
        db.memory() as f64 / count as f64,
    );
    println!("  whole process {:.1} bytes a key", resident()? as f64 / count as f64);
    println!("  find and insert: {insert_ns} ns");

    let mut random = fastrand::Rng::with_seed(1);
    let rounds = rounds(count);
    let mut found = 0;
    timed("find, random keys that are there", rounds, |_| {
        write_key(&mut key, random.usize(..count));
        found += usize::from(db.find(&key).is_some_and(|slot| db.kind(slot).name() == "string"));
    });
    timed("find, keys that are not", rounds, |i| {
        write_key(&mut key, count + i);
        found += usize::from(db.find(&key).is_some());
    });
    assert_eq!(found, rounds);
    timed("replace", rounds, |_| {
        write_key(&mut key, random.usize(..count));
        db.insert_string(&key, &value, 2);
    });
    timed("random", rounds / 10, |_| found += usize::from(db.random(&mut random).is_some()));
    let mut cursor = 0;
    let mut visited = 0;
    let start = busy_ns();
    loop {
        cursor = db.scan(cursor, 10, |_, _| visited += 1);
        if cursor == 0 {
            break;
        }
    }
    println!("  scan by 10: {} ns a key", (busy_ns() - start) / visited);

    let mut shard = Box::new(Shard::new(0));
    shard.dbs[0] = db;
    let mut keys = Keys::new(1);
    keys.put(shard);
    keys.begin(0, 1 << 40);
    timed("Keys::string", rounds, |_| {
        write_key(&mut key, random.usize(..count));
        found += usize::from(keys.string(&key).is_ok_and(|string| string.is_some()));
    });
    timed("Keys::insert_string", rounds, |_| {
        write_key(&mut key, random.usize(..count));
        keys.insert_string(&key, &value);
    });

    let mut shard = keys.take(0).expect("it was put there");
    let start = busy_ns();
    for i in 0..count {
        write_key(&mut key, i);
        let slot = shard.dbs[0].find(&key).expect("the key is there");
        shard.dbs[0].remove(slot);
    }
    println!("  remove {} ns", (busy_ns() - start) / count as u64);
    println!("  resident afterwards: {:.1} MB", (resident()? - before) as f64 / 1e6);
    compare(count, value_bytes);
    Ok(())
}

/// Values that are replaced by others of other sizes, and keys that go.
fn churn(count: usize) -> Result<(), Error> {
    let mut random = fastrand::Rng::with_seed(1);
    let mut key = *b"key:000000000000";
    let mut db = Db::new();
    let mut bytes = vec![0; count];
    let before = resident()?;
    for round in 0..6 {
        for i in 0..count {
            let number = if round == 0 { i } else { random.usize(..count) };
            write_key(&mut key, number);
            bytes[number] = random.usize(10..150);
            db.insert_string(&key, &vec![b'v'; bytes[number]], 1);
        }
        let payload = 16.0 + bytes.iter().sum::<usize>() as f64 / count as f64;
        println!(
            "payload {payload:.1} bytes, resident {:.1}, by its own count {:.1}",
            (resident()? - before) as f64 / count as f64,
            db.memory() as f64 / count as f64,
        );
    }
    for i in (0..count).filter(|i| i % 10 != 0) {
        write_key(&mut key, i);
        let slot = db.find(&key).expect("the key is there");
        db.remove(slot);
    }
    println!(
        "nine of ten removed: resident {:.1} bytes a key that is left, by its own count {:.1}",
        (resident()? - before) as f64 / db.len() as f64,
        db.memory() as f64 / db.len() as f64,
    );
    Ok(())
}

/// One value of each type, with elements of 16 bytes, and 8 more in a hash.
fn types(count: usize) -> Result<(), Error> {
    let limits = Limits::default();
    let mut random = fastrand::Rng::with_seed(1);
    let mut key = *b"key:000000000000";
    let mut sum = 0;
    let rounds = rounds(count);
    let shown = |what: &str, before: i64, counted: usize| -> Result<(), Error> {
        let resident = (resident()? - before) as f64 / count as f64;
        let counted = counted as f64 / count as f64;
        println!("{what}: {resident:.1} bytes an element resident, {counted:.1} by its own count");
        Ok(())
    };

    let (before, mut list) = (resident()?, List::new());
    timed("List::push", count, |i| {
        write_key(&mut key, i);
        list.push(Side::Right, &key, &limits);
    });
    shown("list", before, list.memory())?;
    timed("List::get", 2000, |_| sum += list.get(random.usize(..count)).map_or(0, <[u8]>::len));
    timed("List::pop", count, |_| sum += list.pop(Side::Left).map_or(0, |element| element.len()));

    let (before, mut hash) = (resident()?, Hash::new());
    timed("Hash::insert", count, |i| {
        write_key(&mut key, i);
        hash.insert(&key, b"12345678", &limits);
    });
    shown("hash", before, hash.memory())?;
    timed("Hash::get", rounds, |_| {
        write_key(&mut key, random.usize(..count));
        sum += hash.get(&key).map_or(0, <[u8]>::len);
    });
    drop(hash);

    let (before, mut set) = (resident()?, Set::new());
    timed("Set::insert", count, |i| {
        write_key(&mut key, i);
        set.insert(&key, &limits);
    });
    shown("set", before, set.memory())?;
    timed("Set::contains", rounds, |_| {
        write_key(&mut key, random.usize(..count));
        sum += usize::from(set.contains(&key));
    });
    drop(set);

    for sorted in [true, false] {
        let (before, mut zset) = (resident()?, Zset::new());
        timed("Zset::insert", count, |i| {
            write_key(&mut key, i);
            let score = if sorted { i as f64 } else { random.f64() };
            zset.insert(&key, score, &limits);
        });
        let order = if sorted { "in order" } else { "at random" };
        shown(&format!("sorted set, {order}"), before, zset.memory())?;
        timed("Zset::score", rounds, |_| {
            write_key(&mut key, random.usize(..count));
            sum += zset.score(&key).map_or(0, |score| score as usize);
        });
        timed("Zset::rank", rounds, |_| {
            write_key(&mut key, random.usize(..count));
            sum += zset.rank(&key).unwrap_or(0);
        });
        timed("Zset::iter_from, 10", rounds, |_| {
            sum += zset.iter_from(random.usize(..count)).take(10).count();
        });
        timed("Zset::remove", count, |i| {
            write_key(&mut key, i);
            zset.remove(&key);
        });
    }
    assert!(sum > 0);
    Ok(())
}

/// What other ways of keeping the same cost in this minute, on this machine.
fn compare(count: usize, value_bytes: usize) {
    let mut random = fastrand::Rng::with_seed(2);
    let bytes = vec![1u8; count * 40];
    let mut sum = 0;
    let (rounds, mut at) = (rounds(count), 1);
    timed("(a read at random from as many times 40 bytes, one after the other)", rounds, |i| {
        at = (at * 0x9e37_79b9 + i + usize::from(bytes[at])) % bytes.len();
    });
    sum += at;
    let mut key = *b"key:000000000000";
    let mut map = HashMap::<Box<[u8]>, Box<[u8]>, ahash::RandomState>::default();
    for i in 0..count {
        write_key(&mut key, i);
        map.insert(Box::new(key), vec![b'v'; value_bytes].into());
    }
    timed("(HashMap of boxes: find)", rounds, |_| {
        write_key(&mut key, random.usize(..count));
        sum += map.get(&key[..]).map_or(0, |value| usize::from(value[0]));
    });
    assert!(sum > 0);
}

fn rounds(count: usize) -> usize {
    2_000_000.min(count * 2)
}

fn timed(what: &str, rounds: usize, mut f: impl FnMut(usize)) {
    let start = busy_ns();
    (0..rounds).for_each(&mut f);
    println!("  {what}: {} ns", (busy_ns() - start) / rounds as u64);
}

/// How long this process has been on a processor: others that run beside it do not count.
fn busy_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0)
}

fn write_key(key: &mut [u8; 16], mut number: usize) {
    for digit in key[4..].iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// The memory of this process that is in use, in bytes.
fn resident() -> Result<i64, Error> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages = statm.split_whitespace().nth(1).and_then(|pages| pages.parse::<i64>().ok());
    pages
        .map(|pages| pages * 4096)
        .ok_or_else(|| Error::other("/proc/self/statm has no second number"))
}
