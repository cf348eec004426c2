//! What an artifact's object is called: its true name, made safe for every store.

use crate::vault::manifest::Codec;

/// The longest escaped name, in bytes, without the endings.
const NAME_MAX: usize = 120;

/// The escaped name with the endings that say what was done: `shop/users.bson` becomes `shop/users.bson.zst`.
///
/// Kept as they are: lower-case letters, digits, `-`, `_`, `/` between parts, and `.` in the last part. All else is `=`
/// and two hex digits, so that stores that fold case, or keep directories, never see two names as one: no
/// directory has a name that an object could have. A longer name than 120 bytes keeps its beginning and ends in
/// `=` and 128 bits of the SHA-256 of the true name.
pub fn object_name(name: &str, codecs: &[Codec]) -> String {
    let mut escaped = escape(name);
    if escaped.len() > NAME_MAX {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
        escaped.truncate(NAME_MAX - 33);
        escaped = format!("{escaped}={}", hex::encode(&digest.as_ref()[..16]));
    }
    for codec in codecs {
        escaped.push_str(match codec {
            Codec::Zstd => ".zst",
            Codec::Age => ".age",
        });
    }
    escaped
}

fn escape(name: &str) -> String {
    let (folder, last) = match name.rsplit_once('/') {
        Some((folder, last)) => (Some(folder), last),
        None => (None, name),
    };
    let mut escaped = String::new();
    for part in folder.into_iter().flat_map(|folder| folder.split('/')) {
        escape_part(part, false, &mut escaped);
        escaped.push('/');
    }
    escape_part(last, true, &mut escaped);
    escaped
}

fn escape_part(part: &str, dots: bool, escaped: &mut String) {
    for byte in part.bytes() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => escaped.push(byte as char),
            b'.' if dots => escaped.push('.'),
            _ => escaped.push_str(&format!("={byte:02x}")),
        }
    }
    if part.is_empty() {
        escaped.push('=');
    }
}
