//! Why a backup stays or goes, in words that an operator can check.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::period::Period;
use crate::vault::layout::{BackupId, BackupRef};

/// Why a backup stays or goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Reason {
    /// Stays: younger than `keep_within`.
    Within(SignedDuration),
    /// Stays: the n-th newest of the `keep_last`.
    Last(u32),
    /// Stays: the newest of a period.
    NewestOf(Period, String),
    /// Stays: there is no newer good one.
    LastGood,
    /// Stays: partial, but newer than the last good one, if there is any.
    LastUsable,
    /// Stays: no newer one was restored and checked.
    LastRestored,
    /// Stays: no newer one was even read through.
    LastVerified,
    /// Stays: held.
    Held(String),
    /// Stays: another one that stays uses its data.
    NeededBy(BackupId),
    /// Stays: a backup of another source uses its data.
    UsedBy(BackupRef),
    /// Stays: base of a timeline window that is promised.
    Promised,
    /// Stays: suspect, and no good one came after it; an operator has to say what it is worth.
    Undecided,
    /// Stays: this build does not know what it is.
    Unknown(String),
    /// Stays: an abandoned manifest keeps a late writer from committing, until then.
    AbandonedUntil(Timestamp),
    /// Would go, but for this.
    Waits(Wait),
    /// Goes: no rule keeps it.
    Outlived,
    /// Goes: abandoned, and nobody can still be writing it.
    AbandonedLongAgo,
}

/// Why nothing of a source is deleted now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub enum Wait {
    /// Time cannot be trusted.
    Clock(String),
    /// No backup is left that a deletion could rely on.
    NothingUsable,
    /// Something cannot be read: it may matter.
    Unreadable(BackupId, String),
    /// The schedule has been silent for more than two of its intervals.
    Silence {
        /// Since when there was no good backup.
        since: Timestamp,
        /// The schedule's interval.
        interval: SignedDuration,
    },
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Within(within) => write!(f, "keep_within: younger than {}", Plain(*within)),
            Reason::Last(n) => write!(f, "keep_last: number {n}"),
            Reason::NewestOf(period, name) => write!(f, "{}: the newest of {name}", period.rule()),
            Reason::LastGood => f.write_str("the last good one"),
            Reason::LastUsable => f.write_str("partial, but the newest to restore anything from"),
            Reason::LastRestored => f.write_str("the last one that was restored and checked"),
            Reason::LastVerified => f.write_str("the last one that was verified"),
            Reason::Held(by) => f.write_str(by),
            Reason::NeededBy(by) => write!(f, "{by} uses its data"),
            Reason::UsedBy(by) => write!(f, "{by} uses its data"),
            Reason::Promised => f.write_str("base of a timeline window that is promised"),
            Reason::Undecided => {
                f.write_str("suspect, with no good one after it: `tidekeeper accept` it, or find out why")
            }
            Reason::Unknown(what) => write!(f, "not known to this build: {what}"),
            Reason::AbandonedUntil(time) => write!(f, "abandoned; keeps a late writer out until {time}"),
            Reason::Waits(wait) => write!(f, "no rule keeps it, but deletion waits: {wait}"),
            Reason::Outlived => f.write_str("no rule keeps it"),
            Reason::AbandonedLongAgo => f.write_str("abandoned long ago"),
        }
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wait::Clock(why) => f.write_str(why),
            Wait::NothingUsable => f.write_str("no backup is left that could be restored"),
            Wait::Unreadable(id, why) => write!(f, "{id}: {why}"),
            Wait::Silence { since, interval } => write!(
                f,
                "no good backup since {since}, which is more than twice the schedule's {}; \
                 a new good one ends this",
                Plain(*interval)
            ),
        }
    }
}

/// A duration as a configuration says it: whole days as such.
struct Plain(SignedDuration);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAY: i64 = 86_400;
        match self.0.as_secs() {
            seconds if seconds >= DAY && seconds % DAY == 0 => write!(f, "{}d", seconds / DAY),
            _ => write!(f, "{:#}", self.0),
        }
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> String {
        reason.to_string()
    }
}

impl From<Wait> for String {
    fn from(wait: Wait) -> String {
        wait.to_string()
    }
}
