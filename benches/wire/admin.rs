//! What the double says of itself, and what measurements ask it.

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, doc};

use super::Shared;
use super::filter::Filter;
use super::message::{MESSAGE_MAX, Request};
use super::reads::{number, says_yes, subject};
use super::refusal::{Refusal, Result};
use super::scan::Scan;
use super::store::Collection;
use super::{digest, oplog};

/// The set's name.
const SET: &str = "wire";

impl Shared {
    /// Commands that change nothing; none for one that is unknown.
    pub fn tell(&self, name: &str, db: &str, request: &Request) -> Result<Option<Document>> {
        let command = request.document()?;
        Ok(Some(match name {
            "hello" => self.hello("isWritablePrimary"),
            "isMaster" | "ismaster" => self.hello("ismaster"),
            "ping" | "endSessions" | "killSessions" | "refreshSessions" | "abortTransaction" => doc! {},
            "startSession" => doc! { "id": { "id": oplog::uuid() }, "timeoutMinutes": 30 },
            "buildInfo" | "buildinfo" => self.build(),
            "getParameter" => {
                doc! { "authSchemaVersion": 5, "featureCompatibilityVersion": { "version": "7.0" } }
            }
            "connectionStatus" => {
                let none: Vec<Bson> = Vec::new();
                doc! { "authInfo": { "authenticatedUsers": none.clone(), "authenticatedUserRoles": none } }
            }
            "usersInfo" => doc! { "users": Vec::<Bson>::new() },
            "rolesInfo" => doc! { "roles": Vec::<Bson>::new() },
            "replSetGetConfig" => self.configuration(),
            "replSetGetStatus" => self.status(),
            "replSetGetRBID" => doc! { "rbid": 1 },
            "serverStatus" => {
                doc! { "host": self.host(), "version": &self.options.version, "process": "mongod" }
            }
            "listDatabases" => self.list_databases(says_yes(&command, "nameOnly")),
            "count" => self.count(db, request)?,
            "collStats" | "collstats" => {
                let name = subject(&command)?;
                let mut stats = doc! { "ns": format!("{db}.{name}") };
                stats.extend(self.catalog.find(db, name).map(|found| storage(&found)).unwrap_or_default());
                stats
            }
            "dbStats" | "dbstats" => self.database_stats(db),
            "killCursors" => self.kill_cursors(&command),
            "wireStats" => self.stats.tell(says_yes(&command, "reset")),
            "wireBefall" => self.befall(&command)?,
            "wireDigest" => self.digests(db, command.get_str("wireDigest").ok()),
            "wireOplog" => self.grow(&command)?,
            _ => return Ok(None),
        }))
    }

    fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn hello(&self, writable: &str) -> Document {
        let op_time = doc! { "ts": self.now(), "t": 1_i64 };
        doc! {
            writable: true, "helloOk": true, "secondary": false,
            "setName": SET, "setVersion": 1, "electionId": ObjectId::from_bytes([0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 1]),
            "hosts": [self.host()], "me": self.host(), "primary": self.host(),
            "lastWrite": {
                "opTime": op_time.clone(), "lastWriteDate": DateTime::now(),
                "majorityOpTime": op_time, "majorityWriteDate": DateTime::now(),
            },
            "maxBsonObjectSize": 16 << 20, "maxMessageSizeBytes": MESSAGE_MAX as i32, "maxWriteBatchSize": 100_000,
            "localTime": DateTime::now(), "logicalSessionTimeoutMinutes": 30,
            "minWireVersion": 0, "maxWireVersion": 21, "readOnly": false,
        }
    }

    fn build(&self) -> Document {
        let mut numbers: Vec<i32> =
            self.options.version.split('.').map(|part| part.parse().unwrap_or(0)).collect();
        numbers.resize(4, 0);
        doc! { "version": &self.options.version, "versionArray": numbers, "bits": 64, "maxBsonObjectSize": 16 << 20 }
    }

    fn configuration(&self) -> Document {
        let members = vec![doc! { "_id": 0, "host": self.host() }];
        let settings = doc! { "replicaSetId": self.set_id };
        doc! { "config": { "_id": SET, "version": 1, "term": 1_i64, "members": members, "settings": settings } }
    }

    fn status(&self) -> Document {
        let op_time = doc! { "ts": self.now(), "t": 1_i64 };
        let member = doc! {
            "_id": 0, "name": self.host(), "state": 1, "stateStr": "PRIMARY", "self": true,
            "optime": op_time.clone(),
        };
        doc! {
            "set": SET, "myState": 1, "term": 1_i64, "members": [member],
            "optimes": { "lastCommittedOpTime": op_time.clone(), "appliedOpTime": op_time },
        }
    }

    fn list_databases(&self, is_name_only: bool) -> Document {
        let names = self.catalog.databases().into_iter();
        let databases: Vec<Document> = names
            .map(|name| match is_name_only {
                true => doc! { "name": name },
                false => {
                    let size: u64 = self.catalog.collections(&name).iter().map(|(_, one)| one.bytes()).sum();
                    doc! { "name": name, "sizeOnDisk": size as i64, "empty": false }
                }
            })
            .collect();
        doc! { "databases": databases }
    }

    fn count(&self, db: &str, request: &Request) -> Result<Document> {
        let command = request.document()?;
        let Some(collection) = self.catalog.find(db, subject(&command)?) else { return Ok(doc! { "n": 0 }) };
        let filter = match request.raw()?.get_document("query") {
            Ok(query) => Filter::parse(query, collection.order())?,
            Err(_) => Filter::all(),
        };
        let mut scan = Scan::new(collection, filter);
        let count = scan.known_count().unwrap_or_else(|| {
            let (mut out, mut count) = (super::Out::default(), 0);
            while scan.next_into(&mut out) {
                out.truncate(0);
                count += 1;
            }
            count
        });
        Ok(doc! { "n": i32::try_from(count).unwrap_or(i32::MAX) })
    }

    fn database_stats(&self, db: &str) -> Document {
        let all = self.catalog.collections(db);
        let size: u64 = all.iter().map(|(_, one)| one.bytes()).sum();
        let objects: u64 = all.iter().map(|(_, one)| one.count()).sum();
        doc! { "db": db, "collections": all.len() as i32, "objects": objects as i64, "dataSize": size as i64 }
    }

    /// Digests of a database's collections, or of one.
    fn digests(&self, db: &str, only: Option<&str>) -> Document {
        let all =
            self.catalog.collections(db).into_iter().filter(|(name, _)| only.is_none_or(|only| only == name));
        let each: Vec<Document> = all.map(|(name, one)| digest::of(&format!("{db}.{name}"), &one)).collect();
        doc! { "namespaces": each }
    }

    /// Adds operations to the log, once, and does them too.
    fn grow(&self, command: &Document) -> Result<Document> {
        let operations = number(command, "wireOplog").filter(|count| *count > 0);
        let operations = operations.ok_or_else(|| Refusal::bad("wireOplog wants a number"))? as u64;
        let ns = format!("{}.{}", oplog::DATABASE, oplog::COLLECTION);
        if self.catalog.find(oplog::DATABASE, oplog::COLLECTION).is_some() {
            return Err(Refusal::exists(&ns));
        }
        let begin = self.oplog.count();
        let (first, last) = self.oplog.append(operations);
        for n in begin..self.oplog.count() {
            let entry =
                mongodb::bson::RawDocumentBuf::try_from(&self.oplog.entry(n)).map_err(Refusal::malformed)?;
            self.apply(&entry)?;
        }
        Ok(doc! { "first": first, "last": last, "ns": ns })
    }
}

/// Sizes of a collection.
pub fn storage(collection: &Collection) -> Document {
    let (count, size) = (collection.count(), collection.bytes());
    let indexes = collection.indexes.lock().expect("no holder panics").len();
    let mut sizes = doc! {
        "size": size as i64, "count": count as i64, "avgObjSize": (size / count.max(1)) as i64,
        "storageSize": size as i64, "nindexes": indexes as i32, "totalIndexSize": 0,
    };
    let options = collection.options.lock().expect("no holder panics");
    let capped = says_yes(&options, "capped");
    sizes.insert("capped", capped);
    if capped {
        sizes.insert("maxSize", number(&options, "size").unwrap_or(0));
    }
    sizes
}
