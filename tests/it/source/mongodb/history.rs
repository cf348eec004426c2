//! What tests of the replay share: a writer that changes a server in every way, and what a server holds, to the byte.

use std::collections::BTreeMap;

use futures_util::TryStreamExt as _;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::{Client, Database};
use tidekeeper::source::mongodb::oplog::entry::stamp;
use tidekeeper::source::mongodb::optime::OpTime;

use crate::harness::mongodb::MongoServer;

/// Numbers that a seed gives again.
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// A seed of its own, or the one that `TIDEKEEPER_TEST_SEED` names; printed.
    pub fn new() -> Self {
        let named = std::env::var("TIDEKEEPER_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = named.unwrap_or_else(|| {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes).expect("random bytes");
            u64::from_le_bytes(bytes)
        });
        println!("TIDEKEEPER_TEST_SEED={seed}");
        Dice(seed)
    }

    /// Below `n`.
    pub fn roll(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) % n
    }

    fn value(&mut self) -> Bson {
        match self.roll(6) {
            0 => Bson::Int32(self.roll(1000) as i32),
            1 => Bson::Int64(self.roll(1000) as i64),
            2 => Bson::Double(self.roll(1000) as f64 / 8.0),
            3 => Bson::String(format!("é{}\0", self.roll(1000))),
            4 => Bson::Null,
            _ => Bson::Boolean(self.roll(2) == 0),
        }
    }

    /// Few, so that documents are met again; of several types, so that all kinds are.
    fn id(&mut self) -> Bson {
        let n = self.roll(8);
        match self.roll(5) {
            0 => Bson::Int32(n as i32),
            1 => Bson::Int64(100 + n as i64),
            2 => Bson::Double(n as f64 + 0.5),
            3 => Bson::String(format!("id {n}")),
            _ => Bson::Document(doc! { "k": n as i32, "l": { "m": true } }),
        }
    }

    fn document(&mut self, id: Bson) -> Document {
        let list: Vec<Bson> = (0..self.roll(5)).map(|_| self.value()).collect();
        doc! {
            "_id": id,
            "v": self.value(),
            "s": { "p": self.value(), "q": { "r": self.value() } },
            "a": list,
            "d": [{ "x": self.value() }, { "x": self.value(), "y": 1 }],
        }
    }

    /// At most one new field each: where a server logs several, it does not log their order.
    fn update(&mut self) -> Document {
        let at = self.roll(5);
        match self.roll(17) {
            0 => doc! { "$set": { "v": self.value() } },
            1 => doc! { "$set": { "s.p": self.value() } },
            2 => doc! { "$set": { "s.q.r": self.value() } },
            3 => doc! { "$set": { format!("new{at}"): self.value() } },
            4 => doc! { "$unset": { "v": "", "s.q": "" } },
            5 => doc! { "$push": { "a": self.value() } },
            6 => doc! { "$push": { "a": { "$each": [1, "two", 3.5], "$slice": -4 } } },
            7 => doc! { "$pull": { "a": { "$lt": 500 } } },
            8 => doc! { "$pop": { "a": 1 } },
            9 => doc! { "$set": { format!("a.{}", at + 1): self.value() } },
            10 => doc! { "$set": { "d.1.x": self.value() } },
            11 => doc! { "$set": { "s": { "p": self.value(), "0": self.value() } } },
            12 => doc! { "$set": { "s.0": self.value() } },
            13 => doc! { "$unset": { format!("new{at}"): "" } },
            14 => doc! { "$rename": { "v": format!("new{at}") } },
            15 => doc! { "$set": { "v": { "deep": [[1, { "e": self.value() }], []] } } },
            _ => doc! { "$unset": { "a.0": "" } },
        }
    }
}

/// The collections that the writer uses.
pub const NAMES: [(&str, &str); 3] = [("one", "a"), ("one", "b"), ("two", "a.c")];

/// Changes a server. What the server refuses has not happened.
pub struct Writer {
    client: Client,
    /// Where its numbers come from.
    pub dice: Dice,
    /// Whether collections are renamed too.
    pub renames: bool,
}

impl Writer {
    pub async fn new(server: &MongoServer, renames: bool) -> Self {
        Writer { client: server.client().await, dice: Dice::new(), renames }
    }

    /// One change of some kind.
    ///
    /// The server makes a collection for an update that finds nothing, and does not log that. So it is made before, which is
    /// refused if it is there.
    pub async fn step(&mut self) {
        let (db, name) = NAMES[self.dice.roll(3) as usize];
        for (db, name) in NAMES {
            drop(self.client.database(db).create_collection(name).await);
        }
        match self.dice.roll(40) {
            0..=24 => self.write(db, name).await,
            25..=28 => self.transaction().await,
            _ => self.command(db, name).await,
        }
    }

    async fn write(&mut self, db: &str, name: &str) {
        let collection = self.client.database(db).collection::<Document>(name);
        let id = self.dice.id();
        let one = doc! { "_id": id.clone() };
        match self.dice.roll(12) {
            0..=2 => drop(collection.insert_one(self.dice.document(id)).await),
            3 => {
                let many: Vec<_> = (0..5).map(|_| ObjectId::new().into()).collect();
                let many = many.into_iter().map(|id| self.dice.document(id));
                drop(collection.insert_many(many.collect::<Vec<_>>()).await);
            }
            4..=6 => drop(collection.update_one(one, self.dice.update()).await),
            7 => drop(collection.update_many(doc! {}, self.dice.update()).await),
            8 => drop(collection.replace_one(one, self.dice.document(id)).upsert(true).await),
            9 => {
                let set = doc! { "$set": { "v": { "$concatArrays": ["$a", [self.dice.value()]] } } };
                drop(collection.update_one(one, vec![set]).await);
            }
            10 => drop(collection.delete_one(one).await),
            _ => drop(collection.delete_many(doc! { "v": { "$lt": 100 } }).await),
        }
    }

    async fn transaction(&mut self) {
        let mut session = self.client.start_session().await.expect("a session");
        session.start_transaction().await.expect("a transaction");
        let mut fine = true;
        for _ in 0..1 + self.dice.roll(5) {
            let (db, name) = NAMES[self.dice.roll(3) as usize];
            let collection = self.client.database(db).collection::<Document>(name);
            let id = self.dice.id();
            let one = doc! { "_id": id.clone() };
            fine &= match self.dice.roll(3) {
                0 => collection.update_one(one, self.dice.update()).session(&mut session).await.is_ok(),
                1 => collection.delete_one(one).session(&mut session).await.is_ok(),
                _ => {
                    let document = self.dice.document(id);
                    collection.replace_one(one, document).upsert(true).session(&mut session).await.is_ok()
                }
            };
        }
        let end = match fine && self.dice.roll(4) > 0 {
            true => session.commit_transaction().await,
            false => session.abort_transaction().await,
        };
        drop(end);
    }

    async fn command(&mut self, db: &str, name: &str) {
        let database = self.client.database(db);
        let n = self.dice.roll(4);
        let spec = |name: String| doc! { "key": { name.clone(): 1 }, "name": name, "sparse": true };
        let command = match self.dice.roll(9) {
            0 | 1 => {
                doc! { "createIndexes": name, "indexes": [spec(format!("v{n}")), spec(format!("w{n}"))] }
            }
            2 => doc! { "dropIndexes": name, "index": format!("v{n}") },
            3 => doc! { "dropIndexes": name, "index": "*" },
            4 => {
                doc! { "create": format!("made{n}"), "validator": { "v": { "$ne": 7 } }, "validationAction": "warn" }
            }
            5 => {
                doc! { "create": format!("view{n}"), "viewOn": name, "pipeline": [{ "$match": { "v": 1 } }] }
            }
            6 => doc! { "drop": if n == 0 { name.to_owned() } else { format!("made{n}") } },
            7 => doc! { "drop": format!("view{n}") },
            _ if self.renames => return self.rename(db, name, n).await,
            _ => return,
        };
        drop(database.run_command(command).await);
    }

    async fn rename(&mut self, db: &str, name: &str, n: u64) {
        let to = if n == 0 { "two.moved".to_owned() } else { format!("{db}.made{n}") };
        let command = doc! { "renameCollection": format!("{db}.{name}"), "to": to, "dropTarget": true };
        drop(self.client.database("admin").run_command(command).await);
    }
}

/// What a server holds: per collection and view how it was made, and its documents in the order of their bytes.
pub type State = BTreeMap<String, (Document, Vec<Vec<u8>>)>;

/// What a server holds.
pub async fn state(client: &Client) -> State {
    let mut state = State::new();
    for db in databases(client).await {
        for collection in collections(&db).await {
            let name = collection.get_str("name").expect("a name");
            let is_view = collection.get_str("type").expect("a type") == "view";
            let mut documents = match is_view {
                true => Vec::new(),
                false => documents(&db, name).await,
            };
            documents.sort();
            let options = collection.get_document("options").expect("options").clone();
            state.insert(format!("{}.{name}", db.name()), (options, documents));
        }
    }
    state
}

/// A collection's documents, in their natural order.
pub async fn documents(db: &Database, name: &str) -> Vec<Vec<u8>> {
    let found = db.collection::<RawDocumentBuf>(name).find(doc! {}).await.expect("a cursor");
    found.map_ok(RawDocumentBuf::into_bytes).try_collect().await.expect("documents")
}

/// The indexes of a collection but the one on `_id`.
pub async fn indexes(db: &Database, name: &str) -> Vec<Vec<u8>> {
    let listed = db.run_cursor_command(doc! { "listIndexes": name }).await.expect("indexes");
    let listed: Vec<Document> = listed.try_collect().await.expect("indexes");
    let own = listed.into_iter().filter(|index| index.get_str("name").expect("a name") != "_id_");
    own.map(|index| RawDocumentBuf::try_from(&index).expect("a document").into_bytes()).collect()
}

/// Empties a server.
pub async fn clear(client: &Client) {
    for db in databases(client).await {
        db.drop().await.expect("it is dropped");
    }
}

/// The whole log, an entry each.
pub async fn log(client: &Client) -> Vec<Vec<u8>> {
    documents(&client.database("local"), "oplog.rs").await
}

/// The last place in the log.
pub fn end(log: &[Vec<u8>]) -> OpTime {
    log.last().and_then(|entry| stamp(entry)).expect("a log")
}

async fn databases(client: &Client) -> Vec<Database> {
    let names = client.list_database_names().await.expect("names");
    let own = |name: &String| !matches!(&**name, "local" | "config" | "admin");
    names.into_iter().filter(own).map(|name| client.database(&name)).collect()
}

async fn collections(db: &Database) -> Vec<Document> {
    let listed = db.run_cursor_command(doc! { "listCollections": 1 }).await.expect("collections");
    listed.try_collect().await.expect("collections")
}
