//! The words of one request: the command's name and its arguments.
//!
//! Words lie in one buffer, in which they are found by position, so that a request that came in one
//! piece is never copied. Long words have memory of their own, which a value can share.

use std::ops::Index;
use std::sync::Arc;

/// From this length on a word has memory of its own, in bytes.
pub const LONG: usize = 32 * 1024;

/// Where a word lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// In the buffer, from `start` to `end`.
    Inline {
        /// Index of the first byte.
        start: u32,
        /// Index past the last byte.
        end: u32,
    },
    /// The word with this index among the long ones.
    Long(u32),
}

/// The words of a request. `args[0]` is the command's name as it was sent.
#[derive(Clone, Copy)]
pub struct Args<'a> {
    buf: &'a [u8],
    spans: &'a [Span],
    long: &'a [Arc<Vec<u8>>],
}

impl<'a> Args<'a> {
    /// The words at `spans` of `buf` and of `long`.
    ///
    /// # Panics
    /// When a word is used whose span lies outside of both.
    pub fn new(buf: &'a [u8], spans: &'a [Span], long: &'a [Arc<Vec<u8>>]) -> Args<'a> {
        Args { buf, spans, long }
    }

    /// How many words there are, the name among them. At least 1 where a command sees it.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// The word at `index`, or `None` past the last one.
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.spans.get(index).map(|&span| match span {
            Span::Inline { start, end } => &self.buf[start as usize..end as usize],
            Span::Long(index) => &self.long[index as usize][..],
        })
    }

    /// The word at `index` as memory that can be shared, where it has memory of its own.
    pub fn shared(&self, index: usize) -> Option<&'a Arc<Vec<u8>>> {
        match self.spans.get(index) {
            Some(&Span::Long(index)) => Some(&self.long[index as usize]),
            _ => None,
        }
    }

    /// The words from the one at `from` on.
    pub fn iter_from(&self, from: usize) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let args = *self;
        (from.min(self.len())..self.len()).map(move |index| args.get(index).unwrap_or_default())
    }

    /// Whether the word at `index` is `word`, in whatever case. `word` is in lower case.
    pub fn is(&self, index: usize, word: &str) -> bool {
        let Some(given) = self.get(index).filter(|given| given.len() == word.len()) else {
            return false;
        };
        // Words are short: this is quicker than what is made for long texts.
        given.iter().zip(word.as_bytes()).all(|(given, byte)| given.to_ascii_lowercase() == *byte)
    }

    /// A copy that stands for itself. Long words are shared with it.
    pub fn to_owned(&self) -> OwnedArgs {
        let mut owned = OwnedArgs::default();
        for index in 0..self.len() {
            match self.shared(index) {
                Some(long) => owned.push_long(long.clone()),
                None => owned.push(&self[index]),
            }
        }
        owned
    }
}

impl Index<usize> for Args<'_> {
    type Output = [u8];

    /// The word at `index`.
    ///
    /// # Panics
    /// Past the last word: a command looks at its arity first.
    fn index(&self, index: usize) -> &[u8] {
        self.get(index).expect("a command looks at the number of its words first")
    }
}

/// The words of a request that waits, is logged, or goes to another core.
#[derive(Clone, Default, Debug, PartialEq, Eq)]
pub struct OwnedArgs {
    buf: Vec<u8>,
    spans: Vec<Span>,
    long: Vec<Arc<Vec<u8>>>,
}

impl OwnedArgs {
    /// The request of these words.
    pub fn of<W: AsRef<[u8]>>(words: impl IntoIterator<Item = W>) -> OwnedArgs {
        let mut args = OwnedArgs::default();
        for word in words {
            args.push(word.as_ref());
        }
        args
    }

    /// Adds a word.
    pub fn push(&mut self, word: &[u8]) {
        if word.len() >= LONG {
            return self.push_long(Arc::new(word.to_vec()));
        }
        let start = self.buf.len() as u32;
        self.buf.extend_from_slice(word);
        self.spans.push(Span::Inline { start, end: self.buf.len() as u32 });
    }

    /// Adds a word that has memory of its own.
    pub fn push_long(&mut self, word: Arc<Vec<u8>>) {
        self.spans.push(Span::Long(self.long.len() as u32));
        self.long.push(word);
    }

    /// The words, to be read.
    pub fn args(&self) -> Args<'_> {
        Args::new(&self.buf, &self.spans, &self.long)
    }

    /// The memory that the words take, in bytes.
    pub fn memory(&self) -> usize {
        self.buf.len() + self.long.iter().map(|long| long.len()).sum::<usize>()
    }
}
