//! What a core does from time to time: removes keys whose time has come, and closes idle connections.

use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::client::state;
use super::{Core, exec};
use crate::clock;
use crate::command::expiry;

/// How often.
const PERIOD: Duration = Duration::from_millis(100);

/// Keys that are looked at in a round of expiry.
const ROUND: usize = 256;

/// Rounds each time, while a quarter of the keys looked at are due.
const ROUNDS_MAX: u32 = 64;

/// Runs for as long as the core does.
pub async fn run(core: Rc<Core>) {
    let mut ticks = omniring::time::interval(PERIOD);
    loop {
        ticks.tick().await;
        if core.server.is_expiry_active.load(Ordering::Relaxed) {
            core.expire().await;
        }
        core.close_idle();
        if core.index == 0 && core.server.is_snapshot_due(&core.config()) {
            core.server.begin_snapshot();
        }
    }
}

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
                keys.begin(0, clock::now_ms());
                let expired = expiry::cycle(&mut keys, ROUND);
                exec::follow_gone(&mut keys, &self.server);
                keys.effects.gate = 0;
                self.events(&mut keys, &mut deliveries);
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
