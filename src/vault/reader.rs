//! Reads a backup back: plain bytes, checked against the manifest before the last of them are handed out.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};
use tokio::sync::OnceCell;
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use self::pipeline::{Plan, agree};
use super::Vault;
use super::catalog::{not_there, read_manifest};
use super::codec::seal::{Identities, read_identities};
use super::codec::{BLOCK, Hasher, persist, start};
use super::details::{DETAILS, Details, Rest};
use super::layout::BackupRef;
use super::layout::log::Position;
use super::manifest::{Artifact, Codec, Contents, Manifest, Status};
use super::store::Key;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

mod pipeline;

/// So much of an artifact's end waits until everything was checked: a consumer that needs all bytes cannot
/// be done before.
pub const HELD_BACK: usize = 64 << 10;

/// How long one small read may take.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// A backup that exists.
#[derive(Clone, Debug)]
pub struct BackupReader {
    /// The vault it is in.
    pub vault: Vault,
    /// Its manifest, with what was too long for it put back.
    pub manifest: Manifest,
    /// See [`log_up_to`](Self::log_up_to).
    pub log_end: Option<Position>,
    details: Arc<OnceCell<Details>>,
}

/// A stream of an artifact's plain bytes. The last 64 KiB come only when both hashes agree.
#[derive(Debug)]
pub struct ArtifactReader {
    artifact: String,
    chunks: Receiver<Bytes>,
    state: State,
    held: VecDeque<Bytes>,
    held_bytes: usize,
    /// Ends the reading when this is dropped.
    _ended: DropGuard,
}

/// How far a stream is.
#[derive(Debug)]
enum State {
    /// Bytes come, and what they are is not known yet.
    Reading(JoinHandle<Result<()>>),
    /// All of them came, and are what they should be.
    Checked,
    /// They are not, or could not be had; what was held back was thrown away.
    Failed,
}

/// What was checked of an artifact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verified {
    /// So many stored bytes have the SHA-256 that the manifest tells.
    pub stored_bytes: u64,
    /// So many plain bytes came of them, with the right SHA-256; none if no private key was there to decrypt them.
    pub plain_bytes: Option<u64>,
}

impl BackupReader {
    /// Opens a backup by its manifest.
    ///
    /// # Errors
    /// `NotFound` if there is none or it was abandoned, `Unsupported` if a newer build wrote it, `Damaged` if its
    /// manifest cannot be read or is another backup's.
    pub async fn open_backup(vault: &Vault, backup: &BackupRef) -> Result<Self> {
        let doing = format!("opening backup {backup}");
        let read = || read_manifest(vault, backup);
        let opened = persist(&*vault.clock, CALL_LIMIT, read).await;
        let manifest = opened.map_err(|error| error.while_doing(&doing))?;
        if manifest.status == Status::Abandoned {
            let reason = manifest.reason.as_deref().unwrap_or("no reason given");
            return Err(not_there(backup, format!("it was given up: {reason}")).while_doing(doing));
        }
        BackupReader::resolve(vault, manifest).await.map_err(|error| error.while_doing(doing))
    }

    /// A reader of a backup whose manifest was read before; what was too long for the manifest is put back.
    pub async fn resolve(vault: &Vault, mut manifest: Manifest) -> Result<Self> {
        if let Some(artifact) = Rest::artifact(&manifest) {
            let rest = read_rest(vault, artifact).await.map_err(|error| reading(&artifact.name, error))?;
            rest.put_back(&mut manifest);
        }
        Ok(BackupReader { vault: vault.clone(), manifest, log_end: None, details: Arc::default() })
    }

    /// Of the log that goes on from the backup, nothing is wanted beyond `end`, because nothing was there when it was
    /// sealed: [`log`](Self::log) is satisfied with a chain that reaches so far, whatever later position it is asked for.
    pub fn log_up_to(mut self, end: Option<Position>) -> Self {
        self.log_end = end;
        self
    }

    /// The artifact of this name.
    ///
    /// # Errors
    /// `NotFound`, naming those that there are.
    pub fn artifact(&self, name: &str) -> Result<&Artifact> {
        self.manifest.artifacts.iter().find(|artifact| artifact.name == name).ok_or_else(|| {
            let names: Vec<_> =
                self.manifest.artifacts.iter().map(|artifact| &*artifact.name).take(20).collect();
            let doing = format!("looking for artifact {name} of {}", self.manifest.backup());
            Error::new(Kind::NotFound, doing, format!("it has: {}", names.join(", ")))
        })
    }

    /// Opens an artifact from its beginning.
    ///
    /// # Errors
    /// `Damaged` if its object is missing or of another length; `Config` or `Denied` if it is encrypted and no
    /// private key is there that fits.
    pub async fn open(&self, artifact: &Artifact, task: &Task) -> Result<ArtifactReader> {
        let opened = task.guard(async {
            let identities = self.identities(artifact).await?;
            let expected = self.expected_sha256(artifact, task).await?;
            Plan::new(&self.vault, artifact, identities, expected).await
        });
        let plan = opened.await.map_err(|error| reading(&artifact.name, error))?;
        let cancel = task.cancel.child_token();
        let task = Task { cancel: cancel.clone(), ..task.clone() };
        let (chunks, reading) = plan.start(task);
        Ok(ArtifactReader {
            artifact: artifact.name.clone(),
            chunks,
            state: State::Reading(reading),
            held: VecDeque::new(),
            held_bytes: 0,
            _ended: cancel.drop_guard(),
        })
    }

    /// Reads all of an artifact and checks all that can be checked here.
    ///
    /// # Errors
    /// As [`open`](Self::open) and [`ArtifactReader::next`]; but without a private key the stored bytes alone are checked.
    pub async fn verify(&self, artifact: &Artifact, task: &Task) -> Result<Verified> {
        let stored_bytes = artifact.stored.bytes;
        if !self.can_open(artifact) {
            let check = async { Plan::new(&self.vault, artifact, None, None).await?.check_stored().await };
            task.guard(check).await.map_err(|error| reading(&artifact.name, error))?;
            task.progress.add_bytes(stored_bytes);
            return Ok(Verified { stored_bytes, plain_bytes: None });
        }
        let mut reader = self.open(artifact, task).await?;
        let mut plain_bytes = 0;
        while let Some(chunk) = reader.next().await? {
            plain_bytes += chunk.len() as u64;
            task.progress.add_bytes(chunk.len() as u64);
        }
        Ok(Verified { stored_bytes, plain_bytes: Some(plain_bytes) })
    }

    /// What the source said of its data that the manifest must not tell; empty if it said nothing.
    pub async fn details(&self, task: &Task) -> Result<&Map<String, Value>> {
        self.load_details(task).await.map(|details| &details.source)
    }

    /// What a comparison after a restore expects: the manifest's contents, and what encryption hid of them.
    pub async fn contents(&self, task: &Task) -> Result<Contents> {
        let mut contents = self.manifest.contents.clone();
        self.load_details(task).await?.reveal(&mut contents);
        Ok(contents)
    }

    async fn load_details(&self, task: &Task) -> Result<&Details> {
        self.details.get_or_try_init(|| self.read_details(task)).await
    }

    async fn read_details(&self, task: &Task) -> Result<Details> {
        let artifact = self.manifest.artifacts.iter().find(|artifact| artifact.name == DETAILS);
        let Some(artifact) = artifact else { return Ok(Details::default()) };
        // Boxed because opening an artifact asks for the details, though never for those of the details.
        let mut reader = Box::pin(self.open(artifact, task)).await?;
        let mut json = Vec::new();
        while let Some(chunk) = reader.next().await? {
            json.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&json)
            .map_err(|cause| reading(DETAILS, Error::new(Kind::Damaged, "understanding it", cause)))
    }

    async fn expected_sha256(&self, artifact: &Artifact, task: &Task) -> Result<Option<String>> {
        if !artifact.plain.sha256.is_empty() {
            return Ok(Some(artifact.plain.sha256.clone()));
        }
        if artifact.name == DETAILS {
            return Ok(None);
        }
        let details = self.load_details(task).await?;
        let sha256 = details.plain_sha256.get(&artifact.name);
        let missing = || {
            Error::new(Kind::Damaged, "checking", format!("neither manifest nor {DETAILS} has its SHA-256"))
        };
        sha256.cloned().map(Some).ok_or_else(missing)
    }

    /// Whether it is in plain, or a private key is configured that may decrypt it.
    pub fn can_open(&self, artifact: &Artifact) -> bool {
        let encryption = self.vault.encryption.as_ref();
        !artifact.codecs.contains(&Codec::Age)
            || encryption.is_some_and(|encryption| encryption.identity_file.is_some())
    }

    async fn identities(&self, artifact: &Artifact) -> Result<Option<Identities>> {
        if !artifact.codecs.contains(&Codec::Age) {
            return Ok(None);
        }
        let recipients =
            self.manifest.encryption.as_ref().map_or(String::new(), |to| to.recipients.join(", "));
        private_keys(&self.vault, &recipients).await.map(Some)
    }
}

/// The private keys for what is encrypted to `recipients`.
///
/// # Errors
/// `Config` if none are configured.
pub(super) async fn private_keys(vault: &Vault, recipients: &str) -> Result<Identities> {
    let encryption = vault.encryption.as_ref();
    let Some(path) = encryption.and_then(|encryption| encryption.identity_file.clone()) else {
        let why = format!("it is encrypted to {recipients}, and no private key is configured");
        return Err(Error::new(Kind::Config, "decrypting", why)
            .hint("set `encryption.identity_file` to a file with the private key of one of them"));
    };
    start(usize::MAX, move || read_identities(&path)).await
}

/// Reads the rest of a manifest: small, never encrypted, needed before there is a task.
async fn read_rest(vault: &Vault, artifact: &Artifact) -> Result<Rest> {
    let damaged = |why: &dyn fmt::Display| pipeline::damaged(&artifact.key, why);
    if !Key::is_valid(&artifact.key) {
        return Err(damaged(&"that is not a key"));
    }
    let key = Key::new(&artifact.key);
    let read = persist(&*vault.clock, CALL_LIMIT, || vault.store.get(&key)).await?;
    let stored = read.ok_or_else(|| damaged(&"it is not there"))?;
    agree("stored", &artifact.stored, Hasher::of(&stored))?;
    let plain = zstd::decode_all(&*stored).map_err(|cause| damaged(&cause))?;
    agree("plain", &artifact.plain, Hasher::of(&plain))?;
    serde_json::from_slice(&plain).map_err(|cause| damaged(&cause))
}

impl ArtifactReader {
    /// The next plain bytes; `None` after the last, when everything was as the manifest says.
    ///
    /// # Errors
    /// `Damaged` if a hash or a frame is wrong, naming the artifact. What was not handed out by then never is.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        loop {
            if let Some(chunk) = self.ready() {
                return Ok(Some(chunk));
            }
            let running = match &mut self.state {
                State::Reading(running) => running,
                State::Checked => return Ok(None),
                State::Failed => {
                    return Err(self.failed(Error::new(Kind::Internal, "going on", "it failed before")));
                }
            };
            if let Some(chunk) = self.chunks.recv().await {
                self.held_bytes += chunk.len();
                self.held.push_back(chunk);
                continue;
            }
            match running.await.unwrap_or_else(|died| Err(Error::new(Kind::Internal, "checking", died))) {
                Ok(()) => self.state = State::Checked,
                Err(error) => return Err(self.failed(error)),
            }
        }
    }

    /// What may be handed out now, at most a block.
    fn ready(&mut self) -> Option<Bytes> {
        let keep = if let State::Checked = self.state { 0 } else { HELD_BACK };
        let free = self.held_bytes.saturating_sub(keep).min(BLOCK);
        let first = self.held.front_mut().filter(|_| free > 0)?;
        let chunk = first.split_to(first.len().min(free));
        if first.is_empty() {
            self.held.pop_front();
        }
        self.held_bytes -= chunk.len();
        Some(chunk)
    }

    fn failed(&mut self, error: Error) -> Error {
        self.state = State::Failed;
        self.held.clear();
        self.held_bytes = 0;
        reading(&self.artifact, error)
    }
}

fn reading(artifact: &str, error: Error) -> Error {
    error.while_doing(format!("reading artifact {artifact}"))
}

impl Verified {
    /// How many bytes were compared: plain ones, else stored ones.
    pub fn bytes(&self) -> u64 {
        self.plain_bytes.unwrap_or(self.stored_bytes)
    }
}

impl fmt::Display for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.plain_bytes {
            Some(plain) => write!(f, "{} stored and {plain} plain bytes agree", self.stored_bytes),
            None => write!(f, "{} stored bytes agree; what is inside was not looked at", self.stored_bytes),
        }
    }
}
