//! Bytes that are read, and what can be wrong with them.

/// Why bytes are not what they should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// They end too early.
    Incomplete,
    /// They mean nothing.
    Bad(&'static str),
    /// They mean something that there is not here.
    Unsupported(&'static str),
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wrong::Incomplete => f.write_str("it ends too early"),
            Wrong::Bad(why) => f.write_str(why),
            Wrong::Unsupported(what) => write!(f, "{what} are not supported"),
        }
    }
}

impl std::error::Error for Wrong {}

/// Bytes and how far they have been read.
#[derive(Clone, Debug)]
pub struct Source<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Source<'a> {
    pub fn new(bytes: &'a [u8]) -> Source<'a> {
        Source { bytes, at: 0 }
    }

    /// Bytes that were read.
    pub fn at(&self) -> usize {
        self.at
    }

    /// What is left.
    pub fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    pub fn take(&mut self, len: u64) -> Result<&'a [u8], Wrong> {
        let len = usize::try_from(len).map_err(|_| Wrong::Incomplete)?;
        let bytes = self.rest().get(..len).ok_or(Wrong::Incomplete)?;
        self.at += len;
        Ok(bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Wrong> {
        Ok(self.take(N as u64)?.try_into().expect("so many were taken"))
    }

    pub fn u8(&mut self) -> Result<u8, Wrong> {
        Ok(self.array::<1>()?[0])
    }

    pub fn u16(&mut self) -> Result<u16, Wrong> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub fn u32(&mut self) -> Result<u32, Wrong> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn i16(&mut self) -> Result<i64, Wrong> {
        Ok(i16::from_le_bytes(self.array()?).into())
    }

    pub fn i24(&mut self) -> Result<i64, Wrong> {
        let [a, b, c] = self.array()?;
        Ok(i64::from(i32::from_le_bytes([0, a, b, c]) >> 8))
    }

    pub fn i32(&mut self) -> Result<i64, Wrong> {
        Ok(i32::from_le_bytes(self.array()?).into())
    }

    pub fn i64(&mut self) -> Result<i64, Wrong> {
        Ok(i64::from_le_bytes(self.array()?))
    }
}
