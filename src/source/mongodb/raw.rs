//! BSON as bytes: documents cut out of streams, and single fields looked at, without decoding what nobody asked for.
//!
//! The format (<https://bsonspec.org/spec.html>): a document is its length (int32, little endian, itself included), its elements
//! and a NUL; an element is a type, a name that ends in NUL, and a value.

use bytes::{Bytes, BytesMut};
use mongodb::bson::{Bson, RawDocument};

use crate::error::{Error, Kind, Result};

/// No document is longer: 16 MiB, and 16 KiB that the server allows for what it adds itself (`BSONObjMaxInternalSize`).
pub const DOCUMENT_MAX: usize = (16 << 20) + (16 << 10);

/// The shortest: a length and a NUL.
const DOCUMENT_MIN: usize = 5;

/// The value of an element: its type, and its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RawValue<'a> {
    /// The type's number: 0x07 is an ObjectId.
    pub kind: u8,
    /// The value without type and name.
    pub bytes: &'a [u8],
}

/// Cuts documents out of a stream of bytes that breaks anywhere.
#[derive(Debug, Default)]
pub struct Documents {
    pending: BytesMut,
    passed: u64,
}

impl Documents {
    /// Takes the next bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// The next whole document; `None` until more bytes come.
    ///
    /// # Errors
    /// `Damaged` where no document can begin.
    #[allow(clippy::should_implement_trait, reason = "it is no iterator: more bytes may come after a `None`")]
    pub fn next(&mut self) -> Result<Option<Bytes>> {
        let Some(first) = self.pending.first_chunk::<4>() else { return Ok(None) };
        let length = length_of(*first).ok_or_else(|| self.damaged("a length that no document has"))?;
        if self.pending.len() < length {
            self.pending.reserve(length - self.pending.len());
            return Ok(None);
        }
        let document = self.pending.split_to(length).freeze();
        if document.last() != Some(&0) {
            return Err(self.damaged("a document that does not end in NUL"));
        }
        self.passed += length as u64;
        Ok(Some(document))
    }

    /// Makes sure that the stream did not end inside a document.
    ///
    /// # Errors
    /// `Damaged` if it did.
    pub fn finish(&self) -> Result<()> {
        if self.pending.is_empty() { Ok(()) } else { Err(self.damaged("the end inside a document")) }
    }

    fn damaged(&self, what: &str) -> Error {
        Error::new(Kind::Damaged, "reading BSON", format!("at byte {} is {what}", self.passed))
    }
}

/// The length of the document that begins with these bytes, if there is such a document.
pub fn length_of(first: [u8; 4]) -> Option<usize> {
    let length = usize::try_from(i32::from_le_bytes(first)).ok()?;
    (DOCUMENT_MIN..=DOCUMENT_MAX).contains(&length).then_some(length)
}

/// Bytes as a document of the driver's; only its frame is checked.
///
/// # Errors
/// `Damaged` if they are none.
pub fn document(bytes: &[u8]) -> Result<&RawDocument> {
    RawDocument::from_bytes(bytes).map_err(|cause| Error::new(Kind::Damaged, "reading BSON", cause))
}

/// The first element of this name, if the document has one.
///
/// # Errors
/// `Damaged` if the bytes up to it are no BSON.
pub fn field<'a>(document: &'a [u8], name: &str) -> Result<Option<RawValue<'a>>> {
    for element in elements(document) {
        let (found, value) = element?;
        if found == name.as_bytes() {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A value as people write it, cut where it is long.
pub fn shown(value: RawValue<'_>) -> String {
    const LONGEST: usize = 80;
    let length = value.bytes.len() as u32 + 8;
    let whole = [&length.to_le_bytes()[..], &[value.kind, b'v', 0], value.bytes, &[0]].concat();
    let read = document(&whole).ok().and_then(|document| document.get("v").ok().flatten());
    let text = read.and_then(|value| Bson::try_from(value).ok()).map(|value| value.to_string());
    text.unwrap_or_else(|| format!("of type {:#04x}", value.kind)).chars().take(LONGEST).collect()
}

/// The elements of a document or array, each with its name: bytes, because old servers let in names that are no UTF-8.
pub fn elements(document: &[u8]) -> Elements<'_> {
    elements_of(document.get(4..document.len().saturating_sub(1)).unwrap_or_default())
}

/// The elements that are left of a document or array: what [`Elements::rest`] told.
pub fn elements_of(rest: &[u8]) -> Elements<'_> {
    Elements { rest }
}

/// Walks elements.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
}

impl<'a> Elements<'a> {
    /// What was not walked yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<(&'a [u8], RawValue<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.rest.split_first()?;
        let cut = || {
            Error::new(Kind::Damaged, "reading BSON", format!("an element of type {kind:#04x} is cut off"))
        };
        let read = rest.iter().position(|byte| *byte == 0).and_then(|end| {
            let (name, value) = (&rest[..end], &rest[end + 1..]);
            let length = value_length(*kind, value).filter(|length| *length <= value.len())?;
            Some((name, value.split_at(length)))
        });
        match read {
            Some((name, (bytes, rest))) => {
                self.rest = rest;
                Some(Ok((name, RawValue { kind: *kind, bytes })))
            }
            None => {
                self.rest = &[];
                Some(Err(cut()))
            }
        }
    }
}

/// How many bytes the value of this type takes that begins here; `None` for an unknown type or where that cannot be read.
fn value_length(kind: u8, from: &[u8]) -> Option<usize> {
    let int = |at: usize| {
        let bytes = from.get(at..)?.first_chunk::<4>()?;
        usize::try_from(i32::from_le_bytes(*bytes)).ok()
    };
    let text = |from: &[u8]| from.iter().position(|byte| *byte == 0).map(|end| end + 1);
    match kind {
        0x06 | 0x0a | 0x7f | 0xff => Some(0),
        0x08 => Some(1),
        0x10 => Some(4),
        0x01 | 0x09 | 0x11 | 0x12 => Some(8),
        0x07 => Some(12),
        0x13 => Some(16),
        0x02 | 0x0d | 0x0e => int(0)?.checked_add(4),
        0x05 => int(0)?.checked_add(5),
        0x0c => int(0)?.checked_add(16),
        0x03 | 0x04 | 0x0f => int(0),
        0x0b => {
            let first = text(from)?;
            Some(first + text(from.get(first..)?)?)
        }
        _ => None,
    }
}
