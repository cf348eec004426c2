//! What a restore would do, in words, and whether that still holds a moment later. Pure.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::estate::Estate;
use super::glob::Pattern;
use super::preflight::{Verdict, Way};
use super::survey::Survey;
use super::wish::{Keys, Options, WishedWay};
use crate::error::{Error, Kind, Result};
use crate::source::{Action, Finding, Identity, RestorePlan, kind_of_blockers};
use crate::vault::layout::BackupRef;
use crate::vault::manifest::Manifest;
use crate::words::counted;

/// What a plan tells its execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Spec {
    /// How the data gets in.
    pub way: Way,
    /// Only keys that match; none: everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<String>,
    /// Whether keys that exist are overwritten.
    pub replace: bool,
}

impl Spec {
    /// The options that lead to this again.
    pub fn options(&self) -> Options {
        let way = match self.way {
            Way::Replication => WishedWay::Replication,
            Way::RestoreCommands => WishedWay::Restore,
        };
        let keys = self.keys.as_ref().map(|text| Keys { text: text.clone(), pattern: Pattern::new(text) });
        Options { way, keys, replace: self.replace }
    }

    /// What the target holds now that would be lost or changed: which databases have keys, and whether it has functions.
    pub fn at_stake(&self, estate: &Estate) -> Vec<String> {
        let server = &estate.server;
        let databases = server.keyspace.iter().filter(|(_, keyspace)| keyspace.keys > 0);
        let databases = databases.map(|(db, _)| format!("the keys of db{db}"));
        let functions = (server.libraries > 0).then(|| "functions".to_owned());
        match self.keys {
            None => databases.chain(functions).collect(),
            Some(_) if self.replace => databases.collect(),
            Some(_) => Vec::new(),
        }
    }
}

/// Fails for a plan that says itself why it cannot be executed.
pub fn executable(plan: &RestorePlan) -> Result<()> {
    plan.blockers().next().map_or(Ok(()), |blocker| Err(blocked(blocker)))
}

/// Between plan and restore a server may have changed its role, been filled, or been replaced.
pub fn still_valid(plan: &RestorePlan, spec: &Spec, estate: &Estate, verdict: &Verdict) -> Result<()> {
    if estate.identity.id != plan.target.id {
        return Err(invalid(Kind::Conflict, format!("the plan is for {}", plan.target.label)));
    }
    if let Some(blocker) = verdict.findings.iter().find(|finding| finding.forbids()) {
        return Err(blocked(blocker));
    }
    let more = plan.newly_at_stake(spec.at_stake(estate));
    if !more.is_empty() {
        let (more, keys) = (more.join(", "), counted(estate.server.keys(), "key"));
        let why = format!("{more} came into the target after the plan was made; it has {keys} now");
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

/// A plan for a backup that this build cannot read.
pub fn refused(backup: BackupRef, at: Option<Timestamp>, target: Identity, error: &Error) -> RestorePlan {
    let advice = error.hint_text().unwrap_or("use a newer build of this tool");
    RestorePlan {
        backup,
        at,
        as_of: at.map(|at| at.to_string()).unwrap_or_default(),
        target,
        actions: Vec::new(),
        findings: vec![Finding::error(error.to_string(), advice)],
        at_stake: Vec::new(),
        live: Vec::new(),
        spec: serde_json::Value::Null,
    }
}

/// Without a log of changes there is only the moment of the backup itself.
pub fn other_moment(manifest: &Manifest, at: Option<Timestamp>) -> Option<Finding> {
    let own = manifest.consistency.as_ref().and_then(|consistency| consistency.at);
    let at = at.filter(|at| Some(*at) != own)?;
    let own = own.map_or_else(|| "an unknown moment".to_owned(), |own| own.to_string());
    Some(Finding::error(
        format!("{at} was asked for, and the backup is of {own}"),
        "a backup of a Redis restores only to its own moment: leave the time out, or choose another backup",
    ))
}

/// The lines of a plan. They do not depend on what the target holds, because the plan's hash covers them.
pub fn actions(survey: &Survey, spec: &Spec, reason: &str) -> Vec<Action> {
    let action =
        |verb: &str, object: String, reason: String| Action { verb: verb.to_owned(), object, reason };
    let mut actions = Vec::new();
    let load = match (&spec.keys, spec.way) {
        (Some(keys), _) => {
            let verb = if spec.replace { "replace" } else { "create" };
            let fate =
                if spec.replace { "keys of the same names are overwritten" } else { "keys that exist stay" };
            let object = format!("keys that match {keys}");
            return vec![action(
                verb,
                object,
                format!("by RESTORE commands: {reason}; {fate}, all others stay"),
            )];
        }
        (None, Way::Replication) => {
            let why = format!("by replication: {reason}; the target follows us for one full synchronisation");
            actions.push(action("replace", "all databases and functions".to_owned(), why));
            "load"
        }
        (None, Way::RestoreCommands) => {
            let why = format!("by RESTORE commands: {reason}; the target is emptied first (FLUSHALL)");
            actions.push(action("replace", "all databases and functions".to_owned(), why));
            "restore"
        }
    };
    for shard in &survey.shards {
        for (db, counts) in &shard.summary.databases {
            let why = format!("in {}, {} of them with a time to live", shard.artifact.name, counts.expires);
            actions.push(action(load, format!("{} into db{db}", counted(counts.keys(), "key")), why));
        }
    }
    if survey.functions() > 0 {
        actions.push(action(
            load,
            counted(survey.functions(), "function library"),
            "in the backup".to_owned(),
        ));
    }
    actions
}

/// What the target holds now.
pub fn live(estate: &Estate) -> Vec<String> {
    let server = &estate.server;
    let databases = server.keyspace.iter().map(|(db, keyspace)| {
        let keys = counted(keyspace.keys, "key");
        format!("db{db}: {keys}, {} of them with a time to live", keyspace.expires)
    });
    let libraries = (server.libraries > 0).then(|| counted(server.libraries, "function library"));
    let lines: Vec<String> = databases.chain(libraries).collect();
    if lines.is_empty() { vec!["the target is empty".to_owned()] } else { lines }
}
