//! Writes one attempt at one backup: artifacts first, the manifest last.

use bytes::Bytes;
use jiff::Timestamp;

use super::Vault;
use super::layout::{BackupId, BackupRef};
use super::manifest::{Artifact, Consistency, Contents, Manifest, Omission, Origin, Status};
use crate::error::Result;
use crate::task::Task;

/// One attempt at one backup. Its data keys contain a nonce of this attempt: no other attempt shares one.
#[derive(Debug)]
pub struct BackupWriter {}

/// An artifact being written. Dropped before `finish`, it leaves nothing but an open upload, which it aborts in the background.
#[derive(Debug)]
pub struct ArtifactWriter {}

/// What a source says of the data it wrote.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Of which server.
    pub origin: Option<Origin>,
    /// Of which moment.
    pub consistency: Option<Consistency>,
    /// Counts and digests that anybody who reads the bucket may see.
    pub contents: Contents,
    /// More of the same that names users' data (largest keys): stored as artifact `details.json`, encrypted where artifacts are.
    pub details: serde_json::Map<String, serde_json::Value>,
    /// What was asked for and is not in. With any, the backup is `partial`.
    pub omissions: Vec<Omission>,
}

impl BackupWriter {
    /// Begins an attempt at `backup`; nothing is written yet.
    pub fn new(vault: &Vault, backup: BackupRef, kind: &str, task: &Task, started_at: Timestamp) -> Self {
        let _ = (vault, backup, kind, task, started_at);
        BackupWriter {}
    }

    /// Begins an artifact. Several may be written at the same time.
    pub fn artifact(&self, name: &str, media_type: &str) -> Result<ArtifactWriter> {
        let _ = (name, media_type);
        Ok(ArtifactWriter {})
    }

    /// Writes the manifest with `status`. The backup exists from here on.
    pub async fn commit(self, capture: Capture, status: Status, reason: Option<String>) -> Result<Manifest> {
        let _ = (capture, status, reason);
        not_yet()
    }
}

impl ArtifactWriter {
    /// Takes the next plain bytes; waits while the spool is full.
    pub async fn write(&mut self, plain: Bytes) -> Result<()> {
        let _ = plain;
        not_yet()
    }

    /// Ends the artifact: returns when the store has all of it and what was compressed was decoded again.
    pub async fn finish(self) -> Result<Artifact> {
        not_yet()
    }
}

fn not_yet<T>() -> Result<T> {
    Err(crate::error::Error::new(crate::error::Kind::Internal, "writing", "not built yet"))
}

/// Kept so that the id type is in scope for the implementer.
pub type Id = BackupId;
