//! Ends attempts: one's own, and those that a dead process left open.
//!
//! An attempt at a backup that did not succeed is given up before its end is written: its manifest is created as `abandoned`.
//! Where a manifest is there already, the backup exists, whatever its process thought or lived to say, and the
//! manifest's status is the outcome.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;

use super::Engine;
use super::host::Fate;
use super::leader::Fence;
use super::ledger::{self, Open};
use super::perform::Reason;
use super::run::{End, Failure, Finished, RunId, Started, retry_at};
use super::work::{Action, Done, Grade, Order};
use crate::error::{Error, Kind, Result};
use crate::task::{MARGIN, Step};
use crate::vault::abandon::abandon;
use crate::vault::decide::{Decision, set_aside};
use crate::vault::layout;
use crate::vault::manifest::{self, Manifest};

/// How long one try at closing an attempt may take.
pub(super) const CLOSE_LIMIT: Duration = Duration::from_secs(60);

/// How an attempt ended, before the vault has been asked about its backup.
#[derive(Clone, Debug)]
pub struct Ending {
    outcome: End,
    status: Option<Grade>,
    summary: String,
    detail: Value,
    error: Option<Failure>,
    steps: Vec<Step>,
    /// Whether another attempt may help, and by whom.
    again: Again,
}

/// Whether another attempt may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Again {
    No,
    /// Yes, and the process that closes this one, or one like it, goes on.
    Yes,
    /// Yes, but only another process can.
    ByOthers,
}

impl Ending {
    /// What its own process says.
    pub(super) fn of(result: Result<Done>, stopped: Option<Reason>, steps: Vec<Step>) -> Self {
        let failed = |outcome, again, error: &Error| Ending {
            outcome,
            status: None,
            summary: String::new(),
            detail: Value::Null,
            error: Some(Failure::from(error)),
            steps: steps.clone(),
            again,
        };
        match (result, stopped) {
            (Ok(outcome), _) => Ending {
                outcome: End::Succeeded,
                status: Some(outcome.status),
                summary: outcome.summary,
                detail: outcome.detail,
                error: None,
                steps,
                again: Again::No,
            },
            (Err(error), Some(Reason::Asked)) if error.kind() == Kind::Cancelled => {
                failed(End::Cancelled, Again::No, &error)
            }
            (Err(error), Some(Reason::Shutdown)) if error.kind() == Kind::Cancelled => {
                failed(End::Interrupted, Again::ByOthers, &shut_down(error))
            }
            (Err(error), _) => {
                let again = if error.is_retryable() { Again::Yes } else { Again::No };
                failed(End::Failed, again, &error)
            }
        }
    }

    /// What others say of an attempt whose process is gone.
    fn gone(engine: &Engine, order: &Order) -> Self {
        let error = gone(order, engine.0.workshop.again(order));
        Ending {
            outcome: End::Interrupted,
            status: None,
            summary: String::new(),
            detail: Value::Null,
            error: Some(Failure::from(&error)),
            steps: Vec::new(),
            again: Again::ByOthers,
        }
    }

    /// The manifest is there: the backup exists.
    fn committed(&self, manifest: &Manifest) -> Self {
        let status = Grade::of(manifest);
        Ending {
            outcome: End::Succeeded,
            status: Some(status),
            summary: format!("{}: committed before the attempt ended otherwise", manifest.id),
            detail: Value::Null,
            again: Again::No,
            ..self.clone()
        }
    }

    fn written(&self, started: &Started, now: Timestamp) -> Finished {
        let again = match self.again {
            Again::No => false,
            Again::Yes => true,
            Again::ByOthers => !started.is_local(),
        };
        let retries = again && started.order.action.retries_by_itself();
        let retry = retries.then(|| retry_at(&started.run, started.attempt, now, started.deadline));
        Finished {
            run: started.run.clone(),
            attempt: started.attempt,
            nonce: layout::nonce(),
            outcome: self.outcome,
            status: self.status,
            summary: self.summary.clone(),
            detail: self.detail.clone(),
            error: self.error.clone(),
            steps: self.steps.clone(),
            finished_at: now,
            retry_at: retry.flatten(),
        }
    }
}

/// Of all works only a restore leaves something half done outside of the vault, where no later run looks by itself. `again` is
/// the command that does it anew.
fn gone(order: &Order, again: Option<String>) -> Error {
    let why = "its process ended before it did";
    let log = "look at that process's log and at the kernel's (out of memory?)";
    match (order.action, order.backup(), &order.source) {
        (Action::Restore, Some(backup), Some(target)) => {
            let anew = again.map(|again| {
                format!(": `{again} --dry-run` plans it anew and tells how it is freed, `{again}` does it")
            });
            Error::new(Kind::Internal, format!("restoring {backup} into {target}"), why).hint(format!(
                "{target} may be half restored, and may still wait for the rest{}. And {log}",
                anew.unwrap_or_default()
            ))
        }
        _ => Error::new(Kind::Internal, "working on it", why).hint(log),
    }
}

fn shut_down(error: Error) -> Error {
    let told = Error::new(Kind::Cancelled, error.doing(), "the daemon was shut down");
    match error.hint_text() {
        Some(hint) => told.hint(hint),
        None => told,
    }
}

/// Ends an attempt: settles its backup, then writes its end. What counts is returned: somebody may have been faster.
pub(super) async fn close(engine: &Engine, started: &Started, ending: &Ending) -> Result<Finished> {
    let settled = match (ending.outcome, settle(engine, started, ending).await?) {
        (End::Succeeded, _) | (_, None) => ending.clone(),
        (_, Some(manifest)) => ending.committed(&manifest),
    };
    let finished = settled.written(started, engine.clock().now());
    ledger::finish(&engine.0.vault, finished).await
}

/// Gives the attempt's backup up; the manifest, if it had been committed.
async fn settle(engine: &Engine, started: &Started, ending: &Ending) -> Result<Option<Manifest>> {
    let (Some(backup), Some(slot)) = (started.backup(), &started.backup) else { return Ok(None) };
    if ending.outcome == End::Succeeded {
        return Ok(None);
    }
    let reason = match &ending.error {
        Some(problem) => problem.message.clone(),
        None => "somebody asked for an end".to_owned(),
    };
    let run = started.run.to_string();
    match abandon(&engine.0.vault, &backup, &slot.kind, Some(&run), &reason, started.generation).await? {
        Decision::Theirs(found) if found.status != manifest::Status::Abandoned => Ok(Some(found)),
        _ => Ok(None),
    }
}

/// Closes what dead processes left open among the runs not older than `since` (among all, if none). `fence` is passed
/// before each close. What cannot be read is left alone and returned.
///
/// # Errors
/// `Clock` while the time cannot be trusted: then nothing is closed.
pub(super) async fn recover(engine: &Engine, since: Option<Timestamp>, fence: &Fence) -> Result<Vec<Error>> {
    let Open { attempts, mut unreadable } = ledger::open(&engine.0.vault, since).await?;
    for started in attempts {
        if !is_gone(engine, &started).await? {
            continue;
        }
        engine.trust_clock().await?;
        fence.check().await?;
        set_aside(close_gone(engine, &started).await, &mut unreadable)?;
    }
    Ok(unreadable)
}

/// Closes an attempt whose process is gone, and warns of what it may have left half done.
async fn close_gone(engine: &Engine, started: &Started) -> Result<()> {
    let finished = close(engine, started, &Ending::gone(engine, &started.order)).await?;
    let (run, outcome) = (&started.run, finished.outcome);
    match &finished.error {
        Some(Failure { message, hint, .. }) if started.order.action == Action::Restore => {
            tracing::warn!(%run, ?outcome, error = message, hint, "closed what a dead process left");
        }
        _ => tracing::info!(%run, ?outcome, "closed what a dead process left"),
    }
    Ok(())
}

/// Closes an attempt if its process is gone; whether it is closed now, by whomever.
pub(super) async fn close_holder(engine: &Engine, run: &RunId, attempt: u32) -> Result<bool> {
    let Some(found) = ledger::attempt(&engine.0.vault, run, attempt).await? else { return Ok(true) };
    if found.finished.is_some() {
        return Ok(true);
    }
    if !is_gone(engine, &found.started).await? {
        return Ok(false);
    }
    engine.trust_clock().await?;
    let closing = close_gone(engine, &found.started);
    engine.within(CLOSE_LIMIT, "closing what a dead process left", closing).await?;
    Ok(true)
}

/// Whether nobody works on an attempt any more.
pub(super) async fn is_gone(engine: &Engine, started: &Started) -> Result<bool> {
    let host = &engine.0.host;
    if started.holder.process == host.me().process {
        return Ok(!engine.active().contains_key(&started.run));
    }
    if host.fate(&started.holder) == Fate::Gone {
        return Ok(true);
    }
    Ok(engine.0.vault.store.now().await? > started.deadline + MARGIN)
}
