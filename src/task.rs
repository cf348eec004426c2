//! What a piece of work gets: a name, a deadline, a way to be cancelled, progress, limits and the spool.

use std::future::Future;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};

pub mod pace;
pub mod spool;

pub use spool::Spool;

/// How long after its deadline a task may still be at work, though nobody knows whether its process lives: by then its own
/// deadline has ended it, even if its machine was slow to wake up. What it held or claimed is free from then on.
pub const MARGIN: Duration = Duration::from_secs(15 * 60);

/// What a piece of work gets. Clones are the same task.
#[derive(Clone, Debug)]
pub struct Task {
    /// The run it belongs to, as text.
    pub run: Arc<str>,
    /// The clock.
    pub clock: SharedClock,
    /// When it must have ended, by [`Clock::monotonic`](crate::clock::Clock::monotonic).
    pub deadline: Duration,
    /// Cancelled when somebody asked for an end.
    pub cancel: CancellationToken,
    /// What it tells the world while it works.
    pub progress: Progress,
    /// What it may use.
    pub limits: Arc<Limits>,
    /// Where bytes wait on disk.
    pub spool: Spool,
}

impl Task {
    /// Fails once the task is cancelled or its deadline has passed.
    pub fn checkpoint(&self) -> Result<()> {
        if self.cancel.is_cancelled() {
            return Err(self.cancelled());
        }
        if self.clock.monotonic() >= self.deadline {
            return Err(self.too_late());
        }
        Ok(())
    }

    /// Begins a named step; the one before ends.
    pub fn step(&self, name: &str) {
        self.progress.step(name, self.clock.monotonic());
    }

    /// Waits for `work`, but no longer than until cancel or deadline.
    pub async fn guard<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let left = self.deadline.saturating_sub(self.clock.monotonic());
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(self.cancelled()),
            done = work => done,
            () = self.clock.sleep(left) => Err(self.too_late()),
        }
    }

    fn doing(&self) -> String {
        match self.progress.snapshot().step {
            step if step.is_empty() => format!("run {}", self.run),
            step => format!("run {}, step {step}", self.run),
        }
    }

    fn cancelled(&self) -> Error {
        Error::new(Kind::Cancelled, self.doing(), "somebody asked for an end")
    }

    fn too_late(&self) -> Error {
        Error::new(Kind::Timeout, self.doing(), "the deadline has passed").hint(
            "give the schedule a longer `deadline`, or look which step took the time: `tidekeeper runs show`",
        )
    }
}

/// What the process may use of its machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Where what is not yet uploaded waits.
    pub spool_dir: PathBuf,
    /// How many bytes may wait there, over all runs.
    pub spool_max: u64,
    /// Bytes a second into the vault; 0 is unlimited.
    pub upload_rate: u64,
    /// How many runs at the same time.
    pub concurrent_runs: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            spool_dir: std::env::temp_dir().join("tidekeeper"),
            spool_max: 4 << 30,
            upload_rate: 0,
            concurrent_runs: 2,
        }
    }
}

/// What a task tells the world while it works. Clones are the same progress.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<ProgressInner>);

#[derive(Debug, Default)]
struct ProgressInner {
    bytes: AtomicU64,
    /// 0 while it is unknown.
    bytes_total: AtomicU64,
    items: AtomicU64,
    steps: Mutex<Steps>,
}

#[derive(Debug, Default)]
struct Steps {
    /// When the first began.
    first: Option<Duration>,
    list: Vec<Step>,
}

impl Steps {
    /// Ends the step under way; tells the seconds since the first began.
    fn end(&mut self, now: Duration) -> f64 {
        let now = now.saturating_sub(*self.first.get_or_insert(now)).as_secs_f64();
        if let Some(last) = self.list.last_mut().filter(|last| last.took_s.is_none()) {
            last.took_s = Some(now - last.began_s);
        }
        now
    }
}

/// A named step of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// `preflight`, `transfer`, `commit`.
    pub name: String,
    /// When it began, in seconds since the first step did.
    pub began_s: f64,
    /// How long it took; none while it is under way.
    pub took_s: Option<f64>,
}

/// Progress at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The step under way.
    pub step: String,
    /// Bytes done in this step.
    pub bytes: u64,
    /// Bytes to do in this step, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes_total: Option<u64>,
    /// Items done.
    pub items: u64,
    /// All steps so far.
    pub steps: Vec<Step>,
}

impl Progress {
    /// Ends the step under way and begins another; its bytes and items count from zero.
    pub fn step(&self, name: &str, now: Duration) {
        let mut steps = self.0.steps.lock().expect("no holder panics");
        let began_s = steps.end(now);
        steps.list.push(Step { name: name.to_owned(), began_s, took_s: None });
        drop(steps);
        self.0.bytes.store(0, Ordering::Relaxed);
        self.0.bytes_total.store(0, Ordering::Relaxed);
        self.0.items.store(0, Ordering::Relaxed);
    }

    /// Forgets the steps so far: what follows is another attempt.
    pub fn restart(&self) {
        *self.0.steps.lock().expect("no holder panics") = Steps::default();
    }

    /// Ends the step under way.
    pub fn done(&self, now: Duration) {
        self.0.steps.lock().expect("no holder panics").end(now);
    }

    /// So many bytes more are done.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// So many bytes there are in all.
    pub fn set_total(&self, bytes: u64) {
        self.0.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// So many items more are done.
    pub fn add_items(&self, items: u64) {
        self.0.items.fetch_add(items, Ordering::Relaxed);
    }

    /// Progress now.
    pub fn snapshot(&self) -> Snapshot {
        let steps = self.0.steps.lock().expect("no holder panics").list.clone();
        let step = steps.last().filter(|last| last.took_s.is_none());
        Snapshot {
            step: step.map(|step| step.name.clone()).unwrap_or_default(),
            bytes: self.0.bytes.load(Ordering::Relaxed),
            bytes_total: Some(self.0.bytes_total.load(Ordering::Relaxed)).filter(|total| *total > 0),
            items: self.0.items.load(Ordering::Relaxed),
            steps,
        }
    }
}
