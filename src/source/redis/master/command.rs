//! What a replica says to its master: commands, and bare newlines by which it shows that it lives.

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::error::{Context, Error, Kind, Result};

/// A handshake command has a handful of short arguments; whatever is longer is no replica.
const COMMAND_MAX: usize = 64 << 10;

/// One thing that was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// One or more newlines: the replica is flushing or loading.
    Keepalive,
    /// A command with its arguments.
    Command(Vec<Vec<u8>>),
    /// The replica closed the link.
    End,
}

/// The commands that arrive on a link. `next` may be dropped and called again without losing a byte.
#[derive(Debug)]
pub struct Commands<R> {
    from: R,
    buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Commands<R> {
    /// Nothing is read yet.
    pub fn new(from: R) -> Self {
        Commands { from, buffer: BytesMut::with_capacity(4 << 10) }
    }

    /// The next thing that is heard.
    pub async fn next(&mut self) -> Result<Heard> {
        loop {
            if let Some(heard) = take(&mut self.buffer)? {
                return Ok(heard);
            }
            if self.from.read_buf(&mut self.buffer).await.doing("listening to the replica")? == 0 {
                return Ok(Heard::End);
            }
        }
    }
}

/// Takes one thing off the front of `buffer`; `None` if it is not whole yet.
///
/// Newlines may stand between commands. Commands are arrays of bulk strings; before 4.0 servers sent lines.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Heard>> {
    let newlines = buffer.iter().take_while(|byte| **byte == b'\n').count();
    if newlines > 0 {
        buffer.advance(newlines);
        return Ok(Some(Heard::Keepalive));
    }
    let mut cursor = Cursor { bytes: buffer, at: 0 };
    let Some(words) = cursor.command()? else {
        if buffer.len() > COMMAND_MAX {
            return Err(not_a_replica("a command of more than 64 KiB"));
        }
        return Ok(None);
    };
    let used = cursor.at;
    buffer.advance(used);
    Ok(Some(Heard::Command(words)))
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Cursor<'_> {
    fn command(&mut self) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(line) = self.line()? else { return Ok(None) };
        let Some(count) = line.strip_prefix(b"*") else {
            let words = line.split(|byte| *byte == b' ').filter(|word| !word.is_empty());
            return Ok(Some(words.map(<[u8]>::to_vec).collect()));
        };
        let count = number(count, 64)?;
        let mut words = Vec::with_capacity(count);
        for _ in 0..count {
            let Some(word) = self.bulk()? else { return Ok(None) };
            words.push(word);
        }
        Ok(Some(words))
    }

    fn bulk(&mut self) -> Result<Option<Vec<u8>>> {
        let Some(line) = self.line()? else { return Ok(None) };
        let Some(length) = line.strip_prefix(b"$") else { return Err(not_a_replica("no bulk string")) };
        let end = self.at + number(length, COMMAND_MAX)?;
        let Some(word) = self.bytes.get(self.at..end) else { return Ok(None) };
        if self.bytes.len() < end + 2 {
            return Ok(None);
        }
        self.at = end + 2;
        Ok(Some(word.to_vec()))
    }

    fn line(&mut self) -> Result<Option<Vec<u8>>> {
        let rest = &self.bytes[self.at..];
        let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        self.at += end + 1;
        Ok(Some(rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]).to_vec()))
    }
}

fn number(digits: &[u8], max: usize) -> Result<usize> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .filter(|number| *number <= max)
        .ok_or_else(|| not_a_replica("a length that makes no sense"))
}

fn not_a_replica(what: &str) -> Error {
    Error::new(Kind::Protocol, "listening to the replica", format!("it sent {what}"))
}
