//! Compact encodings: many elements in one string.

use super::source::{Source, Wrong};

/// The elements of a ziplist, integers as text.
pub fn ziplist(bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Wrong> {
    let mut source = Source::new(bytes);
    let whole = Wrong::Bad("a ziplist has another length than it says");
    let (len, _tail, count) = (source.u32(), source.u32(), source.u16());
    let (Ok(len), Ok(count)) = (len, count) else {
        return Err(whole);
    };
    if len as usize != bytes.len() {
        return Err(whole);
    }
    let mut seen = 0u64;
    loop {
        let first = inside(source.u8())?;
        if first == 255 {
            break;
        }
        if first == 254 {
            inside(source.u32())?;
        }
        let code = inside(source.u8())?;
        let number = match code {
            0..0x40 => None,
            0x40..0x80 => None,
            0x80 => None,
            0xc0 => Some(source.i16()),
            0xd0 => Some(source.i32()),
            0xe0 => Some(source.i64()),
            0xf0 => Some(source.i24()),
            0xfe => Some(source.u8().map(|byte| i64::from(byte as i8))),
            0xf1..=0xfd => Some(Ok(i64::from(code & 15) - 1)),
            _ => return Err(Wrong::Bad("a ziplist has an element of no known type")),
        };
        match number {
            Some(number) => each(itoa::Buffer::new().format(inside(number)?).as_bytes()),
            None => {
                let len = match code {
                    0..0x40 => u64::from(code),
                    0x40..0x80 => u64::from(code & 0x3f) << 8 | u64::from(inside(source.u8())?),
                    _ => u64::from(u32::from_be_bytes(inside(source.array())?)),
                };
                each(inside(source.take(len))?);
            }
        }
        seen += 1;
    }
    if !source.rest().is_empty() || (count != u16::MAX && u64::from(count) != seen) {
        return Err(Wrong::Bad("a ziplist has another number of elements than it says"));
    }
    Ok(())
}

/// The elements of a listpack, integers as text.
pub fn listpack(bytes: &[u8], mut each: impl FnMut(&[u8])) -> Result<(), Wrong> {
    let mut source = Source::new(bytes);
    let whole = Wrong::Bad("a listpack has another length than it says");
    let (Ok(len), Ok(count)) = (source.u32(), source.u16()) else {
        return Err(whole);
    };
    if len as usize != bytes.len() {
        return Err(whole);
    }
    let mut seen = 0u64;
    loop {
        let start = source.at();
        let code = inside(source.u8())?;
        let mut string = None;
        let mut number = 0;
        match code {
            255 => break,
            0..0x80 => number = i64::from(code),
            0x80..0xc0 => string = Some(u64::from(code & 0x3f)),
            0xc0..0xe0 => {
                let value = i64::from(code & 0x1f) << 8 | i64::from(inside(source.u8())?);
                number = if value < 1 << 12 { value } else { value - (1 << 13) };
            }
            0xe0..0xf0 => {
                string = Some(u64::from(code & 15) << 8 | u64::from(inside(source.u8())?));
            }
            0xf0 => string = Some(inside(source.u32())?.into()),
            0xf1 => number = inside(source.i16())?,
            0xf2 => number = inside(source.i24())?,
            0xf3 => number = inside(source.i32())?,
            0xf4 => number = inside(source.i64())?,
            _ => return Err(Wrong::Bad("a listpack has an element of no known type")),
        }
        match string {
            Some(len) => each(inside(source.take(len))?),
            None => each(itoa::Buffer::new().format(number).as_bytes()),
        }
        // How long it was, for reading backwards.
        let back = match source.at() - start {
            0..=127 => 1,
            128..16383 => 2,
            16383..2_097_151 => 3,
            2_097_151..268_435_455 => 4,
            _ => 5,
        };
        inside(source.take(back))?;
        seen += 1;
    }
    if !source.rest().is_empty() || (count != u16::MAX && u64::from(count) != seen) {
        return Err(Wrong::Bad("a listpack has another number of elements than it says"));
    }
    Ok(())
}

/// The members of a set of integers.
pub fn intset(bytes: &[u8], mut each: impl FnMut(i64)) -> Result<(), Wrong> {
    let bad = Wrong::Bad("a set of integers is damaged");
    let mut source = Source::new(bytes);
    let (Ok(width), Ok(count)) = (source.u32(), source.u32()) else {
        return Err(bad);
    };
    if u64::from(width) * u64::from(count) != source.rest().len() as u64 {
        return Err(bad);
    }
    let mut last = None;
    for _ in 0..count {
        let number = match width {
            2 => source.i16(),
            4 => source.i32(),
            8 => source.i64(),
            _ => return Err(bad),
        };
        let number = number.map_err(|_| bad.clone())?;
        if last.is_some_and(|last| last >= number) {
            return Err(bad);
        }
        last = Some(number);
        each(number);
    }
    Ok(())
}

/// The end of the bytes is inside of an element: more bytes would not help.
fn inside<T>(result: Result<T, Wrong>) -> Result<T, Wrong> {
    result.map_err(|_| Wrong::Bad("a packed value ends within an element"))
}
