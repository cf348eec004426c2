//! Reads all collections: several readers, each a range of `_id` at a time, of whichever collection is next.
//!
//! Documents pass as they come: they are counted, hashed and copied into their collection's artifact, never decoded.
//! Readers of one collection take turns in writing whole batches; the order of documents means nothing, except in a
//! capped collection, which has one reader.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{BufMut, BytesMut};
use futures_util::future::try_join_all;
use mongodb::error::Error as DriverError;
use tokio::sync::{Semaphore, watch};

use super::client::Link;
use super::consistency;
use super::cursor::{Batch, Cursor};
use super::digest::Tally;
use super::failure::{code, code_of, failed, is_passing};
use super::namespace::Namespace;
use super::ranges::{self, Behind, Concern, Order, Range};
use super::raw;
use super::record::{Extent, MEDIA_TYPE};
use super::survey::{self, Collection, Data};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::task::spool::SPOOL_MIN;
use crate::vault::codec::{self, TRIES, pause};
use crate::vault::writer::{ArtifactWriter, BackupWriter};

/// So many collections or ranges are read at the same time, if spool and memory have room.
const READERS: u64 = 4;

/// A batch is to have about so many bytes: enough to make the round trip cheap, and few enough to pass through caches.
const BATCH: u64 = 2 << 20;

/// Where a collection's average document is unknown.
const BATCH_UNKNOWN: u32 = 1000;

/// More documents than this in a batch gain nothing.
const BATCH_MAX: u64 = 50_000;

/// Of documents so long that a batch may become as long as an answer can be, 16 MiB.
const LARGE: u64 = 256 << 10;

/// MiB of batches in memory, over all readers, and what the batches of one reader count.
const ROOM: usize = 48;
const ROOM_USUAL: u32 = 4;
const ROOM_LARGE: u32 = 24;

/// Documents are handed on in pieces of about this length.
const PIECE: usize = 256 << 10;

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Dumped {
    /// Of each collection that has documents of its own, by where they lie.
    pub tallies: BTreeMap<Namespace, Tally>,
    /// Collections that were dropped, renamed or made anew while they were read.
    pub cut: BTreeSet<Namespace>,
    /// Whether all of it is of the moment that was asked for.
    pub is_exact: bool,
}

/// How it is read.
#[derive(Debug)]
pub struct Plan {
    /// What.
    pub collections: Vec<Collection>,
    /// Ordinary collections.
    pub concern: Concern,
    /// Once their moment is lost, and for the server's own collections all the time.
    pub fallback: Concern,
    /// How long a range is, about.
    pub range: u64,
}

struct Dump<'a> {
    link: &'a Link,
    task: &'a Task,
    out: &'a BackupWriter,
    extent: &'a watch::Sender<Extent>,
    concern: Mutex<Concern>,
    fallback: Concern,
    jobs: Mutex<VecDeque<Job>>,
    room: Semaphore,
    dumped: Mutex<Dumped>,
}

/// A range to read.
struct Job {
    into: Arc<Sink>,
    range: Range,
}

/// Where the documents of one collection go.
struct Sink {
    collection: Collection,
    data: Data,
    /// Opened by whoever is first.
    artifact: tokio::sync::Mutex<Option<ArtifactWriter>>,
    tally: Mutex<Tally>,
    /// Ranges that are not through.
    left: AtomicUsize,
}

/// Where a reader is in its range.
#[derive(Default)]
struct Reached {
    behind: Option<Behind>,
    documents: u64,
    failures: u32,
}

/// Reads everything into artifacts. Where the moment of a snapshot is lost on the way, the rest is read as it is, and `extent`
/// is told that the log is wanted from now on.
pub async fn dump(
    link: &Link,
    plan: Plan,
    extent: &watch::Sender<Extent>,
    task: &Task,
    out: &BackupWriter,
) -> Result<Dumped> {
    let jobs = jobs(link, plan.collections, plan.range).await?;
    let readers = (task.limits.spool_max / SPOOL_MIN).saturating_sub(1).clamp(1, READERS);
    let dump = Dump {
        link,
        task,
        out,
        extent,
        concern: Mutex::new(plan.concern),
        fallback: plan.fallback,
        jobs: Mutex::new(jobs),
        room: Semaphore::new(ROOM),
        dumped: Mutex::default(),
    };
    try_join_all((0..readers).map(|_| dump.work())).await?;
    let is_exact = matches!(*lock(&dump.concern), Concern::Snapshot(_));
    let dumped = dump.dumped.into_inner().expect("no holder panics");
    Ok(Dumped { is_exact, ..dumped })
}

/// The largest collections first, so that none of them is left to a single reader at the end.
async fn jobs(link: &Link, collections: Vec<Collection>, range: u64) -> Result<VecDeque<Job>> {
    let mut sinks: Vec<(Collection, Data)> = collections
        .into_iter()
        .filter_map(|collection| collection.data.clone().map(|data| (collection, data)))
        .collect();
    sinks.sort_by_key(|(_, data)| std::cmp::Reverse(data.bytes));
    let mut jobs = VecDeque::new();
    for (collection, data) in sinks {
        let ranges = ranges::split(link, &data, range).await?;
        let into = Arc::new(Sink {
            collection,
            data,
            artifact: tokio::sync::Mutex::default(),
            tally: Mutex::default(),
            left: AtomicUsize::new(ranges.len()),
        });
        jobs.extend(ranges.into_iter().map(|range| Job { into: into.clone(), range }));
    }
    Ok(jobs)
}

impl Dump<'_> {
    async fn work(&self) -> Result<()> {
        loop {
            let Some(job) = lock(&self.jobs).pop_front() else { return Ok(()) };
            self.read(&job).await?;
            if job.into.left.fetch_sub(1, Ordering::AcqRel) == 1 {
                self.finish(&job.into).await?;
            }
        }
    }

    /// Reads a range to its end, however often its cursor is lost.
    async fn read(&self, job: &Job) -> Result<()> {
        let large = job.into.data.average().is_some_and(|average| average >= LARGE);
        let room = self.room.acquire_many(if large { ROOM_LARGE } else { ROOM_USUAL }).await;
        let _room = room.expect("the semaphore is never closed");
        let mut place = Reached::default();
        loop {
            let concern = self.concern_for(&job.into.collection);
            match self.drain(job, &mut place, concern).await? {
                Ok(()) => return Ok(()),
                Err(error) => self.survive(job, &mut place, concern, error).await?,
            }
        }
    }

    fn concern_for(&self, collection: &Collection) -> Concern {
        if collection.is_internal() { self.fallback } else { *lock(&self.concern) }
    }

    /// One cursor, as far as it gets. The inner error is the server's.
    async fn drain(
        &self,
        job: &Job,
        place: &mut Reached,
        concern: Concern,
    ) -> Result<Result<(), DriverError>> {
        let data = &job.into.data;
        let size = batch_size(data);
        let find = ranges::find(data, &job.range, place.behind.as_ref(), concern, size);
        let opened = Cursor::open(self.link, &data.namespace.db, find, size, self.link.reads()).await;
        let mut cursor = match opened {
            Ok(cursor) => cursor,
            Err(error) => return Ok(Err(error)),
        };
        loop {
            match cursor.next().await {
                Ok(Some(batch)) => self.deliver(&job.into, place, batch).await?,
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    async fn deliver(&self, into: &Sink, place: &mut Reached, batch: Batch) -> Result<()> {
        let weighed = codec::start(batch.bytes(), move || {
            let (mut tally, mut last) = (Tally::default(), None);
            for document in batch.documents()? {
                let document = document?;
                tally.add(document);
                last = Some(document);
            }
            let behind = match last.map(|last| raw::field(last, "_id")).transpose()?.flatten() {
                Some(id) => Some(Behind::new(id)?),
                None => None,
            };
            Ok((batch, tally, behind))
        });
        let (batch, tally, behind) = weighed.await?;
        self.write(into, &batch).await?;
        if tally.items > 0 {
            place.behind = behind.filter(|_| into.data.order == Order::Id);
            place.documents += tally.items;
            place.failures = 0;
        }
        self.task.progress.add_bytes(tally.bytes);
        self.task.progress.add_items(tally.items);
        lock(&into.tally).merge(&tally);
        Ok(())
    }

    /// Only whole batches: readers take turns.
    async fn write(&self, into: &Sink, batch: &Batch) -> Result<()> {
        let mut artifact = into.artifact.lock().await;
        let artifact = self.opened(into, &mut artifact)?;
        let mut piece = BytesMut::new();
        for document in batch.documents()? {
            let mut document = document?;
            while !document.is_empty() {
                let (now, rest) = document.split_at(document.len().min(PIECE));
                piece.put_slice(now);
                document = rest;
                if piece.len() >= PIECE {
                    artifact.write(piece.split().freeze()).await?;
                }
            }
        }
        artifact.write(piece.freeze()).await
    }

    fn opened<'a>(
        &self,
        into: &Sink,
        artifact: &'a mut Option<ArtifactWriter>,
    ) -> Result<&'a mut ArtifactWriter> {
        if artifact.is_none() {
            let name = format!("{}.bson", into.data.namespace.file_stem());
            *artifact = Some(self.out.artifact(&name, MEDIA_TYPE)?);
        }
        Ok(artifact.as_mut().expect("it was opened above"))
    }

    /// Decides what a refusal means: to go on, after a while, or the end.
    async fn survive(
        &self,
        job: &Job,
        place: &mut Reached,
        concern: Concern,
        error: DriverError,
    ) -> Result<()> {
        let namespace = &job.into.data.namespace;
        let lost = matches!(concern, Concern::Snapshot(_)) && consistency::is_lost(&error);
        let again = lost || is_passing(&error) || code_of(&error) == Some(code::QUERY_PLAN_KILLED);
        let doing = format!("reading {namespace}");
        if again && job.into.data.order == Order::Natural && place.documents > 0 {
            let why = failed(&*doing, error).why().to_owned();
            let hint =
                "a collection that is not read by its _id cannot be read on from where it was; try again";
            return Err(Error::new(Kind::Unready, doing, why).hint(hint).retryable(true));
        }
        if lost {
            self.lose_moment(namespace, &error.to_string());
            return Ok(());
        }
        place.failures += 1;
        if !again || place.failures >= TRIES {
            return Err(failed(doing, error));
        }
        tracing::warn!(run = %self.task.run, %error, failures = place.failures, "{doing} again from where it was");
        self.task.clock.sleep(pause(place.failures - 1)).await;
        Ok(())
    }

    /// The server's history is shorter than this dump. Whoever is first says so.
    fn lose_moment(&self, namespace: &Namespace, why: &str) {
        let mut concern = lock(&self.concern);
        if matches!(*concern, Concern::Snapshot(_)) {
            tracing::warn!(run = %self.task.run, %namespace, why,
                "the rest is read as it is, and brought to one moment by the oplog");
            *concern = self.fallback;
            self.extent.send_replace(Extent::Open);
        }
    }

    async fn finish(&self, into: &Sink) -> Result<()> {
        let mut artifact = into.artifact.lock().await;
        self.opened(into, &mut artifact)?;
        if let Some(artifact) = artifact.take() {
            artifact.finish().await?;
        }
        let namespace = &into.collection.namespace;
        let intact = into.collection.is_internal() || survey::is_there(self.link, &into.collection).await?;
        if !intact {
            // Of a collection that is no more, a server may show nothing at the moment, and not say so.
            self.lose_moment(namespace, "it was dropped, renamed or made anew");
        }
        let mut dumped = lock(&self.dumped);
        if !intact {
            dumped.cut.insert(namespace.clone());
        }
        let tally = std::mem::take(&mut *lock(&into.tally));
        dumped.tallies.insert(into.data.namespace.clone(), tally);
        Ok(())
    }
}

/// How many documents are about [`BATCH`] bytes.
fn batch_size(data: &Data) -> u32 {
    let known = data.average().map(|average| (BATCH / average).clamp(1, BATCH_MAX));
    known.and_then(|size| u32::try_from(size).ok()).unwrap_or(BATCH_UNKNOWN)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no holder panics")
}
