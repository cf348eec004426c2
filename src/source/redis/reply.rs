//! RESP2, as far as a client of a handful of commands needs it. Pure.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};

/// The longest reply that is taken: `INFO`, `CLUSTER NODES` of a thousand nodes.
const REPLY_MAX: usize = 8 << 20;

/// How deep replies nest: lists of lists of maps, as `SENTINEL REPLICAS` in RESP2.
const DEPTH_MAX: u32 = 8;

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// `+OK`
    Simple(String),
    /// `-NOAUTH Authentication required.`
    Error(String),
    /// `:1`
    Integer(i64),
    /// `$3 abc`; text of any bytes.
    Bulk(Bytes),
    /// `*2 ...`
    List(Vec<Reply>),
    /// `$-1`, `*-1`
    Null,
}

impl Reply {
    /// A simple or bulk text, or a number; invalid UTF-8 replaced.
    pub fn text(&self) -> Option<String> {
        match self {
            Reply::Simple(text) => Some(text.clone()),
            Reply::Bulk(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Reply::Integer(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Reply] {
        match self {
            Reply::List(items) => items,
            _ => &[],
        }
    }

    /// The value of `name` in a list of names and values, which is a map in RESP2.
    pub fn field(&self, name: &str) -> Option<&Reply> {
        self.items().chunks_exact(2).find(|pair| pair[0].text().as_deref() == Some(name)).map(|pair| &pair[1])
    }
}

/// What is no reply.
#[derive(Debug, PartialEq, Eq)]
pub struct NoReply(pub String);

impl fmt::Display for NoReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes one reply from the beginning of `buffer`; `None` if it is not all there, and then `buffer` is untouched.
/// Bare newlines before it, by which a busy server says that it lives, are dropped.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Reply>, NoReply> {
    while buffer.first() == Some(&b'\n') {
        buffer.advance(1);
    }
    let mut rest = &buffer[..];
    let reply = parse(&mut rest, 0)?;
    match reply {
        Some(reply) => {
            let used = buffer.len() - rest.len();
            buffer.advance(used);
            Ok(Some(reply))
        }
        None if buffer.len() > REPLY_MAX => Err(NoReply(format!("a reply of more than {REPLY_MAX} bytes"))),
        None => Ok(None),
    }
}

fn parse(rest: &mut &[u8], depth: u32) -> Result<Option<Reply>, NoReply> {
    let Some(line) = take_line(rest) else { return Ok(None) };
    let (kind, text) = match line.split_first() {
        Some((kind, text)) => (*kind, String::from_utf8_lossy(text).into_owned()),
        None => return Err(NoReply("an empty line".to_owned())),
    };
    Ok(Some(match kind {
        b'+' => Reply::Simple(text),
        b'-' => Reply::Error(text),
        b':' => Reply::Integer(number(&text)?),
        b'$' => match number(&text)? {
            ..0 => Reply::Null,
            len => return bulk(rest, len),
        },
        b'*' => match number(&text)? {
            ..0 => Reply::Null,
            count => return list(rest, count, depth),
        },
        _ => return Err(NoReply(format!("{:?} does not begin a reply", line.escape_ascii().to_string()))),
    }))
}

fn bulk(rest: &mut &[u8], len: i64) -> Result<Option<Reply>, NoReply> {
    let len = usize::try_from(len).ok().filter(|len| *len <= REPLY_MAX);
    let len = len.ok_or_else(|| NoReply("a reply that is too long".to_owned()))?;
    let Some((bytes, after)) = rest.split_at_checked(len + 2) else { return Ok(None) };
    *rest = after;
    Ok(Some(Reply::Bulk(Bytes::copy_from_slice(&bytes[..len]))))
}

fn list(rest: &mut &[u8], count: i64, depth: u32) -> Result<Option<Reply>, NoReply> {
    if depth == DEPTH_MAX {
        return Err(NoReply("a reply that nests too deep".to_owned()));
    }
    let mut items = Vec::new();
    for _ in 0..count {
        let Some(item) = parse(rest, depth + 1)? else { return Ok(None) };
        items.push(item);
    }
    Ok(Some(Reply::List(items)))
}

fn number(text: &str) -> Result<i64, NoReply> {
    text.parse().map_err(|_| NoReply(format!("{text:?} where a number was expected")))
}

/// Takes a line without its end; `None` if it has none yet.
fn take_line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

/// A command as a list of bulk strings.
pub fn command(words: &[&str]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n{word}\r\n", word.len()).as_bytes());
    }
    bytes
}
