//! The database against a model, with random operations.

use std::collections::{HashMap, HashSet};

use super::*;
use crate::store::Limits;

#[derive(Clone, Debug, PartialEq)]
struct Kept {
    value: Vec<u8>,
    is_list: bool,
    expires_ms: Option<u64>,
    access: Access,
    epoch: bool,
}

fn text(db: &Db, slot: Slot) -> (Vec<u8>, bool) {
    match db.value(slot) {
        ValueRef::Str(string) => (string.to_vec(), false),
        ValueRef::List(list) => (list.get(0).expect("it has one").to_vec(), true),
        other => panic!("nothing else was put there: {other:?}"),
    }
}

fn random_value(random: &mut fastrand::Rng) -> Vec<u8> {
    match random.u8(..10) {
        0..3 => random.i64(..).to_string().into_bytes(),
        3 => vec![],
        4 => vec![b'x'; random.usize(..700)],
        _ => vec![b'v'; random.usize(..100)],
    }
}

/// Whether the database holds just what the model does, by every way of looking at it.
fn check(db: &Db, model: &HashMap<Vec<u8>, Kept>) {
    assert_eq!(db.len(), model.len());
    assert_eq!(db.expiring(), model.values().filter(|kept| kept.expires_ms.is_some()).count());
    for (key, kept) in model {
        let slot = db.find(key).expect("the key is there");
        assert_eq!(db.key(slot), key);
        let (value, is_list) = text(db, slot);
        let (expires_ms, access, epoch) = (db.expires_ms(slot), db.access(slot), db.epoch(slot));
        assert_eq!(*kept, Kept { value, is_list, expires_ms, access, epoch });
    }
    let mut seen = HashSet::new();
    let mut cursor = 0;
    loop {
        cursor = db.scan(cursor, 10, |db, slot| assert!(seen.insert(db.key(slot).to_vec())));
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(seen.len(), model.len());
    let (mut expiring, mut cursor) = (0, 0);
    loop {
        cursor = db.scan_expiring(cursor, 10, |_, _| expiring += 1);
        if cursor == 0 {
            break;
        }
    }
    assert_eq!(expiring, db.expiring());
}

#[test]
fn a_database_holds_what_a_map_would() {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut db, mut model) = (Db::new(), HashMap::<Vec<u8>, Kept>::new());
    // Phases that fill and empty it, so that segments are split and merged.
    for (phase, removals) in [5, 5, 70, 5, 95].into_iter().enumerate() {
        for step in 0..12_000 {
            let long = if random.u8(..100) == 0 { 600 } else { 0 };
            let key = format!("key:{:long$}", random.u32(..9000)).into_bytes();
            let access = random.u32(..1 << 24);
            let found = db.find(&key);
            assert_eq!(found.is_some(), model.contains_key(&key));
            if random.u8(..100) < removals {
                if let Some(slot) = found {
                    let kept = model.remove(&key).expect("both have it");
                    let (value, expires_ms) = db.remove(slot);
                    assert_eq!(expires_ms, kept.expires_ms);
                    if let ValueRef::Str(string) = value.as_ref() {
                        assert_eq!(string.to_vec(), kept.value);
                    }
                }
                continue;
            }
            let old = model.get(&key).cloned();
            let mut kept = old.clone().unwrap_or(Kept {
                value: vec![],
                is_list: false,
                expires_ms: None,
                access,
                epoch: db.new_epoch(),
            });
            match (random.u8(..8), found) {
                (0, Some(slot)) => {
                    kept.expires_ms = random.bool().then(|| random.u64(..));
                    let moved = db.set_expires_ms(slot, kept.expires_ms);
                    assert_eq!(db.find(&key), Some(moved));
                }
                (1, Some(slot)) => {
                    kept.epoch = !kept.epoch;
                    db.set_epoch(slot, kept.epoch);
                }
                (2, Some(slot)) => {
                    kept.access = access;
                    db.set_access(slot, access);
                }
                (3, Some(slot)) if !kept.is_list => {
                    kept.value.extend_from_slice(b"more");
                    db.string_mut(slot).expect("it is a string").extend_from_slice(b"more");
                }
                (4, _) => {
                    let mut list = Box::new(List::new());
                    kept.value = random_value(&mut random);
                    list.push(crate::store::Side::Left, &kept.value, &Limits::default());
                    (kept.is_list, kept.access) = (true, access);
                    db.insert(&key, Value::List(list), access);
                }
                _ => {
                    kept.value = random_value(&mut random);
                    (kept.is_list, kept.access) = (false, access);
                    let expires_ms = (random.u8(..4) == 0).then(|| random.u64(..));
                    kept.expires_ms = expires_ms;
                    let hash = hash_of(&key);
                    let expiry = Expiry::Set(expires_ms);
                    db.put_string(hash, &key, found, &kept.value, expiry, access);
                }
            }
            model.insert(key, kept);
            if step % 4000 == 0 {
                db.set_new_epoch(random.bool());
            }
        }
        check(&db, &model);
        assert!(phase != 2 || db.capacity() < 40 * db.len().max(100), "it shrinks");
    }
    for key in model.keys() {
        let slot = db.find(key).expect("it is there");
        db.remove(slot);
    }
    assert_eq!((db.len(), db.expiring(), db.table.memory()), (0, 0, 0));
    assert_eq!(db.memory(), db.values.memory(), "no value is left to be counted");
}

#[test]
fn a_scan_meets_every_key_that_stays_whatever_comes_and_goes() {
    let mut random = fastrand::Rng::with_seed(11);
    let mut db = Db::new();
    let stays: Vec<Vec<u8>> = (0..3000).map(|i| format!("stays:{i}").into_bytes()).collect();
    stays.iter().for_each(|key| _ = db.insert_string(key, b"v", 0));
    let mut others: Vec<Vec<u8>> = Vec::new();
    for round in 0..6 {
        let (mut seen, mut cursor, mut calls) = (HashSet::new(), 0, 0);
        let growing = round % 2 == 0;
        loop {
            let mut visited = 0;
            cursor = db.scan(cursor, 20, |db, slot| {
                visited += 1;
                seen.insert(db.key(slot).to_vec());
            });
            assert!(visited < 200, "a call visits about as many as it is asked to: {visited}");
            assert!(cursor >> CURSOR_BITS == 0);
            if cursor == 0 {
                break;
            }
            calls += 1;
            for _ in 0..100 {
                if growing && calls < 150 {
                    others.push(format!("other:{}", random.u64(..)).into_bytes());
                    db.insert_string(others.last().expect("it was pushed"), b"other", 0);
                } else if !growing && !others.is_empty() {
                    let key = others.swap_remove(random.usize(..others.len()));
                    let slot = db.find(&key).expect("it is there");
                    db.remove(slot);
                }
            }
        }
        assert!(stays.iter().all(|key| seen.contains(key)));
    }
}

#[test]
fn a_key_is_picked_as_often_as_any_other() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut db = Db::new();
    let count = 2000;
    (0..count).for_each(|i: u32| _ = db.insert_string(&i.to_le_bytes(), b"v", 0));
    for i in 0..20 {
        let slot = db.find(&u32::to_le_bytes(i)).expect("it is there");
        db.set_expires_ms(slot, Some(1));
    }
    let mut picked = HashMap::<Vec<u8>, u32>::new();
    for _ in 0..100 * count {
        let slot = db.random(&mut random).expect("there are keys");
        *picked.entry(db.key(slot).to_vec()).or_default() += 1;
    }
    assert_eq!(picked.len(), count as usize);
    // 100 of each are expected, give or take 10.
    let (least, most) = (picked.values().min(), picked.values().max());
    assert!(least > Some(&50) && most < Some(&160), "{least:?} to {most:?}");
    let expiring: HashSet<Vec<u8>> = (0..2000)
        .map(|_| db.random_expiring(&mut random).expect("there are some"))
        .map(|slot| db.key(slot).to_vec())
        .collect();
    assert_eq!(expiring.len(), 20);
}

#[test]
fn memory_follows_values_that_are_changed_in_place() {
    let mut db = Db::new();
    let slot = db.insert_string(b"a", b"b", 0);
    let before = db.memory();
    db.string_mut(slot).expect("it is a string").resize(100_000, 0);
    assert!(db.memory() > before + 100_000);
    let slot = db.find(b"a").expect("it is there");
    db.string_mut(slot).expect("it is a string").truncate(0);
    db.string_mut(slot).expect("it is a string").shrink_to_fit();
    assert!(db.memory() < before + 20_000);
    db.insert_string(b"a", b"c", 0);
    assert_eq!(db.value_bytes, 0);
}

#[test]
fn what_is_taken_out_is_dropped_in_pieces() {
    let mut db = Db::new();
    for i in 0..5000u32 {
        db.insert_string(&i.to_le_bytes(), &vec![b'x'; (i % 400) as usize], 0);
    }
    let mut remains = db.take();
    assert!(db.is_empty() && db.find(&1u32.to_le_bytes()).is_none());
    let mut pieces = 0;
    while remains.drop_some(500) {
        pieces += 1;
    }
    assert!(pieces > 5, "{pieces}");
    db.insert_string(b"a", b"b", 0);
    assert_eq!(db.len(), 1);
}
