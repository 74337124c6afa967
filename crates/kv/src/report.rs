//! What the server says: a line for each event, to standard error or to the file of `logfile`.
//!
//! A line is in logfmt: `time=2026-11-26T08:15:00.123Z level=notice core=0 msg="..." key=value ...`. Values with
//! spaces, quotes or control characters are in quotes, escaped, so that an event is always one line. Nothing is said
//! before [`begin`], and nothing secret ever: no passwords, keys or values.

use std::fmt::{Display, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::str::FromStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::clock;
use crate::server::Core;

/// How important an event is, as `loglevel` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Of use to who works on the server.
    Debug,
    /// Of single clients.
    Verbose,
    /// What who runs the server may want to know.
    Notice,
    /// What they ought to know.
    Warning,
}

impl Level {
    fn name(self) -> &'static str {
        match self {
            Level::Debug => "debug",
            Level::Verbose => "verbose",
            Level::Notice => "notice",
            Level::Warning => "warning",
        }
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Level, String> {
        let levels = [Level::Debug, Level::Verbose, Level::Notice, Level::Warning];
        let found = levels.into_iter().find(|level| level.name() == text);
        found.ok_or("argument must be debug, verbose, notice or warning".to_owned())
    }
}

/// Where lines go.
enum Output {
    Nowhere,
    Stderr,
    File(File),
}

static OUTPUT: Mutex<Output> = Mutex::new(Output::Nowhere);

/// The least important level that is said.
static LEAST: AtomicU8 = AtomicU8::new(Level::Notice as u8);

/// Begins to say what happens: to a file, at whose end lines are added, or to standard error.
pub fn begin(level: Level, file: &Path) -> io::Result<()> {
    let output = if file.as_os_str().is_empty() {
        Output::Stderr
    } else {
        Output::File(OpenOptions::new().create(true).append(true).open(file)?)
    };
    *OUTPUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = output;
    set_level(level);
    Ok(())
}

/// Says nothing below this level from now on.
pub fn set_level(level: Level) {
    LEAST.store(level as u8, Ordering::Relaxed);
}

/// Says what may be of use to who works on the server.
pub fn debug(message: &str, fields: &[(&str, &dyn Display)]) {
    say(Level::Debug, message, fields);
}

/// Says something of a single client.
pub fn verbose(message: &str, fields: &[(&str, &dyn Display)]) {
    say(Level::Verbose, message, fields);
}

/// Says what who runs the server may want to know.
pub fn notice(message: &str, fields: &[(&str, &dyn Display)]) {
    say(Level::Notice, message, fields);
}

/// Says what who runs the server ought to know.
pub fn warning(message: &str, fields: &[(&str, &dyn Display)]) {
    say(Level::Warning, message, fields);
}

fn say(level: Level, message: &str, fields: &[(&str, &dyn Display)]) {
    if (level as u8) < LEAST.load(Ordering::Relaxed) {
        return;
    }
    let mut output = OUTPUT.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if matches!(*output, Output::Nowhere) {
        return;
    }
    let core = Core::current().map(|core| core.index);
    let line = line(clock::now_ms(), level, core, message, fields);
    // There is nobody to tell that nobody can be told.
    let _ = match &mut *output {
        Output::Nowhere => Ok(()),
        Output::Stderr => io::stderr().write_all(line.as_bytes()),
        Output::File(file) => file.write_all(line.as_bytes()),
    };
}

fn line(
    now_ms: u64,
    level: Level,
    core: Option<usize>,
    message: &str,
    fields: &[(&str, &dyn Display)],
) -> String {
    let mut line = format!("time={} level={}", utc(now_ms), level.name());
    if let Some(core) = core {
        add(&mut line, "core", &core);
    }
    add(&mut line, "msg", &message);
    for (name, value) in fields {
        add(&mut line, name, value);
    }
    line.push('\n');
    line
}

fn add(line: &mut String, name: &str, value: &dyn Display) {
    let value = value.to_string();
    let is_plain = |letter: char| letter.is_ascii_graphic() && !matches!(letter, '"' | '=' | '\\');
    let written = if !value.is_empty() && value.chars().all(is_plain) {
        write!(line, " {name}={value}")
    } else {
        write!(line, " {name}={value:?}")
    };
    written.expect("a string takes what is written");
}

/// A time in milliseconds since 1970 as RFC 3339 has it, in UTC.
fn utc(ms: u64) -> String {
    let (days, of_day) = (ms / 86_400_000, ms % 86_400_000);
    // Years are taken to begin in March, so that the leap day is their last: 400 of them have 146,097 days.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute) = (of_day / 3_600_000, of_day / 60_000 % 60);
    let (second, ms) = (of_day / 1000 % 60, of_day % 1000);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{ms:03}Z")
}

#[cfg(test)]
mod tests {
    use super::{Level, line, utc};

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (4_107_542_399_001, "2100-02-28T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(utc(ms), text);
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let fields: [(&str, &dyn std::fmt::Display); 3] =
            [("file", &"a b\nc=\"d\""), ("keys", &3), ("none", &"")];
        assert_eq!(
            line(0, Level::Warning, Some(1), "two words", &fields),
            "time=1970-01-01T00:00:00.000Z level=warning core=1 msg=\"two words\" \
             file=\"a b\\nc=\\\"d\\\"\" keys=3 none=\"\"\n"
        );
    }
}
