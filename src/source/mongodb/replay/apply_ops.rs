//! Writes by `applyOps`, as a mongod's own secondaries apply them: nothing is read, differences are applied by the server.
//!
//! Without commands in it the server takes no lock that would keep others out, so several go at once. One that is sent
//! twice does the same twice: an insert of what is there replaces it, a difference says what values are to be, and one whose
//! document the same command takes away is not missed.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::try_join_all;
use mongodb::bson::{RawDocument, doc};
use mongodb::error::Error as DriverError;

use super::super::failure::{code, code_of, failed};
use super::super::namespace::Namespace;
use super::super::optime::OpTime;
use super::bulk::LANES;
use super::compose::{Composer, FALSE, TRUE, kind};
use super::key::canonical;
use super::route::{Change, Write};
use super::shapes::{Shape, encoded};
use super::update::{self, Form};
use super::wire::Wire;
use crate::error::{Error, Kind, Result};

/// A command is sent when it has so many operations, ...
const OPS_MAX: usize = 5_000;

/// ... or so many bytes. A command is a document: one operation with a document of 16 MiB still has to fit into its own.
const BYTES_MAX: usize = 4 << 20;

/// How a command is refused in which documents were missing: by one word for all that was refused, or at the first, with its own.
const MISSING: [i32; 3] = [code::UNKNOWN_ERROR, code::NAMESPACE_NOT_FOUND, code::UPDATE_OPERATION_FAILED];

/// Whether the target lets us.
///
/// # Errors
/// `Unreachable` and the like; a refusal is an answer.
pub async fn is_granted(wire: &Wire<'_>) -> Result<bool> {
    let asked = encoded(&doc! { "applyOps": [] })?;
    Ok(wire.attempt("admin", &asked, "applyOps").await?.reply.is_ok())
}

/// Whether a mongod would understand all of these: some compatible servers log differences in words of their own.
pub fn understands(writes: &[Write]) -> Result<bool> {
    for write in writes {
        if let Change::Patch(o) = &write.change
            && update::form(o)? == Form::Description
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Applies the writes of a window. False: the target does not grant it after all, and nothing was done.
///
/// # Errors
/// The server's refusal; `Damaged` where log and data do not fit together.
pub async fn apply(
    wire: &Wire<'_>,
    writes: &[Write],
    shapes: &HashMap<Arc<Namespace>, Shape>,
    tolerate_until: OpTime,
) -> Result<bool> {
    let mut lanes: [Vec<&Write>; LANES] = Default::default();
    for write in writes {
        let mut hasher = DefaultHasher::new();
        write.ns.hash(&mut hasher);
        if !matches!(shapes.get(&write.ns), Some(Shape::Capped | Shape::Collated)) {
            canonical(write.id.value()).hash(&mut hasher);
        }
        lanes[hasher.finish() as usize % LANES].push(write);
    }
    let lanes = lanes.iter().map(|lane| apply_lane(wire, lane, tolerate_until));
    Ok(try_join_all(lanes).await?.into_iter().all(|granted| granted))
}

async fn apply_lane(wire: &Wire<'_>, lane: &[&Write], tolerate_until: OpTime) -> Result<bool> {
    let mut rest = lane;
    while !rest.is_empty() {
        let (command, count) = compose(rest);
        let answer = wire.attempt("admin", &command, "applyOps").await?;
        let done = match answer.reply {
            Ok(_) => count,
            Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => return Ok(false),
            Err(error) => {
                let sent = Sent { writes: &rest[..count], again: answer.again, tolerate_until };
                sent.excuse(error)?
            }
        };
        rest = &rest[done..];
    }
    Ok(true)
}

/// The command for as many of these as go into one.
pub fn compose(writes: &[&Write]) -> (Bytes, usize) {
    let mut out = Composer::new();
    out.open(kind::ARRAY, b"applyOps");
    let mut count = 0;
    for write in writes {
        if count > 0 && (count >= OPS_MAX || out.size() + write.size() > BYTES_MAX) {
            break;
        }
        out.open(kind::DOCUMENT, count.to_string().as_bytes());
        operation(&mut out, write);
        out.close();
        count += 1;
    }
    out.close();
    // Servers that can do all or nothing would else do nothing if one of them is refused.
    out.element(b"allowAtomic", FALSE);
    (out.finish(), count)
}

/// Without the session, the collection's UUID and the time of the original: they mean nothing to the target.
fn operation(out: &mut Composer, write: &Write) {
    let op = match &write.change {
        Change::Insert(_) => "i",
        Change::Replace(_) | Change::Patch(_) => "u",
        Change::Remove => "d",
    };
    out.text(b"op", op);
    out.text(b"ns", &write.ns.to_string());
    let key = |out: &mut Composer, name: &[u8]| {
        out.open(kind::DOCUMENT, name);
        out.element(b"_id", write.id.value());
        out.close();
    };
    match &write.change {
        Change::Insert(o) => out.document(b"o", o),
        Change::Replace(o) => {
            out.document(b"o", o);
            key(out, b"o2");
            out.element(b"b", TRUE);
        }
        Change::Patch(o) => {
            out.document(b"o", o);
            key(out, b"o2");
        }
        Change::Remove => key(out, b"o"),
    }
}

/// What went in one command.
struct Sent<'a> {
    writes: &'a [&'a Write],
    /// Whether it was sent before, and may have been done.
    again: bool,
    tolerate_until: OpTime,
}

impl Sent<'_> {
    /// A change of a document that is not there is refused. Tells how many of the writes the server has been through, if that is
    /// all that it refused, and there is a reason: the others are done.
    fn excuse(&self, error: DriverError) -> Result<usize> {
        let results = error.server_response().map(|reply| results(reply)).unwrap_or_default();
        let through = results.len();
        let is_missing = code_of(&error).is_some_and(|code| MISSING.contains(&code));
        let mut failures = (0..through.min(self.writes.len())).filter(|n| !results[*n]).peekable();
        if !is_missing || through > self.writes.len() || failures.peek().is_none() {
            return Err(failed("sending applyOps", error));
        }
        let removed = self.removed();
        let Some(write) = failures.find(|n| !self.is_excused(*n, &removed)).map(|n| self.writes[n]) else {
            return Ok(through);
        };
        let doing = format!("replaying {} on {}", write.at, write.ns);
        match write.change {
            Change::Patch(_) => {
                let why = format!("it changes the document with _id {}, which is not there", write.id);
                Err(Error::new(Kind::Damaged, doing, why).hint(
                    "the backup and the log do not fit together: somebody else writes to the target, or the backup lacks documents",
                ))
            }
            _ => Err(failed(format!("{doing}, _id {}", write.id), error)),
        }
    }

    /// Where the data may be newer than the log, the document went by a later entry. So it did where the command was done before,
    /// in whole or in part: then the entry that took it away stands behind this one, and takes it away again. No insert stands
    /// between the two, or the document would be there.
    fn is_excused(&self, n: usize, removed: &HashMap<Place<'_>, usize>) -> bool {
        let write = self.writes[n];
        let is_gone = || removed.get(&place(write)).is_some_and(|last| *last > n);
        matches!(write.change, Change::Patch(_)) && (write.at <= self.tolerate_until || is_gone())
    }

    /// Which documents are taken away, and by which of the writes last; of a command that was sent before.
    fn removed(&self) -> HashMap<Place<'_>, usize> {
        let removals = self.writes.iter().enumerate().filter(|(_, write)| write.change == Change::Remove);
        removals.filter(|_| self.again).map(|(n, write)| (place(write), n)).collect()
    }
}

/// One document.
type Place<'a> = (&'a Namespace, Vec<u8>);

fn place(write: &Write) -> Place<'_> {
    (&write.ns, canonical(write.id.value()))
}

fn results(reply: &RawDocument) -> Vec<bool> {
    let Ok(results) = reply.get_array("results") else { return Vec::new() };
    results.into_iter().map(|done| done.is_ok_and(|done| done.as_bool() == Some(true))).collect()
}
