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
use super::super::steady::{self, Answer, Away, Patience};
use super::compose::{Composer, kind};
use crate::clock::within;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// How long one command may take: a few thousand writes on a slow server, until most members have them.
const CALL_LIMIT: Patience = Patience::Once(READ_LIMIT);

/// How long one batch of what is read may take.
const READ_LIMIT: Duration = Duration::from_secs(180);

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

    /// Has something done until that is answered, by most members; the answer may be a refusal.
    ///
    /// # Errors
    /// `Timeout` if no answer comes, `Unready` if most members do not have it; the driver's if the target is away for too long.
    pub async fn attempt(&self, db: &str, command: &[u8], what: &str) -> Result<Answer> {
        let doing = format!("sending {what} to {}", self.link.endpoint);
        steady::send(self.link, db, &doing, CALL_LIMIT, self.task, || {
            self.trips.fetch_add(1, Ordering::Relaxed);
            RawDocumentBuf::from_bytes(majority(command))
                .map_err(|cause| Error::new(Kind::Internal, &*doing, cause))
        })
        .await
    }

    /// Has something done that must be.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn command(&self, db: &str, command: &[u8], what: &str) -> Result<Document> {
        let answer = self.attempt(db, command, what).await?;
        answer.expect_done(&format!("sending {what} to {}", self.link.endpoint))
    }

    /// Asks something.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn ask(&self, db: &str, command: &Document, what: &str) -> Result<Document> {
        let doing = format!("asking {} for {what}", self.link.endpoint);
        self.trips.fetch_add(1, Ordering::Relaxed);
        steady::command(self.link, db, &doing, self.task, command).await?.expect_done(&doing)
    }

    /// Sends a write that must be obeyed in each of its parts; an error tells the index of the first that was not.
    ///
    /// # Errors
    /// The server's refusal of the whole or of a part.
    pub async fn write(&self, ns: &Namespace, command: &[u8], what: &str) -> Result<Document> {
        let reply = self.command(&ns.db, command, what).await?;
        let refusal = reply.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
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
        let opened = database.run_raw_cursor_command(raw).selection_criteria(primary).batch();
        let opened = async { Ok(opened.await.map_err(|error| self.link.explain(error))) };
        within(&*self.task.clock, READ_LIMIT, opened, || Err(self.late(self.reading(ns)))).await
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
        let next =
            async { Ok(cursor.next().await.map(|batch| batch.map_err(|error| self.link.explain(error)))) };
        let batch = within(&*self.task.clock, READ_LIMIT, next, || Err(self.late(self.reading(ns)))).await?;
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
        Error::new(Kind::Timeout, doing, format!("no answer within {READ_LIMIT:?}"))
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

/// A command that is done when most members have it, so that no election loses some of what later ones build upon.
fn majority(command: &[u8]) -> Vec<u8> {
    let mut concern = Composer::new();
    concern.open(kind::DOCUMENT, b"writeConcern");
    concern.text(b"w", "majority");
    let concern = concern.finish();
    // What stands between a document's length and its end is its elements.
    let elements = |document: &[u8]| document[4..document.len() - 1].to_vec();
    let mut out = [&[0; 4], &*elements(command), &*elements(&concern), &[0]].concat();
    let length = u32::try_from(out.len()).unwrap_or(u32::MAX);
    out[..4].copy_from_slice(&length.to_le_bytes());
    out
}
