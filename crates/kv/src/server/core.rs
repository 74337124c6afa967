//! What a core of the server has: its shard, its connections, and its share of the settings.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use omniring::sync::oneshot;

use super::connection::Conn;
use super::evict::Pool;
use super::observe::Together;
use super::pubsub::Delivery;
use super::release::Release;
use super::{Server, output};
use crate::clock;
use crate::config::Config;
use crate::protocol::{Ahead, Reply};
use crate::store::{Keys, Lsn, Shard};

thread_local! {
    static CORE: RefCell<Option<Rc<Core>>> = const { RefCell::new(None) };
}

/// How many buffers of sent replies are kept for the next ones, and of how many bytes at most.
const SPARE_COUNT: usize = 64;
const SPARE_MAX: usize = 64 * 1024;

/// How often a busy core gives way to threads that sync, in microseconds.
const GIVE_WAY_US: u64 = 50;

/// A core of the server.
pub struct Core {
    /// Its number.
    pub index: usize,
    /// What all cores share.
    pub server: Arc<Server>,
    /// The keys of its shard, while that is here.
    pub keys: RefCell<Keys>,
    /// Who is to have the shard next, in this order.
    lending: RefCell<VecDeque<oneshot::Sender<Lent>>>,
    connections: RefCell<HashMap<u64, Rc<Conn>>>,
    config: RefCell<Arc<Config>>,
    config_version: Cell<u64>,
    /// Candidates for eviction.
    pub(super) pool: Pool,
    /// Connections with replies that wait for the disk.
    gated: RefCell<Vec<Rc<Conn>>>,
    /// Those of writers whose replies may leave, and are to be sent by and by.
    released: RefCell<VecDeque<Rc<Conn>>>,
    /// Those of writers whose next requests have come, and are to be carried out by and by.
    asking: RefCell<VecDeque<Rc<Conn>>>,
    /// How many of either go on at once.
    pub(super) release: Release,
    /// Whether some are let go in the next turn of the loop.
    is_releasing: Cell<bool>,
    /// Requests of the batch that is being carried out.
    pub(super) ahead: RefCell<Ahead>,
    /// Calls of it whose time has not been measured yet.
    pub(super) together: Cell<Together>,
    /// When the core has looked at the clock last, in microseconds since 1970.
    now_us: Cell<u64>,
    /// Whether remains of emptied databases are being dropped.
    pub(super) is_dropping: Cell<bool>,
    /// When it has given way to other threads last.
    gave_way_us: Cell<u64>,
    /// Memory of replies that were sent, for the next ones.
    spare: RefCell<Vec<Vec<u8>>>,
}

/// A shard on its way. Wherever it is dropped, it goes home.
struct Lent {
    shard: Option<Box<Shard>>,
    server: Arc<Server>,
}

impl Lent {
    fn unwrap(mut self) -> Box<Shard> {
        self.shard.take().expect("a lent shard is taken out once")
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let Some(shard) = self.shard.take() {
            self.server.send_to(shard.index, move |core| core.take_back(shard));
        }
    }
}

/// Shards at hand, which go home when this is dropped.
pub struct Held {
    /// The keys.
    pub keys: Keys,
    core: Rc<Core>,
}

impl Drop for Held {
    fn drop(&mut self) {
        for index in 0..self.keys.shard_count() {
            let Some(shard) = self.keys.take(index) else {
                continue;
            };
            if index == self.core.index {
                self.core.take_back(shard);
            } else {
                drop(Lent { shard: Some(shard), server: self.core.server.clone() });
            }
        }
    }
}

impl Core {
    /// Makes a core with its shard and puts it in its place: on the thread that runs it.
    pub fn start(index: usize, server: Arc<Server>, shard: Box<Shard>) -> Rc<Core> {
        let mut keys = Keys::new(server.shard_count());
        keys.put(shard);
        let core = Rc::new(Core {
            index,
            keys: RefCell::new(keys),
            lending: RefCell::default(),
            connections: RefCell::default(),
            config: RefCell::new(server.config()),
            config_version: Cell::new(u64::MAX),
            pool: Pool::default(),
            gated: RefCell::default(),
            released: RefCell::default(),
            asking: RefCell::default(),
            release: Release::new(omniring::time::now()),
            is_releasing: Cell::new(false),
            ahead: RefCell::default(),
            together: Cell::default(),
            now_us: Cell::new(clock::now_us()),
            is_dropping: Cell::new(false),
            gave_way_us: Cell::new(0),
            spare: RefCell::default(),
            server,
        });
        core.config();
        CORE.with(|place| *place.borrow_mut() = Some(core.clone()));
        core
    }

    /// The core of the calling thread, while it runs.
    pub fn current() -> Option<Rc<Core>> {
        CORE.with(|place| place.borrow().clone())
    }

    /// Takes the core out of its place.
    pub fn stop() {
        drop(CORE.with(|place| place.borrow_mut().take()));
    }

    /// The settings, as they are now.
    pub fn config(&self) -> Arc<Config> {
        let version = self.server.config_version.load(Ordering::Acquire);
        if self.config_version.replace(version) != version {
            let config = self.server.config();
            match self.keys.try_borrow_mut() {
                Ok(mut keys) => config.apply(&mut keys),
                // A command is running; the next one will see them.
                Err(_) => self.config_version.set(u64::MAX),
            }
            if self.index == 0 {
                self.apply_log_settings(&config);
            }
            *self.config.borrow_mut() = config.clone();
            self.limit_tracked(&config);
        }
        self.config.borrow().clone()
    }

    /// Whether the settings are others than [`Core::config`] gave last.
    #[inline]
    pub fn has_new_config(&self) -> bool {
        self.config_version.get() != self.server.config_version.load(Ordering::Acquire)
    }

    /// Replaces settings that are not those of [`Core::config`] any more.
    #[inline]
    pub fn refresh(&self, config: &mut Arc<Config>) {
        if self.has_new_config() || !Arc::ptr_eq(config, &self.config.borrow()) {
            *config = self.config();
        }
    }

    /// Counts a send.
    pub fn count_write(&self, len: usize) {
        let stats = self.server.stats.core(self.index);
        stats.writes.add(1);
        self.release.sent();
        stats.output.add(len as u64);
    }

    /// Looks at the clock: microseconds since 1970.
    pub fn look_at_clock(&self) -> u64 {
        let now = clock::now_us();
        self.now_us.set(now);
        if now.wrapping_sub(self.gave_way_us.get()) >= GIVE_WAY_US {
            self.give_way(now);
        }
        now
    }

    /// Lets a thread run that has a sync to make. Where it shares the processor with this one, which has always something
    /// to do, the kernel would have it wait for some milliseconds.
    #[cold]
    fn give_way(&self, now: u64) {
        self.gave_way_us.set(now);
        if self.server.persistence.log().is_some_and(|log| log.is_syncing()) {
            std::thread::yield_now();
        }
    }

    /// When the core has looked at the clock last, in microseconds since 1970. The end of a command is the begin of
    /// the next one of its batch.
    pub fn recent_us(&self) -> u64 {
        self.now_us.get()
    }

    /// Memory for replies: of some that were sent, if there is any.
    pub fn spare(&self) -> Vec<u8> {
        self.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes back the memory of replies, unless there is enough of it.
    pub fn give_spare(&self, mut bytes: Vec<u8>) {
        let mut spare = self.spare.borrow_mut();
        if spare.len() < SPARE_COUNT && (1..=SPARE_MAX).contains(&bytes.capacity()) {
            bytes.clear();
            spare.push(bytes);
        }
    }

    /// The settings, if they have changed since the core has looked at them.
    pub(super) fn fresh_config(&self) -> Option<Arc<Config>> {
        let version = self.server.config_version.load(Ordering::Acquire);
        (self.config_version.get() != version).then(|| self.server.config())
    }

    // Shards.

    /// Waits for shards, which are given in ascending order: whoever waits for one holds only lower ones, so that
    /// all get theirs.
    pub async fn hold(self: &Rc<Core>, shards: &[usize]) -> Held {
        let mut held = Held { keys: Keys::new(self.server.shard_count()), core: self.clone() };
        self.config().apply(&mut held.keys);
        for &index in shards {
            let (ask, answer) = oneshot::channel();
            if index == self.index {
                self.lend(ask);
            } else {
                self.server.send_to(index, move |core| core.lend(ask));
            }
            match answer.await {
                Ok(lent) => held.keys.put(lent.unwrap()),
                // The other core has ended, and with it the server.
                Err(_) => std::future::pending().await,
            }
        }
        held
    }

    /// Gives the shard to one who asks, now or when it is their turn.
    fn lend(&self, ask: oneshot::Sender<Lent>) {
        self.lending.borrow_mut().push_back(ask);
        self.lend_next();
    }

    fn lend_next(&self) {
        loop {
            let mut keys = self.keys.borrow_mut();
            if !keys.has(self.index) {
                return;
            }
            let Some(ask) = self.lending.borrow_mut().pop_front() else {
                return;
            };
            let lent = Lent { shard: keys.take(self.index), server: self.server.clone() };
            drop(keys);
            if let Err(mut back) = ask.send(lent) {
                let shard = back.shard.take().expect("nobody has taken it out");
                self.keys.borrow_mut().put(shard);
            }
        }
    }

    fn take_back(&self, mut shard: Box<Shard>) {
        shard.synced(self.server.synced());
        self.keys.borrow_mut().put(shard);
        self.lend_next();
    }

    // Connections.

    /// Adds a connection.
    pub fn add(&self, conn: &Rc<Conn>) {
        self.connections.borrow_mut().insert(conn.info.id, conn.clone());
    }

    /// Removes a connection.
    pub fn remove(&self, id: u64) {
        self.connections.borrow_mut().remove(&id);
    }

    /// The connection of the client with that number, if it is one of this core.
    pub fn connection(&self, id: u64) -> Option<Rc<Conn>> {
        self.connections.borrow().get(&id).cloned()
    }

    /// All connections of this core.
    pub fn connections(&self) -> Vec<Rc<Conn>> {
        self.connections.borrow().values().cloned().collect()
    }

    /// Wakes the connection when the disk has got on.
    pub fn gate(&self, conn: Rc<Conn>) {
        if !conn.waits_for_own()
            && let Some(journal) = self.server.journal()
        {
            journal.hurry(conn.first_gate());
        }
        self.gated.borrow_mut().push(conn);
    }

    /// The disk is up to this record. Gives how far apart syncs begin from now on at least, for this core's sake.
    pub fn synced(&self, lsn: Lsn) -> Duration {
        let index = self.index;
        let mut keys = self.keys.borrow_mut();
        if keys.has(index) {
            keys.shard(index).synced(lsn);
        }
        drop(keys);
        self.let_go();
        self.release.set_wanted(self.config.borrow().reads_first);
        self.release.spacing(omniring::time::now(), omniring::os::thread_time)
    }

    /// The replies go for which the disk has got on: at once to those who have only read, who would wait behind very many
    /// otherwise, and by and by to those who write. Who waits for a later record goes on waiting.
    fn let_go(&self) {
        let synced = self.server.synced();
        let mut released = self.released.borrow_mut();
        for conn in self.gated.borrow_mut().extract_if(.., |conn| !conn.is_gated(synced)) {
            if conn.waits_for_own() {
                released.push_back(conn);
            } else {
                conn.let_go();
            }
        }
        drop(released);
        if !self.is_releasing.get() {
            self.release();
        }
    }

    /// Waits until it is the turn of a request of one who writes, where others keep the core busy.
    pub async fn turn(&self, conn: &Rc<Conn>) {
        self.asking.borrow_mut().push_back(conn.clone());
        if !self.is_releasing.get() {
            self.release_next();
        }
        conn.until_its_turn().await;
    }

    /// Lets some of the writers go on, and the next ones after a turn of the loop.
    fn release(&self) {
        self.is_releasing.set(false);
        let mut released = self.released.borrow_mut();
        let mut asking = self.asking.borrow_mut();
        let (replies, requests) = self.release.count(released.len(), asking.len());
        released.drain(..replies).for_each(|conn| conn.let_go());
        asking.drain(..requests).for_each(|conn| conn.give_turn());
        if !released.is_empty() || !asking.is_empty() {
            self.release_next();
        }
    }

    fn release_next(&self) {
        self.is_releasing.set(true);
        self.server.send_to(self.index, |core| core.release());
    }

    /// Sends messages to their subscribers, on whichever core they are.
    pub fn deliver(&self, deliveries: Vec<Delivery>) {
        for delivery in deliveries {
            if delivery.to.core == self.index {
                self.deliver_here(&delivery);
            } else {
                let core = delivery.to.core;
                self.server.send_to(core, move |core| core.deliver_here(&delivery));
            }
        }
    }

    fn deliver_here(&self, delivery: &Delivery) {
        let Some(conn) = self.connection(delivery.to.client) else {
            return;
        };
        let message = output::message(conn.proto(), &conn.info, &delivery.what);
        if let Some(mut message) = message {
            conn.push(0, &mut message);
        }
    }

    /// Answers a client that waited for a key, on whichever core it is.
    pub fn answer(&self, core: usize, client: u64, gate: Lsn, mut reply: Reply) {
        if core == self.index {
            if let Some(conn) = self.connection(client) {
                conn.push(gate, &mut reply);
                conn.unblock();
            }
        } else {
            self.server.send_to(core, move |here| here.answer(core, client, gate, reply));
        }
    }
}
