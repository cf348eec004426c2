//! Writes one attempt at one backup: artifacts first, the manifest last.

use std::sync::{Arc, Mutex};

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use jiff::Timestamp;

use super::Vault;
use super::decide::{Decision, decide};
use super::layout::{self, BackupRef, FORMAT};
use super::manifest::{Artifact, Codec, Consistency, Contents, Digest, Manifest, Omission, Origin, Status};
use super::store::{Key, Part};
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// One attempt at one backup. Its data keys contain a nonce of this attempt: no other attempt shares one.
#[derive(Debug)]
pub struct BackupWriter {
    vault: Vault,
    backup: BackupRef,
    kind: String,
    task: Task,
    started_at: Timestamp,
    attempt: String,
    leader_generation: Option<u64>,
    artifacts: Arc<Mutex<Vec<Artifact>>>,
}

/// An artifact being written. Dropped before `finish`, it leaves nothing but an open upload, which it aborts in the background.
#[derive(Debug)]
pub struct ArtifactWriter {
    vault: Vault,
    task: Task,
    key: Key,
    name: String,
    media_type: String,
    plain: Vec<u8>,
    artifacts: Arc<Mutex<Vec<Artifact>>>,
}

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
        BackupWriter {
            vault: vault.clone(),
            backup,
            kind: kind.to_owned(),
            task: task.clone(),
            started_at,
            attempt: layout::nonce(),
            leader_generation: None,
            artifacts: Arc::default(),
        }
    }

    /// Says which generation of the leader writes.
    pub fn led_by(mut self, generation: u64) -> Self {
        self.leader_generation = Some(generation);
        self
    }

    /// The nonce of this attempt: a part of its data keys, and the `writer` of its manifest.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// Begins an artifact. Several may be written at the same time.
    pub fn artifact(&self, name: &str, media_type: &str) -> Result<ArtifactWriter> {
        Ok(ArtifactWriter {
            vault: self.vault.clone(),
            task: self.task.clone(),
            key: layout::artifact(&self.backup, &self.attempt, &format!("{name}.zst")),
            name: name.to_owned(),
            media_type: media_type.to_owned(),
            plain: Vec::new(),
            artifacts: self.artifacts.clone(),
        })
    }

    /// Writes the manifest with `status`. The backup exists from here on.
    pub async fn commit(self, capture: Capture, status: Status, reason: Option<String>) -> Result<Manifest> {
        if !capture.details.is_empty() {
            let mut details = self.artifact("details.json", "application/json")?;
            details.write(serde_json::Value::Object(capture.details.clone()).to_string().into()).await?;
            details.finish().await?;
        }
        let manifest = Manifest {
            format: FORMAT,
            id: self.backup.id.clone(),
            source: self.backup.source.clone(),
            kind: self.kind.clone(),
            status,
            reason,
            started_at: self.started_at,
            finished_at: self.vault.clock.now(),
            tool: concat!("tidekeeper ", env!("CARGO_PKG_VERSION")).to_owned(),
            writer: self.attempt.clone(),
            run: Some(self.task.run.to_string()),
            origin: capture.origin,
            consistency: capture.consistency,
            artifacts: self.artifacts.lock().expect("no holder panics").clone(),
            contents: capture.contents,
            omissions: capture.omissions,
            requires: Vec::new(),
            encryption: None,
            timeline: None,
            leader_generation: self.leader_generation,
            previous: None,
            signature: None,
            unknown: serde_json::Map::new(),
        };
        let key = layout::manifest(&self.backup);
        let doing = format!("committing {}", self.backup);
        let deciding = decide(&*self.vault.store, &*self.vault.clock, &key, &manifest);
        match self.task.guard(deciding).await.map_err(|error| error.while_doing(&doing))? {
            Decision::Ours => Ok(manifest),
            Decision::Theirs(_) => Err(Error::new(Kind::Conflict, doing, "another process closed this run")),
        }
    }
}

impl ArtifactWriter {
    /// Takes the next plain bytes; waits while the spool is full.
    pub async fn write(&mut self, plain: Bytes) -> Result<()> {
        self.plain.extend_from_slice(&plain);
        self.task.checkpoint()
    }

    /// Ends the artifact: returns when the store has all of it and what was compressed was decoded again.
    pub async fn finish(self) -> Result<Artifact> {
        let stored = zstd::encode_all(&*self.plain, 3)
            .map_err(|cause| Error::new(Kind::Internal, format!("compressing {}", self.name), cause))?;
        let of =
            |bytes: &[u8]| Digest { bytes: bytes.len() as u64, sha256: hex::encode(digest(&SHA256, bytes)) };
        let artifact = Artifact {
            name: self.name,
            key: self.key.to_string(),
            media_type: self.media_type,
            codecs: vec![Codec::Zstd],
            plain: of(&self.plain),
            stored: of(&stored),
        };
        let stored = Bytes::from(stored);
        let upload = self.vault.store.begin_upload(&self.key).await?;
        for (part, number) in stored.chunks(8 << 20).zip(1..) {
            self.task.guard(upload.put_part(number, Part::Bytes(stored.slice_ref(part)))).await?;
        }
        let _ = self.task.guard(upload.finish()).await?;
        self.artifacts.lock().expect("no holder panics").push(artifact.clone());
        Ok(artifact)
    }
}
