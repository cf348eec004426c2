//! Which segments hang together, and what can be restored along them. Pure.
//!
//! From a position p goes on any segment with `from <= p < to`, the one that reaches furthest first; where none does, the
//! chain ends. A maximal unbroken run of segments is a stretch; what lies between two stretches is a gap.

use super::{Origin, Segment, Timeline};
use crate::vault::catalog::Row;
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

impl Base {
    /// A backup as the base of a log; `None` if its log does not go on from it.
    pub fn of(row: &Row) -> Option<Base> {
        let summary = row.manifest.as_ref().ok()?;
        Some(Base {
            backup: row.backup.clone(),
            identity: summary.timeline.as_deref()?.to_owned(),
            position: summary.log_position?,
            good: row.is_good(),
        })
    }
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

impl Stretch {
    /// Whether its records lead from `from` to `to`.
    pub fn leads(&self, from: Position, to: Position) -> bool {
        self.from <= from && from <= to && to <= self.to
    }

    /// Whether a restore may go on from `base` along it.
    pub fn holds(&self, base: &Base) -> bool {
        self.identity == base.identity && self.leads(base.position, self.to)
    }
}

/// How a timeline began and which of its segments count, if that can be told: none that reaches beyond its end, and none that
/// its listing shows to be empty.
fn counted(timeline: &Timeline) -> Option<(&Origin, impl Iterator<Item = &Segment>)> {
    let (origin, end) = (timeline.origin.as_ref().ok()?, timeline.end.as_ref().ok()?);
    let last = end.as_ref().map(|end| end.position);
    let counts =
        move |segment: &&Segment| segment.stored_bytes > 0 && last.is_none_or(|last| segment.name.to <= last);
    Some((origin, timeline.segments.iter().filter(counts)))
}

/// The unbroken parts of a timeline, oldest first. Nothing beyond its end counts; one that cannot be read has none; one
/// without segments is an empty stretch, at its origin.
pub fn stretches(timeline: &Timeline) -> Vec<Stretch> {
    let Some((origin, segments)) = counted(timeline) else { return Vec::new() };
    let begin = |from: Position| Stretch {
        timeline: timeline.id.clone(),
        identity: origin.identity.clone(),
        from,
        to: from,
        segments: 0,
        stored_bytes: 0,
    };
    let mut stretches: Vec<Stretch> = Vec::new();
    for segment in segments {
        // They come by where they begin.
        if stretches.last().is_none_or(|open| open.to < segment.name.from) {
            stretches.push(begin(segment.name.from));
        }
        if let Some(open) = stretches.last_mut() {
            open.to = open.to.max(segment.name.to);
            open.segments += 1;
            open.stored_bytes += segment.stored_bytes;
        }
    }
    if stretches.is_empty() {
        stretches.push(begin(origin.from));
    }
    stretches
}

/// The gaps between stretches of all timelines of a source, oldest first.
pub fn gaps(timelines: &[Timeline]) -> Vec<Gap> {
    let mut gaps = Vec::new();
    let mut last: Option<Stretch> = None;
    let mut unreadable = None;
    for timeline in timelines {
        if let Some(problem) = timeline.problem() {
            unreadable = Some(format!("timeline {} cannot be read: {problem}", timeline.id));
            continue;
        }
        for next in stretches(timeline) {
            if let Some(before) = last.as_ref().filter(|before| before.to < next.from) {
                let why = match (before.timeline == next.timeline, unreadable.take()) {
                    (true, _) => format!("segments of timeline {} are missing", timeline.id),
                    (false, Some(unreadable)) => unreadable,
                    (false, None) => {
                        timeline.origin.as_ref().map_or(String::new(), |origin| origin.why.clone())
                    }
                };
                gaps.push(Gap { after: before.to, before: next.from, why });
            }
            last = Some(next);
        }
        unreadable = None;
    }
    gaps
}

/// What can be restored, oldest first: one window for each stretch that holds a good base.
pub fn windows(timelines: &[Timeline], bases: &[Base]) -> Vec<Window> {
    let window = |stretch: Stretch| {
        let good = bases.iter().filter(|base| base.good && stretch.holds(base));
        let base = good.min_by_key(|base| (base.position, &base.backup))?;
        let Stretch { timeline, to, .. } = stretch;
        Some(Window { base: base.backup.clone(), timeline, from: base.position, to })
    };
    timelines.iter().flat_map(stretches).filter_map(window).collect()
}

/// From where a restore to `position` starts: the newest good base at or before it in a stretch that reaches it, and that
/// stretch. `None`: it cannot be restored to; [`windows`] and [`gaps`] tell what can, and why not.
pub fn base_for<'a>(
    timelines: &[Timeline],
    bases: &'a [Base],
    position: Position,
) -> Option<(&'a Base, Stretch)> {
    let starts = timelines.iter().flat_map(stretches).flat_map(|stretch| {
        let is_start =
            |base: &&Base| base.good && stretch.holds(base) && stretch.leads(base.position, position);
        let newest = bases.iter().filter(is_start).max_by_key(|base| (base.position, &base.backup));
        newest.map(|base| (base, stretch))
    });
    starts.max_by(|(a, _), (b, _)| (a.position, &a.backup).cmp(&(b.position, &b.backup)))
}

/// The segments that lead from `from` (exclusive) to `to` (inclusive) along `timeline`.
///
/// # Errors
/// Where the chain breaks.
pub fn chain(timeline: &Timeline, from: Position, to: Position) -> Result<Chain, Broken> {
    let mut reached = from;
    let mut chain = Chain::default();
    let Some((_, segments)) = counted(timeline) else { return Err(Broken { at: from, next: None }) };
    let mut segments = segments.peekable();
    let mut best: Option<&Segment> = None;
    while reached < to {
        while let Some(segment) = segments.next_if(|segment| segment.name.from <= reached) {
            if best.is_none_or(|best| best.name.to < segment.name.to) {
                best = Some(segment);
            }
        }
        match best {
            Some(segment) if reached < segment.name.to => {
                reached = segment.name.to;
                chain.segments.push(segment.clone());
            }
            _ => return Err(Broken { at: reached, next: segments.peek().map(|next| next.name.from) }),
        }
    }
    // There is no way back.
    if to < from { Err(Broken { at: from, next: None }) } else { Ok(chain) }
}
