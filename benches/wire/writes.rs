//! Writes: insert, update, delete.

use bytes::Bytes;
use mongodb::bson::{Bson, Document, RawBsonRef, RawDocument, doc};

use super::Shared;
use super::filter::Filter;
use super::key::{Key, field_key};
use super::message::Request;
use super::reads::bytes;
use super::refusal::{Refusal, Result};
use super::scan::Scan;
use super::update::updated;

/// The key under which a document is stored.
pub fn id_of(document: &[u8]) -> Result<Key> {
    let document = RawDocument::from_bytes(document).map_err(Refusal::malformed)?;
    match document.get("_id").map_err(Refusal::malformed)? {
        Some(id) => Ok(super::key::key(id)),
        None => Err(Refusal::bad("a document without _id: clients give one")),
    }
}

fn name_of(request: &Request) -> Result<&str> {
    let first = request.raw()?.iter().next().and_then(std::result::Result::ok);
    match first {
        Some((_, RawBsonRef::String(name))) => Ok(name),
        _ => Err(Refusal::bad("the command names no collection")),
    }
}

fn duplicate(index: usize, id: &Key) -> Document {
    let message = format!("E11000 duplicate key error dup key: {}", hex::encode(id));
    doc! { "index": index as i32, "code": 11000, "errmsg": message }
}

impl Shared {
    /// `insert`.
    pub fn insert(&self, db: &str, request: &Request) -> Result<Document> {
        let documents = request.batch("documents")?;
        let is_ordered = request.raw()?.get_bool("ordered").unwrap_or(true);
        let keyed: Vec<(Key, Bytes)> =
            documents.into_iter().map(|one| Ok((id_of(&one)?, one))).collect::<Result<_>>()?;
        let collection = self.catalog.made(db, name_of(request)?);
        let mut rows = collection.rows()?;
        let (mut count, mut errors) = (0, Vec::new());
        for (index, (key, document)) in keyed.into_iter().enumerate() {
            match rows.entry(key) {
                std::collections::btree_map::Entry::Vacant(free) => {
                    free.insert(document);
                    count += 1;
                }
                std::collections::btree_map::Entry::Occupied(taken) => {
                    errors.push(duplicate(index, taken.key()));
                    if is_ordered {
                        break;
                    }
                }
            }
        }
        let mut reply = doc! { "n": count };
        if !errors.is_empty() {
            reply.insert("writeErrors", errors);
        }
        Ok(reply)
    }

    /// `update`.
    pub fn update(&self, db: &str, request: &Request) -> Result<Document> {
        let name = name_of(request)?;
        let (mut matched, mut modified, mut upserted) = (0, 0, Vec::new());
        for (index, update) in request.batch("updates")?.iter().enumerate() {
            let update = RawDocument::from_bytes(update).map_err(Refusal::malformed)?;
            let query = update.get_document("q").map_err(Refusal::malformed)?;
            let change = update.get_document("u").map_err(Refusal::malformed)?;
            let is_multi = update.get_bool("multi").unwrap_or(false);
            let found = self.found(db, name, query, is_multi)?;
            let collection = self.catalog.made(db, name);
            if found.is_empty() && update.get_bool("upsert").unwrap_or(false) {
                let (key, document) = upsert(query, change)?;
                let id =
                    RawDocument::from_bytes(&document).ok().and_then(|found| found.get("_id").ok().flatten());
                let id: Bson = id.and_then(|id| id.try_into().ok()).unwrap_or(Bson::Null);
                upserted.push(doc! { "index": index as i32, "_id": id });
                collection.rows()?.insert(key, document);
                matched += 1;
                continue;
            }
            for (key, document) in found {
                matched += 1;
                let now = updated(&document, change)?;
                if now != document {
                    modified += 1;
                    collection.rows()?.insert(key, now);
                }
            }
        }
        let mut reply = doc! { "n": matched, "nModified": modified };
        if !upserted.is_empty() {
            reply.insert("upserted", upserted);
        }
        Ok(reply)
    }

    /// `delete`.
    pub fn delete(&self, db: &str, request: &Request) -> Result<Document> {
        let name = name_of(request)?;
        let mut count = 0;
        for delete in request.batch("deletes")? {
            let delete = RawDocument::from_bytes(&delete).map_err(Refusal::malformed)?;
            let query = delete.get_document("q").map_err(Refusal::malformed)?;
            let is_multi =
                !matches!(delete.get("limit"), Ok(Some(RawBsonRef::Int32(1) | RawBsonRef::Int64(1))));
            let found = self.found(db, name, query, is_multi)?;
            let Some(collection) = self.catalog.find(db, name) else { continue };
            let mut rows = collection.rows()?;
            count += found.iter().filter(|(key, _)| rows.remove(key).is_some()).count() as i32;
        }
        Ok(doc! { "n": count })
    }

    /// The stored documents that a query means.
    fn found(&self, db: &str, name: &str, query: &RawDocument, is_multi: bool) -> Result<Vec<(Key, Bytes)>> {
        let Some(collection) = self.catalog.find(db, name) else { return Ok(Vec::new()) };
        drop(collection.rows()?);
        let mut scan = Scan::new(collection.clone(), Filter::parse(query, "_id")?);
        scan.limit = if is_multi { u64::MAX } else { 1 };
        let (mut out, mut found) = (super::Out::default(), Vec::new());
        while scan.next_into(&mut out) {
            found.push((id_of(out.since(0))?, Bytes::copy_from_slice(out.since(0))));
            out.truncate(0);
        }
        Ok(found)
    }
}

/// A new document: the replacement, or what the operators make of the query's `_id`.
fn upsert(query: &RawDocument, change: &RawDocument) -> Result<(Key, Bytes)> {
    let id: Option<Bson> = query.get("_id").ok().flatten().and_then(|id| id.try_into().ok());
    let start = id.map(|id| doc! { "_id": id }).unwrap_or_default();
    let document = updated(&bytes(&start)?, change)?;
    let raw = RawDocument::from_bytes(&document).map_err(Refusal::malformed)?;
    Ok((field_key(raw, "_id"), document))
}
