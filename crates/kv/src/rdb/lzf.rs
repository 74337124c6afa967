//! Strings that Redis has compressed: runs of bytes, and copies of what came before.

use super::source::{Source, Wrong};

const BAD: Wrong = Wrong::Bad("a compressed string is damaged");
/// Bytes that three compressed ones can stand for, at most.
const GROWTH_MAX: u64 = 264;

/// The string of `len` bytes that was compressed to `bytes`.
pub fn decompress(bytes: &[u8], len: u64) -> Result<Vec<u8>, Wrong> {
    if len > bytes.len() as u64 * GROWTH_MAX {
        return Err(BAD);
    }
    let len = len as usize;
    let mut out = Vec::with_capacity(len.min(bytes.len() * 8));
    let mut source = Source::new(bytes);
    while let Ok(control) = source.u8() {
        let control = usize::from(control);
        if control < 32 {
            out.extend_from_slice(source.take(control as u64 + 1).map_err(|_| BAD)?);
        } else {
            let mut count = control >> 5;
            if count == 7 {
                count += usize::from(source.u8().map_err(|_| BAD)?);
            }
            let back = ((control & 31) << 8) + usize::from(source.u8().map_err(|_| BAD)?) + 1;
            let from = out.len().checked_sub(back).ok_or(BAD)?;
            // What is copied may go on into what it is copied to.
            for at in from..from + count + 2 {
                out.push(out[at]);
            }
        }
        if out.len() > len {
            return Err(BAD);
        }
    }
    if out.len() == len { Ok(out) } else { Err(BAD) }
}
