//! Ranges of `_id`, so that several readers share one collection, and so that a reader who loses its cursor goes on where
//! it was.
//!
//! The bounds are bounds of the `_id` index (`min`, `max` and a hint), not a condition: a condition `{$gte: 5}` finds numbers
//! only, while an index orders values of all types from `MinKey` to `MaxKey`, strings by the collection's own collation. The
//! first range has no lower bound and the last no upper one, and where one ends the next begins, so whatever `_id` a
//! document has, it is in exactly one.

use mongodb::bson::{Document, RawDocumentBuf, doc, rawdoc};

use super::client::Link;
use super::cursor;
use super::failure::failing;
use super::optime::OpTime;
use super::raw::RawValue;
use super::survey::Data;
use crate::error::{Error, Kind, Result};

/// About so many bytes are in a range.
pub const RANGE: u64 = 64 << 20;

/// More ranges than this help no further: their readers are few.
const RANGES_MAX: u64 = 128;

/// So many samples are taken for each range: their sizes then differ by about a third.
const SAMPLES_PER_RANGE: u64 = 10;

/// The server reads samples at random, without a scan, up to one in twenty documents (`$sample`).
const DOCUMENTS_PER_SAMPLE: u64 = 25;

/// A part of a collection: from this `_id` on, up to but without that one. Both are documents `{_id: value}`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Range {
    /// None: from the lowest there can be.
    pub from: Option<RawDocumentBuf>,
    /// None: to the highest there can be.
    pub to: Option<RawDocumentBuf>,
}

/// In which order a collection is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Of `_id`.
    Id,
    /// As the documents lie: of a capped collection that is the order in which they came, and it is to be kept.
    Natural,
}

/// What a reader sees of other people's writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// What was there at this moment, and nothing later.
    Snapshot(OpTime),
    /// What a majority has, and surely all that was written up to this moment.
    After(OpTime),
    /// What a majority has.
    Majority,
    /// What is there: a server without a replica set knows no majority.
    Local,
}

impl Concern {
    fn document(self) -> RawDocumentBuf {
        let stamp = mongodb::bson::Timestamp::from;
        match self {
            Concern::Snapshot(at) => rawdoc! { "level": "snapshot", "atClusterTime": stamp(at) },
            Concern::After(at) => rawdoc! { "level": "majority", "afterClusterTime": stamp(at) },
            Concern::Majority => rawdoc! { "level": "majority" },
            Concern::Local => rawdoc! { "level": "local" },
        }
    }
}

/// How many ranges a collection deserves, and how many samples decide where they end; none: it is one range.
pub fn wanted(bytes: u64, documents: u64, range: u64) -> Option<(u64, u64)> {
    let ranges = (bytes / range).min(RANGES_MAX);
    let samples = (ranges * SAMPLES_PER_RANGE).min(documents / DOCUMENTS_PER_SAMPLE);
    (ranges > 1 && samples > 0).then_some((ranges, samples))
}

/// Cuts at evenly spaced ones of these samples, which are sorted as the server sorts them.
pub fn cut(mut samples: Vec<RawDocumentBuf>, ranges: u64) -> Vec<Range> {
    samples.dedup();
    let cuts = (ranges.saturating_sub(1) as usize).min(samples.len());
    let mut bounds: Vec<RawDocumentBuf> =
        (1..=cuts).map(|n| samples[n * samples.len() / (cuts + 1)].clone()).collect();
    bounds.dedup();
    let starts = std::iter::once(None).chain(bounds.iter().cloned().map(Some));
    let ends = bounds.iter().cloned().map(Some).chain(std::iter::once(None));
    starts.zip(ends).map(|(from, to)| Range { from, to }).collect()
}

/// Splits a collection into ranges of about `range` bytes.
pub async fn split(link: &Link, data: &Data, range: u64) -> Result<Vec<Range>> {
    let wanted = wanted(data.bytes, data.items, range).filter(|_| data.order == Order::Id);
    let Some((ranges, samples)) = wanted else { return Ok(vec![Range::default()]) };
    let sample: Vec<Document> = vec![
        doc! { "$sample": { "size": i64::try_from(samples).unwrap_or(i64::MAX) } },
        doc! { "$project": { "_id": 1 } },
        doc! { "$sort": { "_id": 1 } },
    ];
    let mut command = doc! { "aggregate": &data.namespace.collection, "pipeline": sample, "cursor": {} };
    if data.raw {
        command.insert("rawData", true);
    }
    let doing = || format!("sampling the ids of {}", data.namespace);
    let command =
        RawDocumentBuf::try_from(&command).map_err(|cause| Error::new(Kind::Internal, doing(), cause))?;
    let samples = cursor::all(link, &data.namespace.db, command).await?.map_err(failing(doing()))?;
    Ok(cut(samples, ranges))
}

/// `{<name>: value}`
pub fn single(name: &str, value: RawValue<'_>) -> Result<RawDocumentBuf> {
    let length = 4 + 1 + name.len() + 1 + value.bytes.len() + 1;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(length as u32).to_le_bytes());
    bytes.push(value.kind);
    bytes.extend_from_slice(name.as_bytes());
    bytes.push(0);
    bytes.extend_from_slice(value.bytes);
    bytes.push(0);
    let built = RawDocumentBuf::from_bytes(bytes);
    built.map_err(|cause| Error::new(Kind::Damaged, "reading an _id", cause))
}

/// Where a reader is in its range: behind the document with this `_id`.
#[derive(Clone, Debug)]
pub struct Behind {
    /// `{_id: value}`
    bound: RawDocumentBuf,
    /// `{_id: {$ne: value}}`
    others: RawDocumentBuf,
}

impl Behind {
    /// Behind the document with this `_id`.
    pub fn new(id: RawValue<'_>) -> Result<Behind> {
        let unequal = single("$ne", id)?;
        let others = single("_id", RawValue { kind: 0x03, bytes: unequal.as_bytes() })?;
        Ok(Behind { bound: single("_id", id)?, others })
    }
}

/// The command that reads a range, in the order of its collection; `behind` leaves out what was read before. A lower bound
/// is inclusive, and what is equal to it is for the server to say: 1 is 1.0, and a collation may ignore case.
pub fn find(
    data: &Data,
    range: &Range,
    behind: Option<&Behind>,
    concern: Concern,
    size: u32,
) -> RawDocumentBuf {
    use mongodb::bson::raw::cstr;
    let mut find = rawdoc! { "find": data.namespace.collection.as_str() };
    if let Some(behind) = behind {
        find.append(cstr!("filter"), &behind.others);
    }
    match data.order {
        Order::Natural => find.append(cstr!("hint"), rawdoc! { "$natural": 1 }),
        Order::Id => {
            find.append(cstr!("hint"), rawdoc! { "_id": 1 });
            find.append(cstr!("sort"), rawdoc! { "_id": 1 });
        }
    }
    if let Some(from) = behind.map(|behind| &behind.bound).or(range.from.as_ref()) {
        find.append(cstr!("min"), from);
    }
    if let Some(to) = &range.to {
        find.append(cstr!("max"), to);
    }
    find.append(cstr!("batchSize"), i32::try_from(size).unwrap_or(i32::MAX));
    find.append(cstr!("readConcern"), concern.document());
    if data.raw {
        find.append(cstr!("rawData"), true);
    }
    find
}
