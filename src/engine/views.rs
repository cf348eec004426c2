//! What people see, the same in the API, the CLI and the console: runs, and how each source fares.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::MutexGuard;

use futures_util::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::Engine;
use super::ledger;
use super::request::{self, Request};
use super::run::{Failure, Record, RunId, State, Why};
use super::work::{Action, Grade, Order};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::task::{Snapshot, Step};
use crate::vault::decide::set_aside;
use crate::vault::layout::BackupRef;

pub mod leader;
pub mod source;
mod whole;

/// How many runs are read at the same time.
const IN_FLIGHT: usize = 16;

/// How many days back runs are searched: mostly the first window has enough, and then nothing older is listed.
const WINDOWS: [Option<i64>; 3] = [Some(1), Some(8), LONGEST];
const LONGEST: Option<i64> = Some(31);

/// How many runs of a window are looked at, the newest; their ids take less than a megabyte.
const LISTED: usize = 10_000;

/// How many runs that are over are remembered without their details: about a megabyte.
const BRIEFS: usize = 1_000;

/// A run as people see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunView {
    /// Its id.
    pub run: RunId,
    /// Where it stands.
    pub state: State,
    /// What is done.
    pub action: Action,
    /// To which source or target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// With which parameters.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub params: Value,
    /// Who asked.
    pub principal: String,
    /// Why.
    pub why: Why,
    /// How many attempts were begun.
    pub attempts: u32,
    /// When the first began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When the newest ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// When it must have ended, by the store's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// When the next attempt follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// How good what was done is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Grade>,
    /// One line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// For machines.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// Why the newest attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// What the newest attempt did.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    /// The backup that the newest attempt made or may make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backup: Option<BackupRef>,
    /// How far it is, while this process works on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<Snapshot>,
}

impl RunView {
    /// A run that somebody has begun; `None` if nobody has.
    pub fn of(record: &Record, now: Timestamp) -> Option<Self> {
        let (first, last) = (&record.tries.first()?.started, record.last()?);
        let state = record.state(now);
        let mut view = RunView::new(first.run.clone(), &first.order, &first.principal, first.why.clone());
        view.state = state;
        view.attempts = last.started.attempt;
        view.started_at = Some(first.started_at);
        view.deadline = Some(first.deadline);
        view.backup = last.started.backup();
        if let Some(finished) = &last.finished {
            view.finished_at = Some(finished.finished_at);
            view.retry_at = finished.retry_at.filter(|_| !state.is_over());
            view.status = finished.status;
            view.summary.clone_from(&finished.summary);
            view.detail.clone_from(&finished.detail);
            view.error.clone_from(&finished.error);
            view.steps.clone_from(&finished.steps);
        }
        Some(view)
    }

    fn requested(request: &Request, record: &Record, now: Timestamp) -> Self {
        let why = Why::Request { local: request.local };
        let mut view = RunView::new(request.run.clone(), &request.order, &request.principal, why);
        view.state = record.state(now);
        view
    }

    fn new(run: RunId, order: &Order, principal: &str, why: Why) -> Self {
        RunView {
            run,
            state: State::Requested,
            action: order.action,
            source: order.source.clone(),
            params: order.params.clone(),
            principal: principal.to_owned(),
            why,
            attempts: 0,
            started_at: None,
            finished_at: None,
            deadline: None,
            retry_at: None,
            status: None,
            summary: String::new(),
            detail: Value::Null,
            error: None,
            steps: Vec::new(),
            backup: None,
            progress: None,
        }
    }
}

/// Runs that were looked for.
#[derive(Debug, Default)]
struct Found {
    views: Vec<RunView>,
    /// What was there and cannot be read.
    unreadable: Vec<Error>,
}

/// Which runs are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Of this source or into this target.
    pub source: Option<SourceName>,
    /// Of this kind.
    pub action: Option<Action>,
    /// That stand so.
    pub state: Option<State>,
    /// At most so many, the newest.
    pub limit: usize,
}

impl Filter {
    fn wants(&self, view: &RunView) -> bool {
        (self.source.is_none() || self.source == view.source)
            && self.action.is_none_or(|action| action == view.action)
            && self.state.is_none_or(|state| state == view.state)
    }
}

impl Engine {
    /// One run.
    ///
    /// # Errors
    /// `NotFound` if nobody ever asked for it or began it.
    pub async fn run(&self, run: &RunId) -> Result<RunView> {
        match self.view(run.clone()).await? {
            Some(view) => Ok(view),
            None => Err(Error::new(Kind::NotFound, format!("looking for run {run}"), "there is no such run")
                .hint("`tidekeeper runs` lists them")),
        }
    }

    async fn view(&self, run: RunId) -> Result<Option<RunView>> {
        let record = ledger::read(&self.0.vault, &run).await?;
        let now = self.clock().now();
        let mut view = match RunView::of(&record, now) {
            Some(view) => view,
            None => match request::read(&self.0.vault, run.tail()).await?.filter(|found| found.run == run) {
                Some(request) => RunView::requested(&request, &record, now),
                None => return Ok(None),
            },
        };
        view.progress = self.active().get(&run).map(|active| active.progress.snapshot());
        Ok(Some(view))
    }

    /// The newest runs of the last month, newest first, each without its `detail`. Of a vault where nothing has run for
    /// so long, the newest of all.
    pub async fn runs(&self, filter: &Filter) -> Result<Vec<RunView>> {
        let mut found = self.recent_runs(filter, &WINDOWS).await?;
        if found.views.is_empty() && self.newest(LONGEST).await?.is_empty() {
            found = self.recent_runs(filter, &[None]).await?;
        }
        for error in &found.unreadable {
            tracing::warn!(%error, hint = error.hint_text(), "a run is not listed");
        }
        Ok(found.views)
    }

    /// The runs of one window after the other, each so many days long, until there are enough.
    async fn recent_runs(&self, filter: &Filter, windows: &[Option<i64>]) -> Result<Found> {
        let mut found = Found::default();
        let mut requested = self.requested(&mut found.unreadable).await?;
        let mut seen = BTreeSet::new();
        for days in windows {
            let mut runs: BTreeSet<RunId> = self.newest(*days).await?.into_iter().collect();
            runs.append(&mut requested);
            runs.retain(|run| seen.insert(run.clone()));
            self.collect(runs, filter, &mut found).await?;
            if found.views.len() >= filter.limit {
                break;
            }
        }
        Ok(found)
    }

    async fn collect(&self, runs: BTreeSet<RunId>, filter: &Filter, found: &mut Found) -> Result<()> {
        let newest_first = runs.into_iter().rev();
        let mut views = stream::iter(newest_first.map(|run| self.brief(run))).buffered(IN_FLIGHT);
        while found.views.len() < filter.limit
            && let Some(read) = views.next().await
        {
            let view = set_aside(read, &mut found.unreadable)?.flatten();
            found.views.extend(view.filter(|view| filter.wants(view)));
        }
        Ok(())
    }

    /// A run without its detail. One that is over is read once: nothing about it changes any more.
    async fn brief(&self, run: RunId) -> Result<Option<RunView>> {
        if let Some(known) = self.briefs().get(&run) {
            return Ok(Some(known.clone()));
        }
        let Some(mut view) = self.view(run).await? else { return Ok(None) };
        view.detail = Value::Null;
        if view.state.is_over() && view.attempts > 0 {
            let mut briefs = self.briefs();
            briefs.insert(view.run.clone(), view.clone());
            if briefs.len() > BRIEFS {
                briefs.pop_first();
            }
        }
        Ok(Some(view))
    }

    fn briefs(&self) -> MutexGuard<'_, BTreeMap<RunId, RunView>> {
        self.0.briefs.lock().expect("no holder panics")
    }

    /// Runs that somebody asked for within a day: those that nobody has begun are in no listing of runs.
    async fn requested(&self, unreadable: &mut Vec<Error>) -> Result<BTreeSet<RunId>> {
        let recent = self.clock().now() - SignedDuration::from_hours(24);
        let mut known: BTreeMap<String, RunId> =
            self.briefs().keys().map(|run| (run.tail().to_owned(), run.clone())).collect();
        let mut requested = BTreeSet::new();
        for (key, made) in request::keys(&self.0.vault).await? {
            if made <= recent {
                continue;
            }
            requested.extend(match known.remove(&key) {
                Some(run) => Some(run),
                None => {
                    let read = request::read(&self.0.vault, &key).await;
                    set_aside(read, unreadable)?.flatten().map(|request| request.run)
                }
            });
        }
        Ok(requested)
    }

    /// The newest runs of so many days, or of all.
    async fn newest(&self, days: Option<i64>) -> Result<VecDeque<RunId>> {
        let since = days.map(|days| self.clock().now() - SignedDuration::from_hours(24 * days));
        let mut newest = VecDeque::new();
        ledger::scan(&self.0.vault, since, |trace| {
            newest.push_back(trace.run);
            if newest.len() > LISTED {
                newest.pop_front();
            }
        })
        .await?;
        Ok(newest)
    }
}
