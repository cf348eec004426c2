//! Commands to the target: counted, bounded in time, sent again when the line breaks. What is sent twice does the same twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::error::Error as DriverError;
use mongodb::options::{ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use super::super::client::Link;
use super::super::failure::{failed, is_passing};
use super::super::namespace::Namespace;
use crate::clock::within;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// How long one command may take: a few thousand writes on a slow server.
const CALL_LIMIT: Duration = Duration::from_secs(180);

/// How long a target may be away: an election takes seconds, a restart a minute or two.
const AWAY_LIMIT: Duration = Duration::from_secs(300);

/// The pause before the second attempt; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The target, as the appliers speak to it.
#[derive(Debug)]
pub struct Wire<'a> {
    link: &'a Link,
    task: &'a Task,
    trips: AtomicU64,
}

impl<'a> Wire<'a> {
    /// To this target.
    pub fn new(link: &'a Link, task: &'a Task) -> Self {
        Wire { link, task, trips: AtomicU64::new(0) }
    }

    /// How many commands were sent.
    pub fn trips(&self) -> u64 {
        self.trips.load(Ordering::Relaxed)
    }

    /// Sends a command until it is answered; the answer may be a refusal.
    ///
    /// # Errors
    /// `Timeout` if no answer comes; the driver's if the target is away for too long.
    pub async fn attempt(
        &self,
        db: &str,
        command: &[u8],
        what: &str,
    ) -> Result<Result<Document, DriverError>> {
        let doing = || format!("sending {what} to {}", self.link.endpoint);
        let mut away = Away::new(self.task);
        loop {
            let raw = RawDocumentBuf::from_bytes(command.to_vec())
                .map_err(|cause| Error::new(Kind::Internal, doing(), cause))?;
            let sent = async { Ok(self.link.database(db).run_raw_command(raw).await) };
            self.trips.fetch_add(1, Ordering::Relaxed);
            match within(&*self.task.clock, CALL_LIMIT, sent, || Err(self.late(doing()))).await? {
                Err(error) if is_passing(&error) => {
                    if !away.wait().await? {
                        return Err(failed(doing(), error));
                    }
                }
                answer => return Ok(answer),
            }
        }
    }

    /// Sends a command that must be obeyed.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn command(&self, db: &str, command: &[u8], what: &str) -> Result<Document> {
        let answer = self.attempt(db, command, what).await?;
        answer.map_err(|error| failed(format!("sending {what} to {}", self.link.endpoint), error))
    }

    /// Sends a write that must be obeyed in each of its parts; an error tells the index of the first that was not.
    ///
    /// # Errors
    /// The server's refusal of the whole or of a part.
    pub async fn write(&self, ns: &Namespace, command: &[u8], what: &str) -> Result<Document> {
        let reply = self.command(&ns.db, command, what).await?;
        let refusal = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
        let refusal = refusal.or_else(|| reply.get_document("writeConcernError").ok());
        let Some(refusal) = refusal else { return Ok(reply) };
        let code = refusal.get_i32("code").unwrap_or_default();
        let why = format!("{} (code {code})", refusal.get_str("errmsg").unwrap_or("no reason given"));
        Err(Error::new(Kind::Protocol, format!("writing to {ns} by {what}"), why))
    }

    /// Asks the primary for documents.
    ///
    /// # Errors
    /// `Timeout` if no answer comes; inside, what the driver says.
    pub async fn open(
        &self,
        ns: &Namespace,
        command: Vec<u8>,
    ) -> Result<Result<RawBatchCursor, DriverError>> {
        let raw = RawDocumentBuf::from_bytes(command)
            .map_err(|cause| Error::new(Kind::Internal, self.reading(ns), cause))?;
        let database = self.link.database(&ns.db);
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let opened =
            async { Ok(database.run_raw_cursor_command(raw).selection_criteria(primary).batch().await) };
        within(&*self.task.clock, CALL_LIMIT, opened, || Err(self.late(self.reading(ns)))).await
    }

    /// The next documents; none: there are no more.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn next(
        &self,
        ns: &Namespace,
        cursor: &mut RawBatchCursor,
    ) -> Result<Option<Result<Vec<Vec<u8>>, DriverError>>> {
        let next = async { Ok(cursor.next().await) };
        let batch = within(&*self.task.clock, CALL_LIMIT, next, || Err(self.late(self.reading(ns)))).await?;
        self.trips.fetch_add(u64::from(batch.is_some()), Ordering::Relaxed);
        Ok(batch.map(|batch| batch.and_then(|batch| documents(&batch))))
    }

    /// After an error that may pass: waits, and says whether to try again. `Err` with it once the target is away for too long.
    ///
    /// # Errors
    /// The driver's, or that the task has ended.
    pub async fn again(&self, ns: &Namespace, away: &mut Away<'_>, error: DriverError) -> Result<()> {
        if is_passing(&error) && away.wait().await? { Ok(()) } else { Err(failed(self.reading(ns), error)) }
    }

    /// Counts from now on how long the target is away.
    pub fn away(&self) -> Away<'a> {
        Away::new(self.task)
    }

    fn reading(&self, ns: &Namespace) -> String {
        format!("reading {ns} of {}", self.link.endpoint)
    }

    fn late(&self, doing: String) -> Error {
        Error::new(Kind::Timeout, doing, format!("no answer within {CALL_LIMIT:?}"))
    }
}

fn documents(batch: &RawBatch) -> Result<Vec<Vec<u8>>, DriverError> {
    let slices = batch.doc_slices()?;
    let documents = slices.into_iter().map(|value| {
        let value = value?;
        Ok(value.as_document().map(|document| document.as_bytes().to_vec()).unwrap_or_default())
    });
    documents.collect()
}

/// How long the target has been away.
#[derive(Debug)]
pub struct Away<'a> {
    task: &'a Task,
    since: Duration,
    pause: Duration,
}

impl<'a> Away<'a> {
    fn new(task: &'a Task) -> Self {
        Away { task, since: task.clock.monotonic(), pause: PAUSE }
    }

    /// Waits before the next attempt; false: it has been long enough.
    async fn wait(&mut self) -> Result<bool> {
        self.task.checkpoint()?;
        if self.task.clock.monotonic().saturating_sub(self.since) > AWAY_LIMIT {
            return Ok(false);
        }
        self.task.clock.sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(true)
    }
}
