//! Clients whose commands wait for a key.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use super::client::state;
use super::connection::Conn;
use super::core::Core;
use super::{Client, ClientInfo};
use crate::command::{self, Block, Null};
use crate::protocol::{Args, Reply};
use crate::store::{Keys, Waiter, shard_of};

/// A wait that has begun.
pub struct Waiting {
    waiter: Arc<Waiter>,
    keys: Vec<Vec<u8>>,
    timeout: Option<Duration>,
    null: Null,
}

/// What ends a wait from outside: `CLIENT UNBLOCK`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unblock {
    /// As if the time were up.
    Timeout,
    /// With an error.
    Error,
}

/// Writes a null reply of a type.
pub fn write_null(reply: &mut Reply, null: Null) {
    match null {
        Null::Bulk => reply.null(),
        Null::Array => reply.null_array(),
    }
}

impl Core {
    /// Puts the client into the queues of keys, whose shards are at hand.
    pub fn block(
        &self,
        keys: &mut Keys,
        conn: &Conn,
        client: &Client,
        args: Args<'_>,
        block: Block,
    ) -> Waiting {
        let waiter = Arc::new(Waiter {
            client: client.info.id,
            core: self.index,
            db: client.db,
            proto: client.proto,
            args: args.to_owned(),
            is_answered: Mutex::new(false),
        });
        for name in &block.keys {
            keys.wait(name, &waiter);
        }
        *conn.waiting.borrow_mut() = Some((waiter.clone(), block.null));
        client.info.set_state(state::BLOCKED, true);
        self.server.blocked.fetch_add(1, Ordering::Relaxed);
        let timeout = block.timeout_ms.map(Duration::from_millis);
        Waiting { waiter, keys: block.keys, timeout, null: block.null }
    }

    /// Waits until the client is answered, its time is up, or it has gone; whether it is still there.
    pub async fn wait_for_key(self: &Rc<Core>, conn: &Rc<Conn>, waiting: Waiting) -> bool {
        let answered = conn.until_unblocked();
        let is_there = match waiting.timeout {
            None => answered.await,
            Some(timeout) => match with_timeout(timeout, answered).await {
                Some(is_there) => is_there,
                None => {
                    if waiting.waiter.claim() {
                        self.gave_up(&conn.info, &waiting.waiter, false);
                        write_null(&mut conn.reply.borrow_mut(), waiting.null);
                        conn.flush();
                    }
                    true
                }
            },
        };
        waiting.waiter.claim();
        *conn.waiting.borrow_mut() = None;
        conn.info.set_state(state::BLOCKED, false);
        self.server.blocked.fetch_sub(1, Ordering::Relaxed);
        self.forget_waiter(waiting).await;
        is_there
    }

    /// Notes that a client's wait for a key has ended without one.
    pub(super) fn gave_up(&self, client: &ClientInfo, waiter: &Waiter, has_failed: bool) {
        let args = waiter.args.args();
        if let Some(command) = command::lookup(args) {
            self.account(&self.config(), client, command, args, 0);
            if has_failed {
                self.server.stats.core(self.index).failed(command.id);
            }
        }
    }

    /// Takes a waiter that is answered out of the queues of its keys.
    async fn forget_waiter(self: &Rc<Core>, waiting: Waiting) {
        let count = self.server.shard_count();
        let Waiting { waiter, keys: names, .. } = waiting;
        let mut shards: Vec<usize> = names.iter().map(|name| shard_of(name, count)).collect();
        shards.sort_unstable();
        shards.dedup();
        let forget = |keys: &mut Keys| {
            for name in &names {
                let shard = keys.shard(shard_of(name, count));
                shard.unwait(waiter.db, name, &waiter);
            }
        };
        if shards == [self.index] && self.keys.borrow().has(self.index) {
            return forget(&mut self.keys.borrow_mut());
        }
        forget(&mut self.hold(&shards).await.keys);
    }
}

/// The output of a future, or `None` if the time is up before.
async fn with_timeout<F: Future>(timeout: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    let mut sleep = pin!(omniring::time::sleep(timeout));
    poll_fn(|cx| {
        if let Poll::Ready(output) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
}
