//! Who is subscribed to what, and messages to them.
//!
//! The registry is the server's; a message goes to each core once, which gives it to its clients.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::glob;

/// A subscriber: the client's number and its core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subscriber {
    /// The client's number.
    pub client: u64,
    /// The core of its connection.
    pub core: usize,
}

/// What a client is subscribed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Topic {
    /// A channel.
    Channel,
    /// All channels that match a pattern.
    Pattern,
    /// A channel of shards, which is one of its own here.
    ShardChannel,
}

/// A message for one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Who gets it.
    pub to: Subscriber,
    /// What it says.
    pub what: What,
}

/// What a message says.
#[derive(Clone, Debug)]
pub enum What {
    /// What was published on a channel.
    Published {
        /// The pattern by which the client gets it, if it is one.
        pattern: Option<Vec<u8>>,
        /// The channel.
        channel: Arc<[u8]>,
        /// The message.
        message: Arc<[u8]>,
        /// Whether it is of a channel of shards.
        is_sharded: bool,
    },
    /// These keys have changed, or all.
    Invalid {
        /// The keys.
        keys: Option<Arc<[Vec<u8>]>>,
        /// Whether another client has asked that this one be told.
        is_redirected: bool,
    },
    /// The client with that number, which was to be told of changes, has gone.
    RedirectionBroken(u64),
}

#[derive(Debug, Default)]
struct Registry {
    channels: HashMap<Vec<u8>, Vec<Subscriber>, ahash::RandomState>,
    patterns: Vec<(Vec<u8>, Vec<Subscriber>)>,
    shard_channels: HashMap<Vec<u8>, Vec<Subscriber>, ahash::RandomState>,
}

/// The subscriptions of all clients.
#[derive(Debug, Default)]
pub struct Pubsub {
    registry: Mutex<Registry>,
    count: AtomicUsize,
}

impl Pubsub {
    /// Adds a subscription that the client does not have.
    pub fn subscribe(&self, topic: Topic, name: &[u8], who: Subscriber) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut registry = self.lock();
        match topic {
            Topic::Channel => registry.channels.entry(name.to_vec()).or_default().push(who),
            Topic::ShardChannel => {
                registry.shard_channels.entry(name.to_vec()).or_default().push(who);
            }
            Topic::Pattern => {
                match registry.patterns.iter_mut().find(|(pattern, _)| pattern == name) {
                    Some((_, subscribers)) => subscribers.push(who),
                    None => registry.patterns.push((name.to_vec(), vec![who])),
                }
            }
        }
    }

    /// Ends a subscription that the client has.
    pub fn unsubscribe(&self, topic: Topic, name: &[u8], client: u64) {
        self.count.fetch_sub(1, Ordering::Relaxed);
        let mut registry = self.lock();
        let map = match topic {
            Topic::Channel => &mut registry.channels,
            Topic::ShardChannel => &mut registry.shard_channels,
            Topic::Pattern => {
                if let Some(at) = registry.patterns.iter().position(|(pattern, _)| pattern == name)
                {
                    let subscribers = &mut registry.patterns[at].1;
                    subscribers.retain(|subscriber| subscriber.client != client);
                    if subscribers.is_empty() {
                        registry.patterns.remove(at);
                    }
                }
                return;
            }
        };
        if let Some(subscribers) = map.get_mut(name) {
            subscribers.retain(|subscriber| subscriber.client != client);
            if subscribers.is_empty() {
                map.remove(name);
            }
        }
    }

    /// The messages that publishing one makes, in the order in which they are sent.
    pub fn publish(&self, channel: &[u8], message: &[u8], is_sharded: bool) -> Vec<Delivery> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let registry = self.lock();
        let (channel, message): (Arc<[u8]>, Arc<[u8]>) = (channel.into(), message.into());
        let delivery = |to: &Subscriber, pattern: Option<Vec<u8>>| Delivery {
            to: *to,
            what: What::Published {
                pattern,
                channel: channel.clone(),
                message: message.clone(),
                is_sharded,
            },
        };
        let map = if is_sharded { &registry.shard_channels } else { &registry.channels };
        let direct = map.get(&channel[..]).into_iter().flatten();
        let mut deliveries: Vec<Delivery> = direct.map(|to| delivery(to, None)).collect();
        if !is_sharded {
            for (pattern, subscribers) in &registry.patterns {
                if glob::matches(pattern, &channel) {
                    let to = subscribers.iter();
                    deliveries.extend(to.map(|to| delivery(to, Some(pattern.clone()))));
                }
            }
        }
        deliveries
    }

    /// The channels that anybody is subscribed to, of those that match.
    pub fn channels(&self, pattern: Option<&[u8]>, is_sharded: bool) -> Vec<Vec<u8>> {
        let registry = self.lock();
        let map = if is_sharded { &registry.shard_channels } else { &registry.channels };
        let names = map.keys();
        let matching = |name: &&Vec<u8>| pattern.is_none_or(|pattern| glob::matches(pattern, name));
        names.filter(matching).cloned().collect()
    }

    /// How many are subscribed to a channel.
    pub fn subscribers(&self, channel: &[u8], is_sharded: bool) -> usize {
        let registry = self.lock();
        let map = if is_sharded { &registry.shard_channels } else { &registry.channels };
        map.get(channel).map_or(0, Vec::len)
    }

    /// How many patterns anybody is subscribed to.
    pub fn patterns(&self) -> usize {
        self.lock().patterns.len()
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
