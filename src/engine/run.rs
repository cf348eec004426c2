//! A run's history as it lies in the vault, and what follows from it. Pure.
//!
//! An attempt is two objects: `<n>.started.json`, whose creation *is* the claim, and `<n>.finished.json`. Attempt n+1
//! starts only after the finish of n, and only if that finish says so: a run that is over never starts again.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::host::Holder;
use super::work::{Grade, Order};
use crate::error::Error;
use crate::task::Step;
use crate::vault::decide::Deciding;
use crate::vault::layout::{self, BackupId, BackupRef};

pub use crate::vault::layout::RunId;

/// `runs/<day>/<run>/<n>.started.json`: an attempt was claimed, by whom, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Started {
    /// The run.
    pub run: RunId,
    /// From 1.
    pub attempt: u32,
    /// Of this claim alone.
    pub nonce: String,
    /// The process that claimed it.
    pub holder: Holder,
    /// By the holder's clock.
    pub started_at: Timestamp,
    /// When the run must have ended, by the store's clock; the same for all its attempts.
    pub deadline: Timestamp,
    /// What is done.
    pub order: Order,
    /// For a backup: what this attempt may commit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<Slot>,
    /// Who asked.
    pub principal: String,
    /// Why it runs.
    pub why: Why,
    /// The generation that started it, where a leader did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// The backup that an attempt may commit.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slot {
    /// Its id; its source is the order's.
    pub id: BackupId,
    /// The kind of its source.
    pub kind: String,
}

/// Why a run exists.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by")]
pub enum Why {
    /// A schedule.
    Schedule {
        /// The name of the series.
        series: String,
        /// When it was due.
        due: Timestamp,
        /// "due", or which due times were missed.
        reason: String,
    },
    /// Somebody asked.
    Request {
        /// Whether the process that asked does it itself; then no other continues it.
        local: bool,
    },
    /// Something that a newer build knows.
    #[serde(other)]
    Other,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Schedule { series, due, reason } => write!(f, "{reason}: {series} of {due}"),
            Why::Request { .. } => f.write_str("somebody asked"),
            Why::Other => f.write_str("for a reason that a newer build knows"),
        }
    }
}

impl Started {
    /// The backup that this attempt may commit.
    pub fn backup(&self) -> Option<BackupRef> {
        let (slot, source) = (self.backup.as_ref()?, self.order.source.clone()?);
        Some(BackupRef { source, id: slot.id.clone() })
    }

    /// Whether another process may continue the run after this attempt.
    pub fn is_local(&self) -> bool {
        matches!(self.why, Why::Request { local: true })
    }
}

impl Deciding for Started {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// `runs/<day>/<run>/<n>.finished.json`: how the attempt ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finished {
    /// The run.
    pub run: RunId,
    /// From 1.
    pub attempt: u32,
    /// Of this object alone.
    pub nonce: String,
    /// How.
    pub outcome: End,
    /// How good what was done is; only with `succeeded`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Grade>,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// What the work says for machines.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What it did, and how long each took.
    #[serde(default)]
    pub steps: Vec<Step>,
    /// By the clock of whoever wrote this.
    pub finished_at: Timestamp,
    /// Another attempt follows, not before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
}

impl Deciding for Finished {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// It did what it should.
    Succeeded,
    /// It did not; `error` says why.
    Failed,
    /// Somebody asked for an end.
    Cancelled,
    /// Its process ended first.
    Interrupted,
    /// Something that a newer build knows.
    #[serde(other)]
    Other,
}

/// An [`Error`] as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// [`Kind::code`](crate::error::Kind::code).
    pub code: String,
    /// What was being done, and why it failed.
    pub message: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Failure {
            code: error.kind().code().to_owned(),
            message: error.to_string(),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Nobody has begun.
    Requested,
    /// An attempt is under way, or its process died and nobody has closed it yet.
    Running,
    /// An attempt failed and another follows.
    Waiting,
    /// Over, and done.
    Succeeded,
    /// Over, and not done.
    Failed,
    /// Over: somebody asked for an end.
    Cancelled,
    /// Over: the process ended, and nobody tries again.
    Interrupted,
}

impl State {
    /// Whether nothing more happens.
    pub fn is_over(self) -> bool {
        !matches!(self, State::Requested | State::Running | State::Waiting)
    }
}

/// One try.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// Its beginning.
    pub started: Started,
    /// Its end, if it has one.
    pub finished: Option<Finished>,
}

/// All that the vault knows of a run's execution.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// In order.
    pub tries: Vec<Try>,
    /// Whether somebody asked for an end.
    pub cancelled: bool,
}

/// What may happen to a run next.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// This attempt may be claimed.
    Start(u32),
    /// Somebody holds the attempt under way.
    Held,
    /// An attempt follows, not before this.
    Later(Timestamp),
    /// Nothing, ever.
    Over,
}

impl Record {
    /// The newest try.
    pub fn last(&self) -> Option<&Try> {
        self.tries.last()
    }

    /// How it ended last.
    pub fn finished(&self) -> Option<&Finished> {
        self.last()?.finished.as_ref()
    }

    /// What may happen next.
    pub fn next(&self, now: Timestamp) -> Next {
        let Some(last) = self.last() else {
            return if self.cancelled { Next::Over } else { Next::Start(1) };
        };
        match last.finished.as_ref().map(|finished| finished.retry_at) {
            None => Next::Held,
            Some(None) => Next::Over,
            Some(Some(_)) if self.cancelled || now >= last.started.deadline => Next::Over,
            Some(Some(at)) if now < at => Next::Later(at),
            Some(Some(_)) => Next::Start(last.started.attempt + 1),
        }
    }

    /// Where the run stands.
    pub fn state(&self, now: Timestamp) -> State {
        let next = self.next(now);
        let Some(finished) = self.finished() else {
            return match next {
                Next::Over => State::Cancelled,
                Next::Held => State::Running,
                _ => State::Requested,
            };
        };
        match finished.outcome {
            _ if next != Next::Over => State::Waiting,
            _ if self.cancelled && finished.retry_at.is_some() => State::Cancelled,
            End::Succeeded => State::Succeeded,
            // Nothing says that it did what it should.
            End::Failed | End::Other => State::Failed,
            End::Cancelled => State::Cancelled,
            End::Interrupted => State::Interrupted,
        }
    }
}

/// The first pause before another attempt; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// When attempt n+1 may start after attempt n ended `now`; `None` if it would be past the run's deadline. The pause has a
/// share of up to a quarter that depends on the run, so that sources that failed together do not come back together.
pub fn retry_at(run: &RunId, attempt: u32, now: Timestamp, deadline: Timestamp) -> Option<Timestamp> {
    let doublings = attempt.saturating_sub(1).min(10);
    let pause = (FIRST_PAUSE * 2u32.pow(doublings)).min(LONGEST_PAUSE);
    let at = now + pause + share(run.as_str(), &attempt.to_string(), pause / 4);
    (at < deadline).then_some(at)
}

/// A share of `whole` that depends on nothing but `whose` (a run, a source) and `salt`: the same in every process.
pub fn share(whose: &str, salt: &str, whole: Duration) -> Duration {
    if whole.is_zero() {
        return whole;
    }
    let digest = layout::digest(&[whose, salt]);
    let number =
        digest.bytes().fold(0u64, |sum, letter| sum.wrapping_mul(31).wrapping_add(u64::from(letter)));
    whole.mul_f64((number % 10_000) as f64 / 10_000.0)
}
