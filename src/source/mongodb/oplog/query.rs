//! Small questions about the oplog.

use bytes::Bytes;
use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};
use mongodb::options::{ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::RawBatch;

use super::super::client::Link;
use super::super::cursor;
use super::super::failure::{code, code_of, failed};
use super::super::optime::OpTime;
use super::super::raw;
use super::entry::stamp;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// What is asked for here has few answers.
const FEW: u32 = 101;

/// The newest entry that a majority has; none where there is no oplog: a standalone server keeps none.
///
/// A primary is asked where there is one: whatever was read from a secondary before is not newer than its answer.
pub async fn newest(link: &Link, task: &Task) -> Result<Option<(OpTime, Bytes)>> {
    let find = doc! {
        "find": "oplog.rs", "sort": { "$natural": -1 }, "limit": 1, "singleBatch": true,
        "readConcern": { "level": "majority" },
    };
    let primary = ReadPreference::PrimaryPreferred { options: None };
    first(ask(link, task, "local", find, primary.into()).await?)
}

/// The oldest entry; none where there is no oplog.
pub async fn oldest(link: &Link, task: &Task) -> Result<Option<OpTime>> {
    oldest_at(link, task, link.reads()).await
}

/// The oldest entry of a chosen server.
pub(super) async fn oldest_at(link: &Link, task: &Task, reads: SelectionCriteria) -> Result<Option<OpTime>> {
    Ok(first(ask(link, task, "local", oldest_since(OpTime::ZERO), reads).await?)?.map(|(at, _)| at))
}

/// The first entry at or after a place; none where there is none yet.
pub async fn first_since(link: &Link, from: OpTime, task: &Task) -> Result<Option<OpTime>> {
    Ok(first(ask(link, task, "local", oldest_since(from), link.reads()).await?)?.map(|(at, _)| at))
}

fn oldest_since(from: OpTime) -> Document {
    let mut find = doc! { "find": "oplog.rs", "sort": { "$natural": 1 }, "limit": 1, "singleBatch": true };
    if from > OpTime::ZERO {
        find.insert("filter", doc! { "ts": { "$gte": Timestamp::from(from) } });
    }
    find
}

/// Where the oldest transaction began that is in progress or prepared: what it has written so far stands in the log from there.
/// None where there is none.
pub async fn open_since(link: &Link, task: &Task) -> Result<Option<OpTime>> {
    let find = doc! {
        "find": "transactions", "singleBatch": true, "limit": 1, "sort": { "startOpTime.ts": 1 },
        "filter": { "state": { "$in": ["prepared", "inProgress"] }, "startOpTime.ts": { "$exists": true } },
        "projection": { "_id": 0, "startOpTime": 1 },
    };
    let primary = ReadPreference::PrimaryPreferred { options: None };
    let found = ask(link, task, "config", find, primary.into()).await?;
    let Some(found) = found.first() else { return Ok(None) };
    Ok(raw::field(found, "startOpTime")?.and_then(|start| stamp(start.bytes)))
}

/// The entries of one ts; empty if there is none.
pub(super) async fn record_at(
    link: &Link,
    task: &Task,
    at: OpTime,
    level: &str,
    reads: SelectionCriteria,
) -> Result<Vec<Vec<u8>>> {
    let find = doc! {
        "find": "oplog.rs", "filter": { "ts": Timestamp::from(at) }, "readConcern": { "level": level },
    };
    ask(link, task, "local", find, reads).await
}

/// All documents of a small query.
async fn ask(
    link: &Link,
    task: &Task,
    db: &str,
    find: Document,
    reads: SelectionCriteria,
) -> Result<Vec<Vec<u8>>> {
    let doing = || format!("reading {db}.{} of {}", find.get_str("find").unwrap_or_default(), link.endpoint);
    let command =
        RawDocumentBuf::try_from(&find).map_err(|cause| Error::new(Kind::Internal, doing(), cause))?;
    let mut found = Vec::new();
    let asked = cursor::each(link, db, command, FEW, reads, |document| {
        found.push(document.to_vec());
        Ok(())
    });
    match task.guard(asked).await? {
        Ok(()) => Ok(found),
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        Err(error) => Err(failed(doing(), error)),
    }
}

fn first(found: Vec<Vec<u8>>) -> Result<Option<(OpTime, Bytes)>> {
    let Some(entry) = found.into_iter().next() else { return Ok(None) };
    let at = stamp(&entry).ok_or_else(|| {
        Error::new(Kind::Protocol, "reading the oplog", "the server sent an entry without a timestamp `ts`")
    })?;
    Ok(Some((at, entry.into())))
}

/// The documents of a cursor's answer.
pub(super) fn documents(batch: &RawBatch) -> Result<Vec<&[u8]>> {
    let wrong =
        || Error::new(Kind::Protocol, "reading the oplog", "the server's answer holds no batch of documents");
    let reply = batch.as_raw_document().as_bytes();
    let cursor = raw::field(reply, "cursor")?.ok_or_else(wrong)?;
    let list = match raw::field(cursor.bytes, "firstBatch")? {
        Some(list) => list,
        None => raw::field(cursor.bytes, "nextBatch")?.ok_or_else(wrong)?,
    };
    raw::elements(list.bytes).map(|element| Ok(element?.1.bytes)).collect()
}
