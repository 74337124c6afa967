//! What a client is still to be sent, in order, and what it has to wait for.

use std::collections::VecDeque;

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
        replies.put_back(bytes, Vec::new());
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
        self.chunks.front().is_some_and(|chunk| chunk.gate > synced)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Output::default();
    }
}

/// A message in the form that `proto` has for those that answer no request.
pub fn push_message(proto: Proto, words: &[&[u8]]) -> Reply {
    let mut reply = Reply::new(proto);
    reply.push(words.len());
    words.iter().for_each(|word| reply.bulk(word));
    reply
}
