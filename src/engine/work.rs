//! What can be done, without knowing how: the only view that the engine has of sources, retention, scrub and drills.

use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Engine;
use super::claims::{self, Claimed, Held};
use super::followers::Follower;
use super::leader::Fence;
use super::recovery;
use super::unsettled::Touch;
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::layout::{BackupRef, RunId};
use crate::vault::manifest::{Manifest, Status};

/// What is done. Serialised in lower case; one that a newer build knows reads as `Other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// A source into the vault.
    Backup,
    /// A backup into a target.
    Restore,
    /// Every byte of a backup is read and checked.
    Verify,
    /// A backup is proved by restoring it into a sandbox.
    Drill,
    /// What is no longer wanted is deleted.
    Retention,
    /// The vault is searched for damage and leftovers.
    Scrub,
    /// A backup is pinned.
    Hold,
    /// It is pinned no more.
    Unhold,
    /// A suspect backup is declared good.
    Accept,
    /// What was written of a source's log since the last segment is stored now.
    Seal,
    /// Something that a newer build knows.
    #[serde(other)]
    Other,
}

impl Action {
    /// The word in the vault, in metrics and on the terminal.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Backup => "backup",
            Action::Restore => "restore",
            Action::Verify => "verify",
            Action::Drill => "drill",
            Action::Retention => "retention",
            Action::Scrub => "scrub",
            Action::Hold => "hold",
            Action::Unhold => "unhold",
            Action::Accept => "accept",
            Action::Seal => "seal",
            Action::Other => "other",
        }
    }

    /// Whether a failed attempt is followed by another without anybody asking. A restore changes somebody's system, so
    /// it waits for the operator; the rest comes round again on its own cadence.
    pub fn retries_by_itself(self) -> bool {
        self == Action::Backup
    }

    /// Whether nothing else may be done to the source meanwhile that does so too.
    pub fn occupies_source(self) -> bool {
        matches!(self, Action::Backup | Action::Restore | Action::Drill)
    }

    /// Whether it takes a moment and somebody waits for it: then it starts though all places for runs are taken.
    pub fn is_brief(self) -> bool {
        self == Action::Seal
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What somebody wants done: the body of a request. Two requests are the same when their orders are equal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// What.
    pub action: Action,
    /// To which source (or target), where it is about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// What only the work itself understands.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub params: Value,
}

impl Order {
    /// An order without parameters.
    pub fn new(action: Action, source: Option<SourceName>) -> Self {
        Order { action, source, params: Value::Null }
    }

    /// The source that it occupies: two such runs of one source do not overlap.
    pub fn occupied(&self) -> Option<&SourceName> {
        self.source.as_ref().filter(|_| self.action.occupies_source())
    }

    /// The backup that it names in its parameters, if it does.
    pub fn backup(&self) -> Option<BackupRef> {
        serde_json::from_value(self.params.get("backup")?.clone()).ok()
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{} {source}", self.action),
            None => write!(f, "{}", self.action),
        }
    }
}

/// How good what was done is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// Everything asked for was done.
    Succeeded,
    /// Something is missing.
    Partial,
    /// It is there, and looks wrong.
    Suspect,
    /// Something that a newer build knows.
    #[serde(other)]
    Other,
}

impl Grade {
    /// What a backup that exists is worth as the end of a run.
    pub fn of(manifest: &Manifest) -> Self {
        match manifest.status {
            Status::Partial => Grade::Partial,
            Status::Suspect => Grade::Suspect,
            _ => Grade::Succeeded,
        }
    }
}

/// What came of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// How good.
    pub status: Grade,
    /// For people, one line: "20261121T060000Z-4k7q2m, 1.2 GB, 944,000 keys".
    pub summary: String,
    /// For machines: a manifest, a plan, a list of findings.
    pub detail: Value,
}

/// Something that can be done, once or several times.
#[async_trait]
pub trait Work: Send + Sync {
    /// What was ordered.
    fn order(&self) -> &Order;

    /// For a backup: the `kind` in the manifest, should the attempt have to be given up. Empty for all else.
    fn kind(&self) -> &str {
        ""
    }

    /// Whether only the leader may do it, because it deletes. It asks [`Attempt::fence`] before each effect.
    fn needs_leader(&self) -> bool {
        false
    }

    /// Does it: everything long under `task.guard`, so that a cancel or the deadline ends it soon.
    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done>;
}

/// Makes works from orders, without connecting to anything. `app.rs` is one; tests have others.
pub trait Workshop: Send + Sync {
    /// The work that does this.
    ///
    /// # Errors
    /// `Usage` or `NotFound` if the order names something unknown: the run then fails with that.
    fn make(&self, order: &Order) -> Result<Box<dyn Work>>;

    /// The command that orders the same again, with what it takes to go over what a first try left half done; `None` where
    /// there is none to be typed.
    fn again(&self, _order: &Order) -> Option<String> {
        None
    }

    /// A follower for each source whose log is to be followed while this process leads.
    fn followers(&self) -> Vec<Arc<dyn Follower>> {
        Vec::new()
    }
}

/// Which try at which run this is, and what belongs to it.
#[derive(Clone)]
pub struct Attempt {
    /// The run.
    pub run: RunId,
    /// From 1.
    pub number: u32,
    /// Who asked for the run.
    pub principal: Arc<str>,
    /// For a backup: the id that this attempt, and no other, may commit.
    pub backup: Option<BackupRef>,
    /// When the run was asked for, or due.
    pub asked_at: Timestamp,
    /// When the run must have ended, by the store's clock.
    pub deadline: Timestamp,
    /// Says whether we still lead; passes always where leading is not needed.
    pub fence: Fence,
    pub(super) engine: Engine,
    pub(super) held: Arc<Mutex<Vec<Held>>>,
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "attempt {} at run {}", self.number, self.run)
    }
}

impl Attempt {
    /// The engine that this is an attempt of: what has to be done first may be asked of it.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Notes that what it has claimed is written to from now on: until [`settle`](Self::settle), by this attempt or one like
    /// it, no backup of that system counts as good by itself.
    pub async fn touch(&self) -> Result<()> {
        for held in self.holds() {
            held.touch(&self.engine.0.vault).await?;
        }
        Ok(())
    }

    /// Notes that what it has claimed holds now what it was to hold; and that this makes up for those before it that did not
    /// come to their end and are `superseded`.
    pub async fn settle(&self, target: &SourceName, superseded: impl Fn(&Order) -> bool) -> Result<()> {
        let held = self.holds();
        for held in &held {
            held.settle(&self.engine.0.vault).await?;
        }
        let before = self.engine.unsettled().await?;
        let is_ours = |touch: &&Touch| held.iter().any(|held| touch.is_of(target, Some(held.identity())));
        let over = before.iter().filter(|touch| !touch.under_way && superseded(&touch.order));
        self.engine.settle(over.filter(is_ours), self.run.as_str()).await
    }

    fn holds(&self) -> Vec<Held> {
        self.held.lock().expect("no holder panics").clone()
    }

    /// Claims a target by its identity, until this attempt ends. `label` names it for people.
    ///
    /// # Errors
    /// `Conflict`, naming the run that holds it, or that has held it since this one was asked for.
    pub async fn claim(&self, identity: &str, label: &str) -> Result<()> {
        let vault = &self.engine.0.vault;
        let wanted = claims::Wanted {
            identity,
            label,
            run: &self.run,
            attempt: self.number,
            asked_at: self.asked_at,
            deadline: self.deadline,
        };
        // The second try is for a holder that turned out to be dead and was closed just now.
        for _ in 0..2 {
            let holder = match claims::claim(vault, &wanted).await? {
                Claimed::Ours(held) => {
                    self.held.lock().expect("no holder panics").push(held);
                    return Ok(());
                }
                Claimed::Overtaken(by) => return Err(by.overtook()),
                Claimed::Theirs(holder) => holder,
            };
            if !recovery::close_holder(&self.engine, &holder.run, holder.attempt).await? {
                return Err(holder.refusal());
            }
        }
        let why = "others claim it faster than we can";
        Err(Error::new(Kind::Conflict, format!("claiming {label}"), why)
            .hint("`tidekeeper runs --state running` lists who works on it; wait for them, or cancel one"))
    }
}
