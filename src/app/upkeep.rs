//! What keeps a vault in order: retention, which deletes, and scrub, which finds and repairs.

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::App;
use crate::config::{Schedule, SourceName};
use crate::engine::due::Timetable;
use crate::engine::guards::OpenAttempts;
use crate::engine::run::Failure;
use crate::engine::work::{Action, Attempt, Done, Grade, Order, Work};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::deletion::{self, Deleter, NoNatives, Policy};
use crate::vault::retention::Plan;
use crate::vault::scrub::{self, Line, Repaired};

impl App {
    /// What retention would do now, source by source: the dry run.
    ///
    /// # Errors
    /// `NotFound` for a source without a schedule: nothing says how long its backups are kept.
    pub async fn plan_retention(&self, source: Option<&SourceName>) -> Result<Vec<(SourceName, Plan)>> {
        let mut plans = Vec::new();
        for policy in self.policies(source)? {
            let plan = deletion::preview(&self.catalog, &self.vault, &self.store_clock, &policy).await?;
            plans.push((policy.source, plan));
        }
        Ok(plans)
    }

    /// What a scrub finds; changes nothing.
    pub async fn scrub(&self, deep: bool, task: &Task) -> Result<Vec<Line>> {
        let writers = OpenAttempts::new(&self.vault);
        scrub::Scrub { vault: &self.vault, catalog: &self.catalog, writers: &writers, deep }
            .inspect(task)
            .await
    }

    /// How long the backups of one source, or of all that have a schedule, are kept.
    fn policies(&self, source: Option<&SourceName>) -> Result<Vec<Policy>> {
        let timetable = Timetable::new(&self.config.schedules);
        let wanted = |schedule: &&Schedule| source.is_none_or(|source| schedule.source == *source);
        let schedules: Vec<_> = self.config.schedules.iter().filter(wanted).collect();
        match source {
            Some(source) if schedules.is_empty() => Err(Error::new(
                Kind::NotFound,
                format!("looking for the retention of {source}"),
                "it has no schedule",
            )
            .hint("a file in `schedules` with `source` and `retention` says how long backups are kept")),
            _ => Ok(schedules.into_iter().map(|schedule| self.policy(schedule, &timetable)).collect()),
        }
    }

    fn policy(&self, schedule: &Schedule, timetable: &Timetable) -> Policy {
        let now = self.clock.now();
        let backups = timetable.of(&schedule.source).filter(|line| line.action == Action::Backup);
        // Of several series no pause is longer than in the densest of them.
        let interval = backups.filter_map(|line| line.interval(now)).min();
        Policy {
            source: schedule.source.clone(),
            retention: schedule.retention.clone(),
            zone: schedule.time_zone.0.clone(),
            interval: interval.and_then(|interval| Duration::try_from(interval).ok()),
        }
    }

    fn deleter<'a>(&'a self, attempt: &'a Attempt) -> Deleter<'a> {
        Deleter {
            vault: &self.vault,
            catalog: &self.catalog,
            clock: &self.store_clock,
            fence: &attempt.fence,
            natives: &NoNatives,
        }
    }
}

/// Deletes what retention lets go, of one source or of all.
pub struct Retain {
    app: App,
    order: Order,
}

impl Retain {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order) -> Self {
        Retain { app: app.clone(), order: order.clone() }
    }
}

#[async_trait]
impl Work for Retain {
    fn order(&self) -> &Order {
        &self.order
    }

    fn needs_leader(&self) -> bool {
        true
    }

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        task.step("retention");
        let (mut reports, mut failed) = (Vec::new(), Vec::new());
        for policy in self.app.policies(self.order.source.as_ref())? {
            let deleter = self.app.deleter(attempt);
            task.checkpoint()?;
            match task.guard(deleter.apply(&policy)).await {
                Ok(report) => reports.push((policy.source, report)),
                // It voids this source's plan only; the others have their turn.
                Err(error) => {
                    tracing::warn!(source = %policy.source, %error, "this source's retention waits");
                    failed.push((policy.source, error));
                }
            }
        }
        if reports.is_empty()
            && let Some((_, error)) = failed.pop()
        {
            return Err(error);
        }
        let count =
            |of: fn(&deletion::Report) -> usize| reports.iter().map(|(_, report)| of(report)).sum::<usize>();
        let mut summary = format!(
            "{} deleted, {} proposed, {} wait for their grace, {} withdrawn",
            count(|report| report.deleted.len()),
            count(|report| report.proposed.len()),
            count(|report| report.pending.len()),
            count(|report| report.withdrawn.len())
        );
        let segments = count(|report| report.trimmed.segments);
        if segments > 0 {
            summary += &format!(", {segments} segments of timelines trimmed");
        }
        if !failed.is_empty() {
            summary += &format!("; {} sources failed", failed.len());
        }
        let done = reports.iter().map(|(source, report)| json!({ "source": source, "report": report }));
        let not_done =
            failed.iter().map(|(source, error)| json!({ "source": source, "error": Failure::from(error) }));
        let detail = done.chain(not_done).collect();
        let status = if failed.is_empty() { Grade::Succeeded } else { Grade::Partial };
        Ok(Done { status, summary, detail })
    }
}

/// What an order to scrub says.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScrubParams {
    /// Reads every byte of every backup.
    #[serde(default)]
    pub deep: bool,
}

impl ScrubParams {
    /// The order to repair what a scrub with these finds.
    pub fn order(self) -> Order {
        Order { action: Action::Scrub, source: None, params: json!(self) }
    }
}

/// Looks through the vault and repairs what can be repaired.
pub struct Scrub {
    app: App,
    order: Order,
    params: ScrubParams,
}

impl Scrub {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order) -> Result<Self> {
        Ok(Scrub { app: app.clone(), order: order.clone(), params: super::params(order)? })
    }
}

#[async_trait]
impl Work for Scrub {
    fn order(&self) -> &Order {
        &self.order
    }

    fn needs_leader(&self) -> bool {
        true
    }

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        task.step("inspect");
        let app = &self.app;
        let writers = OpenAttempts::new(&app.vault);
        let scrub = scrub::Scrub {
            vault: &app.vault,
            catalog: &app.catalog,
            writers: &writers,
            deep: self.params.deep,
        };
        let lines = scrub.inspect(task).await?;
        task.step("repair");
        let repairs = task.guard(scrub.repair(&lines, &app.deleter(attempt))).await?;
        let done = repairs.iter().filter(|repair| repair.repaired == Repaired::Done).count();
        let failed = repairs.iter().filter(|repair| matches!(repair.repaired, Repaired::Failed(_))).count();
        let damaged = lines.iter().any(Line::is_damage);
        Ok(Done {
            status: if damaged || failed > 0 { Grade::Partial } else { Grade::Succeeded },
            summary: format!("{} findings, {done} repaired, {failed} repairs failed", lines.len()),
            detail: json!({ "findings": lines, "repairs": repairs }),
        })
    }
}
