//! One attempt at a run: claim, work, finish. The daemon and the CLI go the same way.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::events::{Event, What};
use super::leader::Fence;
use super::ledger;
use super::recovery::{self, Ending};
use super::request::{self, Request};
use super::run::{Failure, Finished, Next, Record, RunId, Slot, Started, Why};
use super::work::{Action, Attempt, Done, Order, Work};
use crate::config::SourceName;
use crate::error::Result;
use crate::task::{Progress, Task};
use crate::vault::decide::Decision;
use crate::vault::layout::{self, BackupId};

/// A run that may be started, and all that its claim will say.
#[derive(Clone, Debug)]
pub struct Job {
    /// The run.
    pub run: RunId,
    /// What is done.
    pub order: Order,
    /// Who asked.
    pub principal: String,
    /// Why.
    pub why: Why,
    /// When it was asked for, or due; by the asker's clock.
    pub asked_at: Timestamp,
    /// How long the run may take from its first start.
    pub deadline: Duration,
    /// Of the leader that starts it.
    pub fence: Fence,
}

impl Job {
    /// What a request asks for.
    pub(super) fn requested(request: &Request, fence: Fence) -> Self {
        Job {
            run: request.run.clone(),
            order: request.order.clone(),
            principal: request.principal.clone(),
            why: Why::Request { local: request.local },
            asked_at: request.at,
            deadline: Duration::from_secs(request.deadline_s),
            fence,
        }
    }
}

/// What came of trying to perform a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Performed {
    /// The run is over, by us now or by somebody before.
    Over,
    /// Another attempt follows, not before this.
    Later(Timestamp),
    /// Somebody else holds the attempt.
    Elsewhere,
}

/// Ends a run from outside.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    why: Arc<OnceLock<Reason>>,
}

/// Why a run is ended from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Somebody wants it.
    Asked,
    /// The process ends; whoever comes next may go on.
    Shutdown,
}

impl Stop {
    /// Asks for the end; the first reason counts.
    pub fn stop(&self, reason: Reason) {
        let _ = self.why.set(reason);
        self.token.cancel();
    }

    /// Returns when the end was asked for.
    pub async fn stopped(&self) {
        self.token.cancelled().await;
    }

    fn reason(&self) -> Option<Reason> {
        self.why.get().copied()
    }
}

/// A run that this process works on.
#[derive(Clone, Debug)]
pub(super) struct Active {
    /// Its work.
    pub order: Order,
    /// How far it is.
    pub progress: Progress,
    /// Ends it.
    pub stop: Stop,
}

/// An attempt that is ours, and what doing it needs.
struct Claimed {
    /// An order that nobody understands is claimed too: its run fails with that.
    work: Result<Box<dyn Work>>,
    task: Task,
    started: Started,
}

/// Takes a run off the list of active ones when the attempt is done with, however that comes.
struct Place<'a> {
    engine: &'a Engine,
    run: RunId,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.engine.active().remove(&self.run);
    }
}

/// How far back open attempts are searched: a run's id has the time of its start, and few runs take longer.
pub(super) const RECENT: SignedDuration = SignedDuration::from_hours(48);

/// How long a run waits before it looks again whether its source is free.
const OCCUPIED_PAUSE: Duration = Duration::from_secs(5);

/// How long claiming an attempt may take: half a dozen calls to the store, with their retries.
const CLAIM_LIMIT: Duration = Duration::from_secs(60);

/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How often a running attempt looks whether somebody asked for its end, in times of `TELL_EVERY`.
const LOOK_EVERY: u32 = 5;

/// For how long an end is written again and again while the store does not answer; then others close the attempt.
const FINISH_PATIENCE: Duration = Duration::from_secs(15 * 60);
const FINISH_PAUSE: Duration = Duration::from_secs(5);

impl Engine {
    /// Claims the next attempt at a run and works on it, unless there is none or somebody else has it.
    pub(super) async fn perform(&self, job: Job, stop: Stop, progress: Progress) -> Result<Performed> {
        let Some(_place) = self.enter(&job, &stop, &progress) else { return Ok(Performed::Elsewhere) };
        let claiming = self.claim(&job, &stop, &progress);
        let Claimed { work, task, started } =
            match self.within(CLAIM_LIMIT, "claiming a run", claiming).await? {
                Ok(claimed) => claimed,
                Err(performed) => return Ok(performed),
            };
        progress.restart();
        self.tell(event(&job, What::Started { attempt: started.attempt }));
        let ending = self.work(&job, work, &task, &started).await;
        let finished = self.conclude(&started, ending, &stop, &progress).await?;
        log(&started, &finished);
        self.tell(event(&job, told(&started, &finished)));
        Ok(finished.retry_at.map_or(Performed::Over, Performed::Later))
    }

    /// Claims the next attempt; inside, why there is none for us. One that is claimed though nobody learns of it (the
    /// store's answer came too late) is closed by recovery like any other that nobody works on.
    async fn claim(
        &self,
        job: &Job,
        stop: &Stop,
        progress: &Progress,
    ) -> Result<std::result::Result<Claimed, Performed>> {
        let record = ledger::read(&self.0.vault, &job.run).await?;
        let number = match record.next(self.clock().now()) {
            Next::Start(number) => number,
            Next::Held => return Ok(Err(Performed::Elsewhere)),
            Next::Later(at) => return Ok(Err(Performed::Later(at))),
            Next::Over => return Ok(Err(Performed::Over)),
        };
        if let Some(other) = self.in_the_way(job).await? {
            progress.step(&format!("wait for run {other}"), self.clock().monotonic());
            return Ok(Err(Performed::Later(self.clock().now() + OCCUPIED_PAUSE)));
        }
        let work = self.0.workshop.make(&job.order);
        let store_now = self.0.vault.store.now().await?;
        let counted_from = self.clock().monotonic();
        let started = self.claimed(job, number, &record, work.as_deref().ok(), store_now).await?;
        let left = Duration::try_from(started.deadline.duration_since(store_now)).unwrap_or_default();
        let task = self.task(job, stop, progress, counted_from + left);
        Ok(match ledger::claim(&self.0.vault, &started).await? {
            Decision::Ours => Ok(Claimed { work, task, started }),
            Decision::Theirs(_) => Err(Performed::Elsewhere),
        })
    }

    /// The run that occupies the source of this one. The daemon chooses what is free a moment before; a command has
    /// nobody who chooses for it.
    async fn in_the_way(&self, job: &Job) -> Result<Option<RunId>> {
        let Some(source) = job.order.occupied() else { return Ok(None) };
        let since = self.clock().now() - RECENT;
        for started in ledger::open(&self.0.vault, Some(since)).await?.attempts {
            let other = started.run != job.run && started.order.occupied() == Some(source);
            if other && !recovery::is_gone(self, &started).await? {
                return Ok(Some(started.run));
            }
        }
        Ok(None)
    }

    fn enter(&self, job: &Job, stop: &Stop, progress: &Progress) -> Option<Place<'_>> {
        let mut active = self.active();
        if active.contains_key(&job.run) {
            return None;
        }
        let (order, progress, stop) = (job.order.clone(), progress.clone(), stop.clone());
        active.insert(job.run.clone(), Active { order, progress, stop });
        Some(Place { engine: self, run: job.run.clone() })
    }

    /// The claim as it will be written.
    async fn claimed(
        &self,
        job: &Job,
        attempt: u32,
        before: &Record,
        work: Option<&dyn Work>,
        store_now: Timestamp,
    ) -> Result<Started> {
        let backup = match (work, &job.order.source) {
            (Some(work), Some(source)) if job.order.action == Action::Backup => {
                Some(Slot { id: self.next_backup(source).await?, kind: work.kind().to_owned() })
            }
            _ => None,
        };
        let first = before.tries.first().map(|first| first.started.deadline);
        Ok(Started {
            run: job.run.clone(),
            attempt,
            nonce: layout::nonce(),
            holder: self.0.host.me().clone(),
            started_at: self.clock().now(),
            deadline: first.unwrap_or(store_now + job.deadline),
            order: job.order.clone(),
            backup,
            principal: job.principal.clone(),
            why: job.why.clone(),
            generation: job.fence.generation(),
        })
    }

    /// An id that is later than every manifest's, even after the clock was set back. Only manifests that are ahead of the
    /// clock matter, so only those are listed.
    async fn next_backup(&self, source: &SourceName) -> Result<BackupId> {
        let (now, random) = (self.clock().now(), layout::random() as u32);
        let after = layout::manifests_since(source, now);
        let mut newest = None;
        loop {
            let at = newest.as_ref().unwrap_or(&after);
            let page = self.0.vault.store.list(&layout::manifests(Some(source)), Some(at)).await?;
            newest = page.entries.into_iter().last().map(|entry| entry.key).or(newest);
            if !page.more {
                break;
            }
        }
        let newest = newest.as_ref().and_then(layout::backup_of_manifest);
        Ok(BackupId::new(now, newest.as_ref().map(|backup| &backup.id), random))
    }

    fn task(&self, job: &Job, stop: &Stop, progress: &Progress, deadline: Duration) -> Task {
        Task {
            run: job.run.as_str().into(),
            clock: self.clock().clone(),
            deadline,
            cancel: stop.token.clone(),
            progress: progress.clone(),
            limits: self.0.limits.clone(),
            spool: self.0.spool.clone(),
        }
    }

    /// Does the work and gives free what it claimed.
    async fn work(
        &self,
        job: &Job,
        work: Result<Box<dyn Work>>,
        task: &Task,
        started: &Started,
    ) -> Result<Done> {
        let work = work?;
        task.guard(self.0.gate.permits(&job.principal, &job.order)).await?;
        if work.needs_leader() {
            job.fence.check().await?;
        }
        let attempt = Attempt {
            run: job.run.clone(),
            number: started.attempt,
            principal: job.principal.as_str().into(),
            backup: started.backup(),
            asked_at: job.asked_at,
            deadline: started.deadline,
            fence: job.fence.clone(),
            engine: self.clone(),
            held: Arc::default(),
        };
        let outcome = tokio::select! {
            biased;
            outcome = self.0.executor.execute(work.as_ref(), task, &attempt) => outcome,
            never = self.watch(job, &task.progress) => match never {},
        };
        task.progress.done(self.clock().monotonic());
        let held = std::mem::take(&mut *attempt.held.lock().expect("no holder panics"));
        for claim in held {
            // A target that stays claimed is free once this attempt has its end, which is written next.
            let releasing = claim.release(&self.0.vault);
            if let Err(error) = self.within(recovery::CLOSE_LIMIT, "releasing a claim", releasing).await {
                tracing::warn!(run = %job.run, %error, "a claim was not released");
            }
        }
        outcome
    }

    /// Tells progress, and ends the run when somebody asked another process for it.
    async fn watch(&self, job: &Job, progress: &Progress) -> std::convert::Infallible {
        let mut rounds = 0u32;
        loop {
            self.clock().sleep(TELL_EVERY).await;
            self.tell(event(job, What::Progress(progress.snapshot())));
            rounds += 1;
            if rounds.is_multiple_of(LOOK_EVERY)
                && let Ok(Some(_)) = request::cancelled(&self.0.vault, &job.run).await
                && let Some(active) = self.active().get(&job.run)
            {
                active.stop.stop(Reason::Asked);
            }
        }
    }

    /// Writes how the attempt ended, patiently: a store that is away for a while must not turn what was done into a riddle.
    async fn conclude(
        &self,
        started: &Started,
        result: Result<Done>,
        stop: &Stop,
        progress: &Progress,
    ) -> Result<Finished> {
        let ending = Ending::of(result, stop.reason(), progress.snapshot().steps);
        let until = self.clock().monotonic() + FINISH_PATIENCE;
        loop {
            let closing = recovery::close(self, started, &ending);
            match self.within(recovery::CLOSE_LIMIT, "writing the end of an attempt", closing).await {
                Err(error) if error.is_retryable() && self.clock().monotonic() < until => {
                    tracing::warn!(run = %started.run, %error, "the end of an attempt is not written yet");
                }
                ended => return ended,
            }
            self.clock().sleep(FINISH_PAUSE).await;
        }
    }

    /// Ends everything that this process works on.
    pub(super) fn stop_all(&self, reason: Reason) {
        for active in self.active().values() {
            active.stop.stop(reason);
        }
    }
}

/// The one place where the end of an attempt is logged, whoever asked for it.
fn log(started: &Started, finished: &Finished) {
    let Started { run, attempt, order, .. } = started;
    let Finished { outcome, status, summary, error, retry_at, .. } = finished;
    let Some(Failure { message, hint, .. }) = error else {
        tracing::info!(%run, attempt, %order, ?outcome, ?status, summary, "ended");
        return;
    };
    let hint = hint.as_deref();
    match retry_at {
        Some(at) => {
            tracing::warn!(%run, attempt, %order, ?outcome, error = message, hint, %at, "ended; tried again");
        }
        // A command says itself how its run ended.
        None if started.is_local() => {}
        None => tracing::warn!(%run, attempt, %order, ?outcome, error = message, hint, "ended"),
    }
}

fn event(job: &Job, what: What) -> Event {
    Event { run: job.run.clone(), action: job.order.action, source: job.order.source.clone(), what }
}

fn told(started: &Started, finished: &Finished) -> What {
    let took = finished.finished_at.duration_since(started.started_at);
    What::Finished { outcome: finished.outcome, status: finished.status, took_s: took.as_secs_f64() }
}
