//! What is kept, and why. Pure: rows and a policy in, a plan with reasons per line out.
//!
//! Two kinds of reasons keep a backup. The policy's rules count what is good: they are applied to the complete ones
//! (and accepted suspects) alone, so that a partial one never displaces a complete one, and then to complete and
//! partial ones together, so that a source which is always partial has a history too. The safety rules keep what
//! must never go whatever the policy says. What nothing keeps may go, and says on which backups that relies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::layout::{BackupId, BackupRef};
use super::store_clock::{Reading, Trust};
use super::timeline::trim::Trimmed;
use crate::config::Retention;

mod period;
mod reason;
mod rows;

pub use self::period::Period;
pub use self::reason::{Reason, Wait};
pub use self::rows::{bases, rows};

/// How long an abandoned manifest stays after its run's deadline: it is what keeps a writer that was paused (a frozen
/// virtual machine, a restored one) from committing a backup whose data is gone.
pub const ABANDONED_STAYS: Duration = Duration::from_secs(30 * 86_400);

/// What retention must know of a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which; its time sorts it into periods.
    pub id: BackupId,
    /// When its manifest was created, by the store's clock.
    pub stored_at: Timestamp,
    /// What it is worth.
    pub worth: Worth,
    /// The strongest proof of it.
    pub proven: Option<Proof>,
    /// Who holds it, in words.
    pub held: Option<String>,
    /// Backups of the same source whose data it uses.
    pub requires: Vec<BackupId>,
    /// A backup of another source that uses its data.
    pub used_by: Option<BackupRef>,
    /// Whether a promised timeline window starts from it.
    pub promised: bool,
    /// What of it cannot be read: then nobody knows what it says of others.
    pub unreadable: Option<String>,
}

/// What a backup is worth to retention.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Worth {
    /// Counts: `complete`, or an accepted suspect.
    Good,
    /// Counts among its like.
    Partial,
    /// Does not count, until an operator accepts it.
    Suspect,
    /// The newest proof found it damaged: does not count.
    Damaged,
    /// Holds nothing; its key keeps a late writer out.
    Abandoned,
    /// Exists, keep.
    Unknown(String),
}

/// How well a backup is proven; the later, the stronger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// Every byte was read.
    Verified,
    /// It was restored and checked.
    Restored,
}

/// Everything a plan depends on besides policy and rows.
#[derive(Clone, Debug)]
pub struct Situation {
    /// The store's time, and whether to trust it.
    pub clock: Reading,
    /// In which hours, days, weeks are counted.
    pub zone: TimeZone,
    /// The longest pause between two due times of the source's schedule; none: it has no schedule.
    pub interval: Option<Duration>,
}

/// What would be kept and removed of one source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// Newest first, each backup once.
    pub lines: Vec<Line>,
    /// Why nothing is removed for now; with any, no line is `remove`.
    pub waits: Vec<Wait>,
    /// What would go of its timelines: what no backup needs that is there now. Not decided here.
    #[serde(skip_serializing_if = "Trimmed::is_nothing")]
    pub trim: Trimmed,
}

/// What would happen to one backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// Which.
    pub id: BackupId,
    /// What.
    pub action: Action,
    /// Why; never empty.
    pub reasons: Vec<Reason>,
    /// The backups that make a removal harmless: they must be whole when it happens. Empty for `keep`.
    pub relies_on: Vec<BackupId>,
}

/// What would happen to a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It stays.
    Keep,
    /// It goes: proposed first, deleted after the grace.
    Remove,
}

impl Plan {
    /// The line of a backup.
    pub fn line(&self, id: &BackupId) -> Option<&Line> {
        self.lines.iter().find(|line| line.id == *id)
    }

    /// The lines that remove, newest first: what uses another's data goes before it.
    pub fn removals(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().filter(|line| line.action == Action::Remove)
    }
}

/// Decides for every row of one source whether it stays.
pub fn plan(situation: &Situation, policy: &Retention, rows: &[Row]) -> Plan {
    let mut newest_first: Vec<&Row> = rows.iter().collect();
    newest_first.sort_by(|a, b| b.id.cmp(&a.id));
    let mut planner = Planner { situation, policy, rows: newest_first, kept: BTreeMap::new() };
    planner.apply_rules();
    planner.keep_for_safety();
    planner.keep_what_is_required();
    let waits = planner.waits();
    let lines = planner.rows.iter().map(|row| planner.line(row, &waits)).collect();
    Plan { lines, waits, trim: Trimmed::default() }
}

struct Planner<'a> {
    situation: &'a Situation,
    policy: &'a Retention,
    rows: Vec<&'a Row>,
    kept: BTreeMap<&'a BackupId, Vec<Reason>>,
}

fn is_good(row: &Row) -> bool {
    row.worth == Worth::Good
}

fn is_usable(row: &Row) -> bool {
    matches!(row.worth, Worth::Good | Worth::Partial)
}

impl<'a> Planner<'a> {
    fn keep(&mut self, row: &'a Row, reason: Reason) {
        let reasons = self.kept.entry(&row.id).or_default();
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }

    fn newest(&self, wanted: impl Fn(&Row) -> bool) -> Option<&'a Row> {
        self.rows.iter().copied().find(|row| wanted(row))
    }

    fn apply_rules(&mut self) {
        self.keep_young();
        for counts in [is_good, is_usable] {
            let counted: Vec<&Row> = self.rows.iter().copied().filter(|row| counts(row)).collect();
            for (n, row) in (1..=self.policy.keep_last).zip(&counted) {
                self.keep(row, Reason::Last(n));
            }
            for period in Period::ALL {
                self.keep_newest_of_each(period, &counted);
            }
        }
    }

    /// `keep_within` takes the younger of a backup's two ages: a writer's clock that was behind, or a vault that was
    /// copied, must not make anything old.
    fn keep_young(&mut self) {
        let within = SignedDuration::try_from(self.policy.keep_within).unwrap_or(SignedDuration::MAX);
        for row in self.rows.clone() {
            let born = row.stored_at.max(row.id.time());
            let is_young = self.situation.clock.now.duration_since(born) < within;
            if is_young && row.worth != Worth::Abandoned {
                self.keep(row, Reason::Within(within));
            }
        }
    }

    fn keep_newest_of_each(&mut self, period: Period, newest_first: &[&'a Row]) {
        let wanted = period.count(self.policy) as usize;
        let mut seen = BTreeSet::new();
        for row in newest_first {
            if seen.len() == wanted {
                return;
            }
            let name = period.name(row.id.time(), &self.situation.zone);
            if seen.insert(name.clone()) {
                self.keep(row, Reason::NewestOf(period, name));
            }
        }
    }

    fn keep_for_safety(&mut self) {
        // A partial one that is newer than the last good one holds the newest data there is.
        let sole = [
            (self.newest(is_good), Reason::LastGood),
            (self.newest(is_usable).filter(|row| !is_good(row)), Reason::LastUsable),
            (self.last_restored(), Reason::LastRestored),
            (self.newest(|row| is_usable(row) && row.proven.is_some()), Reason::LastVerified),
        ];
        for (row, reason) in sole {
            if let Some(row) = row {
                self.keep(row, reason);
            }
        }
        let mut displaced = false;
        for row in self.rows.clone() {
            displaced |= is_good(row);
            if row.worth == Worth::Suspect && !displaced {
                self.keep(row, Reason::Undecided);
            }
            self.keep_one_for_safety(row);
        }
    }

    fn keep_one_for_safety(&mut self, row: &'a Row) {
        if let Some(by) = &row.held {
            self.keep(row, Reason::Held(by.clone()));
        }
        if let Some(by) = &row.used_by {
            self.keep(row, Reason::UsedBy(by.clone()));
        }
        if row.promised {
            self.keep(row, Reason::Promised);
        }
        if let Worth::Unknown(what) = &row.worth {
            self.keep(row, Reason::Unknown(what.clone()));
        }
        if row.worth == Worth::Abandoned {
            // The run's deadline is not known here; the grace is longer than any run, so the deadline came within it.
            let stays = ABANDONED_STAYS.saturating_add(self.policy.grace);
            let until = row.stored_at.checked_add(stays).unwrap_or(Timestamp::MAX);
            if self.situation.clock.now < until {
                self.keep(row, Reason::AbandonedUntil(until));
            }
        }
    }

    /// Whatever is kept keeps what it uses, and so on.
    fn keep_what_is_required(&mut self) {
        let by_id: BTreeMap<&BackupId, &'a Row> = self.rows.iter().map(|row| (&row.id, *row)).collect();
        let mut open: VecDeque<&'a Row> =
            self.rows.iter().copied().filter(|row| self.kept.contains_key(&row.id)).collect();
        while let Some(row) = open.pop_front() {
            for required in row.requires.iter().filter_map(|id| by_id.get(id).copied()) {
                let is_new = !self.kept.contains_key(&required.id);
                self.keep(required, Reason::NeededBy(row.id.clone()));
                if is_new {
                    open.push_back(required);
                }
            }
        }
    }

    fn last_restored(&self) -> Option<&'a Row> {
        self.newest(|row| is_usable(row) && row.proven == Some(Proof::Restored))
    }

    /// What every removal relies on: the newest that can be restored, and the newest that was.
    fn pillars(&self) -> Vec<BackupId> {
        let newest = self.newest(is_good).or(self.newest(is_usable));
        let pillars: BTreeSet<&BackupId> =
            [newest, self.last_restored()].into_iter().flatten().map(|row| &row.id).collect();
        pillars.into_iter().cloned().collect()
    }

    fn waits(&self) -> Vec<Wait> {
        let mut waits = Vec::new();
        if let Trust::No(why) = &self.situation.clock.trust {
            waits.push(Wait::Clock(why.clone()));
        }
        for row in &self.rows {
            if let Some(why) = &row.unreadable {
                waits.push(Wait::Unreadable(row.id.clone(), why.clone()));
            }
        }
        let Some(newest) = self.newest(is_good).or(self.newest(is_usable)) else {
            if !self.rows.is_empty() {
                waits.push(Wait::NothingUsable);
            }
            return waits;
        };
        let interval = self.situation.interval.and_then(|interval| SignedDuration::try_from(interval).ok());
        if let Some(interval) = interval
            && self.situation.clock.now.duration_since(newest.stored_at) > interval.saturating_mul(2)
        {
            waits.push(Wait::Silence { since: newest.stored_at, interval });
        }
        waits
    }

    fn line(&self, row: &Row, waits: &[Wait]) -> Line {
        let keep =
            |reasons| Line { id: row.id.clone(), action: Action::Keep, reasons, relies_on: Vec::new() };
        if let Some(reasons) = self.kept.get(&row.id) {
            return keep(reasons.clone());
        }
        if !waits.is_empty() {
            return keep(waits.iter().cloned().map(Reason::Waits).collect());
        }
        let reason = match row.worth {
            Worth::Abandoned => Reason::AbandonedLongAgo,
            _ => Reason::Outlived,
        };
        let (id, relies_on) = (row.id.clone(), self.pillars());
        Line { id, action: Action::Remove, reasons: vec![reason], relies_on }
    }
}
