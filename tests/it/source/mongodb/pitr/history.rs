//! A writer that plays dice, remembers after each operation how far the log was, and what the model says of the data then.

use futures_util::TryStreamExt;
use mongodb::bson::{Bson, Document, doc};
use mongodb::{Client, ClientSession};
use tidekeeper::source::mongodb::optime::OpTime;

use super::model::{Act, State};
use crate::harness::mongodb::MongoServer;

/// xorshift64*: small, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed | 1)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.roll() >> 33) as usize % bound.max(1)
    }
}

/// What was written, and when.
pub struct History {
    pub seed: u64,
    client: Client,
    dice: Dice,
    state: State,
    next_id: i32,
    /// Each operation, and how far the log was after it.
    acts: Vec<(Act, OpTime)>,
    /// After each entry of the log: its stamp, and the data then.
    moments: Vec<(OpTime, State)>,
    /// The stamps of transactions.
    together: Vec<OpTime>,
}

const HOMES: [&str; 3] = ["shop.orders", "shop.users", "odd-db.a b%c"];

impl History {
    pub async fn new(server: &MongoServer, seed: u64) -> Self {
        let client = server.client().await;
        let mut history = History {
            seed,
            client,
            dice: Dice::new(seed),
            state: State::default(),
            next_id: 0,
            acts: Vec::new(),
            moments: Vec::new(),
            together: Vec::new(),
        };
        for home in HOMES {
            let documents = (0..20).map(|_| history.document()).collect();
            history.act(Act::Insert(home.to_owned(), documents)).await;
        }
        history
    }

    pub async fn write(&mut self, count: usize) {
        for _ in 0..count {
            let act = self.dream();
            self.act(act).await;
        }
    }

    /// The stamp of the last entry.
    pub fn last(&self) -> OpTime {
        self.moments.last().expect("something was written").0
    }

    pub fn moments(&self) -> impl Iterator<Item = OpTime> {
        self.moments.iter().map(|(at, _)| *at)
    }

    /// Stamps that several entries share: those of transactions.
    pub fn equal_stamps(&self) -> Vec<OpTime> {
        self.together.clone()
    }

    /// What the data was at a moment: after the last entry that was written by then.
    pub fn at(&self, moment: OpTime) -> State {
        let before = self.moments.iter().rev().find(|(at, _)| *at <= moment);
        before.map(|(_, state)| state.clone()).unwrap_or_default()
    }

    /// Reads the stamps that the server gave to what was written, and tells the whole history anew by them. An operation's entries
    /// lie behind the mark before it, and not behind its own; a transaction has one stamp, any other entry its own.
    pub async fn conclude(&mut self) {
        let log = self.client.database("local").collection::<Document>("oplog.rs");
        let entries: Vec<Document> =
            log.find(doc! {}).await.expect("it is read").try_collect().await.expect("it is read");
        let writes = entries.iter().filter(|entry| entry.get_str("op").is_ok_and(|op| op != "n"));
        let mut stamps: Vec<OpTime> =
            writes.map(|entry| entry.get_timestamp("ts").expect("a stamp").into()).collect();
        stamps.dedup();
        let (mut stamps, mut state) = (stamps.into_iter().peekable(), State::default());
        for (act, mark) in &self.acts {
            let mut own = Vec::new();
            while let Some(at) = stamps.next_if(|at| at <= mark) {
                own.push(at);
            }
            let parts = act.parts();
            assert_eq!(own.len(), parts.len(), "entries of {act:?} up to {mark}: {own:?}");
            for (at, part) in own.into_iter().zip(parts) {
                state.apply(&part);
                if matches!(part, Act::Together(_)) {
                    self.together.push(at);
                }
                self.moments.push((at, state.clone()));
            }
        }
        assert_eq!(stamps.next(), None, "an entry behind the last mark");
        assert_eq!(state, self.state);
    }

    async fn act(&mut self, act: Act) {
        self.perform(&act, None).await;
        self.state.apply(&act);
        let pong = self.client.database("admin").run_command(doc! { "ping": 1 }).await.expect("it answers");
        let at: OpTime = pong.get_timestamp("operationTime").expect("it tells the time").into();
        self.acts.push((act, at));
    }

    async fn perform(&self, act: &Act, session: Option<&mut ClientSession>) {
        match act {
            Act::Together(acts) => {
                let mut session = self.client.start_session().await.expect("a session");
                session.start_transaction().await.expect("a transaction");
                for act in acts {
                    Box::pin(self.perform(act, Some(&mut session))).await;
                }
                session.commit_transaction().await.expect("it commits");
            }
            Act::Rename(from, to) => {
                self.run("admin", doc! { "renameCollection": from, "to": to }, session).await;
            }
            Act::Drop(of) => {
                let (db, collection) = of.split_once('.').expect("a namespace");
                self.run(db, doc! { "drop": collection }, session).await;
            }
            Act::Insert(of, documents) => {
                let (db, collection) = of.split_once('.').expect("a namespace");
                self.run(db, doc! { "insert": collection, "documents": documents.clone() }, session).await;
            }
            Act::Delete(of, id) => {
                let (db, collection) = of.split_once('.').expect("a namespace");
                let delete = doc! { "delete": collection, "deletes": [{ "q": { "_id": id }, "limit": 1 }] };
                self.run(db, delete, session).await;
            }
            Act::Set(of, id, field, value) => {
                self.update(of, *id, doc! { "$set": { field: value.clone() } }, session).await;
            }
            Act::Unset(of, id, field) => {
                self.update(of, *id, doc! { "$unset": { field: "" } }, session).await;
            }
            Act::Push(of, id, value) => {
                self.update(of, *id, doc! { "$push": { "list": value.clone() } }, session).await;
            }
            Act::Replace(of, id, document) => self.update(of, *id, document.clone(), session).await,
        }
    }

    async fn update(&self, of: &str, id: i32, update: Document, session: Option<&mut ClientSession>) {
        let (db, collection) = of.split_once('.').expect("a namespace");
        let command = doc! { "update": collection, "updates": [{ "q": { "_id": id }, "u": update }] };
        self.run(db, command, session).await;
    }

    async fn run(&self, db: &str, command: Document, session: Option<&mut ClientSession>) {
        let database = self.client.database(db);
        let sent = match session {
            Some(session) => database.run_command(command.clone()).session(session).await,
            None => database.run_command(command.clone()).await,
        };
        let reply = sent.unwrap_or_else(|error| panic!("{command}: {error}"));
        assert!(!reply.contains_key("writeErrors"), "{command}: {reply}");
    }

    fn document(&mut self) -> Document {
        self.next_id += 1;
        let n = self.dice.below(1000) as i32;
        doc! {
            "_id": self.next_id, "n": n, "text": "x".repeat(self.dice.below(40)),
            "list": [n, "two", { "three": 3.5 }], "inner": { "a": n, "b": Bson::Null },
        }
    }

    /// What the writer does next. What it would do to something that is not there becomes an insert.
    fn dream(&mut self) -> Act {
        match self.dice.below(100) {
            0..=3 => self.transaction(),
            4..=5 => self.rename(),
            6 => Act::Insert(format!("shop.temp-{}", self.next_id), vec![self.document()]),
            7 => match self.temporary() {
                Some(of) => Act::Drop(of),
                None => self.simple(),
            },
            _ => self.simple(),
        }
    }

    fn temporary(&self) -> Option<String> {
        self.state.collections().find(|of| of.starts_with("shop.temp")).map(str::to_owned)
    }

    fn rename(&mut self) -> Act {
        match self.temporary() {
            Some(from) => Act::Rename(from, format!("shop.temp-r{}", self.dice.roll() % 100_000)),
            None => self.simple(),
        }
    }

    fn transaction(&mut self) -> Act {
        let mut acts = Vec::new();
        for home in HOMES.iter().take(2) {
            let document = self.document();
            acts.push(Act::Insert((*home).to_owned(), vec![document]));
        }
        if let Some((of, id)) = self.somebody() {
            acts.push(Act::Set(of, id, "together".to_owned(), Bson::Int32(self.next_id)));
        }
        Act::Together(acts)
    }

    fn somebody(&mut self) -> Option<(String, i32)> {
        let of = HOMES[self.dice.below(HOMES.len())].to_owned();
        let ids = self.state.ids(&of);
        (!ids.is_empty()).then(|| (of, ids[self.dice.below(ids.len())]))
    }

    fn simple(&mut self) -> Act {
        let roll = self.dice.below(10);
        let n = self.dice.roll() as i32;
        match (self.somebody(), roll) {
            (Some((of, id)), 0..=1) => Act::Set(of, id, "n".to_owned(), Bson::Int32(n)),
            (Some((of, id)), 2) => Act::Set(of, id, format!("f{}", n & 7), doc! { "deep": n }.into()),
            (Some((of, id)), 3) if self.has(&of, id, "text") => Act::Unset(of, id, "text".to_owned()),
            (Some((of, id)), 4) => Act::Push(of, id, Bson::Int32(n)),
            (Some((of, id)), 5) => {
                let mut document = self.document();
                self.next_id -= 1;
                document.insert("_id", id);
                Act::Replace(of, id, document)
            }
            (Some((of, id)), 6) => Act::Delete(of, id),
            _ => {
                let of = HOMES[self.dice.below(HOMES.len())].to_owned();
                let count = 1 + self.dice.below(3);
                let documents = (0..count).map(|_| self.document()).collect();
                Act::Insert(of, documents)
            }
        }
    }

    fn has(&self, of: &str, id: i32, field: &str) -> bool {
        let found =
            self.state.documents(of).into_iter().find(|one| one.get_i32("_id").is_ok_and(|it| it == id));
        found.is_some_and(|document| document.contains_key(field))
    }
}

/// The databases of a server that are not its own.
async fn databases(client: &Client) -> Vec<mongodb::Database> {
    let names = client.list_database_names().await.expect("they are listed");
    let foreign = names.into_iter().filter(|name| !["admin", "local", "config"].contains(&name.as_str()));
    foreign.map(|name| client.database(&name)).collect()
}

/// Drops all of them.
pub async fn empty(server: &MongoServer) {
    for database in databases(&server.client().await).await {
        database.drop().await.expect("it is dropped");
    }
}

/// All documents of a server, but for what is the server's own.
pub async fn contents(server: &MongoServer) -> State {
    let client = server.client().await;
    let mut state = State::default();
    for database in databases(&client).await {
        for name in database.list_collection_names().await.expect("they are listed") {
            let found = database.collection::<Document>(&name).find(doc! {}).await.expect("it is read");
            let documents: Vec<Document> = found.try_collect().await.expect("they are read");
            documents
                .into_iter()
                .for_each(|document| state.put(&format!("{}.{name}", database.name()), document));
        }
    }
    state
}
