//! What can be restored along a source's log: which backup a moment is had from, and what to say where it cannot be had.
//! Pure, but for the reading of it.

use jiff::{SignedDuration, Timestamp};

use super::App;
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::source;
use crate::vault::catalog::Row;
use crate::vault::layout::BackupRef;
use crate::vault::layout::log::Position;
use crate::vault::timeline::chain::{self, Base, Gap, Stretch, Window};
use crate::vault::timeline::{self, Timeline};

/// What the vault holds of a source's log.
#[derive(Debug)]
pub struct Log {
    /// Of which source.
    pub source: SourceName,
    /// Its kind, which knows what positions mean.
    pub kind: &'static dyn source::Kind,
    /// As they lie in the vault, oldest first.
    pub timelines: Vec<Timeline>,
    /// Backups that a log goes on from.
    pub bases: Vec<Base>,
    /// What can be restored, oldest first.
    pub windows: Vec<Window>,
}

/// Where a position lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a window: it is had from this backup.
    In(BackupRef),
    /// Behind a window whose log was closed later, at this position, which it reaches: what it ends with is that moment.
    End(BackupRef, Position),
    /// Before all windows.
    Before,
    /// Between these two.
    Between(Position, Position),
    /// After all.
    After,
    /// There is no window.
    Nowhere,
}

impl App {
    /// What the vault holds of a source's log now; `None` of one without timelines, or of a kind that this build does not
    /// know.
    pub async fn log(&self, source: &SourceName) -> Result<Option<Log>> {
        let timelines = timeline::list(&self.vault, source).await?;
        if timelines.is_empty() {
            return Ok(None);
        }
        let listing = self.catalog.list(Some(source)).await?;
        Ok(self.log_of(source, timelines, listing.of(source)))
    }

    /// The same of what was listed before.
    pub fn log_of<'a>(
        &self,
        source: &SourceName,
        timelines: Vec<Timeline>,
        rows: impl Iterator<Item = &'a Row>,
    ) -> Option<Log> {
        let named = timelines.iter().rev().find_map(|timeline| timeline.origin.as_ref().ok());
        let configured = self.source(source).ok().map(|system| system.kind());
        let kind = self.kind(named.map(|origin| origin.kind.as_str()).or(configured)?)?;
        let bases: Vec<Base> = rows.filter_map(Base::of).collect();
        let windows = chain::windows(&timelines, &bases);
        Some(Log { source: source.clone(), kind, timelines, bases, windows })
    }
}

impl Log {
    /// Where `wanted` lies.
    pub fn place(&self, wanted: Position) -> Place {
        if let Some((base, _)) = chain::base_for(&self.timelines, &self.bases, wanted) {
            return Place::In(base.backup.clone());
        }
        if let Some((backup, end)) = self.closed_end(wanted) {
            return Place::End(backup, end);
        }
        let before = self.windows.iter().map(|window| window.to).filter(|to| *to < wanted).max();
        let after = self.windows.iter().map(|window| window.from).filter(|from| *from > wanted).min();
        match (before, after) {
            (None, None) => Place::Nowhere,
            (None, Some(_)) => Place::Before,
            (Some(end), Some(begin)) => Place::Between(end, begin),
            (Some(_), None) => Place::After,
        }
    }

    /// The last window before `wanted`, if nothing was written between its end and `wanted`, as whoever closed its log saw.
    fn closed_end(&self, wanted: Position) -> Option<(BackupRef, Position)> {
        let window =
            self.windows.iter().filter(|window| window.to < wanted).max_by_key(|window| window.to)?;
        let timeline = self.timelines.iter().find(|timeline| timeline.id == window.timeline)?;
        let end = timeline.end.as_ref().ok()?.as_ref()?;
        if end.position != window.to || self.kind.position_at(end.at)? < wanted {
            return None;
        }
        let (base, _) = chain::base_for(&self.timelines, &self.bases, window.to)?;
        Some((base.backup.clone(), window.to))
    }

    /// Up to where can be restored, and from which backup, along the timeline that is being written: its very end, no place
    /// before a gap.
    pub fn end(&self) -> Option<(BackupRef, Position)> {
        let (newest, window) = (self.timelines.last()?, self.windows.last()?);
        if newest.end != Ok(None) || newest.id != window.timeline || window.to != self.reached()?.to {
            return None;
        }
        let (base, _) = chain::base_for(&self.timelines, &self.bases, window.to)?;
        Some((base.backup.clone(), window.to))
    }

    /// The last unbroken part of the newest timeline.
    pub fn reached(&self) -> Option<Stretch> {
        chain::stretches(self.timelines.last()?).pop()
    }

    /// When the record at a position was written.
    pub fn moment(&self, position: Position) -> Option<Timestamp> {
        self.kind.moment(position)
    }

    /// A position for people.
    pub fn text(&self, position: Position) -> String {
        self.moment(position).map_or_else(|| format!("position {position}"), |moment| moment.to_string())
    }

    /// What lies between the stretches, oldest first.
    pub fn gaps(&self) -> Vec<Gap> {
        chain::gaps(&self.timelines)
    }

    /// What is wrong with the newest timeline, if it cannot be read.
    pub fn unreadable(&self) -> Option<String> {
        let newest = self.timelines.last()?;
        newest.problem().map(|problem| format!("timeline {} cannot be read: {problem}", newest.id))
    }

    /// In one line, from when to when it can be restored.
    pub fn summary(&self) -> String {
        let source = &self.source;
        let Some((newest, older)) = self.windows.split_last() else {
            return match self.unreadable() {
                Some(problem) => format!("{source} cannot be restored to any second: {problem}"),
                None => format!(
                    "{source} cannot be restored to any second yet: no good backup is in its timeline"
                ),
            };
        };
        let span = |window: &Window| match [self.text(window.from), self.text(window.to)] {
            [from, to] if from == to => format!("to {from} alone, the moment of backup {}", window.base),
            [from, to] => format!("from {from} to {to}"),
        };
        let mut told = match self.is_one_moment(newest) {
            true => format!("{source} can be restored {}", span(newest)),
            false => format!("{source} can be restored to any second {}", span(newest)),
        };
        for window in older.iter().rev().take(TOLD) {
            told.push_str(&format!(", and {}", span(window)));
        }
        match older.len().saturating_sub(TOLD) {
            0 => {}
            more => told.push_str(&format!(", and in {more} older windows")),
        }
        if self.is_one_moment(newest) {
            told.push_str("; nothing after that second is stored");
        }
        told
    }

    /// A window without a segment, or with so little that it holds no second but that of its backup.
    fn is_one_moment(&self, window: &Window) -> bool {
        self.text(window.from) == self.text(window.to)
    }

    /// The last second of the newest window of which all is stored: the log may have more in the second that it ends with.
    fn last_whole(&self) -> Option<Timestamp> {
        let window = self.windows.last()?;
        let end = self.moment(window.to)?;
        let is_whole = |at: &Timestamp| {
            let last = self.kind.position_at(*at);
            last.is_some_and(|last| window.from <= last && last <= window.to)
        };
        [end, end - SignedDuration::from_secs(1)].into_iter().find(is_whole)
    }

    /// Why `at` cannot be had.
    pub fn refusal(&self, at: Timestamp, place: &Place) -> Error {
        let doing = format!("looking for {} as it was at {at}", self.source);
        let see = format!("`tidekeeper timeline {}` shows all of it", self.source);
        let (why, hint) = match place {
            Place::Nowhere => {
                return Error::new(Kind::NotFound, doing, self.summary())
                    .hint(format!("`tidekeeper backup {}` begins a window", self.source));
            }
            Place::Before => {
                ("that moment is before the first backup that its log goes on from".to_owned(), see)
            }
            Place::Between(after, before) => (self.why_between(*after, *before), see),
            Place::After | Place::In(_) | Place::End(..) => self.behind(see),
        };
        Error::new(Kind::NotFound, doing, format!("{}; {why}", self.summary())).hint(hint)
    }

    /// Why a moment behind the last window cannot be had, and what helps.
    fn behind(&self, see: String) -> (String, String) {
        if let Some(gap) = self.gap_behind() {
            let why = format!("that moment is after the end of it, {}", self.in_words(&gap));
            return (why, format!("`tidekeeper backup {}` begins another window; {see}", self.source));
        }
        let whole =
            self.last_whole().map(|at| format!("; the last second that is stored to its end is {at}"));
        let why = format!("that moment is after the end of it{}", whole.unwrap_or_default());
        (why, format!("see that a daemon follows it; {see}"))
    }

    fn why_between(&self, after: Position, before: Position) -> String {
        let gaps = self.gaps();
        let gap = gaps.iter().find(|gap| gap.before > after && gap.after < before);
        let why = match gap {
            Some(gap) => gap.why.as_str(),
            None => "no good backup lies there that its log goes on from",
        };
        let (after, before) = (self.text(after), self.text(before));
        format!("that moment lies in the gap between {after} and {before}: {why}")
    }

    /// What the last window ends at, where the log goes on later: no backup lies there yet.
    fn gap_behind(&self) -> Option<Gap> {
        let end = self.windows.iter().map(|window| window.to).max()?;
        self.gaps().into_iter().find(|gap| gap.after >= end)
    }

    fn in_words(&self, gap: &Gap) -> String {
        let (after, before) = (self.text(gap.after), self.text(gap.before));
        format!("where a gap begins, from {after} to {before}: {}", gap.why)
    }
}

/// How many older windows one line tells of.
const TOLD: usize = 3;
