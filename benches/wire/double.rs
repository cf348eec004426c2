//! A double of a MongoDB server: fast enough that whoever reads from it or writes to it is what is measured.
//!
//! It feeds generated collections at socket speed, really stores what is written, applies `applyOps`, has a generated oplog, and
//! counts. It is one member of a replica set, without authentication, TLS, compression, transactions, or a log of its own writes.
//! Benchmarks start it as a process, tests in their own.

mod admin;
mod apply;
pub mod client;
mod ddl;
mod digest;
mod filter;
pub mod generate;
mod key;
mod message;
mod oplog;
mod reads;
mod refusal;
mod scan;
mod store;
mod update;
mod writes;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::{self, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Document, Timestamp};

use self::generate::{Generated, Ids, Template};
use self::message::{Out, Request};
use self::oplog::Oplog;
use self::refusal::{Refusal, Result};
use self::store::{Catalog, Data};

/// What a reply may leave allocated until the next.
const KEEP: usize = 32 << 20;

/// How the double behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// What it says its version is.
    pub version: String,
    /// How long every reply takes longer.
    pub rtt: Duration,
    /// Whether it applies `applyOps`, as hosted and compatible servers do not.
    pub apply_ops: bool,
    /// Whether it grants snapshot reads: only what is generated stands still.
    pub snapshots: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { version: "7.0.14".to_owned(), rtt: Duration::ZERO, apply_ops: true, snapshots: true }
    }
}

/// A collection that is fed.
#[derive(Clone, Debug, PartialEq)]
pub struct Fed {
    /// Its database.
    pub db: String,
    /// Its name.
    pub name: String,
    /// About how many bytes.
    pub bytes: u64,
    /// About how many a document has.
    pub document: usize,
    /// Of which type its ids are.
    pub ids: Ids,
}

/// What befalls the answer to a command that was done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mishap {
    /// It does not come: the link is closed.
    Lost,
    /// It says that most members do not have it, with this code.
    Unmet(i32),
}

/// A running double.
#[derive(Debug)]
pub struct Double {
    shared: Arc<Shared>,
    /// Where it listens, on loopback.
    pub port: u16,
}

/// What the connections share.
#[derive(Debug)]
struct Shared {
    options: Options,
    port: u16,
    /// Of the replica set: another for every double, so that two are never taken for one.
    set_id: ObjectId,
    catalog: Catalog,
    oplog: Arc<Oplog>,
    cursors: Mutex<HashMap<i64, reads::Cursor>>,
    next_cursor: AtomicI64,
    stats: Stats,
    /// Which commands, after how many others of that name.
    mishaps: Mutex<Vec<(String, usize, Mishap)>>,
    ends: AtomicBool,
}

/// What has passed so far.
#[derive(Debug, Default)]
struct Stats {
    round_trips: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    commands: Mutex<BTreeMap<String, u64>>,
    /// Commands that came without a write concern.
    hasty: Mutex<BTreeSet<String>>,
}

impl Double {
    /// Listens on a port of loopback, 0 for any.
    pub fn start(options: Options, port: u16) -> io::Result<Double> {
        let listener = TcpListener::bind(("127.0.0.1", port))?;
        let port = listener.local_addr()?.port();
        let oplog = Arc::new(Oplog::new());
        let shared = Arc::new(Shared {
            options,
            port,
            set_id: ObjectId::new(),
            catalog: Catalog::default(),
            oplog: oplog.clone(),
            cursors: Mutex::default(),
            next_cursor: AtomicI64::new(1 << 40),
            stats: Stats::default(),
            mishaps: Mutex::default(),
            ends: AtomicBool::new(false),
        });
        let capped = mongodb::bson::doc! { "capped": true, "size": 1_i64 << 34 };
        let made = shared.catalog.create("local", "oplog.rs", capped, Data::Oplog(oplog));
        debug_assert!(made.is_ok(), "a new catalog is empty");
        let accepting = shared.clone();
        std::thread::spawn(move || accept(&listener, &accepting));
        Ok(Double { shared, port })
    }

    /// Adds collections that are fed; those with documents of one kind share a template.
    pub fn feed(&self, fed: &[Fed]) -> io::Result<()> {
        let mut templates: Vec<(usize, Ids, Arc<Template>)> = Vec::new();
        for (n, one) in fed.iter().enumerate() {
            let known = templates.iter().find(|(size, ids, _)| (*size, *ids) == (one.document, one.ids));
            let template = match known {
                Some((_, _, template)) => template.clone(),
                None => {
                    let made = Arc::new(Template::new(one.document, one.ids));
                    templates.push((one.document, one.ids, made.clone()));
                    made
                }
            };
            let count = (one.bytes / template.mean()).max(1);
            let data = Data::Generated(Generated::new(template, count, n as u64));
            self.shared
                .catalog
                .create(&one.db, &one.name, Document::new(), data)
                .map_err(|refusal| io::Error::other(refusal.document().to_string()))?;
        }
        Ok(())
    }

    /// How to reach it.
    pub fn uri(&self) -> String {
        format!("mongodb://127.0.0.1:{}", self.port)
    }
}

impl Drop for Double {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::Relaxed);
        // Wakes the listener.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        if shared.ends.load(Ordering::Relaxed) {
            return;
        }
        let shared = shared.clone();
        std::thread::spawn(move || shared.serve(stream));
    }
}

impl Shared {
    /// Answers one client until it leaves; a client that breaks the protocol is told to leave.
    fn serve(&self, mut stream: TcpStream) {
        let _ = stream.set_nodelay(true);
        let mut out = Out::default();
        while let Ok(Some(request)) = Request::read(&mut stream) {
            let (name, is_lost) = self.answer(&request, &mut out);
            if is_lost || self.ends.load(Ordering::Relaxed) {
                return;
            }
            let sent = if request.wants_reply { out.end() } else { &[] };
            self.stats.count(&name, request.length, sent.len());
            self.delay();
            if stream.write_all(sent).is_err() {
                return;
            }
            out.shrink(KEEP);
        }
    }

    /// Writes the reply; gives the command's name, and whether the reply is lost.
    fn answer(&self, request: &Request, out: &mut Out) -> (String, bool) {
        let named = request.raw().ok().and_then(|body| {
            let (name, _) = body.iter().next()?.ok()?;
            Some((name.as_str().to_owned(), body.get_str("$db").unwrap_or("admin").to_owned()))
        });
        let (name, db) = named.unwrap_or_default();
        let is_hasty = request.raw().is_ok_and(|body| body.get_document("writeConcern").is_err());
        if is_hasty && !name.starts_with("wire") {
            self.stats.hasty.lock().expect("no holder panics").insert(name.clone());
        }
        let mishap = self.mishap(&name);
        out.begin(request);
        if let Err(refusal) = self.command(&name, &db, request, mishap, out) {
            out.begin(request);
            let written = out.document(&refusal.document());
            debug_assert!(written.is_ok(), "a refusal is a document");
        }
        (name, mishap == Some(Mishap::Lost))
    }

    /// `wireBefall` names a command: after so many others of that name, its answer is lost, or says with a code that most
    /// members do not have it.
    fn befall(&self, command: &Document) -> Result<Document> {
        let name = command.get_str("wireBefall").map_err(|_| Refusal::bad("wireBefall wants a name"))?;
        let after = command.get_i32("after").ok().and_then(|after| usize::try_from(after).ok()).unwrap_or(0);
        let mishap = command.get_i32("unmet").map_or(Mishap::Lost, Mishap::Unmet);
        self.mishaps.lock().expect("no holder panics").push((name.to_owned(), after, mishap));
        Ok(Document::new())
    }

    fn mishap(&self, name: &str) -> Option<Mishap> {
        let mut mishaps = self.mishaps.lock().expect("no holder panics");
        let at = mishaps.iter().position(|(command, ..)| command == name)?;
        match mishaps[at].1.checked_sub(1) {
            Some(left) => {
                mishaps[at].1 = left;
                None
            }
            None => Some(mishaps.remove(at).2),
        }
    }

    fn command(
        &self,
        name: &str,
        db: &str,
        request: &Request,
        mishap: Option<Mishap>,
        out: &mut Out,
    ) -> Result<()> {
        match name {
            "find" => self.find(db, request, out),
            "getMore" => self.get_more(db, request, out),
            "aggregate" => self.aggregate(db, &request.document()?, out),
            "listCollections" => self.list_collections(db, &request.document()?, out),
            "listIndexes" => self.list_indexes(db, &request.document()?, out),
            _ => {
                let mut reply = match name {
                    "insert" => self.insert(db, request)?,
                    "update" => self.update(db, request)?,
                    "delete" => self.delete(db, request)?,
                    "applyOps" if self.options.apply_ops => self.apply_ops(request)?,
                    _ => match self.change(name, db, request)? {
                        Some(reply) => reply,
                        None => self.tell(name, db, request)?.ok_or_else(|| Refusal::no_command(name))?,
                    },
                };
                if let Some(Mishap::Unmet(code)) = mishap {
                    let concern =
                        mongodb::bson::doc! { "code": code, "errmsg": "most members do not have it" };
                    reply.insert("writeConcernError", concern);
                }
                out.document(&self.stamped(reply))
            }
        }
    }

    /// What every reply ends with.
    fn stamped(&self, mut reply: Document) -> Document {
        if !reply.contains_key("ok") {
            reply.insert("ok", 1.0);
        }
        reply.insert("operationTime", self.now());
        reply
    }

    /// The time of the newest operation.
    fn now(&self) -> Timestamp {
        self.oplog.newest()
    }

    /// Holds a reply back as a longer line would.
    fn delay(&self) {
        if self.options.rtt.is_zero() {
            return;
        }
        let (never, nobody) = (Mutex::new(()), Condvar::new());
        let held = never.lock().expect("nobody else holds it");
        drop(nobody.wait_timeout_while(held, self.options.rtt, |()| true));
    }
}

impl Stats {
    fn count(&self, name: &str, came: usize, went: usize) {
        if name.starts_with("wire") {
            return;
        }
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        self.bytes_in.fetch_add(came as u64, Ordering::Relaxed);
        self.bytes_out.fetch_add(went as u64, Ordering::Relaxed);
        *self.commands.lock().expect("no holder panics").entry(name.to_owned()).or_default() += 1;
    }

    /// As a document; and from zero again, if asked.
    fn tell(&self, and_reset: bool) -> Document {
        let read = |counter: &AtomicU64| match and_reset {
            true => counter.swap(0, Ordering::Relaxed) as i64,
            false => counter.load(Ordering::Relaxed) as i64,
        };
        let mut commands = self.commands.lock().expect("no holder panics");
        let each: Document =
            commands.iter().map(|(name, count)| (name.clone(), (*count as i64).into())).collect();
        let mut hasty = self.hasty.lock().expect("no holder panics");
        let all: Vec<String> = hasty.iter().cloned().collect();
        if and_reset {
            commands.clear();
            hasty.clear();
        }
        mongodb::bson::doc! {
            "round_trips": read(&self.round_trips),
            "bytes_in": read(&self.bytes_in),
            "bytes_out": read(&self.bytes_out),
            "commands": each,
            "hasty": all,
        }
    }
}
