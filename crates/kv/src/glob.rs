//! Patterns of keys and channels: `*`, `?`, `[a-z]`, `[^a]` and `\` before a character that stands for itself.
//!
//! The time is at most the product of both lengths: only the last `*` is ever tried again, since what an
//! earlier one took does not matter to what follows the later one. As in Redis, the text after the
//! thousandth `*` is not looked at: a pattern that needs it matches nothing.

/// Whether `pattern` matches all of `text`.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |byte| byte)
}

/// The same in whatever case.
pub fn matches_ignoring_case(pattern: &[u8], text: &[u8]) -> bool {
    matches_with(pattern, text, |byte| byte.to_ascii_lowercase())
}

/// After so many stars, counting those in a row as one, nothing matches.
const MOST_STARS: usize = 1000;

fn matches_with(pattern: &[u8], text: &[u8], fold: impl Fn(u8) -> u8 + Copy) -> bool {
    let (mut at, mut in_text) = (0, 0);
    // The pattern after the last star, and where in the text it is tried.
    let mut star = None;
    let mut stars = 0;
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                at += pattern[at..].iter().take_while(|&&byte| byte == b'*').count();
                if at == pattern.len() {
                    return true;
                }
                stars += 1;
                if stars > MOST_STARS {
                    return false;
                }
                star = Some((at, in_text));
                continue;
            }
            Some(_) => {
                if let Some(len) = matches_one(&pattern[at..], text[in_text], fold) {
                    at += len;
                    in_text += 1;
                    continue;
                }
            }
            None => {}
        }
        match &mut star {
            Some((after, tried)) => {
                *tried += 1;
                (at, in_text) = (*after, *tried);
            }
            None => return false,
        }
    }
    pattern[at..].iter().all(|&byte| byte == b'*')
}

/// Whether the first element of the pattern, which is no star, matches `byte`: its length if so.
fn matches_one(pattern: &[u8], byte: u8, fold: impl Fn(u8) -> u8 + Copy) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', ..] => {
            let (matched, len) = matches_class(&pattern[1..], byte, fold);
            matched.then_some(len + 1)
        }
        [b'\\', escaped, ..] => (fold(*escaped) == fold(byte)).then_some(2),
        [plain, ..] => (fold(*plain) == fold(byte)).then_some(1),
        [] => None,
    }
}

/// Whether the class, whose opening bracket was before `class`, has `byte`; and its length with the closing
/// one. A class that is not closed goes to the end of the pattern.
fn matches_class(class: &[u8], byte: u8, fold: impl Fn(u8) -> u8 + Copy) -> (bool, usize) {
    let byte = fold(byte);
    let inverted = class.first() == Some(&b'^');
    let mut at = usize::from(inverted);
    let mut matched = false;
    loop {
        match &class[at..] {
            [] => break,
            [b']', ..] => {
                at += 1;
                break;
            }
            [b'\\', escaped, ..] => {
                matched |= fold(*escaped) == byte;
                at += 2;
            }
            [from, b'-', to, ..] => {
                let (from, to) = (fold(*from.min(to)), fold(*from.max(to)));
                matched |= (from..=to).contains(&byte);
                at += 3;
            }
            [plain, ..] => {
                matched |= fold(*plain) == byte;
                at += 1;
            }
        }
    }
    (matched != inverted, at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_redis() {
        for (pattern, text, matched) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abbd", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("h[ae]llo", "hello", true),
            ("h[^e]llo", "hello", false),
            ("h[a-c]llo", "hbllo", true),
            ("h[c-a]llo", "hbllo", true),
            ("[]", "]", false),
            ("[abc", "b", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("[\\]]", "]", true),
            ("a\\", "a\\", true),
            ("*a*b", "xaybzb", true),
            ("**a", "a", true),
            ("[a-]", "^", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), text.as_bytes()), matched, "{pattern} {text}");
        }
        assert!(matches_ignoring_case(b"FOO[A-Z]", b"foob"));
        assert!(!matches(b"FOO", b"foo"));
    }

    #[test]
    fn many_stars_do_not_take_exponential_time() {
        assert!(!matches(&b"a*".repeat(5000), &[b'a'; 4999]));
        assert!(!matches(&[&b"*a".repeat(900)[..], b"b"].concat(), &[b'a'; 5100]));
        assert!(matches(&b"*?".repeat(1000), &[b'a'; 5000]));
        assert!(!matches(&b"*?".repeat(1001), &[b'a'; 5000]));
    }
}
