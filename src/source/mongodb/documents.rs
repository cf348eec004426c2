//! Documents into collections: cut out of the artifact, gathered into large `insert` commands, never decoded.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::options::{ReadPreference, SelectionCriteria};
use tokio::sync::Semaphore;

use super::client::Link;
use super::cursor::Cursor;
use super::failure::{code, failing};
use super::namespace::Namespace;
use super::preflight::number;
use super::raw::{self, Documents};
use super::replay::compose::{Composer, TRUE, kind};
use super::steady::{self, Patience};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::Artifact;
use crate::vault::reader::{ArtifactReader, BackupReader};

/// A batch is sent when it is so large: round trips no longer matter then, and several fit into memory.
const BATCH_BYTES: usize = 3 << 20;

/// No server takes more than 100,000 in one command.
const BATCH_DOCUMENTS: usize = 20_000;

/// How many KiB may be on their way at the same time: one document of the largest size, or some batches.
const ON_THEIR_WAY: u32 = 17 << 10;

/// An artifact of more bytes is brought alone, so that not several documents of the largest size are held at once.
const SMALL: u64 = 4 << 20;

/// How many small artifacts are brought at the same time.
const SMALL_AT_ONCE: usize = 4;

/// How long one batch may take, until most members of the set have it.
const BATCH_LIMIT: Patience = Patience::Again(Duration::from_secs(180));

/// One artifact and where its documents go.
#[derive(Clone, Debug)]
pub struct Cargo {
    /// The documents.
    pub artifact: Artifact,
    /// The collection that takes them.
    pub into: Namespace,
    /// Whether their order is kept.
    pub in_order: bool,
    /// Whether the collection must be told that they are its own raw form: buckets, from 8.3 on.
    pub raw: bool,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Documents that are there now.
    pub documents: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Documents that the server would not take, and its words for the first.
    pub refused: Option<(u64, String)>,
}

/// Brings documents.
#[derive(Debug)]
pub struct Loader<'a> {
    link: &'a Link,
    from: &'a BackupReader,
    task: &'a Task,
    workers: usize,
    /// Whether the target can be told to leave empty timestamps as they are.
    keeps_timestamps: bool,
    lanes: Arc<Semaphore>,
    weight: Arc<Semaphore>,
}

impl<'a> Loader<'a> {
    /// Into a server of this version, with so many batches on their way at the same time.
    pub fn new(
        link: &'a Link,
        version: &str,
        from: &'a BackupReader,
        task: &'a Task,
        workers: usize,
    ) -> Self {
        let (lanes, weight) = (Semaphore::new(workers), Semaphore::new(ON_THEIR_WAY as usize));
        let keeps_timestamps = keeps_timestamps(version);
        Loader { link, from, task, workers, keeps_timestamps, lanes: lanes.into(), weight: weight.into() }
    }

    /// Brings all of it: large artifacts one after the other, several small ones beside.
    pub async fn load(&self, cargo: &[Cargo]) -> Result<Vec<(Namespace, Loaded)>> {
        let (small, large): (Vec<_>, Vec<_>) =
            cargo.iter().partition(|one| one.artifact.plain.bytes <= SMALL);
        let (mut loaded, beside) =
            tokio::try_join!(self.several(&large, 1), self.several(&small, SMALL_AT_ONCE))?;
        loaded.extend(beside);
        Ok(loaded)
    }

    async fn several(&self, some: &[&Cargo], at_once: usize) -> Result<Vec<(Namespace, Loaded)>> {
        let loads: Vec<_> = some.iter().map(|one| self.named(one)).collect();
        stream::iter(loads).buffer_unordered(at_once).try_collect().await
    }

    async fn named(&self, cargo: &Cargo) -> Result<(Namespace, Loaded)> {
        Ok((cargo.into.clone(), self.one(cargo).await?))
    }

    async fn one(&self, cargo: &Cargo) -> Result<Loaded> {
        let doing = format!("restoring the documents of {}", cargo.into);
        let reader = self.from.open(&cargo.artifact, self.task).await?;
        let workers = if cargo.in_order { 1 } else { self.workers };
        let head = head(cargo, self.keeps_timestamps);
        batches(reader, self.task)
            .map(|batch| async {
                let batch = batch?;
                self.insert(cargo, &head, &batch).await
            })
            .buffer_unordered(workers)
            .try_fold(Loaded::default(), |mut loaded, one| async move {
                loaded.documents += one.documents;
                loaded.bytes += one.bytes;
                if let Some((count, why)) = one.refused {
                    let (before, first) = loaded.refused.take().unwrap_or((0, why));
                    loaded.refused = Some((before + count, first));
                }
                Ok(loaded)
            })
            .await
            .map_err(|error: Error| error.while_doing(doing))
    }

    async fn insert(&self, cargo: &Cargo, head: &Document, batch: &Batch) -> Result<Loaded> {
        let closed = |cause| Error::new(Kind::Internal, "waiting for a lane", cause);
        let _lane = self.lanes.acquire().await.map_err(closed)?;
        let weight = u32::try_from(batch.bytes >> 10).unwrap_or(u32::MAX).clamp(1, ON_THEIR_WAY);
        let _weight = self.weight.acquire_many(weight).await.map_err(closed)?;
        let doing = "inserting a batch";
        let command = || assemble(head, &batch.documents);
        let answer = steady::send(self.link, &cargo.into.db, doing, BATCH_LIMIT, self.task, command).await?;
        let again = answer.again;
        let reply = answer.expect_done(doing)?;
        let (loaded, there) = judge(&reply, batch, again)?;
        if !there.is_empty() {
            self.compare(cargo, &there).await?;
        }
        self.task.progress.add_bytes(batch.bytes as u64);
        self.task.progress.add_items(loaded.documents);
        Ok(loaded)
    }

    /// Documents that are there already may be of a restore that was killed: what it had sent by then, the server still does.
    /// Others are somebody else's.
    async fn compare(&self, cargo: &Cargo, expected: &[&Bytes]) -> Result<()> {
        let doing = "looking whose documents are there already";
        let (command, db) = (find(cargo, expected)?, &cargo.into.db);
        let primary = SelectionCriteria::ReadPreference(ReadPreference::Primary);
        let mut missing: HashSet<&[u8]> = expected.iter().map(|document| &***document).collect();
        let reading = async {
            let opened = Cursor::open(self.link, db, command, 1000, primary).await;
            let mut cursor = opened.map_err(failing(doing))?;
            while let Some(batch) = cursor.next().await.map_err(failing(doing))? {
                for document in batch.documents()? {
                    missing.remove(document?);
                }
            }
            Ok(())
        };
        self.task.guard(reading).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let why = format!("{} has other documents under {} of these _id", cargo.into, missing.len());
        Err(Error::new(Kind::Conflict, "inserting a batch", why)
            .hint("somebody else writes to the target: stop them, and restore again with drop=true"))
    }
}

/// The command that reads these documents back.
fn find(cargo: &Cargo, documents: &[&Bytes]) -> Result<RawDocumentBuf> {
    let mut command = Composer::new();
    command.text(b"find", &cargo.into.collection);
    if cargo.raw {
        command.element(b"rawData", TRUE);
    }
    for (kind, name) in [(kind::DOCUMENT, "filter"), (kind::DOCUMENT, "_id"), (kind::ARRAY, "$in")] {
        command.open(kind, name.as_bytes());
    }
    for (n, document) in documents.iter().enumerate() {
        if let Some(id) = raw::field(document, "_id")? {
            command.element(n.to_string().as_bytes(), id);
        }
    }
    (0..3).for_each(|_| command.close());
    RawDocumentBuf::from_bytes(command.finish().to_vec())
        .map_err(|cause| Error::new(Kind::Internal, "asking for documents", cause))
}

/// The command without its documents. Documents are as they were: neither a validator nor a server that fills in empty
/// timestamps has a say. Most members must have them, so that no election loses some.
fn head(cargo: &Cargo, keeps_timestamps: bool) -> Document {
    let mut head = doc! {
        "insert": &cargo.into.collection,
        "ordered": false,
        "bypassDocumentValidation": true,
        "writeConcern": { "w": "majority" },
    };
    if keeps_timestamps {
        head.insert("bypassEmptyTsReplacement", true);
    }
    if cargo.raw {
        head.insert("rawData", true);
    }
    head
}

/// Whether a server of this version knows `bypassEmptyTsReplacement`; others refuse a command that has it.
pub fn keeps_timestamps(version: &str) -> bool {
    let mut parts = version.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or(0));
    let mut part = || parts.next().unwrap_or(0);
    match (part(), part(), part()) {
        (5, 0, patch) => patch >= 29,
        (6, 0, patch) => patch >= 17,
        (7, 0, patch) => patch >= 13,
        (major, ..) => major >= 8,
    }
}

/// The command with its documents.
pub fn assemble(head: &Document, documents: &[Bytes]) -> Result<RawDocumentBuf> {
    const ARRAY: u8 = 0x04;
    const DOCUMENT: u8 = 0x03;
    let internal = |cause| Error::new(Kind::Internal, "putting a batch together", cause);
    let head = RawDocumentBuf::try_from(head).map_err(internal)?.into_bytes();
    let room: usize = documents.iter().map(|document| document.len() + 8).sum();
    let mut bytes = Vec::with_capacity(head.len() + room + 16);
    bytes.extend_from_slice(&head[..head.len() - 1]);
    bytes.push(ARRAY);
    bytes.extend_from_slice(b"documents\0");
    let array = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    for (n, document) in documents.iter().enumerate() {
        bytes.push(DOCUMENT);
        bytes.extend_from_slice(n.to_string().as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(document);
    }
    bytes.push(0);
    set_length(&mut bytes, array);
    bytes.push(0);
    set_length(&mut bytes, 0);
    RawDocumentBuf::from_bytes(bytes).map_err(internal)
}

/// Writes the length of the document that begins at `at` and ends with the bytes.
fn set_length(bytes: &mut [u8], at: usize) {
    let length = i32::try_from(bytes.len() - at).expect("a batch is far smaller than 2 GiB");
    bytes[at..at + 4].copy_from_slice(&length.to_le_bytes());
}

/// Documents that are sent together.
#[derive(Debug, Default)]
struct Batch {
    documents: Vec<Bytes>,
    bytes: usize,
}

impl Batch {
    fn is_full(&self) -> bool {
        self.bytes >= BATCH_BYTES || self.documents.len() >= BATCH_DOCUMENTS
    }

    fn push(&mut self, document: Bytes) {
        self.bytes += document.len();
        self.documents.push(document);
    }
}

/// What is read of an artifact, and not yet sent.
struct Rest<'a> {
    reader: ArtifactReader,
    cut: Documents,
    /// A document that did not fit into the batch before it.
    left: Option<Bytes>,
    task: &'a Task,
}

/// An artifact as batches; the last comes only when all of it was checked.
fn batches(reader: ArtifactReader, task: &Task) -> impl Stream<Item = Result<Batch>> {
    let rest = Rest { reader, cut: Documents::default(), left: None, task };
    stream::try_unfold(rest, |mut rest| async move {
        let batch = rest.next().await?;
        Ok((!batch.documents.is_empty()).then_some((batch, rest)))
    })
}

impl Rest<'_> {
    async fn next(&mut self) -> Result<Batch> {
        let mut batch = Batch::default();
        batch.documents.extend(self.left.take());
        batch.bytes = batch.documents.iter().map(Bytes::len).sum();
        loop {
            while let Some(document) = self.cut.next()? {
                if batch.bytes > 0 && batch.bytes + document.len() > 2 * BATCH_BYTES {
                    self.left = Some(document);
                    return Ok(batch);
                }
                batch.push(document);
                if batch.is_full() {
                    return Ok(batch);
                }
            }
            match self.task.guard(self.reader.next()).await? {
                Some(chunk) => self.cut.push(&chunk),
                None => {
                    self.cut.finish()?;
                    return Ok(batch);
                }
            }
        }
    }
}

/// What the reply to an `insert` says, and which documents were there already. When the batch was sent before, that is our own
/// doing.
fn judge<'a>(reply: &Document, batch: &'a Batch, again: bool) -> Result<(Loaded, Vec<&'a Bytes>)> {
    let mut there = Vec::new();
    let mut loaded =
        Loaded { documents: batch.documents.len() as u64, bytes: batch.bytes as u64, refused: None };
    let none = Vec::new();
    let errors = reply.get_array("writeErrors").unwrap_or(&none);
    for error in errors.iter().filter_map(|error| error.as_document()) {
        let why = error.get_str("errmsg").unwrap_or("it does not say why");
        match error.get_i32("code") {
            Ok(code::DUPLICATE_KEY) if again => {}
            Ok(code::DUPLICATE_KEY) => {
                let index = error.get("index").and_then(number).and_then(|index| usize::try_from(index).ok());
                let document = index.and_then(|index| batch.documents.get(index));
                there.push(document.ok_or_else(|| Error::new(Kind::Protocol, "inserting a batch", why))?);
            }
            _ => {
                loaded.documents -= 1;
                let (before, first) = loaded.refused.take().unwrap_or((0, why.to_owned()));
                loaded.refused = Some((before + 1, first));
            }
        }
    }
    Ok((loaded, there))
}
