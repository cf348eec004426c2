//! The replica's half of replication, as far as the RDB: attach, take it at line speed, leave.
//!
//! Protocol: `replication.c` of Redis. Each answer is read before the next command is sent, because a server refuses
//! `PSYNC` to a client that still has output pending. While it waits or forks the server sends bare newlines. The RDB
//! comes as `$<length>` or, diskless, between `$EOF:<mark>` and the mark; its end is found by walking it, so a mark in
//! the data or across two reads deceives nobody.

use std::time::Duration;

use bytes::Bytes;

use super::connection::Connection;
use super::rdb::{Summary, Walker};
use super::reply::{self, Reply};
use crate::error::{Error, Kind, Result};

/// How long the server may be silent: its own default `repl-timeout`, after which it would give us up as well. While it
/// prepares it sends a newline each second.
pub const SILENCE: Duration = Duration::from_secs(60);

/// A server that sends nothing for so long in the middle of its RDB is stuck, or the way to it is.
const STALLED: Duration = Duration::from_secs(5);

/// The longest line that announces the RDB, with room to see what came instead.
const HEADER_MAX: usize = 512;

const MARK: usize = 40;

/// A place in a replication history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// 40 letters that name the history.
    pub replid: String,
    /// Bytes of it that the RDB contains.
    pub offset: u64,
}

/// An RDB on its way.
#[derive(Debug)]
pub struct Transfer {
    connection: Connection,
    walker: Walker,
    form: Form,
    /// What the RDB is the state of.
    pub position: Position,
    /// Whether the server knows that we take the RDB only. Before 6.2 none does: it holds all writes for us until we leave.
    pub rdb_only: bool,
}

/// How the RDB's end is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Length(u64),
    Mark([u8; MARK]),
}

impl Transfer {
    /// Attaches as a replica; returns when the first byte of the RDB is about to come.
    ///
    /// # Errors
    /// `Denied` naming the right; `Unready` for `-LOADING`, `-NOMASTERLINK` and a failed BGSAVE; `Unsupported` where the
    /// server has no PSYNC; `Timeout` naming what was awaited.
    pub async fn begin(mut connection: Connection) -> Result<Transfer> {
        greet(&mut connection).await?;
        let rdb_only = announce(&mut connection).await?;
        connection.send("PSYNC", &reply::command(&["PSYNC", "?", "-1"])).await?;
        let position = position(&mut connection).await?;
        let form = form(&mut connection).await?;
        Ok(Transfer { connection, walker: Walker::new(), form, position, rdb_only })
    }

    /// How long the RDB is, if the server said so before it.
    pub fn length(&self) -> Option<u64> {
        match self.form {
            Form::Length(length) => Some(length),
            Form::Mark(_) => None,
        }
    }

    /// The next bytes of the RDB, walked and summed; `None` after the last.
    ///
    /// # Errors
    /// `Unreachable` if the transfer is cut, `Timeout` if it stalls, `Damaged` if what comes is no RDB.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        if self.walker.is_done() {
            return Ok(None);
        }
        if self.connection.unread().is_empty() {
            self.more().await?;
        }
        let fed = self.walker.feed(self.connection.unread(), &mut ());
        let taken =
            fed.map_err(|error| error.while_doing(format!("backing up {}", self.connection.address)))?;
        if self.length().is_some_and(|length| self.walker.bytes() > length) {
            return Err(self.wrong_length());
        }
        Ok(Some(self.connection.take(taken)))
    }

    /// What was seen, once the RDB, its sum and its mark were as they should be. Leaves the server.
    pub async fn finish(mut self) -> Result<Summary> {
        match self.form {
            Form::Length(length) if length != self.walker.bytes() => return Err(self.wrong_length()),
            Form::Length(_) => {}
            Form::Mark(mark) => {
                while self.connection.unread().len() < MARK {
                    self.more().await?;
                }
                if self.connection.unread()[..MARK] != mark {
                    return Err(self.damaged("the mark after the RDB is not the announced one"));
                }
            }
        }
        let doing = format!("backing up {}", self.connection.address);
        let summary = self.walker.finish().map_err(|error| error.while_doing(doing))?;
        self.connection.close().await;
        Ok(summary)
    }

    async fn more(&mut self) -> Result<()> {
        let cut = |connection: &Connection, walker: &Walker, why: String| {
            let doing = format!("reading the RDB from Redis at {}", connection.address);
            let why = format!("the transfer was cut after {} bytes{why}", walker.bytes());
            Error::new(Kind::Unreachable, doing, why).hint(
                "look into the server's log: its BGSAVE child died, it was restarted, or the way to it broke",
            )
        };
        match self.connection.fill("the rest of the RDB", SILENCE).await {
            Ok(0) => Err(cut(&self.connection, &self.walker, String::new())),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == Kind::Unreachable => {
                let why = format!(": {}", error.why());
                Err(cut(&self.connection, &self.walker, why).caused_by(error))
            }
            Err(error) => Err(error),
        }
    }

    /// The error of a deadline that passed meanwhile; where the server is what it waited for, that is said.
    pub fn late(&self, error: Error) -> Error {
        let silence = self.connection.silent_for();
        if error.kind() != Kind::Timeout || silence < STALLED {
            return error;
        }
        let why = format!("{}, and nothing came for {} s before it", error.why(), silence.as_secs());
        let doing = format!("reading the RDB from Redis at {}: {}", self.connection.address, error.doing());
        Error::new(Kind::Timeout, doing, why).hint("is the server stuck, or the way to it?").caused_by(error)
    }

    fn wrong_length(&self) -> Error {
        let announced = self.length().unwrap_or_default();
        self.damaged(format!("{announced} bytes were announced, the RDB has {}", self.walker.bytes()))
    }

    fn damaged(&self, why: impl std::fmt::Display) -> Error {
        Error::new(Kind::Damaged, format!("reading the RDB from Redis at {}", self.connection.address), why)
            .hint("no backup was made of it; try again, and look into the server's log")
    }
}

/// `PING`, to see whether the server is ready for us. `-MISCONF` it is: it says that the last BGSAVE to its disk failed,
/// which is one more reason for a backup.
async fn greet(connection: &mut Connection) -> Result<()> {
    match connection.call(&["PING"]).await? {
        Reply::Error(text) if !text.starts_with("MISCONF") => Err(connection.refusal("PING", &text)),
        _ => Ok(()),
    }
}

/// Says what we can, and that the RDB is all we want; whether the server understood the latter.
async fn announce(connection: &mut Connection) -> Result<bool> {
    let capabilities = ["REPLCONF", "capa", "eof", "capa", "psync2"];
    for (words, needed) in [(&capabilities[..], true), (&["REPLCONF", "rdb-only", "1"][..], false)] {
        match connection.call(words).await? {
            Reply::Error(text) if text.starts_with("NOPERM") || text.starts_with("NOAUTH") => {
                return Err(connection.refusal("REPLCONF", &text));
            }
            Reply::Error(text) if needed => return Err(connection.refusal("REPLCONF", &text)),
            Reply::Error(_) => return Ok(false),
            _ => {}
        }
    }
    Ok(true)
}

/// `+FULLRESYNC <replid> <offset>`
async fn position(connection: &mut Connection) -> Result<Position> {
    let text = match connection.reply("PSYNC", SILENCE).await? {
        Reply::Simple(text) => text,
        Reply::Error(text) => return Err(refused(connection, &text)),
        other => format!("{other:?}"),
    };
    let mut words = text.split(' ');
    let parts = (words.next(), words.next(), words.next().and_then(|offset| offset.parse().ok()));
    match parts {
        (Some("FULLRESYNC"), Some(replid), Some(offset)) if replid.len() == MARK => {
            Ok(Position { replid: replid.to_owned(), offset })
        }
        _ => {
            let why = format!("{:?} instead of FULLRESYNC, a replication id and an offset", shortened(&text));
            Err(Error::new(Kind::Protocol, doing(connection), why))
        }
    }
}

/// `$<length>` or `$EOF:<mark>`
async fn form(connection: &mut Connection) -> Result<Form> {
    let line = header(connection).await?;
    if let Some(error) = line.strip_prefix('-') {
        return Err(refused(connection, error));
    }
    let rest = line.strip_prefix('$');
    if let Some(mark) =
        rest.and_then(|rest| rest.strip_prefix("EOF:")).and_then(|mark| mark.as_bytes().try_into().ok())
    {
        return Ok(Form::Mark(mark));
    }
    match rest.and_then(|rest| rest.parse().ok()) {
        Some(length) => Ok(Form::Length(length)),
        None => {
            let why = format!("{:?} instead of the RDB's length or mark", shortened(&line));
            Err(Error::new(Kind::Protocol, doing(connection), why))
        }
    }
}

/// The line before the RDB, after any number of newlines.
async fn header(connection: &mut Connection) -> Result<String> {
    loop {
        let newlines = connection.unread().iter().take_while(|byte| **byte == b'\n').count();
        connection.skip(newlines);
        let unread = connection.unread();
        if let Some(end) = unread.iter().take(HEADER_MAX).position(|byte| *byte == b'\n') {
            let line = connection.take(end + 1);
            return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
        if unread.len() >= HEADER_MAX {
            let why =
                format!("{:?} instead of the RDB's length or mark", unread[..80].escape_ascii().to_string());
            return Err(Error::new(Kind::Protocol, doing(connection), why));
        }
        let awaited = match unread.is_empty() {
            true => "the beginning of the RDB, after PSYNC was accepted",
            false => "the rest of the line before the RDB",
        };
        match connection.fill(awaited, SILENCE).await {
            Ok(0) => return Err(no_rdb(connection)),
            Err(error) if error.kind() == Kind::Unreachable => {
                return Err(no_rdb(connection).caused_by(error));
            }
            filled => filled?,
        };
    }
}

/// A server whose BGSAVE failed after `+FULLRESYNC` says so in its log only, and hangs up.
fn no_rdb(connection: &Connection) -> Error {
    let why = "the server accepted PSYNC and hung up without an RDB: its BGSAVE failed, or it was stopped";
    Error::new(Kind::Unready, doing(connection), why).hint(
        "look into the server's log. With repl-diskless-sync no it needs room for an RDB in its `dir`; in any case \
         memory for a fork (vm.overcommit_memory = 1)",
    )
}

fn refused(connection: &Connection, text: &str) -> Error {
    if text.contains("BGSAVE failed") {
        return Error::new(Kind::Unready, doing(connection), text).hint(
            "look into the server's log: it could not fork (vm.overcommit_memory = 1 helps) or not write to its `dir`",
        );
    }
    if text.contains("unknown command") {
        return Error::new(Kind::Unsupported, doing(connection), text)
            .hint("hosted servers hide PSYNC; back this one up by its provider's snapshots");
    }
    if text.contains("failing over") || text.contains("failover") {
        return Error::new(Kind::Unready, doing(connection), text);
    }
    connection.refusal("PSYNC", text)
}

fn doing(connection: &Connection) -> String {
    format!("attaching to Redis at {} as a replica", connection.address)
}

fn shortened(text: &str) -> String {
    text.chars().take(80).collect()
}
