//! `omniring kv`: its options, which are the settings of the store.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use clap::Args;
use omniring_kv::config::{self, Config, SETTINGS};
use omniring_kv::log;

/// Run a durable store that speaks Redis' protocol.
///
/// Settings have the names that redis.conf has for them: in a file, a line each, or as options, --appendfsync everysec.
/// Options come after the file and win. `omniring kv check PATH` looks at a log, its directory or one file of it, and
/// `omniring kv repair PATH` leaves out what is damaged. It listens on the loopback device unless --bind says otherwise.
#[derive(Args)]
#[command(override_usage = "omniring kv [FILE] [--engine NAME] [--cores N] [--SETTING VALUE]...", after_help = after_help())]
pub struct Kv {
    /// A file of settings, then settings as options
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "FILE or --SETTING VALUE"
    )]
    words: Vec<String>,
}

/// What a command line asks for.
struct Asked {
    config: Config,
    file: Option<std::path::PathBuf>,
    engine: omniring::Engine,
    cores: usize,
}

impl Kv {
    /// Runs the server until it is told to end; or looks at a log, or repairs it.
    pub fn run(self) -> Result<ExitCode, String> {
        if let [command, rest @ ..] = &self.words[..]
            && (command == "check" || command == "repair")
        {
            let [path] = rest else {
                return Err(format!(
                    "omniring kv {command} takes one path: of a log's directory or file"
                ));
            };
            return look(path.as_ref(), command == "repair");
        }
        let asked = read(&self.words)?;
        let Asked { config, file, engine, cores } = asked;
        omniring_kv::server::run(config, file, engine, cores).map_err(|error| error.to_string())?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Looks at a log, or repairs it, and prints what is there. The exit code is 1 where something is damaged.
fn look(path: &Path, repairs: bool) -> Result<ExitCode, String> {
    let runtime = omniring::Runtime::new().map_err(|error| error.to_string())?;
    let report = runtime.block_on(log::look(path, repairs))?;
    // Whoever reads it may have seen enough.
    let _ = write!(std::io::stdout(), "{report}");
    Ok(if report.damage.is_some() && !repairs { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reads the file and the options.
fn read(words: &[String]) -> Result<Asked, String> {
    let mut asked =
        Asked { config: Config::default(), file: None, engine: omniring::Engine::Auto, cores: 1 };
    let mut words = words.iter().peekable();
    if let Some(file) = words.next_if(|word| !word.starts_with("--")) {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
        config::read(&mut asked.config, &text).map_err(|why| format!("{file}, {why}"))?;
        asked.file = Some(file.into());
    }
    while let Some(word) = words.next() {
        let name = word.strip_prefix("--");
        let name = name.ok_or(format!("{word:?} is no option: those begin with --"))?;
        let mut values: Vec<&str> = Vec::new();
        while let Some(value) = words.next_if(|word| !word.starts_with("--")) {
            values.push(value);
        }
        let value = values.join(" ");
        let wrong = |why: String| format!("--{name} {value}: {why}");
        match name {
            "engine" => {
                asked.engine = value
                    .parse()
                    .map_err(|error: omniring::UnknownEngine| wrong(error.to_string()))?;
            }
            "cores" => {
                asked.cores = value
                    .parse()
                    .ok()
                    .filter(|&cores| cores > 0)
                    .ok_or_else(|| wrong("a number from 1 on is expected".to_owned()))?;
            }
            _ => {
                let setting = config::find(name).ok_or_else(|| unknown(name))?;
                asked.config.set(setting, &value).map_err(wrong)?;
            }
        }
    }
    Ok(asked)
}

/// What is wrong with a name that is no setting's, with one that is nearly the same.
fn unknown(name: &str) -> String {
    let near =
        SETTINGS.iter().map(|setting| setting.name).min_by_key(|other| distance(name, other));
    match near {
        Some(near) if distance(name, near) <= 3 => {
            format!("--{name}: no such setting; --{near} is one")
        }
        _ => format!("--{name}: no such setting; omniring kv --help lists them"),
    }
}

/// Letters to be changed, added or taken away to make one word of another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, target) in other.iter().enumerate() {
            let above = row[j + 1];
            let replaced = diagonal + usize::from(letter != *target);
            row[j + 1] = replaced.min(above + 1).min(row[j] + 1);
            diagonal = above;
        }
    }
    row[other.len()]
}

fn after_help() -> String {
    let mut text = "Settings, with what they are unless set:\n".to_owned();
    for setting in SETTINGS {
        text += &format!("  --{} {}\n", setting.name, setting.default);
    }
    text
}
