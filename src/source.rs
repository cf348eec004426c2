//! What is protected: one folder per system, the same files in each. These traits are the seam to all other rooms.
//!
//! Both [`Source`] and [`Target`] are built without connecting: after the loss of a cluster the source is gone, and
//! still its backups are listed, verified and restored elsewhere.

use std::fmt::Debug;
use std::path::Path;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::io::AsyncWrite;

use crate::config::SourceName;
use crate::config::node::{Node, Problem};
use crate::error::{Error, Kind as ErrorKind, Result};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::layout::log::Position;
use crate::vault::manifest::{Manifest, Omission};
use crate::vault::reader::BackupReader;
use crate::vault::timeline::Framing;
use crate::vault::timeline::writer::{Bounds, TimelineWriter};
use crate::vault::writer::{BackupWriter, Capture, LogPoint};

pub use crate::finding::{Finding, Severity};

pub mod crc64;
pub mod files;
pub mod mongodb;
pub mod redis;

/// One kind of system: what `app.rs` lists, one line each.
#[async_trait]
pub trait Kind: Debug + Sync {
    /// The key in the configuration and the `kind` in manifests: `redis`.
    fn name(&self) -> &'static str;

    /// The JSON Schema of its part of the configuration.
    fn schema(&self) -> Value;

    /// Checks its part of the configuration; all problems at once.
    fn configure(&self, name: &SourceName, part: &Node) -> Result<Box<dyn Configured>, Vec<Problem>>;

    /// The formats of `extract`, the default first.
    fn formats(&self) -> &'static [Format];

    /// Writes a backup in one of its formats, for the stock tools; needs no configuration. Where it goes fits the format.
    async fn extract(
        &self,
        from: &BackupReader,
        format: &Format,
        to: Outlet<'_>,
        task: &Task,
    ) -> Result<Vec<Extracted>>;

    /// Makes of the options of a restore those that do the same over what a first try left half done, in one way of writing
    /// them.
    fn restore_again(&self, _options: &mut Map<String, Value>) {}

    /// Whether nothing is left of what a restore with the options `before` wrote once one with `options` is done, though they are
    /// not the same.
    fn makes_up(
        &self,
        _options: &Map<String, Value>,
        _before: &Map<String, Value>,
        _is_same_moment: bool,
    ) -> bool {
        true
    }

    /// How the records of its log are told apart.
    fn framing(&self) -> Framing {
        |_| None
    }

    /// When the record at a position of its log was written; none for a log that does not tell.
    fn moment(&self, _position: Position) -> Option<Timestamp> {
        None
    }

    /// The last position that a record of this second, or of one before, can have; none for a log that does not tell.
    fn position_at(&self, _moment: Timestamp) -> Option<Position> {
        None
    }
}

/// What `extract` can write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// What `--format` takes.
    pub name: &'static str,
    /// Whether it is one stream of bytes instead of files in a directory.
    pub is_stream: bool,
}

/// Where `extract` writes to.
pub enum Outlet<'a> {
    /// An empty directory.
    Directory(&'a Path),
    /// A stream: a file or standard output.
    Stream(&'a mut (dyn AsyncWrite + Send + Unpin)),
}

/// A source or target as configured.
pub trait Configured: Debug + Send + Sync {
    /// Its kind's name.
    fn kind(&self) -> &'static str;

    /// As a source.
    fn source(&self) -> Box<dyn Source>;

    /// As a target.
    fn target(&self) -> Box<dyn Target>;

    /// The least rights it needs, as lines for `tidekeeper permissions`.
    fn permissions(&self, role: Role) -> Vec<Permission>;
}

/// Where a system stands in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Under `sources`: it is backed up, and may be restored into.
    Source,
    /// Under `targets`: it is only restored into.
    Target,
}

/// A system that can be backed up.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// Reaches it and tells what a backup would and would not capture, and which rights are missing and what that costs.
    async fn inspect(&self, task: &Task) -> Result<Inspection>;

    /// Splits a backup; one slice for most.
    async fn plan_backup(&self, task: &Task) -> Result<BackupPlan>;

    /// Captures one slice into `out`; its steps have names of its own.
    async fn backup(&self, slice: &Slice, task: &Task, out: &BackupWriter) -> Result<Capture>;

    /// How its log is to be followed; none: it keeps none, or nobody wants it followed.
    fn timeline(&self) -> Option<Bounds> {
        None
    }

    /// Follows its log into `out`: goes on where the timeline ends if the very record there is still in the log, and else
    /// begins another that says why; seals when `out` asks for it.
    ///
    /// # Errors
    /// Whatever ends it. It is started again after a while, and finds out anew how far the timeline reaches.
    async fn follow(&self, _until: Until, _task: &Task, out: &mut TimelineWriter<'_>) -> Result<()> {
        let _ = out;
        Err(Error::new(ErrorKind::Unsupported, "following the log", "this source keeps none"))
    }
}

/// How long a log is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// Until the task is cancelled; then the open segment is sealed.
    Cancelled,
    /// Up to the record that is the newest now, sealed.
    Newest,
}

/// A system that a backup can be restored into.
#[async_trait]
pub trait Target: Debug + Send + Sync {
    /// Which system this is: so that a sandbox is never production, and a plan is for this target.
    async fn identity(&self, task: &Task) -> Result<Identity>;

    /// Decides what a restore would do, and everything that speaks against it; touches nothing. May read the whole backup
    /// before it asks the target: who wants to know that it is there asks for its identity first.
    async fn plan_restore(
        &self,
        from: &BackupReader,
        at: Option<Timestamp>,
        wish: &Wish,
        task: &Task,
    ) -> Result<RestorePlan>;

    /// Executes a plan that was made for this target; its steps have names of its own.
    ///
    /// # Errors
    /// Each says in its hint whether the target was touched.
    async fn restore(&self, from: &BackupReader, plan: &RestorePlan, task: &Task) -> Result<Restored>;

    /// Compares what the target holds with what a backup says it should, now.
    async fn compare(&self, from: &BackupReader, task: &Task) -> Result<Vec<Check>>;

    /// Where its log stands now, if it keeps one: what is written from here on is the restore's doing.
    async fn log_head(&self, _task: &Task) -> Result<Option<LogPoint>> {
        Ok(None)
    }
}

/// What `check` tells of a source.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Inspection {
    /// The server's product and version.
    pub server: String,
    /// Where it was reached, without credentials.
    pub endpoint: String,
    /// What a backup captures, in words.
    pub captures: Vec<String>,
    /// What it does not.
    pub omits: Vec<Omission>,
    /// Rights and settings that were looked at.
    pub findings: Vec<Finding>,
    /// How many bytes it holds, as it says itself.
    pub bytes: Option<u64>,
}

/// How a backup is split.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackupPlan {
    /// Captured independently of each other.
    pub slices: Vec<Slice>,
}

/// One part of a split run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Slice {
    /// From 0.
    pub n: u32,
    /// What the source needs to know to capture it.
    pub spec: Value,
}

/// Which system a target is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Stable while the system lives, and no other system's: what a claim and a plan's hash are made of.
    pub id: String,
    /// For people: endpoint and version.
    pub label: String,
}

/// What somebody wants of a restore, beyond 'all of it'. Each source documents its options.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Wish {
    /// For example `{"keys": "user:*"}`.
    #[serde(default)]
    pub options: Map<String, Value>,
}

/// What a restore would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RestorePlan {
    /// Of which backup.
    pub backup: BackupRef,
    /// Up to which moment; none: the backup's own.
    pub at: Option<Timestamp>,
    /// The moment that the target shows afterwards, in words.
    #[serde(default)]
    pub as_of: String,
    /// Into which system.
    pub target: Identity,
    /// In this order.
    pub actions: Vec<Action>,
    /// What was looked at; with one among them that forbids it, the plan cannot be executed.
    pub findings: Vec<Finding>,
    /// What the target holds that would be lost or changed, by names that nothing else of its system will ever have, where it
    /// gives such names: with any, the hash is needed as confirmation.
    #[serde(default)]
    pub at_stake: Vec<String>,
    /// Counts and sizes as they were at the moment of planning; not part of the hash.
    pub live: Vec<String>,
    /// What the target needs to know to execute it.
    pub spec: Value,
}

impl RestorePlan {
    /// What `--confirm` takes: covers backup, moment, target, actions, and what is at stake; never live counts.
    ///
    /// A confirmation says which things may go, not how much is in them: who confirms that a collection goes knows that
    /// somebody may write to it until then, and on a target that is written to, a hash of counts would be stale before it is
    /// typed, so that nothing could be confirmed. What is there only since is another thing, and nobody has said that it may go.
    /// Users and roles, and function libraries, go as a whole.
    pub fn hash(&self) -> String {
        let covered = json!([self.backup, self.at, self.target.id, self.actions, self.spec, self.at_stake]);
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, covered.to_string().as_bytes());
        hex::encode(&digest.as_ref()[..8])
    }

    /// Whether something would be lost or changed.
    pub fn is_destructive(&self) -> bool {
        !self.at_stake.is_empty()
    }

    /// What is at stake now, and was not when the plan was made.
    pub fn newly_at_stake(&self, now: Vec<String>) -> Vec<String> {
        now.into_iter().filter(|one| !self.at_stake.contains(one)).collect()
    }

    /// The findings that forbid its execution.
    pub fn blockers(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.forbids())
    }

    /// As people and scripts get it: whether it is destructive, and the hash, unless there is nothing that could be confirmed.
    pub fn document(&self) -> Value {
        let mut document = json!(self);
        document["destructive"] = json!(self.is_destructive());
        if self.blockers().next().is_none() {
            document["hash"] = json!(self.hash());
        }
        document
    }
}

/// What kind of failure it is that a plan with these findings is not executed: a refusal, where nothing but somebody's word is
/// missing.
pub fn kind_of_blockers<'a>(findings: impl IntoIterator<Item = &'a Finding>) -> ErrorKind {
    let mut blockers = findings.into_iter().filter(|finding| finding.forbids());
    match blockers.all(|blocker| blocker.severity == Severity::Refused) {
        true => ErrorKind::Refused,
        false => ErrorKind::Unsupported,
    }
}

/// The moment that a backup is of, in words.
pub fn moment_in_words(manifest: &Manifest) -> String {
    let Some(consistency) = &manifest.consistency else { return "an unknown moment".to_owned() };
    match (consistency.at, consistency.from, consistency.to) {
        (Some(at), ..) => at.to_string(),
        (None, Some(from), Some(to)) => format!("moments from {from} to {to}"),
        _ => "an unknown moment".to_owned(),
    }
}

/// One line of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Action {
    /// `replace`, `create`, `load`.
    pub verb: String,
    /// What it is done to.
    pub object: String,
    /// Why.
    pub reason: String,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Restored {
    /// Items that are in the target now.
    pub items: u64,
    /// Plain bytes that were sent.
    pub bytes: u64,
    /// Only a selection was wanted, beside what the target held: comparing the whole would say nothing.
    #[serde(default)]
    pub selected: bool,
    /// How many collections the log changed after the backup: what that says of their documents does not hold any more, so only
    /// their number is compared, where it is known.
    #[serde(default)]
    pub changed: u64,
    /// What did not come back, and why; with any, the outcome is `partial`.
    pub omissions: Vec<Omission>,
}

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// What the backup says.
    pub expected: String,
    /// What the target says.
    pub found: String,
    /// Whether that is good.
    pub passed: bool,
}

/// A right that is needed, in the words of whoever grants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Permission {
    /// `Redis ACL of redis-main`, `IAM policy`.
    pub title: String,
    /// Ready to paste.
    pub text: String,
}

/// A file that `extract` wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extracted {
    /// Relative to the output directory.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// How to use it with the stock tool, in a sentence.
    pub usage: String,
}
