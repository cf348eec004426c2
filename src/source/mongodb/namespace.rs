//! Names of databases and collections, and the file names that the stock tools give them.

use std::fmt;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use serde::{Deserialize, Serialize};

/// A collection of a database, by its true names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Namespace {
    /// The database.
    pub db: String,
    /// The collection.
    pub collection: String,
}

/// A file name of the stock tools is no longer than this without its endings; a longer one is cut and gets a hash.
const STEM_MAX: usize = 238;
const STEM_KEPT: usize = 208;

impl Namespace {
    /// From its two names.
    pub fn new(db: impl Into<String>, collection: impl Into<String>) -> Self {
        Namespace { db: db.into(), collection: collection.into() }
    }

    /// From `db.collection`: a database's name has no dot.
    pub fn parse(text: &str) -> Option<Self> {
        let (db, collection) = text.split_once('.')?;
        (!db.is_empty() && !collection.is_empty()).then(|| Namespace::new(db, collection))
    }

    /// `<db>/<collection>` as mongodump names files, without an ending.
    pub fn file_stem(&self) -> String {
        format!("{}/{}", self.db, file_name(&self.collection))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.collection)
    }
}

/// A collection's name as a file's: as a URL's query would be escaped. One longer than 238 bytes is its first 208, `%24`
/// and the unpadded... see the tests for the exact form. (`util.EscapeCollectionName` and `archive` of the stock tools.)
pub fn file_name(collection: &str) -> String {
    let escaped = query_escape(collection);
    if escaped.len() <= STEM_MAX {
        return escaped;
    }
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, collection.as_bytes());
    format!("{}%24{}", &escaped[..STEM_KEPT], base64_url(sha1.as_ref()))
}

/// As Go's `url.QueryEscape`: letters, digits, `-`, `_`, `.` and `~` stay, a space is `+`, all else `%XX`.
fn query_escape(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => escaped.push(byte as char),
            b' ' => escaped.push('+'),
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Base 64 in the alphabet for URLs, with padding.
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            match digit <= chunk.len() {
                true => text.push(ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63] as char),
                false => text.push('='),
            }
        }
    }
    text
}
