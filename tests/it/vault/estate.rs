//! A vault in memory with backups in it, for tests of what the vault remembers and deletes.
//!
//! Its manifests are written as JSON text, as another build would have written them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use tidekeeper::clock::{Clock, SharedClock, TestClock};
use tidekeeper::config::{Limits, Retention};
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::task::{Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::catalog::Catalog;
use tidekeeper::vault::deletion::{Deleter, Fence, NoNatives, Policy, Report};
use tidekeeper::vault::layout::{self, BackupId, BackupRef};
use tidekeeper::vault::marks::{Outcome, Proof};
use tidekeeper::vault::store::faults::{Faults, Hook};
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{Create, Key, Store, list_all};
use tidekeeper::vault::store_clock::StoreClock;
use tidekeeper::vault::verify::prove;

pub use crate::harness::bench::Leads;

pub const SOURCE: &str = "redis-main";
pub const HOUR: Duration = Duration::from_secs(3600);
pub const DAY: Duration = Duration::from_secs(86_400);

/// A vault in memory. The runtime's time must be paused.
#[derive(Debug)]
pub struct Estate {
    pub clock: Arc<TestClock>,
    pub memory: MemoryStore,
    pub vault: Vault,
    pub watch: StoreClock,
    made: AtomicU32,
}

impl Estate {
    pub fn new() -> Self {
        Self::starting("2026-11-01T00:00:00Z")
    }

    pub fn starting(at: &str) -> Self {
        let clock = TestClock::starting_at(at.parse().expect("a time"));
        let shared: SharedClock = clock.clone();
        let memory = MemoryStore::new(shared.clone());
        let vault = Vault::new(Arc::new(memory.clone()), shared.clone(), None);
        Estate { clock, memory, vault, watch: StoreClock::new(shared), made: AtomicU32::new(0) }
    }

    /// The same vault as another process sees it, all its calls passing `hook`.
    pub fn through(&self, hook: Arc<dyn Hook>) -> (Vault, Faults) {
        let faults = Faults::around(Arc::new(self.memory.clone()), hook);
        (Vault::new(Arc::new(faults.clone()), self.clock.clone(), None), faults)
    }

    pub fn catalog(&self) -> Catalog {
        Catalog::new(&self.vault)
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub async fn pass(&self, time: Duration) {
        self.clock.sleep(time).await;
    }

    /// A new id of `source`, as of now.
    pub fn name(&self, source: &str) -> BackupRef {
        let n = self.made.fetch_add(1, Ordering::Relaxed);
        BackupRef { source: source.parse().expect("a name"), id: BackupId::new(self.now(), None, n) }
    }

    /// A backup of [`SOURCE`] with 100 items and one artifact.
    pub async fn backup(&self, status: &str) -> BackupRef {
        self.backup_of(SOURCE, status, json!({})).await
    }

    /// A backup of `source`; the fields of `more` replace those of its manifest.
    pub async fn backup_of(&self, source: &str, status: &str, more: Value) -> BackupRef {
        let backup = self.name(source);
        let artifact = self.data(&backup, "attempt0").await;
        let mut manifest = self.manifest(&backup, status, &artifact);
        for (field, value) in more.as_object().expect("an object of fields") {
            manifest[field] = value.clone();
        }
        self.put(&layout::manifest(&backup), manifest.to_string()).await;
        backup
    }

    /// One object of data: `plain data`, compressed.
    pub async fn data(&self, backup: &BackupRef, attempt: &str) -> Key {
        let key = layout::artifact(backup, attempt, "dump.rdb.zst");
        self.put(&key, stored()).await;
        key
    }

    fn manifest(&self, backup: &BackupRef, status: &str, artifact: &Key) -> Value {
        let digest = |bytes: &[u8]| {
            let sha256 = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
            json!({"bytes": bytes.len(), "sha256": hex::encode(sha256)})
        };
        json!({
            "format": 1, "id": backup.id, "source": backup.source, "kind": "redis", "status": status,
            "started_at": self.now(), "finished_at": self.now(), "tool": "tidekeeper 0.1.0",
            "writer": "attempt0",
            "artifacts": [{
                "name": "dump.rdb", "key": artifact.as_str(), "media_type": "application/x-redis-rdb",
                "codecs": ["zstd"], "plain": digest(PLAIN), "stored": digest(&stored()),
            }],
            "contents": {"items": 100},
        })
    }

    pub async fn put(&self, key: &Key, body: impl Into<Bytes>) {
        let created = self.memory.create(key, body.into()).await.expect("memory takes it");
        assert_eq!(created, Create::Created, "{key} exists already");
    }

    /// Replaces an object, as bit rot and vandals do.
    pub async fn spoil(&self, key: &Key, body: impl Into<Bytes>) {
        self.memory.delete(key).await.expect("memory deletes");
        self.put(key, body).await;
    }

    pub async fn remove(&self, key: &Key) {
        self.memory.delete(key).await.expect("memory deletes");
    }

    pub async fn prove(&self, backup: &BackupRef, outcome: Outcome) {
        let run = format!("drill-{}", self.made.fetch_add(1, Ordering::Relaxed));
        let proof =
            Proof { nonce: run.clone(), outcome, at: self.now(), run, checks: Vec::new(), took_s: 1.0 };
        prove(&self.vault, backup, &proof).await.expect("recorded");
    }

    /// Every key under `prefix`.
    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let entries = list_all(&self.memory, prefix).await.expect("memory lists");
        entries.into_iter().map(|entry| entry.key.to_string()).collect()
    }

    /// Every key that has to do with `backup`.
    pub async fn traces(&self, backup: &BackupRef) -> Vec<String> {
        let all = self.keys("").await;
        all.into_iter().filter(|key| key.contains(backup.id.as_str())).collect()
    }

    /// A retention pass by the vault itself, as a leader.
    pub async fn retain(&self, policy: &Policy) -> Result<Report> {
        self.retain_as(&self.vault, &Leads, policy).await
    }

    /// A retention pass by `vault`, a process that has read nothing yet.
    pub async fn retain_as(&self, vault: &Vault, fence: &dyn Fence, policy: &Policy) -> Result<Report> {
        let catalog = Catalog::new(vault);
        let deleter = Deleter { vault, catalog: &catalog, clock: &self.watch, fence, natives: &NoNatives };
        deleter.apply(policy).await
    }

    pub fn task(&self) -> Task {
        let limits = Limits::default();
        let clock: SharedClock = self.clock.clone();
        Task {
            run: "run-1".into(),
            clock: clock.clone(),
            deadline: self.clock.monotonic() + HOUR,
            cancel: Default::default(),
            progress: Default::default(),
            spool: Spool::new(&limits, clock.clone()).expect("a spool"),
            limits: Arc::new(limits),
        }
    }
}

pub const PLAIN: &[u8] = b"plain data, and enough of it that a bit can be flipped";

pub fn stored() -> Vec<u8> {
    zstd::encode_all(PLAIN, 3).expect("memory compresses")
}

/// Keeps the newest one and nothing else.
pub fn keep_one() -> Policy {
    let retention = Retention {
        keep_within: Duration::ZERO,
        keep_last: 1,
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        window: Duration::ZERO,
        grace: DAY,
    };
    Policy { source: SOURCE.parse().expect("a name"), retention, zone: TimeZone::UTC, interval: None }
}

/// Somebody else leads.
#[derive(Debug)]
pub struct Deposed;

#[async_trait]
impl Fence for Deposed {
    fn generation(&self) -> Option<u64> {
        Some(1)
    }

    async fn still_leading(&self) -> Result<()> {
        Err(Error::new(Kind::Conflict, "leading as generation 1", "generation 2 leads"))
    }
}

/// A small, seeded, portable source of randomness (SplitMix64): histories must be the same everywhere.
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// True in `percent` of the cases.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len() as u64) as usize]
    }
}
