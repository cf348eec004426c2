//! A cursor over batches of raw documents that does not wait for ever.

use std::time::Duration;

use futures_util::StreamExt;
use mongodb::bson::{RawDocument, RawDocumentBuf};
use mongodb::error::{Error as DriverError, Result as DriverResult};
use mongodb::options::{ReadPreference, SelectionCriteria};
use mongodb::raw_batch_cursor::{RawBatch, RawBatchCursor};

use super::client::Link;
use super::failure::failing;
use super::raw;
use crate::clock::within;
use crate::error::{Error, Kind, Result};

/// A server that says nothing for so long is gone, or its link is; the first batch of a sorted query may take a while.
const SILENCE: Duration = Duration::from_secs(120);

/// The server's own default for a first batch; what lists collections and indexes needs no other.
const SMALL_BATCH: u32 = 101;

/// A cursor. It is killed when it is dropped.
pub struct Cursor {
    batches: RawBatchCursor,
    link: Link,
}

/// A server's answer: some documents.
#[derive(Debug)]
pub struct Batch(RawBatch);

impl Cursor {
    /// Sends a command that answers with a cursor. `size` is of the batches after the first.
    ///
    /// # Errors
    /// The driver's. A silence is an input or output error, so that it counts as [passing](super::failure::is_passing).
    pub async fn open(
        link: &Link,
        db: &str,
        command: RawDocumentBuf,
        size: u32,
        reads: SelectionCriteria,
    ) -> DriverResult<Cursor> {
        let database = link.database(db);
        let sent =
            database.run_raw_cursor_command(command).batch_size(size).selection_criteria(reads).batch();
        let batches = within(&**link.clock(), SILENCE, sent, silent).await;
        let batches = batches.map_err(|error| link.explain(error))?;
        Ok(Cursor { batches, link: link.clone() })
    }

    /// The next batch; none after the last.
    pub async fn next(&mut self) -> DriverResult<Option<Batch>> {
        let next = async { self.batches.next().await.transpose() };
        let next = within(&**self.link.clock(), SILENCE, next, silent).await;
        Ok(next.map_err(|error| self.link.explain(error))?.map(Batch))
    }
}

impl std::fmt::Debug for Cursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Cursor at {}", self.link.endpoint)
    }
}

fn silent<T>() -> DriverResult<T> {
    let why = format!("no answer within {SILENCE:?}");
    Err(DriverError::from(std::io::Error::new(std::io::ErrorKind::TimedOut, why)))
}

impl Batch {
    /// Its documents, as bytes.
    pub fn documents(&self) -> Result<impl Iterator<Item = Result<&[u8]>>> {
        let array = self.0.doc_slices().map_err(failing("reading a batch"))?;
        Ok(raw::elements(array.as_bytes()).map(|element| match element? {
            (_, value) if value.kind == 0x03 => Ok(value.bytes),
            _ => Err(Error::new(Kind::Protocol, "reading a batch", "it holds something besides documents")),
        }))
    }

    /// How many bytes the answer has.
    pub fn bytes(&self) -> usize {
        self.0.as_raw_document().as_bytes().len()
    }

    /// A field of the answer's `cursor` part.
    pub fn cursor(&self) -> Option<&RawDocument> {
        self.0.as_raw_document().get_document("cursor").ok()
    }
}

/// The server that lags behind nobody.
pub fn primary() -> SelectionCriteria {
    ReadPreference::Primary.into()
}

/// All documents that a command's cursor has at the primary; only for commands whose answers are few. The outer error is
/// ours, the inner one means something to the caller.
pub async fn all(
    link: &Link,
    db: &str,
    command: RawDocumentBuf,
) -> Result<DriverResult<Vec<RawDocumentBuf>>> {
    let mut found = Vec::new();
    let read = each(link, db, command, SMALL_BATCH, primary(), |document| {
        found.push(owned(document)?);
        Ok(())
    });
    Ok(read.await?.map(|()| found))
}

/// Hands out one after the other of the documents that a command's cursor has. The outer error is ours, the inner one means
/// something to the caller.
pub async fn each(
    link: &Link,
    db: &str,
    command: RawDocumentBuf,
    size: u32,
    reads: SelectionCriteria,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<DriverResult<()>> {
    let mut cursor = match Cursor::open(link, db, command, size, reads).await {
        Ok(cursor) => cursor,
        Err(error) => return Ok(Err(error)),
    };
    loop {
        match cursor.next().await {
            Ok(None) => return Ok(Ok(())),
            Err(error) => return Ok(Err(error)),
            Ok(Some(batch)) => {
                for document in batch.documents()? {
                    take(document?)?;
                }
            }
        }
    }
}

/// A document of its own.
pub fn owned(document: &[u8]) -> Result<RawDocumentBuf> {
    raw::document(document).map(ToOwned::to_owned)
}
