//! CLIENT: the connections.

use std::sync::atomic::Ordering;

use super::connection::set_name;
use super::{Answer, Call, DONE, Spec, flag};
use crate::clock;
use crate::error::Error;
use crate::protocol::{Args, parse_i64};
use crate::server::{Client, ClientInfo, PauseMode, Replies, Tracks, Unblock, state};

#[cfg(test)]
mod tests;

const FLAGS: u32 = flag::NOSCRIPT | flag::LOADING | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "client",
    &[
        Spec::session("id", 2, id).flags(FLAGS).doc(
            "connection",
            "5.0.0",
            "O(1)",
            "Show the client's number",
        ),
        Spec::session("getname", 2, getname).flags(FLAGS).doc(
            "connection",
            "2.6.9",
            "O(1)",
            "Show the client's name",
        ),
        Spec::session("setname", 3, setname).flags(FLAGS).doc(
            "connection",
            "2.6.9",
            "O(1)",
            "Give the client a name",
        ),
        Spec::session("info", 2, info).flags(FLAGS).doc(
            "connection",
            "6.2.0",
            "O(1)",
            "Show what is known of the client",
        ),
        Spec::session("list", -2, list).flags(FLAGS | flag::ADMIN).doc(
            "connection",
            "2.4.0",
            "O(N), N being the clients",
            "Show what is known of all clients",
        ),
        Spec::session("reply", 3, reply).flags(FLAGS).doc(
            "connection",
            "3.2.0",
            "O(1)",
            "Choose which replies are sent",
        ),
        Spec::session("kill", -3, kill).flags(FLAGS | flag::ADMIN).doc(
            "connection",
            "2.4.0",
            "O(N), N being the clients",
            "Close connections",
        ),
        Spec::session("unblock", -3, unblock).flags(FLAGS | flag::ADMIN).doc(
            "connection",
            "5.0.0",
            "O(log N), N being the clients",
            "End a client's wait for a key",
        ),
        Spec::data("pause", -3, pause).flags(FLAGS | flag::ADMIN).doc(
            "connection",
            "2.9.50",
            "O(1)",
            "Have commands wait for some time",
        ),
        Spec::data("unpause", 2, unpause).flags(FLAGS | flag::ADMIN).doc(
            "connection",
            "6.2.0",
            "O(1)",
            "Have them wait no longer",
        ),
        Spec::session("no-evict", 3, no_evict).flags(FLAGS | flag::ADMIN).doc(
            "connection",
            "7.0.0",
            "O(1)",
            "Keep the client's connection where memory is short",
        ),
        Spec::session("tracking", -3, tracking).flags(FLAGS).doc(
            "connection",
            "6.0.0",
            "O(1)",
            "Hear of changes of keys, or no longer",
        ),
        Spec::session("caching", 3, caching).flags(FLAGS).doc(
            "connection",
            "6.0.0",
            "O(1)",
            "Say whether the next command's reads count as those of keys to hear of",
        ),
        Spec::session("getredir", 2, getredir).flags(FLAGS).doc(
            "connection",
            "6.0.0",
            "O(1)",
            "Show which client hears of keys in this one's place",
        ),
        Spec::session("trackinginfo", 2, trackinginfo).flags(FLAGS).doc(
            "connection",
            "6.2.0",
            "O(1)",
            "Show of which keys the client hears, and how",
        ),
        Spec::data("help", 2, help).flags(flag::LOADING | flag::STALE).doc(
            "connection",
            "5.0.0",
            "O(1)",
            "Show what CLIENT can be asked",
        ),
    ],
)
.doc("connection", "2.4.0", "Depends on the subcommand", "Look at connections and manage them")];

fn id(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    call.reply.int(client.info.id as i64);
    DONE
}

fn getname(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    let name = client.info.name.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if name.is_empty() {
        call.reply.null()
    } else {
        call.reply.bulk(&name)
    }
    DONE
}

fn setname(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    set_name(client, &args[2])?;
    call.reply.ok();
    DONE
}

fn info(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    note_input(client, args);
    let line = describe(&client.info) + "\n";
    call.reply.verbatim(b"txt", line.as_bytes());
    DONE
}

/// Notes that the request which is being carried out is in the client's input.
fn note_input(client: &Client, args: Args<'_>) {
    let digits = |number: usize| itoa::Buffer::new().format(number).len();
    let words = args.iter_from(0).map(|word| digits(word.len()) + word.len() + 5);
    let bytes = digits(args.len()) + 3 + words.sum::<usize>();
    client.info.input.store(bytes, Ordering::Relaxed);
}

fn list(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    note_input(client, args);
    let all = call.server.clients.all();
    let chosen: Vec<_> = match args.len() {
        2 => all,
        _ if args.is(2, "type") && args.len() == 4 => {
            let class = class(&args[3])?;
            all.into_iter().filter(|client| class == class_of(client)).collect()
        }
        _ if args.is(2, "id") && args.len() > 3 => {
            let ids: Option<Vec<u64>> = args
                .iter_from(3)
                .map(|id| parse_i64(id).and_then(|id| id.try_into().ok()))
                .collect();
            let ids = ids.ok_or(Error::new("ERR Invalid client ID"))?;
            all.into_iter().filter(|client| ids.contains(&client.id)).collect()
        }
        _ => return Err(Error::SYNTAX),
    };
    let mut text = String::new();
    for client in chosen {
        text += &describe(&client);
        text.push('\n');
    }
    call.reply.verbatim(b"txt", text.as_bytes());
    DONE
}

/// The class of that name, as `CLIENT LIST TYPE` and `CLIENT KILL TYPE` have them.
fn class(name: &[u8]) -> Result<&'static str, Error> {
    let lower = name.to_ascii_lowercase();
    match &lower[..] {
        b"normal" => Ok("normal"),
        b"pubsub" => Ok("pubsub"),
        b"master" => Ok("master"),
        b"slave" | b"replica" => Ok("replica"),
        _ => {
            let name = String::from_utf8_lossy(name);
            Err(Error::of(format!("ERR Unknown client type '{name}'")))
        }
    }
}

fn class_of(client: &ClientInfo) -> &'static str {
    if client.is_subscribed() { "pubsub" } else { "normal" }
}

/// What is known of a client, in one line.
pub fn describe(client: &ClientInfo) -> String {
    let now = clock::now_ms();
    let number = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::Relaxed);
    let mut flags = String::new();
    let tracks = client.tracks().clone().map(|tracks| *tracks);
    let is_in_transaction = client.multi.load(Ordering::Relaxed) >= 0;
    let marks = [
        (client.is(state::BLOCKED | state::PAUSED), 'b'),
        (client.is(state::MONITOR), 'O'),
        (class_of(client) == "pubsub", 'P'),
        (is_in_transaction, 'x'),
        (tracks.is_some(), 't'),
        (tracks.as_ref().is_some_and(|how| how.is_broken), 'R'),
        (tracks.as_ref().is_some_and(|how| how.broadcast), 'B'),
        (client.is_unix, 'U'),
        (client.is(state::NO_EVICT), 'e'),
        (client.is(state::NO_TOUCH), 'T'),
        (client.is(state::CLOSING), 'c'),
    ];
    flags.extend(marks.iter().filter(|(is, _)| *is).map(|(_, mark)| mark));
    if flags.is_empty() {
        flags.push('N');
    }
    let name = client.name.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let command = match client.command.load(Ordering::Relaxed) {
        0 => "NULL",
        id => super::name_of(id - 1),
    };
    let output = number(&client.output);
    format!(
        "id={} addr={} laddr={} fd={} name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} \
         qbuf={} qbuf-free=0 argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll={} omem={output} tot-mem={} events=r \
         cmd={command} user=default redir={} resp={}",
        client.id,
        client.addr,
        client.local_addr,
        client.fd,
        String::from_utf8_lossy(&name),
        now.saturating_sub(client.created_ms) / 1000,
        now.saturating_sub(client.last_ms.load(Ordering::Relaxed).max(client.created_ms)) / 1000,
        number(&client.db),
        number(&client.channels),
        number(&client.patterns),
        number(&client.shard_channels),
        client.multi.load(Ordering::Relaxed),
        number(&client.input),
        usize::from(output > 0),
        output + number(&client.input),
        redirection(tracks.as_ref()),
        client.resp.load(Ordering::Relaxed),
    )
}

fn reply(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    if args.is(2, "on") {
        client.replies = Replies::On;
        call.reply.ok();
    } else if args.is(2, "off") {
        client.replies = Replies::Off;
    } else if args.is(2, "skip") {
        if client.replies == Replies::On {
            client.replies = Replies::SkipNext;
        }
    } else {
        return Err(Error::SYNTAX);
    }
    DONE
}

/// A condition for a connection to be closed.
type Filter = Box<dyn Fn(&ClientInfo) -> bool>;

fn kill(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    let all = call.server.clients.all();
    if args.len() == 3 {
        let addr = String::from_utf8_lossy(&args[2]);
        let found = all.iter().find(|other| other.addr == addr);
        let found = found.ok_or(Error::new("ERR No such client"))?;
        call.server.kill(found);
        call.reply.ok();
        return DONE;
    }
    let mut skip_me = true;
    let mut filters: Vec<Filter> = Vec::new();
    let mut index = 2;
    while index < args.len() {
        let value = args.get(index + 1).ok_or(Error::SYNTAX)?;
        let text = String::from_utf8_lossy(value).into_owned();
        if args.is(index, "id") {
            let id = parse_i64(value).filter(|&id| id > 0);
            let id = id.ok_or(Error::new("ERR client-id should be greater than 0"))? as u64;
            filters.push(Box::new(move |other| other.id == id));
        } else if args.is(index, "type") {
            let class = class(value)?;
            filters.push(Box::new(move |other| class_of(other) == class));
        } else if args.is(index, "addr") {
            filters.push(Box::new(move |other| other.addr == text));
        } else if args.is(index, "laddr") {
            filters.push(Box::new(move |other| other.local_addr == text));
        } else if args.is(index, "user") {
            if text != "default" {
                return Err(Error::of(format!("ERR No such user '{text}'")));
            }
        } else if args.is(index, "skipme") {
            skip_me = match &value.to_ascii_lowercase()[..] {
                b"yes" => true,
                b"no" => false,
                _ => return Err(Error::SYNTAX),
            };
        } else {
            return Err(Error::SYNTAX);
        }
        index += 2;
    }
    let mut killed = 0;
    for other in all {
        let is_me = other.id == client.info.id;
        if (is_me && skip_me) || !filters.iter().all(|filter| filter(&other)) {
            continue;
        }
        killed += 1;
        if is_me {
            client.closes = true;
        } else {
            call.server.kill(&other);
        }
    }
    call.reply.int(killed);
    DONE
}

fn unblock(call: &mut Call<'_>, _client: &mut Client, args: Args<'_>) -> Answer {
    let how = match args.len() {
        3 => Unblock::Timeout,
        4 if args.is(3, "timeout") => Unblock::Timeout,
        4 if args.is(3, "error") => Unblock::Error,
        4 => {
            return Err(Error::new("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"));
        }
        _ => return Err(Error::SYNTAX),
    };
    let id = parse_i64(&args[2]).ok_or(Error::NOT_AN_INTEGER)?;
    let other = u64::try_from(id).ok().and_then(|id| call.server.clients.get(id));
    let is_blocked = other.as_ref().is_some_and(|other| other.is(state::BLOCKED));
    if let Some(other) = other.filter(|_| is_blocked) {
        call.server.unblock(&other, how);
    }
    call.reply.flag(is_blocked);
    DONE
}

fn no_evict(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    let on = match () {
        () if args.is(2, "on") => true,
        () if args.is(2, "off") => false,
        () => return Err(Error::SYNTAX),
    };
    client.info.set_state(state::NO_EVICT, on);
    call.reply.ok();
    DONE
}

/// An error of modes that do not go together.
const NO_SWITCH: &str =
    "before disabling tracking for this client, and then re-enabling it with a different mode.";

fn tracking(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    let mut tracks = Tracks::default();
    let mut prefixes: Vec<&[u8]> = Vec::new();
    let mut at = 3;
    while at < args.len() {
        let next = args.get(at + 1);
        match next {
            _ if args.is(at, "bcast") => tracks.broadcast = true,
            _ if args.is(at, "optin") => tracks.opt_in = true,
            _ if args.is(at, "optout") => tracks.opt_out = true,
            _ if args.is(at, "noloop") => tracks.no_loop = true,
            Some(prefix) if args.is(at, "prefix") => {
                prefixes.push(prefix);
                at += 1;
            }
            Some(id) if args.is(at, "redirect") => {
                if tracks.redirect != 0 {
                    return Err(Error::new(
                        "ERR A client can only redirect to a single other client",
                    ));
                }
                let id = parse_i64(id).ok_or(Error::NOT_AN_INTEGER)?;
                let other = u64::try_from(id).ok().and_then(|id| call.server.clients.get(id));
                let other = other
                    .ok_or(Error::new("ERR The client ID you want redirect to does not exist"))?;
                tracks.redirect = other.id;
                at += 1;
            }
            _ => return Err(Error::SYNTAX),
        }
        at += 1;
    }
    if args.is(2, "off") {
        call.server.tracking.end(client);
        call.reply.ok();
        return DONE;
    }
    if !args.is(2, "on") {
        return Err(Error::SYNTAX);
    }
    let before = client.info.tracks().clone().map(|before| *before);
    compatible(&tracks, before.as_ref(), &prefixes)?;
    tracks.prefixes = prefixes.into_iter().map(<[u8]>::to_vec).collect();
    if tracks.broadcast && tracks.prefixes.is_empty() {
        // All keys begin with it.
        tracks.prefixes.insert(Vec::new());
    }
    call.server.tracking.begin(client, tracks);
    call.reply.ok();
    DONE
}

/// Checks that options go together, and with what the client has asked for before.
fn compatible(tracks: &Tracks, before: Option<&Tracks>, prefixes: &[&[u8]]) -> Result<(), Error> {
    if !tracks.broadcast && !prefixes.is_empty() {
        return Err(Error::new("ERR PREFIX option requires BCAST mode to be enabled"));
    }
    if before.is_some_and(|before| before.broadcast != tracks.broadcast) {
        return Err(Error::of(format!("ERR You can't switch BCAST mode on/off {NO_SWITCH}")));
    }
    if tracks.broadcast && (tracks.opt_in || tracks.opt_out) {
        return Err(Error::new("ERR OPTIN and OPTOUT are not compatible with BCAST"));
    }
    if tracks.opt_in && tracks.opt_out {
        return Err(Error::new("ERR You can't specify both OPTIN mode and OPTOUT mode"));
    }
    let switches =
        |before: &Tracks| (tracks.opt_in && before.opt_out) || (tracks.opt_out && before.opt_in);
    if before.is_some_and(switches) {
        return Err(Error::of(format!("ERR You can't switch OPTIN/OPTOUT mode {NO_SWITCH}")));
    }
    let overlap = |a: &[u8], b: &[u8]| a.starts_with(b) || b.starts_with(a);
    let failed = |prefix: &[u8], which: &str, other: &[u8]| {
        let [prefix, other] = [prefix, other].map(String::from_utf8_lossy);
        Err(Error::of(format!(
            "ERR Prefix '{prefix}' overlaps with {which} prefix '{other}'. Prefixes for a single client must not \
             overlap."
        )))
    };
    for (at, prefix) in prefixes.iter().enumerate() {
        let mut old = before.iter().flat_map(|before| &before.prefixes);
        if let Some(other) = old.find(|other| overlap(prefix, other)) {
            return failed(prefix, "an existing", other);
        }
        if let Some(other) = prefixes[at + 1..].iter().find(|other| overlap(prefix, other)) {
            return failed(prefix, "another provided", other);
        }
    }
    Ok(())
}

fn caching(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    let (is_on, opt_in, opt_out) = match client.info.tracks().as_deref() {
        Some(how) => (true, how.opt_in, how.opt_out),
        None => (false, false, false),
    };
    if !is_on {
        return Err(Error::new(
            "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode \
             enabled",
        ));
    }
    if args.is(2, "yes") && !opt_in {
        return Err(Error::new(
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode.",
        ));
    }
    if args.is(2, "no") && !opt_out {
        return Err(Error::new(
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode.",
        ));
    }
    if !args.is(2, "yes") && !args.is(2, "no") {
        return Err(Error::SYNTAX);
    }
    client.is_caching_given = true;
    call.reply.ok();
    DONE
}

/// The client that hears of keys in this one's place, 0 being itself, -1 where it hears of none.
fn redirection(tracks: Option<&Tracks>) -> i64 {
    tracks.map_or(-1, |how| how.redirect as i64)
}

fn getredir(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    call.reply.int(redirection(client.info.tracks().as_deref()));
    DONE
}

fn trackinginfo(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    let tracks = client.info.tracks();
    let how = tracks.as_deref();
    let is = |of: fn(&Tracks) -> bool| how.is_some_and(of);
    let given = client.is_caching_given;
    let flags = [
        (how.is_none(), "off"),
        (how.is_some(), "on"),
        (is(|how| how.broadcast), "bcast"),
        (is(|how| how.opt_in), "optin"),
        (is(|how| how.opt_in) && given, "caching-yes"),
        (is(|how| how.opt_out), "optout"),
        (is(|how| how.opt_out) && given, "caching-no"),
        (is(|how| how.no_loop), "noloop"),
        (is(|how| how.is_broken), "broken_redirect"),
    ];
    let flags: Vec<&str> = flags.iter().filter(|(is, _)| *is).map(|(_, name)| *name).collect();
    call.reply.map(3);
    call.reply.bulk(b"flags");
    call.reply.set(flags.len());
    flags.iter().for_each(|name| call.reply.bulk(name.as_bytes()));
    call.reply.bulk(b"redirect");
    call.reply.int(redirection(how));
    call.reply.bulk(b"prefixes");
    call.reply.array(how.map_or(0, |how| how.prefixes.len()));
    how.iter().flat_map(|how| &how.prefixes).for_each(|prefix| call.reply.bulk(prefix));
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    super::help(
        call,
        "CLIENT",
        &[
            ("CACHING yes|no", "Say whether the next command's reads count, with OPTIN or OPTOUT."),
            ("GETREDIR", "Show which connection hears of keys in this one's place."),
            ("GETNAME", "Show the name of the connection."),
            ("ID", "Show the number of the connection."),
            ("INFO", "Show what is known of the connection."),
            ("KILL <ip:port>", "Close the connection from there."),
            (
                "KILL [ID <id>] [TYPE <type>] [ADDR <ip:port>] [LADDR <ip:port>] [USER <name>] [SKIPME yes|no]",
                "Close the connections for which all of this is true.",
            ),
            ("LIST [TYPE <type> | ID <id> ...]", "Show what is known of connections."),
            ("NO-EVICT on|off", "Keep the connection where memory is short."),
            ("PAUSE <milliseconds> [WRITE|ALL]", "Have commands wait, those that write or all."),
            ("REPLY on|off|skip", "Choose which replies are sent."),
            ("SETNAME <name>", "Give the connection a name."),
            (
                "TRACKING on|off [REDIRECT <id>] [BCAST] [PREFIX <prefix> ...] [OPTIN] [OPTOUT] [NOLOOP]",
                "Hear of changes of keys that were read, or that begin with a prefix.",
            ),
            ("TRACKINGINFO", "Show of which keys the connection hears, and how."),
            ("UNBLOCK <id> [TIMEOUT|ERROR]", "End a client's wait for a key."),
            ("UNPAUSE", "Have commands wait no longer."),
        ],
    )
}

fn pause(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let mode = match args.len() {
        3 => PauseMode::All,
        4 if args.is(3, "all") => PauseMode::All,
        4 if args.is(3, "write") => PauseMode::Write,
        _ => return Err(Error::SYNTAX),
    };
    let millis =
        parse_i64(&args[2]).ok_or(Error::new("ERR timeout is not an integer or out of range"))?;
    let millis = u64::try_from(millis).map_err(|_| Error::new("ERR timeout is negative"))?;
    call.server.pause.begin(clock::now_ms().saturating_add(millis), mode);
    call.reply.ok();
    DONE
}

fn unpause(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.server.pause.end();
    call.reply.ok();
    DONE
}
