//! The connection: PING, ECHO, SELECT, HELLO, AUTH, QUIT, RESET.

use std::sync::atomic::Ordering;

use super::{Answer, Call, DONE, Later, Outcome, Spec, flag, pubsub};
use crate::error::Error;
use crate::protocol::{Args, Proto, parse_i64};
use crate::server::{Client, Replies};
use crate::store::DBS;

const ANY_TIME: u32 = flag::LOADING | flag::STALE;
const OPEN: u32 = ANY_TIME | flag::NO_AUTH | flag::FAST | flag::NOSCRIPT | flag::ALLOW_BUSY;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::session("ping", -1, ping).fast().flags(flag::SUBSCRIBED).doc(
        "connection",
        "1.0.0",
        "O(1)",
        "Ask for a sign of life",
    ),
    Spec::data("echo", 2, echo).fast().flags(ANY_TIME).doc(
        "connection",
        "1.0.0",
        "O(1)",
        "Get back what is sent",
    ),
    Spec::session("select", 2, select).fast().flags(ANY_TIME).doc(
        "connection",
        "1.0.0",
        "O(1)",
        "Choose the database of the connection",
    ),
    Spec::session("hello", -1, hello).flags(OPEN).doc(
        "connection",
        "6.0.0",
        "O(1)",
        "Choose the version of the protocol, and introduce oneself",
    ),
    Spec::session("auth", -2, auth).flags(OPEN).doc(
        "connection",
        "1.0.0",
        "O(1)",
        "Say the password",
    ),
    Spec::session("quit", -1, quit).flags(OPEN | flag::NO_QUEUE | flag::SUBSCRIBED).doc(
        "connection",
        "1.0.0",
        "O(1)",
        "Close the connection",
    ),
    Spec::session("reset", 1, reset).flags(OPEN | flag::NO_QUEUE | flag::SUBSCRIBED).doc(
        "connection",
        "6.2.0",
        "O(1)",
        "Make the connection as new",
    ),
];

fn ping(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    if args.len() > 2 {
        return Err(Error::arity("ping"));
    }
    if client.is_subscribed() && client.proto == Proto::Resp2 {
        call.reply.array(2);
        call.reply.bulk(b"pong");
        call.reply.bulk(args.get(1).unwrap_or_default());
        return DONE;
    }
    match args.get(1) {
        Some(text) => call.reply.bulk(text),
        None => call.reply.simple("PONG"),
    }
    DONE
}

fn echo(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.reply.bulk(&args[1]);
    DONE
}

fn select(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    let index = parse_i64(&args[1]).ok_or(Error::new("ERR invalid DB index"))?;
    let index = usize::try_from(index).ok().filter(|&index| index < DBS);
    client.db = index.ok_or(Error::new("ERR DB index is out of range"))?;
    client.info.db.store(client.db, Ordering::Relaxed);
    call.reply.ok();
    DONE
}

fn hello(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    let proto = match args.get(1) {
        None => None,
        Some(version) => match parse_i64(version) {
            Some(2) => Some(Proto::Resp2),
            Some(3) => Some(Proto::Resp3),
            Some(_) => return Err(Error::new("NOPROTO unsupported protocol version")),
            None => {
                return Err(Error::new("ERR Protocol version is not an integer or out of range"));
            }
        },
    };
    let mut index = 2;
    let (mut password, mut name) = (None, None);
    while index < args.len() {
        if args.is(index, "auth") && index + 2 < args.len() {
            password = Some((&args[index + 1], &args[index + 2]));
            index += 3;
        } else if args.is(index, "setname") && index + 1 < args.len() {
            name = Some(&args[index + 1]);
            index += 2;
        } else {
            return Err(Error::of(format!(
                "ERR Syntax error in HELLO option '{}'",
                String::from_utf8_lossy(&args[index])
            )));
        }
    }
    if let Some((user, password)) = password {
        log_in(call, client, user, password)?;
    }
    if call.config.needs_password() && !client.is_authenticated {
        return Err(Error::new(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH \
             <user> <pass> option can be used to authenticate the client and select the RESP protocol version at \
             the same time",
        ));
    }
    if let Some(name) = name {
        set_name(client, name)?;
    }
    if let Some(proto) = proto {
        client.proto = proto;
        call.reply.set_proto(proto);
        let number = if proto == Proto::Resp3 { 3 } else { 2 };
        client.info.resp.store(number, Ordering::Relaxed);
    }
    call.reply.map(7);
    for (field, value) in [("server", "redis"), ("version", crate::REDIS_VERSION)] {
        call.reply.bulk(field.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    call.reply.bulk(b"proto");
    call.reply.int(if client.proto == Proto::Resp3 { 3 } else { 2 });
    call.reply.bulk(b"id");
    call.reply.int(client.info.id as i64);
    call.reply.bulk(b"mode");
    call.reply.bulk(b"standalone");
    call.reply.bulk(b"role");
    call.reply.bulk(b"master");
    call.reply.bulk(b"modules");
    call.reply.array(0);
    DONE
}

/// Gives the client a name, which must have no spaces, line ends or the like.
pub fn set_name(client: &Client, name: &[u8]) -> Result<(), Error> {
    if !name.iter().all(u8::is_ascii_graphic) {
        return Err(Error::new(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    let mut place = client.info.name.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    *place = name.to_vec();
    Ok(())
}

fn auth(call: &mut Call<'_>, client: &mut Client, args: Args<'_>) -> Answer {
    match args.len() {
        2 if !call.config.needs_password() => {
            return Err(Error::new(
                "ERR AUTH <password> called without any password configured for the default user. Are you sure \
                 your configuration is correct?",
            ));
        }
        2 => log_in(call, client, b"default", &args[1])?,
        3 => log_in(call, client, &args[1], &args[2])?,
        _ => return Err(Error::SYNTAX),
    }
    call.reply.ok();
    DONE
}

fn log_in(call: &Call<'_>, client: &mut Client, user: &[u8], password: &[u8]) -> Result<(), Error> {
    let is_right = user == b"default" && call.config.is_password(password);
    if !is_right {
        return Err(Error::new("WRONGPASS invalid username-password pair or user is disabled."));
    }
    client.is_authenticated = true;
    Ok(())
}

fn quit(call: &mut Call<'_>, _client: &mut Client, _args: Args<'_>) -> Answer {
    call.reply.ok();
    Ok(Outcome::later(Later::Quit))
}

fn reset(call: &mut Call<'_>, client: &mut Client, _args: Args<'_>) -> Answer {
    client.multi = None;
    client.info.multi.store(-1, Ordering::Relaxed);
    call.server.unwatch(call.keys, client);
    pubsub::leave(call.server, client);
    call.server.tracking.end(client);
    client.db = 0;
    client.proto = Proto::Resp2;
    client.info.resp.store(2, Ordering::Relaxed);
    client.replies = Replies::On;
    client.no_touch = false;
    client.is_monitor = false;
    call.server.monitors.remove(client.info.id);
    client.is_authenticated = !call.config.needs_password();
    client.info.db.store(0, Ordering::Relaxed);
    client.info.state.store(0, Ordering::Relaxed);
    set_name(client, b"")?;
    call.reply.set_proto(Proto::Resp2);
    call.reply.simple("RESET");
    DONE
}
