//! Writes by the commands that every server has: per document one replacement or one deletion, many of them in each command.
//!
//! What a window does to a document is folded first. Where it changes a document that it does not bring along, the target's
//! is read, many at once, and replaced. All that is sent says what documents are to be, not how they change: sent twice, it
//! does the same.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use futures_util::future::try_join_all;
use mongodb::error::Error as DriverError;

use super::super::failure::code;
use super::super::namespace::Namespace;
use super::super::optime::OpTime;
use super::super::raw::{self, RawValue};
use super::compose::{Composer, TRUE, kind};
use super::fold::{Fold, Folded, Outcome};
use super::key::canonical;
use super::route::{Change, Id, Write};
use super::shapes::Shape;
use super::wire::Wire;
use crate::error::{Error, Kind, Result};

/// How many commands are under way at the same time.
pub const LANES: usize = 4;

/// A command is sent when it has so many writes, ...
const WRITES_MAX: usize = 5_000;

/// ... or so many bytes: far below a server's 48 MB, and one document of 16 MiB more still fits.
const BYTES_MAX: usize = 4 << 20;

/// So many documents are asked for at once, while nobody knows how large they are.
const FIRST_BATCH: usize = 128;

/// Applies windows by bulk writes.
#[derive(Debug)]
pub struct Bulk<'a> {
    wire: &'a Wire<'a>,
    tolerate_until: OpTime,
    /// The average size of the documents that were read, so that a batch of them takes about [`BYTES_MAX`].
    average: AtomicUsize,
}

impl<'a> Bulk<'a> {
    /// Onto this target. Up to `tolerate_until` the data may be newer than the log.
    pub fn new(wire: &'a Wire<'a>, tolerate_until: OpTime) -> Self {
        Bulk { wire, tolerate_until, average: AtomicUsize::new(BYTES_MAX / FIRST_BATCH) }
    }

    /// Applies the writes of a window, each with its collection's shape.
    ///
    /// # Errors
    /// The server's refusal; `Damaged` where log and data do not fit together.
    pub async fn apply(&self, writes: Vec<Write>, shapes: &HashMap<Arc<Namespace>, Shape>) -> Result<()> {
        let mut fold = Fold::default();
        let mut ordered: HashMap<Arc<Namespace>, Vec<Write>> = HashMap::new();
        for write in writes {
            match shapes.get(&write.ns) {
                Some(Shape::Capped | Shape::Collated) => {
                    ordered.entry(write.ns.clone()).or_default().push(write)
                }
                _ => fold.push(write, self.tolerate_until)?,
            }
        }
        let mut lanes: [Vec<Folded>; LANES] = Default::default();
        for folded in fold.finish() {
            let mut hasher = DefaultHasher::new();
            (&folded.ns, canonical(folded.id.value())).hash(&mut hasher);
            lanes[hasher.finish() as usize % LANES].push(folded);
        }
        try_join_all(lanes.into_iter().map(|lane| self.lane(lane))).await?;
        for (ns, writes) in ordered {
            let capped = shapes.get(&ns) == Some(&Shape::Capped);
            self.in_order(&ns, writes, capped).await?;
        }
        Ok(())
    }

    /// One lane's documents, collection by collection.
    async fn lane(&self, lane: Vec<Folded>) -> Result<()> {
        let mut collections: HashMap<Arc<Namespace>, Vec<Folded>> = HashMap::new();
        for folded in lane {
            collections.entry(folded.ns.clone()).or_default().push(folded);
        }
        for (ns, folded) in collections {
            self.collection(&ns, folded).await?;
        }
        Ok(())
    }

    async fn collection(&self, ns: &Namespace, folded: Vec<Folded>) -> Result<()> {
        let mut send = Sending::new(self.wire, ns);
        let mut patched = HashMap::new();
        for one in folded {
            match one.outcome {
                Outcome::Patched(_) => {
                    patched.insert(canonical(one.id.value()), one);
                }
                _ => send.add(one).await?,
            }
        }
        for some in in_chunks(patched) {
            self.resolve(ns, some, &mut send).await?;
        }
        send.flush().await
    }

    /// Reads what is to be changed, and changes it. What has been read once is not read again, so nothing is changed twice.
    async fn resolve(&self, ns: &Namespace, mut left: Chunk, send: &mut Sending<'_>) -> Result<()> {
        let mut away = self.wire.away();
        while let Some(error) = self.pass(ns, &mut left, send).await? {
            self.wire.again(ns, &mut away, error).await?;
        }
        left.values().try_for_each(|missing| missing.check_missing(self.tolerate_until))
    }

    /// Asks once for what is left, and takes out what came; tells what ended it before the end.
    async fn pass(
        &self,
        ns: &Namespace,
        left: &mut Chunk,
        send: &mut Sending<'_>,
    ) -> Result<Option<DriverError>> {
        if left.is_empty() {
            return Ok(None);
        }
        let size = (BYTES_MAX / self.average.load(Ordering::Relaxed).max(1)).clamp(1, WRITES_MAX);
        let mut cursor = match self.wire.open(ns, find(ns, left, size)).await? {
            Ok(cursor) => cursor,
            Err(error) => return Ok(Some(error)),
        };
        while let Some(batch) = self.wire.next(ns, &mut cursor).await? {
            let documents = match batch {
                Ok(documents) => documents,
                Err(error) => return Ok(Some(error)),
            };
            let bytes: usize = documents.iter().map(Vec::len).sum();
            if let Some(average) = bytes.checked_div(documents.len()) {
                self.average.store(average.max(64), Ordering::Relaxed);
            }
            for document in documents {
                let id = raw::field(&document, "_id")?.map(canonical);
                if let Some(one) = id.and_then(|id| left.remove(&id)) {
                    send.add(one.resolve(&document, self.tolerate_until)?).await?;
                }
            }
        }
        Ok(None)
    }

    /// Without folding. Only inserts that follow each other go together.
    async fn in_order(&self, ns: &Namespace, writes: Vec<Write>, capped: bool) -> Result<()> {
        let mut inserts: Vec<Bytes> = Vec::new();
        let mut size = 0;
        for write in writes {
            match write.change {
                Change::Insert(document) if capped => {
                    size += document.len();
                    inserts.push(document);
                    if size >= BYTES_MAX || inserts.len() >= WRITES_MAX {
                        size = 0;
                        self.insert_in_order(ns, std::mem::take(&mut inserts)).await?;
                    }
                }
                change => {
                    self.insert_in_order(ns, std::mem::take(&mut inserts)).await?;
                    let mut fold = Fold::default();
                    fold.push(Write { change, ..write }, self.tolerate_until)?;
                    self.collection(ns, fold.finish()).await?;
                }
            }
        }
        self.insert_in_order(ns, inserts).await
    }

    /// A document that is there already is one of an answer that was lost, or one that the log is behind of.
    async fn insert_in_order(&self, ns: &Namespace, documents: Vec<Bytes>) -> Result<()> {
        let mut rest = &*documents;
        while !rest.is_empty() {
            let command = insert(ns, rest, true);
            let reply = self.wire.command(&ns.db, &command, "insert").await?;
            let refusal =
                reply.get_array("writeErrors").ok().and_then(|errors| errors.first()?.as_document());
            let Some(refusal) = refusal else { return Ok(()) };
            let at = refusal.get_i32("index").ok().and_then(|at| usize::try_from(at).ok()).unwrap_or(0);
            let Some(document) = rest.get(at).filter(|_| is_duplicate(refusal)) else {
                let why = refusal.get_str("errmsg").unwrap_or("no reason given");
                return Err(Error::new(Kind::Protocol, format!("inserting into {ns}"), why));
            };
            let mut send = Sending::new(self.wire, ns);
            let id = raw::field(document, "_id")?
                .map(|id| Id { kind: id.kind, bytes: document.slice_ref(id.bytes) });
            if let Some(id) = id {
                let outcome = Outcome::Document(document.clone());
                let ns = Arc::new(ns.clone());
                send.add(Folded { ns, id, outcome, renewed: false }).await?;
                send.flush().await?;
            }
            rest = &rest[at + 1..];
        }
        Ok(())
    }
}

fn is_duplicate(refusal: &mongodb::bson::Document) -> bool {
    refusal.get_i32("code").is_ok_and(|found| found == code::DUPLICATE_KEY)
}

type Chunk = HashMap<Vec<u8>, Folded>;

/// So many as are asked for at once. An `_id` that a list of values would take for an operator stands alone.
fn in_chunks(patched: Chunk) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    let (mut chunk, mut size) = (Chunk::new(), 0);
    for (key, one) in patched {
        if is_operator(one.id.value()) {
            chunks.push(Chunk::from([(key, one)]));
            continue;
        }
        size += key.len() + 16;
        chunk.insert(key, one);
        if chunk.len() >= WRITES_MAX || size >= BYTES_MAX {
            chunks.push(std::mem::take(&mut chunk));
            size = 0;
        }
    }
    chunks.push(chunk);
    chunks.retain(|chunk| !chunk.is_empty());
    chunks
}

/// A document whose first name begins with `$`, or a pattern: as a value in a query they mean something else.
fn is_operator(id: RawValue<'_>) -> bool {
    let first = |bytes| raw::elements(bytes).next().and_then(Result::ok);
    match id.kind {
        kind::DOCUMENT => first(id.bytes).is_some_and(|(name, _)| name.first() == Some(&b'$')),
        0x0b => true,
        _ => false,
    }
}

/// `{_id: <id>}` as a query.
fn query(out: &mut Composer, name: &[u8], id: RawValue<'_>) {
    out.open(kind::DOCUMENT, name);
    if is_operator(id) {
        out.open(kind::DOCUMENT, b"_id");
        out.element(b"$eq", id);
        out.close();
    } else {
        out.element(b"_id", id);
    }
    out.close();
}

fn find(ns: &Namespace, some: &Chunk, size: usize) -> Vec<u8> {
    let mut out = Composer::new();
    out.text(b"find", &ns.collection);
    match some.values().next() {
        Some(one) if is_operator(one.id.value()) => query(&mut out, b"filter", one.id.value()),
        _ => {
            out.open(kind::DOCUMENT, b"filter");
            out.open(kind::DOCUMENT, b"_id");
            out.open(kind::ARRAY, b"$in");
            for (n, one) in some.values().enumerate() {
                out.element(n.to_string().as_bytes(), one.id.value());
            }
            out.close();
            out.close();
            out.close();
        }
    }
    let size = i32::try_from(size).unwrap_or(i32::MAX).to_le_bytes();
    out.element(b"batchSize", RawValue { kind: kind::INT32, bytes: &size });
    out.finish().to_vec()
}

fn insert(ns: &Namespace, documents: &[Bytes], in_order: bool) -> Bytes {
    let mut out = Composer::new();
    out.text(b"insert", &ns.collection);
    out.open(kind::ARRAY, b"documents");
    for (n, document) in documents.iter().enumerate() {
        out.document(n.to_string().as_bytes(), document);
    }
    out.close();
    out.element(b"ordered", RawValue { kind: kind::BOOL, bytes: &[u8::from(in_order)] });
    out.element(b"bypassDocumentValidation", TRUE);
    out.finish()
}

/// What is to be written to one collection, sent whenever there is enough of it.
struct Sending<'a> {
    wire: &'a Wire<'a>,
    ns: &'a Namespace,
    removed: Vec<Id>,
    replaced: Vec<(Id, Bytes)>,
    inserted: Vec<Bytes>,
    size: usize,
}

impl<'a> Sending<'a> {
    fn new(wire: &'a Wire<'a>, ns: &'a Namespace) -> Self {
        Sending { wire, ns, removed: Vec::new(), replaced: Vec::new(), inserted: Vec::new(), size: 0 }
    }

    async fn add(&mut self, one: Folded) -> Result<()> {
        self.size += one.id.bytes.len() + 64;
        match one.outcome {
            Outcome::Document(document) => {
                self.size += document.len();
                if one.renewed {
                    self.removed.push(one.id);
                    self.inserted.push(document);
                } else {
                    self.replaced.push((one.id, document));
                }
            }
            Outcome::Absent => self.removed.push(one.id),
            // Those are resolved before.
            Outcome::Patched(_) => {}
        }
        let count = self.removed.len().max(self.replaced.len());
        if self.size >= BYTES_MAX || count >= WRITES_MAX { self.flush().await } else { Ok(()) }
    }

    async fn flush(&mut self) -> Result<()> {
        self.size = 0;
        let (removed, inserted) = (std::mem::take(&mut self.removed), std::mem::take(&mut self.inserted));
        let replaced = std::mem::take(&mut self.replaced);
        if !replaced.is_empty() {
            self.wire.write(self.ns, &self.updates(&replaced), "update").await?;
        }
        if !removed.is_empty() {
            self.wire.write(self.ns, &self.deletes(&removed), "delete").await?;
        }
        if inserted.is_empty() {
            return Ok(());
        }
        // After a lost answer they are there already: they are taken out and put in again.
        let reply = self.wire.command(&self.ns.db, &insert(self.ns, &inserted, false), "insert").await?;
        let refused = reply.get_array("writeErrors").cloned().unwrap_or_default();
        match refused
            .iter()
            .filter_map(|refusal| refusal.as_document())
            .find(|refusal| !is_duplicate(refusal))
        {
            Some(refusal) => {
                let why = refusal.get_str("errmsg").unwrap_or("no reason given");
                Err(Error::new(Kind::Protocol, format!("inserting into {}", self.ns), why))
            }
            None if refused.is_empty() => Ok(()),
            None => {
                self.wire.write(self.ns, &self.deletes(&removed), "delete").await?;
                self.wire.write(self.ns, &insert(self.ns, &inserted, false), "insert").await.map(drop)
            }
        }
    }

    fn updates(&self, replaced: &[(Id, Bytes)]) -> Bytes {
        let mut out = Composer::new();
        out.text(b"update", &self.ns.collection);
        out.open(kind::ARRAY, b"updates");
        for (n, (id, document)) in replaced.iter().enumerate() {
            out.open(kind::DOCUMENT, n.to_string().as_bytes());
            query(&mut out, b"q", id.value());
            out.document(b"u", document);
            out.element(b"upsert", TRUE);
            out.close();
        }
        out.close();
        out.element(b"ordered", super::compose::FALSE);
        out.element(b"bypassDocumentValidation", TRUE);
        out.finish()
    }

    fn deletes(&self, removed: &[Id]) -> Bytes {
        let mut out = Composer::new();
        out.text(b"delete", &self.ns.collection);
        out.open(kind::ARRAY, b"deletes");
        for (n, id) in removed.iter().enumerate() {
            out.open(kind::DOCUMENT, n.to_string().as_bytes());
            query(&mut out, b"q", id.value());
            out.element(b"limit", RawValue { kind: kind::INT32, bytes: &1i32.to_le_bytes() });
            out.close();
        }
        out.close();
        out.element(b"ordered", super::compose::FALSE);
        out.finish()
    }
}
