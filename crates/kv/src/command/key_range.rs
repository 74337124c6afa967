//! KEYRANGE, which Redis does not have: the keys between two bounds, in the order of their bytes.
//!
//! Its words are those of `ZRANGE ... BYLEX`: `KEYRANGE min max [LIMIT offset count]`, or
//! `KEYRANGE max min REV [LIMIT offset count]`. A bound is `[key` with the key, `(key` without it, `-` before all keys
//! or `+` after all.

use super::support::integer;
use super::zsets::lex_bound;
use super::{Answer, Call, DONE, Spec};
use crate::error::Error;
use crate::protocol::Args;

#[cfg(test)]
mod tests;

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[Spec::data("keyrange", -3, keyrange).reads().all_keys(None).doc(
    "generic",
    "7.0.15",
    "O(log(N)+M) where N is the number of keys in the database and M that of keys passed over and returned",
    "Get the keys between two bounds, in order; an extension, with ordered-keys yes",
)];

fn keyrange(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let (mut backwards, mut offset, mut limit) = (false, 0, -1);
    let mut option = 3;
    while option < args.len() {
        if args.is(option, "rev") {
            backwards = true;
        } else if args.is(option, "limit") && option + 2 < args.len() {
            offset = integer(&args[option + 1])?;
            limit = integer(&args[option + 2])?;
            option += 2;
        } else {
            return Err(Error::SYNTAX);
        }
        option += 1;
    }
    let (min, max) = if backwards { (2, 1) } else { (1, 2) };
    let (min, max) = (lex_bound(&args[min])?, lex_bound(&args[max])?);
    if !call.keys.is_ordered() {
        return Err(Error::new(
            "ERR KEYRANGE needs keys in order, which this server does not keep: start it with ordered-keys yes",
        ));
    }
    call.keys.reads_all();
    let begin = call.reply.begin();
    let mut count = 0;
    if offset >= 0 && limit != 0 {
        let reply = &mut *call.reply;
        call.keys.range(min, max, backwards, |key| {
            if offset > 0 {
                offset -= 1;
                return true;
            }
            reply.bulk(key);
            count += 1;
            // A negative limit is none.
            limit < 0 || (count as i64) < limit
        });
    }
    call.reply.end_array(begin, count);
    DONE
}
