//! Where a work runs. The seam between deciding that something runs and the place where it does.

use std::fmt::Debug;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;

use super::work::{Attempt, Done, Work};
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// Runs one attempt to its end.
#[async_trait]
pub trait Executor: Debug + Send + Sync {
    /// Returns what the work returned; by itself once the task was cancelled, or past its deadline, and the work did not
    /// notice. Dropping the future ends the work.
    async fn execute(&self, work: &dyn Work, task: &Task, attempt: &Attempt) -> Result<Done>;
}

/// How long a work may take to notice that it should end, and to clean up.
pub const CLEANUP: Duration = Duration::from_secs(30);

/// Runs works in this process.
#[derive(Clone, Copy, Debug)]
pub struct InProcess;

#[async_trait]
impl Executor for InProcess {
    async fn execute(&self, work: &dyn Work, task: &Task, attempt: &Attempt) -> Result<Done> {
        let doing = || format!("{}, run {}", work.order(), attempt.run);
        tokio::select! {
            biased;
            done = AssertUnwindSafe(work.run(task, attempt)).catch_unwind() => {
                done.unwrap_or_else(|panic| Err(panicked(doing(), &*panic)))
            }
            ended = overdue(task) => ended,
        }
    }
}

/// Returns when the work should have noticed by now that it has to end, and why it has to.
async fn overdue<T>(task: &Task) -> Result<T> {
    let ended = task.guard(std::future::pending()).await;
    task.clock.sleep(CLEANUP).await;
    ended
}

/// What a panic comes to: it ends what panicked, and nothing else.
pub(super) fn panicked(doing: String, panic: &(dyn std::any::Any + Send)) -> Error {
    let text = panic.downcast_ref::<&str>().copied();
    let words = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let why = format!("the work panicked: {}", words.unwrap_or("without words"));
    Error::new(Kind::Internal, doing, why).hint("this is a bug: please report it with the log around it")
}
