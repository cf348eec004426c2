//! Values as bytes that sort as a server sorts values: the class of the type, then the value.

use mongodb::bson::{RawBsonRef, RawDocument, spec::BinarySubtype};

/// A sort key. Half-open ranges of keys need no bounds of their own kind: the next key after `k` is `k` and a NUL.
pub type Key = Box<[u8]>;

/// Above the key of every value.
pub const ABOVE_ALL: u8 = 0xff;

/// The key of a value.
pub fn key(value: RawBsonRef<'_>) -> Key {
    let mut out = Vec::with_capacity(16);
    put(value, &mut out);
    out.into()
}

/// The key right after this one.
pub fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The key of a document's field, `null` where it has none, as in an index.
pub fn field_key(document: &RawDocument, path: &str) -> Key {
    let mut document = document;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        match document.get(name) {
            Ok(Some(value)) if names.peek().is_none() => return key(value),
            Ok(Some(RawBsonRef::Document(inner))) => document = inner,
            _ => break,
        }
    }
    key(RawBsonRef::Null)
}

fn class(value: &RawBsonRef<'_>) -> u8 {
    match value {
        RawBsonRef::MinKey => 1,
        RawBsonRef::Undefined | RawBsonRef::Null => 5,
        RawBsonRef::Double(_) | RawBsonRef::Int32(_) | RawBsonRef::Int64(_) | RawBsonRef::Decimal128(_) => 10,
        RawBsonRef::String(_) | RawBsonRef::Symbol(_) => 15,
        RawBsonRef::Document(_) => 20,
        RawBsonRef::Array(_) => 25,
        RawBsonRef::Binary(_) => 30,
        RawBsonRef::ObjectId(_) => 35,
        RawBsonRef::Boolean(_) => 40,
        RawBsonRef::DateTime(_) => 45,
        RawBsonRef::Timestamp(_) => 47,
        RawBsonRef::RegularExpression(_) => 50,
        RawBsonRef::DbPointer(_) => 55,
        RawBsonRef::JavaScriptCode(_) => 60,
        RawBsonRef::JavaScriptCodeWithScope(_) => 65,
        RawBsonRef::MaxKey => 127,
    }
}

fn put(value: RawBsonRef<'_>, out: &mut Vec<u8>) {
    out.push(class(&value));
    match value {
        RawBsonRef::Double(value) => put_number(value, 0, out),
        RawBsonRef::Int32(value) => put_number(value.into(), 0, out),
        RawBsonRef::Int64(value) => {
            let near = value as f64;
            put_number(near, (i128::from(value) - near as i128) as i16, out);
        }
        RawBsonRef::Decimal128(value) => put_number(value.to_string().parse().unwrap_or(f64::NAN), 0, out),
        RawBsonRef::String(text) | RawBsonRef::Symbol(text) | RawBsonRef::JavaScriptCode(text) => {
            out.extend_from_slice(text.as_bytes());
        }
        RawBsonRef::Document(document) => put_elements(document, out),
        RawBsonRef::Array(array) => out.extend_from_slice(array.as_bytes()),
        RawBsonRef::Binary(binary) => {
            out.extend_from_slice(&(binary.bytes.len() as u32).to_be_bytes());
            out.push(subtype(binary.subtype));
            out.extend_from_slice(binary.bytes);
        }
        RawBsonRef::ObjectId(id) => out.extend_from_slice(&id.bytes()),
        RawBsonRef::Boolean(value) => out.push(value.into()),
        RawBsonRef::DateTime(at) => {
            out.extend_from_slice(&((at.timestamp_millis() as u64) ^ (1 << 63)).to_be_bytes());
        }
        RawBsonRef::Timestamp(at) => {
            out.extend_from_slice(&at.time.to_be_bytes());
            out.extend_from_slice(&at.increment.to_be_bytes());
        }
        RawBsonRef::RegularExpression(regex) => out.extend_from_slice(regex.pattern.as_str().as_bytes()),
        RawBsonRef::DbPointer(_) | RawBsonRef::JavaScriptCodeWithScope(_) => {
            out.extend_from_slice(format!("{value:?}").as_bytes());
        }
        RawBsonRef::Undefined | RawBsonRef::Null | RawBsonRef::MinKey | RawBsonRef::MaxKey => {}
    }
}

/// A double's bits in order, and how far a long lies beside the double next to it.
fn put_number(value: f64, beside: i16, out: &mut Vec<u8>) {
    let bits = if value == 0.0 { 0 } else { value.to_bits() };
    let ordered = match (value.is_nan(), bits >> 63) {
        (true, _) => 0,
        (_, 0) => bits | (1 << 63),
        _ => !bits,
    };
    out.extend_from_slice(&ordered.to_be_bytes());
    out.extend_from_slice(&((i32::from(beside) + 0x8000) as u16).to_be_bytes());
}

/// Each element's type, name and value, escaped so that none runs into the next.
fn put_elements(document: &RawDocument, out: &mut Vec<u8>) {
    for (name, value) in document.iter().flatten() {
        out.push(class(&value));
        out.extend_from_slice(name.as_str().as_bytes());
        out.push(0);
        for byte in key(value).iter() {
            out.push(*byte);
            if *byte == 0 {
                out.push(ABOVE_ALL);
            }
        }
        out.extend_from_slice(&[0, 0]);
    }
}

fn subtype(subtype: BinarySubtype) -> u8 {
    subtype.into()
}
