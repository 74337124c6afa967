//! SLOWLOG: commands that took long.

use super::{Answer, Call, DONE, Spec, flag};
use crate::error::Error;
use crate::protocol::{Args, parse_i64};

const FLAGS: u32 = flag::ADMIN | flag::LOADING | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "slowlog",
    &[
        Spec::data("get", -2, get).flags(FLAGS).doc(
            "server",
            "2.2.12",
            "O(N), N being the entries shown",
            "Show the latest commands that took long",
        ),
        Spec::data("len", 2, len).flags(FLAGS).doc(
            "server",
            "2.2.12",
            "O(1)",
            "Show how many commands that took long are remembered",
        ),
        Spec::data("reset", 2, reset).flags(FLAGS).doc(
            "server",
            "2.2.12",
            "O(N), N being the entries",
            "Forget the commands that took long",
        ),
        Spec::data("help", 2, help).flags(flag::LOADING | flag::STALE).doc(
            "server",
            "6.2.0",
            "O(1)",
            "Show what SLOWLOG can be asked",
        ),
    ],
)
.doc("server", "2.2.12", "Depends on the subcommand", "Look at commands that took long")];

fn get(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let count = match (args.len(), args.get(2)) {
        (2, _) => 10,
        (3, Some(word)) => parse_i64(word)
            .filter(|&count| count >= -1)
            .ok_or(Error::new("ERR count should be greater than or equal to -1"))?,
        _ => return Err(Error::SYNTAX),
    };
    let entries = call.server.slowlog.get(usize::try_from(count).unwrap_or(usize::MAX));
    let reply = &mut *call.reply;
    reply.array(entries.len());
    for entry in entries {
        reply.array(6);
        reply.int(entry.id as i64);
        reply.int(entry.at_s as i64);
        reply.int(entry.micros as i64);
        reply.array(entry.words.len());
        entry.words.iter().for_each(|word| reply.bulk(word));
        reply.bulk(entry.addr.as_bytes());
        reply.bulk(&entry.name);
    }
    DONE
}

fn len(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.count(call.server.slowlog.count());
    DONE
}

fn reset(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.server.slowlog.reset();
    call.reply.ok();
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    super::help(
        call,
        "SLOWLOG",
        &[
            (
                "GET [<count>]",
                "Show the latest commands that took long, 10 of them or <count>; -1 for all.",
            ),
            ("LEN", "Show how many are remembered."),
            ("RESET", "Forget them."),
        ],
    )
}
