//! DEBUG: what tests need.

use std::time::Duration;

use super::{Answer, Call, DONE, Later, Outcome, Spec, flag};
use crate::error::Error;
use crate::protocol::{Args, parse_f64};

const FLAGS: u32 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "debug",
    &[
        Spec::data("sleep", 3, sleep).flags(FLAGS).doc(
            "server",
            "1.0.0",
            "O(1)",
            "Have the core do nothing for so many seconds",
        ),
        Spec::data("set-active-expire", 3, accept).flags(FLAGS).doc(
            "server",
            "1.0.0",
            "O(1)",
            "Remove keys whose time has come only when they are looked at, or by themselves again",
        ),
        Spec::data("reload", -2, reload).all_keys(None).flags(FLAGS).doc(
            "server",
            "1.0.0",
            "O(N), N being the keys",
            "Write a snapshot and load it again",
        ),
        Spec::data("loadaof", 2, loadaof).all_keys(None).flags(FLAGS).doc(
            "server",
            "1.0.0",
            "O(N), N being the keys",
            "Load the log again",
        ),
    ],
)
.doc("server", "1.0.0", "Depends on the subcommand", "Do what tests need")];

fn sleep(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let seconds = parse_f64(&args[2]).filter(|seconds| (0.0..1000.0).contains(seconds));
    let seconds = seconds.ok_or(Error::NOT_A_FLOAT)?;
    // That nothing else happens on this core is what it is for.
    std::thread::sleep(Duration::from_secs_f64(seconds));
    call.reply.ok();
    DONE
}

fn accept(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.server.set_active_expiry(&args[2] != b"0");
    call.reply.ok();
    DONE
}

fn reload(_call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (mut save, mut flush) = (true, true);
    for index in 2..args.len() {
        if args.is(index, "nosave") {
            save = false;
        } else if args.is(index, "noflush") {
            flush = false;
        } else if !args.is(index, "merge") {
            return Err(Error::new(
                "ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.",
            ));
        }
    }
    Ok(Outcome::Later(Later::Reload { save, flush }))
}

fn loadaof(_call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    Ok(Outcome::Later(Later::ReloadLog))
}
