//! Reads: find, getMore, aggregate, the lists.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use mongodb::bson::{Bson, Document, RawDocument, RawDocumentBuf, Timestamp, doc};

use super::Shared;
use super::filter::Filter;
use super::generate::Random;
use super::key::field_key;
use super::message::{Out, Request};
use super::refusal::{Refusal, Result};
use super::scan::Scan;
use super::store::Collection;

/// A first batch of which nobody said how large it is.
const FIRST_BATCH: u64 = 101;

/// How long an awaiting cursor waits if nobody said.
const AWAIT: Duration = Duration::from_secs(1);

/// A cursor between two batches.
#[derive(Debug)]
pub struct Cursor {
    ns: String,
    scan: Scan,
    awaits: bool,
    snapshot: Option<Timestamp>,
}

/// A number of any type.
pub fn number(command: &Document, field: &str) -> Option<i64> {
    match command.get(field)? {
        Bson::Int32(value) => Some((*value).into()),
        Bson::Int64(value) => Some(*value),
        Bson::Double(value) => Some(*value as i64),
        _ => None,
    }
}

/// Whether a field says yes.
pub fn says_yes(command: &Document, field: &str) -> bool {
    match command.get(field) {
        Some(Bson::Boolean(value)) => *value,
        _ => number(command, field).is_some_and(|value| value != 0),
    }
}

/// The collection that a command is about: its first value.
pub fn subject(command: &Document) -> Result<&str> {
    let first = command.values().next().and_then(Bson::as_str);
    first.ok_or_else(|| Refusal::bad("the command names no collection"))
}

impl Shared {
    /// `find`.
    pub fn find(&self, db: &str, request: &Request, out: &mut Out) -> Result<()> {
        let command = request.document()?;
        let name = subject(&command)?;
        let snapshot = self.snapshot(&command)?;
        let mut scan = match self.catalog.find(db, name) {
            Some(collection) => Scan::new(collection.clone(), wanted(request.raw()?, &collection)?),
            None => Scan::list([]),
        };
        match order(&command) {
            Order::Kept => {}
            Order::Reversed => scan.is_reversed = true,
            Order::By(sort) => scan = Scan::list(sorted(read(&mut scan), &sort)),
        }
        scan.fields = fields(&command)?;
        if let Some(skip) = number(&command, "skip").filter(|skip| *skip > 0) {
            scan.skip(skip as u64);
        }
        let limit = number(&command, "limit").unwrap_or(0);
        scan.limit = if limit == 0 { u64::MAX } else { limit.unsigned_abs() };
        let awaits = says_yes(&command, "tailable");
        if awaits {
            scan.tail();
        }
        let most = number(&command, "batchSize").map_or(FIRST_BATCH, |most| most.max(0) as u64);
        let cursor = Cursor { ns: format!("{db}.{name}"), scan, awaits, snapshot };
        self.reply(cursor, "firstBatch", most, says_yes(&command, "singleBatch") || limit < 0, out)
    }

    /// The time at which to read; nothing stored is read at another than now.
    fn snapshot(&self, command: &Document) -> Result<Option<Timestamp>> {
        let Ok(concern) = command.get_document("readConcern") else { return Ok(None) };
        match concern.get_str("level") {
            Ok("snapshot") if !self.options.snapshots => Err(Refusal::no_snapshot()),
            Ok("snapshot") => Ok(Some(concern.get_timestamp("atClusterTime").unwrap_or_else(|_| self.now()))),
            _ => Ok(None),
        }
    }

    /// `getMore`.
    pub fn get_more(&self, db: &str, request: &Request, out: &mut Out) -> Result<()> {
        let command = request.document()?;
        let id = command.get_i64("getMore").map_err(Refusal::malformed)?;
        let found = self.cursors.lock().expect("no holder panics").remove(&id);
        let cursor = found.ok_or_else(|| Refusal::no_cursor(id))?;
        debug_assert!(cursor.ns.starts_with(db), "clients name their cursor's database");
        if cursor.awaits {
            let limit = number(&command, "maxTimeMS").map_or(AWAIT, |ms| Duration::from_millis(ms as u64));
            cursor.scan.wait(limit);
        }
        let most =
            number(&command, "batchSize").filter(|most| *most > 0).map_or(u64::MAX, |most| most as u64);
        self.reply_as(id, cursor, "nextBatch", most, false, out)
    }

    fn reply(&self, cursor: Cursor, batch: &str, most: u64, is_single: bool, out: &mut Out) -> Result<()> {
        let id = self.next_cursor.fetch_add(1, Ordering::Relaxed);
        self.reply_as(id, cursor, batch, most, is_single, out)
    }

    /// Writes a batch; a cursor that may have more is kept.
    fn reply_as(
        &self,
        id: i64,
        mut cursor: Cursor,
        batch: &str,
        most: u64,
        is_single: bool,
        out: &mut Out,
    ) -> Result<()> {
        let whole = out.open();
        out.element(3, "cursor");
        let inner = out.open();
        out.element(4, batch);
        let array = out.open();
        let may_go_on = cursor.scan.batch_into(out, most) && !is_single;
        out.close(array);
        out.element(0x12, "id");
        out.put(&(if may_go_on { id } else { 0 }).to_le_bytes());
        out.element(2, "ns");
        out.put(&(cursor.ns.len() as i32 + 1).to_le_bytes());
        out.put(cursor.ns.as_bytes());
        out.put(&[0]);
        if let Some(at) = cursor.snapshot {
            put_time(out, "atClusterTime", at);
        }
        out.close(inner);
        out.element(1, "ok");
        out.put(&1.0_f64.to_le_bytes());
        put_time(out, "operationTime", self.now());
        out.close(whole);
        if may_go_on {
            self.cursors.lock().expect("no holder panics").insert(id, cursor);
        }
        Ok(())
    }

    /// `killCursors`.
    pub fn kill_cursors(&self, command: &Document) -> Document {
        let mut cursors = self.cursors.lock().expect("no holder panics");
        let ids = command.get_array("cursors").cloned().unwrap_or_default();
        let (killed, missing): (Vec<Bson>, Vec<Bson>) =
            ids.into_iter().partition(|id| id.as_i64().is_some_and(|id| cursors.remove(&id).is_some()));
        let none: Vec<Bson> = Vec::new();
        doc! { "cursorsKilled": killed, "cursorsNotFound": missing, "cursorsAlive": none.clone(), "cursorsUnknown": none }
    }

    /// `listCollections`.
    pub fn list_collections(&self, db: &str, command: &Document, out: &mut Out) -> Result<()> {
        let filter = command.get_document("filter").cloned().unwrap_or_default();
        let filter = RawDocumentBuf::try_from(&filter).map_err(Refusal::malformed)?;
        let filter = Filter::parse(&filter, "")?;
        let all = self.catalog.collections(db).into_iter();
        let listed = all.map(|(name, collection)| bytes(&collection.description(&name)));
        let listed: Vec<Bytes> = listed.collect::<Result<_>>()?;
        let wanted =
            listed.into_iter().filter(|one| RawDocument::from_bytes(one).is_ok_and(|one| filter.wants(one)));
        self.reply_list(format!("{db}.$cmd.listCollections"), wanted.collect(), u64::MAX, out)
    }

    /// `listIndexes`.
    pub fn list_indexes(&self, db: &str, command: &Document, out: &mut Out) -> Result<()> {
        let name = subject(command)?;
        let collection = self.catalog.get(db, name)?;
        let indexes = collection.indexes.lock().expect("no holder panics").clone();
        if indexes.is_empty() {
            return Err(Refusal::is_view(&format!("{db}.{name}")));
        }
        let indexes = indexes.iter().map(bytes).collect::<Result<_>>()?;
        self.reply_list(format!("{db}.{name}"), indexes, u64::MAX, out)
    }

    fn reply_list(&self, ns: String, list: Vec<Bytes>, most: u64, out: &mut Out) -> Result<()> {
        self.reply(
            Cursor { ns, scan: Scan::list(list), awaits: false, snapshot: None },
            "firstBatch",
            most,
            false,
            out,
        )
    }

    /// `aggregate`, of the stages that dumps use.
    pub fn aggregate(&self, db: &str, command: &Document, out: &mut Out) -> Result<()> {
        let stages = command.get_array("pipeline").map_err(Refusal::malformed)?;
        let name = command.values().next().and_then(Bson::as_str).unwrap_or("$cmd.aggregate");
        let cursor = command.get_document("cursor").cloned().unwrap_or_default();
        let most = number(&cursor, "batchSize").map_or(FIRST_BATCH, |most| most.max(0) as u64);
        let found = match self.catalog.find(db, name) {
            Some(collection) => piped(&collection, stages, &format!("{db}.{name}"))?,
            None => Vec::new(),
        };
        self.reply_list(format!("{db}.{name}"), found, most, out)
    }
}

fn put_time(out: &mut Out, name: &str, at: Timestamp) {
    out.element(0x11, name);
    out.put(&at.increment.to_le_bytes());
    out.put(&at.time.to_le_bytes());
}

/// A document's bytes.
pub fn bytes(document: &Document) -> Result<Bytes> {
    Ok(document.to_vec().map_err(Refusal::malformed)?.into())
}

/// What `filter`, `min` and `max` leave of a collection.
fn wanted(command: &RawDocument, collection: &Collection) -> Result<Filter> {
    let order = collection.order();
    let mut filter = match command.get_document("filter") {
        Ok(filter) => Filter::parse(filter, order)?,
        Err(_) => Filter::all(),
    };
    if let Ok(min) = command.get_document("min") {
        let low = field_key(min, order);
        filter.between(&low, &[super::key::ABOVE_ALL]);
    }
    if let Ok(max) = command.get_document("max") {
        filter.between(&[], &field_key(max, order));
    }
    Ok(filter)
}

/// How a find wants its documents.
enum Order {
    /// As a collection is read anyway: by `_id`, the log by `ts`.
    Kept,
    Reversed,
    By(Document),
}

fn order(command: &Document) -> Order {
    let asked = command.get_document("sort").or_else(|_| command.get_document("hint"));
    let Some((field, way)) =
        asked.ok().and_then(|asked| asked.iter().next().map(|(field, _)| (field, asked)))
    else {
        return Order::Kept;
    };
    let is_backwards = number(way, field).is_some_and(|way| way < 0);
    match (field.as_str(), command.contains_key("sort")) {
        ("_id" | "ts" | "$natural", true) | ("$natural", false) if is_backwards => Order::Reversed,
        ("_id" | "ts" | "$natural", _) | (_, false) => Order::Kept,
        (_, true) => Order::By(way.clone()),
    }
}

fn sorted(mut documents: Vec<Bytes>, sort: &Document) -> Vec<Bytes> {
    let field = sort.keys().next().cloned().unwrap_or_default();
    documents.sort_by_cached_key(|one| RawDocument::from_bytes(one).map(|one| field_key(one, &field)).ok());
    if number(sort, &field).is_some_and(|way| way < 0) {
        documents.reverse();
    }
    documents
}

fn fields(command: &Document) -> Result<Option<Vec<String>>> {
    let Ok(projection) = command.get_document("projection") else { return Ok(None) };
    if projection.is_empty() {
        return Ok(None);
    }
    let excluded = projection.keys().find(|field| *field != "_id" && !says_yes(projection, field));
    if let Some(field) = excluded {
        return Err(Refusal::bad(format!("this double cannot leave {field} out, only name what is wanted")));
    }
    let mut wanted: Vec<String> = projection.keys().filter(|field| *field != "_id").cloned().collect();
    if !projection.contains_key("_id") || says_yes(projection, "_id") {
        wanted.push("_id".to_owned());
    }
    Ok(Some(wanted))
}

/// What the stages make of a collection.
fn piped(collection: &Arc<Collection>, stages: &[Bson], ns: &str) -> Result<Vec<Bytes>> {
    let mut filter = Filter::all();
    let mut rest = stages.iter().filter_map(Bson::as_document).peekable();
    while let Some(found) = rest.peek().and_then(|stage| stage.get_document("$match").ok()) {
        let raw = RawDocumentBuf::try_from(found).map_err(Refusal::malformed)?;
        let more = Filter::parse(&raw, collection.order())?;
        filter = more;
        rest.next();
    }
    let mut scan = Scan::new(collection.clone(), filter);
    let mut documents = match rest.next() {
        None => read(&mut scan),
        Some(stage) => match stage.iter().next() {
            Some((name, given)) => reduced(collection, &mut scan, name, given, ns)?,
            None => return Err(Refusal::bad("an empty stage")),
        },
    };
    for stage in rest {
        let Some((name, given)) = stage.iter().next() else { continue };
        documents = reshaped(documents, name, given, stage)?;
    }
    Ok(documents)
}

/// The first stage after `$match`, which may not need to read what it counts.
fn reduced(
    collection: &Arc<Collection>,
    scan: &mut Scan,
    name: &str,
    given: &Bson,
    ns: &str,
) -> Result<Vec<Bytes>> {
    let count = |scan: &mut Scan| scan.known_count().unwrap_or_else(|| read(scan).len() as u64) as i64;
    match name {
        "$sample" => {
            let size = given.as_document().and_then(|given| number(given, "size")).unwrap_or(0).max(0) as u64;
            Ok(sampled(collection, size))
        }
        "$count" => Ok(vec![bytes(&doc! { given.as_str().unwrap_or("count"): count(scan) })?]),
        "$group" => Ok(vec![bytes(&doc! { "_id": 1, "n": count(scan) })?]),
        "$collStats" => {
            let storage = super::admin::storage(collection);
            Ok(vec![bytes(&doc! { "ns": ns, "count": collection.count() as i64, "storageStats": storage })?])
        }
        "$limit" => {
            scan.limit = given.as_i64().or(given.as_i32().map(i64::from)).unwrap_or(0).max(0) as u64;
            Ok(read(scan))
        }
        _ => {
            let stage = doc! { name: given.clone() };
            reshaped(read(scan), name, given, &stage)
        }
    }
}

fn reshaped(mut documents: Vec<Bytes>, name: &str, given: &Bson, stage: &Document) -> Result<Vec<Bytes>> {
    match (name, given) {
        ("$project", Bson::Document(projection)) => {
            let mut scan = Scan::list(documents);
            scan.fields = fields(&doc! { "projection": projection.clone() })?;
            Ok(read(&mut scan))
        }
        ("$sort", Bson::Document(sort)) => Ok(sorted(documents, sort)),
        ("$limit", _) => {
            documents.truncate(number(stage, name).unwrap_or(0).max(0) as usize);
            Ok(documents)
        }
        _ => Err(Refusal::bad(format!("this double knows no stage {name} here"))),
    }
}

fn read(scan: &mut Scan) -> Vec<Bytes> {
    let (mut out, mut all) = (Out::default(), Vec::new());
    while scan.next_into(&mut out) {
        all.push(Bytes::copy_from_slice(out.since(0)));
        out.truncate(0);
    }
    all
}

/// Documents picked at random, each at most once.
fn sampled(collection: &Arc<Collection>, size: u64) -> Vec<Bytes> {
    let count = collection.count();
    let mut random = Random(size);
    let picked: std::collections::BTreeSet<u64> = match size < count {
        true => (0..size).map(|_| random.below(count)).collect(),
        false => (0..count).collect(),
    };
    let mut scan = Scan::new(collection.clone(), Filter::all());
    let (mut at, mut all) = (0, Vec::new());
    for place in picked {
        scan.skip(place - at);
        let mut out = Out::default();
        if scan.next_into(&mut out) {
            all.push(Bytes::copy_from_slice(out.since(0)));
        }
        at = place + 1;
    }
    all
}
