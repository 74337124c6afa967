//! Those who follow the stream of commands as they are logged: `SYNC`, as a replica or `redis-cli --replica` sends it.
//!
//! They get a snapshot without keys first: it is the stream that they are for. On several cores the streams of
//! different cores' keys are not ordered among themselves.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::pubsub::Subscriber;
use super::{Core, Logged, Server};
use crate::protocol::Reply;

/// Who follows, and in which database they think that the stream is.
#[derive(Debug, Default)]
pub struct Feed {
    count: AtomicUsize,
    followers: Mutex<Followers>,
}

#[derive(Debug, Default)]
struct Followers {
    all: Vec<Subscriber>,
    db: Option<usize>,
}

impl Feed {
    /// Adds one who gets all that comes from now on.
    pub fn add(&self, who: Subscriber) {
        let mut followers = self.lock();
        followers.all.push(who);
        followers.db = None;
        self.count.store(followers.all.len(), Ordering::Relaxed);
    }

    /// Removes one who goes.
    pub fn remove(&self, client: u64) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut followers = self.lock();
        followers.all.retain(|follower| follower.client != client);
        self.count.store(followers.all.len(), Ordering::Relaxed);
    }

    /// How many follow.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Followers> {
        self.followers.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Server {
    /// Sends the commands of a record to those who follow: between MULTI and EXEC where there are several.
    pub fn follow_up(&self, commands: &[Logged<'_>]) {
        if self.feed.count() == 0 || commands.is_empty() {
            return;
        }
        let mut followers = self.feed.lock();
        let mut stream = Reply::default();
        let mut select = |stream: &mut Reply, db: usize| {
            if followers.db.replace(db) != Some(db) {
                request(stream, &[b"SELECT", db.to_string().as_bytes()]);
            }
        };
        let is_transaction = commands.len() > 1;
        if is_transaction {
            select(&mut stream, commands[0].db);
            request(&mut stream, &[b"MULTI"]);
        }
        for command in commands {
            select(&mut stream, command.db);
            let words: Vec<&[u8]> = command.args.iter_from(0).collect();
            request(&mut stream, &words);
        }
        if is_transaction {
            request(&mut stream, &[b"EXEC"]);
        }
        let bytes = stream.to_bytes();
        let here = Core::current();
        for &Subscriber { client, core } in &followers.all {
            let bytes = bytes.clone();
            let push = move |core: &Core| {
                if let Some(conn) = core.connection(client) {
                    let mut stream = Reply::default();
                    stream.raw(&bytes);
                    conn.push(0, &mut stream);
                }
            };
            match &here {
                Some(here) if here.index == core => push(here),
                _ => self.send_to(core, move |there| push(&there)),
            }
        }
    }
}

fn request(stream: &mut Reply, words: &[&[u8]]) {
    stream.array(words.len());
    words.iter().for_each(|word| stream.bulk(word));
}
