//! What a core does from time to time: removes keys whose time has come, drops what emptied databases have left, and
//! closes connections that are idle or have too much memory.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::client::state;
use super::{Core, exec};
use crate::clock;
use crate::command::expiry;
use crate::report;

/// How often.
const PERIOD: Duration = Duration::from_millis(100);

/// Keys that are looked at in a round of expiry.
const ROUND: usize = 256;

/// The time that a core spends on dropping what is left of a database before others have their turn, and keys that are
/// dropped between looks at the clock.
const DROP_SLICE: Duration = Duration::from_micros(100);
const DROP_STEP: usize = 32;

/// Rounds each time, while a quarter of the keys looked at are due.
const ROUNDS_MAX: u32 = 64;

/// Runs for as long as the core does.
pub async fn run(core: Rc<Core>) {
    let mut rates = Rates::new();
    let mut ticks = omniring::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        if core.server.is_cron_paused.load(Ordering::Relaxed) {
            continue;
        }
        if core.server.is_expiry_active.load(Ordering::Relaxed) {
            core.expire().await;
        }
        core.drop_remains();
        core.close_idle();
        core.limit_tracked(&core.config());
        core.look_at_memory();
        if core.index == 0 {
            core.look_at_rates(&mut rates);
            core.evict_clients();
            if core.server.is_snapshot_due(&core.config()) {
                core.server.begin_snapshot();
            }
        }
    }
}

/// Commands carried out up to some moment, in microseconds since 1970, for each of the last sixteen periods.
type Rates = VecDeque<(u64, u64)>;

impl Core {
    /// Removes keys of the core's shard whose time has come, for a bounded time.
    async fn expire(self: &Rc<Core>) {
        let config = self.config();
        // Several short rounds rather than a long one, with other tasks between.
        for round in 0..ROUNDS_MAX {
            let mut deliveries = Vec::new();
            let expired = {
                let mut keys = self.keys.borrow_mut();
                if !keys.has(self.index) || self.server.pause.mode().is_some() {
                    return;
                }
                let begin = clock::now_us();
                keys.begin(0, begin / 1000);
                keys.keeps_expired = false;
                keys.is_tracked = self.server.tracking.is_on();
                let expired = expiry::cycle(&mut keys, ROUND);
                let micros = clock::now_us().saturating_sub(begin);
                self.server.stats.core(self.index).expire_micros.add(micros);
                self.took(&config, "expire-cycle", micros);
                exec::follow_gone(&mut keys, &self.server);
                keys.effects.gate = 0;
                self.events(&mut keys, &mut deliveries);
                self.invalidate(&mut keys, 0, &mut deliveries);
                self.broadcast(&mut keys, 0, &mut deliveries);
                expired
            };
            self.deliver(deliveries);
            let is_worth_more = expired * 4 > ROUND;
            if round >= config.active_expire_effort && !is_worth_more {
                return;
            }
            omniring::yield_now().await;
        }
    }

    /// Begins to drop what databases have left that were emptied, if there is something.
    fn drop_remains(self: &Rc<Core>) {
        let has_some = {
            let mut keys = self.keys.borrow_mut();
            let is_here = keys.has(self.index);
            let shard = is_here.then(|| keys.shard(self.index));
            shard.is_some_and(|shard| !shard.remains.is_empty() || shard.gives_back)
        };
        if !has_some || self.is_dropping.replace(true) {
            return;
        }
        let core = self.clone();
        drop(omniring::spawn(async move {
            while core.drop_some() {
                omniring::yield_now().await;
            }
            core.is_dropping.set(false);
        }));
    }

    /// Drops for the time of a slice; whether there is more that is at hand.
    fn drop_some(&self) -> bool {
        let mut keys = self.keys.borrow_mut();
        if !keys.has(self.index) {
            return false;
        }
        let shard = keys.shard(self.index);
        let remains = &mut shard.remains;
        let until = omniring::time::now() + DROP_SLICE;
        while let Some(last) = remains.last_mut() {
            if !last.drop_some(DROP_STEP) {
                remains.pop();
            }
            if omniring::time::now() >= until {
                break;
            }
        }
        let has_more = !remains.is_empty();
        if !has_more && std::mem::take(&mut shard.gives_back) {
            omniring::os::trim_heap();
        }
        has_more
    }

    /// Notes how much memory the shard takes, and removes keys where that is too much.
    fn look_at_memory(&self) {
        let config = self.config();
        if config.maxmemory > 0 && self.server.pause.mode().is_none() {
            self.make_room(&config);
        }
        let mut keys = self.keys.borrow_mut();
        if keys.has(self.index) {
            self.server.memory.note(keys.shard(self.index));
        }
        drop(keys);
        let memory = &self.server.memory;
        if self.index == 0 {
            memory.note_clients(self.server.clients.memory());
        }
        memory.peak(memory.used());
    }

    /// Notes how many commands are carried out in a second.
    fn look_at_rates(&self, rates: &mut Rates) {
        rates.push_back((clock::now_us(), self.server.stats.sum(|core| &core.processed)));
        if rates.len() > 16 {
            rates.pop_front();
        }
        if let (Some((from, before)), Some((to, after))) = (rates.front(), rates.back())
            && to > from
        {
            let ops = after.saturating_sub(*before) * 1_000_000 / (to - from);
            self.server.ops_per_second.store(ops, Ordering::Relaxed);
        }
    }

    /// Closes the connections with the most memory where all together have more than `maxmemory-clients`.
    fn evict_clients(&self) {
        let config = self.config();
        let max = config.maxmemory_clients.of(config.maxmemory);
        if max == 0 {
            return;
        }
        for client in self.server.clients.too_many_for(max) {
            report::warning(
                "a client is disconnected for its memory: all together have more than maxmemory-clients",
                &[("id", &client.id), ("addr", &client.addr), ("bytes", &client.memory())],
            );
            self.server.kill(&client);
            self.server.stats.core(self.index).evicted_clients.add(1);
        }
    }

    /// Closes connections that have sent nothing for longer than `timeout`.
    fn close_idle(&self) {
        let timeout = self.config().timeout_s * 1000;
        if timeout == 0 {
            return;
        }
        let now = clock::now_ms();
        for conn in self.connections() {
            let info = &conn.info;
            let last = info.last_ms.load(Ordering::Relaxed).max(info.created_ms);
            let counts = [&info.channels, &info.patterns, &info.shard_channels];
            let is_listening = counts.iter().any(|count| count.load(Ordering::Relaxed) > 0);
            if !is_listening && !info.is(state::BLOCKED | state::MONITOR) && now - last > timeout {
                conn.kill();
            }
        }
    }
}
