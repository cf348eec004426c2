//! The manifest: the one object whose existence is the backup.
//!
//! Format 1. At most 64 KiB. Fields this build does not know are kept as they are; a status it does not know
//! means 'exists, keep'.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::decide::Deciding;
use super::layout::log::Position;
use super::layout::{self, BackupId, BackupRef, FORMAT};
use crate::config::SourceName;

/// The longest a manifest may be, in bytes.
pub const MANIFEST_MAX: usize = 64 << 10;

/// What is known of one backup without reading its data.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// 1.
    pub format: u32,
    /// The backup's id.
    pub id: BackupId,
    /// The source it is of.
    pub source: SourceName,
    /// The kind of the source: `redis`.
    pub kind: String,
    /// What it is worth.
    pub status: Status,
    /// Why it is `partial`, `suspect` or `abandoned`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// When the run began, by the writer's clock.
    pub started_at: Timestamp,
    /// When the last byte was stored, by the writer's clock. Of an abandoned backup: when it was given up.
    pub finished_at: Timestamp,
    /// `tidekeeper 0.1.0`.
    pub tool: String,
    /// A nonce: by it the writer recognises its own manifest after a lost reply.
    pub writer: String,
    /// The run that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Of which server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// Of which moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consistency: Option<Consistency>,
    /// The stored objects.
    pub artifacts: Vec<Artifact>,
    /// Counts and digests; what a comparison after a restore expects.
    #[serde(default)]
    pub contents: Contents,
    /// What was asked for and is not in.
    #[serde(default)]
    pub omissions: Vec<Omission>,
    /// Backups whose data it uses.
    #[serde(default)]
    pub requires: Vec<BackupRef>,
    /// To whom the artifacts are encrypted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<EncryptedTo>,
    /// The log that goes on from it, by that log's own name for itself: a replica set's id, a replication id. A timeline
    /// of the same log can start from this backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeline: Option<String>,
    /// Where in that log its contents are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_position: Option<Position>,
    /// The generation of the leader that wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader_generation: Option<u64>,
    /// Reserved: the backup before, for a chain of signatures.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// Reserved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<String>,
    /// What a newer build wrote.
    #[serde(flatten)]
    pub unknown: Map<String, Value>,
}

impl Manifest {
    /// One that says nothing but of which backup it is, that `now` is its beginning and its end, and who wrote it: this
    /// build, with a fresh nonce.
    pub fn bare(backup: &BackupRef, kind: &str, status: Status, now: Timestamp) -> Self {
        Manifest {
            format: FORMAT,
            id: backup.id.clone(),
            source: backup.source.clone(),
            kind: kind.to_owned(),
            status,
            reason: None,
            started_at: now,
            finished_at: now,
            tool: concat!("tidekeeper ", env!("CARGO_PKG_VERSION")).to_owned(),
            writer: layout::nonce(),
            run: None,
            origin: None,
            consistency: None,
            artifacts: Vec::new(),
            contents: Contents::default(),
            omissions: Vec::new(),
            requires: Vec::new(),
            encryption: None,
            timeline: None,
            log_position: None,
            leader_generation: None,
            previous: None,
            signature: None,
            unknown: Map::new(),
        }
    }

    /// The source and the id.
    pub fn backup(&self) -> BackupRef {
        BackupRef { source: self.source.clone(), id: self.id.clone() }
    }
}

impl Deciding for Manifest {
    fn nonce(&self) -> &str {
        &self.writer
    }
}

/// What a backup is worth.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum Status {
    /// Everything asked for is in.
    Complete,
    /// Something is missing; `omissions` says what.
    Partial,
    /// Empty, or far smaller than its predecessors: never displaces a good one until accepted.
    Suspect,
    /// Given up; holds nothing.
    Abandoned,
    /// Written by a newer build: exists, keep.
    Unknown(String),
}

impl From<String> for Status {
    fn from(text: String) -> Self {
        match text.as_str() {
            "complete" => Status::Complete,
            "partial" => Status::Partial,
            "suspect" => Status::Suspect,
            "abandoned" => Status::Abandoned,
            _ => Status::Unknown(text),
        }
    }
}

impl From<Status> for String {
    fn from(status: Status) -> String {
        status.as_str().to_owned()
    }
}

impl Status {
    /// The word in the manifest.
    pub fn as_str(&self) -> &str {
        match self {
            Status::Complete => "complete",
            Status::Partial => "partial",
            Status::Suspect => "suspect",
            Status::Abandoned => "abandoned",
            Status::Unknown(text) => text,
        }
    }
}

/// The server that was read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Where it is, without credentials.
    pub endpoint: String,
    /// Its version, if it said one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Its own name for itself: run id, replica set, cluster UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
}

/// To which moment the contents belong.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Consistency {
    /// How exact.
    pub level: Level,
    /// The moment, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Else the span: not before this,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// and not after this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// The source's own words for it: replid and offset, opTime, resourceVersion.
    #[serde(default)]
    pub position: BTreeMap<String, String>,
}

/// How exactly a backup is of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// All of it is of one instant.
    PointInTime,
    /// Each type (or shard) is of one instant of its own.
    PerType,
    /// Fuzzy, made exact by the log that was recorded with it.
    LogBounded,
    /// As after pulling the plug.
    CrashConsistent,
}

/// A stored object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Artifact {
    /// Its true name: `dump.rdb`, `shop/users.bson`.
    pub name: String,
    /// The exact key in the vault.
    pub key: String,
    /// What the plain bytes are.
    pub media_type: String,
    /// What was done to the plain bytes, first first: `["zstd"]`, `["zstd", "age"]`.
    pub codecs: Vec<Codec>,
    /// The plain bytes.
    pub plain: Digest,
    /// The stored bytes.
    pub stored: Digest,
}

/// One transformation of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Codec {
    /// zstd frames.
    Zstd,
    /// age v1, binary.
    Age,
}

/// How many bytes, and which.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// Their number.
    pub bytes: u64,
    /// SHA-256, lower-case hex. Empty for plain bytes of an encrypted artifact: a digest would tell whether a guess of
    /// them is right, so it is in [`Details`](super::details::Details), inside age.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sha256: String,
}

/// What is inside, as counts: enough to judge a restore, nothing that a reader of the bucket must not see.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Contents {
    /// How many items in all (keys, documents, objects).
    pub items: u64,
    /// Per namespace (`db0`, `shop.users`, `apps/v1/deployments`) its counts.
    #[serde(default)]
    pub namespaces: BTreeMap<String, Counts>,
    /// What only the source's own kind understands; a restore's pre-flight reads it.
    #[serde(default)]
    pub facts: Map<String, Value>,
}

/// Counts of one namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Items.
    pub items: u64,
    /// Items per type, where items have types.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub types: BTreeMap<String, u64>,
    /// An order-independent digest, where the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
}

/// Something that was asked for and is not in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Omission {
    /// What.
    pub what: String,
    /// Why.
    pub why: String,
}

/// Who can decrypt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncryptedTo {
    /// age recipients.
    pub recipients: Vec<String>,
}
