//! Where timelines lie: positions in a source's log, ids of timelines, names of segments.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{BackupId, compact_time};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::vault::manifest::Codec;
use crate::vault::store::Key;

/// A place in a source's log, as a number that only grows: what it counts is the source's own affair (seconds and
/// increment of an opTime, bytes of a replication stream). 16 hex digits as text, so that text sorts as numbers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Position {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let digits = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        match u64::from_str_radix(text, 16) {
            Ok(number) if digits => Ok(Position(number)),
            _ => Err(Error::new(Kind::Usage, format!("reading the log position {text:?}"), "it is none")
                .hint("a position is 16 hex digits, as segments are named with")),
        }
    }
}

impl TryFrom<String> for Position {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Position> for String {
    fn from(position: Position) -> String {
        position.to_string()
    }
}

/// `20261121T060000Z-4k7q2m`: one unbroken claim on a source's log. Sorts by the time of its beginning; looks like a
/// backup's id and is made as one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TimelineId(BackupId);

impl TimelineId {
    /// The id of a timeline that begins `now`, but later than the `newest` of its source; `random` makes it unique.
    pub fn new(now: Timestamp, newest: Option<&TimelineId>, random: u32) -> Self {
        TimelineId(BackupId::new(now, newest.map(|id| &id.0), random))
    }

    /// The time in the id, to the second.
    pub fn time(&self) -> Timestamp {
        self.0.time()
    }
}

impl FromStr for TimelineId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        text.parse().map(TimelineId)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// What the name of a segment says: all that a chain is made of, so that a listing is enough to find it.
///
/// `<from>-<to>.<generation>-<sha256>.<kind>.zst[.age]`. The hash is of the stored bytes: a segment has no manifest, so
/// it carries in its own name what its bytes must be, and the same bytes written twice are one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentName {
    /// The record at this position came before its records; it is in the segment too, as the proof that nothing is
    /// missing in between.
    pub from: Position,
    /// The position of its last record.
    pub to: Position,
    /// Of the leader that wrote it; 0 where nobody led.
    pub generation: u64,
    /// Of the stored bytes, 64 hex digits.
    pub sha256: String,
    /// What the plain bytes are: `oplog`.
    pub kind: String,
    /// What was done to the plain bytes, first first.
    pub codecs: Vec<Codec>,
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let SegmentName { from, to, generation, sha256, kind, codecs } = self;
        write!(f, "{from}-{to}.{generation:010}-{sha256}.{kind}.zst")?;
        if codecs.contains(&Codec::Age) { f.write_str(".age") } else { Ok(()) }
    }
}

impl SegmentName {
    /// Reads the last part of a segment's key; `None` for what is no segment.
    pub fn read(text: &str) -> Option<Self> {
        let (text, codecs) = match text.strip_suffix(".age") {
            Some(text) => (text, vec![Codec::Zstd, Codec::Age]),
            None => (text, vec![Codec::Zstd]),
        };
        let mut parts = text.strip_suffix(".zst")?.splitn(3, '.');
        let (range, writer, kind) = (parts.next()?, parts.next()?, parts.next()?);
        let (from, to) = range.split_once('-')?;
        let (generation, sha256) = writer.split_once('-')?;
        let is_hash = sha256.len() == 64 && sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let name = SegmentName {
            from: from.parse().ok()?,
            to: to.parse().ok()?,
            generation: generation.parse().ok()?,
            sha256: sha256.to_owned(),
            kind: kind.to_owned(),
            codecs,
        };
        (is_hash && name.from < name.to && !kind.is_empty()).then_some(name)
    }
}

/// `timelines/` or `timelines/<source>/`
pub fn timelines(source: Option<&SourceName>) -> String {
    super::prefix("timelines", source)
}

/// `timelines/<source>/<timeline>/`
pub fn timeline(source: &SourceName, timeline: &TimelineId) -> String {
    format!("timelines/{source}/{timeline}/")
}

/// `timelines/<source>/<timeline>/origin.json`
pub fn origin(source: &SourceName, of: &TimelineId) -> Key {
    Key::new(format!("{}origin.json", timeline(source, of)))
}

/// `timelines/<source>/<timeline>/end.json`
pub fn end(source: &SourceName, of: &TimelineId) -> Key {
    Key::new(format!("{}end.json", timeline(source, of)))
}

/// `timelines/<source>/<timeline>/<segment>`
pub fn segment(source: &SourceName, of: &TimelineId, name: &SegmentName) -> Key {
    Key::new(format!("{}{name}", timeline(source, of)))
}

/// What a key under `timelines/` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogKey {
    /// How a timeline began.
    Origin,
    /// That it ended.
    End,
    /// A part of it.
    Segment(SegmentName),
}

/// Takes a key under `timelines/` apart.
pub fn log_key(key: &Key) -> Option<(SourceName, TimelineId, LogKey)> {
    let mut parts = key.as_str().strip_prefix("timelines/")?.splitn(3, '/');
    let (source, timeline, file) = (parts.next()?, parts.next()?, parts.next()?);
    let kind = match file {
        "origin.json" => LogKey::Origin,
        "end.json" => LogKey::End,
        file => LogKey::Segment(SegmentName::read(file)?),
    };
    Some((source.parse().ok()?, timeline.parse().ok()?, kind))
}

/// Sorts after the timelines of a source that began before `time`, and before all others.
pub fn timelines_since(source: &SourceName, time: Timestamp) -> Key {
    Key::new(format!("{}{}", timelines(Some(source)), compact_time(time)))
}
