//! Reads the JSON documents that the CLI prints.
//!
//! Every command makes the same document that the API answers with, and its text is made from that document
//! alone: so `--json`, `--server` and the terminal can never tell different stories.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::human;
use super::look::{Look, Tone};
use crate::error::{Error, Kind, Result};

/// What stands for a value that is not there.
pub const NOTHING: &str = "-";

/// A view as the document that is printed.
pub fn of(view: &impl Serialize) -> Result<Value> {
    serde_json::to_value(view).map_err(unwritable)
}

/// A view as the text of the document, with the line's end.
pub fn written(view: &impl Serialize) -> Result<String> {
    serde_json::to_string_pretty(view).map(|text| text + "\n").map_err(unwritable)
}

fn unwritable(cause: serde_json::Error) -> Error {
    Error::new(Kind::Internal, "writing the answer as JSON", &cause).caused_by(cause)
}

/// The document of a list (`json!` would copy each of its items).
pub fn list(name: &str, items: Vec<Value>) -> Value {
    Value::Object([(name.to_owned(), Value::Array(items))].into_iter().collect())
}

/// The text at `pointer`; empty if there is none.
pub fn text<'a>(document: &'a Value, pointer: &str) -> &'a str {
    document.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The number at `pointer`.
pub fn number(document: &Value, pointer: &str) -> Option<u64> {
    document.pointer(pointer).and_then(Value::as_u64)
}

/// Whether `true` is at `pointer`.
pub fn is(document: &Value, pointer: &str) -> bool {
    document.pointer(pointer).and_then(Value::as_bool).unwrap_or(false)
}

/// The time at `pointer`.
pub fn time(document: &Value, pointer: &str) -> Option<Timestamp> {
    text(document, pointer).parse().ok()
}

/// The items of the list at `pointer`.
pub fn items<'a>(document: &'a Value, pointer: &str) -> &'a [Value] {
    document.pointer(pointer).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// The text at `pointer`, or a dash.
pub fn text_or_dash(document: &Value, pointer: &str) -> String {
    match text(document, pointer) {
        "" => NOTHING.to_owned(),
        text => text.to_owned(),
    }
}

/// The number of bytes at `pointer`, or a dash.
pub fn bytes(document: &Value, pointer: &str) -> String {
    number(document, pointer).map_or_else(|| NOTHING.to_owned(), human::bytes)
}

/// The count at `pointer`, or a dash.
pub fn count(document: &Value, pointer: &str) -> String {
    number(document, pointer).map_or_else(|| NOTHING.to_owned(), human::count)
}

/// The age of the time at `pointer`, or a dash.
pub fn age(document: &Value, pointer: &str, look: &Look) -> String {
    time(document, pointer).map_or_else(|| NOTHING.to_owned(), |then| human::age(then, look.now))
}

/// `redis-main/20261121T060000Z-4k7q2m` of a backup that is an object or such a text.
pub fn backup(document: &Value, pointer: &str) -> String {
    match document.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(object) => format!("{}/{}", text(object, "/source"), text(object, "/id")),
        None => NOTHING.to_owned(),
    }
}

/// How the status of a backup or a run sounds.
pub fn tone(status: &str) -> Tone {
    match status {
        "complete" | "succeeded" | "verified" | "restored" | "ok" => Tone::Good,
        "partial" | "suspect" | "waiting" | "requested" | "running" | "warning" => Tone::Warning,
        "failed" | "damaged" | "unreadable" | "interrupted" | "refused" | "error" => Tone::Bad,
        "abandoned" | "cancelled" => Tone::Dim,
        _ => Tone::Plain,
    }
}

/// Findings, one on a line, each with its advice below; what is `ok` is one word.
pub fn findings(list: &[Value], look: &Look) -> String {
    let mut shown = String::new();
    for finding in list {
        let severity = text(finding, "/severity");
        let mark = look.paint(tone(severity), &format!("{severity:<7}"));
        shown.push_str(&format!("  {mark}  {}\n", text(finding, "/what")));
        if !text(finding, "/advice").is_empty() {
            shown.push_str(&format!("           {}\n", text(finding, "/advice")));
        }
    }
    shown
}
