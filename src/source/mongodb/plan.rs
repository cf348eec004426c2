//! What a restore would do, in words, and whether that still holds a moment later. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::blueprint::{Blueprint, Shape};
use super::collections::{buildable, is_id_index};
use super::facts::Facts;
use super::namespace::{Namespace, is_own};
use super::optime::OpTime;
use super::preflight::Estate;
use super::replay::Survey;
use super::selection::Selection;
use super::wish::Options;
use crate::error::{Error, Kind, Result};
use crate::source::{Action, Finding, RestorePlan, Severity};

/// With more collections than this a plan has one line for each database.
const LINES_MAX: usize = 50;

/// What a plan tells its execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// Only what matches; empty: everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub include: Vec<String>,
    /// Under other names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rename: Vec<String>,
    /// Whether collections of the same names are dropped first.
    pub drop: bool,
    /// Whether users and roles are restored.
    pub users: bool,
    /// How many batches are on their way at the same time.
    pub workers: usize,
    /// Up to which entry the log is applied; none if there is none to apply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<OpTime>,
}

impl Spec {
    /// From what is wished, and the place in the log that it comes to.
    pub fn new(options: &Options, is_everything: bool, has_users: bool, cut: Option<OpTime>) -> Spec {
        Spec {
            include: options.include.clone(),
            rename: options.rename.clone(),
            drop: options.drop,
            users: has_users && options.users.unwrap_or(is_everything),
            workers: options.workers,
            cut,
        }
    }

    /// All of a backup, at its own moment.
    pub fn everything(facts: &Facts) -> Spec {
        Spec::new(&Options::default(), true, false, facts.exact_at)
    }

    /// Whether something that the target holds would be lost.
    pub fn destroys(&self, estate: &Estate) -> bool {
        self.drop && !estate.in_the_way.is_empty() || self.users && estate.has_people
    }

    /// Which namespaces are wanted, and what they are called in the target.
    pub fn selection(&self) -> Result<Selection> {
        Selection::parse(&self.include, &self.rename)
    }
}

/// A collection of the backup and the one that it becomes.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted<'a> {
    /// As it was.
    pub blueprint: &'a Blueprint,
    /// Its name in the target.
    pub target: Namespace,
}

/// Those collections of a backup that are wanted. Those of `config` and `local` belong to the deployment that they were in.
pub fn wanted<'a>(blueprints: &'a [Blueprint], selection: &Selection) -> Vec<Wanted<'a>> {
    let brought = blueprints.iter().filter(|blueprint| !is_own(&blueprint.namespace.db));
    let chosen = brought.filter_map(|blueprint| {
        let target = selection.target(&blueprint.namespace)?;
        Some(Wanted { blueprint, target })
    });
    chosen.collect()
}

/// Everything that a restore writes to, by its names in the target.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reach(pub BTreeSet<Namespace>);

impl Reach {
    /// Of these collections, and of those that the log does something to.
    pub fn new(wanted: &[Wanted<'_>], log: &Survey) -> Reach {
        Reach(wanted.iter().map(|wanted| wanted.target.clone()).chain(log.tally.changed()).collect())
    }

    /// All databases that are written to.
    pub fn databases(&self) -> BTreeSet<String> {
        self.0.iter().map(|namespace| namespace.db.clone()).collect()
    }
}

/// Fails for a plan that says itself why it cannot be executed.
pub fn executable(plan: &RestorePlan) -> Result<()> {
    plan.blockers().next().map_or(Ok(()), |blocker| Err(blocked(blocker)))
}

/// Between plan and restore a target may have been filled or replaced.
pub fn still_valid(plan: &RestorePlan, spec: &Spec, estate: &Estate, findings: &[Finding]) -> Result<()> {
    if estate.identity.id != plan.target.id {
        return Err(invalid(Kind::Conflict, format!("the plan is for {}", plan.target.label)));
    }
    if let Some(blocker) = findings.iter().find(|finding| finding.severity == Severity::Error) {
        return Err(blocked(blocker));
    }
    if spec.destroys(estate) && !plan.destructive {
        let there = match estate.in_the_way.is_empty() {
            true => "users or roles".to_owned(),
            false => names(&estate.in_the_way),
        };
        let why = format!("the target had nothing in the way when the plan was made, and has {there} now");
        return Err(invalid(Kind::Refused, why));
    }
    Ok(())
}

fn blocked(Finding { what, advice, .. }: &Finding) -> Error {
    invalid(Kind::Unsupported, format!("{what}: {advice}"))
}

fn invalid(kind: Kind, why: String) -> Error {
    Error::new(kind, "checking the plan", why)
}

/// The first few of these, and how many more there are.
pub fn names<'a>(of: impl IntoIterator<Item = &'a Namespace>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = of.into_iter().map(ToString::to_string).collect();
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// The lines of a plan. They do not depend on what the target holds, because the plan's hash covers them.
pub fn actions(wanted: &[Wanted<'_>], log: &Survey, spec: &Spec) -> Vec<Action> {
    let verb = if spec.drop { "replace" } else { "create" };
    let fate = if spec.drop { "; dropped first where the target has it" } else { "" };
    let mut actions = match wanted.len() > LINES_MAX {
        false => wanted.iter().map(|one| line(verb, one, fate)).collect(),
        true => groups(verb, wanted, fate),
    };
    if let Some(cut) = spec.cut.filter(|_| log.tally.ops + log.tally.commands > 0) {
        let object = format!("{} operations and {} commands of the log", log.tally.ops, log.tally.commands);
        let reason = format!("up to {}, whole transactions only", cut.in_words());
        actions.push(action("replay", object, reason));
    }
    let indexes = wanted.iter().flat_map(|one| &one.blueprint.indexes);
    let indexes = indexes.filter(|spec| buildable(spec, false).is_some()).count();
    if indexes > 0 {
        actions.push(action(
            "build",
            format!("{indexes} indexes"),
            "after all documents are there".to_owned(),
        ));
    }
    if spec.users {
        let why = "same names are overwritten, others stay".to_owned();
        actions.push(action("merge", "users and roles".to_owned(), why));
    }
    actions
}

fn action(verb: &str, object: String, reason: String) -> Action {
    Action { verb: verb.to_owned(), object, reason }
}

fn line(verb: &str, wanted: &Wanted<'_>, fate: &str) -> Action {
    let Wanted { blueprint, target } = wanted;
    let from = match *target == blueprint.namespace {
        true => String::new(),
        false => format!(" from {}", blueprint.namespace),
    };
    let what = match blueprint.shape {
        Shape::View => "view".to_owned(),
        shape => {
            let kind = match shape {
                Shape::Capped => "capped collection",
                Shape::Buckets => "time series",
                _ => "collection",
            };
            let indexes = blueprint.indexes.iter().filter(|index| !is_id_index(index)).count();
            format!("{kind} of {} bytes, {indexes} indexes beside _id", blueprint.bytes())
        }
    };
    action(verb, target.to_string(), format!("{what}{from}{fate}"))
}

fn groups(verb: &str, wanted: &[Wanted<'_>], fate: &str) -> Vec<Action> {
    let mut databases: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for one in wanted {
        let (collections, bytes) = databases.entry(&one.target.db).or_default();
        *collections += 1;
        *bytes += one.blueprint.bytes();
    }
    let lines = databases.into_iter().map(|(db, (collections, bytes))| {
        action(
            verb,
            format!("{collections} collections in {db}"),
            format!("{bytes} bytes of documents{fate}"),
        )
    });
    lines.collect()
}

/// What the target holds now of what stands in the way.
pub fn live(spec: &Spec, estate: &Estate) -> Vec<String> {
    let mut lines: Vec<String> =
        estate.counted.iter().map(|(namespace, count)| format!("{namespace}: {count} documents")).collect();
    let more = estate.in_the_way.len().saturating_sub(lines.len());
    if more > 0 {
        lines.push(format!("and {more} more collections"));
    }
    if spec.users && estate.has_people {
        lines.push("users or roles: those of the same names are overwritten".to_owned());
    }
    if lines.is_empty() {
        lines.push("the target has none of these collections".to_owned());
    }
    lines
}
