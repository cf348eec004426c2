//! Writes by `applyOps`, as a mongod's own secondaries apply them: nothing is read, differences are applied by the server.
//!
//! Without commands in it the server takes no lock that would keep others out, so several go at once. One that is sent
//! twice does the same twice: an insert of what is there replaces it, a difference says what values are to be.

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
use super::compose::{Composer, TRUE, kind};
use super::key::canonical;
use super::route::{Change, Write, shown};
use super::shapes::{Shape, encoded};
use super::update::{self, Form};
use super::wire::Wire;
use crate::error::{Error, Kind, Result};

/// A command is sent when it has so many operations, ...
const OPS_MAX: usize = 5_000;

/// ... or so many bytes. A command is a document: one operation with a document of 16 MiB still has to fit into its own.
const BYTES_MAX: usize = 4 << 20;

/// Whether the target lets us.
///
/// # Errors
/// `Unreachable` and the like; a refusal is an answer.
pub async fn is_granted(wire: &Wire<'_>) -> Result<bool> {
    let asked = encoded(&doc! { "applyOps": [] })?;
    Ok(wire.attempt("admin", &asked, "applyOps").await?.is_ok())
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
        let (sent, later) = rest.split_at(count);
        let refused = wire.attempt("admin", &command, "applyOps").await?.err();
        match refused {
            None => {}
            Some(error) if code_of(&error) == Some(code::UNAUTHORIZED) => return Ok(false),
            Some(error) => excuse(sent, error, tolerate_until)?,
        }
        rest = later;
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

/// A change of a document that is not there is refused, and the others of the command are done. Where the data may be newer
/// than the log, that document went by a later entry.
fn excuse(sent: &[&Write], error: DriverError, tolerate_until: OpTime) -> Result<()> {
    let results = error.server_response().map(|reply| results(reply)).unwrap_or_default();
    let tolerable = |write: &Write| matches!(write.change, Change::Patch(_)) && write.at <= tolerate_until;
    let whole = results.len() == sent.len();
    let mut failures = sent.iter().zip(&results).filter(|(_, done)| !**done).map(|(write, _)| write);
    match failures.clone().find(|write| !tolerable(write)) {
        None if whole && failures.next().is_some() => Ok(()),
        Some(write) if whole && matches!(write.change, Change::Patch(_)) => {
            let why = format!("it changes the document with _id {}, which is not there", shown(&write.id));
            Err(Error::new(Kind::Damaged, format!("replaying {} on {}", write.at, write.ns), why).hint(
                "the backup and the log do not fit together: somebody else writes to the target, or the backup lacks documents",
            ))
        }
        other => {
            let doing = match other {
                Some(write) => format!("replaying {} on {}, _id {}", write.at, write.ns, shown(&write.id)),
                None => "sending applyOps".to_owned(),
            };
            Err(failed(doing, error))
        }
    }
}

fn results(reply: &RawDocument) -> Vec<bool> {
    let Ok(results) = reply.get_array("results") else { return Vec::new() };
    results.into_iter().map(|done| done.is_ok_and(|done| done.as_bool() == Some(true))).collect()
}
