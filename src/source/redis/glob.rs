//! Patterns of keys as `KEYS` and `SCAN MATCH` understand them.

/// A pattern: `*`, `?`, `[abc]`, `[^a-z]`, and `\` before a letter that means itself.
///
/// The rules are those of `stringmatchlen` in `src/util.c` of Redis, on bytes. A `*` that has to be taken back is tried
/// once for each byte, so no pattern costs more than pattern times key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Any,
    One,
    Byte(u8),
    Class { negated: bool, ranges: Vec<(u8, u8)> },
}

impl Pattern {
    /// Reads a pattern; there is none that is wrong.
    pub fn new(text: &str) -> Self {
        let mut pieces = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, tail)) = rest.split_first() {
            rest = tail;
            pieces.push(match first {
                b'*' => Piece::Any,
                b'?' => Piece::One,
                b'[' => class(&mut rest),
                b'\\' if !tail.is_empty() => {
                    rest = &tail[1..];
                    Piece::Byte(tail[0])
                }
                byte => Piece::Byte(byte),
            });
        }
        Pattern(pieces)
    }

    /// Whether it matches the whole key.
    pub fn matches(&self, key: &[u8]) -> bool {
        let (mut piece, mut byte) = (0, 0);
        // Where to go on when the rest does not fit: after the last star, one byte later.
        let mut again: Option<(usize, usize)> = None;
        while byte < key.len() {
            match self.0.get(piece) {
                Some(Piece::Any) => {
                    again = Some((piece + 1, byte));
                    piece += 1;
                }
                Some(one) if one.takes(key[byte]) => (piece, byte) = (piece + 1, byte + 1),
                _ => {
                    let Some((after_star, from)) = again else { return false };
                    again = Some((after_star, from + 1));
                    (piece, byte) = (after_star, from + 1);
                }
            }
        }
        self.0[piece..].iter().all(|piece| *piece == Piece::Any)
    }
}

impl Piece {
    fn takes(&self, byte: u8) -> bool {
        match self {
            Piece::Any => false,
            Piece::One => true,
            Piece::Byte(own) => *own == byte,
            Piece::Class { negated, ranges } => {
                ranges.iter().any(|(low, high)| (*low..=*high).contains(&byte)) != *negated
            }
        }
    }
}

/// Reads a class after its `[`; one that is not closed ends with the pattern.
fn class(rest: &mut &[u8]) -> Piece {
    let negated = rest.first() == Some(&b'^');
    if negated {
        *rest = &rest[1..];
    }
    let mut ranges = Vec::new();
    loop {
        let (range, used) = match **rest {
            [] => break,
            [b']', ..] => {
                *rest = &rest[1..];
                break;
            }
            [b'\\', byte, ..] => ((byte, byte), 2),
            [low, b'-', high, ..] => ((low.min(high), low.max(high)), 3),
            [byte, ..] => ((byte, byte), 1),
        };
        ranges.push(range);
        *rest = &rest[used..];
    }
    Piece::Class { negated, ranges }
}
