//! LCS: the longest common subsequence of two strings.

use crate::command::support::integer;
use crate::command::{Answer, Call, DONE};
use crate::error::Error;
use crate::protocol::Args;
use crate::store::ValueRef;

/// What is asked for besides the subsequence.
#[derive(Default)]
struct Options {
    /// Its length alone.
    len: bool,
    /// Where its pieces lie.
    idx: bool,
    /// How long each piece is.
    with_match_len: bool,
    /// Shorter pieces are left out.
    min_match_len: i64,
}

/// A piece that both strings have: where it begins in each, and how long it is.
struct Piece {
    a: usize,
    b: usize,
    len: usize,
}

pub(super) fn lcs(call: &mut Call<'_>, args: Args<'_>) -> Answer {
    let mut string = |index: usize| match call.keys.read(&args[index]) {
        None => Ok(Vec::new()),
        Some(ValueRef::Str(string)) => Ok(string.to_vec()),
        Some(_) => Err(Error::new("ERR The specified keys must contain string values")),
    };
    let (a, b) = (string(1)?, string(2)?);
    let options = parse(args)?;
    if options.len && options.idx {
        return Err(Error::new(
            "ERR If you want both the length and indexes, please just use IDX.",
        ));
    }
    if a.len().max(b.len()) >= u32::MAX as usize - 1 {
        return Err(Error::new("ERR String too long for LCS"));
    }
    let cells = (a.len() as u64 + 1) * (b.len() as u64 + 1);
    if cells.saturating_mul(4) > call.config.proto_max_bulk_len {
        return Err(Error::new(
            "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len",
        ));
    }
    let table = Table::new(&a, &b);
    if options.len {
        call.reply.count(table.len());
        return DONE;
    }
    let (text, pieces) = table.walk(&a, &b);
    if !options.idx {
        call.reply.bulk(&text);
        return DONE;
    }
    let shown = |piece: &&Piece| piece.len as i64 >= options.min_match_len;
    call.reply.map(2);
    call.reply.bulk(b"matches");
    call.reply.array(pieces.iter().filter(shown).count());
    for piece in pieces.iter().filter(shown) {
        call.reply.array(2 + usize::from(options.with_match_len));
        for begin in [piece.a, piece.b] {
            call.reply.array(2);
            call.reply.count(begin);
            call.reply.count(begin + piece.len - 1);
        }
        if options.with_match_len {
            call.reply.count(piece.len);
        }
    }
    call.reply.bulk(b"len");
    call.reply.count(text.len());
    DONE
}

fn parse(args: Args<'_>) -> Result<Options, Error> {
    let mut options = Options::default();
    let mut index = 3;
    while index < args.len() {
        if args.is(index, "idx") {
            options.idx = true;
        } else if args.is(index, "len") {
            options.len = true;
        } else if args.is(index, "withmatchlen") {
            options.with_match_len = true;
        } else if args.is(index, "minmatchlen") && index + 1 < args.len() {
            index += 1;
            options.min_match_len = integer(&args[index])?;
        } else {
            return Err(Error::SYNTAX);
        }
        index += 1;
    }
    Ok(options)
}

/// For each pair of prefixes the length of their longest common subsequence.
struct Table {
    cells: Vec<u32>,
    width: usize,
}

impl Table {
    fn new(a: &[u8], b: &[u8]) -> Table {
        let width = b.len() + 1;
        let mut cells = vec![0; (a.len() + 1) * width];
        for (i, byte) in a.iter().enumerate() {
            let (before, row) = cells[i * width..][..2 * width].split_at_mut(width);
            for (j, other) in b.iter().enumerate() {
                row[j + 1] = if byte == other { before[j] + 1 } else { row[j].max(before[j + 1]) };
            }
        }
        Table { cells, width }
    }

    fn at(&self, i: usize, j: usize) -> u32 {
        self.cells[i * self.width + j]
    }

    fn len(&self) -> usize {
        self.cells.last().map_or(0, |&len| len as usize)
    }

    /// The subsequence and its pieces, the last one first.
    fn walk(&self, a: &[u8], b: &[u8]) -> (Vec<u8>, Vec<Piece>) {
        let (mut i, mut j) = (a.len(), b.len());
        let mut text = Vec::with_capacity(self.len());
        let mut pieces: Vec<Piece> = Vec::new();
        while i > 0 && j > 0 {
            if a[i - 1] == b[j - 1] {
                (i, j) = (i - 1, j - 1);
                text.push(a[i]);
                match pieces.last_mut() {
                    Some(piece) if piece.a == i + 1 && piece.b == j + 1 => {
                        *piece = Piece { a: i, b: j, len: piece.len + 1 };
                    }
                    _ => pieces.push(Piece { a: i, b: j, len: 1 }),
                }
            } else if self.at(i - 1, j) > self.at(i, j - 1) {
                i -= 1;
            } else {
                j -= 1;
            }
        }
        text.reverse();
        (text, pieces)
    }
}
