//! Numbers as text, by Redis' rules.

/// The signed 64-bit number that `text` is, strictly: no spaces, no plus, no leading zeros, no `-0`.
pub fn parse_i64(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if digits.is_empty() || digits.len() > 19 || (digits[0] == b'0' && text.len() > 1) {
        return None;
    }
    let mut value: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(digit - b'0');
    }
    match negative {
        true if value <= 1 << 63 => Some((value as i64).wrapping_neg()),
        false => i64::try_from(value).ok(),
        true => None,
    }
}

/// The unsigned 64-bit number that `text` is, as strictly.
pub fn parse_u64(text: &[u8]) -> Option<u64> {
    if text.is_empty()
        || (text[0] == b'0' && text.len() > 1)
        || !text.iter().all(u8::is_ascii_digit)
    {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The double that `text` is: decimal, with or without exponent, hexadecimal is not taken; `inf`, `+inf`,
/// `-inf` and `infinity` in any case. Never NaN; no spaces.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    let value: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (!value.is_nan()).then_some(value)
}

/// The text of a double, as replies and stored values have it: whole numbers without a point, else 17
/// significant digits at most, the shortest that reads back the same; `inf`, `-inf`.
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    if value.is_infinite() {
        out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    } else if value == value.trunc() && value.abs() < 1e15 {
        if value == 0.0 && value.is_sign_negative() {
            out.extend_from_slice(b"-0");
        } else {
            out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
        }
    } else {
        out.extend_from_slice(ryu::Buffer::new().format_finite(value).as_bytes());
    }
}
