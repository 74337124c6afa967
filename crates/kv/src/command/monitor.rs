//! MONITOR: seeing all commands.

use super::{Answer, Call, DONE, Spec, flag};
use crate::protocol::Args;
use crate::server::{Client, Subscriber, state};

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::session("monitor", 1, monitor)
    .flags(flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE | flag::NO_MULTI)
    .doc("server", "1.0.0", "O(1)", "See all commands as they are carried out")];

fn monitor(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    client.is_monitor = true;
    client.info.set_state(state::MONITOR, true);
    call.server.monitors.add(Subscriber { client: client.info.id, core: client.info.core });
    call.reply.ok();
    DONE
}
