//! CONFIG: the settings.

use super::{Answer, Call, DONE, Later, Outcome, Spec, flag};
use crate::config::{self, Config, SETTINGS};
use crate::error::Error;
use crate::glob;
use crate::protocol::Args;
use crate::server::{Server, TooFew, make_room};

const FLAGS: u32 = flag::ADMIN | flag::NOSCRIPT | flag::LOADING | flag::STALE;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::container(
    "config",
    &[
        Spec::data("get", -3, get).flags(FLAGS).doc(
            "server",
            "2.0.0",
            "O(N), N being the settings there are",
            "Show the settings whose names match",
        ),
        Spec::data("set", -4, set).flags(FLAGS).doc(
            "server",
            "2.0.0",
            "O(N), N being the settings given",
            "Change settings, all of them or none",
        ),
        Spec::data("resetstat", 2, resetstat).all_keys(None).flags(FLAGS).doc(
            "server",
            "2.0.0",
            "O(1)",
            "Begin to count anew",
        ),
        Spec::data("rewrite", 2, rewrite).flags(FLAGS).doc(
            "server",
            "2.8.0",
            "O(1)",
            "Write the settings into the file they were read from",
        ),
        Spec::data("help", 2, help).flags(flag::LOADING | flag::STALE).doc(
            "server",
            "5.0.0",
            "O(1)",
            "Show what CONFIG can be asked",
        ),
    ],
)
.doc("server", "2.0.0", "Depends on the subcommand", "Look at the settings and change them")];

fn get(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let mut shown: Vec<(&str, &str)> = Vec::new();
    for setting in SETTINGS {
        for name in std::iter::once(setting.name).chain(setting.alias) {
            let wanted = args.iter_from(2).any(|pattern| match setting.is_hidden {
                true => pattern.eq_ignore_ascii_case(name.as_bytes()),
                false => glob::matches(&pattern.to_ascii_lowercase(), name.as_bytes()),
            });
            if wanted {
                shown.push((name, call.config.get(setting)));
            }
        }
    }
    call.reply.map(shown.len());
    for (name, value) in shown {
        call.reply.bulk(name.as_bytes());
        call.reply.bulk(value.as_bytes());
    }
    DONE
}

fn set(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    if !args.len().is_multiple_of(2) {
        return Err(Error::arity("config|set"));
    }
    let words: Vec<String> =
        args.iter_from(2).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let before = call.server.config();
    let changed = changed(call.server, &before, &words)?;
    if changed.port != before.port || changed.bind != before.bind {
        return Ok(Outcome::later(Later::Listen(words)));
    }
    call.server.set_config(changed);
    call.reply.ok();
    DONE
}

/// Why a setting was not changed, and with it none.
pub(crate) fn failed(name: &str, why: &str) -> Error {
    Error::of(format!("ERR CONFIG SET failed (possibly related to argument '{name}') - {why}"))
}

/// The settings with those changed that these words give by turns with their values.
pub(crate) fn changed(server: &Server, before: &Config, words: &[String]) -> Result<Config, Error> {
    let mut changed = before.clone();
    let mut seen: Vec<&str> = Vec::new();
    for pair in words.chunks(2) {
        let (name, value) = (&pair[0], &pair[1]);
        let Some(setting) = config::find(name) else {
            return Err(Error::of(format!(
                "ERR Unknown option or number of arguments for CONFIG SET - '{name}'"
            )));
        };
        if setting.is_fixed && changed.get(setting) != value {
            return Err(failed(name, "can't set immutable config"));
        }
        if seen.contains(&setting.name) {
            return Err(failed(name, "duplicate parameter"));
        }
        seen.push(setting.name);
        changed.set(setting, value).map_err(|why| failed(name, &why))?;
        if changed.maxclients > before.maxclients && setting.name == "maxclients" {
            make_room(server, changed.maxclients).map_err(|TooFew { clients, .. }| {
                let why = format!(
                    "The operating system is not able to handle the specified number of clients, \
                     try with {clients}"
                );
                failed(name, &why)
            })?;
        }
    }
    Ok(changed)
}

fn resetstat(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    call.server.reset_stats();
    call.keys.shards().for_each(|shard| shard.stats = Default::default());
    call.reply.ok();
    DONE
}

fn rewrite(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    let file = call.server.config_file();
    let file = file.ok_or(Error::new("ERR The server is running without a config file"))?;
    config::rewrite(file, call.config, false)
        .map_err(|error| Error::of(format!("ERR Rewriting config file: {error}")))?;
    call.reply.ok();
    DONE
}

fn help(call: &mut Call<'_>, _args: Args<'_>) -> Answer {
    super::help(
        call,
        "CONFIG",
        &[
            ("GET <pattern> [<pattern> ...]", "Show the settings whose names match."),
            (
                "SET <setting> <value> [<setting> <value> ...]",
                "Change settings, all of them or none.",
            ),
            ("RESETSTAT", "Begin to count anew."),
            ("REWRITE", "Write the settings into the file they were read from."),
        ],
    )
}

#[cfg(test)]
mod tests {
    use crate::server::local::Local;

    #[test]
    fn more_clients_than_the_limit_of_open_files_lets_be_are_refused() {
        let mut local = Local::new(1);
        let reply = local.run("CONFIG SET maxclients 4000000000");
        let why = "The operating system is not able to handle the specified number of clients";
        assert!(reply.contains(why), "{reply}");
        let (_, clients) = reply.split_once("try with ").expect("it says how many");
        assert!(clients.parse::<u64>().is_ok_and(|clients| clients > 0), "{reply}");
        assert_eq!(local.run("CONFIG GET maxclients"), r#"["maxclients", "10000"]"#);
    }
}
