//! The daemon's loop: a tick a second until somebody asks for the end.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler, JobSchedulerError};
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::daemon::Daemon;
use crate::error::{Error, Kind, Result};

/// The scheduler's tick follows the wall clock: set back an hour, it is silent for an hour. So no more than this much
/// monotonic time passes between two ticks, whatever the wall clock does.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How the daemon is started and ended.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Depose the leader of another cluster or machine.
    pub take_over: bool,
    /// How long running works may go on after somebody asked for the end.
    pub grace: Duration,
}

impl Engine {
    /// Ticks once a second, until `stop`; then shuts down within the grace time.
    ///
    /// # Errors
    /// `Internal` if the scheduler cannot be started. A vault that goes away is no error: it may come back.
    /// (One that is away before is: `tidekeeper serve` opens and probes it first.)
    pub async fn serve(&self, options: Options, stop: CancellationToken) -> Result<()> {
        let ticks = Arc::new(Notify::new());
        let failed = |cause| Error::new(Kind::Internal, "starting the scheduler", cause);
        let mut scheduler = scheduler(ticks.clone()).await.map_err(failed)?;
        Daemon::new(self, options.take_over).run(ticks, stop, options.grace).await;
        // Boxed, because the compiler cannot see otherwise that the library's future is `Send`.
        let ended: BoxFuture<'_, _> = Box::pin(scheduler.shutdown());
        if let Err(error) = ended.await {
            tracing::debug!(%error, "the scheduler did not end by itself");
        }
        Ok(())
    }
}

async fn scheduler(ticks: Arc<Notify>) -> Result<JobScheduler, JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let every_second = Job::new("* * * * * *", move |_, _| ticks.notify_one())?;
    scheduler.add(every_second).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

impl Daemon {
    /// Ticks whenever `ticks` says so, when there is news in this process, and at least every two seconds, until `stop`.
    pub async fn run(mut self, ticks: Arc<Notify>, stop: CancellationToken, grace: Duration) {
        let engine = self.engine().clone();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = self.tick() => {}
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = ticks.notified() => {}
                () = engine.0.wake.notified() => {}
                () = engine.clock().sleep(LONGEST_PAUSE) => {}
            }
        }
        self.shutdown(grace).await;
    }
}
