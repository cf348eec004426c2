//! A backup into a running system: a plan first, then, if it is confirmed where it must be, its execution.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::App;
use super::holding::hold_if_writable;
use super::moment::Point;
use crate::config::SourceName;
use crate::engine::Engine;
use crate::engine::work::{Action, Attempt, Done, Grade, Order, Work};
use crate::error::{Error, Kind, Result};
use crate::source::{
    Check, Finding, Kind as SourceKind, RestorePlan, Restored, Target, Wish, kind_of_blockers,
};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::layout::log::{Position, TimelineId};
use crate::vault::reader::BackupReader;
use crate::vault::timeline::{self, End, Origin};
use crate::vault::verify::ensure_not_damaged;
use crate::words::counted;

/// What somebody wants restored: the body of `POST /v1/restores`, and what the CLI's arguments become.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestoreWish {
    /// `SOURCE/ID` or `SOURCE/latest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// Instead of `backup`: the source, as it was at `at`, or its newest good backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// With `source`: the moment that is wanted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// By name; none: the backup's own source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<SourceName>,
    /// What the kind of source offers beyond 'all of it'.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub options: Map<String, Value>,
    /// The hash of the plan that somebody has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm: Option<String>,
}

/// A wish with its names resolved: what is ordered, so that a restore asked for today means the same tomorrow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Params {
    backup: BackupRef,
    at: Option<Timestamp>,
    /// See [`Point::up_to`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    up_to: Option<Position>,
    /// See [`Point::may_lack`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    may_lack: Option<String>,
    options: Map<String, Value>,
    confirm: Option<String>,
}

/// A plan, and what executing it needs.
struct Prepared {
    reader: BackupReader,
    target: Box<dyn Target>,
    plan: RestorePlan,
}

impl App {
    /// What executing `wish` would do. Touches nothing; holds the backup while it looks.
    pub async fn plan_restore(
        &self,
        wish: &RestoreWish,
        engine: &Engine,
        task: &Task,
    ) -> Result<RestorePlan> {
        task.step("plan");
        let order = self.restore_order(wish, engine, task).await?;
        let (target, params) = parse(&order)?;
        let held = hold_if_writable(self, &params.backup, "plan a restore", task).await?;
        let prepared = prepare(self, &target, &params, None, task).await;
        held.release().await;
        Ok(prepared?.plan)
    }

    /// The order that `wish` comes to. For a moment that is not stored yet, `engine` has the log sealed.
    ///
    /// # Errors
    /// `Usage` if it is contradictory, `NotFound` if it names something unknown, or a moment that cannot be had.
    pub async fn restore_order(&self, wish: &RestoreWish, engine: &Engine, task: &Task) -> Result<Order> {
        let Point { backup, up_to, may_lack } = task.guard(self.wished_point(wish, engine)).await?;
        let target = wish.target.clone().unwrap_or_else(|| backup.source.clone());
        self.target(&target)?;
        let (options, confirm) = (wish.options.clone(), wish.confirm.clone());
        let params = Params { backup, at: wish.at, up_to, may_lack, options, confirm };
        Ok(Order { action: Action::Restore, source: Some(target), params: json!(params) })
    }

    async fn wished_point(&self, wish: &RestoreWish, engine: &Engine) -> Result<Point> {
        let usage = |why: &str| Error::new(Kind::Usage, "reading what to restore", why);
        match (&wish.backup, &wish.source, wish.at) {
            (Some(_), Some(_), _) => Err(usage("both a backup and a source are named; name one of them")),
            (None, None, _) => Err(usage("neither a backup nor a source is named")),
            (Some(_), None, Some(_)) => Err(usage("a backup is of one moment; `at` goes with a source")),
            (Some(text), None, None) => self.catalog.resolve(text).await.map(Point::of),
            (None, Some(source), None) => {
                self.catalog.resolve(&format!("{source}/latest")).await.map(Point::of)
            }
            (None, Some(source), Some(at)) if at > self.clock.now() => Err(self.not_yet(source, at).await?),
            (None, Some(source), Some(at)) => self.point(source, at, engine).await,
        }
    }
}

/// Restores a backup into a target.
pub struct Restore {
    app: App,
    order: Order,
    target: SourceName,
    params: Params,
}

impl Restore {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order) -> Result<Self> {
        let (target, params) = parse(order)?;
        app.target(&target)?;
        Ok(Restore { app: app.clone(), order: order.clone(), target, params })
    }

    async fn execute(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        task.step("preflight");
        let prepared = prepare(&self.app, &self.target, &self.params, Some(attempt), task).await;
        let Prepared { reader, target, plan } =
            prepared.map_err(|error| error.hint_first("the target was not touched"))?;
        let anew = self.close_timelines(&*target, task, attempt).await;
        let anew = anew.map_err(|error| error.hint_first("the target was not touched"))?;
        let told = |error: Error| anew.iter().fold(error, |error, anew| error.hint_first(anew));
        attempt.touch().await.map_err(|error| error.hint_first("the target was not touched"))?;
        let restored = target.restore(&reader, &plan, task).await.map_err(told)?;
        task.step("compare");
        let checks = match restored.selected {
            true => Vec::new(),
            false => target.compare(&reader, task).await.map_err(|error| {
                error.hint_first("the target holds all of the backup, and was not compared")
            })?,
        };
        if checks.iter().all(|check| check.passed) {
            self.settle(attempt).await;
        }
        let mut done = done(&plan, &restored, &checks);
        done.summary.extend(anew.iter().map(|anew| format!("; {anew}")));
        Ok(done)
    }

    /// What the target holds counts again, as does what others like it had left half done.
    async fn settle(&self, attempt: &Attempt) {
        let kind = self.app.target(&self.target).ok().and_then(|system| self.app.kind(system.kind()));
        let options = |params: &Params| {
            let mut options = params.options.clone();
            kind.inspect(|kind| kind.restore_again(&mut options));
            options
        };
        let makes_up = |order: &Order| {
            let Ok((_, before)) = parse(order) else { return false };
            let is_same_moment = (&before.backup, before.at) == (&self.params.backup, self.params.at);
            let (ours, theirs) = (options(&self.params), options(&before));
            let all = |kind: &dyn SourceKind| kind.makes_up(&ours, &theirs, is_same_moment);
            (is_same_moment && ours == theirs) || kind.is_some_and(all)
        };
        if let Err(error) = attempt.settle(&self.target, makes_up).await {
            tracing::warn!(run = %attempt.run, %error, "it is not written down that the target counts again");
        }
    }

    /// Ends the timelines that follow the target's log: what is written from here on is the restore's doing, and no moment
    /// of the source. Tells in words what that means for each of them.
    async fn close_timelines(
        &self,
        target: &dyn Target,
        task: &Task,
        attempt: &Attempt,
    ) -> Result<Vec<String>> {
        let mut closed = Vec::new();
        for (source, timeline) in followed(&self.app, target, task).await? {
            // What was written up to now still belongs to it.
            let sealed = self.app.seal_anywhere(&source, task, attempt).await;
            let Some(head) = task.guard(target.log_head(task)).await? else { continue };
            let why = format!("run {} restored into the source", attempt.run);
            let end = End::new(head.position, why, self.app.clock.now());
            task.guard(timeline::close(&self.app.vault, &source, &timeline, end)).await?;
            let anew = format!(
                "the window of {source} starts anew with its next backup: `tidekeeper backup {source}`"
            );
            closed.push(match sealed {
                Ok(()) => anew,
                Err(error) => {
                    tracing::warn!(%source, %error, "the log is not stored up to the restore");
                    format!(
                        "{anew}; the one before may end with its last segment: what was written since could not be stored: \
                         {error}"
                    )
                }
            });
        }
        Ok(closed)
    }
}

#[async_trait]
impl Work for Restore {
    fn order(&self) -> &Order {
        &self.order
    }

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        let held = hold_if_writable(&self.app, &self.params.backup, "restore", task).await?;
        let done = self.execute(task, attempt).await;
        held.release().await;
        done.map_err(|error| {
            error.while_doing(format!("restoring {} into {}", self.params.backup, self.target))
        })
    }
}

/// The sources whose open timelines follow the target's log. A log is known by its own name, whatever the sources are called.
async fn followed(app: &App, target: &dyn Target, task: &Task) -> Result<Vec<(SourceName, TimelineId)>> {
    let Some(head) = task.guard(target.log_head(task)).await? else { return Ok(Vec::new()) };
    let is_it = |origin: &Origin| origin.identity == head.identity;
    let mut followed = Vec::new();
    for (source, _) in app.sources() {
        let timelines = task.guard(timeline::list(&app.vault, source)).await?;
        let open = timelines.last().filter(|newest| newest.end == Ok(None));
        let open = open.filter(|newest| newest.origin.as_ref().is_ok_and(is_it));
        followed.extend(open.map(|newest| (source.clone(), newest.id.clone())));
    }
    Ok(followed)
}

/// What it means that the target is a source: of the backup itself, or one that somebody follows.
fn into_a_source(
    target: &SourceName,
    of: &SourceName,
    followed: &[(SourceName, TimelineId)],
) -> Vec<Finding> {
    let ends = |source: &SourceName| {
        let which = match source == of {
            true => format!("the target is {source} itself, the source of the backup"),
            false => format!("the target is what is followed as {source}"),
        };
        let advice = format!(
            "its window starts anew with the next backup: `tidekeeper backup {source}` when this is done"
        );
        Finding::warning(format!("{which}: its timeline ends with this restore"), advice)
    };
    let mut findings: Vec<Finding> = followed.iter().map(|(source, _)| ends(source)).collect();
    if target == of && followed.iter().all(|(source, _)| source != of) {
        findings.push(Finding::ok(format!("the target is {of} itself, the source of the backup")));
    }
    findings
}

fn parse(order: &Order) -> Result<(SourceName, Params)> {
    let doing = format!("reading the order to {order}");
    let target = order.source.clone().ok_or_else(|| Error::new(Kind::Usage, doing, "it names no target"))?;
    Ok((target, super::params(order)?))
}

/// All that comes before the target is touched. An attempt claims it, and passes only with a plan that may be executed.
async fn prepare(
    app: &App,
    target: &SourceName,
    params: &Params,
    attempt: Option<&Attempt>,
    task: &Task,
) -> Result<Prepared> {
    let system = app.target(target)?;
    // The target first: one that is not there need not wait for a walk of the whole backup, and what another restore is
    // about to change is not worth a look.
    let (kind, name, target) = (system.kind(), target, system.target());
    let identity = task.guard(target.identity(task)).await?;
    if let Some(attempt) = attempt {
        attempt.claim(&identity.id, &identity.label).await?;
    }
    task.guard(ensure_not_damaged(&app.vault, &params.backup)).await?;
    let reader = task.guard(BackupReader::open_backup(&app.vault, &params.backup)).await?;
    let reader = reader.log_up_to(params.up_to);
    if kind != reader.manifest.kind {
        let why = format!("it is of kind {}, and {name} is of kind {kind}", reader.manifest.kind);
        return Err(Error::new(Kind::Unsupported, format!("planning to restore {}", params.backup), why)
            .hint("name a target of that kind"));
    }
    let wish = Wish { options: params.options.clone() };
    let mut plan = target.plan_restore(&reader, params.at, &wish, task).await?;
    if let Some(lacks) = &params.may_lack {
        let advice = "look whether the end of that second is wanted: it is nowhere stored";
        plan.findings.push(Finding::warning(format!("it may lack {lacks}"), advice));
    }
    let followed = followed(app, &*target, task).await?;
    plan.findings.extend(into_a_source(name, &params.backup.source, &followed));
    if attempt.is_some() {
        permit(&plan, params.confirm.as_deref())?;
    }
    Ok(Prepared { reader, target, plan })
}

/// Lets a plan pass that can be executed, and that was confirmed if it would destroy something.
fn permit(plan: &RestorePlan, confirm: Option<&str>) -> Result<()> {
    let doing = || format!("starting to write to {}", plan.target.label);
    let (what, advice): (Vec<&str>, Vec<&str>) =
        plan.blockers().map(|finding| (finding.what.as_str(), finding.advice.as_str())).unzip();
    if !what.is_empty() {
        let kind = kind_of_blockers(&plan.findings);
        return Err(Error::new(kind, doing(), what.join("; ")).hint(advice.join("; ")));
    }
    let hash = plan.hash();
    match confirm {
        Some(confirmed) if confirmed == hash => Ok(()),
        Some(_) => {
            let actions: Vec<&str> = plan.actions.iter().map(|action| action.object.as_str()).collect();
            let at_stake = match plan.at_stake.as_slice() {
                [] => "nothing".to_owned(),
                some => some.join("; "),
            };
            let why = format!(
                "the plan is not the one that was confirmed: it is now of {}, into {}, with {}; what would be lost is {at_stake}",
                plan.backup,
                plan.target.label,
                actions.join(", ")
            );
            Err(Error::new(Kind::Refused, doing(), why).hint("look at it anew with --dry-run"))
        }
        None if plan.is_destructive() => {
            let why = format!("it is not empty: {}", plan.live.join(", "));
            let hint = "what is there would be lost: look at the plan with --dry-run, and confirm it with";
            Err(Error::new(Kind::Refused, doing(), why).hint(format!("{hint} --confirm {hash}")))
        }
        None => Ok(()),
    }
}

fn done(plan: &RestorePlan, restored: &Restored, checks: &[Check]) -> Done {
    let failed: Vec<_> =
        checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
    let whole = failed.is_empty() && restored.omissions.is_empty();
    let checked = match failed.as_slice() {
        [] if restored.selected => "a selection only, so nothing was compared".to_owned(),
        [] if restored.changed > 0 => format!(
            "{} passed; of {} that the log changed no more than the number of documents was compared",
            counted(checks.len() as u64, "check"),
            counted(restored.changed, "collection")
        ),
        [] => format!("{} passed", counted(checks.len() as u64, "check")),
        names => format!("checks that failed: {}", names.join(", ")),
    };
    Done {
        status: if whole { Grade::Succeeded } else { Grade::Partial },
        summary: format!(
            "{} into {}, as of {}: {}; {checked}",
            plan.backup,
            plan.target.label,
            plan.as_of,
            counted(restored.items, "item")
        ),
        detail: json!({ "plan": plan.document(), "hash": plan.hash(), "restored": restored, "checks": checks }),
    }
}
