//! What a restore would do, in words, and whether that still holds a moment later. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::blueprint::{Blueprint, Shape};
use super::collections::{Listed, buildable, is_id_index};
use super::facts::Facts;
use super::namespace::{Namespace, is_own};
use super::optime::OpTime;
use super::preflight::Estate;
use super::replay::Survey;
use super::selection::Selection;
use super::wish::Options;
use crate::error::{Error, Kind, Result};
use crate::source::{Action, Finding, RestorePlan, kind_of_blockers};
use crate::words::{bytes, counted};

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

    /// What the target holds that would be lost or changed: collections by their own ids, where the server tells them.
    pub fn at_stake(&self, estate: &Estate) -> Vec<String> {
        let dropped =
            estate.in_the_way.iter().filter(|_| self.drop).map(|(namespace, listed)| match &listed.id {
                Some(id) => format!("{namespace}, id {id}"),
                None => namespace.to_string(),
            });
        let people = (self.users && estate.has_people).then(|| "users or roles".to_owned());
        dropped.chain(people).collect()
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
    if let Some(blocker) = findings.iter().find(|finding| finding.forbids()) {
        return Err(blocked(blocker));
    }
    let more = plan.newly_at_stake(spec.at_stake(estate));
    if !more.is_empty() {
        let why = format!("what is in the way now was not when the plan was made: {}", more.join("; "));
        return Err(invalid(Kind::Refused, why));
    }
    Ok(())
}

fn blocked(blocker: &Finding) -> Error {
    invalid(kind_of_blockers([blocker]), format!("{}: {}", blocker.what, blocker.advice))
}

fn invalid(kind: Kind, why: String) -> Error {
    Error::new(kind, "checking the plan", why)
}

/// The first few of these, and how many more there are.
pub fn names<'a>(of: impl IntoIterator<Item = &'a Namespace>) -> String {
    const SHOWN: usize = 10;
    let names: Vec<String> = of.into_iter().map(ToString::to_string).collect();
    match names.len().checked_sub(SHOWN) {
        None | Some(0) => names.join(", "),
        Some(more) => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// The lines of a plan: what is in the way is replaced, where it may be.
pub fn actions(
    wanted: &[Wanted<'_>],
    log: &Survey,
    spec: &Spec,
    in_the_way: &BTreeMap<Namespace, Listed>,
) -> Vec<Action> {
    let lines = lines(wanted, log);
    let verb = |line: &Line| match spec.drop && in_the_way.contains_key(&line.target) {
        true => "replace",
        false => "create",
    };
    let mut actions: Vec<Action> = match lines.len() > LINES_MAX {
        false => {
            lines.iter().map(|line| action(verb(line), line.target.to_string(), line.what.clone())).collect()
        }
        true => groups(&lines, verb),
    };
    let counts = [(log.tally.ops, "operation"), (log.tally.commands, "command")];
    let done: Vec<String> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, one)| counted(*count, one)).collect();
    if let Some(cut) = spec.cut.filter(|_| !done.is_empty()) {
        let reason = format!("up to {}, whole transactions only", cut.in_words());
        actions.push(action("replay", format!("{} of the log", done.join(" and ")), reason));
    }
    let indexes = wanted.iter().flat_map(|one| &one.blueprint.indexes);
    let indexes = indexes.filter(|spec| buildable(spec, false).is_some()).count();
    if indexes > 0 {
        let object = counted(indexes as u64, "index");
        actions.push(action("build", object, "after all documents are there".to_owned()));
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

/// One collection of the target.
struct Line {
    target: Namespace,
    /// What it is, and where it comes from.
    what: String,
    /// Of its documents in the backup.
    bytes: u64,
}

/// What is brought, and then what only the log makes, and leaves.
fn lines(wanted: &[Wanted<'_>], log: &Survey) -> Vec<Line> {
    let growth = &log.tally.growth;
    let mut lines: Vec<Line> = wanted.iter().map(|one| line(one, growth.of(&one.target).is_gone)).collect();
    let brought: BTreeSet<&Namespace> = wanted.iter().map(|one| &one.target).collect();
    for target in log.tally.changed().into_iter().filter(|target| !brought.contains(target)) {
        let growth = growth.of(&target);
        let what = match growth.base {
            _ if growth.is_gone => continue,
            Some(base) if base != target => format!("{base}, which the log gives this name"),
            // Something was done to a collection that is not there: nothing comes of that.
            Some(_) if growth.by <= 0 => continue,
            _ => "made by the log".to_owned(),
        };
        lines.push(Line { target, what, bytes: 0 });
    }
    lines
}

fn line(Wanted { blueprint, target }: &Wanted<'_>, is_gone: bool) -> Line {
    let from = match *target == blueprint.namespace {
        true => String::new(),
        false => format!("; from {}", blueprint.namespace),
    };
    let what = match blueprint.shape {
        Shape::View => "view".to_owned(),
        shape => {
            let kind = match shape {
                Shape::Capped => "capped collection",
                Shape::Buckets => "time series",
                _ => "collection",
            };
            let size = match blueprint.bytes() {
                0 => "without documents".to_owned(),
                size => format!("of {}", bytes(size)),
            };
            let indexes = blueprint.indexes.iter().filter(|index| !is_id_index(index)).count();
            match indexes {
                0 => format!("{kind} {size}"),
                _ => format!("{kind} {size}, {} beside _id", counted(indexes as u64, "index")),
            }
        }
    };
    let end = if is_gone { "; the log drops it, or gives it another name" } else { "" };
    Line { target: target.clone(), what: format!("{what}{from}{end}"), bytes: blueprint.bytes() }
}

fn groups(lines: &[Line], verb: impl Fn(&Line) -> &'static str) -> Vec<Action> {
    let mut databases: BTreeMap<(&str, &str), (u64, u64)> = BTreeMap::new();
    for line in lines {
        let (collections, size) = databases.entry((&line.target.db, verb(line))).or_default();
        *collections += 1;
        *size += line.bytes;
    }
    let group = |((db, verb), (collections, size)): ((&str, &str), (u64, u64))| {
        let object = format!("{} in {db}", counted(collections, "collection"));
        action(verb, object, format!("{} of documents", bytes(size)))
    };
    databases.into_iter().map(group).collect()
}

/// What the target holds now of what stands in the way.
pub fn live(spec: &Spec, estate: &Estate) -> Vec<String> {
    let held = |(namespace, count): &(Namespace, Option<u64>)| match count {
        Some(count) => format!("{namespace}: {}", counted(*count, "document")),
        None => format!("{namespace}: a view"),
    };
    let mut lines: Vec<String> = estate.counted.iter().map(held).collect();
    let more = estate.in_the_way.len().saturating_sub(lines.len());
    if more > 0 {
        lines.push(format!("and {more} more of these collections"));
    }
    if spec.users && estate.has_people {
        lines.push("users or roles: those of the same names are overwritten".to_owned());
    }
    if lines.is_empty() {
        lines.push("none of these collections".to_owned());
    }
    lines
}
