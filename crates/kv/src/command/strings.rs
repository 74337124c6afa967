//! Strings.

use super::{Answer, Call, DONE, Spec};
use crate::protocol::Args;
use crate::store::{EventClass, StrRef};

/// The rows of the table.
pub const COMMANDS: &[Spec] = &[
    Spec::data("get", 2, get).reads().fast().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Get the value of a key",
    ),
    Spec::data("set", -3, set).writes().key(1).doc(
        "string",
        "1.0.0",
        "O(1)",
        "Set the string value of a key",
    ),
];

fn get(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    match call.keys.string(&args[1])? {
        Some(StrRef::Int(value)) => call.reply.bulk_int(value),
        Some(StrRef::Bytes(bytes)) => call.reply.bulk(bytes),
        Some(StrRef::Shared(bytes)) => call.reply.bulk_shared(bytes),
        None => call.reply.null(),
    }
    DONE
}

fn set(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    call.keys.insert_string(&args[1], &args[2]);
    call.keys.changed(&args[1], EventClass::STRING, "set");
    call.reply.ok();
    DONE
}
