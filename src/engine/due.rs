//! What is due now: a pure function of the schedules, the vault's history and the time.
//!
//! A due time has a run id that anybody can derive. So nothing is remembered of what was started: whether the newest due
//! time of a series was served is one look at its run in the vault. A restart neither loses nor doubles a run, and no clock
//! that jumps can make one run twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::run::{Next, RunId, share};
use super::schedule::Rhythm;
use super::switches::{Position, Switch, of_schedule};
use super::work::{Action, Order};
use crate::config::{Missed, Schedule, Series, SourceName};
use crate::vault::layout;

/// How late a run may start and still count as on time: what `missed: skip` skips is later than this. A tick is a
/// second; a busy minute or a vault that was slow for a moment is no reason to lose a backup.
const ON_TIME: SignedDuration = SignedDuration::from_secs(60);

/// Retention follows the first good backup of each such span of time.
pub const RETENTION_EVERY: Duration = Duration::from_secs(3_600);

/// How long a retention pass may take.
const RETENTION_DEADLINE: Duration = Duration::from_secs(3_600);

/// The name of the series that retention's runs belong to.
const AFTER_BACKUP: &str = "after-backup";

/// How far back a series is searched for a due time whose jittered start has come. More than this many due times
/// inside one jitter would be a schedule that nobody means.
const JITTER_DEPTH: usize = 1_000;

/// How many pauses between due times are looked back upon: those of a daily series show its week.
const PAUSES: usize = 7;

/// A series as the engine uses it.
#[derive(Clone, Debug)]
pub struct Line {
    /// Of which source.
    pub source: SourceName,
    /// What is done.
    pub action: Action,
    /// As configured.
    pub series: Series,
    rhythm: Rhythm,
}

impl Line {
    /// The run of this series for one due time. Renaming the series makes other runs; reordering does not.
    pub fn run(&self, due: Timestamp) -> RunId {
        scheduled(&self.source, self.action, &self.series.name, due)
    }

    /// The name of the switch that says since when this series is watched.
    pub fn switch(&self) -> String {
        let parts = [self.source.as_str(), self.action.as_str(), &self.series.name];
        format!("series-{}", layout::digest(&parts))
    }

    /// The first due time after `now`.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        self.rhythm.next(now)
    }

    /// The longest of the last pauses between two due times and the one under way: how old a backup may get by plan,
    /// also over the weekend of a series that knows working days only.
    pub fn interval(&self, now: Timestamp) -> Option<SignedDuration> {
        let latest = self.rhythm.latest(now)?;
        let mut longest = self.next(now).map(|next| next.duration_since(latest));
        let mut later = latest;
        for _ in 0..PAUSES {
            let Some(earlier) = self.rhythm.before(later) else { break };
            longest = longest.max(Some(later.duration_since(earlier)));
            later = earlier;
        }
        longest
    }

    /// The runs of the two newest due times: one may be under way while the other is over.
    pub fn newest_runs(&self, now: Timestamp) -> impl Iterator<Item = RunId> {
        let latest = self.rhythm.latest(now);
        let before = latest.and_then(|latest| self.rhythm.before(latest));
        latest.into_iter().chain(before).map(|due| self.run(due))
    }

    /// The newest due time after `since` whose start, put off by its share of the jitter, has come.
    fn newest(&self, now: Timestamp, since: Timestamp) -> Option<(Timestamp, Timestamp)> {
        let mut due = self.rhythm.latest(now)?;
        for _ in 0..JITTER_DEPTH {
            let start = due + share(self.run(due).as_str(), "jitter", self.series.jitter);
            if due <= since || start <= now {
                return (due > since).then_some((due, start));
            }
            due = self.rhythm.before(due)?;
        }
        None
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.action, self.source, self.series.name)
    }
}

/// The id of a scheduled run.
pub fn scheduled(source: &SourceName, action: Action, series: &str, due: Timestamp) -> RunId {
    let exact = due.as_nanosecond().to_string();
    RunId::new(due, &layout::digest(&[source.as_str(), action.as_str(), series, &exact]))
}

/// All schedules, read once.
#[derive(Clone, Debug, Default)]
pub struct Timetable {
    /// Every series of every schedule.
    pub lines: Vec<Line>,
    /// The sources whose schedule the configuration suspends.
    pub suspended: BTreeSet<SourceName>,
}

impl Timetable {
    /// The series of these schedules.
    pub fn new(schedules: &[Schedule]) -> Self {
        let mut lines = Vec::new();
        for schedule in schedules {
            for series in &schedule.backup {
                let rhythm = Rhythm::new(&series.when, &schedule.time_zone);
                let (source, series) = (schedule.source.clone(), series.clone());
                lines.push(Line { source, action: Action::Backup, series, rhythm });
            }
        }
        let suspended = schedules.iter().filter(|s| s.suspend).map(|s| s.source.clone()).collect();
        Timetable { lines, suspended }
    }

    /// The sources that have a schedule.
    pub fn sources(&self) -> BTreeSet<&SourceName> {
        self.lines.iter().map(|line| &line.source).collect()
    }

    /// The series of a source.
    pub fn of(&self, source: &SourceName) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(move |line| line.source == *source)
    }
}

/// What the vault says, as far as `due` needs it.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Where the runs stand that were looked up. One that is not in here is unknown, and unknown is not "never started".
    pub runs: BTreeMap<RunId, Next>,
    /// Since when each series is watched, by [`Line::switch`]: older due times are none of ours.
    pub since: BTreeMap<String, Timestamp>,
    /// Whose schedule is suspended.
    pub suspended: BTreeSet<SourceName>,
    /// Sources that a run occupies.
    pub busy: BTreeSet<SourceName>,
    /// When the newest scheduled backup of a source that is known to be good ended.
    pub backed_up: BTreeMap<SourceName, Timestamp>,
}

impl History {
    /// Notes what the switches say: since when each series is watched, and what is suspended.
    pub fn note_switches(&mut self, timetable: &Timetable, switches: &BTreeMap<String, Switch>) {
        let schedule = |source: &SourceName, position: Position| {
            switches.get(&of_schedule(source)).filter(|switch| switch.position == position)
        };
        let since = timetable.lines.iter().filter_map(|line| {
            let watched = switches.get(&line.switch())?.at;
            let resumed = schedule(&line.source, Position::Resumed);
            Some((line.switch(), resumed.map_or(watched, |switch| switch.at.max(watched))))
        });
        self.since = since.collect();
        let suspended = |source: &&SourceName| schedule(source, Position::Suspended).is_some();
        self.suspended = timetable.sources().into_iter().filter(suspended).cloned().collect();
    }
}

/// A run that is due.
#[derive(Clone, Debug, PartialEq)]
pub struct Due {
    /// Its id.
    pub run: RunId,
    /// What is done to what.
    pub order: Order,
    /// The name of its series.
    pub series: String,
    /// The due time.
    pub due_at: Timestamp,
    /// The due time put off by its share of the jitter.
    pub start_at: Timestamp,
    /// How long it may take from its start.
    pub deadline: Duration,
    /// Why now.
    pub reason: String,
}

/// The runs that [`due`] would have to know of. Each series has at most one: the newest due time supersedes those before.
pub fn candidates(now: Timestamp, timetable: &Timetable, history: &History) -> Vec<Due> {
    let lines = timetable.lines.iter().filter(|line| !history.suspended.contains(&line.source));
    let series = lines.filter_map(|line| candidate(now, line, history));
    let retention = history.backed_up.iter().filter_map(|(source, at)| {
        let scheduled = timetable.of(source).next().is_some() && !history.suspended.contains(source);
        scheduled.then(|| retention(source, *at))
    });
    series.chain(retention).collect()
}

/// What is due: each candidate whose run may start, at most one for a source that runs may not share.
pub fn due(now: Timestamp, timetable: &Timetable, history: &History) -> Vec<Due> {
    let mut busy = history.busy.clone();
    let mut due = candidates(now, timetable, history);
    due.sort_by(|a, b| (a.start_at, &a.run).cmp(&(b.start_at, &b.run)));
    due.retain(|due| {
        let startable = matches!(history.runs.get(&due.run), Some(Next::Start(_)));
        startable && due.order.occupied().is_none_or(|source| busy.insert(source.clone()))
    });
    due
}

fn candidate(now: Timestamp, line: &Line, history: &History) -> Option<Due> {
    let since = *history.since.get(&line.switch())?;
    let (due_at, start_at) = line.newest(now, since)?;
    let run = line.run(due_at);
    // An attempt that failed goes on, however `missed` is set: its due time was served.
    let begun = matches!(history.runs.get(&run), Some(Next::Start(n)) if *n > 1);
    let lateness = now.duration_since(start_at);
    let late = lateness > ON_TIME;
    if late && !begun && line.series.missed == Missed::Skip {
        return None;
    }
    Some(Due {
        order: Order::new(line.action, Some(line.source.clone())),
        series: line.series.name.clone(),
        deadline: line.series.deadline,
        reason: if late { format!("missed by {} s, run once", lateness.as_secs()) } else { "due".to_owned() },
        run,
        due_at,
        start_at,
    })
}

/// The one retention pass of the span in which a good backup ended.
fn retention(source: &SourceName, backed_up: Timestamp) -> Due {
    let span = RETENTION_EVERY.as_nanos() as i128;
    let slot = backed_up.as_nanosecond().div_euclid(span) * span;
    let due_at = Timestamp::from_nanosecond(slot).unwrap_or(backed_up);
    Due {
        run: scheduled(source, Action::Retention, AFTER_BACKUP, due_at),
        order: Order::new(Action::Retention, Some(source.clone())),
        series: AFTER_BACKUP.to_owned(),
        due_at,
        start_at: backed_up,
        deadline: RETENTION_DEADLINE,
        reason: "a backup succeeded".to_owned(),
    }
}
