//! The text protocol of beanstalkd, as far as it goes here: bytes to commands. It knows no sockets.
//! (`doc/protocol.txt` of beanstalkd is the reference.)

use std::time::Duration;

/// Bytes of a line with its end.
const LINE_LEN_MAX: usize = 224;
/// Bytes of a tube's name.
const NAME_LEN_MAX: usize = 200;

/// What a client asks for.
#[derive(Debug, PartialEq)]
pub enum Command {
    Put { priority: u32, delay: Duration, ttr: Duration, body: Vec<u8> },
    Use(String),
    Reserve { timeout: Option<Duration> },
    Delete(u64),
    Release { id: u64, priority: u32, delay: Duration },
    Touch(u64),
    Watch(String),
    Ignore(String),
    Stats,
    StatsTube(String),
    ListTubes,
    ListTubeUsed,
    ListTubesWatched,
    Quit,
}

/// A command that is none; the text is the answer.
#[derive(Debug, PartialEq)]
pub struct Refused(pub &'static str);

const BAD_FORMAT: Refused = Refused("BAD_FORMAT");

/// What the bytes so far begin with.
#[derive(Debug, PartialEq)]
pub enum Parsed {
    /// Not all of a command is there.
    Incomplete,
    /// A command, or something else, of so many bytes; with `skip` more to come that belong to it.
    Complete { command: Result<Command, Refused>, len: usize, skip: usize },
}

/// Takes the first command out of these bytes.
pub fn parse(bytes: &[u8], job_len_max: usize) -> Parsed {
    let refused = |refused, len| Parsed::Complete { command: Err(refused), len, skip: 0 };
    let Some(line_end) = bytes.windows(2).position(|two| two == b"\r\n") else {
        return match bytes.len() < LINE_LEN_MAX {
            true => Parsed::Incomplete,
            // All but what may be half of the line's end.
            false => refused(BAD_FORMAT, bytes.len() - 1),
        };
    };
    let line_len = line_end + 2;
    if line_len > LINE_LEN_MAX {
        return refused(BAD_FORMAT, line_len);
    }
    let Ok(line) = std::str::from_utf8(&bytes[..line_end]) else {
        return refused(BAD_FORMAT, line_len);
    };
    let words: Vec<&str> = line.split(' ').collect();
    let [&"put", priority, delay, ttr, body_len] = words.iter().collect::<Vec<_>>()[..] else {
        return Parsed::Complete { command: parse_line(&words), len: line_len, skip: 0 };
    };
    let numbers = (number(priority), seconds(delay), seconds(ttr), number::<usize>(body_len));
    let (Ok(priority), Ok(delay), Ok(ttr), Ok(body_len)) = numbers else {
        return refused(BAD_FORMAT, line_len);
    };
    if body_len > job_len_max {
        let skip = body_len.saturating_add(2);
        return Parsed::Complete { command: Err(Refused("JOB_TOO_BIG")), len: line_len, skip };
    }
    let Some(rest) = bytes[line_len..].get(..body_len + 2) else { return Parsed::Incomplete };
    let (body, end) = rest.split_at(body_len);
    let command = match end {
        // One second is the least, as in beanstalkd.
        b"\r\n" => {
            let ttr = ttr.max(Duration::from_secs(1));
            Ok(Command::Put { priority, delay, ttr, body: body.to_vec() })
        }
        _ => Err(Refused("EXPECTED_CRLF")),
    };
    Parsed::Complete { command, len: line_len + body_len + 2, skip: 0 }
}

fn parse_line(words: &[&str]) -> Result<Command, Refused> {
    Ok(match *words {
        ["use", tube] => Command::Use(name(tube)?),
        ["reserve"] => Command::Reserve { timeout: None },
        ["reserve-with-timeout", time] => Command::Reserve { timeout: Some(seconds(time)?) },
        ["delete", id] => Command::Delete(number(id)?),
        ["release", id, priority, delay] => Command::Release {
            id: number(id)?,
            priority: number(priority)?,
            delay: seconds(delay)?,
        },
        ["touch", id] => Command::Touch(number(id)?),
        ["watch", tube] => Command::Watch(name(tube)?),
        ["ignore", tube] => Command::Ignore(name(tube)?),
        ["stats"] => Command::Stats,
        ["stats-tube", tube] => Command::StatsTube(name(tube)?),
        ["list-tubes"] => Command::ListTubes,
        ["list-tube-used"] => Command::ListTubeUsed,
        ["list-tubes-watched"] => Command::ListTubesWatched,
        ["quit"] => Command::Quit,
        [
            "put"
            | "use"
            | "reserve"
            | "reserve-with-timeout"
            | "delete"
            | "release"
            | "touch"
            | "watch"
            | "ignore"
            | "stats"
            | "stats-tube"
            | "list-tubes"
            | "list-tube-used"
            | "list-tubes-watched"
            | "quit",
            ..,
        ] => return Err(BAD_FORMAT),
        _ => return Err(Refused("UNKNOWN_COMMAND")),
    })
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, Refused> {
    // What Rust would take beyond digits is a sign.
    match word.starts_with('+') {
        true => Err(BAD_FORMAT),
        false => word.parse().map_err(|_| BAD_FORMAT),
    }
}

fn seconds(word: &str) -> Result<Duration, Refused> {
    number::<u32>(word).map(|seconds| Duration::from_secs(seconds.into()))
}

fn name(word: &str) -> Result<String, Refused> {
    let is_good = |byte: u8| byte.is_ascii_alphanumeric() || b"-+/;.$_()".contains(&byte);
    let fits = (1..=NAME_LEN_MAX).contains(&word.len()) && !word.starts_with('-');
    match fits && word.bytes().all(is_good) {
        true => Ok(word.to_owned()),
        false => Err(BAD_FORMAT),
    }
}
