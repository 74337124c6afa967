//! Words that are shown to nobody: passwords.

use super::Command;
use crate::config;
use crate::protocol::Args;

/// Whether a word of a command is not to be shown in the slow log or by `MONITOR`.
pub fn is_secret(command: &Command, args: Args<'_>, index: usize) -> bool {
    let follows = |option: &str, words: usize, first: usize| {
        (first..index).any(|at| index - at <= words && args.is(at, option))
    };
    match command.full_name.as_str() {
        "auth" => index >= 1,
        "hello" => follows("auth", 2, 2),
        "acl" => index >= 2,
        "migrate" => follows("auth", 1, 6) || follows("auth2", 2, 6),
        "config|set" if index >= 3 && index % 2 == 1 => args
            .get(index - 1)
            .and_then(|name| config::find(&String::from_utf8_lossy(name)))
            .is_some_and(|setting| setting.is_secret),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_secret;
    use crate::command::lookup;
    use crate::protocol::OwnedArgs;

    #[test]
    fn passwords_are_secret_and_nothing_else_is() {
        for (words, secret) in [
            ("AUTH a", vec![1]),
            ("AUTH a b", vec![1, 2]),
            ("HELLO 3 AUTH a b SETNAME c", vec![3, 4]),
            ("CONFIG SET maxmemory 1 requirepass a", vec![5]),
            ("MIGRATE host 1 key 0 9 AUTH a", vec![7]),
            ("MIGRATE host 1 auth 0 9 AUTH2 a b KEYS c", vec![7, 8]),
            ("SET auth b", vec![]),
        ] {
            let args = OwnedArgs::of(words.split(' '));
            let args = args.args();
            let command = lookup(args).expect("there is such a command");
            let found: Vec<usize> =
                (0..args.len()).filter(|&index| is_secret(command, args, index)).collect();
            assert_eq!(found, secret, "{words}");
        }
    }
}
