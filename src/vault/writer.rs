//! Writes one attempt at one backup: artifacts first, the manifest last.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio_util::sync::DropGuard;

use self::pipeline::{Pipeline, Shared};
use super::Vault;
use super::codec::name::object_name;
use super::codec::pool::Buffer;
use super::codec::{BLOCK, persist};
use super::decide::{Decision, decide, encode};
use super::details::{DETAILS, Details, REST, Rest};
use super::layout::log::Position;
use super::layout::{self, BackupRef};
use super::manifest::{
    Artifact, Codec, Consistency, Contents, EncryptedTo, Level, MANIFEST_MAX, Manifest, Omission, Origin,
    Status,
};
use super::store::{Key, SMALL_OBJECT_MAX};
use crate::error::{Error, Kind, Result};
use crate::task::Task;

mod pipeline;

/// How long one such call may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// How many objects are asked for at the same time before a commit.
const STATS_IN_FLIGHT: usize = 16;

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
    shared: Arc<Shared>,
    written: Arc<Mutex<Written>>,
}

/// What was begun, and what was finished.
#[derive(Debug, Default)]
struct Written {
    keys: BTreeSet<Key>,
    artifacts: Vec<Artifact>,
}

/// An artifact being written. Dropped before `finish`, it leaves nothing but an open upload, which it aborts in the background.
#[derive(Debug)]
pub struct ArtifactWriter {
    name: String,
    media_type: String,
    key: Key,
    codecs: Vec<Codec>,
    block: Buffer,
    pipeline: Pipeline,
    written: Arc<Mutex<Written>>,
    /// Ends the pipeline when this is dropped.
    _ended: DropGuard,
}

/// What a source says of the data it wrote.
#[derive(Clone, Debug, Default)]
pub struct Capture {
    /// Of which server.
    pub origin: Option<Origin>,
    /// Of which moment.
    pub consistency: Option<Consistency>,
    /// Counts and digests that anybody who reads the bucket may see. (With encryption, the digests move into age.)
    pub contents: Contents,
    /// More of the same that names users' data (largest keys): stored as artifact `details.json`, encrypted where artifacts are.
    pub details: Map<String, Value>,
    /// What was asked for and is not in. With any, the backup is `partial`.
    pub omissions: Vec<Omission>,
    /// From where a log of the source goes on, where it keeps one.
    pub log: Option<LogPoint>,
}

/// A place in a source's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPoint {
    /// The log's own name for itself: a replica set's id, a replication id.
    pub identity: String,
    /// Where in it.
    pub position: Position,
}

impl Capture {
    /// Adds what another slice of the same backup says. Two slices are of two moments, even if each is of one; a log goes
    /// on from both only where it goes on from each at the same place.
    pub fn absorb(&mut self, slice: Capture) {
        self.origin = self.origin.take().or(slice.origin);
        self.consistency = match (self.consistency.take(), slice.consistency) {
            (Some(one), Some(other)) => Some(both(one, other)),
            (one, other) => one.or(other),
        };
        self.contents.items += slice.contents.items;
        self.contents.namespaces.extend(slice.contents.namespaces);
        self.contents.facts.extend(slice.contents.facts);
        self.details.extend(slice.details);
        self.omissions.extend(slice.omissions);
        self.log = self.log.take().filter(|log| slice.log.as_ref() == Some(log));
    }
}

/// What two slices are of: the same moment, or a span that holds both.
fn both(one: Consistency, other: Consistency) -> Consistency {
    if one == other {
        return one;
    }
    let moments =
        |get: fn(&Consistency) -> Option<Timestamp>| [get(&one).or(one.at), get(&other).or(other.at)];
    Consistency {
        level: Level::PerType,
        at: None,
        from: moments(|of| of.from).into_iter().flatten().min(),
        to: moments(|of| of.to).into_iter().flatten().max(),
        position: one.position.into_iter().chain(other.position).collect(),
    }
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
            shared: Arc::default(),
            written: Arc::default(),
        }
    }

    /// Says which generation of the leader writes; none where nobody leads.
    pub fn led_by(mut self, generation: Option<u64>) -> Self {
        self.leader_generation = generation;
        self
    }

    /// The nonce of this attempt: a part of its data keys, and the `writer` of its manifest.
    pub fn attempt(&self) -> &str {
        &self.attempt
    }

    /// How many plain bytes the artifacts have that are finished.
    pub fn plain_bytes(&self) -> u64 {
        lock(&self.written).artifacts.iter().map(|artifact| artifact.plain.bytes).sum()
    }

    /// Begins an artifact; needs a tokio runtime. Several may be written at the same time.
    ///
    /// # Errors
    /// If the spool takes no file, a recipient is no key, or an artifact of this name was begun before.
    pub fn artifact(&self, name: &str, media_type: &str) -> Result<ArtifactWriter> {
        if name == DETAILS || name == REST {
            let doing = format!("beginning artifact {name}");
            return Err(Error::new(Kind::Internal, doing, "the vault itself writes one of this name"));
        }
        self.begin(name, media_type, self.recipients())
    }

    fn recipients(&self) -> &[String] {
        self.vault.encryption.as_ref().map_or(&[], |encryption| &encryption.recipients)
    }

    fn begin(&self, name: &str, media_type: &str, recipients: &[String]) -> Result<ArtifactWriter> {
        let codecs = if recipients.is_empty() { vec![Codec::Zstd] } else { vec![Codec::Zstd, Codec::Age] };
        let key = layout::artifact(&self.backup, &self.attempt, &object_name(name, &codecs));
        if !lock(&self.written).keys.insert(key.clone()) {
            let why = "an artifact of this name was begun before";
            return Err(Error::new(Kind::Internal, format!("beginning artifact {name}"), why));
        }
        let cancel = self.task.cancel.child_token();
        let task = Task { cancel: cancel.clone(), ..self.task.clone() };
        let pipeline = Pipeline::start(&self.vault, task, key.clone(), recipients, self.shared.clone())
            .map_err(|error| error.while_doing(format!("beginning artifact {name}")))?;
        Ok(ArtifactWriter {
            name: name.to_owned(),
            media_type: media_type.to_owned(),
            key,
            codecs,
            block: pipeline.block(),
            pipeline,
            written: self.written.clone(),
            _ended: cancel.drop_guard(),
        })
    }

    /// Writes the manifest with `status`. The backup exists from here on. `complete` becomes `partial` if there are omissions.
    ///
    /// # Errors
    /// `Conflict` if another process closed the run; `Damaged` if an artifact's object is not there as it was written.
    pub async fn commit(self, capture: Capture, status: Status, reason: Option<String>) -> Result<Manifest> {
        let doing = format!("committing backup {}", self.backup);
        self.try_commit(capture, status, reason).await.map_err(|error| error.while_doing(doing))
    }

    async fn try_commit(
        self,
        mut capture: Capture,
        status: Status,
        reason: Option<String>,
    ) -> Result<Manifest> {
        let mut artifacts = std::mem::take(&mut lock(&self.written).artifacts);
        let mut details = Details { source: std::mem::take(&mut capture.details), ..Details::default() };
        if !self.recipients().is_empty() {
            details.hide(&mut artifacts, &mut capture.contents);
        }
        if !details.is_empty() {
            let mut artifact = self.store_json(DETAILS, &details, self.recipients()).await?;
            if !self.recipients().is_empty() {
                // Its own digest can be nowhere; the stored bytes' is, and age authenticates what is inside.
                artifact.plain.sha256.clear();
            }
            artifacts.push(artifact);
        }
        artifacts.sort_by(|a, b| a.name.cmp(&b.name));
        self.check_stored(&artifacts).await?;
        let mut manifest = self.manifest(capture, artifacts, status, reason);
        if let Some(rest) = Rest::take(&mut manifest) {
            manifest.artifacts = vec![self.store_json(REST, &rest, &[]).await?];
            self.check_rest(&manifest)?;
            self.check_stored(&manifest.artifacts).await?;
        }
        self.decide(manifest).await
    }

    async fn store_json(
        &self,
        name: &str,
        value: &impl Serialize,
        recipients: &[String],
    ) -> Result<Artifact> {
        let mut artifact = self.begin(name, "application/json", recipients)?;
        artifact.write(encode(&artifact.key, value)?).await?;
        artifact.finish().await
    }

    /// Asks the store for each object once more: it may have accepted what it does not keep.
    async fn check_stored(&self, artifacts: &[Artifact]) -> Result<()> {
        let check = |artifact: &Artifact| {
            let (vault, expected) = (self.vault.clone(), artifact.stored.bytes);
            let (name, key) = (artifact.name.clone(), Key::new(&artifact.key));
            async move {
                let stat = || vault.store.stat(&key);
                let found = match persist(&*vault.clock, CALL_LIMIT, stat).await? {
                    Some(entry) if entry.size == expected => return Ok(()),
                    Some(entry) => format!("its object {key} has {} bytes instead of {expected}", entry.size),
                    None => format!("its object {key} is not there"),
                };
                Err(Error::new(Kind::Damaged, format!("checking artifact {name}"), found)
                    .hint("the store lost what it had taken: do not use it before you know why"))
            }
        };
        let checks: Vec<_> = artifacts.iter().map(check).collect();
        let checks = stream::iter(checks).buffer_unordered(STATS_IN_FLIGHT);
        self.task.guard(checks.try_collect::<Vec<()>>()).await.map(drop)
    }

    /// A manifest and the rest of it must stay readable with one call each.
    fn check_rest(&self, manifest: &Manifest) -> Result<()> {
        let rest = &manifest.artifacts[0];
        let json = encode(&Key::new(&rest.key), manifest)?;
        if rest.stored.bytes <= SMALL_OBJECT_MAX && json.len() <= MANIFEST_MAX {
            return Ok(());
        }
        let why = format!("manifest of {} bytes, list of {}", json.len(), rest.stored.bytes);
        Err(Error::new(Kind::Unsupported, "writing the manifest: too many artifacts", why)
            .hint("split the source into several: by database, by namespace"))
    }

    fn manifest(
        &self,
        capture: Capture,
        artifacts: Vec<Artifact>,
        status: Status,
        reason: Option<String>,
    ) -> Manifest {
        let status = match status {
            Status::Complete if !capture.omissions.is_empty() => Status::Partial,
            status => status,
        };
        let recipients = self.recipients().to_vec();
        Manifest {
            reason,
            origin: capture.origin,
            consistency: capture.consistency,
            artifacts,
            contents: capture.contents,
            omissions: capture.omissions,
            encryption: (!recipients.is_empty()).then_some(EncryptedTo { recipients }),
            timeline: capture.log.as_ref().map(|log| log.identity.clone()),
            log_position: capture.log.as_ref().map(|log| log.position),
            leader_generation: self.leader_generation,
            started_at: self.started_at,
            writer: self.attempt.clone(),
            run: Some(self.task.run.to_string()),
            ..Manifest::bare(&self.backup, &self.kind, status, self.vault.clock.now())
        }
    }

    async fn decide(&self, manifest: Manifest) -> Result<Manifest> {
        let key = layout::manifest(&self.backup);
        let deciding = decide(&*self.vault.store, &*self.vault.clock, &key, &manifest);
        match self.task.guard(deciding).await? {
            Decision::Ours => Ok(manifest),
            Decision::Theirs(other) => Err(lost_to(&other)),
        }
    }
}

fn lost_to(other: &Manifest) -> Error {
    let why = match (&other.status, &other.reason) {
        (Status::Abandoned, Some(reason)) => format!("another process closed this run: {reason}"),
        (Status::Abandoned, None) => "another process closed this run".to_owned(),
        _ => format!("another attempt ({}) committed first", other.writer),
    };
    Error::new(Kind::Conflict, "writing the manifest", why)
        .hint("nothing is lost: the next run of the schedule makes a new backup")
}

impl ArtifactWriter {
    /// Takes the next plain bytes; waits while the spool is full.
    ///
    /// # Errors
    /// Why the artifact cannot be stored. It is given up then: drop it.
    pub async fn write(&mut self, mut plain: Bytes) -> Result<()> {
        while self.block.len() + plain.len() >= BLOCK {
            let piece = plain.split_to(BLOCK - self.block.len());
            self.block.extend_from_slice(&piece);
            let full = std::mem::replace(&mut self.block, self.pipeline.block());
            self.pipeline.push(full, false).await.map_err(|error| self.failed(error))?;
        }
        if self.block.len() + plain.len() > self.block.capacity() {
            // A short artifact takes what it needs; one that grows, a whole block at once.
            let room = if self.block.is_empty() { plain.len() } else { BLOCK - self.block.len() };
            self.block.reserve_exact(room);
        }
        self.block.extend_from_slice(&plain);
        Ok(())
    }

    /// Ends the artifact: returns when the store has all of it and what was compressed was decoded again.
    pub async fn finish(mut self) -> Result<Artifact> {
        let last = std::mem::replace(&mut self.block, self.pipeline.block());
        let pushed = self.pipeline.push(last, true).await;
        let done = match pushed {
            Ok(()) => self.pipeline.end().await,
            Err(error) => Err(error),
        };
        let done = done.map_err(|error| self.failed(error))?;
        let artifact = Artifact {
            name: self.name,
            key: self.key.to_string(),
            media_type: self.media_type,
            codecs: self.codecs,
            plain: done.plain,
            stored: done.stored,
        };
        lock(&self.written).artifacts.push(artifact.clone());
        Ok(artifact)
    }

    fn failed(&self, error: Error) -> Error {
        error.while_doing(format!("writing artifact {}", self.name))
    }
}

fn lock(written: &Mutex<Written>) -> MutexGuard<'_, Written> {
    written.lock().expect("no holder panics")
}
