//! Databases and collections: fed, really stored, or a view's definition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use bytes::Bytes;
use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, Document, doc};

use super::generate::Generated;
use super::key::Key;
use super::oplog::Oplog;
use super::refusal::{Refusal, Result};

/// Documents by their `_id`.
pub type Rows = BTreeMap<Key, Bytes>;

/// Where a collection's documents come from.
#[derive(Debug)]
pub enum Data {
    /// Made as they are read.
    Generated(Generated),
    /// The log.
    Oplog(Arc<Oplog>),
    /// What clients wrote.
    Stored(Mutex<Rows>),
    /// Nowhere: it is a view.
    View,
}

/// A collection or view.
#[derive(Debug)]
pub struct Collection {
    /// Its own id.
    pub uuid: Binary,
    /// What it was created with.
    pub options: Mutex<Document>,
    /// All of them, that of `_id` first.
    pub indexes: Mutex<Vec<Document>>,
    /// Its documents.
    pub data: Data,
}

impl Collection {
    /// A new one.
    pub fn new(options: Document, data: Data, number: u64) -> Self {
        let mut bytes = vec![0x77; 8];
        bytes.extend(number.to_be_bytes());
        let first = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
        let indexes = if matches!(data, Data::View) { Vec::new() } else { vec![first] };
        Collection {
            uuid: Binary { subtype: BinarySubtype::Uuid, bytes },
            options: Mutex::new(options),
            indexes: Mutex::new(indexes),
            data,
        }
    }

    /// What clients wrote.
    pub fn rows(&self) -> Result<MutexGuard<'_, Rows>> {
        match &self.data {
            Data::Stored(rows) => Ok(rows.lock().expect("no holder panics")),
            _ => Err(Refusal::bad("only stored collections can be written")),
        }
    }

    /// How many documents.
    pub fn count(&self) -> u64 {
        match &self.data {
            Data::Generated(generated) => generated.count,
            Data::Oplog(oplog) => oplog.count(),
            Data::Stored(rows) => rows.lock().expect("no holder panics").len() as u64,
            Data::View => 0,
        }
    }

    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        match &self.data {
            Data::Generated(generated) => generated.bytes(),
            Data::Oplog(oplog) => oplog.count() * 200,
            Data::Stored(rows) => {
                rows.lock().expect("no holder panics").values().map(|row| row.len() as u64).sum()
            }
            Data::View => 0,
        }
    }

    /// `ts` orders the oplog, `_id` everything else.
    pub fn order(&self) -> &'static str {
        if matches!(self.data, Data::Oplog(_)) { "ts" } else { "_id" }
    }

    /// As `listCollections` shows it.
    pub fn description(&self, name: &str) -> Document {
        let is_view = matches!(self.data, Data::View);
        let options = self.options.lock().expect("no holder panics").clone();
        let kind = match (is_view, options.contains_key("timeseries")) {
            (true, _) => "view",
            (_, true) => "timeseries",
            _ => "collection",
        };
        let mut all =
            doc! { "name": name, "type": kind, "options": options, "info": { "readOnly": is_view } };
        if !is_view {
            let first = self.indexes.lock().expect("no holder panics").first().cloned().unwrap_or_default();
            all.insert("info", doc! { "readOnly": false, "uuid": self.uuid.clone() });
            all.insert("idIndex", first);
        }
        all
    }
}

/// All of a server's collections.
#[derive(Debug, Default)]
pub struct Catalog {
    databases: RwLock<BTreeMap<String, BTreeMap<String, Arc<Collection>>>>,
    made: std::sync::atomic::AtomicU64,
}

impl Catalog {
    fn number(&self) -> u64 {
        self.made.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
    }

    /// The collection, if it is there.
    pub fn find(&self, db: &str, name: &str) -> Option<Arc<Collection>> {
        self.databases.read().expect("no holder panics").get(db)?.get(name).cloned()
    }

    /// The collection.
    pub fn get(&self, db: &str, name: &str) -> Result<Arc<Collection>> {
        self.find(db, name).ok_or_else(|| Refusal::no_namespace(&format!("{db}.{name}")))
    }

    /// The collection, made if it is not there: as a first insert does.
    pub fn made(&self, db: &str, name: &str) -> Arc<Collection> {
        if let Some(found) = self.find(db, name) {
            return found;
        }
        let mut databases = self.databases.write().expect("no holder panics");
        let make =
            || Arc::new(Collection::new(Document::new(), Data::Stored(Mutex::default()), self.number()));
        databases.entry(db.to_owned()).or_default().entry(name.to_owned()).or_insert_with(make).clone()
    }

    /// Makes a collection.
    pub fn create(&self, db: &str, name: &str, options: Document, data: Data) -> Result<Arc<Collection>> {
        let mut databases = self.databases.write().expect("no holder panics");
        let database = databases.entry(db.to_owned()).or_default();
        if database.contains_key(name) {
            return Err(Refusal::exists(&format!("{db}.{name}")));
        }
        let made = Arc::new(Collection::new(options, data, self.number()));
        database.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    /// Takes a collection away.
    pub fn drop(&self, db: &str, name: &str) -> Result<Arc<Collection>> {
        let mut databases = self.databases.write().expect("no holder panics");
        let gone = databases.get_mut(db).and_then(|database| database.remove(name));
        if databases.get(db).is_some_and(BTreeMap::is_empty) {
            databases.remove(db);
        }
        gone.ok_or_else(|| Refusal::no_namespace(&format!("{db}.{name}")))
    }

    /// Takes a database away.
    pub fn drop_database(&self, db: &str) {
        self.databases.write().expect("no holder panics").remove(db);
    }

    /// Renames, across databases too.
    pub fn rename(&self, from: (&str, &str), to: (&str, &str), over: bool) -> Result<()> {
        self.get(from.0, from.1)?;
        if self.find(to.0, to.1).is_some() {
            if !over {
                return Err(Refusal::exists(&format!("{}.{}", to.0, to.1)));
            }
            self.drop(to.0, to.1)?;
        }
        let moved = self.drop(from.0, from.1)?;
        let mut databases = self.databases.write().expect("no holder panics");
        databases.entry(to.0.to_owned()).or_default().insert(to.1.to_owned(), moved);
        Ok(())
    }

    /// The databases' names.
    pub fn databases(&self) -> Vec<String> {
        self.databases.read().expect("no holder panics").keys().cloned().collect()
    }

    /// A database's collections by name.
    pub fn collections(&self, db: &str) -> Vec<(String, Arc<Collection>)> {
        let databases = self.databases.read().expect("no holder panics");
        let all = databases.get(db).into_iter().flatten();
        all.map(|(name, collection)| (name.clone(), collection.clone())).collect()
    }
}
