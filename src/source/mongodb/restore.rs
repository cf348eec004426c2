//! Restores a backup into a running deployment: plans it, checks it again, does it, compares.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use mongodb::bson::Document;
use tokio::sync::Mutex;

use super::blueprint::{self, Blueprint};
use super::client::{Link, Server};
use super::compare::Comparison;
use super::config::Settings;
use super::facts::Facts;
use super::indexes::Catalogue;
use super::namespace::Namespace;
use super::oplog::entry::record_length;
use super::oplog::records::Records;
use super::oplog::tail;
use super::optime::OpTime;
use super::perform::{Outcome, Performance, catalogue, specs};
use super::plan::{self, Reach, Spec};
use super::preflight::{Beyond, Case, Estate};
use super::replay::{self, Survey};
use super::selection::Selection;
use super::users::People;
use super::wish::Options;
use crate::error::{Error, Kind, Result};
use crate::source::{Check, Finding, Identity, RestorePlan, Restored, Target, Wish, moment_in_words};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::reader::BackupReader;
use crate::vault::writer::LogPoint;

/// From this release on the buckets of a time series are reached by its own name.
const RAW_DATA_SINCE: (u32, u32) = (8, 3);

/// A MongoDB that is restored into.
#[derive(Debug)]
pub struct MongoTarget {
    settings: Settings,
    /// What was read last: a restore follows its plan at once, and needs not read all of the log again to know it.
    looked: Mutex<Option<Arc<Look>>>,
    /// The last restore: what is compared after it.
    done: Mutex<Option<(BackupRef, Spec, Outcome)>>,
}

/// What a backup and the log after it hold for somebody who wants it so.
#[derive(Debug)]
struct Look {
    backup: BackupRef,
    spec: Spec,
    blueprints: Vec<Blueprint>,
    log: Survey,
    /// The indexes that each collection of the target has in the end.
    indexes: BTreeMap<Namespace, Vec<Document>>,
}

impl MongoTarget {
    /// The target that these settings name; nothing is dialled.
    pub fn new(settings: Settings) -> Self {
        MongoTarget { settings, looked: Mutex::default(), done: Mutex::default() }
    }

    async fn link(&self, task: &Task) -> Result<Link> {
        task.guard(Link::open(&self.settings, &task.clock)).await
    }

    /// Reads the metadata, and all of the log up to the cut.
    async fn look(&self, from: &BackupReader, spec: &Spec, task: &Task) -> Result<Arc<Look>> {
        let backup = from.manifest.backup();
        let mut memo = self.looked.lock().await;
        if let Some(look) = memo.as_ref().filter(|look| look.backup == backup && look.spec == *spec) {
            return Ok(look.clone());
        }
        let blueprints = blueprint::read(from, task).await?;
        let (log, catalogue) = survey(from, spec, &blueprints, task).await?;
        let indexes = specs(&catalogue)?;
        let look = Arc::new(Look { backup, spec: spec.clone(), blueprints, log, indexes });
        *memo = Some(look.clone());
        Ok(look)
    }

    /// What the target says, and everything that speaks against it.
    async fn judge(
        &self,
        from: &BackupReader,
        look: &Look,
        link: &Link,
        task: &Task,
    ) -> Result<(Estate, Vec<Finding>)> {
        let Look { spec, blueprints, log, .. } = look;
        let selection = spec.selection()?;
        let wanted = plan::wanted(blueprints, &selection);
        let reach = Reach::new(&wanted, log);
        let beyond = Beyond { spec, selection: &selection };
        let name = self.settings.name.as_str();
        let estate = task.guard(Estate::ask(link, name, &reach, &beyond, task)).await?;
        let facts = Facts::of(&from.manifest);
        let omissions = &from.manifest.omissions;
        let names: BTreeSet<&Namespace> =
            blueprints.iter().map(|one| &one.namespace).chain(&log.names).collect();
        let case = Case {
            facts: &facts,
            wanted: &wanted,
            names: &names,
            selection: &selection,
            log,
            spec,
            omissions,
        };
        let findings = case.judge(&estate);
        Ok((estate, findings))
    }
}

/// What the log does up to the cut, and the catalogue after it. What a collection was before it got a name that is selected is
/// only known after that: then the log is read once more.
async fn survey(
    from: &BackupReader,
    spec: &Spec,
    blueprints: &[Blueprint],
    task: &Task,
) -> Result<(Survey, Catalogue)> {
    let (selection, facts) = (spec.selection()?, Facts::of(&from.manifest));
    let mut followed = BTreeMap::new();
    loop {
        let mut catalogue = catalogue(&plan::wanted(blueprints, &selection))?;
        let Some(cut) = spec.cut else { return Ok((Survey::default(), catalogue)) };
        let records = records(from, &facts, cut, task).await?;
        let selection = selection.clone().following(&followed);
        let span = facts.span(&selection, cut);
        let mut log = task.guard(replay::survey(span, records, &mut catalogue)).await?;
        if log.followed.is_empty() {
            log.followed = followed;
            return Ok((log, catalogue));
        }
        followed.append(&mut log.followed);
    }
}

/// The log from the backup to the cut: its own part first.
pub(super) async fn records(from: &BackupReader, facts: &Facts, cut: OpTime, task: &Task) -> Result<Records> {
    let log = match facts.exact_at {
        Some(exact) if cut > exact => task.guard(from.log(cut.position(), record_length, task)).await?,
        _ => None,
    };
    Ok(Records::of(from, log.as_ref(), task).until(cut))
}

#[async_trait]
impl Target for MongoTarget {
    async fn identity(&self, task: &Task) -> Result<Identity> {
        let link = self.link(task).await?;
        let server = task.guard(Server::ask(&link)).await?;
        Ok(server.identity(&link, self.settings.name.as_str()))
    }

    async fn plan_restore(
        &self,
        from: &BackupReader,
        at: Option<Timestamp>,
        wish: &Wish,
        task: &Task,
    ) -> Result<RestorePlan> {
        let options = Options::read(wish)?;
        let facts = Facts::of(&from.manifest);
        let (cut, objection) = match facts.cut(at, options.until)? {
            Ok(cut) => (cut, None),
            Err(objection) => (facts.exact_at, Some(objection)),
        };
        let selection = Selection::parse(&options.include, &options.rename)?;
        let spec = Spec::new(&options, selection.is_everything(), !People::of(from).is_empty(), cut);
        let look = self.look(from, &spec, task).await?;
        let link = self.link(task).await?;
        let (estate, mut findings) = self.judge(from, &look, &link, task).await?;
        findings.extend(objection);
        let wanted = plan::wanted(&look.blueprints, &selection);
        Ok(RestorePlan {
            backup: from.manifest.backup(),
            at,
            as_of: cut.map_or_else(|| moment_in_words(&from.manifest), OpTime::moment_in_words),
            target: estate.identity.clone(),
            actions: plan::actions(&wanted, &look.log, &spec, &estate.in_the_way),
            findings,
            at_stake: spec.at_stake(&estate),
            live: plan::live(&spec, &estate),
            spec: serde_json::to_value(&spec).unwrap_or_default(),
        })
    }

    async fn restore(&self, from: &BackupReader, plan: &RestorePlan, task: &Task) -> Result<Restored> {
        let doing = format!("restoring {} into {}", plan.backup, plan.target.label);
        let ready = self.look_again(from, plan, task).await.map_err(|error| {
            error.hint_first("the target was not touched; plan the restore again").while_doing(&doing)
        })?;
        let (look, link, estate) = ready;
        let performance = Performance {
            from,
            facts: &Facts::of(&from.manifest),
            spec: &look.spec,
            blueprints: &look.blueprints,
            log: &look.log,
            link: &link,
            estate: &estate,
            raw_data: estate.server.release() >= RAW_DATA_SINCE,
            task,
        };
        let (restored, outcome) = performance.run().await.map_err(|error| {
            error
                .hint_first(
                    "the target was being written: it may hold part of what was wanted; restore again with drop=true",
                )
                .while_doing(doing)
        })?;
        *self.done.lock().await = Some((plan.backup.clone(), look.spec.clone(), outcome));
        Ok(restored)
    }

    /// After a restore, of what it brought; else of all of the backup, at its own moment.
    async fn compare(&self, from: &BackupReader, task: &Task) -> Result<Vec<Check>> {
        let facts = Facts::of(&from.manifest);
        let done = self.done.lock().await;
        let done = done.as_ref().filter(|(backup, ..)| *backup == from.manifest.backup());
        let spec = done.map_or_else(|| Spec::everything(&facts), |(_, spec, _)| spec.clone());
        let look = self.look(from, &spec, task).await?;
        let link = self.link(task).await?;
        let server = task.guard(Server::ask(&link)).await?;
        let contents = from.contents(task).await?;
        let comparison = Comparison {
            from,
            link: &link,
            contents: &contents,
            wanted: &plan::wanted(&look.blueprints, &spec.selection()?),
            log: &look.log.tally,
            indexes: done.map_or(&look.indexes, |(.., outcome)| &outcome.indexes),
            raw_data: server.release() >= RAW_DATA_SINCE,
            task,
        };
        let mut checks = comparison.run().await?;
        if let (Some((.., outcome)), Some(cut)) = (done, spec.cut) {
            checks.extend(replayed(look.log.last, outcome.last, cut));
        }
        Ok(checks)
    }

    async fn log_head(&self, task: &Task) -> Result<Option<LogPoint>> {
        let link = self.link(task).await?;
        let server = task.guard(Server::ask(&link)).await?;
        let Some(identity) = server.log_identity() else { return Ok(None) };
        let newest = task.guard(tail::newest(&link, task)).await?;
        Ok(newest.map(|(at, _)| LogPoint { identity, position: at.position() }))
    }
}

impl MongoTarget {
    /// Whether a plan still holds, and what executing it needs.
    async fn look_again(
        &self,
        from: &BackupReader,
        plan: &RestorePlan,
        task: &Task,
    ) -> Result<(Arc<Look>, Link, Estate)> {
        plan::executable(plan)?;
        let spec: Spec = serde_json::from_value(plan.spec.clone())
            .map_err(|cause| Error::new(Kind::Usage, "reading the plan", cause))?;
        let look = self.look(from, &spec, task).await?;
        let link = self.link(task).await?;
        let (estate, findings) = self.judge(from, &look, &link, task).await?;
        plan::still_valid(plan, &spec, &estate, &findings)?;
        Ok((look, link, estate))
    }
}

/// That the log was applied to its last record before the cut.
fn replayed(expected: Option<OpTime>, found: Option<OpTime>, cut: OpTime) -> Option<Check> {
    let expected = expected?;
    let words = |at: Option<OpTime>| at.map_or_else(|| "nothing".to_owned(), |at| at.to_string());
    Some(Check {
        name: format!("log up to {}", cut.in_words()),
        expected: words(Some(expected)),
        found: words(found),
        passed: found == Some(expected),
    })
}
