//! How much a client may be sent that it does not read: `client-output-buffer-limit`.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ClientInfo;
use crate::clock;
use crate::config::bytes;

/// The limits of a class of clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutputLimit {
    /// Bytes at which the client is disconnected at once; 0 for none.
    pub hard: u64,
    /// Bytes at which it is after some time; 0 for none.
    pub soft: u64,
    /// That time.
    pub seconds: u64,
}

/// Since when a client has been past its soft limit, in milliseconds since 1970; 0 if it is not.
#[derive(Debug, Default)]
pub struct PastSoft(AtomicU64);

/// Classes: all others, replicas (there are none), and those that have subscribed.
const CLASSES: [&str; 3] = ["normal", "slave", "pubsub"];

impl OutputLimit {
    /// The limits of a client's class.
    pub fn of<'a>(limits: &'a [OutputLimit; 3], client: &ClientInfo) -> &'a OutputLimit {
        let counts = [&client.channels, &client.patterns, &client.shard_channels];
        let is_subscribed = counts.iter().any(|count| count.load(Ordering::Relaxed) > 0);
        &limits[if is_subscribed { 2 } else { 0 }]
    }

    /// Whether a client with so many bytes queued is past its limits.
    pub fn is_past(&self, queued: usize, client: &ClientInfo) -> bool {
        let queued = queued as u64;
        if self.hard > 0 && queued > self.hard {
            return true;
        }
        if self.soft == 0 || queued <= self.soft {
            client.past_soft.0.store(0, Ordering::Relaxed);
            return false;
        }
        let now = clock::now_ms();
        let since = client.past_soft.0.load(Ordering::Relaxed);
        if since == 0 {
            client.past_soft.0.store(now, Ordering::Relaxed);
            return false;
        }
        now - since > self.seconds * 1000
    }

    /// The limits in a text of classes, each with three numbers, and those that it does not name.
    pub fn read_all(mut limits: [OutputLimit; 3], text: &str) -> Result<[OutputLimit; 3], String> {
        let words: Vec<&str> = text.split_whitespace().collect();
        if !words.len().is_multiple_of(4) {
            return Err("Wrong number of arguments in buffer limit configuration.".to_owned());
        }
        for words in words.chunks(4) {
            let name = if words[0].eq_ignore_ascii_case("replica") { "slave" } else { words[0] };
            let class = CLASSES.iter().position(|class| class.eq_ignore_ascii_case(name));
            let class =
                class.ok_or("Invalid client class specified in buffer limit configuration.")?;
            let numbers = (bytes(words[1]), bytes(words[2]), words[3].parse());
            let (Some(hard), Some(soft), Ok(seconds)) = numbers else {
                return Err(
                    "Error in hard, soft or soft_seconds setting in buffer limit configuration."
                        .into(),
                );
            };
            limits[class] = OutputLimit { hard: hard as u64, soft: soft as u64, seconds };
        }
        Ok(limits)
    }

    /// All limits as text.
    pub fn write_all(limits: &[OutputLimit; 3]) -> String {
        let classes = CLASSES.iter().zip(limits);
        let texts: Vec<String> = classes
            .map(|(class, limit)| {
                format!("{class} {} {} {}", limit.hard, limit.soft, limit.seconds)
            })
            .collect();
        texts.join(" ")
    }
}
