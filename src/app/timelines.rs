//! Timelines as people see them: the same document in the API and the CLI.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::{App, Log};
use crate::config::SourceName;
use crate::engine::views::source::WindowView;
use crate::error::Result;
use crate::vault::catalog::{Listing, Row};
use crate::vault::layout::log::{Position, SegmentName, TimelineId};
use crate::vault::timeline::chain::{self, Window};
use crate::vault::timeline::{self, Segment, Timeline};

/// What `tidekeeper timeline` tells of a source: the answer of `GET /v1/timelines/{source}`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimelineView {
    /// Of which source.
    pub source: SourceName,
    /// Its kind.
    pub kind: &'static str,
    /// In one line, from when to when it can be restored.
    pub summary: String,
    /// What can be restored, oldest first.
    pub windows: Vec<Span>,
    /// What of the log is stored without a gap, oldest first, whether a backup lies in it or not.
    pub stretches: Vec<Span>,
    /// What lies between the stretches.
    pub gaps: Vec<GapView>,
    /// How each timeline began and ended, oldest first.
    pub timelines: Vec<Chapter>,
    /// How many segments there are in all stretches,
    pub segments: usize,
    /// and their bytes in the vault.
    pub stored_bytes: u64,
    /// For how many seconds nothing was added to the timeline that is open; none if none is, or its kind tells no times.
    pub lag_s: Option<i64>,
}

/// An unbroken part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Span {
    /// From this moment, as far as the kind of source tells it,
    pub from: Option<Timestamp>,
    /// to this.
    pub to: Option<Timestamp>,
    /// The same in the log's own count.
    pub from_position: Position,
    /// The last that is in it.
    pub to_position: Position,
    /// Along which timeline.
    pub timeline: TimelineId,
    /// Of a window: the oldest backup in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Of a stretch: how many segments it is made of,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segments: Option<usize>,
    /// and their bytes in the vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
}

/// Nothing in it can be restored to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct GapView {
    /// After this moment,
    pub after: Option<Timestamp>,
    /// before this.
    pub before: Option<Timestamp>,
    /// The same in the log's own count.
    pub after_position: Position,
    /// Where the log goes on.
    pub before_position: Position,
    /// Why.
    pub why: String,
}

/// A timeline in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Chapter {
    /// Its id.
    pub timeline: TimelineId,
    /// The log's own name for itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// When it began.
    pub began: Timestamp,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// When it was closed, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Why it cannot be read: nothing is restored along it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// That a timeline was closed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ended {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

/// Timelines that were listed a moment ago, in short: status and metrics are asked for often, and a month of segments is
/// some forty pages of a listing. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed(Arc<Mutex<Lately>>);

/// When, by the monotonic clock, and what.
type Lately = BTreeMap<SourceName, (Duration, Vec<Timeline>)>;

/// For how long.
const FRESH: Duration = Duration::from_secs(20);

impl App {
    /// What can be restored along the log of `source`.
    ///
    /// # Errors
    /// `NotFound` if the vault holds no timeline of it, and why.
    pub async fn timeline(&self, source: &SourceName) -> Result<TimelineView> {
        if let Some(log) = self.log(source).await? {
            return Ok(TimelineView::of(&log, self.clock.now()));
        }
        Err(self.no_timeline(source, format!("looking for the timeline of {source}")).await?)
    }

    /// The same of all sources that have one, by name.
    pub async fn timelines(&self) -> Result<Vec<TimelineView>> {
        let listing = self.catalog.list(None).await?;
        let mut sources: BTreeSet<SourceName> =
            listing.rows.iter().filter(|row| goes_on(row)).map(|row| row.backup.source.clone()).collect();
        let wanted = self.sources().filter(|(_, system)| system.source().timeline().is_some());
        sources.extend(wanted.map(|(source, _)| source.clone()));
        let mut views = Vec::new();
        for source in sources {
            let timelines = timeline::list(&self.vault, &source).await?;
            let log = self.log_of(&source, timelines, listing.of(&source));
            views.extend(log.map(|log| TimelineView::of(&log, self.clock.now())));
        }
        Ok(views)
    }

    /// The newest window of a source among these backups, as of a moment ago; nothing is asked of one whose backups no log
    /// goes on from.
    pub async fn window(&self, source: &SourceName, listing: &Listing) -> Result<Option<WindowView>> {
        if !listing.of(source).any(goes_on) {
            return Ok(None);
        }
        Ok(self.log_lately(source, listing).await?.and_then(|log| log.newest()))
    }

    /// What the vault held of a source's log a moment ago, with these backups. Its segments are not told apart.
    pub async fn log_lately(&self, source: &SourceName, listing: &Listing) -> Result<Option<Log>> {
        let now = self.clock.monotonic();
        let known = self.listed.0.lock().expect("no holder panics").get(source).cloned();
        let timelines = match known.filter(|(at, _)| now.saturating_sub(*at) < FRESH) {
            Some((_, timelines)) => timelines,
            None => {
                let listed = timeline::list(&self.vault, source).await?;
                let short: Vec<Timeline> = listed.iter().map(in_short).collect();
                let entry = (now, short.clone());
                self.listed.0.lock().expect("no holder panics").insert(source.clone(), entry);
                short
            }
        };
        Ok(if timelines.is_empty() { None } else { self.log_of(source, timelines, listing.of(source)) })
    }
}

impl Log {
    /// The newest window as status tells it.
    pub fn newest(&self) -> Option<WindowView> {
        let window = self.windows.last()?;
        Some(WindowView { from: self.moment(window.from)?, to: self.moment(window.to)? })
    }
}

/// Whether a log goes on from a backup.
fn goes_on(row: &Row) -> bool {
    row.manifest.as_ref().is_ok_and(|summary| summary.timeline.is_some())
}

/// The same timeline with one segment for each stretch.
fn in_short(timeline: &Timeline) -> Timeline {
    let whole = |stretch: chain::Stretch| Segment {
        name: SegmentName {
            from: stretch.from,
            to: stretch.to,
            generation: 0,
            sha256: String::new(),
            kind: String::new(),
            codecs: Vec::new(),
        },
        stored_bytes: stretch.stored_bytes,
        modified: timeline.id.time(),
    };
    let stretches = chain::stretches(timeline).into_iter().filter(|stretch| stretch.segments > 0);
    Timeline { segments: stretches.map(whole).collect(), ..timeline.clone() }
}

impl TimelineView {
    fn of(log: &Log, now: Timestamp) -> Self {
        let stretches: Vec<chain::Stretch> = log.timelines.iter().flat_map(chain::stretches).collect();
        let open = log.timelines.last().filter(|newest| newest.end == Ok(None));
        let end = stretches.last().filter(|last| open.is_some_and(|open| open.id == last.timeline));
        let lag = end.and_then(|end| log.moment(end.to)).map(|end| now.duration_since(end).as_secs());
        TimelineView {
            source: log.source.clone(),
            kind: log.kind.name(),
            summary: log.summary(),
            windows: log.windows.iter().map(|window| Span::of_window(log, window)).collect(),
            segments: stretches.iter().map(|stretch| stretch.segments).sum(),
            stored_bytes: stretches.iter().map(|stretch| stretch.stored_bytes).sum(),
            stretches: stretches.iter().map(|stretch| Span::of_stretch(log, stretch)).collect(),
            gaps: log.gaps().into_iter().map(|gap| GapView::of(log, gap)).collect(),
            timelines: log.timelines.iter().map(Chapter::of).collect(),
            lag_s: lag,
        }
    }
}

impl Span {
    fn new(log: &Log, timeline: &TimelineId, from: Position, to: Position) -> Self {
        Span {
            from: log.moment(from),
            to: log.moment(to),
            from_position: from,
            to_position: to,
            timeline: timeline.clone(),
            base: None,
            segments: None,
            stored_bytes: None,
        }
    }

    fn of_window(log: &Log, window: &Window) -> Self {
        let span = Span::new(log, &window.timeline, window.from, window.to);
        Span { base: Some(window.base.to_string()), ..span }
    }

    fn of_stretch(log: &Log, stretch: &chain::Stretch) -> Self {
        let span = Span::new(log, &stretch.timeline, stretch.from, stretch.to);
        Span { segments: Some(stretch.segments), stored_bytes: Some(stretch.stored_bytes), ..span }
    }
}

impl GapView {
    fn of(log: &Log, gap: chain::Gap) -> Self {
        GapView {
            after: log.moment(gap.after),
            before: log.moment(gap.before),
            after_position: gap.after,
            before_position: gap.before,
            why: gap.why,
        }
    }
}

impl Chapter {
    fn of(timeline: &Timeline) -> Self {
        let origin = timeline.origin.as_ref().ok();
        let ended = timeline.end.as_ref().ok().and_then(|end| end.as_ref());
        Chapter {
            timeline: timeline.id.clone(),
            identity: origin.map(|origin| origin.identity.clone()),
            began: origin.map_or_else(|| timeline.id.time(), |origin| origin.at),
            why: origin.map(|origin| origin.why.clone()),
            ended: ended.map(|end| Ended { at: end.at, why: end.why.clone() }),
            problem: timeline.problem().map(str::to_owned),
        }
    }
}
