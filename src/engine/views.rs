//! What people see, the same in the API, the CLI and the console: runs, and how each source fares.

use std::collections::{BTreeSet, VecDeque};

use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::Value;

use super::Engine;
use super::ledger::{self, Trace};
use super::request::{self, Request};
use super::run::{Problem, Record, RunId, State, Why};
use super::work::{Action, Order, Status};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::task::{Snapshot, Step};
use crate::vault::layout::BackupRef;

pub mod source;

/// How many runs are read at the same time.
const IN_FLIGHT: usize = 16;

/// How far back runs are listed day by day, before all of them are searched.
const DAYS: i64 = 31;

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
    pub status: Option<Status>,
    /// One line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// For machines.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub detail: Value,
    /// Why the newest attempt failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Problem>,
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
        self.source.is_none_or_eq(view.source.as_ref())
            && self.action.is_none_or(|action| action == view.action)
            && self.state.is_none_or(|state| state == view.state)
    }
}

/// A wish that may be open.
trait Wish<T> {
    fn is_none_or_eq(&self, found: Option<&T>) -> bool;
}

impl<T: PartialEq> Wish<T> for Option<T> {
    fn is_none_or_eq(&self, found: Option<&T>) -> bool {
        self.is_none() || self.as_ref() == found
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

    /// The newest runs, newest first.
    pub async fn runs(&self, filter: &Filter) -> Result<Vec<RunView>> {
        let mut found = Vec::new();
        let mut seen = BTreeSet::new();
        let today = self.clock().now();
        for back in 0..DAYS {
            let day = day(today, back)?;
            let runs = traces_of(self, day).await?.into_iter().map(|trace| trace.run);
            let mut runs: BTreeSet<RunId> = runs.collect();
            if back == 0 {
                runs.extend(self.waiting().await?);
            }
            runs.retain(|run| seen.insert(run.clone()));
            self.collect(runs.into_iter().rev(), filter, &mut found).await?;
            if found.len() >= filter.limit {
                return Ok(found);
            }
        }
        if seen.is_empty() {
            let newest = self.newest_of_all(filter.limit).await?;
            self.collect(newest.into_iter().rev(), filter, &mut found).await?;
        }
        Ok(found)
    }

    async fn collect(
        &self,
        runs: impl Iterator<Item = RunId> + Send,
        filter: &Filter,
        found: &mut Vec<RunView>,
    ) -> Result<()> {
        let mut views = stream::iter(runs.map(|run| self.view(run))).buffered(IN_FLIGHT);
        while found.len() < filter.limit
            && let Some(view) = views.try_next().await?
        {
            found.extend(view.filter(|view| filter.wants(view)));
        }
        Ok(())
    }

    /// Runs that somebody asked for and nobody has begun.
    async fn waiting(&self) -> Result<Vec<RunId>> {
        let vault = &self.0.vault;
        let recent = self.clock().now() - SignedDuration::from_hours(24);
        let keys = request::keys(vault).await?.into_iter().filter(|(_, made)| *made > recent);
        let mut waiting = Vec::new();
        for (key, _) in keys {
            waiting.extend(request::read(vault, &key).await?.map(|request| request.run));
        }
        Ok(waiting)
    }

    /// For a vault where nothing has run for a month.
    async fn newest_of_all(&self, limit: usize) -> Result<VecDeque<RunId>> {
        let mut newest = VecDeque::new();
        ledger::scan(&self.0.vault, None, |trace| {
            newest.push_back(trace.run);
            if newest.len() > limit {
                newest.pop_front();
            }
        })
        .await?;
        Ok(newest)
    }
}

fn day(today: Timestamp, back: i64) -> Result<Timestamp> {
    today
        .checked_sub(SignedDuration::from_hours(24 * back))
        .map_err(|why| Error::new(Kind::Clock, "counting days back", why))
}

async fn traces_of(engine: &Engine, day: Timestamp) -> Result<Vec<Trace>> {
    let mut traces = Vec::new();
    ledger::scan_day(&engine.0.vault, day, |trace| traces.push(trace)).await?;
    Ok(traces)
}
