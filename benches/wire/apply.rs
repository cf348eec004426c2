//! `applyOps`, as a real server does it: inserts replace, diffs want their document, deletes want nothing.

use bytes::Bytes;
use mongodb::bson::{Bson, Document, RawDocument, doc};

use super::Shared;
use super::message::Request;
use super::refusal::{Refusal, Result};
use super::update::updated;
use super::writes::id_of;

impl Shared {
    /// `applyOps`: stops at the first operation that fails.
    pub fn apply_ops(&self, request: &Request) -> Result<Document> {
        let mut results: Vec<Bson> = Vec::new();
        for operation in request.batch("applyOps")? {
            let operation = RawDocument::from_bytes(&operation).map_err(Refusal::malformed)?;
            let applied = self.apply(operation);
            results.push(Bson::Boolean(applied.is_ok()));
            if let Err(mut refusal) = applied {
                *refusal.more = doc! { "applied": results.len() as i32, "results": results };
                return Err(refusal);
            }
        }
        Ok(doc! { "applied": results.len() as i32, "results": results })
    }

    /// Applies one operation of a log.
    pub fn apply(&self, operation: &RawDocument) -> Result<()> {
        let ns = operation.get_str("ns").map_err(Refusal::malformed)?;
        let kind = operation.get_str("op").map_err(Refusal::malformed)?;
        let o = operation.get_document("o").map_err(Refusal::malformed)?;
        let (db, name) = ns.split_once('.').unwrap_or((ns, ""));
        match kind {
            "n" => return Ok(()),
            "c" => {
                let command = Document::try_from(o).map_err(Refusal::malformed)?;
                return self.changed(db, &command).map(drop);
            }
            _ => {}
        }
        let collection = self.catalog.get(db, name)?;
        match kind {
            "i" => {
                collection.rows()?.insert(id_of(o.as_bytes())?, Bytes::copy_from_slice(o.as_bytes()));
            }
            "d" => {
                collection.rows()?.remove(&id_of(o.as_bytes())?);
            }
            "u" => {
                let o2 = operation.get_document("o2").map_err(Refusal::malformed)?;
                let id = id_of(o2.as_bytes())?;
                let mut rows = collection.rows()?;
                let is_replacement = o.get("_id").is_ok_and(|id| id.is_some());
                let now = match rows.get(&id) {
                    Some(document) => updated(document, o)?,
                    None if is_replacement => Bytes::copy_from_slice(o.as_bytes()),
                    None => return Err(Refusal::no_document(ns)),
                };
                rows.insert(id, now);
            }
            other => return Err(Refusal::bad(format!("unknown operation {other}"))),
        }
        Ok(())
    }
}
