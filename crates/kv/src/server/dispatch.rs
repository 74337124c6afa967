//! From a request to its reply: what a client may do now, which shards it takes, and what follows.
//!
//! [`Core::step`] carries out what it can at once, which is nearly everything. What has to wait for something
//! (shards of other cores, a key, the disk) is given back as [`Wait`], and the connection's task waits.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::client::{Multi, Replies};
use super::connection::Conn;
use super::core::Core;
use super::exec::{self, Record};
use super::pubsub::Delivery;
use super::{Client, Server, blocking};
use crate::clock;
use crate::command::{self, Call, Command, KeySpec, Later, Outcome, Run, flag};
use crate::config::Config;
use crate::error::Error;
use crate::protocol::{Args, OwnedArgs, Reply};
use crate::store::{EventClass, Keys, Waiter, shard_of};

/// What a request waits for.
pub enum Wait {
    /// The shards of its keys.
    Shards(&'static Command),
    /// The shards of the transaction's keys.
    Exec(Multi),
    /// A key: the waiter is in its queue.
    Key(blocking::Waiting),
    /// Others, who waited for what it has made and whose shards are not all in hand: they come first.
    Others(Box<Others>),
    /// Something that takes time.
    Later(Later),
    /// The snapshot that is being written, for a key that it has to save as it is.
    Snapshot(&'static Command),
    /// The end of a pause.
    Pause,
}

/// What is done between a command that others waited for and its reply.
pub struct Others {
    waiters: Vec<Arc<Waiter>>,
    /// What the request waits for then.
    pub then: Option<Wait>,
}

impl Core {
    /// Carries out a request, or says what it waits for. The reply goes to the connection.
    pub fn step(
        &self,
        conn: &Rc<Conn>,
        client: &mut Client,
        args: Args<'_>,
        config: &Config,
    ) -> Option<Wait> {
        if args.len() == 0 {
            return None;
        }
        if client.replies == Replies::SkipNext {
            client.replies = Replies::Skip;
        }
        let command = match self.admit(config, conn, client, args) {
            Ok(Some(command)) => command,
            Ok(None) => return None,
            Err(wait) => return Some(wait),
        };
        let mut keys = self.keys.borrow_mut();
        if !keys.has(self.index) || !self.needs_no_other(&mut keys, command, args) {
            return Some(Wait::Shards(command));
        }
        self.step_with(&mut keys, conn, client, command, args, config)
    }

    /// Carries out a request whose shards are at hand.
    pub fn step_with(
        &self,
        keys: &mut Keys,
        conn: &Rc<Conn>,
        client: &mut Client,
        command: &'static Command,
        args: Args<'_>,
        config: &Config,
    ) -> Option<Wait> {
        if command.has(flag::WRITE) && self.must_save_first(keys, client.db, command, args) {
            return Some(Wait::Snapshot(command));
        }
        let mut reply = conn.reply.borrow_mut();
        let begin = reply.begin();
        let mut deliveries = Vec::new();
        let outcome = self.run(keys, client, command, args, config, &mut reply, &mut deliveries);
        if client.replies != Replies::On {
            // Confirmations of subscriptions are messages, not replies.
            if !(command.has(flag::PUBSUB) && command.has(flag::SUBSCRIBED)) {
                reply.undo(begin);
            }
            if client.replies == Replies::Skip {
                client.replies = Replies::On;
            }
        }
        let gate = std::mem::take(&mut keys.effects.gate);
        if gate > 0 {
            conn.gate_from(begin, gate, self.server.synced(), &mut reply);
            if command.has(flag::WRITE) {
                conn.note_write(gate);
            }
        }
        drop(reply);
        if client.closes {
            conn.close();
        }
        let wait = match outcome {
            Outcome::Done if keys.effects.ready.is_empty() && deliveries.is_empty() => return None,
            Outcome::Done => None,
            Outcome::Block(block) => {
                let waiting = self.block(keys, conn, client, args, *block);
                Some(Wait::Key(waiting))
            }
            Outcome::Later(later) if *later == Later::Exec => {
                let multi = client.multi.take().unwrap_or_default();
                if keys.has(self.index) && self.exec_needs_no_other(&multi, client) {
                    self.exec(keys, conn, client, multi, config)
                } else {
                    Some(Wait::Exec(multi))
                }
            }
            Outcome::Later(later) => Some(Wait::Later(*later)),
        };
        if keys.effects.ready.is_empty() && deliveries.is_empty() {
            return wait;
        }
        let others = self.serve_ready(keys, config, &mut deliveries);
        self.follow_up(conn, others, deliveries, wait)
    }

    /// Delivers messages; gives who is to be served before the reply leaves, or else what the request waits for.
    fn follow_up(
        &self,
        conn: &Conn,
        waiters: Vec<Arc<Waiter>>,
        deliveries: Vec<Delivery>,
        then: Option<Wait>,
    ) -> Option<Wait> {
        if waiters.is_empty() {
            if !deliveries.is_empty() {
                conn.flush();
                self.deliver(deliveries);
            }
            return then;
        }
        // Those to the client itself follow its reply.
        conn.hold_back();
        self.deliver(deliveries);
        Some(Wait::Others(Box::new(Others { waiters, then })))
    }

    /// Whether a command that writes has to wait until one of its keys is in the snapshot.
    fn must_save_first(
        &self,
        keys: &mut Keys,
        db: usize,
        command: &Command,
        args: Args<'_>,
    ) -> bool {
        if !self.server.persistence.is_saving.load(Ordering::Relaxed) {
            return false;
        }
        let count = keys.shard_count();
        let mut must = false;
        command.for_each_key(args, |index| {
            let key = &args[index];
            must |= keys.shard(shard_of(key, count)).must_save_first(db, key);
        });
        must
    }

    /// Runs the commands of a transaction whose shards are at hand.
    pub fn exec(
        &self,
        keys: &mut Keys,
        conn: &Rc<Conn>,
        client: &mut Client,
        multi: Multi,
        config: &Config,
    ) -> Option<Wait> {
        let mut reply = conn.reply.borrow_mut();
        let begin = reply.begin();
        let mut deliveries = Vec::new();
        let begun = Instant::now();
        keys.begin(client.db, begun.ms());
        keys.keeps_expired = self.server.pause.mode().is_some();
        keys.is_tracked = self.server.tracking.is_on();
        let is_stale = self.is_watch_broken(keys, client);
        self.server.unwatch(keys, client);
        if is_stale {
            reply.null_array();
        } else {
            reply.array(multi.queued.len());
            let mut record = Record::default();
            for (command, words) in &multi.queued {
                let args = words.args();
                let before = Instant::now();
                keys.begin(client.db, keys.now_ms());
                keys.no_touch = client.no_touch;
                let one = reply.begin();
                let outcome =
                    self.call(keys, client, command, args, config, &mut reply, &mut deliveries);
                match outcome {
                    Outcome::Done => {}
                    Outcome::Block(block) => blocking::write_null(&mut reply, block.null),
                    Outcome::Later(later) => match *later {
                        Later::Exec => {}
                        Later::WaitForReplicas { .. } => reply.int(0),
                        _ => {
                            reply.undo(one);
                            let text = "ERR Command not allowed inside a transaction";
                            reply.error(&Error::new(text));
                        }
                    },
                }
                record.add(keys, args);
                if keys.is_tracked {
                    self.invalidate(keys, client.info.id, &mut deliveries);
                    self.reads(keys, client, command, args, config, &mut deliveries);
                }
                let micros = before.elapsed_us();
                self.account(config, &client.info, command, args, micros);
                self.monitor(client, command, args);
            }
            record.commit(keys, &self.server);
            self.events(keys, &mut deliveries);
        }
        if keys.is_tracked {
            self.invalidate(keys, client.info.id, &mut deliveries);
            self.broadcast(keys, client.info.id, &mut deliveries);
            client.is_caching_given = false;
        }
        if let Some(exec) = command::find(b"exec") {
            // It is not in the slow log, so that its word is not needed.
            let none = OwnedArgs::default();
            let micros = self.look_at_clock().saturating_sub(begun.0);
            self.account(config, &client.info, exec, none.args(), micros);
            if self.server.monitors.count() > 0 {
                self.monitor(client, exec, OwnedArgs::of(["exec"]).args());
            }
        }
        let gate = std::mem::take(&mut keys.effects.gate);
        conn.gate_from(begin, gate, self.server.synced(), &mut reply);
        if multi.queued.iter().any(|(command, _)| command.has(flag::WRITE)) {
            conn.note_write(gate);
        }
        drop(reply);
        let others = self.serve_ready(keys, config, &mut deliveries);
        self.follow_up(conn, others, deliveries, None)
    }

    /// Which command a request calls, if the client may call it now. Refusals are replied to here, and commands
    /// of a transaction are queued.
    fn admit(
        &self,
        config: &Config,
        conn: &Conn,
        client: &mut Client,
        args: Args<'_>,
    ) -> Result<Option<&'static Command>, Wait> {
        match self.check(config, client, args) {
            Ok(command) => {
                if self.server.pause.is_on() && self.server.pause.holds(command, client) {
                    return Err(Wait::Pause);
                }
                let is_queued = client.multi.is_some() && !command.has(flag::NO_QUEUE);
                if let Some(multi) = client.multi.as_mut().filter(|_| is_queued) {
                    multi.queued.push((command, args.to_owned()));
                    let queued = multi.queued.len() as i64;
                    client.info.multi.store(queued, Ordering::Relaxed);
                    conn.reply.borrow_mut().simple("QUEUED");
                    return Ok(None);
                }
                Ok(Some(command))
            }
            Err(mut error) => {
                let command = command::lookup(args);
                if let Some(command) = command {
                    self.server.stats.core(self.index).rejected(command.id);
                }
                if command.is_some_and(|command| command.spec.name == "exec") {
                    if client.multi.take().is_some() {
                        client.info.multi.store(-1, Ordering::Relaxed);
                        self.forget_watches(client);
                        error = Error::of(format!(
                            "EXECABORT Transaction discarded because of: {}",
                            error.text()
                        ));
                    }
                } else if let Some(multi) = &mut client.multi {
                    multi.is_aborted = true;
                }
                self.server.count_error(self.index, &error);
                if client.replies == Replies::On {
                    conn.reply.borrow_mut().error(&error);
                } else if client.replies == Replies::Skip {
                    client.replies = Replies::On;
                }
                Ok(None)
            }
        }
    }

    fn check(
        &self,
        config: &Config,
        client: &mut Client,
        args: Args<'_>,
    ) -> Result<&'static Command, Error> {
        let command = match client.last_command {
            Some(last) if last.is_called_by(args) => last,
            _ => {
                let command = command::resolve(args)?;
                client.last_command = Some(command);
                command
            }
        };
        if command.has(flag::REFUSED) {
            return Err(command::refusal(command));
        }
        if !client.is_authenticated && config.needs_password() && !command.has(flag::NO_AUTH) {
            return Err(Error::new("NOAUTH Authentication required."));
        }
        if command.has(flag::DEBUG) && !client.info.may(config.debug) {
            return Err(Error::new(
                "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it \
                 from a local connection, otherwise you need to set this option in the configuration file, and then \
                 restart the server.",
            ));
        }
        if client.multi.is_some() && command.has(flag::NO_MULTI) {
            return Err(Error::of(format!(
                "ERR Command not allowed inside a transaction: '{}'",
                command.full_name
            )));
        }
        if client.is_subscribed()
            && client.proto == crate::protocol::Proto::Resp2
            && !command.has(flag::SUBSCRIBED)
        {
            return Err(Error::of(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed \
                 in this context",
                command.spec.name
            )));
        }
        if command.has(flag::WRITE)
            && let Some(journal) = self.server.journal()
            && let Some(refusal) = journal.refusal()
        {
            return Err(refusal);
        }
        if config.lacks_replicas() && is_or_has(flag::WRITE, command, client) {
            return Err(Error::new("NOREPLICAS Not enough good replicas to write."));
        }
        if config.maxmemory > 0
            && !self.make_room(config)
            && is_or_has(flag::DENYOOM, command, client)
        {
            return Err(Error::new("OOM command not allowed when used memory > 'maxmemory'."));
        }
        Ok(command)
    }

    /// Calls a command, and does what follows from it but answering those who waited.
    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn run(
        &self,
        keys: &mut Keys,
        client: &mut Client,
        command: &'static Command,
        args: Args<'_>,
        config: &Config,
        reply: &mut Reply,
        deliveries: &mut Vec<Delivery>,
    ) -> Outcome {
        let is_joined = self.joins(config, &client.info, command, args);
        let before = Instant(self.recent_us());
        keys.begin(client.db, before.ms());
        keys.no_touch = client.no_touch;
        keys.is_tracked = self.server.tracking.is_on();
        keys.keeps_expired = self.server.pause.is_on() && self.server.pause.mode().is_some();
        self.begins(client, command);
        let outcome = self.call(keys, client, command, args, config, reply, deliveries);
        exec::follow(keys, &self.server, args);
        if !keys.effects.events.is_empty() {
            self.events(keys, deliveries);
        }
        if keys.is_tracked {
            self.invalidate(keys, client.info.id, deliveries);
            self.broadcast(keys, client.info.id, deliveries);
            self.reads(keys, client, command, args, config, deliveries);
        }
        // A client that waits for a key is done with its command when it is answered.
        if is_joined {
            self.joined(config, &client.info, command);
        } else if !(matches!(outcome, Outcome::Block(_)) || outcome.is_exec()) {
            let micros = self.look_at_clock().saturating_sub(before.0);
            self.account(config, &client.info, command, args, micros);
        }
        if !outcome.is_exec() {
            self.monitor(client, command, args);
        }
        outcome
    }

    #[inline]
    #[allow(clippy::too_many_arguments)]
    fn call(
        &self,
        keys: &mut Keys,
        client: &mut Client,
        command: &'static Command,
        args: Args<'_>,
        config: &Config,
        reply: &mut Reply,
        deliveries: &mut Vec<Delivery>,
    ) -> Outcome {
        let mut call = Call { keys, reply, config, server: &self.server, deliveries };
        exec::call(command, &mut call, client, args).unwrap_or_else(|error| {
            self.server.count_error(self.index, &error);
            self.server.stats.core(self.index).failed(command.id);
            Outcome::Done
        })
    }

    /// Notes which keys a command has read whose client wants to hear of their changes.
    fn reads(
        &self,
        keys: &mut Keys,
        client: &mut Client,
        command: &'static Command,
        args: Args<'_>,
        config: &Config,
        deliveries: &mut Vec<Delivery>,
    ) {
        if client.notes_reads {
            self.note_reads(keys, client, command, args, config, deliveries);
        }
        if client.is_caching_given
            && client.multi.is_none()
            && !command.full_name.starts_with("client|")
        {
            client.is_caching_given = false;
        }
    }

    /// Tells those who subscribed what has happened to keys.
    pub(super) fn events(&self, keys: &mut Keys, deliveries: &mut Vec<Delivery>) {
        let wanted = keys.events_wanted;
        for event in keys.effects.events.drain(..) {
            if wanted & EventClass::KEYSPACE.0 != 0 {
                let mut channel = format!("__keyspace@{}__:", event.db).into_bytes();
                channel.extend_from_slice(&event.key);
                let name = event.name.as_bytes();
                deliveries.extend(self.server.pubsub.publish(&channel, name, false));
            }
            if wanted & EventClass::KEYEVENT.0 != 0 {
                let channel = format!("__keyevent@{}__:{}", event.db, event.name);
                let channel = channel.as_bytes();
                deliveries.extend(self.server.pubsub.publish(channel, &event.key, false));
            }
        }
    }

    // Who waited.

    /// Tries again the commands of clients that waited for keys which have something now; gives those whose shards
    /// are not all at hand, for [`Core::serve_others`].
    fn serve_ready(
        &self,
        keys: &mut Keys,
        config: &Config,
        deliveries: &mut Vec<Delivery>,
    ) -> Vec<Arc<Waiter>> {
        let mut others = Vec::new();
        while !keys.effects.ready.is_empty() {
            for (db, key) in std::mem::take(&mut keys.effects.ready) {
                let shard = shard_of(&key, keys.shard_count());
                let before = others.len();
                for waiter in keys.shard(shard).waiters(db, &key) {
                    let needed = self.waiter_shards(&waiter);
                    // Nobody comes before one who has waited for the key for longer.
                    let is_next = others.len() == before;
                    if is_next && needed.iter().all(|&shard| keys.has(shard)) {
                        self.serve(keys, &waiter, config, deliveries);
                    } else if !*waiter.answered() {
                        others.push(waiter);
                    }
                }
            }
        }
        others
    }

    /// Serves clients that waited, each with its own shards in hand, and those for whom they make something in turn.
    /// The caller holds none, and the reply of the command that they waited for has not left: to its client they
    /// were served by the command.
    pub async fn serve_others(self: &Rc<Core>, conn: &Conn, others: &mut Others) {
        let mut waiters = VecDeque::from(std::mem::take(&mut others.waiters));
        while let Some(waiter) = waiters.pop_front() {
            let mut held = self.hold(&self.waiter_shards(&waiter)).await;
            let config = self.config();
            let mut deliveries = Vec::new();
            self.serve(&mut held.keys, &waiter, &config, &mut deliveries);
            waiters.extend(self.serve_ready(&mut held.keys, &config, &mut deliveries));
            self.deliver(deliveries);
        }
        conn.flush_and_release();
    }

    /// Tries a waiter's command again, with its shards at hand.
    fn serve(
        &self,
        keys: &mut Keys,
        waiter: &Arc<Waiter>,
        config: &Config,
        deliveries: &mut Vec<Delivery>,
    ) {
        let mut answered = waiter.answered();
        if *answered {
            return;
        }
        let args = waiter.args.args();
        let Ok(command) = command::resolve(args) else {
            return;
        };
        let before = Instant::now();
        let mut client = Client { db: waiter.db, proto: waiter.proto, ..Client::default() };
        let mut reply = Reply::new(waiter.proto);
        keys.begin(waiter.db, before.ms());
        keys.is_tracked = self.server.tracking.is_on();
        keys.has_waited = true;
        let outcome = self.call(keys, &mut client, command, args, config, &mut reply, deliveries);
        keys.has_waited = false;
        exec::follow(keys, &self.server, args);
        self.events(keys, deliveries);
        if keys.is_tracked {
            self.invalidate(keys, waiter.client, deliveries);
            self.broadcast(keys, waiter.client, deliveries);
        }
        if matches!(outcome, Outcome::Done) {
            *answered = true;
            drop(answered);
            if let Some(info) = self.server.clients.get(waiter.client) {
                self.account(config, &info, command, args, before.elapsed_us());
            }
            let gate = std::mem::take(&mut keys.effects.gate);
            self.answer(waiter.core, waiter.client, gate, reply);
        }
    }

    fn waiter_shards(&self, waiter: &Waiter) -> Vec<usize> {
        let args = waiter.args.args();
        match command::resolve(args) {
            Ok(command) => self.shards(command, args),
            Err(_) => Vec::new(),
        }
    }

    // Shards.

    /// Whether a request takes no shard but this core's.
    fn needs_no_other(&self, keys: &mut Keys, command: &Command, args: Args<'_>) -> bool {
        if self.server.shard_count() == 1 {
            return true;
        }
        match command.only_key(args) {
            Some(key) => keys.shard_of(key) == self.index,
            None => self.is_this_shard(&self.shards(command, args)),
        }
    }

    fn is_this_shard(&self, shards: &[usize]) -> bool {
        shards.iter().all(|&shard| shard == self.index)
    }

    /// The shards that a request takes, in ascending order.
    pub fn shards(&self, command: &Command, args: Args<'_>) -> Vec<usize> {
        let count = self.server.shard_count();
        if let KeySpec::All { .. } = command.spec.keys {
            return (0..count).collect();
        }
        let mut shards = Vec::new();
        command.for_each_key(args, |index| shards.push(shard_of(&args[index], count)));
        if shards.is_empty() && matches!(command.spec.run, Run::Data(_)) {
            shards.push(self.index);
        }
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    fn exec_needs_no_other(&self, multi: &Multi, client: &Client) -> bool {
        self.server.shard_count() == 1 || self.is_this_shard(&self.exec_shards(multi, client))
    }

    /// The shards that a transaction takes, those of watched keys among them, in ascending order.
    pub fn exec_shards(&self, multi: &Multi, client: &Client) -> Vec<usize> {
        let count = self.server.shard_count();
        let mut shards: Vec<usize> =
            client.watched.iter().map(|(_, key)| shard_of(key, count)).collect();
        for (command, words) in &multi.queued {
            shards.extend(self.shards(command, words.args()));
        }
        shards.push(self.index);
        shards.sort_unstable();
        shards.dedup();
        shards
    }

    // Watching.

    /// Whether a watched key has changed, or its time has come.
    fn is_watch_broken(&self, keys: &mut Keys, client: &Client) -> bool {
        let was_there = |name: &&(usize, Vec<u8>)| !client.watched_absent.contains(*name);
        for (db, key) in client.watched.iter().filter(was_there) {
            keys.in_db(*db, |keys| keys.expire_if_due(key));
        }
        client.watch_flag.load(Ordering::Acquire)
    }

    /// Ends all watches of a client, whose shards may be anywhere.
    fn forget_watches(&self, client: &mut Client) {
        match self.keys.try_borrow_mut() {
            Ok(mut keys) => self.server.unwatch(&mut keys, client),
            Err(_) => debug_assert!(false, "no command runs while one is admitted"),
        }
    }

    /// Ends a watch of a key of this core's shard.
    pub fn unwatch_here(
        self: Rc<Core>,
        db: usize,
        key: Vec<u8>,
        flag: Arc<std::sync::atomic::AtomicBool>,
    ) {
        let mut keys = self.keys.borrow_mut();
        if keys.has(self.index) {
            return keys.shard(self.index).unwatch(db, &key, &flag);
        }
        drop(keys);
        drop(omniring::spawn(async move {
            let mut held = self.hold(&[self.index]).await;
            held.keys.shard(self.index).unwatch(db, &key, &flag);
        }));
    }
}

impl Server {
    /// Ends all watches of a client: at once for the shards at hand, by message for others.
    pub fn unwatch(&self, keys: &mut Keys, client: &mut Client) {
        for (db, key) in client.watched.drain(..) {
            let index = shard_of(&key, keys.shard_count());
            if keys.has(index) {
                keys.shard(index).unwatch(db, &key, &client.watch_flag);
            } else {
                let flag = client.watch_flag.clone();
                self.send_to(index, move |core| core.unwatch_here(db, key, flag));
            }
        }
        client.watched_absent.clear();
        client.watch_flag = Arc::default();
        client.info.watched.store(0, Ordering::Relaxed);
    }
}

/// Whether any of these flags is set of a command, or of one of the transaction that it carries out.
pub(super) fn is_or_has(flags: u32, command: &Command, client: &Client) -> bool {
    let mut queued = client.multi.iter().flat_map(|multi| &multi.queued);
    command.has(flags)
        || (command.spec.name == "exec" && queued.any(|(queued, _)| queued.has(flags)))
}

/// When a command began, in microseconds since 1970.
#[derive(Clone, Copy)]
struct Instant(u64);

impl Instant {
    fn now() -> Instant {
        Instant(clock::now_us())
    }

    fn ms(self) -> u64 {
        self.0 / 1000
    }

    fn elapsed_us(self) -> u64 {
        clock::now_us().saturating_sub(self.0)
    }
}
