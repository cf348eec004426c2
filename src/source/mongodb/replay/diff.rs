//! The difference that an update of version 2 logs, applied to a document.
//!
//! `{d: {gone: false}, u: {changed: value}, i: {new: value}, s<field>: {..}}`; of an array `{a: true, l: length, u<n>:
//! value, s<n>: {..}}`; of a time series' columns also `b: {field: {o: offset, d: bytes from there on}}`. Where the order
//! of fields is concerned: what changed stays in its place, what is new goes to the end. A part that meets a value of
//! another type than it was made for is passed over: then the document is newer than the difference, and a later entry of
//! the log says what the value is.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;

use super::compose::{Composer, NULL, kind};
use crate::error::{Error, Kind, Result};
use crate::source::mongodb::raw::{self, RawValue};

/// The document after the difference.
///
/// # Errors
/// `Unsupported` for a section that is not known, `Damaged` for what cannot be read.
pub fn apply(document: &[u8], diff: &[u8]) -> Result<Bytes> {
    let mut out = Composer::new();
    apply_to_document(&mut out, document, diff)?;
    Ok(out.finish())
}

enum Change<'a> {
    Delete,
    Update(RawValue<'a>),
    Insert,
    Inner(&'a [u8]),
    Binary(&'a [u8]),
}

#[derive(Default)]
struct Sections<'a> {
    changes: HashMap<&'a [u8], Change<'a>>,
    added: Vec<(&'a [u8], RawValue<'a>)>,
}

impl<'a> Sections<'a> {
    fn read(diff: &'a [u8]) -> Result<Self> {
        let mut sections = Sections::default();
        // A changed field that is missing is added before the new ones, wherever the sections stand.
        let mut inserted = Vec::new();
        for section in raw::elements(diff) {
            let (name, value) = section?;
            match name {
                b"d" => sections.each(value, |_| Change::Delete)?,
                b"u" => {
                    sections.each(value, Change::Update)?;
                    sections.added.extend(raw::elements(value.bytes).flatten());
                }
                b"i" => {
                    sections.each(value, |_| Change::Insert)?;
                    inserted.extend(raw::elements(value.bytes).flatten());
                }
                b"b" => sections.each(value, |value| Change::Binary(value.bytes))?,
                [b's', field @ ..] if value.kind == kind::DOCUMENT => {
                    sections.changes.insert(field, Change::Inner(value.bytes));
                }
                _ => return Err(unknown(name)),
            }
        }
        sections.added.extend(inserted);
        Ok(sections)
    }

    fn each(&mut self, section: RawValue<'a>, change: impl Fn(RawValue<'a>) -> Change<'a>) -> Result<()> {
        for field in raw::elements(section.bytes) {
            let (name, value) = field?;
            self.changes.insert(name, change(value));
        }
        Ok(())
    }
}

fn apply_to_document(out: &mut Composer, document: &[u8], diff: &[u8]) -> Result<()> {
    let sections = Sections::read(diff)?;
    let mut placed = HashSet::new();
    for element in raw::elements(document) {
        let (name, value) = element?;
        match sections.changes.get(name) {
            None => out.element(name, value),
            Some(Change::Delete | Change::Insert) => {}
            Some(Change::Update(changed)) => {
                out.element(name, *changed);
                placed.insert(name);
            }
            Some(Change::Inner(inner)) => apply_inside(out, name, value, inner)?,
            Some(Change::Binary(inner)) => out.element(name, binary(value, inner)?.as_value(value)),
        }
    }
    for (name, value) in &sections.added {
        if !placed.contains(name) {
            out.element(name, *value);
        }
    }
    Ok(())
}

fn apply_inside(out: &mut Composer, name: &[u8], value: RawValue<'_>, diff: &[u8]) -> Result<()> {
    let for_array = raw::field(diff, "a")?.is_some_and(|a| a.kind == kind::BOOL);
    match (value.kind, for_array) {
        (kind::DOCUMENT, false) => {
            out.open(value.kind, name);
            apply_to_document(out, value.bytes, diff)?;
        }
        (kind::ARRAY, true) => {
            out.open(value.kind, name);
            apply_to_array(out, value.bytes, diff)?;
        }
        _ => {
            out.element(name, value);
            return Ok(());
        }
    }
    out.close();
    Ok(())
}

enum Element<'a> {
    Update(RawValue<'a>),
    Inner(&'a [u8]),
}

fn apply_to_array(out: &mut Composer, array: &[u8], diff: &[u8]) -> Result<()> {
    let mut changes = HashMap::new();
    let (mut length, mut reach) = (None, 0);
    for section in raw::elements(diff) {
        let (name, value) = section?;
        let change = match name {
            b"a" => continue,
            b"l" => {
                length = Some(whole(value).ok_or_else(|| unknown(name))?);
                continue;
            }
            [b'u', ..] => Element::Update(value),
            [b's', ..] if value.kind == kind::DOCUMENT => Element::Inner(value.bytes),
            _ => return Err(unknown(name)),
        };
        let at = index(&name[1..]).ok_or_else(|| unknown(name))?;
        reach = reach.max(at + 1);
        changes.insert(at, change);
    }
    let mut old = raw::elements(array);
    let mut at = 0;
    while length.is_none_or(|length| at < length) {
        let value = match old.next() {
            Some(element) => Some(element?.1),
            None if at < length.unwrap_or(reach) => None,
            None => break,
        };
        let name = at.to_string();
        match (changes.get(&at), value) {
            (Some(Element::Update(changed)), _) => out.element(name.as_bytes(), *changed),
            (Some(Element::Inner(inner)), Some(value)) => apply_inside(out, name.as_bytes(), value, inner)?,
            (_, value) => out.element(name.as_bytes(), value.unwrap_or(NULL)),
        }
        at += 1;
    }
    Ok(())
}

/// A binary value that was put together, or none where the old one stays.
struct Joined(Option<Vec<u8>>);

impl Joined {
    fn as_value<'a>(&'a self, old: RawValue<'a>) -> RawValue<'a> {
        self.0.as_deref().map_or(old, |bytes| RawValue { kind: kind::BINARY, bytes })
    }
}

/// The first `o` bytes stay, `d` follows them.
fn binary(old: RawValue<'_>, change: &[u8]) -> Result<Joined> {
    let offset = raw::field(change, "o")?.and_then(whole);
    let tail = raw::field(change, "d")?.filter(|tail| tail.kind == kind::BINARY);
    let (Some(offset), Some(tail)) = (offset, tail) else { return Err(unknown(b"b")) };
    let head = old.bytes.get(5..).and_then(|data| data.get(..offset));
    let (Some(head), kind::BINARY) = (head, old.kind) else { return Ok(Joined(None)) };
    let data = &tail.bytes[5..];
    let length = u32::try_from(head.len() + data.len()).unwrap_or(u32::MAX);
    let mut joined = length.to_le_bytes().to_vec();
    joined.push(tail.bytes[4]);
    joined.extend_from_slice(head);
    joined.extend_from_slice(data);
    Ok(Joined(Some(joined)))
}

/// A number that counts something.
pub(super) fn whole(value: RawValue<'_>) -> Option<usize> {
    let number = match value.kind {
        kind::INT32 => i64::from(i32::from_le_bytes(value.bytes.try_into().ok()?)),
        kind::INT64 => i64::from_le_bytes(value.bytes.try_into().ok()?),
        kind::DOUBLE => f64::from_le_bytes(value.bytes.try_into().ok()?) as i64,
        _ => return None,
    };
    usize::try_from(number).ok()
}

/// A place in an array; what is farther than a document can reach is none.
pub(super) fn index(name: &[u8]) -> Option<usize> {
    let digits = !name.is_empty() && name.iter().all(u8::is_ascii_digit);
    let text = std::str::from_utf8(name).ok().filter(|_| digits && (name.len() == 1 || name[0] != b'0'))?;
    text.parse().ok().filter(|at| *at <= raw::DOCUMENT_MAX)
}

fn unknown(section: &[u8]) -> Error {
    let name = String::from_utf8_lossy(section);
    Error::new(
        Kind::Unsupported,
        "applying an update",
        format!("its difference has the unknown part {name:?}"),
    )
    .hint("the log was written by a server that is newer than this tidekeeper; use a newer one")
}
