//! BSON as canonical Extended JSON v2, letter by letter as the stock tools write it: nothing is decoded into a map, so
//! the order of fields, doubled names and odd values all stay.

use std::fmt::Write;

use mongodb::bson::{Decimal128, oid::ObjectId};

use super::raw::{self, RawValue};
use crate::error::{Error, Kind, Result};

/// Appends a document.
///
/// # Errors
/// `Damaged` if the bytes are no BSON.
pub fn document(bytes: &[u8], out: &mut String) -> Result<()> {
    let mut separator = '{';
    for element in raw::elements(bytes) {
        let (name, element) = element?;
        out.push(separator);
        text(name, out);
        out.push(':');
        value(element, out)?;
        separator = ',';
    }
    if separator == '{' {
        out.push('{');
    }
    out.push('}');
    Ok(())
}

fn array(bytes: &[u8], out: &mut String) -> Result<()> {
    out.push('[');
    for (n, element) in raw::elements(bytes).enumerate() {
        if n > 0 {
            out.push(',');
        }
        value(element?.1, out)?;
    }
    out.push(']');
    Ok(())
}

fn value(value: RawValue<'_>, out: &mut String) -> Result<()> {
    let bytes = value.bytes;
    match value.kind {
        0x01 => quoted(out, "$numberDouble", &double(f64::from_le_bytes(fixed(bytes)?))),
        0x02 => text(string(bytes)?, out),
        0x03 => document(bytes, out)?,
        0x04 => array(bytes, out)?,
        0x05 => binary(bytes, out)?,
        0x06 => out.push_str("{\"$undefined\":true}"),
        0x07 => object_id(bytes, out)?,
        0x08 => out.push_str(if bytes == [0] { "false" } else { "true" }),
        0x09 => {
            out.push_str("{\"$date\":");
            quoted(out, "$numberLong", &i64::from_le_bytes(fixed(bytes)?).to_string());
            out.push('}');
        }
        0x0a => out.push_str("null"),
        0x0b => regex(bytes, out)?,
        0x0c => {
            let (name, id) = bytes.split_at(bytes.len().saturating_sub(12));
            out.push_str("{\"$dbPointer\":{\"$ref\":");
            text(string(name)?, out);
            out.push_str(",\"$id\":");
            object_id(id, out)?;
            out.push_str("}}");
        }
        0x0d => wrapped("$code", string(bytes)?, out),
        0x0e => wrapped("$symbol", string(bytes)?, out),
        0x0f => code_with_scope(bytes, out)?,
        0x10 => quoted(out, "$numberInt", &i32::from_le_bytes(fixed(bytes)?).to_string()),
        0x11 => {
            let (i, t) = bytes.split_at(bytes.len() / 2);
            let (t, i) = (u32::from_le_bytes(fixed(t)?), u32::from_le_bytes(fixed(i)?));
            put(out, format_args!("{{\"$timestamp\":{{\"t\":{t},\"i\":{i}}}}}"));
        }
        0x12 => quoted(out, "$numberLong", &i64::from_le_bytes(fixed(bytes)?).to_string()),
        0x13 => quoted(out, "$numberDecimal", &Decimal128::from_bytes(fixed(bytes)?).to_string()),
        0xff => out.push_str("{\"$minKey\":1}"),
        0x7f => out.push_str("{\"$maxKey\":1}"),
        kind => return Err(damaged(format!("type {kind:#04x}"))),
    }
    Ok(())
}

fn put(out: &mut String, what: std::fmt::Arguments<'_>) {
    out.write_fmt(what).expect("a string takes everything");
}

/// `{"$numberInt":"5"}`
fn quoted(out: &mut String, name: &str, plain: &str) {
    put(out, format_args!("{{\"{name}\":\"{plain}\"}}"));
}

fn wrapped(name: &str, inner: &[u8], out: &mut String) {
    put(out, format_args!("{{\"{name}\":"));
    text(inner, out);
    out.push('}');
}

fn object_id(bytes: &[u8], out: &mut String) -> Result<()> {
    quoted(out, "$oid", &ObjectId::from_bytes(fixed(bytes)?).to_hex());
    Ok(())
}

fn binary(bytes: &[u8], out: &mut String) -> Result<()> {
    let (Some(kind), Some(mut data)) = (bytes.get(4), bytes.get(5..)) else { return Err(damaged("binary")) };
    // The old subtype repeats its length inside.
    if *kind == 2 && data.len() >= 4 {
        data = &data[4..];
    }
    let data = base64(data);
    put(out, format_args!("{{\"$binary\":{{\"base64\":\"{data}\",\"subType\":\"{kind:02x}\"}}}}"));
    Ok(())
}

fn regex(bytes: &[u8], out: &mut String) -> Result<()> {
    let mut parts = bytes.split(|byte| *byte == 0);
    let (Some(pattern), Some(options)) = (parts.next(), parts.next()) else {
        return Err(damaged("a regular expression"));
    };
    out.push_str("{\"$regularExpression\":{\"pattern\":");
    text(pattern, out);
    out.push_str(",\"options\":");
    text(options, out);
    out.push_str("}}");
    Ok(())
}

/// Its whole length, a string, a document.
fn code_with_scope(bytes: &[u8], out: &mut String) -> Result<()> {
    let rest = bytes.get(4..).unwrap_or_default();
    let length = rest.first_chunk().map_or(0, |length| i32::from_le_bytes(*length));
    let end = usize::try_from(length).unwrap_or_default() + 4;
    let (Some(code), Some(scope)) = (rest.get(..end), rest.get(end..)) else {
        return Err(damaged("code with a scope"));
    };
    out.push_str("{\"$code\":");
    text(string(code)?, out);
    out.push_str(",\"$scope\":");
    document(scope, out)?;
    out.push('}');
    Ok(())
}

/// A string's own bytes, without its length in front and the NUL at its end.
fn string(bytes: &[u8]) -> Result<&[u8]> {
    let inner = bytes.get(4..bytes.len().saturating_sub(1));
    inner.ok_or_else(|| damaged("a string"))
}

fn fixed<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| damaged(format!("a value of {} bytes instead of {N}", bytes.len())))
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(Kind::Damaged, "writing BSON as JSON", format!("{what} that cannot be read"))
}

/// Appends a JSON string; bytes that are no UTF-8 become U+FFFD.
pub fn text(bytes: &[u8], out: &mut String) {
    out.push('"');
    for c in String::from_utf8_lossy(bytes).chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\0'..='\u{1f}' | '\u{2028}' | '\u{2029}' => put(out, format_args!("\\u{:04x}", u32::from(c))),
            '\u{fffd}' => out.push_str("\\ufffd"),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// As Go's `strconv.FormatFloat(value, 'G', -1, 64)`, and `.0` behind what would be read as a whole number.
fn double(value: f64) -> String {
    if !value.is_finite() {
        let sign = if value < 0.0 { "-" } else { "" };
        return if value.is_nan() { "NaN".to_owned() } else { format!("{sign}Infinity") };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}E{sign}{:02}", exponent.abs())
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut encoded = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte));
        let word = word << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let sextet = (word >> (18 - 6 * digit)) as usize & 63;
            encoded.push(if digit <= chunk.len() { ALPHABET[sextet] as char } else { '=' });
        }
    }
    encoded
}
