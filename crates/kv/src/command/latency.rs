//! LATENCY: what took long, and how long commands take.

use std::fmt::Write;

use super::{Answer, Call, Command, DONE, Spec, flag};
use crate::clock;
use crate::protocol::Args;
use crate::server::Series;

const FLAGS: u32 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "latency",
    &[
        Spec::data("latest", 2, latest).flags(FLAGS).doc(
            "server",
            "2.8.13",
            "O(1)",
            "Show the latest event of each kind that took long",
        ),
        Spec::data("history", 3, history).flags(FLAGS).doc(
            "server",
            "2.8.13",
            "O(1)",
            "Show the events of a kind that took long",
        ),
        Spec::data("reset", -2, reset).flags(FLAGS).doc(
            "server",
            "2.8.13",
            "O(1)",
            "Forget events that took long",
        ),
        Spec::data("graph", 3, graph).flags(FLAGS).doc(
            "server",
            "2.8.13",
            "O(1)",
            "Draw the events of a kind that took long",
        ),
        Spec::data("doctor", 2, doctor).flags(FLAGS).doc(
            "server",
            "2.8.13",
            "O(1)",
            "Say in words what took long",
        ),
        // With all shards in hand, other cores have done what CONFIG RESETSTAT told them to.
        Spec::data("histogram", -2, histogram).all_keys(None).flags(FLAGS).doc(
            "server",
            "7.0.0",
            "O(N), N being the commands shown",
            "Show how often commands took how long",
        ),
        Spec::data("help", 2, help).flags(flag::LOADING | flag::STALE).doc(
            "server",
            "2.8.13",
            "O(1)",
            "Show what LATENCY can be asked",
        ),
    ],
)
.doc("server", "2.8.13", "Depends on the subcommand", "Look at what took long")];

fn latest(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let all = call.server.latency.all();
    call.reply.array(all.len());
    for (kind, series) in all {
        let (at_s, ms) = series.samples.back().copied().unwrap_or_default();
        call.reply.array(4);
        call.reply.bulk(kind.as_bytes());
        [at_s, ms, series.max_ms].iter().for_each(|&number| call.reply.int(number as i64));
    }
    DONE
}

fn history(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let series = call.server.latency.get(&args[2]).unwrap_or_default();
    call.reply.array(series.samples.len());
    for (at_s, ms) in series.samples {
        call.reply.array(2);
        call.reply.int(at_s as i64);
        call.reply.int(ms as i64);
    }
    DONE
}

fn reset(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let is_wanted = |kind: &str| {
        args.len() == 2 || args.iter_from(2).any(|word| word.eq_ignore_ascii_case(kind.as_bytes()))
    };
    call.reply.count(call.server.latency.reset(is_wanted));
    DONE
}

fn graph(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let Some(series) = call.server.latency.get(&args[2]) else {
        let name = String::from_utf8_lossy(&args[2]);
        return Err(crate::error::Error::of(format!(
            "ERR No samples available for event '{name}'"
        )));
    };
    let kind = String::from_utf8_lossy(&args[2]).to_lowercase();
    let text = draw(&kind, &series, clock::now_ms() / 1000);
    call.reply.verbatim(b"txt", text.as_bytes());
    DONE
}

/// Columns of `#`, one for each event, the higher the longer it took, over their age.
fn draw(kind: &str, series: &Series, now_s: u64) -> String {
    const ROWS: u64 = 4;
    const COLUMNS: usize = 80;
    let shown = series.samples.len().saturating_sub(COLUMNS);
    let shown: Vec<(u64, u64)> = series.samples.iter().skip(shown).copied().collect();
    let times = shown.iter().map(|&(_, ms)| ms);
    let (high, low) = (times.clone().max().unwrap_or(0), times.min().unwrap_or(0));
    let mut text = format!(
        "{kind} - high {high} ms, low {low} ms (all time high {} ms)\n{}\n",
        series.max_ms,
        "-".repeat(COLUMNS)
    );
    let height = |ms: u64| 1 + (ms - low) * (ROWS - 1) / (high - low).max(1);
    for row in (1..=ROWS).rev() {
        let cells = shown.iter().map(|&(_, ms)| if height(ms) >= row { '#' } else { ' ' });
        let line: String = cells.collect();
        text += line.trim_end();
        text.push('\n');
    }
    let ages: Vec<String> =
        shown.iter().map(|&(at_s, _)| age(now_s.saturating_sub(at_s))).collect();
    let longest = ages.iter().map(String::len).max().unwrap_or(0);
    text.push('\n');
    for row in 0..longest {
        let line: String = ages
            .iter()
            .map(|age| age.as_bytes().get(row).map_or(' ', |&byte| byte.into()))
            .collect();
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn age(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn doctor(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let mut text = String::new();
    let all = call.server.latency.all();
    let threshold = call.config.latency_threshold_ms;
    if threshold == 0 {
        text += "Nothing is watched. Set latency-monitor-threshold to the milliseconds from which on an event \
                 counts as slow.\n";
    } else if all.is_empty() {
        text += "Nothing took that long.\n";
    }
    for (kind, series) in &all {
        let count = series.samples.len() as u64;
        let sum: u64 = series.samples.iter().map(|&(_, ms)| ms).sum();
        let first = series.samples.front().map_or(0, |&(at_s, _)| at_s);
        let over = (clock::now_ms() / 1000).saturating_sub(first);
        // A string takes everything that is written to it.
        let _ = writeln!(
            text,
            "{kind}: {count} events in the last {over} seconds took {} ms on average; the longest ever took {} ms.",
            sum / count.max(1),
            series.max_ms
        );
        text += match *kind {
            "command" | "fast-command" => {
                "  SLOWLOG GET shows which commands took long. Commands over all keys or long values hold up others \
                 of the same core.\n"
            }
            "expire-cycle" => "  Many keys expire in the same moment; spread their times.\n",
            "eviction-cycle" => {
                "  Memory is short: maxmemory is reached, and keys are removed for each write.\n"
            }
            _ => "",
        };
    }
    call.reply.verbatim(b"txt", text.as_bytes());
    DONE
}

fn histogram(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let mut chosen: Vec<&'static Command> = Vec::new();
    let mut add = |command: &'static Command| {
        chosen.push(command);
        chosen.extend(&command.subcommands);
    };
    if args.len() == 2 {
        super::all().iter().for_each(add);
    } else {
        args.iter_from(2).filter_map(super::find_full).for_each(&mut add);
    }
    let begin = call.reply.begin();
    let mut shown = 0;
    for command in chosen {
        let times = call.server.stats.times(command.id);
        if times.total() == 0 {
            continue;
        }
        shown += 1;
        call.reply.bulk(command.full_name.as_bytes());
        call.reply.map(2);
        call.reply.bulk(b"calls");
        call.reply.int(times.total() as i64);
        call.reply.bulk(b"histogram_usec");
        let steps = times.cumulative();
        call.reply.map(steps.len());
        for (micros, calls) in steps {
            call.reply.int(micros as i64);
            call.reply.int(calls as i64);
        }
    }
    call.reply.end_map(begin, shown);
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    super::help(
        call,
        "LATENCY",
        &[
            ("DOCTOR", "Say in words what took long."),
            ("GRAPH <event>", "Draw the events of a kind."),
            ("HISTORY <event>", "Show when events of a kind took how many milliseconds."),
            ("HISTOGRAM [COMMAND ...]", "Show how often commands took how long."),
            ("LATEST", "Show the latest event of each kind."),
            ("RESET [<event> ...]", "Forget the events of some kinds, or of all."),
        ],
    )
}
