//! COMMAND: the table of commands, as clients ask for it.

mod categories;
mod key_flags;

use super::{Answer, Call, Command, DONE, KeySpec, Run, Spec, flag};
use crate::error::Error;
use crate::glob;
use crate::protocol::{Args, OwnedArgs, Reply};
use categories::categories;
use key_flags::{Access, key_flags};

const FLAGS: u32 = flag::LOADING | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec {
    arity: -1,
    run: Run::Data(all),
    ..Spec::container(
        "command",
        &[
            Spec::data("count", 2, count).flags(FLAGS).doc(
                "server",
                "2.8.13",
                "O(1)",
                "Show how many commands there are",
            ),
            Spec::data("docs", -2, docs).flags(FLAGS).doc(
                "server",
                "7.0.0",
                "O(N), N being the commands asked for",
                "Show what commands do",
            ),
            Spec::data("getkeys", -4, getkeys).flags(FLAGS).doc(
                "server",
                "2.8.13",
                "O(N), N being the words of the command",
                "Show which words of a command are keys",
            ),
            Spec::data("getkeysandflags", -4, getkeysandflags).flags(FLAGS).doc(
                "server",
                "7.0.0",
                "O(N), N being the words of the command",
                "Show which words of a command are keys, and what it does with them",
            ),
            Spec::data("help", 2, help).flags(FLAGS).doc(
                "server",
                "5.0.0",
                "O(1)",
                "Show what COMMAND can be asked",
            ),
            Spec::data("info", -2, info).flags(FLAGS).doc(
                "server",
                "2.8.13",
                "O(N), N being the commands asked for",
                "Show the rows of commands",
            ),
            Spec::data("list", -2, list).flags(FLAGS).doc(
                "server",
                "7.0.0",
                "O(N), N being the commands",
                "Show the names of commands",
            ),
        ],
    )
    .flags(FLAGS)
    .doc("server", "2.8.13", "O(N), N being the commands", "Show the rows of all commands")
}];

/// The commands that there are, those that are refused not among them.
fn known() -> impl Iterator<Item = &'static Command> {
    super::all().iter().filter(|command| !command.has(flag::REFUSED))
}

/// The subcommands of one, those that are refused not among them.
fn subcommands(command: &'static Command) -> impl Iterator<Item = &'static Command> {
    command.subcommands.iter().filter(|command| !command.has(flag::REFUSED))
}

fn find(name: &[u8]) -> Option<&'static Command> {
    super::find_full(name).filter(|command| !command.has(flag::REFUSED))
}

fn all(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.array(known().count());
    known().for_each(|command| row(call.reply, command));
    DONE
}

fn count(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.reply.count(known().count());
    DONE
}

fn info(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if args.len() == 2 {
        call.reply.array(known().count());
        known().for_each(|command| row(call.reply, command));
        return DONE;
    }
    call.reply.array(args.len() - 2);
    for name in args.iter_from(2) {
        match find(name) {
            Some(command) => row(call.reply, command),
            None => call.reply.null_array(),
        }
    }
    DONE
}

/// Flags with their names, in the order in which they are shown.
const FLAG_NAMES: &[(u32, &str)] = &[
    (flag::WRITE, "write"),
    (flag::READONLY, "readonly"),
    (flag::DENYOOM, "denyoom"),
    (flag::ADMIN, "admin"),
    (flag::PUBSUB, "pubsub"),
    (flag::NOSCRIPT, "noscript"),
    (flag::BLOCKING, "blocking"),
    (flag::LOADING, "loading"),
    (flag::STALE, "stale"),
    (flag::SKIP_MONITOR, "skip_monitor"),
    (flag::SKIP_SLOWLOG, "skip_slowlog"),
    (flag::FAST, "fast"),
    (flag::NO_AUTH, "no_auth"),
    (flag::NO_MANDATORY_KEYS, "no_mandatory_keys"),
    (flag::NO_ASYNC_LOADING, "no_async_loading"),
    (flag::NO_MULTI, "no_multi"),
    (flag::MOVABLEKEYS, "movablekeys"),
    (flag::ALLOW_BUSY, "allow_busy"),
];

/// The bits of a command's flags; keys whose place depends on other words make it one of movable keys.
fn flags(command: &Command) -> u32 {
    let is_movable =
        matches!(command.spec.keys, KeySpec::Counted { .. } | KeySpec::All { key: Some(_), .. });
    command.spec.flags | if is_movable { flag::MOVABLEKEYS } else { 0 }
}

/// First key, last key and step, as far as they can be told without the words.
fn key_positions(keys: KeySpec) -> (i64, i64, i64) {
    match keys {
        KeySpec::Range { first, last, step } if last >= 0 && last as usize == first => {
            (first as i64, last as i64, step as i64)
        }
        KeySpec::Range { first, last, step } => (first as i64, last as i64, step as i64),
        KeySpec::Counted { also: Some(key), .. }
        | KeySpec::All { key: Some(key), .. }
        | KeySpec::OneAndAfter { key, .. } => (key as i64, key as i64, 1),
        KeySpec::None | KeySpec::Counted { also: None, .. } | KeySpec::All { key: None, .. } => {
            (0, 0, 0)
        }
    }
}

/// A command's row: ten fields.
fn row(reply: &mut Reply, command: &'static Command) {
    reply.array(10);
    reply.bulk(command.full_name.as_bytes());
    reply.int(command.spec.arity.into());
    statuses(reply, FLAG_NAMES.iter().filter(|(bit, _)| flags(command) & bit != 0).map(|it| it.1));
    let (first, last, step) = key_positions(command.spec.keys);
    [first, last, step].into_iter().for_each(|number| reply.int(number));
    let categories: Vec<String> =
        categories(command).iter().map(|name| format!("@{name}")).collect();
    statuses(reply, categories.iter().map(String::as_str));
    let tips = categories::tips(&command.full_name);
    reply.array(tips.len());
    tips.iter().for_each(|tip| reply.bulk(tip.as_bytes()));
    key_specs(reply, command);
    reply.array(subcommands(command).count());
    subcommands(command).for_each(|sub| row(reply, sub));
}

/// A set of words, as statuses.
fn statuses<'a>(reply: &mut Reply, words: impl Iterator<Item = &'a str>) {
    let words: Vec<&str> = words.collect();
    reply.set(words.len());
    words.iter().for_each(|word| reply.simple(word));
}

/// How keys are found: an array of maps.
fn key_specs(reply: &mut Reply, command: &Command) {
    let access = key_flags(&command.full_name);
    match command.spec.keys {
        KeySpec::None | KeySpec::All { key: None, .. } => reply.array(0),
        KeySpec::Range { first, last, step } => {
            let len = usize::try_from(last).map_or(1, |last| (last - first) / step + 1);
            // Keys that are used in different ways have an entry each.
            if access.len() > 1 && last > 0 && len == access.len() {
                reply.array(len);
                for (index, access) in access.iter().enumerate() {
                    key_spec(reply, access, first + index * step, |reply| find_range(reply, 0, 1));
                }
            } else if access.len() > 1 {
                reply.array(2);
                key_spec(reply, access[0], first, |reply| find_range(reply, 0, 1));
                key_spec(reply, access[1], first + step, |reply| {
                    find_range(reply, last as i64, step);
                });
            } else {
                reply.array(1);
                let last = if last < 0 { last as i64 } else { (last as usize - first) as i64 };
                key_spec(reply, access[0], first, |reply| find_range(reply, last, step));
            }
        }
        KeySpec::Counted { count, also } => {
            reply.array(1 + usize::from(also.is_some()));
            if let Some(also) = also {
                key_spec(reply, access[0], also, |reply| find_range(reply, 0, 1));
            }
            key_spec(reply, access[access.len() - 1], count, |reply| {
                find_keys(reply, "keynum", &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)]);
            });
        }
        KeySpec::OneAndAfter { key, from, after } => {
            reply.array(1 + after.len());
            key_spec(reply, access[0], key, |reply| find_range(reply, 0, 1));
            for word in after {
                key_spec_after(reply, access[access.len() - 1], word, from);
            }
        }
        KeySpec::All { key: Some(key), .. } => {
            // Further keys of SORT are in patterns, or after STORE.
            let further: &[&Access] = match command.spec.name {
                "sort" => &[access[0], access[access.len() - 1]],
                "sort_ro" => &[access[0]],
                _ => &[],
            };
            reply.array(1 + further.len());
            key_spec(reply, access[0], key, |reply| find_range(reply, 0, 1));
            further.iter().for_each(|access| key_spec_unknown(reply, access));
        }
    }
}

/// Up to the way in which the search for a key begins.
fn key_spec_begin(reply: &mut Reply, access: &Access) {
    reply.map(3);
    reply.bulk(b"flags");
    statuses(reply, access.iter().copied());
    reply.bulk(b"begin_search");
    reply.map(2);
    reply.bulk(b"type");
}

fn key_spec(reply: &mut Reply, access: &Access, begin: usize, find: impl FnOnce(&mut Reply)) {
    key_spec_begin(reply, access);
    reply.bulk(b"index");
    reply.bulk(b"spec");
    reply.map(1);
    reply.bulk(b"index");
    reply.count(begin);
    reply.bulk(b"find_keys");
    find(reply);
}

/// A key after a word.
fn key_spec_after(reply: &mut Reply, access: &Access, word: &str, from: usize) {
    key_spec_begin(reply, access);
    reply.bulk(b"keyword");
    reply.bulk(b"spec");
    reply.map(2);
    reply.bulk(b"keyword");
    reply.bulk(word.to_ascii_uppercase().as_bytes());
    reply.bulk(b"startfrom");
    reply.count(from);
    reply.bulk(b"find_keys");
    find_range(reply, 0, 1);
}

/// Keys that no position tells.
fn key_spec_unknown(reply: &mut Reply, access: &Access) {
    reply.map(3);
    reply.bulk(b"flags");
    statuses(reply, access.iter().copied());
    for part in ["begin_search", "find_keys"] {
        reply.bulk(part.as_bytes());
        find_keys(reply, "unknown", &[]);
    }
}

fn find_range(reply: &mut Reply, last: i64, step: usize) {
    find_keys(reply, "range", &[("lastkey", last), ("keystep", step as i64), ("limit", 0)]);
}

fn find_keys(reply: &mut Reply, kind: &str, fields: &[(&str, i64)]) {
    reply.map(2);
    reply.bulk(b"type");
    reply.bulk(kind.as_bytes());
    reply.bulk(b"spec");
    reply.map(fields.len());
    for (name, value) in fields {
        reply.bulk(name.as_bytes());
        reply.int(*value);
    }
}

fn docs(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let chosen: Vec<&'static Command> = match args.len() {
        2 => known().collect(),
        _ => args.iter_from(2).filter_map(find).collect(),
    };
    call.reply.map(chosen.len());
    chosen.into_iter().for_each(|command| doc(call.reply, command));
    DONE
}

fn doc(reply: &mut Reply, command: &'static Command) {
    let spec = command.spec;
    let has_subcommands = subcommands(command).next().is_some();
    reply.bulk(command.full_name.as_bytes());
    reply.map(4 + usize::from(has_subcommands));
    for (field, value) in [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", spec.group),
        ("complexity", spec.complexity),
    ] {
        reply.bulk(field.as_bytes());
        reply.bulk(value.as_bytes());
    }
    if has_subcommands {
        reply.bulk(b"subcommands");
        reply.map(subcommands(command).count());
        subcommands(command).for_each(|sub| doc(reply, sub));
    }
}

fn list(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let is_wanted: Box<dyn Fn(&Command) -> bool> = match args.len() {
        2 => Box::new(|_| true),
        5 if args.is(2, "filterby") => {
            let word = args[4].to_ascii_lowercase();
            if args.is(3, "module") {
                Box::new(|_| false)
            } else if args.is(3, "aclcat") {
                Box::new(move |command| {
                    categories(command).iter().any(|name| name.as_bytes() == word)
                })
            } else if args.is(3, "pattern") {
                Box::new(move |command| glob::matches(&word, command.full_name.as_bytes()))
            } else {
                return Err(Error::SYNTAX);
            }
        }
        _ => return Err(Error::SYNTAX),
    };
    let all = known().flat_map(|command| std::iter::once(command).chain(subcommands(command)));
    let names: Vec<&str> =
        all.filter(|command| is_wanted(command)).map(|command| &command.full_name[..]).collect();
    call.reply.array(names.len());
    names.iter().for_each(|name| call.reply.bulk(name.as_bytes()));
    DONE
}

/// The words that are keys of a command whose own words these are, with what it does with each.
fn keys_of(args: Args<'_>) -> Result<Vec<(Vec<u8>, &'static Access)>, Error> {
    let words = OwnedArgs::of(args.iter_from(2));
    let words = words.args();
    let command = super::lookup(words).filter(|command| !command.has(flag::REFUSED));
    let command = command.ok_or(Error::new("ERR Invalid command specified"))?;
    if matches!(command.spec.keys, KeySpec::None | KeySpec::All { key: None, .. }) {
        return Err(Error::new("ERR The command has no key arguments"));
    }
    if !command.takes(words.len()) {
        return Err(Error::new("ERR Invalid number of arguments specified for command"));
    }
    let access = key_flags(&command.full_name);
    let mut keys = Vec::new();
    command.for_each_key(words, |index| {
        let access: &'static Access = access[keys.len().min(access.len() - 1)];
        keys.push((words[index].to_vec(), access));
    });
    if command.spec.name == "set" && keys.len() == 1 {
        let gets = (3..words.len()).any(|index| words.is(index, "get"));
        keys[0].1 = if gets { &["RW", "access", "update"] } else { &["OW", "update"] };
    }
    if let KeySpec::Counted { count, also } = command.spec.keys {
        let counted = words.get(count).and_then(crate::protocol::parse_u64);
        let there = keys.len() - usize::from(also.is_some());
        if counted != Some(there as u64) {
            return Err(Error::new("ERR Invalid arguments specified for command"));
        }
    }
    if command.spec.name == "migrate" {
        keys.retain(|(key, _)| !key.is_empty());
        let listed = (6..words.len()).find(|&index| words.is(index, "keys"));
        if let Some(listed) = listed {
            keys.extend(words.iter_from(listed + 1).map(|key| (key.to_vec(), access[0])));
        }
    }
    Ok(keys)
}

fn getkeys(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let keys = keys_of(args)?;
    call.reply.array(keys.len());
    keys.iter().for_each(|(key, _)| call.reply.bulk(key));
    DONE
}

fn getkeysandflags(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let keys = keys_of(args)?;
    call.reply.array(keys.len());
    for (key, access) in keys {
        call.reply.array(2);
        call.reply.bulk(&key);
        statuses(call.reply, access.iter().copied());
    }
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    super::help(
        call,
        "COMMAND",
        &[
            ("(no subcommand)", "Show the rows of all commands."),
            ("COUNT", "Show how many commands there are."),
            ("LIST [FILTERBY <filter> <value>]", "Show the names of commands."),
            ("INFO [<command> ...]", "Show the rows of commands."),
            ("DOCS [<command> ...]", "Show what commands do."),
            ("GETKEYS <command>", "Show which words of a command are keys."),
            (
                "GETKEYSANDFLAGS <command>",
                "Show which words of a command are keys, and what it does with them.",
            ),
        ],
    )
}

#[cfg(test)]
mod tests {
    use super::{KeySpec, key_flags, known};
    use crate::server::local::Local;

    #[test]
    fn every_command_with_keys_says_what_it_does_with_them() {
        for command in known() {
            let has_keys =
                !matches!(command.spec.keys, KeySpec::None | KeySpec::All { key: None, .. });
            let is_known = !key_flags(&command.full_name)[0].is_empty();
            assert_eq!(has_keys, is_known, "{}", command.full_name);
        }
    }

    #[test]
    fn keys_are_found_with_what_is_done_with_them() {
        let mut local = Local::default();
        for (words, reply) in [
            ("SET k v", "[[\"k\", [OW, update]]]"),
            ("SET k v GET", "[[\"k\", [RW, access, update]]]"),
            ("MSET k v k2 v", "[[\"k\", [OW, update]], [\"k2\", [OW, update]]]"),
            ("LMOVE a b LEFT LEFT", "[[\"a\", [RW, access, delete]], [\"b\", [RW, insert]]]"),
            ("SORT a STORE b", "[[\"a\", [RO, access]], [\"b\", [OW, update]]]"),
            (
                "GEORADIUS a 1 1 1 km STORE b COUNT 1 STOREDIST c",
                "[[\"a\", [RO, access]], [\"c\", [OW, update]]]",
            ),
            ("ZUNIONSTORE a 1 b", "[[\"a\", [OW, update]], [\"b\", [RO, access]]]"),
        ] {
            assert_eq!(local.run(&format!("COMMAND GETKEYSANDFLAGS {words}")), reply, "{words}");
        }
        for (words, error) in [
            ("PING a", "ERR The command has no key arguments"),
            ("GET a b", "ERR Invalid number of arguments specified for command"),
            ("NONE a", "ERR Invalid command specified"),
            ("ZUNION 2 a", "ERR Invalid arguments specified for command"),
        ] {
            let reply = local.run(&format!("COMMAND GETKEYS {words}"));
            assert_eq!(reply, format!("(error) {error}"), "{words}");
        }
    }

    #[test]
    fn rows_of_all_commands_are_whole() {
        let mut local = Local::default();
        assert!(local.run("COMMAND").contains("[\"get\", 2, [readonly, fast], 1, 1, 1, "));
        let list = local.run("COMMAND LIST FILTERBY PATTERN config|*");
        assert!(list.contains("\"config|get\"") && !list.contains("\"config\""));
        assert_eq!(local.run("COMMAND INFO xadd get|key"), "[(nil), (nil)]");
        assert!(local.run("COMMAND DOCS get").contains("\"summary\""));
    }
}
