//! What tests of the log share: entries as they are written down, what a server's log holds.

use std::ops::Deref;
use std::sync::LazyLock;

use bytes::Bytes;
use futures_util::TryStreamExt;
use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};
use tidekeeper::clock::SystemClock;
use tidekeeper::config::Limits;
use tidekeeper::error::Result;
use tidekeeper::source::mongodb::client::Link;
use tidekeeper::source::mongodb::oplog::entry::{Entry, stamp};
use tidekeeper::source::mongodb::oplog::tail::newest;
use tidekeeper::source::mongodb::oplog::transactions::{Assembler, Unit};
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::task::Spool;
use tidekeeper::vault::Vault;

use crate::harness::bench::Bench;
pub use crate::harness::bench::Leads;
use crate::harness::mongodb::MongoServer;

/// Looks at a server's log.
pub struct Ground(Bench);

impl Deref for Ground {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.0
    }
}

impl Ground {
    pub fn new() -> Self {
        Ground(Bench::new())
    }

    /// Of a vault that others write to.
    pub fn of(vault: Vault) -> Self {
        Ground(Bench::with_vault(vault))
    }

    pub async fn link(&self, server: &MongoServer) -> Link {
        Link::open(&server.settings(), &self.clock).await.expect("a link")
    }

    /// Where the server's log ends now.
    pub async fn head(&self, server: &MongoServer) -> OpTime {
        newest(&self.link(server).await, &self.task).await.expect("it tells").expect("it has an oplog").0
    }
}

pub fn at(seconds: u32, increment: u32) -> OpTime {
    OpTime { seconds, increment }
}

/// A document as bytes.
pub fn bytes(document: &Document) -> Bytes {
    document.to_vec().expect("it can be written").into()
}

/// An entry at a place of second 100; what `more` holds comes after ts and version.
pub fn entry(increment: u32, more: Document) -> Bytes {
    let mut entry =
        doc! { "ts": Timestamp { time: 100, increment }, "t": 1_i64, "v": 2_i64, "ns": "shop.carts" };
    entry.extend(more);
    bytes(&entry)
}

/// Puts transactions together; they are too small here to need the spool.
pub fn assembler(known_from: OpTime) -> Assembler {
    let spool = Spool::new(&Limits::default(), SystemClock::shared()).expect("a spool");
    Assembler::new(known_from, &spool)
}

/// The entries of a record.
pub fn entries(mut record: Bytes) -> Result<Vec<Entry>> {
    std::iter::from_fn(|| Entry::next(&mut record).transpose()).collect()
}

/// What takes effect with a record.
pub async fn units(assembler: &mut Assembler, record: Bytes) -> Result<Vec<Unit>> {
    assembler.take(record).await?;
    let mut units = Vec::new();
    while let Some(unit) = assembler.next().await? {
        units.push(unit);
    }
    Ok(units)
}

/// For tests that wait for nothing else.
pub fn block_on<T>(work: impl Future<Output = T>) -> T {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> =
        LazyLock::new(|| tokio::runtime::Runtime::new().expect("a runtime"));
    RUNTIME.block_on(work)
}

/// Inserts `n` documents one by one, with ids from `from`.
pub async fn insert(server: &MongoServer, from: i32, n: i32) {
    let carts = server.client().await.database("shop").collection::<Document>("carts");
    let carts_of = |ids: std::ops::Range<i32>| ids.map(|id| doc! { "_id": id, "text": "x".repeat(40) });
    for first in (from..from + n).step_by(500) {
        let last = (first + 500).min(from + n);
        carts.insert_many(carts_of(first..last)).await.expect("they are inserted");
    }
}

/// Three writes in one transaction: with ids from `from`.
pub async fn transaction(server: &MongoServer, from: i32) {
    let client = server.client().await;
    let carts = client.database("shop").collection::<Document>("carts");
    let mut session = client.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    for id in from..from + 3 {
        carts.insert_one(doc! { "_id": id }).session(&mut session).await.expect("it is inserted");
    }
    session.commit_transaction().await.expect("it is committed");
}

/// All entries of a server's log after `from`, up to `to`, as they lie there.
pub async fn log(server: &MongoServer, from: OpTime, to: OpTime) -> Vec<Bytes> {
    let oplog = server.client().await.database("local").collection::<RawDocumentBuf>("oplog.rs");
    let range = doc! { "$gt": Timestamp::from(from), "$lte": Timestamp::from(to) };
    let found: Vec<RawDocumentBuf> =
        oplog.find(doc! { "ts": range }).await.expect("it is found").try_collect().await.expect("it is read");
    found.into_iter().map(|entry| Bytes::from(entry.into_bytes())).collect()
}

/// Says where two logs differ: whole dumps of both help nobody.
pub fn assert_same(found: &[u8], expected: &[Bytes]) {
    let mut rest = found;
    for (n, entry) in expected.iter().enumerate() {
        assert!(
            rest.starts_with(entry),
            "entry {n} of {} should be the one at {:?}, and is the one at {:?}",
            expected.len(),
            stamp(entry),
            rest.first_chunk::<4>().and_then(|first| stamp(rest.get(..u32::from_le_bytes(*first) as usize)?)),
        );
        rest = &rest[entry.len()..];
    }
    assert!(rest.is_empty(), "{} bytes too many", rest.len());
}
