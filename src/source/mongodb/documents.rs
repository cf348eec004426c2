//! Documents into collections: cut out of the artifact, gathered into large `insert` commands, never decoded.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use mongodb::bson::{Document, RawDocumentBuf, doc};
use tokio::sync::Semaphore;

use super::client::{Link, number};
use super::difference::{Difference, Table};
use super::failure::code;
use super::namespace::Namespace;
use super::raw::Documents;
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
        let (loaded, there) = judge(&answer.expect_done(doing)?, batch)?;
        if let Some(there) = there {
            self.compare(cargo, &there).await?;
        }
        self.task.progress.add_bytes(batch.bytes as u64);
        self.task.progress.add_items(loaded.documents);
        Ok(loaded)
    }

    /// Documents that are there already may be ours: of a batch whose answer was lost, or of a restore that was killed, which
    /// the server goes on with. Others are somebody else's.
    async fn compare(&self, cargo: &Cargo, there: &There<'_>) -> Result<()> {
        let table = Table { link: self.link, of: &cargo.into, raw: cargo.raw, task: self.task };
        let difference = table.lacks(&there.documents).await?;
        objection(&cargo.into, &difference, &there.why).map_or(Ok(()), Err)
    }
}

/// What speaks against it that documents were there already.
fn objection(into: &Namespace, difference: &Difference, why: &str) -> Option<Error> {
    let Difference { missing, other, .. } = difference;
    let refused = |why: String, hint: &str| Error::new(Kind::Conflict, "inserting a batch", why).hint(hint);
    if other.count > 0 {
        return Some(refused(
            format!("{into} has other documents than the backup under these _id: {other}"),
            "somebody else writes to the target: stop them, and restore again with drop=true",
        ));
    }
    (missing.count > 0).then(|| {
        refused(
            format!("{into} refuses documents as if it had them, and has not: {missing}. {why}"),
            "another unique index of the target stands against them, or somebody deletes what is brought: \
             see to that, and restore again with drop=true",
        )
    })
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
pub struct Batch {
    /// They.
    pub documents: Vec<Bytes>,
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
pub fn batches(reader: ArtifactReader, task: &Task) -> impl Stream<Item = Result<Batch>> {
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

/// Documents that the server says it has already, and its words for the first.
struct There<'a> {
    documents: Vec<&'a [u8]>,
    why: String,
}

/// What the reply to an `insert` says.
fn judge<'a>(reply: &Document, batch: &'a Batch) -> Result<(Loaded, Option<There<'a>>)> {
    let mut there: Option<There<'_>> = None;
    let mut loaded =
        Loaded { documents: batch.documents.len() as u64, bytes: batch.bytes as u64, refused: None };
    let none = Vec::new();
    let errors = reply.get_array("writeErrors").unwrap_or(&none);
    for error in errors.iter().filter_map(|error| error.as_document()) {
        let why = error.get_str("errmsg").unwrap_or("it does not say why");
        if error.get("code").and_then(number) == Some(i64::from(code::DUPLICATE_KEY)) {
            let index = error.get("index").and_then(number).and_then(|index| usize::try_from(index).ok());
            let document = index.and_then(|index| batch.documents.get(index));
            let document = document.ok_or_else(|| Error::new(Kind::Protocol, "inserting a batch", why))?;
            let there = there.get_or_insert_with(|| There { documents: Vec::new(), why: why.to_owned() });
            there.documents.push(document);
        } else {
            loaded.documents -= 1;
            let (before, first) = loaded.refused.take().unwrap_or((0, why.to_owned()));
            loaded.refused = Some((before + 1, first));
        }
    }
    Ok((loaded, there))
}
