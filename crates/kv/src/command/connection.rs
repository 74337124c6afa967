//! The connection: PING, ECHO, SELECT, HELLO, AUTH, QUIT, RESET.

use super::{Answer, Call, DONE, Spec, flag};
use crate::protocol::Args;
use crate::server::Client;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::session("ping", -1, ping)
    .fast()
    .flags(flag::LOADING | flag::STALE | flag::SUBSCRIBED)
    .doc("connection", "1.0.0", "O(1)", "Ping the server")];

fn ping(call: &mut Call<'_>, _client: &mut Client, args: Args<'_>) -> Answer {
    match args.get(1) {
        Some(text) => call.reply.bulk(text),
        None => call.reply.simple("PONG"),
    }
    DONE
}
