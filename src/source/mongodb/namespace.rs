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

/// Before the name of a time series stands this in the name of the collection that holds its documents (before 8.3).
pub const BUCKETS: &str = "system.buckets.";

/// A file name of the stock tools is no longer than this without its endings.
const STEM_MAX: usize = 238;

/// So much stays of a longer one, and after it come a dollar sign, escaped, and a hash.
const STEM_KEPT: usize = 208;
const CUT: &str = "%24";

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

    /// The time series that buckets belong to, else the collection itself.
    pub fn series(&self) -> Namespace {
        let name = self.collection.strip_prefix(BUCKETS).unwrap_or(&self.collection);
        Namespace::new(&*self.db, name)
    }

    /// Where the documents of a time series lie.
    pub fn buckets(&self) -> Namespace {
        Namespace::new(&*self.db, format!("{BUCKETS}{}", self.collection))
    }

    /// `<db>/<collection>` as mongodump names files, without an ending.
    pub fn file_stem(&self) -> String {
        format!("{}/{}", self.db, file_name(&self.collection))
    }
}

/// Whether a database belongs to the deployment itself: to another it means nothing.
pub fn is_own(db: &str) -> bool {
    matches!(db, "local" | "config") || db.starts_with("__mdb_internal")
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.db, self.collection)
    }
}

/// A collection's name as a file's: escaped as Go's `url.QueryEscape` does. What is longer than 238 bytes then is its first
/// 208 bytes, `%24`, and the SHA-1 of the true name in unpadded base 64 for URLs (27 digits), 238 bytes again. The cut may go
/// through an escape: nobody reads such a stem back, its metadata has the name.
pub fn file_name(collection: &str) -> String {
    let escaped = query_escape(collection);
    if escaped.len() <= STEM_MAX {
        return escaped;
    }
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, collection.as_bytes());
    format!("{}{CUT}{}", &escaped[..STEM_KEPT], base64_url(sha1.as_ref()))
}

/// The collection whose file has this stem, by the `collectionName` of its metadata where that is there: a stem that was
/// cut does not tell. `None` if neither tells, or the two do not fit.
pub fn collection_of_file(stem: &str, named: Option<&str>) -> Option<String> {
    match named {
        Some(name) => (file_name(name) == stem).then(|| name.to_owned()),
        None if is_cut(stem) => None,
        None => query_unescape(stem),
    }
}

/// Whether a stem was cut: then its length is exact, and it has the `%24` that no collection's name can bring into it.
pub fn is_cut(stem: &str) -> bool {
    stem.len() == STEM_MAX && stem.contains(CUT)
}

/// Letters, digits, `-`, `_`, `.` and `~` stay, a space is `+`, every other byte is `%XX`.
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

/// The text that was escaped; `None` if it is none.
fn query_unescape(escaped: &str) -> Option<String> {
    let mut text = Vec::new();
    let mut bytes = escaped.bytes();
    while let Some(byte) = bytes.next() {
        text.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            other => other,
        });
    }
    String::from_utf8(text).ok()
}

/// Base 64 in the alphabet for URLs, without padding.
fn base64_url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits =
            chunk.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(ALPHABET[(bits >> (18 - 6 * digit)) as usize & 63] as char);
        }
    }
    text
}
