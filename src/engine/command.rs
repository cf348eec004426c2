//! What people and programs ask of the engine: do this, in the daemon or right here; end that.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::leader::{Fence, LOOK_EVERY, Leadership, Standing};
use super::perform::{Job, Performed, Reason, Stop};
use super::request::{self, Ask, Request};
use super::run::{Next, Record, RunId};
use super::{Engine, ledger, recovery};
use crate::error::{Error, Kind, Result};
use crate::task::Progress;

/// How often a run that somebody else works on is looked at.
const WAIT_EVERY: Duration = Duration::from_secs(1);

impl Engine {
    /// Accepts a request, to be taken up by whichever process leads. The caller answers 202 with the run.
    ///
    /// # Errors
    /// `Conflict` if the idempotency key was used for another body; `Unready` while this process shuts down.
    pub async fn request(&self, ask: &Ask) -> Result<Request> {
        if self.0.closing.load(Ordering::SeqCst) {
            let why = "this process is shutting down";
            return Err(Error::new(Kind::Unready, format!("accepting {}", ask.order), why)
                .hint("ask again, with the same idempotency key"));
        }
        let request = request::submit(&self.0.vault, ask, false).await?;
        self.news();
        Ok(request)
    }

    /// What was asked for before with the same idempotency key, if it is still remembered.
    pub async fn remembered(
        &self,
        principal: &str,
        route: &str,
        idempotency: &str,
    ) -> Result<Option<Request>> {
        request::read(&self.0.vault, &request::key_of(principal, route, idempotency)).await
    }

    /// Does it right here, without a daemon: the same claim, work and finish. Returns when the run is over.
    /// What only a leader may do is handed over to the daemon that leads, if there is one, and waited for.
    ///
    /// # Errors
    /// Those of making the work, claiming and writing down. That the work itself failed is in the record.
    pub async fn run_once(&self, ask: &Ask, stop: &Stop, progress: &Progress) -> Result<(RunId, Record)> {
        let work = self.0.workshop.make(&ask.order)?;
        if work.needs_leader() {
            return self.lead_or_hand_over(ask, stop, progress).await;
        }
        let request = request::submit(&self.0.vault, ask, true).await?;
        let job = Job::requested(&request, Fence::none());
        loop {
            match self.perform(job.clone(), stop.clone(), progress.clone()).await? {
                Performed::Over => return self.ended(request.run).await,
                Performed::Later(at) => {
                    if progress.snapshot().step.is_empty() {
                        progress.step("wait for another try", self.clock().monotonic());
                    }
                    let left = Duration::try_from(at.duration_since(self.clock().now()));
                    // Nobody else goes on with it: stopped between two attempts, it is over.
                    if self.stopped_within(left.unwrap_or_default(), stop).await {
                        request::cancel(&self.0.vault, &request.run, &ask.principal).await?;
                    }
                }
                Performed::Elsewhere => {
                    if !self.close_if_gone(&request.run).await? && self.stopped_within(WAIT_EVERY, stop).await
                    {
                        return Err(left(&request.run));
                    }
                }
            }
        }
    }

    /// Does as leader what only a leader may, or waits until the leader has done it.
    async fn lead_or_hand_over(
        &self,
        ask: &Ask,
        stop: &Stop,
        progress: &Progress,
    ) -> Result<(RunId, Record)> {
        let mut leadership = Leadership::new(self.0.vault.clone(), self.0.host.clone(), false);
        if let Standing::Reads(leader) = leadership.look().await? {
            let why = format!("{} leads this vault since {}", leader.domain, leader.at);
            return Err(Error::new(Kind::Refused, format!("asking for {}", ask.order), why)
                .hint("run it there, or make this the leader: `tidekeeper serve --take-over`"));
        }
        let request = request::submit(&self.0.vault, ask, false).await?;
        let mut looked = self.clock().monotonic();
        if leadership.fence().is_none() {
            progress.step("wait for the daemon that leads", self.clock().monotonic());
        }
        loop {
            if let Some(fence) = leadership.fence() {
                let job = Job::requested(&request, fence);
                if self.perform(job, stop.clone(), progress.clone()).await? == Performed::Elsewhere {
                    // The leader that had it is gone, or we would not lead: there is nobody else who closes it.
                    self.close_if_gone(&request.run).await?;
                }
            }
            let record = ledger::read(&self.0.vault, &request.run).await?;
            if record.next(self.clock().now()) == Next::Over {
                return Ok((request.run, record));
            }
            if self.stopped_within(WAIT_EVERY, stop).await {
                return Err(left(&request.run));
            }
            if self.clock().monotonic().saturating_sub(looked) >= LOOK_EVERY {
                leadership.look().await?;
                looked = self.clock().monotonic();
            }
        }
    }

    /// Has it done by whoever may, and waits: the daemon of this process is asked, if it has one; else it is done as
    /// [`run_once`](Self::run_once) does it. After `limit` its end is asked for.
    ///
    /// # Errors
    /// As of [`run_once`](Self::run_once); `Timeout` if the daemon has not done it by then.
    pub async fn have_done(&self, ask: &Ask, limit: Duration) -> Result<(RunId, Record)> {
        if self.0.driven.load(Ordering::SeqCst) {
            let request = self.request(ask).await?;
            return self.within(limit, &format!("waiting for {}", ask.order), self.over(request.run)).await;
        }
        let (stop, progress) = (Stop::default(), Progress::default());
        let mut done = pin!(self.run_once(ask, &stop, &progress));
        tokio::select! {
            biased;
            done = &mut done => return done,
            () = self.clock().sleep(limit) => stop.stop(Reason::Asked),
        }
        done.await
    }

    /// Returns when the run is over.
    async fn over(&self, run: RunId) -> Result<(RunId, Record)> {
        loop {
            let record = ledger::read(&self.0.vault, &run).await?;
            if record.next(self.clock().now()) == Next::Over {
                return Ok((run, record));
            }
            self.clock().sleep(WAIT_EVERY).await;
        }
    }

    async fn ended(&self, run: RunId) -> Result<(RunId, Record)> {
        let record = ledger::read(&self.0.vault, &run).await?;
        Ok((run, record))
    }

    async fn close_if_gone(&self, run: &RunId) -> Result<bool> {
        let record = ledger::read(&self.0.vault, run).await?;
        match record.last().filter(|last| last.finished.is_none()) {
            Some(open) => recovery::close_holder(self, run, open.started.attempt).await,
            None => Ok(true),
        }
    }

    async fn stopped_within(&self, pause: Duration, stop: &Stop) -> bool {
        tokio::select! {
            biased;
            () = stop.stopped() => true,
            () = self.clock().sleep(pause) => false,
        }
    }

    /// Asks for the end of a run, whichever process works on it. One that is over and left its target half written is given
    /// up: what is there is to stay.
    ///
    /// # Errors
    /// `NotFound` if there is no such run, `Conflict` if it is over.
    pub async fn cancel(&self, run: &RunId, principal: &str) -> Result<()> {
        let doing = || format!("cancelling run {run}");
        let mut record = ledger::read(&self.0.vault, run).await?;
        let is_open = !record.tries.is_empty() && record.finished().is_none();
        // What cannot be closed now is asked for its end, as one that lives.
        if is_open && self.close_if_gone(run).await.unwrap_or(false) {
            record = ledger::read(&self.0.vault, run).await?;
        }
        let requested =
            request::read(&self.0.vault, run.tail()).await?.is_some_and(|found| found.run == *run);
        if record.tries.is_empty() && !requested {
            return Err(Error::new(Kind::NotFound, doing(), "there is no such run")
                .hint("`tidekeeper runs` lists them"));
        }
        if record.state(self.clock().now()).is_over() {
            // Also one that ended because it was cancelled before.
            if self.give_up(run, principal).await? {
                return Ok(());
            }
            if !record.cancelled {
                return Err(Error::new(Kind::Conflict, doing(), "it is over already")
                    .hint(format!("`tidekeeper runs show {run}` tells what came of it")));
            }
        }
        request::cancel(&self.0.vault, run, principal).await?;
        if let Some(active) = self.active().get(run) {
            active.stop.stop(Reason::Asked);
        }
        self.news();
        Ok(())
    }
}

/// How a command ends that was stopped while another process does the run: that one does not stop by it.
fn left(run: &RunId) -> Error {
    let why = "only the waiting has ended: the run is another process's, and goes on if that lives";
    Error::new(Kind::Conflict, format!("waiting for run {run}"), why)
        .hint(format!("`tidekeeper runs cancel {run}` ends it, `tidekeeper runs watch {run}` follows it"))
}
