//! Clients that keep values of keys themselves, and hear when one changes: `CLIENT TRACKING`.
//!
//! That a client has read a key is noted in the key's shard while that is in hand, so that no change falls between a
//! read and its note. Clients that follow prefixes of keys are in a table of the server. Messages are deliveries, as
//! those of channels are: to the client whose command made them they leave after its reply. Without such clients,
//! all of this is one flag that is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::client::{ClientInfo, state};
use super::pubsub::{Delivery, What};
use super::{Client, Core, Subscriber};
use crate::command::{Command, flag};
use crate::config::Config;
use crate::protocol::Args;
use crate::store::{Invalid, Keys, shard_of};

/// How a client follows keys.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracks {
    /// Whether it hears of all keys with its prefixes, not of those that it has read.
    pub broadcast: bool,
    /// Whether only reads after `CLIENT CACHING yes` count.
    pub opt_in: bool,
    /// Whether reads after `CLIENT CACHING no` do not count.
    pub opt_out: bool,
    /// Whether it hears nothing of what it changes itself.
    pub no_loop: bool,
    /// The client that gets the messages in its place, or 0.
    pub redirect: u64,
    /// Whether that one has gone.
    pub is_broken: bool,
    /// The prefixes.
    pub prefixes: BTreeSet<Vec<u8>>,
}

/// What is known of all clients that follow keys.
#[derive(Debug, Default)]
pub struct Tracking {
    /// Whether there are any, or keys that any have read.
    is_on: AtomicBool,
    /// How many there are.
    clients: AtomicUsize,
    /// Keys that any of them has read.
    keys: AtomicUsize,
    /// Reads of a key by a client.
    items: AtomicUsize,
    /// Clients by the prefixes that they follow.
    prefixes: Mutex<BTreeMap<Vec<u8>, BTreeSet<u64>>>,
    prefix_count: AtomicUsize,
}

impl Tracking {
    /// Whether any client follows keys, or did a moment ago: what was read is not all forgotten then.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Ordering::Relaxed)
    }

    /// Nobody follows keys, and none are noted: unless somebody begins to at this moment, changes need not be looked at.
    fn turn_off(&self) {
        self.is_on.store(false, Ordering::SeqCst);
        // Who begins counts itself first, and so is either seen here or turns it on after this.
        if self.clients.load(Ordering::SeqCst) > 0 {
            self.is_on.store(true, Ordering::SeqCst);
        }
    }

    /// Clients that follow keys, keys that they have read, by how many of them each, and prefixes.
    pub fn counts(&self) -> [usize; 4] {
        [&self.clients, &self.keys, &self.items, &self.prefix_count]
            .map(|count| count.load(Ordering::Relaxed))
    }

    /// A client follows keys from now on, in this way; prefixes are added to those that it has.
    pub fn begin(&self, client: &mut Client, mut tracks: Tracks) {
        // One lock after the other: others take them the other way around.
        if tracks.broadcast {
            let mut all = self.lock();
            for prefix in &tracks.prefixes {
                all.entry(prefix.clone()).or_default().insert(client.info.id);
            }
            self.prefix_count.store(all.len(), Ordering::Relaxed);
        }
        let mut place = client.info.tracks();
        match place.as_deref_mut() {
            Some(before) => tracks.prefixes.append(&mut before.prefixes),
            None => _ = self.clients.fetch_add(1, Ordering::SeqCst),
        }
        self.is_on.store(true, Ordering::SeqCst);
        let notes_reads = !tracks.broadcast;
        *place = Some(Box::new(tracks));
        drop(place);
        client.notes_reads = notes_reads;
        client.is_caching_given = false;
    }

    /// A client follows no keys any longer. What it has read is forgotten when it changes.
    pub fn end(&self, client: &mut Client) {
        client.notes_reads = false;
        client.is_caching_given = false;
        let Some(tracks) = client.info.tracks().take() else {
            return;
        };
        self.clients.fetch_sub(1, Ordering::SeqCst);
        let mut all = self.lock();
        for prefix in &tracks.prefixes {
            if let Some(clients) = all.get_mut(prefix) {
                clients.remove(&client.info.id);
                if clients.is_empty() {
                    all.remove(prefix);
                }
            }
        }
        self.prefix_count.store(all.len(), Ordering::Relaxed);
    }

    /// Takes the right to give a key up, where there are more than `max`.
    fn is_over(&self, max: usize) -> bool {
        let less = |keys: usize| (keys > max).then(|| keys - 1);
        self.keys.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less).is_ok()
    }

    fn forgot(&self, keys: usize, items: usize) {
        self.keys.fetch_sub(keys, Ordering::Relaxed);
        self.items.fetch_sub(items, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Vec<u8>, BTreeSet<u64>>> {
        self.prefixes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ClientInfo {
    /// How it follows keys, if it does.
    pub fn tracks(&self) -> MutexGuard<'_, Option<Box<Tracks>>> {
        self.tracks.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Core {
    /// Tells those who have read keys which a command has changed, `by` being whose it was. Those who follow prefixes
    /// are told by [`Core::broadcast`].
    pub(super) fn invalidate(&self, keys: &mut Keys, by: u64, deliveries: &mut Vec<Delivery>) {
        let tracking = &self.server.tracking;
        for invalid in std::mem::take(&mut keys.effects.invalid) {
            let Invalid::Key { key, by_command } = invalid else {
                self.invalidate_all(keys, deliveries);
                continue;
            };
            let index = shard_of(&key, keys.shard_count());
            if let Some(clients) = keys.shard(index).tracked.take(&key) {
                tracking.forgot(1, clients.len());
                self.tell(&key, clients, by_command.then_some(by), deliveries);
            }
            if tracking.prefix_count.load(Ordering::Relaxed) > 0 {
                keys.effects.broadcast.insert(key, by_command);
            }
        }
    }

    /// Tells all who follow keys that any key may have changed. All shards are at hand.
    pub(super) fn invalidate_all(&self, keys: &mut Keys, deliveries: &mut Vec<Delivery>) {
        for shard in keys.shards() {
            let (keys, items) = shard.tracked.clear();
            self.server.tracking.forgot(keys, items);
        }
        keys.effects.broadcast.clear();
        for client in self.server.clients.all() {
            deliveries.extend(self.message(&client, None, |_| true));
        }
    }

    /// Tells those who follow prefixes which keys have changed: in one message for each prefix.
    pub(super) fn broadcast(&self, keys: &mut Keys, by: u64, deliveries: &mut Vec<Delivery>) {
        let changed = std::mem::take(&mut keys.effects.broadcast);
        if changed.is_empty() {
            return;
        }
        for (prefix, clients) in self.server.tracking.lock().iter() {
            let with_prefix = changed.iter().filter(|(key, _)| key.starts_with(prefix));
            let all: Arc<[Vec<u8>]> = with_prefix.clone().map(|(key, _)| key.clone()).collect();
            let others = || with_prefix.clone().filter(|(_, by_command)| !**by_command);
            for &id in clients {
                let Some(client) = self.server.clients.get(id) else {
                    continue;
                };
                let is_own = id == by && client.tracks().as_ref().is_some_and(|how| how.no_loop);
                let told = if is_own {
                    others().map(|(key, _)| key.clone()).collect()
                } else {
                    all.clone()
                };
                if !told.is_empty() {
                    deliveries.extend(self.message(&client, Some(told), |_| true));
                }
            }
        }
    }

    /// Notes which keys a client has read.
    pub(super) fn note_reads(
        &self,
        keys: &mut Keys,
        client: &Client,
        command: &Command,
        args: Args<'_>,
        config: &Config,
        deliveries: &mut Vec<Delivery>,
    ) {
        if !command.has(flag::READONLY) {
            return;
        }
        let counts = match client.info.tracks().as_deref() {
            Some(how) if how.opt_in => client.is_caching_given,
            Some(how) if how.opt_out => !client.is_caching_given,
            how => how.is_some(),
        };
        if !counts {
            return;
        }
        let tracking = &self.server.tracking;
        let count = keys.shard_count();
        command.for_each_key(args, |index| {
            let key = &args[index];
            let shard = keys.shard(shard_of(key, count));
            let (is_key_new, is_new) = shard.tracked.note(key, client.info.id);
            tracking.keys.fetch_add(usize::from(is_key_new), Ordering::Relaxed);
            tracking.items.fetch_add(usize::from(is_new), Ordering::Relaxed);
            if is_key_new {
                self.give_up(keys, shard_of(key, count), config, deliveries);
            }
        });
    }

    /// Gives keys of a shard up while there are more than the settings allow: those who have read them are told, as if
    /// they had changed.
    fn give_up(
        &self,
        keys: &mut Keys,
        index: usize,
        config: &Config,
        deliveries: &mut Vec<Delivery>,
    ) {
        let max = config.tracking_table_max_keys;
        while max > 0 && self.server.tracking.is_over(max) {
            let Some((key, clients)) = keys.shard(index).tracked.take_any() else {
                // The others are of other shards.
                self.server.tracking.keys.fetch_add(1, Ordering::Relaxed);
                return;
            };
            self.server.tracking.forgot(0, clients.len());
            self.tell(&key, clients, None, deliveries);
        }
    }

    /// Gives keys of this core's shard up while there are more than the settings allow, and forgets what was read
    /// where nobody follows keys any longer.
    pub(super) fn limit_tracked(&self, config: &Config) {
        let tracking = &self.server.tracking;
        if !tracking.is_on() {
            return;
        }
        let is_followed = tracking.clients.load(Ordering::Relaxed) > 0;
        let mut deliveries = Vec::new();
        if let Ok(mut keys) = self.keys.try_borrow_mut()
            && keys.has(self.index)
        {
            if is_followed {
                self.give_up(&mut keys, self.index, config, &mut deliveries);
            } else {
                let (keys, items) = keys.shard(self.index).tracked.clear();
                tracking.forgot(keys, items);
            }
        }
        if !is_followed && tracking.keys.load(Ordering::Relaxed) == 0 {
            tracking.turn_off();
        }
        self.deliver(deliveries);
    }

    /// Tells clients that have read a key of its change; not the one who made it, if it wants that so.
    fn tell(&self, key: &[u8], clients: Vec<u64>, by: Option<u64>, deliveries: &mut Vec<Delivery>) {
        let key: Arc<[Vec<u8>]> = [key.to_vec()].into();
        for client in clients.into_iter().filter_map(|id| self.server.clients.get(id)) {
            let is_told = |how: &Tracks| !(how.broadcast || (how.no_loop && by == Some(client.id)));
            deliveries.extend(self.message(&client, Some(key.clone()), is_told));
        }
    }

    /// The message that keys have changed, `None` being all of them, to a client or to whom it is redirected.
    fn message(
        &self,
        client: &ClientInfo,
        keys: Option<Arc<[Vec<u8>]>>,
        is_told: impl FnOnce(&Tracks) -> bool,
    ) -> Option<Delivery> {
        let mut tracks = client.tracks();
        let how = tracks.as_deref_mut().filter(|how| is_told(how))?;
        let delivery = |to: &ClientInfo, what| Delivery {
            to: Subscriber { client: to.id, core: to.core },
            what,
        };
        if how.redirect == 0 {
            return Some(delivery(client, What::Invalid { keys, is_redirected: false }));
        }
        let other = self.server.clients.get(how.redirect);
        match other.filter(|other| !other.is(state::CLOSING | state::KILLED)) {
            Some(other) => Some(delivery(&other, What::Invalid { keys, is_redirected: true })),
            None => {
                how.is_broken = true;
                Some(delivery(client, What::RedirectionBroken(how.redirect)))
            }
        }
    }
}
