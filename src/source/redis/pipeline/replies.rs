//! Counts the answers to pipelined commands: `+OK`, or a line that says why not.

use crate::error::{Error, Kind, Result};

/// One answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply<'a> {
    /// So many `+OK` in a row.
    Ok(u64),
    /// The line of an error, without its `-`.
    Error(&'a str),
}

/// An error line is short; what is longer is no Redis.
const LINE_MAX: usize = 64 << 10;

/// Answers that arrive in pieces.
#[derive(Debug, Default)]
pub struct Replies {
    /// The beginning of a line that a read has cut.
    cut: Vec<u8>,
}

impl Replies {
    /// Takes what a read brought, and hands the answers on.
    pub fn take(&mut self, bytes: &[u8], mut each: impl FnMut(Reply<'_>) -> Result<()>) -> Result<()> {
        let joined;
        let mut rest = bytes;
        if !self.cut.is_empty() {
            self.cut.extend_from_slice(bytes);
            joined = std::mem::take(&mut self.cut);
            rest = &joined;
        }
        loop {
            let (fine, after) = leading_ok(rest);
            if fine > 0 {
                each(Reply::Ok(fine))?;
            }
            rest = after;
            let Some(end) = rest.iter().position(|byte| *byte == b'\n') else { break };
            each(line(&rest[..end])?)?;
            rest = &rest[end + 1..];
        }
        if rest.len() > LINE_MAX {
            return Err(nonsense(rest));
        }
        self.cut.extend_from_slice(rest);
        Ok(())
    }
}

/// How often `+OK` stands in front, and what follows.
fn leading_ok(bytes: &[u8]) -> (u64, &[u8]) {
    let (fives, _) = bytes.as_chunks::<5>();
    let fine = fives.iter().take_while(|five| *five == b"+OK\r\n").count();
    (fine as u64, &bytes[5 * fine..])
}

fn line(line: &[u8]) -> Result<Reply<'_>> {
    let text = std::str::from_utf8(line.strip_suffix(b"\r").unwrap_or(line)).map_err(|_| nonsense(line))?;
    match text.split_at_checked(1) {
        Some(("+", _)) => Ok(Reply::Ok(1)),
        Some(("-", error)) => Ok(Reply::Error(error)),
        _ => Err(nonsense(line)),
    }
}

fn nonsense(bytes: &[u8]) -> Error {
    let start = bytes[..bytes.len().min(60)].escape_ascii();
    Error::new(Kind::Protocol, "reading the answers to RESTORE", format!("the target answered \"{start}\""))
}
