//! What kinds of collections the target has: each is asked for once, and again after a command has changed it.

use std::collections::HashMap;
use std::sync::Arc;

use mongodb::bson::{Document, RawDocumentBuf, doc};

use super::super::failure::{code, code_of, failed};
use super::super::namespace::Namespace;
use super::wire::Wire;
use crate::error::{Error, Kind, Result};

/// How the writes of a collection may be arranged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// There is none yet, by this name.
    Missing,
    /// Documents are independent of each other, and `_id` are the same if their values are.
    Plain,
    /// Documents stand in the order in which they came, and the oldest go.
    Capped,
    /// Which `_id` are the same is for the collation to say.
    Collated,
}

/// The target's collections as far as they were asked for.
#[derive(Debug, Default)]
pub struct Shapes {
    known: HashMap<Arc<Namespace>, Shape>,
}

impl Shapes {
    /// Which kind it is.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn of(&mut self, wire: &Wire<'_>, ns: &Arc<Namespace>) -> Result<Shape> {
        if let Some(shape) = self.known.get(ns) {
            return Ok(*shape);
        }
        let ask = doc! { "listCollections": 1, "filter": { "name": &ns.collection } };
        let reply = wire.ask(&ns.db, &ask, "listCollections").await?;
        let found = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
        let found = found.ok().and_then(|batch| batch.first()?.as_document());
        let shape = found.map_or(Shape::Missing, shape_of);
        self.known.insert(ns.clone(), shape);
        Ok(shape)
    }

    /// A command has changed something there.
    pub fn forget(&mut self, db: &str) {
        self.known.retain(|ns, _| ns.db != db);
    }

    /// Makes a collection that is missing. Not every server logs that one was made by its first document, and if that is
    /// deleted in the same window, nothing else would make it.
    ///
    /// # Errors
    /// The server's refusal.
    pub async fn make(&mut self, wire: &Wire<'_>, ns: &Arc<Namespace>) -> Result<()> {
        let command = encoded(&doc! { "create": &ns.collection })?;
        match wire.attempt(&ns.db, &command, "create").await?.reply {
            Err(error) if code_of(&error) != Some(code::NAMESPACE_EXISTS) => {
                return Err(failed(format!("creating {ns}"), error));
            }
            _ => {}
        }
        self.known.insert(ns.clone(), Shape::Plain);
        Ok(())
    }
}

fn shape_of(collection: &Document) -> Shape {
    let Ok(options) = collection.get_document("options") else { return Shape::Plain };
    let collation = options.get_document("collation").and_then(|collation| collation.get_str("locale"));
    if options.get_bool("capped").unwrap_or(false) {
        Shape::Capped
    } else if collation.is_ok_and(|locale| locale != "simple") {
        Shape::Collated
    } else {
        Shape::Plain
    }
}

/// A small command as bytes.
pub(super) fn encoded(command: &Document) -> Result<Vec<u8>> {
    let raw = RawDocumentBuf::try_from(command)
        .map_err(|cause| Error::new(Kind::Internal, "writing a command", cause))?;
    Ok(raw.into_bytes())
}
