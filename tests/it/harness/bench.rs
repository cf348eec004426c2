//! What a test of a source works with: a vault in memory, a task with a spool of its own, and a leader.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tempfile::TempDir;
use tidekeeper::clock::{SharedClock, SystemClock};
use tidekeeper::config::Limits;
use tidekeeper::error::Result;
use tidekeeper::task::{Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::deletion::Fence;
use tidekeeper::vault::store::memory::MemoryStore;

/// No task of a test takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(300);

/// A vault, and a task to work with.
#[derive(Debug)]
pub struct Bench {
    pub clock: SharedClock,
    pub vault: Vault,
    pub task: Task,
    _spool: TempDir,
}

impl Bench {
    pub fn new() -> Self {
        Bench::with_spool(Limits::default().spool_max)
    }

    /// With this vault.
    pub fn with_vault(vault: Vault) -> Self {
        Bench { vault, ..Bench::new() }
    }

    /// With a spool of so many bytes.
    pub fn with_spool(spool_max: u64) -> Self {
        let clock = SystemClock::shared();
        let spool = tempfile::tempdir().expect("a temporary folder");
        let limits = Limits { spool_dir: spool.path().to_owned(), spool_max, ..Limits::default() };
        let task = Task {
            run: "test".into(),
            clock: clock.clone(),
            deadline: clock.monotonic() + LIMIT,
            cancel: Default::default(),
            progress: Default::default(),
            spool: Spool::new(&limits, clock.clone()).expect("a spool"),
            limits: Arc::new(limits),
        };
        let vault = Vault::new(Arc::new(MemoryStore::new(clock.clone())), clock.clone(), None);
        Bench { clock, vault, task, _spool: spool }
    }
}

/// A leader whom nobody deposes.
#[derive(Debug)]
pub struct Leads;

#[async_trait]
impl Fence for Leads {
    fn generation(&self) -> Option<u64> {
        Some(1)
    }

    async fn still_leading(&self) -> Result<()> {
        Ok(())
    }
}
