//! The format of a HyperLogLog, as Redis keeps it in a string.
//!
//! 16384 registers, of which an element raises the one that 14 bits of its hash name to the number of zeros
//! that follow, plus one. A header of 16 bytes: `HYLL`, the encoding (0 dense, 1 sparse), 3 bytes unused, the
//! last count in little endian, whose highest bit says that it is out of date. Then
//! - dense: registers of 6 bits each, from the lowest bit of the first byte on;
//! - sparse: runs of registers: `00xxxxxx` of x+1 zeros, `01xxxxxx xxxxxxxx` of x+1 zeros, and `1vvvvvxx` of x+1
//!   registers that are v+1. It becomes dense once a register is above 32 or it has got too long.
//!
//! Nothing here trusts the bytes beyond what [`is_one`] checks: clients may write what they like.

/// How many registers there are.
pub const REGISTERS: usize = 1 << BITS;

/// Bits of the hash that name the register.
const BITS: u32 = 14;
/// Bits that are left: a register is at most one more.
const REST: u32 = 64 - BITS;
/// Bytes of the header.
const HEADER: usize = 16;
/// Bytes of a dense one.
const DENSE_LEN: usize = HEADER + REGISTERS * 6 / 8;
/// Where the encoding is.
const ENCODING: usize = 4;
const DENSE: u8 = 0;
const SPARSE: u8 = 1;
/// Where the last count is.
const COUNT: std::ops::Range<usize> = 8..16;
/// The byte whose highest bit says that the count is out of date.
const COUNT_TOP: usize = 15;
/// The longest run of zeros in one byte.
const SHORT_ZEROS: usize = 64;
/// The highest register of a run, and the longest run of registers that are not 0.
const RUN_VALUE: u8 = 32;
const RUN_LEN: usize = 4;

/// The runs do not make up all registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// Whether a string has the header and, where dense, the length of a HyperLogLog.
pub fn is_one(bytes: &[u8]) -> bool {
    bytes.len() >= HEADER
        && bytes.starts_with(b"HYLL")
        && match bytes[ENCODING] {
            DENSE => bytes.len() == DENSE_LEN,
            encoding => encoding == SPARSE,
        }
}

/// One that has seen no element.
pub fn empty() -> Vec<u8> {
    let mut bytes = b"HYLL".to_vec();
    bytes.resize(HEADER, 0);
    bytes[ENCODING] = SPARSE;
    Run { value: 0, len: REGISTERS }.push_to(&mut bytes);
    bytes
}

/// Whether it is dense.
pub fn is_dense(bytes: &[u8]) -> bool {
    bytes[ENCODING] == DENSE
}

/// The last count, if nothing has changed since.
pub fn known_count(bytes: &[u8]) -> Option<u64> {
    let count = u64::from_le_bytes(bytes[COUNT].try_into().expect("the range has 8 bytes"));
    (count >> 63 == 0).then_some(count)
}

/// Notes the count.
pub fn remember_count(bytes: &mut [u8], count: u64) {
    bytes[COUNT].copy_from_slice(&count.to_le_bytes());
}

/// Estimates how many different elements it has seen.
pub fn count(bytes: &[u8]) -> Result<u64, Corrupt> {
    let mut histogram = [0; 64];
    if is_dense(bytes) {
        for group in bytes[HEADER..].as_chunks::<3>().0 {
            unpack(group).iter().for_each(|&register| histogram[usize::from(register)] += 1);
        }
    } else {
        each_run(bytes, |run| histogram[usize::from(run.value)] += run.len as u32)?;
    }
    Ok(estimate(&histogram))
}

/// The runs of a sparse one as text; `None` for a dense one.
pub fn describe(bytes: &[u8]) -> Option<String> {
    if is_dense(bytes) {
        return None;
    }
    let words = runs(&bytes[HEADER..]).map(|(run, at)| match run.value {
        0 if at.len() == 1 => format!("z:{}", run.len),
        0 => format!("Z:{}", run.len),
        value => format!("v:{value},{}", run.len),
    });
    Some(words.collect::<Vec<_>>().join(" "))
}

/// A HyperLogLog that is changed.
pub struct Sketch<'a> {
    bytes: &'a mut Vec<u8>,
    /// Bytes of a sparse one, at most.
    sparse_limit: usize,
}

impl<'a> Sketch<'a> {
    /// That of these bytes, for which [`is_one`] holds.
    pub fn new(bytes: &'a mut Vec<u8>, sparse_limit: usize) -> Sketch<'a> {
        Sketch { bytes, sparse_limit }
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        self.bytes
    }

    /// Notes an element; whether a register was raised.
    pub fn add(&mut self, element: &[u8]) -> Result<bool, Corrupt> {
        let (index, count) = register_of(element);
        self.raise(index, count)
    }

    /// Raises a register to `count`; whether it was below.
    pub fn raise(&mut self, index: usize, count: u8) -> Result<bool, Corrupt> {
        if !is_dense(self.bytes) {
            if let Some(raised) = self.raise_sparse(index, count)? {
                if raised {
                    self.forget_count();
                }
                return Ok(raised);
            }
            self.make_dense()?;
        }
        let raised = dense_get(&self.bytes[HEADER..], index) < count;
        if raised {
            dense_set(&mut self.bytes[HEADER..], index, count);
        }
        Ok(raised)
    }

    /// Says that the count is out of date.
    pub fn forget_count(&mut self) {
        self.bytes[COUNT_TOP] |= 0x80;
    }

    /// Makes it dense; whether it was not.
    pub fn make_dense(&mut self) -> Result<bool, Corrupt> {
        if is_dense(self.bytes) {
            return Ok(false);
        }
        let mut registers = Registers::default();
        registers.merge(self.bytes)?;
        self.bytes.truncate(HEADER);
        self.bytes[ENCODING] = DENSE;
        for group in registers.0.as_chunks::<4>().0 {
            self.bytes.extend_from_slice(&pack(group));
        }
        Ok(true)
    }

    /// Raises a register of a sparse one; `None` where only a dense one can have it.
    fn raise_sparse(&mut self, index: usize, count: u8) -> Result<Option<bool>, Corrupt> {
        if count > RUN_VALUE {
            return Ok(None);
        }
        // The run that has the register, the one before, and the first register of each. Nearly all time goes
        // into this loop, so that it looks at no more than how long runs are.
        let runs = &self.bytes[HEADER..];
        let (mut first, mut before, mut at) = (0, 0, 0);
        while at < runs.len() {
            let byte = runs[at] as usize;
            let mut bytes = 1;
            let len = if byte & 0x80 != 0 {
                (byte & 3) + 1
            } else if byte & 0x40 == 0 {
                byte + 1
            } else if at + 1 < runs.len() {
                bytes = 2;
                ((byte & 0x3f) << 8 | runs[at + 1] as usize) + 1
            } else {
                return Err(Corrupt);
            };
            if index < first + len {
                break;
            }
            first += len;
            before = at;
            at += bytes;
        }
        let (run, len) = Run::parse(&runs[at..]).ok_or(Corrupt)?;
        let at = at..at + len;
        if run.value >= count {
            return Ok(Some(false));
        }
        let mut pieces = Vec::with_capacity(5);
        Run { value: run.value, len: index - first }.push_to(&mut pieces);
        Run { value: count, len: 1 }.push_to(&mut pieces);
        Run { value: run.value, len: first + run.len - index - 1 }.push_to(&mut pieces);
        let grows = pieces.len() > at.len();
        if grows && self.bytes.len() + pieces.len() - at.len() > self.sparse_limit {
            return Ok(None);
        }
        self.bytes.splice(HEADER + at.start..HEADER + at.end, pieces);
        self.join_runs(HEADER + before);
        Ok(Some(true))
    }

    /// Joins runs of the same value among the five from `at` on.
    fn join_runs(&mut self, mut at: usize) {
        for _ in 0..5 {
            let Some((run, len)) = Run::parse(&self.bytes[at..]) else {
                return;
            };
            match Run::parse(&self.bytes[at + len..]) {
                Some((next, 1))
                    if run.value > 0
                        && next.value == run.value
                        && run.len + next.len <= RUN_LEN =>
                {
                    let joined = Run { value: run.value, len: run.len + next.len };
                    let mut byte = Vec::with_capacity(1);
                    joined.push_to(&mut byte);
                    self.bytes.splice(at..at + 2, byte);
                }
                _ => at += len,
            }
        }
    }
}

/// Registers of the same value.
#[derive(Clone, Copy)]
struct Run {
    value: u8,
    len: usize,
}

impl Run {
    /// The run that `bytes` begin with, and how many of them it takes.
    #[inline]
    fn parse(bytes: &[u8]) -> Option<(Run, usize)> {
        match *bytes {
            [byte, ..] if byte & 0x80 != 0 => {
                let (value, len) = ((byte >> 2 & 0x1f) + 1, usize::from(byte & 3) + 1);
                Some((Run { value, len }, 1))
            }
            [byte, ..] if byte & 0x40 == 0 => {
                Some((Run { value: 0, len: usize::from(byte) + 1 }, 1))
            }
            [byte, low, ..] => {
                let len = usize::from(byte & 0x3f) << 8 | usize::from(low);
                Some((Run { value: 0, len: len + 1 }, 2))
            }
            _ => None,
        }
    }

    /// Writes it; nothing where it is empty.
    fn push_to(self, bytes: &mut Vec<u8>) {
        let Some(less) = self.len.checked_sub(1) else {
            return;
        };
        if self.value > 0 {
            bytes.push(0x80 | (self.value - 1) << 2 | less as u8);
        } else if self.len <= SHORT_ZEROS {
            bytes.push(less as u8);
        } else {
            bytes.extend_from_slice(&[0x40 | (less >> 8) as u8, less as u8]);
        }
    }
}

/// The runs, and which bytes each takes. Ends early where a run is cut off.
fn runs(bytes: &[u8]) -> impl Iterator<Item = (Run, std::ops::Range<usize>)> + '_ {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (run, len) = Run::parse(&bytes[at..])?;
        at += len;
        Some((run, at - len..at))
    })
}

/// Calls `f` with the runs of a sparse one, as far as they are those of all registers and no more.
fn each_run(bytes: &[u8], mut f: impl FnMut(Run)) -> Result<(), Corrupt> {
    let runs = &bytes[HEADER..];
    let (mut at, mut total) = (0, 0);
    while at < runs.len() {
        let (run, len) = Run::parse(&runs[at..]).ok_or(Corrupt)?;
        at += len;
        total += run.len;
        if total > REGISTERS {
            return Err(Corrupt);
        }
        f(run);
    }
    if total == REGISTERS { Ok(()) } else { Err(Corrupt) }
}

/// All registers, a byte each.
pub struct Registers([u8; REGISTERS]);

impl Default for Registers {
    fn default() -> Registers {
        Registers([0; REGISTERS])
    }
}

impl Registers {
    /// Raises them to those of a HyperLogLog.
    pub fn merge(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        if is_dense(bytes) {
            let groups = bytes[HEADER..].as_chunks::<3>().0;
            for (mine, group) in self.0.as_chunks_mut::<4>().0.iter_mut().zip(groups) {
                for (mine, theirs) in mine.iter_mut().zip(unpack(group)) {
                    *mine = theirs.max(*mine);
                }
            }
            return Ok(());
        }
        let mut at = 0;
        each_run(bytes, |run| {
            if run.value > 0 {
                let these = &mut self.0[at..at + run.len];
                these.iter_mut().for_each(|mine| *mine = run.value.max(*mine));
            }
            at += run.len;
        })
    }

    /// Each register's index and value.
    pub fn iter(&self) -> impl Iterator<Item = (usize, u8)> + '_ {
        self.0.iter().copied().enumerate()
    }

    /// Estimates how many different elements raised them.
    pub fn count(&self) -> u64 {
        let mut histogram = [0; 64];
        self.0.iter().for_each(|&register| histogram[usize::from(register & 63)] += 1);
        estimate(&histogram)
    }
}

/// The four registers that three bytes of a dense one hold.
fn unpack(group: &[u8; 3]) -> [u8; 4] {
    let bits = u32::from_le_bytes([group[0], group[1], group[2], 0]);
    [0, 6, 12, 18].map(|shift| (bits >> shift) as u8 & 63)
}

/// The three bytes that hold four registers.
fn pack(registers: &[u8; 4]) -> [u8; 3] {
    let bits = registers.iter().rev().fold(0, |bits, &register| bits << 6 | u32::from(register));
    let [low, middle, high, _] = bits.to_le_bytes();
    [low, middle, high]
}

fn dense_get(registers: &[u8], index: usize) -> u8 {
    unpack(&registers.as_chunks::<3>().0[index / 4])[index % 4]
}

fn dense_set(registers: &mut [u8], index: usize, value: u8) {
    let group = &mut registers.as_chunks_mut::<3>().0[index / 4];
    let mut four = unpack(group);
    four[index % 4] = value;
    *group = pack(&four);
}

/// The register that an element raises, and to what.
fn register_of(element: &[u8]) -> (usize, u8) {
    let hash = murmur(element, 0xadc8_3b19);
    let rest = hash >> BITS | 1 << REST;
    (hash as usize & (REGISTERS - 1), rest.trailing_zeros() as u8 + 1)
}

/// MurmurHash2 of 64 bits (Austin Appleby, public domain), in little endian: what the format prescribes.
fn murmur(bytes: &[u8], seed: u64) -> u64 {
    const FACTOR: u64 = 0xc6a4_a793_5bd1_e995;
    const SHIFT: u32 = 47;
    let mut hash = seed ^ (bytes.len() as u64).wrapping_mul(FACTOR);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        let mut word = u64::from_le_bytes(*word).wrapping_mul(FACTOR);
        word ^= word >> SHIFT;
        hash = (hash ^ word.wrapping_mul(FACTOR)).wrapping_mul(FACTOR);
    }
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(FACTOR);
    }
    hash ^= hash >> SHIFT;
    hash = hash.wrapping_mul(FACTOR);
    hash ^ hash >> SHIFT
}

/// Estimates the number of elements from how many registers have each value, by the improved estimator of
/// Otmar Ertl, "New cardinality estimation algorithms for HyperLogLog sketches" (arXiv:1702.01284).
fn estimate(histogram: &[u32; 64]) -> u64 {
    let registers = REGISTERS as f64;
    let full = f64::from(histogram[REST as usize + 1]);
    let mut z = registers * tau((registers - full) / registers);
    for &of_value in histogram[1..=REST as usize].iter().rev() {
        z = (z + f64::from(of_value)) * 0.5;
    }
    z += registers * sigma(f64::from(histogram[0]) / registers);
    let alpha = 0.5 / std::f64::consts::LN_2;
    (alpha * registers * registers / z).round() as u64
}

/// x + the sum of x^(2^k) * 2^(k-1) for k from 1 on.
fn sigma(x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut power, mut factor, mut sum) = (x, 1.0, x);
    loop {
        power *= power;
        let before = sum;
        sum += power * factor;
        factor += factor;
        if sum == before {
            return sum;
        }
    }
}

/// (1 - x - the sum of (1 - x^(2^-k))^2 * 2^-k for k from 1 on) / 3.
fn tau(x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut root, mut factor, mut sum) = (x, 1.0, 1.0 - x);
    loop {
        root = root.sqrt();
        let before = sum;
        factor *= 0.5;
        sum -= (1.0 - root) * (1.0 - root) * factor;
        if sum == before {
            return sum / 3.0;
        }
    }
}
