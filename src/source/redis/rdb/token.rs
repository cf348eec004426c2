//! The smallest parts: lengths and the heads of strings. Pure; `Ok(None)` asks for more bytes.

use std::fmt;

/// No value of Redis is longer (`proto-max-bulk-len` is 512 MiB unless somebody raised it); what claims to be is damage.
const STRING_MAX: u64 = 1 << 40;

/// The most bytes that one token takes: an LZF mark and two 64-bit lengths.
pub(super) const TOKEN_MAX: usize = 19;

/// A token and how many bytes it took, or nothing yet.
pub(super) type Scan<T> = Result<Option<(T, usize)>, Flaw>;

/// What cannot be in an RDB.
#[derive(Debug)]
pub(super) enum Flaw {
    /// The first byte of a length that is none.
    Length(u8),
    /// A special encoding of strings that is unknown.
    Encoding(u8),
    /// A string that cannot be so long.
    TooLong(u64),
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Length(byte) => write!(f, "0x{byte:02x} does not begin a length"),
            Flaw::Encoding(code) => write!(f, "string encoding {code} is unknown"),
            Flaw::TooLong(len) => write!(f, "a string of {len} bytes cannot be"),
        }
    }
}

/// What stands before a string's bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StringHead {
    /// How it is written.
    pub form: Form,
    /// How many bytes of it follow.
    pub stored: u64,
}

/// How a string is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is.
    Plain,
    /// As a number, which was part of the head.
    Integer(i32),
    /// LZF; `plain` bytes when decompressed.
    Lzf { plain: u64 },
}

/// A length: 6, 14, 32 or 64 bits.
#[inline]
pub(super) fn length(bytes: &[u8]) -> Scan<u64> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    Ok(match first {
        0x00..=0x3f => Some((u64::from(first), 1)),
        0x40..=0x7f => bytes.get(1).map(|&low| (u64::from(first & 0x3f) << 8 | u64::from(low), 2)),
        0x80 => fixed::<4>(&bytes[1..]).map(|word| (u64::from(u32::from_be_bytes(word)), 5)),
        0x81 => fixed::<8>(&bytes[1..]).map(|word| (u64::from_be_bytes(word), 9)),
        _ => return Err(Flaw::Length(first)),
    })
}

/// The head of a string: a length, or 11 in the highest bits and an encoding.
#[inline]
pub(super) fn string(bytes: &[u8]) -> Scan<StringHead> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if first < 0xc0 {
        let Some((stored, used)) = length(bytes)? else { return Ok(None) };
        if stored > STRING_MAX {
            return Err(Flaw::TooLong(stored));
        }
        return Ok(Some((StringHead { form: Form::Plain, stored }, used)));
    }
    let number = |number: i32, used| Some((StringHead { form: Form::Integer(number), stored: 0 }, used));
    let rest = &bytes[1..];
    Ok(match first & 0x3f {
        0 => fixed::<1>(rest).and_then(|word| number(i8::from_le_bytes(word).into(), 2)),
        1 => fixed::<2>(rest).and_then(|word| number(i16::from_le_bytes(word).into(), 3)),
        2 => fixed::<4>(rest).and_then(|word| number(i32::from_le_bytes(word), 5)),
        3 => return lzf(rest),
        code => return Err(Flaw::Encoding(code)),
    })
}

/// A string of which everything is there.
pub(super) struct WholeString<'a> {
    /// How it is written.
    pub form: Form,
    /// Without its head.
    pub bytes: &'a [u8],
    /// With it.
    pub written: &'a [u8],
}

/// The string at the beginning, and what follows it, if all of it is there.
#[inline]
pub(super) fn whole_string(bytes: &[u8]) -> Option<(WholeString<'_>, &[u8])> {
    let (StringHead { form, stored }, head) = string(bytes).ok()??;
    let (written, after) = bytes.split_at_checked(head + usize::try_from(stored).ok()?)?;
    Some((WholeString { form, bytes: &written[head..], written }, after))
}

fn lzf(bytes: &[u8]) -> Scan<StringHead> {
    let Some((stored, one)) = length(bytes)? else { return Ok(None) };
    let Some((plain, two)) = length(&bytes[one..])? else { return Ok(None) };
    let longest = stored.max(plain);
    if longest > STRING_MAX {
        return Err(Flaw::TooLong(longest));
    }
    Ok(Some((StringHead { form: Form::Lzf { plain }, stored }, 1 + one + two)))
}

/// The first `N` bytes, if they are there.
#[inline]
pub(super) fn fixed<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.first_chunk::<N>().copied()
}
