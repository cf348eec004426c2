//! What is there: databases, collections with all that the server says of them, and what of it a backup leaves out.

use std::collections::BTreeSet;

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{RawDocumentBuf, doc, rawdoc};

use super::client::{Link, Server, number};
use super::cursor;
use super::failure::{code, code_of, failed, failing};
use super::namespace::{BUCKETS, Namespace};
use super::ranges::Order;
use crate::error::{Error, Kind, Result};
use crate::vault::manifest::Omission;

/// How many collections are asked about at the same time.
const AT_ONCE: usize = 8;

/// How long a document is, where a server tells only how many there are.
const USUAL_DOCUMENT: u64 = 1 << 10;

/// From this release on, a time series is one collection, and `rawData` reads it as it lies.
const VIEWLESS: (u32, u32) = (8, 3);

/// From this release on, a clustered collection can be read by bounds of its `_id`.
const CLUSTERED_BOUNDS: (u32, u32) = (6, 0);

/// What of `config` belongs to users: the rest is the server's own bookkeeping.
const CONFIG: [&str; 7] = ["chunks", "collections", "databases", "settings", "shards", "tags", "version"];

/// Users, roles, and the version of their format.
const ACCESS: [&str; 3] = ["system.users", "system.roles", "system.version"];

/// What a backup would capture.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// Sorted by name.
    pub collections: Vec<Collection>,
    /// What it leaves out and somebody may miss.
    pub omissions: Vec<Omission>,
}

/// A collection, a view or a time series.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// Its name, as users know it.
    pub namespace: Namespace,
    /// `collection`, `view`, `timeseries`: the server's word.
    pub kind: String,
    /// How it was created, as the server says.
    pub options: RawDocumentBuf,
    /// It keeps it for life.
    pub uuid: Option<Vec<u8>>,
    /// As the server lists them, `_id_` too.
    pub indexes: Vec<RawDocumentBuf>,
    /// Where its documents are; a view has none.
    pub data: Option<Data>,
}

/// Where documents are.
#[derive(Clone, Debug)]
pub struct Data {
    /// Of a time series, another name than its own.
    pub namespace: Namespace,
    /// How they are read.
    pub order: Order,
    /// Whether the server is told to give them as they lie.
    pub raw: bool,
    /// How long they are together, about; 0 where the server does not tell.
    pub bytes: u64,
    /// How many they are, about; 0 where the server does not tell.
    pub items: u64,
}

/// Sizes change all the time, and say nothing about what it is.
impl PartialEq for Data {
    fn eq(&self, other: &Data) -> bool {
        (&self.namespace, self.order, self.raw) == (&other.namespace, other.order, other.raw)
    }
}

impl Collection {
    /// Whether it is the server's own, so that it is never read at a moment of the past.
    pub fn is_internal(&self) -> bool {
        self.namespace.db == "config"
            || (self.namespace.db == "admin" && self.namespace.collection.starts_with("system."))
    }

    /// Whether it is capped.
    pub fn is_capped(&self) -> bool {
        is_true(&self.options, "capped")
    }
}

impl Data {
    /// The average length of a document, if that is known.
    pub fn average(&self) -> Option<u64> {
        (self.items > 0 && self.bytes > 0).then(|| (self.bytes / self.items).max(1))
    }
}

/// Looks at everything.
///
/// # Errors
/// If a database, a collection or its indexes cannot be listed.
pub async fn survey(link: &Link, server: &Server) -> Result<Survey> {
    let mut survey = Survey::default();
    let listing = link.command("admin", doc! { "listDatabases": 1, "nameOnly": true }).await?;
    let listed = listing.get_array("databases").map(Vec::as_slice).unwrap_or_default();
    for db in listed.iter().filter_map(|db| db.as_document()?.get_str("name").ok()) {
        if db == "local" {
            survey.omissions.extend(own_of_local(link).await?);
        } else if !db.starts_with("__mdb_internal") {
            database(link, server, db, &mut survey).await?;
        }
    }
    users(link, &mut survey).await?;
    let Survey { collections, omissions } = survey;
    let ask = |collection| detail(link, server, collection);
    let detailed = stream::iter(collections.into_iter().map(ask)).buffer_unordered(AT_ONCE);
    let detailed: Vec<Option<Collection>> = detailed.try_collect().await?;
    let mut collections: Vec<Collection> = detailed.into_iter().flatten().collect();
    collections.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    Ok(Survey { collections, omissions })
}

/// `local` belongs to one member, and the server fills it by itself; what users put there is in no backup.
async fn own_of_local(link: &Link) -> Result<Vec<Omission>> {
    let list = rawdoc! { "listCollections": 1, "nameOnly": true, "authorizedCollections": true };
    let Ok(listed) = cursor::all(link, "local", list).await? else { return Ok(Vec::new()) };
    let known = ["oplog.rs", "startup_log", "me", "clustermanager"];
    let foreign =
        |name: &&str| !known.contains(name) && !name.starts_with("replset.") && !name.starts_with("system.");
    let names = listed.iter().filter_map(|one| one.get_str("name").ok()).filter(foreign);
    Ok(names
        .map(|name| Omission {
            what: format!("local.{name}"),
            why: "the database local belongs to one member, and is not replicated".to_owned(),
        })
        .collect())
}

async fn database(link: &Link, server: &Server, db: &str, survey: &mut Survey) -> Result<()> {
    let list = cursor::all(link, db, rawdoc! { "listCollections": 1 }).await?;
    let listed = list.map_err(failing(format!("listing the collections of {db}")))?;
    let listed: Vec<Collection> = listed.iter().map(|one| read(db, one)).collect::<Result<_>>()?;
    let names = |wanted: &dyn Fn(&Collection) -> Option<String>| -> BTreeSet<String> {
        listed.iter().filter_map(wanted).collect()
    };
    let series = names(&|one| (one.kind == "timeseries").then(|| one.namespace.collection.clone()));
    let buckets = names(&|one| one.namespace.collection.strip_prefix(BUCKETS).map(str::to_owned));
    for mut collection in listed {
        let name = &collection.namespace.collection;
        let of_series = name.strip_prefix(BUCKETS).is_some_and(|of| series.contains(of));
        if of_series || !is_captured(&collection.namespace) {
            continue;
        }
        let lies_in = |name: String, raw| Data {
            namespace: Namespace::new(db, name),
            order: Order::Id,
            raw,
            bytes: 0,
            items: 0,
        };
        collection.data = match collection.kind.as_str() {
            "view" => None,
            "timeseries" if buckets.contains(name) => Some(lies_in(format!("{BUCKETS}{name}"), false)),
            "timeseries" => Some(lies_in(name.clone(), server.release() >= VIEWLESS)),
            _ => Some(lies_in(name.clone(), false)),
        };
        survey.collections.push(collection);
    }
    Ok(())
}

/// One line of `listCollections`.
fn read(db: &str, listed: &RawDocumentBuf) -> Result<Collection> {
    let doing = || format!("listing the collections of {db}");
    let odd = |cause: mongodb::bson::error::Error| Error::new(Kind::Protocol, doing(), cause);
    let info = listed.get_document("info").ok();
    let uuid = info.and_then(|info| info.get_binary("uuid").ok());
    Ok(Collection {
        namespace: Namespace::new(db, listed.get_str("name").map_err(odd)?),
        kind: listed.get_str("type").unwrap_or("collection").to_owned(),
        options: listed.get_document("options").map(ToOwned::to_owned).unwrap_or_default(),
        uuid: uuid.map(|uuid| uuid.bytes.to_vec()),
        indexes: Vec::new(),
        data: None,
    })
}

/// Whether a collection belongs to users, as the stock tools see it.
fn is_captured(namespace: &Namespace) -> bool {
    let name = namespace.collection.as_str();
    match namespace.db.as_str() {
        "config" => CONFIG.contains(&name),
        "admin" if ACCESS.contains(&name) => true,
        _ => {
            (!name.starts_with("system.") || name == "system.js" || name.starts_with(BUCKETS))
                && !name.contains('$')
        }
    }
}

/// Users and roles, if the right to read them is there. Some servers let them be read and do not list them.
async fn users(link: &Link, survey: &mut Survey) -> Result<()> {
    for name in ACCESS {
        let namespace = Namespace::new("admin", name);
        let first =
            cursor::all(link, "admin", rawdoc! { "find": name, "limit": 1, "singleBatch": true }).await?;
        let listed = survey.collections.iter().any(|one| one.namespace == namespace);
        match first {
            Ok(found) if found.is_empty() || listed => {}
            Ok(_) => survey.collections.push(Collection {
                data: Some(Data {
                    namespace: namespace.clone(),
                    order: Order::Natural,
                    raw: false,
                    bytes: 0,
                    items: 0,
                }),
                namespace,
                kind: "collection".to_owned(),
                options: RawDocumentBuf::new(),
                uuid: None,
                indexes: Vec::new(),
            }),
            Err(error) if code_of(&error) == Some(code::UNAUTHORIZED) => {
                survey.collections.retain(|one| one.namespace != namespace);
                let why = "the user may not read it: grant it the role backup on admin";
                survey.omissions.push(Omission { what: namespace.to_string(), why: why.to_owned() });
            }
            Err(error) => return Err(failed(format!("looking at {namespace}"), error)),
        }
    }
    Ok(())
}

/// Adds what only other commands tell; none if it has gone meanwhile.
async fn detail(link: &Link, server: &Server, mut collection: Collection) -> Result<Option<Collection>> {
    let Namespace { db, collection: name } = &collection.namespace;
    if let Some(data) = &mut collection.data {
        let list = cursor::all(link, db, rawdoc! { "listIndexes": name.as_str() }).await?;
        collection.indexes = match list {
            Ok(indexes) => indexes,
            Err(error) if code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => match collection.uuid {
                Some(_) => return Ok(None),
                None => Vec::new(),
            },
            Err(error) => {
                return Err(failed(format!("listing the indexes of {}", collection.namespace), error));
            }
        };
        (data.bytes, data.items) = size(link, &data.namespace).await?;
        let by_id =
            collection.indexes.iter().any(|index| index.get_str("name").is_ok_and(|name| name == "_id_"));
        let clustered = data.raw
            || data.namespace.collection.starts_with(BUCKETS)
            || collection.options.get_document("clusteredIndex").is_ok();
        let bounded = by_id || (clustered && server.release() >= CLUSTERED_BOUNDS);
        let capped = is_true(&collection.options, "capped");
        data.order = if bounded && !capped { Order::Id } else { Order::Natural };
    }
    Ok(Some(collection))
}

/// Bytes and documents, as far as the server tells: over all shards, and guessed where it only counts.
async fn size(link: &Link, namespace: &Namespace) -> Result<(u64, u64)> {
    let pipeline = vec![doc! { "$collStats": { "storageStats": {} } }];
    let asked = doc! { "aggregate": &namespace.collection, "pipeline": pipeline, "cursor": {} };
    let Ok(reply) = link.attempt(&namespace.db, asked).await? else { return Ok((0, 0)) };
    let none = Vec::new();
    let shards = reply.get_document("cursor").and_then(|cursor| cursor.get_array("firstBatch"));
    let stats = shards.unwrap_or(&none).iter().filter_map(|shard| {
        let stats = shard.as_document()?.get_document("storageStats").ok()?;
        let told = |name: &str| stats.get(name).and_then(number).and_then(|told| u64::try_from(told).ok());
        Some((told("size").unwrap_or_default(), told("count").unwrap_or_default()))
    });
    let (bytes, items) = stats.fold((0, 0), |(a, b), (bytes, items)| (a + bytes, b + items));
    Ok((if bytes == 0 { items * USUAL_DOCUMENT } else { bytes }, items))
}

/// Whether a collection is still the one that was surveyed; unknown is yes.
pub async fn is_there(link: &Link, collection: &Collection) -> Result<bool> {
    let Namespace { db, collection: name } = &collection.namespace;
    let list = rawdoc! { "listCollections": 1, "filter": { "name": name.as_str() } };
    let Ok(found) = cursor::all(link, db, list).await? else { return Ok(true) };
    let Some(found) = found.first() else { return Ok(false) };
    let now = read(db, found)?;
    Ok(now.uuid == collection.uuid)
}

fn is_true(options: &RawDocumentBuf, name: &str) -> bool {
    options.get_bool(name).unwrap_or_default()
}
