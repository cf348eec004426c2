//! Which segments hang together, and what can be restored along them. Pure.
//!
//! From a position p goes on any segment with `from <= p < to`, the one that reaches furthest first; where none does, the
//! chain ends. A maximal unbroken run of segments is a stretch; what lies between two stretches is a gap.

use super::{Segment, Timeline};
use crate::vault::layout::BackupRef;
use crate::vault::layout::log::{Position, TimelineId};

/// An unbroken part of a timeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Of which timeline.
    pub timeline: TimelineId,
    /// The log's own name for itself.
    pub identity: String,
    /// Its first segment begins after the record here.
    pub from: Position,
    /// Its last record.
    pub to: Position,
    /// How many segments it is made of.
    pub segments: usize,
    /// Their bytes in the vault.
    pub stored_bytes: u64,
}

/// What lies between two stretches: nothing in it can be restored to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// After the end of one stretch,
    pub after: Position,
    /// up to the beginning of the next.
    pub before: Position,
    /// Why, in words.
    pub why: String,
}

/// A backup from which a log goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Which.
    pub backup: BackupRef,
    /// The log's own name for itself.
    pub identity: String,
    /// Where in the log its state is of.
    pub position: Position,
    /// Whether a restore may start from it: good, and not going.
    pub good: bool,
}

/// A span to any position of which one can restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// The oldest good backup in the stretch.
    pub base: BackupRef,
    /// Along which timeline.
    pub timeline: TimelineId,
    /// From the base's own position
    pub from: Position,
    /// to the end of the stretch; equal to `from` where there is no segment yet.
    pub to: Position,
}

/// What a restore reads: in this order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// The segments; none where the position itself was wanted.
    pub segments: Vec<Segment>,
}

/// Where a wanted position cannot be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The chain ends here; the log goes on later, or not at all.
    pub at: Position,
    /// Where the next stretch begins, if there is one.
    pub next: Option<Position>,
}

/// The unbroken parts of a timeline, oldest first. Nothing beyond its end counts.
pub fn stretches(_timeline: &Timeline) -> Vec<Stretch> {
    Vec::new()
}

/// The gaps between stretches of all timelines of a source, oldest first.
pub fn gaps(_timelines: &[Timeline]) -> Vec<Gap> {
    Vec::new()
}

/// What can be restored, oldest first: one window for each stretch that holds a good base.
pub fn windows(_timelines: &[Timeline], _bases: &[Base]) -> Vec<Window> {
    Vec::new()
}

/// The segments that lead from `from` (exclusive) to `to` (inclusive) along `timeline`.
///
/// # Errors
/// Where the chain breaks.
pub fn chain(_timeline: &Timeline, from: Position, _to: Position) -> Result<Chain, Broken> {
    Err(Broken { at: from, next: None })
}
