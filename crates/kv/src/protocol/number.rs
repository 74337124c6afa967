//! Numbers as text, by Redis' rules.
//!
//! Integers are strict: one text for each number. Doubles are read as C's `strtod` reads them, less leading
//! spaces, NaN and what is too large or too small, and written as `%.17g` writes them: not the shortest text
//! that reads back the same, but what clients of Redis have always got (`3.2000000000000002`).
//! What adds to a number as text ([`LongDouble`]) calculates in the x87 format of 80 bits, as Redis does on
//! x86: with doubles, 3 + 0.2 would be stored as `3.20000000000000018`.

use std::fmt::Write;
use std::str::FromStr;

use rustc_apfloat::ieee::{Double, X87DoubleExtended};
use rustc_apfloat::{Float, Round};

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

/// The cursor that `text` is: an unsigned 64-bit number, read as leniently as C's `strtoul` reads it, less
/// leading spaces.
pub fn parse_cursor(text: &[u8]) -> Option<u64> {
    let (negative, digits) = match text {
        [b'-', digits @ ..] => (true, digits),
        [b'+', digits @ ..] => (false, digits),
        digits => (false, digits),
    };
    if digits.is_empty() {
        return text.is_empty().then_some(0);
    }
    let mut value: u64 = 0;
    for &digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit - b'0'))?;
    }
    Some(if negative { value.wrapping_neg() } else { value })
}

/// The double that `text` is: decimal or hexadecimal (`0x1.8p3`), with or without exponent; `inf` and
/// `infinity` in any case, with or without sign. Not NaN, no spaces, nothing that is too large for a double,
/// nothing but 0 that would be read as 0.
pub fn parse_f64(text: &[u8]) -> Option<f64> {
    match Form::of(text)? {
        Form::Infinite(negative) => Some(if negative { f64::NEG_INFINITY } else { f64::INFINITY }),
        Form::Decimal { text, zero } => {
            let value: f64 = text.parse().ok()?;
            (value.is_finite() && (value != 0.0 || zero)).then_some(value)
        }
        Form::Hexadecimal { text, zero } => {
            let value = f64::from_bits(Double::from_str(&text).ok()?.to_bits() as u64);
            (value.is_finite() && (value != 0.0 || zero)).then_some(value)
        }
    }
}

/// The text of a double, as replies and stored scores have it: as C's `%.17g`; `inf`, `-inf`.
pub fn write_f64(out: &mut Vec<u8>, value: f64) {
    /// Digits of `%.17g`.
    const DIGITS: i32 = 17;
    if value.is_infinite() {
        return out.extend_from_slice(if value > 0.0 { b"inf" } else { b"-inf" });
    }
    if value.is_nan() {
        return out.extend_from_slice(b"nan");
    }
    if value == value.trunc() && value.abs() < 1e17 && !(value == 0.0 && value.is_sign_negative()) {
        return out.extend_from_slice(itoa::Buffer::new().format(value as i64).as_bytes());
    }
    // d.dddddddddddddddde-dd
    let mut text = Fixed::<32>::default();
    write!(text, "{:.16e}", value.abs()).expect("17 digits and an exponent fit");
    let (digits, exponent) = text.as_str().split_once('e').expect("the format has an exponent");
    let exponent: i32 = exponent.parse().expect("the exponent is a number");
    let mut significant = [0; DIGITS as usize];
    significant[0] = digits.as_bytes()[0];
    significant[1..].copy_from_slice(&digits.as_bytes()[2..]);
    let zeros = significant.iter().rev().take_while(|&&digit| digit == b'0').count();
    let significant = &significant[..significant.len() - zeros.min(DIGITS as usize - 1)];
    if value.is_sign_negative() {
        out.push(b'-');
    }
    if !(-4..DIGITS).contains(&exponent) {
        out.push(significant[0]);
        if significant.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&significant[1..]);
        }
        let sign = if exponent < 0 { '-' } else { '+' };
        let mut text = Fixed::<8>::default();
        write!(text, "e{sign}{:02}", exponent.abs()).expect("an exponent fits");
        out.extend_from_slice(text.as_str().as_bytes());
    } else if exponent < 0 {
        out.extend_from_slice(b"0.");
        out.extend(std::iter::repeat_n(b'0', (-exponent - 1) as usize));
        out.extend_from_slice(significant);
    } else {
        let whole = exponent as usize + 1;
        let given = whole.min(significant.len());
        out.extend_from_slice(&significant[..given]);
        out.extend(std::iter::repeat_n(b'0', whole - given));
        if significant.len() > whole {
            out.push(b'.');
            out.extend_from_slice(&significant[whole..]);
        }
    }
}

/// A number in the x87 format of 80 bits, in which INCRBYFLOAT and HINCRBYFLOAT add. Never NaN.
#[derive(Clone, Copy, Debug)]
pub struct LongDouble(X87DoubleExtended);

impl LongDouble {
    /// The longest text that is taken, in bytes.
    const LONGEST: usize = 5 * 1024;
    /// Bits of the significand, whose first one is not implied.
    const BITS: u32 = 64;
    /// What the exponent has added to it.
    const BIAS: i32 = 16383;

    /// 0.
    pub const ZERO: LongDouble = LongDouble(X87DoubleExtended::ZERO);

    /// The number that `text` is, by the same rules as [`parse_f64`].
    pub fn parse(text: &[u8]) -> Option<LongDouble> {
        if text.len() >= LongDouble::LONGEST {
            return None;
        }
        let (value, zero) = match Form::of(text)? {
            Form::Infinite(negative) => {
                let infinity = X87DoubleExtended::INFINITY;
                return Some(LongDouble(if negative { -infinity } else { infinity }));
            }
            Form::Decimal { text, zero } => (X87DoubleExtended::from_str(text).ok()?, zero),
            Form::Hexadecimal { text, zero } => (X87DoubleExtended::from_str(&text).ok()?, zero),
        };
        (value.is_finite() && (!value.is_zero() || zero)).then_some(LongDouble(value))
    }

    /// An integer, which has the same value here.
    pub fn of(value: i64) -> LongDouble {
        LongDouble(X87DoubleExtended::from_i128(i128::from(value)).value)
    }

    /// The sum, rounded to the nearest, or `None` where it is infinite or no number.
    pub fn checked_add(self, other: LongDouble) -> Option<LongDouble> {
        let sum = self.0.add_r(other.0, Round::NearestTiesToEven).value;
        sum.is_finite().then_some(LongDouble(sum))
    }

    /// The text for people: without exponent, with 17 decimals at most, without zeros at their end.
    pub fn write(self, out: &mut Vec<u8>) {
        const DECIMALS: u32 = 17;
        let bits = self.0.to_bits();
        let significand = bits as u64;
        let exponent = (bits >> LongDouble::BITS) as i32 & 0x7fff;
        // The value is significand * 2^power; a subnormal one is far below the last decimal.
        let power = exponent - LongDouble::BIAS - (LongDouble::BITS as i32 - 1);
        let begin = out.len();
        if self.0.is_negative() {
            out.push(b'-');
        }
        if power >= 0 {
            write_shifted(out, significand, power as u32);
        } else {
            let scale = 10u128.pow(DECIMALS);
            let scaled = round_shift(u128::from(significand) * scale, power.unsigned_abs());
            let mut text = Fixed::<64>::default();
            write!(text, "{}.{:017}", scaled / scale, scaled % scale).expect("two numbers fit");
            let text = text.as_str().trim_end_matches('0').trim_end_matches('.');
            out.extend_from_slice(text.as_bytes());
        }
        if &out[begin..] == b"-0" {
            out.remove(begin);
        }
    }
}

/// What a text is that may be a number.
enum Form<'a> {
    /// An infinity; whether it is negative.
    Infinite(bool),
    /// A decimal number, and whether all its digits are 0.
    Decimal { text: &'a str, zero: bool },
    /// A hexadecimal one, with an exponent.
    Hexadecimal { text: String, zero: bool },
}

impl Form<'_> {
    /// `None` where it is no number.
    fn of(text: &[u8]) -> Option<Form<'_>> {
        let text = std::str::from_utf8(text).ok()?;
        let (negative, rest) = match text.as_bytes() {
            [b'-', ..] => (true, &text[1..]),
            [b'+', ..] => (false, &text[1..]),
            _ => (false, text),
        };
        if rest.eq_ignore_ascii_case("inf") || rest.eq_ignore_ascii_case("infinity") {
            return Some(Form::Infinite(negative));
        }
        if let Some(digits) = rest.strip_prefix("0x").or_else(|| rest.strip_prefix("0X")) {
            let (zero, exponent) = number(digits, |byte| byte.is_ascii_hexdigit(), b'p')?;
            let exponent = if exponent { "" } else { "p0" };
            let sign = if negative { "-" } else { "" };
            return Some(Form::Hexadecimal { text: format!("{sign}0x{digits}{exponent}"), zero });
        }
        let (zero, _) = number(rest, |byte| byte.is_ascii_digit(), b'e')?;
        Some(Form::Decimal { text, zero })
    }
}

/// Whether the number without its sign has only zeros as digits, and whether it has an exponent after `mark`.
/// `None` where it is no number.
fn number(text: &str, is_digit: impl Fn(u8) -> bool, mark: u8) -> Option<(bool, bool)> {
    let text = text.as_bytes();
    let end = text.iter().position(|byte| byte.eq_ignore_ascii_case(&mark)).unwrap_or(text.len());
    let (digits, exponent) = (&text[..end], text.get(end + 1..));
    if digits.iter().filter(|&&byte| byte == b'.').count() > 1
        || !digits.iter().any(|&byte| is_digit(byte))
        || !digits.iter().all(|&byte| byte == b'.' || is_digit(byte))
    {
        return None;
    }
    if let Some(exponent) = exponent {
        let digits = match exponent {
            [b'-' | b'+', digits @ ..] => digits,
            digits => digits,
        };
        if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
    }
    let zero = digits.iter().all(|&byte| byte == b'.' || byte == b'0');
    Some((zero, exponent.is_some()))
}

/// `value` / 2^`shift`, to the nearest, to the even one where there are two.
fn round_shift(value: u128, shift: u32) -> u128 {
    if shift >= u128::BITS {
        return 0;
    }
    let (quotient, rest) = (value >> shift, value & ((1 << shift) - 1));
    let half = 1 << (shift - 1);
    quotient + u128::from(rest > half || (rest == half && quotient & 1 == 1))
}

/// Writes `value` * 2^`shift`, which may have thousands of digits.
fn write_shifted(out: &mut Vec<u8>, value: u64, mut shift: u32) {
    /// Decimal digits of a limb.
    const LIMB: u64 = 1_000_000_000;
    let mut limbs = Vec::new();
    let mut carry = value;
    while carry != 0 {
        limbs.push(carry % LIMB);
        carry /= LIMB;
    }
    while shift != 0 {
        let step = shift.min(32);
        shift -= step;
        for limb in &mut limbs {
            let shifted = (*limb << step) + carry;
            *limb = shifted % LIMB;
            carry = shifted / LIMB;
        }
        while carry != 0 {
            limbs.push(carry % LIMB);
            carry /= LIMB;
        }
    }
    let mut text = String::new();
    match limbs.split_last() {
        None => text.push('0'),
        Some((last, rest)) => {
            let _ = write!(text, "{last}");
            for limb in rest.iter().rev() {
                let _ = write!(text, "{limb:09}");
            }
        }
    }
    out.extend_from_slice(text.as_bytes());
}

/// Text of at most `N` bytes, without memory from the heap.
struct Fixed<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Default for Fixed<N> {
    fn default() -> Fixed<N> {
        Fixed { bytes: [0; N], len: 0 }
    }
}

impl<const N: usize> Fixed<N> {
    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).expect("only whole texts are written")
    }
}

impl<const N: usize> Write for Fixed<N> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        let room = self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: f64) -> String {
        let mut out = Vec::new();
        write_f64(&mut out, value);
        String::from_utf8(out).unwrap()
    }

    fn sum(a: &str, b: &str) -> Option<String> {
        let sum = LongDouble::parse(a.as_bytes())?.checked_add(LongDouble::parse(b.as_bytes())?)?;
        let mut out = Vec::new();
        sum.write(&mut out);
        Some(String::from_utf8(out).unwrap())
    }

    #[test]
    fn integers_have_one_text() {
        for good in ["0", "-1", "9223372036854775807", "-9223372036854775808", "10"] {
            assert_eq!(parse_i64(good.as_bytes()), Some(good.parse().unwrap()), "{good}");
        }
        for bad in ["", "-", "-0", "+1", "01", " 1", "1 ", "9223372036854775808", "1a", "0x1"] {
            assert_eq!(parse_i64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn cursors_are_read_as_strtoul_does() {
        for (good, value) in [("", 0), ("007", 7), ("+5", 5), ("18446744073709551615", u64::MAX)] {
            assert_eq!(parse_cursor(good.as_bytes()), Some(value), "{good}");
        }
        for bad in ["18446744073709551616", "x", "1x", " 1", "+"] {
            assert_eq!(parse_cursor(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn doubles_are_written_with_17_digits() {
        for (value, written) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (3.2, "3.2000000000000002"),
            (0.1, "0.10000000000000001"),
            (1e16, "10000000000000000"),
            (1e17, "1e+17"),
            (-1.5e300, "-1.5000000000000001e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1.0000000000000001e-05"),
            (123456.75, "123456.75"),
            (f64::MAX, "1.7976931348623157e+308"),
            (5e-324, "4.9406564584124654e-324"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(text(value), written);
        }
    }

    #[test]
    fn doubles_are_read_as_strtod_does() {
        for (good, value) in [
            ("1", 1.0),
            ("+.5", 0.5),
            ("5.", 5.0),
            ("-1e3", -1000.0),
            ("0x10", 16.0),
            ("-0x1.8p1", -3.0),
            ("iNf", f64::INFINITY),
            ("-Infinity", f64::NEG_INFINITY),
            ("0e-999", 0.0),
        ] {
            assert_eq!(parse_f64(good.as_bytes()), Some(value), "{good}");
        }
        for bad in
            ["", " 1", "1 ", "nan", "1e", "1e+", ".", "e5", "1e400", "1e-400", "0x", "1.2.3", "1_0"]
        {
            assert_eq!(parse_f64(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn long_doubles_add_as_the_x87_does() {
        for (a, b, written) in [
            ("3", "0.2", "3.2"),
            ("1.5", "1.5", "3"),
            ("1", "-1.1", "-0.1"),
            ("17179869184", "17179869184", "34359738368"),
            ("0.1", "0.2", "0.3"),
            ("1e20", "1", "100000000000000000000"),
            ("-1", "1", "0"),
            ("-1e-30", "0", "0"),
            ("18446744073709551616", "1.5", "18446744073709551618"),
        ] {
            assert_eq!(sum(a, b).as_deref(), Some(written), "{a} + {b}");
        }
        assert_eq!(sum("inf", "1"), None);
        assert_eq!(sum("1e5000", "1"), None);
        assert_eq!(sum("1e300", "0").map(|text| text.len()), Some(301));
    }
}
