//! Append-only files of Redis: a directory with a manifest, as since version 7, or a single file.

use std::path::{Path, PathBuf};

use omniring::fs;

use super::file::{Failure, Import, Window, import_from};
use super::source::{Source, Wrong};
use crate::protocol::{OwnedArgs, parse_u64};
use crate::store::DBS;

/// The files to be read one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppendOnly {
    /// Their paths.
    pub files: Vec<PathBuf>,
}

/// Finds an append-only file by its name, `appendfilename`, in the directory `dirname` (`appenddirname`) or beside
/// it. `None` where there is none.
///
/// # Errors
/// Where there is a manifest that means nothing or cannot be read.
pub async fn find_append_only(
    dir: &Path,
    dirname: &str,
    name: &str,
) -> Result<Option<AppendOnly>, Failure> {
    let folder = dir.join(dirname);
    let manifest = folder.join(format!("{name}.manifest"));
    let text = match fs::read(&manifest).await {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let single = dir.join(name);
            let found = fs::metadata(&single).await.is_ok();
            return Ok(found.then(|| AppendOnly { files: vec![single] }));
        }
        Err(error) => return Err(Failure::Disk { path: manifest, error }),
    };
    let mut files = Vec::new();
    let mut offset = 0u64;
    for line in text.split_inclusive(|&byte| byte == b'\n') {
        let start = offset;
        let wrong = |why: &str| Failure::Wrong {
            path: manifest.clone(),
            offset: start,
            why: why.to_owned(),
        };
        let Ok(words) = std::str::from_utf8(line) else {
            return Err(wrong("it is no text"));
        };
        offset += line.len() as u64;
        let words: Vec<&str> = words.split_whitespace().collect();
        if words.is_empty() || words[0].starts_with('#') {
            continue;
        }
        let of = |key: &str| {
            let at = words.iter().step_by(2).position(|word| *word == key)?;
            words.get(at * 2 + 1).copied()
        };
        let (Some(file), Some(kind)) = (of("file"), of("type")) else {
            return Err(wrong("a line names no file or no type"));
        };
        if file.contains('/') || file.contains('"') {
            return Err(wrong("the name of a file has a slash or a quote"));
        }
        match kind {
            "b" | "i" => files.push(folder.join(file)),
            "h" => {}
            _ => return Err(wrong("a file is of no known type")),
        }
    }
    Ok(Some(AppendOnly { files }))
}

/// Imports an append-only file. Gives the number of keys of its dump and of its commands, and what somebody should
/// know of, such as where a torn end was left out.
///
/// # Errors
/// Where something cannot be read, is damaged before the end, or is refused: what came before has been given then.
pub async fn import_append_only(
    from: &AppendOnly,
    to: &mut impl Import,
) -> Result<(u64, u64, Vec<String>), Failure> {
    let (mut keys, mut commands, mut notices) = (0, 0, Vec::new());
    let mut reader = Reader::default();
    for (index, path) in from.files.iter().enumerate() {
        let mut window = Window::open(path).await?;
        while window.rest().len() < 5 && window.more().await? {}
        if window.rest().starts_with(b"REDIS") {
            let (count, told) = import_from(&mut window, to).await?;
            keys += count;
            notices.extend(told);
        }
        reader.db = 0;
        loop {
            let offset = window.offset();
            let words = match window.parse(command).await? {
                Ok(words) => words,
                Err(Wrong::Incomplete) => {
                    if window.rest().is_empty() && reader.queued.is_none() {
                        break;
                    }
                    if index + 1 != from.files.len() {
                        return Err(window.wrong("it ends within a command or a transaction"));
                    }
                    let path = path.display();
                    let what =
                        if reader.queued.take().is_some() { "transaction" } else { "command" };
                    notices.push(format!(
                        "'{path}' at byte {offset}: the last {what} was not completed and is left out"
                    ));
                    break;
                }
                Err(wrong) => return Err(window.wrong(wrong.to_string())),
            };
            // A comment.
            let Some(words) = words else {
                continue;
            };
            reader.take(words, to, &mut commands).map_err(|why| Failure::Wrong {
                path: path.clone(),
                offset,
                why,
            })?;
        }
    }
    Ok((keys, commands, notices))
}

#[derive(Default)]
struct Reader {
    db: usize,
    /// The commands of a transaction that has not ended.
    queued: Option<Vec<(usize, OwnedArgs)>>,
}

impl Reader {
    fn take(
        &mut self,
        words: OwnedArgs,
        to: &mut impl Import,
        done: &mut u64,
    ) -> Result<(), String> {
        let args = words.args();
        if args.is(0, "multi") {
            self.queued = Some(Vec::new());
            return Ok(());
        }
        if args.is(0, "exec") {
            for (db, words) in self.queued.take().ok_or("EXEC without MULTI")? {
                carry_out(db, &words, to, done)?;
            }
            return Ok(());
        }
        if args.is(0, "select") {
            let db = args.get(1).and_then(parse_u64).filter(|&db| db < DBS as u64);
            self.db =
                db.ok_or_else(|| format!("there is no such database; there are {DBS}"))? as usize;
            return Ok(());
        }
        match &mut self.queued {
            Some(queued) => queued.push((self.db, words)),
            None => carry_out(self.db, &words, to, done)?,
        }
        Ok(())
    }
}

fn carry_out(
    db: usize,
    words: &OwnedArgs,
    to: &mut impl Import,
    done: &mut u64,
) -> Result<(), String> {
    *done += 1;
    to.command(db, words.args()).map_err(|error| {
        let name = words.args()[0].escape_ascii().to_string();
        format!("'{name}' is refused: {error}")
    })
}

/// Takes a command. `None` is a line that is no command, but tells a time.
fn command(source: &mut Source<'_>) -> Result<Option<OwnedArgs>, Wrong> {
    if source.rest().first() == Some(&b'#') {
        line(source)?;
        return Ok(None);
    }
    let count = number(source, b'*')?;
    let mut words = OwnedArgs::default();
    for _ in 0..count {
        let len = number(source, b'$')?;
        words.push(source.take(len)?);
        if source.array()? != *b"\r\n" {
            return Err(Wrong::Bad("a word is longer than it says"));
        }
    }
    if count == 0 {
        return Err(Wrong::Bad("a command has no words"));
    }
    Ok(Some(words))
}

fn number(source: &mut Source<'_>, mark: u8) -> Result<u64, Wrong> {
    if source.u8()? != mark {
        return Err(Wrong::Bad("what is there is no command"));
    }
    parse_u64(line(source)?).ok_or(Wrong::Bad("a length is no number"))
}

/// Takes a line, which is short.
fn line<'a>(source: &mut Source<'a>) -> Result<&'a [u8], Wrong> {
    const LEN_MAX: usize = 64 * 1024;
    let rest = source.rest();
    match rest.windows(2).take(LEN_MAX).position(|pair| pair == b"\r\n") {
        Some(end) => {
            let line = &rest[..end];
            source.take(end as u64 + 2)?;
            Ok(line)
        }
        None if rest.len() > LEN_MAX => Err(Wrong::Bad("a line does not end")),
        None => Err(Wrong::Incomplete),
    }
}
