//! A vault in memory around which faults can be planned, and a task that writes to it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidekeeper::clock::{SharedClock, SystemClock};
use tidekeeper::config::Encryption;
use tidekeeper::error::Result;
use tidekeeper::task::{Limits, Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::{BackupId, BackupRef, random};
use tidekeeper::vault::manifest::{Artifact, Manifest, Status};
use tidekeeper::vault::reader::{ArtifactReader, BackupReader};
use tidekeeper::vault::store::faults::{Faults, Plan};
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{Key, Store};
use tidekeeper::vault::writer::{BackupWriter, Capture};

use crate::harness::wait_for;

pub struct Scene {
    pub clock: SharedClock,
    pub memory: MemoryStore,
    pub faults: Faults,
    pub plan: Arc<Plan>,
    pub vault: Vault,
    pub task: Task,
    pub dir: tempfile::TempDir,
}

impl Scene {
    pub fn new() -> Scene {
        Scene::with(SystemClock::shared(), Limits::default())
    }

    pub fn with(clock: SharedClock, limits: Limits) -> Scene {
        let dir = tempfile::tempdir().expect("a directory");
        let limits = Limits { spool_dir: dir.path().join("spool"), ..limits };
        let memory = MemoryStore::new(clock.clone());
        let plan = Plan::new(clock.clone());
        let faults = Faults::around(Arc::new(memory.clone()), plan.clone());
        let task = Task {
            run: "redis-main-20261121".into(),
            clock: clock.clone(),
            deadline: clock.monotonic() + Duration::from_secs(600),
            cancel: Default::default(),
            progress: Default::default(),
            spool: Spool::new(&limits, clock.clone()).expect("a spool"),
            limits: Arc::new(limits),
        };
        let vault = Vault::new(Arc::new(faults.clone()), clock.clone(), None);
        Scene { clock, memory, faults, plan, vault, task, dir }
    }

    /// Encrypts to a new key.
    pub fn encrypted(mut self) -> Scene {
        let identity = age::x25519::Identity::generate();
        let file = self.dir.path().join("age.key");
        let text = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
        std::fs::write(&file, format!("# a comment\n{text}\n")).expect("written");
        let encryption =
            Encryption { recipients: vec![identity.to_public().to_string()], identity_file: Some(file) };
        self.vault = Vault::new(self.vault.store.clone(), self.clock.clone(), Some(encryption));
        self
    }

    pub fn backup(&self) -> BackupRef {
        let id = BackupId::new(self.clock.now(), None, random() as u32);
        BackupRef { source: "redis-main".parse().expect("a name"), id }
    }

    pub fn writer(&self, backup: &BackupRef) -> BackupWriter {
        BackupWriter::new(&self.vault, backup.clone(), "redis", &self.task, self.clock.now())
    }

    /// Writes a backup of these artifacts, each in one piece.
    pub async fn write(&self, artifacts: &[(&str, Bytes)]) -> Manifest {
        let writer = self.writer(&self.backup());
        for (name, plain) in artifacts {
            write_artifact(&writer, name, plain.clone()).await.expect("written");
        }
        writer.commit(Capture::default(), Status::Complete, None).await.expect("committed")
    }

    pub async fn reader(&self, manifest: &Manifest) -> BackupReader {
        BackupReader::open_backup(&self.vault, &manifest.backup()).await.expect("opened")
    }

    /// Replaces a stored object, as no store of ours ever would.
    pub async fn replace(&self, key: &str, body: impl Into<Bytes>) {
        let key = Key::new(key);
        self.memory.delete(&key).await.expect("deleted");
        let _ = self.memory.create(&key, body.into()).await.expect("created");
    }

    pub async fn stored(&self, key: &str) -> Bytes {
        self.memory.get(&Key::new(key)).await.expect("read").expect("an object")
    }

    pub async fn stored_len(&self, key: &str) -> u64 {
        self.memory.stat(&Key::new(key)).await.expect("asked").expect("an object").size
    }

    /// The same vault as somebody sees it who has no private key.
    pub fn without_key(&self) -> Vault {
        let public = |encryption: &Encryption| Encryption { identity_file: None, ..encryption.clone() };
        let encryption = self.vault.encryption.as_deref().map(public);
        Vault::new(self.vault.store.clone(), self.clock.clone(), encryption)
    }

    /// Waits until all is clean: what was given up may have had a thread at the spool, which ends a moment later.
    pub async fn cleaned(&self) {
        wait_for("all is cleaned up", Duration::from_secs(10), async || self.is_clean().await).await;
    }

    /// Neither an open upload nor a booked byte is left.
    pub async fn is_clean(&self) -> bool {
        self.memory.open_uploads("").await.expect("listed").is_empty() && self.task.spool.used() == 0
    }
}

pub async fn write_artifact(writer: &BackupWriter, name: &str, plain: Bytes) -> Result<Artifact> {
    let mut artifact = writer.artifact(name, "application/octet-stream")?;
    artifact.write(plain).await?;
    artifact.finish().await
}

/// All plain bytes, or the error and what was handed out before it.
pub async fn drain(mut reader: ArtifactReader) -> Result<Vec<u8>, (tidekeeper::error::Error, Vec<u8>)> {
    let mut plain = Vec::new();
    loop {
        match reader.next().await {
            Ok(Some(chunk)) => plain.extend_from_slice(&chunk),
            Ok(None) => return Ok(plain),
            Err(error) => {
                assert!(reader.next().await.is_err(), "an error must not look like an end");
                return Err((error, plain));
            }
        }
    }
}

/// Bytes that no compressor makes shorter, the same for the same seed.
pub fn noise(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let words = std::iter::repeat_with(|| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 32) as u32
    });
    let mut bytes: Vec<u8> = words.take(len.div_ceil(4)).flat_map(u32::to_le_bytes).collect();
    bytes.truncate(len);
    bytes.into()
}

/// Bytes that a compressor likes.
pub fn text(len: usize) -> Bytes {
    let lines =
        (0..).flat_map(|n: u64| format!("{{\"id\": {n}, \"name\": \"user {}\"}}\n", n % 97).into_bytes());
    lines.take(len).collect::<Vec<u8>>().into()
}
