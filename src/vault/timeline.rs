//! Timelines: a source's continuous log, in segments, from which any second of it can be had again.
//!
//! ```text
//! timelines/<source>/<timeline>/origin.json     where it begins, of which log, and why a new one began
//! timelines/<source>/<timeline>/<from>-<to>...  segments: the record at `from`, then all records up to `to`
//! timelines/<source>/<timeline>/end.json        it was closed: what came after belongs to another timeline
//! ```
//!
//! A timeline is one unbroken claim on a log. What breaks it (records that are gone, a log that was rolled back, another
//! replica set, a restore) ends it and begins another; the gap between the two is shown, never bridged. What can be
//! restored is what can be proven: a good backup whose position lies in an unbroken chain of segments, and all of the chain
//! after it. [`chain`] decides that, pure; [`writer`] makes segments, [`reader`] reads them back, [`trim`] lets them go.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Vault;
use super::codec::persist;
use super::decide::{Deciding, Decision, decide, read_json, set_aside};
use super::layout;
use super::layout::log::{self, LogKey, Position, SegmentName, TimelineId};
use super::store::{Key, list_all};
use crate::config::SourceName;
use crate::error::Result;

pub mod chain;
mod decoder;
mod draft;
mod object;
pub mod reader;
pub mod trim;
mod walk;
pub mod writer;

/// `origin.json`: how a timeline began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// Its id.
    pub timeline: TimelineId,
    /// Of this source.
    pub source: SourceName,
    /// The source's kind.
    pub kind: String,
    /// The log's own name for itself: the replica set's id, the replication id. Backups of the same log name it too.
    pub identity: String,
    /// The record at this position is known; the first segment begins after it.
    pub from: Position,
    /// Why it began, in words: `the first`, `the record at ... is gone: the log has rolled over`.
    pub why: String,
    /// The timeline before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<TimelineId>,
    /// A nonce: by it the writer recognises its own object after a lost reply.
    pub writer: String,
    /// When, by the writer's clock.
    pub at: Timestamp,
    /// Of the leader that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_generation: Option<u64>,
    /// What a newer build wrote.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Deciding for Origin {
    fn nonce(&self) -> &str {
        &self.writer
    }
}

/// `end.json`: no segment that reaches beyond `position` belongs to the timeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// The last position that belongs to it.
    pub position: Position,
    /// Why it ended, in words: `restore run ... wrote to the source`.
    pub why: String,
    /// A nonce.
    pub writer: String,
    /// When, by the writer's clock.
    pub at: Timestamp,
}

impl Deciding for End {
    fn nonce(&self) -> &str {
        &self.writer
    }
}

/// A segment as it is listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment {
    /// What its name says.
    pub name: SegmentName,
    /// Its length in the vault.
    pub stored_bytes: u64,
    /// When it was created, by the store's clock.
    pub modified: Timestamp,
}

/// A timeline as it lies in the vault.
#[derive(Clone, Debug, PartialEq)]
pub struct Timeline {
    /// Its id.
    pub id: TimelineId,
    /// How it began; or why that cannot be read: then nothing is restored along it, and nothing of it deleted.
    pub origin: std::result::Result<Origin, String>,
    /// That it was closed; or why that cannot be read.
    pub end: std::result::Result<Option<End>, String>,
    /// All segments, by where they begin.
    pub segments: Vec<Segment>,
}

impl End {
    /// The timeline ends at `position`, because of `why`; with a fresh nonce.
    pub fn new(position: Position, why: impl Into<String>, now: Timestamp) -> Self {
        End { position, why: why.into(), writer: layout::nonce(), at: now }
    }
}

impl Timeline {
    /// Why nothing can be said of it, if so: how it began, or whether it ended, cannot be read.
    pub fn problem(&self) -> Option<&str> {
        let problem = self.origin.as_ref().err().or(self.end.as_ref().err());
        problem.map(String::as_str)
    }
}

/// Tells how long the record at the beginning of these bytes is; `None` while its end is not among them. The last record
/// of a segment ends with it.
pub type Framing = fn(&[u8]) -> Option<usize>;

/// How long one small call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// All timelines of a source, oldest first.
///
/// # Errors
/// Those of the store. One that cannot be read is listed as such.
pub async fn list(vault: &Vault, source: &SourceName) -> Result<Vec<Timeline>> {
    Ok(survey(vault, Some(source)).await?.timelines.remove(source).unwrap_or_default())
}

/// The sources that have timelines, whether they are configured or not.
///
/// # Errors
/// Those of the store.
pub async fn sources(vault: &Vault) -> Result<Vec<SourceName>> {
    let entries = list_all(&*vault.store, &log::timelines(None)).await?;
    let sources = entries.iter().filter_map(|entry| log::log_key(&entry.key).map(|(source, ..)| source));
    Ok(sources.collect::<BTreeSet<_>>().into_iter().collect())
}

/// What lies under `timelines/`.
#[derive(Debug, Default)]
pub(in crate::vault) struct Survey {
    /// By source, oldest first.
    pub timelines: BTreeMap<SourceName, Vec<Timeline>>,
    /// Keys that nobody here understands.
    pub strange: Vec<Key>,
}

/// Looks through the timelines of one source, or of all.
pub(in crate::vault) async fn survey(vault: &Vault, source: Option<&SourceName>) -> Result<Survey> {
    let entries = list_all(&*vault.store, &log::timelines(source)).await?;
    let mut survey = Survey::default();
    let mut found: BTreeMap<(SourceName, TimelineId), (bool, Vec<Segment>)> = BTreeMap::new();
    for entry in entries {
        let Some((source, timeline, kind)) = log::log_key(&entry.key) else {
            survey.strange.push(entry.key);
            continue;
        };
        let (has_ended, segments) = found.entry((source, timeline)).or_default();
        match kind {
            LogKey::Origin => {}
            LogKey::End => *has_ended = true,
            LogKey::Segment(name) => {
                segments.push(Segment { name, stored_bytes: entry.size, modified: entry.modified });
            }
        }
    }
    for ((source, id), (has_ended, mut segments)) in found {
        segments.sort_by_key(|a| (a.name.from, a.name.to));
        let origin = read_origin(vault, &source, &id).await?;
        let end = if has_ended { read_end(vault, &source, &id).await? } else { Ok(None) };
        let timeline = Timeline { id, origin, end, segments };
        survey.timelines.entry(source).or_default().push(timeline);
    }
    Ok(survey)
}

type Readable<T> = std::result::Result<T, String>;

async fn read_origin(vault: &Vault, source: &SourceName, id: &TimelineId) -> Result<Readable<Origin>> {
    let key = log::origin(source, id);
    Ok(match read::<Origin>(vault, &key).await? {
        Ok(None) => Err(format!("{key} is not there")),
        Ok(Some(origin)) if origin.timeline != *id || origin.source != *source => {
            Err(format!("{key} is the origin of {}/{}", origin.source, origin.timeline))
        }
        Ok(Some(origin)) => Ok(origin),
        Err(why) => Err(why),
    })
}

async fn read_end(vault: &Vault, source: &SourceName, id: &TimelineId) -> Result<Readable<Option<End>>> {
    read(vault, &log::end(source, id)).await
}

async fn read<T: Deciding>(vault: &Vault, key: &Key) -> Result<Readable<Option<T>>> {
    let mut unreadable = Vec::new();
    let read = persist(&*vault.clock, CALL_LIMIT, || read_json::<T>(&*vault.store, key)).await;
    let read = set_aside(read, &mut unreadable)?;
    Ok(read.ok_or_else(|| unreadable.iter().map(ToString::to_string).collect()))
}

/// Closes a timeline: what comes after `end` belongs to another. Answers with the end that counts: of two, the first.
///
/// # Errors
/// Those of the store.
pub async fn close(vault: &Vault, source: &SourceName, timeline: &TimelineId, end: End) -> Result<End> {
    let key = log::end(source, timeline);
    let decision = decide(&*vault.store, &*vault.clock, &key, &end).await;
    match decision.map_err(|error| error.while_doing(format!("closing timeline {source}/{timeline}")))? {
        Decision::Ours => Ok(end),
        Decision::Theirs(other) => Ok(other),
    }
}
