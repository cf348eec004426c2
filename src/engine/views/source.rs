//! How a source fares: its newest backups, what is due, and what is wrong, with what to do about it.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::leader::LeaderView;
use super::whole::Whole;
use super::{Filter, Found, IN_FLIGHT, RunView};
use crate::config::SourceName;
use crate::engine::Engine;
use crate::engine::due::{Due, History, Line, candidates};
use crate::engine::run::{End, RunId, State};
use crate::engine::switches::{self, CONFIGURATION, Position, Switch};
use crate::engine::unsettled::Touch;
use crate::engine::work::Action;
use crate::error::{Error, Kind, Result};
use crate::task::MARGIN;
use crate::vault::catalog::{Listing, Proven, Row};
use crate::vault::layout::BackupRef;
use crate::vault::manifest::Status;

/// How everything fares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusView {
    /// Who leads, or led last; none if nobody ever did, or it cannot be read.
    pub leader: Option<LeaderView>,
    /// How every source fares, by name.
    pub sources: Vec<SourceView>,
    /// What is wrong and belongs to no source, as far as anybody can tell.
    pub problems: Vec<Advice>,
}

/// How a source fares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SourceView {
    /// Which.
    pub source: SourceName,
    /// The newest backup, whatever it is worth.
    pub last_backup: Option<BackupView>,
    /// The newest good one of which no object is missing.
    pub last_good: Option<BackupView>,
    /// Where a log goes on from backups: the newest span to any second of which it can be restored.
    pub window: Option<WindowView>,
    /// The age of the newest restorable point, in seconds.
    pub rpo_s: Option<i64>,
    /// The newest backup that was proven, and how.
    pub proven: Option<ProofView>,
    /// When the next backup is due; none without a schedule, or while it is suspended.
    pub next_due: Option<Timestamp>,
    /// Who suspended the schedule, and why.
    pub suspended: Option<String>,
    /// What works on it.
    pub running: Vec<RunId>,
    /// Restores that have written to it and did not come to their end: until they do, or are given up, no backup counts as good
    /// by itself.
    pub unsettled: Vec<RunId>,
    /// The newest run that is over, but for seals: whoever asked for one was told, and the log is told of by itself.
    pub last_run: Option<RunView>,
    /// What is wrong, worst first.
    pub problems: Vec<Advice>,
}

/// A span to any second of which can be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct WindowView {
    /// Its first moment.
    pub from: Timestamp,
    /// Its last.
    pub to: Timestamp,
}

/// A backup in a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupView {
    /// Which.
    pub backup: BackupRef,
    /// What it is worth; none if its manifest cannot be read.
    pub status: Option<Status>,
    /// The moment it is of.
    pub at: Timestamp,
}

impl BackupView {
    fn of(row: &Row) -> Self {
        let summary = row.manifest.as_ref().ok();
        let at = summary.map(|summary| summary.at.unwrap_or(summary.started_at));
        let at = at.unwrap_or_else(|| row.backup.id.time());
        BackupView { backup: row.backup.clone(), status: row.status().cloned(), at }
    }
}

/// A proof, and of which backup.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProofView {
    /// Of which.
    pub backup: BackupRef,
    /// What was found, and when.
    #[serde(flatten)]
    pub proof: Proven,
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What.
    pub what: String,
    /// What to do about it.
    pub advice: String,
}

impl Advice {
    /// Of an object that is not about a backup and cannot be read.
    fn of(unreadable: &Error) -> Self {
        let advice = "bring back the object's earlier version, or delete it: what it is about is left alone";
        Advice { what: unreadable.to_string(), advice: advice.to_owned() }
    }
}

/// How many of the newest runs are looked at, of all sources together, and how many days back.
const RUNS: usize = 200;
const DAYS: [i64; 2] = [1, 8];

/// So many intervals without a good backup are too many: one may fail, and the next may still be under way.
const INTERVALS: i32 = 2;

/// A run that is due and was not begun for so long is not only late.
const OVERDUE: SignedDuration = SignedDuration::from_mins(10);

impl Engine {
    /// How everything fares.
    pub async fn status(&self) -> Result<StatusView> {
        let mut unreadable = Vec::new();
        let switches = switches::read_all(&self.0.vault, &Default::default(), &mut unreadable).await?;
        let listing = self.0.catalog.list(None).await?;
        let Found { views: all_runs, unreadable: runs } = self.telling_runs().await?;
        // A run that cannot be read was begun, and nobody knows which it is.
        let overdue = if runs.is_empty() { self.overdue(&switches, &all_runs) } else { Vec::new() };
        unreadable.extend(runs);
        let (leader, mut problems) = self.leader().await?;
        problems.extend(unreadable.iter().map(Advice::of));
        let mut unsettled = self.unsettled().await?;
        unsettled.retain(|touch| !touch.under_way);
        let is_source =
            |touch: &&Touch| touch.order.source.as_ref().is_some_and(|s| self.0.sources.contains(s));
        let elsewhere = unsettled.iter().filter(|touch| !is_source(touch));
        problems.extend(elsewhere.map(|touch| self.half_restored(touch)));
        let whole = self.0.sources.iter().map(|source| self.newest_whole(listing.of(source)));
        let whole: Vec<Whole> =
            stream::iter(whole.collect::<Vec<_>>()).buffered(IN_FLIGHT).try_collect().await?;
        let mut views = Vec::new();
        for (source, whole) in self.0.sources.iter().zip(&whole) {
            let of_source = |run: &&RunView| run.source.as_ref() == Some(source);
            let runs: Vec<RunView> = all_runs.iter().filter(of_source).cloned().collect();
            let lines: Vec<&Line> = self.0.timetable.of(source).collect();
            let switch = switches.get(&switches::of_schedule(source));
            let overdue = overdue.iter().find(|due| due.order.source.as_ref() == Some(source));
            let now = self.clock().now();
            let of_it = unsettled.iter().filter(|touch| touch.order.source.as_ref() == Some(source));
            let half = of_it.map(|touch| (touch.claim.run.clone(), self.half_restored(touch))).collect();
            let facts =
                Facts { now, listing: &listing, whole, runs: &runs, lines: &lines, switch, overdue, half };
            views.push(facts.view(source));
        }
        Ok(StatusView { leader, sources: views, problems })
    }

    /// What to say of a restore that left its target half written.
    fn half_restored(&self, touch: &Touch) -> Advice {
        let (run, label) = (&touch.claim.run, &touch.claim.label);
        let how = match touch.ended {
            Some(End::Failed) => "failed",
            Some(End::Cancelled) => "was cancelled",
            _ => "was interrupted",
        };
        let what = format!("run {run}, the restore into {label}, {how} when it had begun to write");
        let end = match self.0.workshop.again(&touch.order) {
            Some(again) => format!("`{again}` brings it to its end"),
            None => "restore into it anew".to_owned(),
        };
        let advice = format!(
            "{end}; until then a backup of that system is `suspect`. If it is to stay as it is: `tidekeeper runs cancel {run}`"
        );
        Advice { what, advice }
    }

    /// What should have begun a while ago and did not, though nothing occupies its source: from where the leader cannot be
    /// seen this is how its death shows. A series that is due more often than that, or skips what it missed, has nothing
    /// overdue; there the age of the newest backup tells.
    fn overdue(&self, switches: &BTreeMap<String, Switch>, runs: &[RunView]) -> Vec<Due> {
        let now = self.clock().now();
        let mut history = History::default();
        history.note_switches(&self.0.timetable, switches);
        // Where no daemon leads, nobody has flipped the switch of a schedule that was suspended since.
        history.suspended.extend(self.0.timetable.suspended.iter().cloned());
        let mut due = candidates(now, &self.0.timetable, &history);
        // What a dead process left open occupies its source until it may be closed, and no longer.
        let occupies = |run: &RunView| {
            let lasts = run.deadline.is_none_or(|deadline| now <= deadline + MARGIN);
            run.state == State::Running && run.action.occupies_source() && lasts
        };
        let served = |due: &Due, run: &RunView| {
            run.run == due.run || (run.source == due.order.source && occupies(run))
        };
        due.retain(|due| due.start_at + OVERDUE <= now && !runs.iter().any(|run| served(due, run)));
        due
    }

    /// The runs that tell how sources fare, newest first: the newest of all, and those that one source with a run every
    /// few seconds would hide, namely what was asked for and what was due last in each series.
    async fn telling_runs(&self) -> Result<Found> {
        let mut found = Found::default();
        let mut runs = BTreeSet::new();
        for days in DAYS {
            runs.extend(self.newest(Some(days)).await?.into_iter().rev().take(RUNS));
            if runs.len() >= RUNS {
                break;
            }
        }
        runs.append(&mut self.requested(&mut found.unreadable).await?);
        let now = self.clock().now();
        runs.extend(self.0.timetable.lines.iter().flat_map(|line| line.newest_runs(now)));
        let all = Filter { limit: usize::MAX, ..Filter::default() };
        self.collect(runs, &all, &mut found).await?;
        Ok(found)
    }
}

/// What a source's status is made of. From here on it is pure.
struct Facts<'a> {
    now: Timestamp,
    listing: &'a Listing,
    whole: &'a Whole<'a>,
    runs: &'a [RunView],
    lines: &'a [&'a Line],
    switch: Option<&'a Switch>,
    overdue: Option<&'a Due>,
    /// Restores into it that did not come to their end, and what to say of them.
    half: Vec<(RunId, Advice)>,
}

impl Facts<'_> {
    fn view(&self, source: &SourceName) -> SourceView {
        let exists = |row: &&Row| row.status() != Some(&Status::Abandoned);
        let good = self.whole.newest.map(BackupView::of);
        let suspended = self.switch.filter(|switch| switch.position == Position::Suspended);
        let running = self.runs.iter().filter(|run| run.state == State::Running);
        let mut view = SourceView {
            source: source.clone(),
            last_backup: self.listing.of(source).find(exists).map(BackupView::of),
            window: None,
            rpo_s: good.as_ref().map(|good| self.now.duration_since(good.at).as_secs()),
            last_good: good,
            proven: self.listing.of(source).find_map(|row| {
                Some(ProofView { backup: row.backup.clone(), proof: row.marks.proven()?.clone() })
            }),
            next_due: self
                .backups()
                .filter_map(|line| line.next(self.now))
                .min()
                .filter(|_| suspended.is_none()),
            suspended: suspended
                .map(|switch| format!("{} since {}: {}", switch.principal, switch.at, switch.reason)),
            running: running.map(|run| run.run.clone()).collect(),
            unsettled: self.half.iter().map(|(run, _)| run.clone()).collect(),
            last_run: self.runs.iter().find(|run| run.state.is_over() && run.action != Action::Seal).cloned(),
            problems: Vec::new(),
        };
        view.problems = self.problems(&view);
        view
    }

    fn backups(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().copied().filter(|line| line.action == Action::Backup)
    }

    fn problems(&self, view: &SourceView) -> Vec<Advice> {
        let mut problems: Vec<Advice> = self.half.iter().map(|(_, advice)| advice.clone()).collect();
        problems.extend(self.whole.lost.iter().cloned());
        let mut say = |what: String, advice: String| problems.push(Advice { what, advice });
        let source = &view.source;
        match (&view.last_good, self.longest_age()) {
            (None, _) if self.half.is_empty() => {
                say(self.whole.none(), format!("`tidekeeper backup {source}`"));
            }
            (Some(good), Some(longest)) if self.now.duration_since(good.at) > longest => say(
                format!("the newest good backup is of {}, more than {INTERVALS} intervals ago", good.at),
                format!("look why: `tidekeeper runs`, `tidekeeper check`; then `tidekeeper backup {source}`"),
            ),
            _ => {}
        }
        if self.lines.is_empty() {
            let advice = format!("add a `backup` series to its schedule, the file with `source: {source}`");
            say("it has no schedule: it is never backed up by itself".to_owned(), advice);
        }
        if let Some(due) = self.overdue {
            let advice = "see that a daemon leads, and has a place for it (`limits.concurrent_runs`): its log, \
                          `tidekeeper runs --state running`";
            say(format!("the {} due at {} was not begun", due.order.action, due.due_at), advice.to_owned());
        }
        problems.extend(
            view.last_run.as_ref().filter(|run| !view.unsettled.contains(&run.run)).and_then(ended_badly),
        );
        let mut say = |what: String, advice: String| problems.push(Advice { what, advice });
        let suspect = view.last_backup.as_ref().filter(|last| last.status == Some(Status::Suspect));
        // Beside a restore that is half done there is one thing to do.
        if let Some(last) = suspect.filter(|_| self.half.is_empty()) {
            let advice = format!("compare it; if it is right: `tidekeeper accept {}`", last.backup);
            say(format!("backup {} is suspect", last.backup), advice);
        }
        for row in self.listing.of(source) {
            if row.marks.is_damaged() {
                let advice = format!(
                    "`tidekeeper verify {0}`; make a new one: `tidekeeper backup {source}`",
                    row.backup
                );
                say(format!("backup {} is damaged", row.backup), advice);
            } else if let Some(problem) = row.problem() {
                let advice = "`tidekeeper scrub` tells what else is damaged".to_owned();
                say(format!("backup {} cannot be read: {problem}", row.backup), advice);
            }
        }
        if let Some(who) = &view.suspended {
            let advice = match self.switch {
                Some(switch) if switch.principal != CONFIGURATION => {
                    format!("ask {} to resume it once that is over", switch.principal)
                }
                _ => "once that is over, take `suspend: true` out of its schedule file".to_owned(),
            };
            say(format!("its schedule is suspended by {who}"), advice);
        }
        problems
    }

    /// Of several series no pause is longer than in the densest of them.
    fn longest_age(&self) -> Option<SignedDuration> {
        let interval = self.backups().filter_map(|line| line.interval(self.now)).min()?;
        Some(interval * INTERVALS)
    }
}

/// What to say of the newest run, if it came to nothing.
fn ended_badly(run: &RunView) -> Option<Advice> {
    // One that was refused did what it should: nothing, until somebody confirms.
    let refused = run.error.as_ref().is_some_and(|error| error.code == Kind::Refused.code());
    let how = match run.state {
        State::Failed if !refused => "failed",
        State::Interrupted => "was interrupted",
        _ => return None,
    };
    let (why, hint) = match &run.error {
        Some(error) => (error.message.clone(), error.hint.clone()),
        None => ("for no known reason".to_owned(), None),
    };
    let advice = hint.unwrap_or_else(|| format!("`tidekeeper runs show {}`", run.run));
    Some(Advice { what: format!("the last {} {how}: {why}", run.action), advice })
}
