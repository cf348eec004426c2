//! Which segments no promised window needs any more. Pure.
//!
//! A base is any backup that exists, good or not: one that is suspect today may be accepted tomorrow. What lies before the
//! oldest of a stretch is of no use to anybody; what has no base at all goes when it is older than the window, unless it
//! is the newest, from which the next backup will go on.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::Serialize;

use super::chain::{Base, Stretch, stretches};
use super::{Segment, Timeline};
use crate::vault::layout::BackupId;
use crate::vault::layout::log::TimelineId;

/// What goes of the timelines of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trim {
    /// These, in this order: whatever a crash leaves of a stretch is its unbroken end.
    pub segments: Vec<(TimelineId, Segment)>,
    /// Of these nothing is left then: how they began and ended goes last.
    pub timelines: Vec<TimelineId>,
}

/// How much went, or would go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Trimmed {
    /// So many segments,
    pub segments: usize,
    /// of so many bytes in the vault.
    pub stored_bytes: u64,
    /// So many timelines as a whole.
    pub timelines: usize,
}

impl Trim {
    /// How much goes.
    pub fn sum(&self) -> Trimmed {
        Trimmed {
            segments: self.segments.len(),
            stored_bytes: self.segments.iter().map(|(_, segment)| segment.stored_bytes).sum(),
            timelines: self.timelines.len(),
        }
    }
}

impl Trimmed {
    /// Whether that is nothing.
    pub fn is_nothing(&self) -> bool {
        *self == Trimmed::default()
    }
}

/// Decides which segments go. `bases` are all backups that exist and are not being deleted; `since` is by the store's clock
/// where the promised window begins. While anything of the source's timelines cannot be read, nothing goes.
pub fn trim(timelines: &[Timeline], bases: &[Base], since: Timestamp) -> Trim {
    let mut trim = Trim::default();
    if timelines.iter().any(|timeline| timeline.problem().is_some()) {
        return trim;
    }
    for (n, timeline) in timelines.iter().enumerate() {
        let is_newest = n + 1 == timelines.len();
        let going = going(timeline, bases, since, is_newest);
        let is_base = |base: &Base| stretches(timeline).iter().any(|stretch| stretch.holds(base));
        let is_empty = going.len() == timeline.segments.len() && !bases.iter().any(is_base);
        if is_empty && !is_newest && timeline.id.time() < since {
            trim.timelines.push(timeline.id.clone());
        }
        trim.segments.extend(going.into_iter().map(|segment| (timeline.id.clone(), segment.clone())));
    }
    trim
}

/// The segments of one timeline that go, by where they end.
fn going<'a>(timeline: &'a Timeline, bases: &[Base], since: Timestamp, is_newest: bool) -> Vec<&'a Segment> {
    let stretches = stretches(timeline);
    let goes = |segment: &&Segment| {
        // What belongs to no stretch lies beyond the end.
        let Some(n) = stretches.iter().position(|stretch| contains(stretch, segment)) else {
            return segment.modified < since;
        };
        let stretch = &stretches[n];
        let held = bases.iter().filter(|base| stretch.holds(base)).map(|base| base.position);
        match held.min() {
            // What ends a stretch stays with its base: it says how far the log is known, and the writer goes on from it.
            Some(oldest) => segment.name.to <= oldest && segment.name.to < stretch.to,
            None if is_newest && n + 1 == stretches.len() => false,
            None => newest(timeline, stretch).unwrap_or(timeline.id.time()) < since,
        }
    };
    let mut going: Vec<&Segment> = timeline.segments.iter().filter(goes).collect();
    going.sort_by_key(|segment| segment.name.to);
    going
}

fn contains(stretch: &Stretch, segment: &Segment) -> bool {
    stretch.leads(segment.name.from, segment.name.to)
}

/// When the newest segment of a stretch was stored.
fn newest(timeline: &Timeline, stretch: &Stretch) -> Option<Timestamp> {
    let own = timeline.segments.iter().filter(|segment| contains(stretch, segment));
    own.map(|segment| segment.modified).max()
}

/// The bases without which the window from `since` to now could not be kept: for each stretch that was written to since
/// then, the newest good base of a moment that is no later, else its oldest good base. While anything of the source's
/// timelines cannot be read, all of them. `bases` come with their moments.
pub fn promised(timelines: &[Timeline], bases: &[(Base, Timestamp)], since: Timestamp) -> BTreeSet<BackupId> {
    let id = |(base, _): &(Base, Timestamp)| base.backup.id.clone();
    if timelines.iter().any(|timeline| timeline.problem().is_some()) {
        return bases.iter().map(id).collect();
    }
    let mut promised = BTreeSet::new();
    for (n, timeline) in timelines.iter().enumerate() {
        let stretches = stretches(timeline);
        for (m, stretch) in stretches.iter().enumerate() {
            let is_open = n + 1 == timelines.len() && m + 1 == stretches.len();
            if !is_open && newest(timeline, stretch).is_some_and(|newest| newest < since) {
                continue;
            }
            let good = || bases.iter().filter(|(base, _)| base.good && stretch.holds(base));
            let at = |(base, _): &&(Base, Timestamp)| (base.position, base.backup.id.clone());
            let before = good().filter(|(_, moment)| *moment <= since).max_by_key(at);
            promised.extend(before.or_else(|| good().min_by_key(at)).map(id));
        }
    }
    promised
}
