//! What a client is still to be sent, in order, and what it has to wait for.

use std::collections::VecDeque;

use super::client::ClientInfo;
use super::pubsub::What;
use crate::protocol::{Proto, Reply};
use crate::store::Lsn;

/// Replies that leave together.
#[derive(Debug)]
struct Chunk {
    /// Up to which record the disk has to be.
    gate: Lsn,
    replies: Reply,
}

/// The queue of a client's replies.
///
/// Invariant, *order of gates*: a later chunk has a higher gate; a reply never overtakes one before it.
#[derive(Debug, Default)]
pub struct Output {
    chunks: VecDeque<Chunk>,
    queued: usize,
}

impl Output {
    /// Adds replies, which are taken out of `replies`, and are to be sent when the disk is up to `gate`.
    pub fn push(&mut self, gate: Lsn, replies: &mut Reply) {
        if replies.is_empty() {
            return;
        }
        self.queued += replies.len();
        match self.chunks.back_mut() {
            Some(last) if last.gate >= gate => replies.append_to(&mut last.replies),
            _ => {
                let proto = replies.proto();
                let replies = std::mem::replace(replies, Reply::new(proto));
                self.chunks.push_back(Chunk { gate, replies });
            }
        }
    }

    /// Puts bytes before everything else, which are the rest of some that were taken and partly sent.
    pub fn push_front(&mut self, bytes: Vec<u8>) {
        let mut replies = Reply::default();
        replies.put_back(bytes);
        self.queued += replies.len();
        self.chunks.push_front(Chunk { gate: 0, replies });
    }

    /// Takes the replies that may leave now that the disk is up to `synced`.
    pub fn take(&mut self, synced: Lsn) -> Option<Reply> {
        if self.chunks.front()?.gate > synced {
            return None;
        }
        let chunk = self.chunks.pop_front()?;
        self.queued -= chunk.replies.len();
        Some(chunk.replies)
    }

    /// Bytes that are queued.
    pub fn queued(&self) -> usize {
        self.queued
    }

    /// Whether replies wait for the disk.
    pub fn is_gated(&self, synced: Lsn) -> bool {
        self.first_gate() > synced
    }

    /// Up to which record the disk has to be before the next replies are sent.
    pub fn first_gate(&self) -> Lsn {
        self.chunks.front().map_or(0, |chunk| chunk.gate)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Output::default();
    }
}

/// A message to a client in the form that `proto` has for those that answer no request; none where it has none.
pub fn message(proto: Proto, client: &ClientInfo, what: &What) -> Option<Reply> {
    let mut reply = Reply::new(proto);
    match what {
        What::Published { pattern, channel, message, is_sharded } => {
            let words: &[&[u8]] = match pattern {
                Some(pattern) => &[b"pmessage", pattern, channel, message],
                None if *is_sharded => &[b"smessage", channel, message],
                None => &[b"message", channel, message],
            };
            reply.push(words.len());
            words.iter().for_each(|word| reply.bulk(word));
        }
        What::Invalid { keys, is_redirected } => {
            if proto == Proto::Resp3 {
                reply.push(2);
                reply.bulk(b"invalidate");
            } else if *is_redirected && client.is_subscribed() {
                // With RESP2, one who has subscribed gets what it gets as messages.
                reply.array(3);
                reply.bulk(b"message");
                reply.bulk(b"__redis__:invalidate");
            } else {
                return None;
            }
            match keys {
                Some(keys) => {
                    reply.array(keys.len());
                    keys.iter().for_each(|key| reply.bulk(key));
                }
                None => reply.null(),
            }
        }
        What::RedirectionBroken(id) => {
            if proto == Proto::Resp2 {
                return None;
            }
            reply.push(2);
            reply.bulk(b"tracking-redir-broken");
            reply.int(*id as i64);
        }
    }
    Some(reply)
}
