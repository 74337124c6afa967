//! What several families of commands need.

use crate::config::Config;
use crate::error::Error;
use crate::protocol::{Args, Reply, parse_i64};
use crate::store::{DBS, Expiry, Keys, StrRef, Value};
use std::sync::Arc;

/// The integer that a word is.
pub fn integer(word: &[u8]) -> Result<i64, Error> {
    parse_i64(word).ok_or(Error::NOT_AN_INTEGER)
}

/// The number of a database that a word is, or the error for what is no number.
pub fn database(word: &[u8], no_number: Error) -> Result<usize, Error> {
    let number = parse_i64(word).filter(|&number| i32::try_from(number).is_ok());
    let number = usize::try_from(number.ok_or(no_number)?).ok();
    number.filter(|&number| number < DBS).ok_or(Error::new("ERR DB index is out of range"))
}

/// The error for a time of expiry that is not positive or too large, of the command whose words these are.
pub fn expire_time(args: Args<'_>) -> Error {
    let name = String::from_utf8_lossy(&args[0]).to_lowercase();
    Error::of(format!("ERR invalid expire time in '{name}' command"))
}

/// Replies a string.
#[inline]
pub fn bulk_str(reply: &mut Reply, string: StrRef<'_>) {
    match string {
        StrRef::Int(value) => reply.bulk_int(value),
        StrRef::Bytes(bytes) => reply.bulk(bytes),
        StrRef::Shared(bytes) => reply.bulk_shared(bytes),
    }
}

/// Sets a key to the word at `value`, whose memory is shared where it has its own, with a time of expiry or none.
pub fn insert_word(
    keys: &mut Keys,
    key: &[u8],
    args: Args<'_>,
    value: usize,
    expires_ms: Option<u64>,
) {
    match args.shared(value) {
        Some(shared) => keys.insert(key, Value::Str(shared.clone()), expires_ms),
        None => keys.put_string(key, &args[value], Expiry::Set(expires_ms)),
    }
}

/// Checks that a string of `len` bytes may get `more`.
pub fn string_fits(config: &Config, len: u64, more: usize) -> Result<(), Error> {
    match len.checked_add(more as u64) {
        Some(len) if len <= config.proto_max_bulk_len => Ok(()),
        _ => Err(Error::new("ERR string exceeds maximum allowed size (proto-max-bulk-len)")),
    }
}

/// The string at a key, to be changed in place: one of zeros where there was none, and with zeros at its end
/// where it was shorter than `len`.
pub fn string_or_zero<'a>(
    keys: &'a mut Keys,
    key: &[u8],
    len: usize,
) -> Result<&'a mut Vec<u8>, Error> {
    if !keys.contains(key) {
        keys.insert_keeping_expiry(key, Value::Str(Arc::new(vec![0; len])));
    }
    let string = keys.string_mut(key)?.expect("the key is there now");
    if string.len() < len {
        string.resize(len, 0);
    }
    Ok(string)
}

/// Replies the text of a command's HELP: `lines` after its first line and before its last two.
pub fn help(reply: &mut Reply, command: &str, lines: &[&str]) {
    reply.array(lines.len() + 3);
    let command = command.to_uppercase();
    reply.simple(&format!("{command} <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"));
    lines.iter().for_each(|line| reply.simple(line));
    reply.simple("HELP");
    reply.simple("    Prints this help.");
}
