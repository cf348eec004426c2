//! Collections, views and indexes: what there is, dropped, created, given their expiry last.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::bson::{Bson, Document, RawDocumentBuf, doc, rawdoc};

use super::blueprint::{Blueprint, Shape};
use super::client::Link;
use super::cursor;
use super::failure::{code, code_of, failed, failing};
use super::namespace::Namespace;
use super::steady::{self, Patience};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::Omission;

/// Building an index takes as long as it takes; the task's deadline ends it.
const BUILD_LIMIT: Patience = Patience::Again(Duration::from_secs(7 * 24 * 3600));

/// What `create` refuses of what `listCollections` or an old dump tells.
const NOT_CREATED: [&str; 3] = ["uuid", "autoIndexId", "recordIdsReplicated"];

/// A collection as `listCollections` tells it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// `collection`, `view`, `timeseries`.
    pub kind: String,
    /// How it was created.
    pub options: Document,
    /// The id that another collection of the same name will not have; none of a view, or where the server does not tell.
    pub id: Option<String>,
}

/// The collections of a database, by name, without the server's own.
pub async fn list(link: &Link, db: &str, task: &Task) -> Result<BTreeMap<String, Listed>> {
    let doing = || format!("listing the collections of {db}");
    let listed = task.guard(cursor::all(link, db, rawdoc! { "listCollections": 1 })).await?;
    let documents = decoded(&listed.map_err(failing(doing()))?, doing)?;
    let own = |name: &str| name.starts_with("system.") && name != "system.js";
    let listed = documents.into_iter().filter_map(|found| {
        let name = found.get_str("name").ok().filter(|name| !own(name))?.to_owned();
        let kind = found.get_str("type").unwrap_or("collection").to_owned();
        let options = found.get_document("options").cloned().unwrap_or_default();
        let id = found.get_document("info").ok().and_then(|info| match info.get("uuid") {
            Some(Bson::Binary(uuid)) => Some(hex::encode(&uuid.bytes)),
            _ => None,
        });
        Some((name, Listed { kind, options, id }))
    });
    Ok(listed.collect())
}

/// All databases that our user may see, by name; none where it may not ask.
pub async fn databases(link: &Link) -> Result<Vec<String>> {
    let asked = link.attempt("admin", doc! { "listDatabases": 1, "nameOnly": true }).await?;
    let names = |reply: Document| -> Vec<String> {
        let all = reply.get_array("databases").into_iter().flatten();
        all.filter_map(|one| Some(one.as_document()?.get_str("name").ok()?.to_owned())).collect()
    };
    Ok(asked.map(names).unwrap_or_default())
}

/// The indexes of a collection, as the server tells them; none where there is no such collection.
pub async fn indexes(link: &Link, of: &Namespace, task: &Task) -> Result<Vec<Document>> {
    let doing = || format!("listing the indexes of {of}");
    let list = rawdoc! { "listIndexes": of.collection.as_str() };
    match task.guard(cursor::all(link, &of.db, list)).await? {
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(Vec::new()),
        listed => decoded(&listed.map_err(failing(doing()))?, doing),
    }
}

fn decoded(listed: &[RawDocumentBuf], doing: impl Fn() -> String) -> Result<Vec<Document>> {
    let odd = |cause| Error::new(Kind::Protocol, doing(), cause);
    listed.iter().map(|one| Document::try_from(&**one).map_err(odd)).collect()
}

/// Drops a collection or view; one that is not there is fine.
pub async fn drop(link: &Link, what: &Namespace, task: &Task) -> Result<()> {
    let doing = format!("dropping {what}");
    let command = doc! { "drop": &what.collection, "writeConcern": majority() };
    let answer = steady::command(link, &what.db, &doing, task, &command).await?;
    match answer.reply {
        Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(()),
        reply => reply.map(|_| ()).map_err(failing(doing)),
    }
}

/// Creates a collection or view as it was; without its expiry if that is set later.
pub async fn create(link: &Link, blueprint: &Blueprint, target: &Namespace, task: &Task) -> Result<()> {
    let doing = format!("creating {target}");
    let mut command = create_command(blueprint, target);
    command.insert("writeConcern", majority());
    let answer = steady::command(link, &target.db, &doing, task, &command).await?;
    match answer.reply {
        Err(error) if answer.again && code_of(&error) == Some(code::NAMESPACE_EXISTS) => Ok(()),
        reply => reply.map(|_| ()).map_err(failing(doing)),
    }
}

/// Until most members have it, so that no election takes it back.
fn majority() -> Document {
    doc! { "w": "majority" }
}

/// What `create` is sent.
pub fn create_command(blueprint: &Blueprint, target: &Namespace) -> Document {
    let mut command = doc! { "create": &target.collection };
    for (name, value) in &blueprint.options {
        let later = name == "expireAfterSeconds" && blueprint.shape != Shape::View;
        if !later && !NOT_CREATED.contains(&name.as_str()) {
            command.insert(name, value);
        }
    }
    let own = |index: &&Document| is_id_index(index) && !blueprint.options.contains_key("clusteredIndex");
    if let Some(index) = blueprint.indexes.iter().find(own).filter(|_| blueprint.shape != Shape::View) {
        let mut index = index.clone();
        index.remove("ns");
        command.insert("idIndex", index);
    }
    command
}

/// Whether it is the index that each collection has by itself.
pub fn is_id_index(index: &Document) -> bool {
    index.get_str("name").is_ok_and(|text| text == "_id_")
}

/// Lets documents expire from now on, in a collection that was created without.
pub async fn set_expiry(link: &Link, of: &Namespace, after: &Bson, task: &Task) -> Result<Option<Omission>> {
    let doing = format!("setting the expiry of {of}");
    let command = doc! {
        "collMod": &of.collection, "expireAfterSeconds": after.clone(), "writeConcern": majority(),
    };
    let answer = steady::command(link, &of.db, &doing, task, &command).await?;
    Ok(match answer.reply {
        Ok(_) => None,
        Err(error) => Some(Omission {
            what: format!("expireAfterSeconds {after} of {of}"),
            why: failed(doing, error).why().to_owned(),
        }),
    })
}

/// Builds indexes: all of a collection in one pass over it; if that is refused, each alone, so that one that cannot be built
/// takes no other with it.
pub async fn build(
    link: &Link,
    of: &Namespace,
    specs: &[Document],
    collation: bool,
    task: &Task,
) -> Result<Vec<Omission>> {
    let specs: Vec<Document> = specs.iter().filter_map(|spec| buildable(spec, collation)).collect();
    if specs.is_empty() || create_indexes(link, of, &specs, task).await?.is_none() {
        return Ok(Vec::new());
    }
    let mut omissions = Vec::new();
    for spec in &specs {
        if let Some(why) = create_indexes(link, of, std::slice::from_ref(spec), task).await? {
            omissions.push(Omission { what: index_name(spec, of), why });
        }
    }
    Ok(omissions)
}

/// An index in words.
pub fn index_name(spec: &Document, of: &Namespace) -> String {
    format!("index {} on {of}", spec.get_str("name").unwrap_or("without a name"))
}

/// A spec as `createIndexes` takes it; none for an index that is there by itself. In a collection with a collation of its
/// own, an index that is told without one has the simple one.
pub fn buildable(spec: &Document, collation: bool) -> Option<Document> {
    if is_id_index(spec) || spec.get_bool("clustered").unwrap_or(false) {
        return None;
    }
    let mut spec = spec.clone();
    spec.remove("ns");
    if collation && !spec.contains_key("collation") {
        spec.insert("collation", doc! { "locale": "simple" });
    }
    Some(spec)
}

/// `None` if they were built, else the server's words.
async fn create_indexes(
    link: &Link,
    of: &Namespace,
    specs: &[Document],
    task: &Task,
) -> Result<Option<String>> {
    let doing = format!("building the indexes of {of}");
    let command = doc! {
        "createIndexes": &of.collection, "indexes": specs.to_vec(), "writeConcern": majority(),
    };
    let answer = steady::document(link, &of.db, &doing, BUILD_LIMIT, task, &command);
    Ok(answer.await?.reply.err().map(|error| failed(&*doing, error).why().to_owned()))
}
