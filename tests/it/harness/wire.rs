//! The benchmarks' double of a MongoDB server, in the tests' own process: the only server here that applies `applyOps`.

#[path = "../../../benches/wire/double.rs"]
mod double;

pub use double::{Double, Fed, Options, generate::Ids};

use mongodb::Client;
use mongodb::bson::{Bson, Document, Timestamp, doc};
use mongodb::error::ErrorKind;

async fn client(double: &Double) -> Client {
    Client::with_uri_str(double.uri()).await.expect("an address")
}

async fn start(fed: &[Fed]) -> (Double, Client) {
    let double = Double::start(Options::default(), 0).expect("loopback has ports");
    double.feed(fed).expect("names of their own");
    let client = client(&double).await;
    (double, client)
}

fn fed(name: &str, ids: Ids) -> Fed {
    Fed { db: "big".to_owned(), name: name.to_owned(), bytes: 5_000_000, document: 1_000, ids }
}

async fn digest(client: &Client, db: &str) -> Document {
    let mut reply =
        client.database(db).run_command(doc! { "wireDigest": 1 }).await.expect("known to the double");
    reply.remove("operationTime");
    reply
}

async fn ids(client: &Client, command: Document) -> Vec<Bson> {
    let mut cursor = client.database("big").run_cursor_command(command).await.expect("a cursor");
    let mut found = Vec::new();
    while cursor.advance().await.expect("another") {
        let document = cursor.deserialize_current().expect("a document");
        found.push(document.get("_id").cloned().expect("an id"));
    }
    found
}

#[tokio::test]
async fn what_is_fed_can_be_read_in_ranges() {
    for kind in [Ids::ObjectId, Ids::Long] {
        let (_double, client) = start(&[fed("orders", kind)]).await;
        let all = ids(&client, doc! { "find": "orders" }).await;
        assert_eq!(all.len(), 5_000);
        let sample = doc! { "aggregate": "orders", "cursor": {}, "pipeline": [
            { "$sample": { "size": 3 } }, { "$project": { "_id": 1 } }, { "$sort": { "_id": 1 } },
        ] };
        let mut bounds = ids(&client, sample).await;
        bounds.insert(0, Bson::MinKey);
        bounds.push(Bson::MaxKey);
        let mut parts = Vec::new();
        for pair in bounds.windows(2) {
            let (min, max) = (doc! { "_id": pair[0].clone() }, doc! { "_id": pair[1].clone() });
            let range =
                doc! { "find": "orders", "min": min, "max": max, "hint": { "_id": 1 }, "batchSize": 700 };
            parts.extend(ids(&client, range).await);
        }
        assert_eq!(parts, all, "every document is in exactly one range");
    }
}

#[tokio::test]
async fn a_snapshot_is_read_at_the_time_that_was_asked_for() {
    let (_double, client) = start(&[fed("orders", Ids::Long)]).await;
    let at = Timestamp { time: 7, increment: 9 };
    let concern = doc! { "level": "snapshot", "atClusterTime": at };
    let find = doc! { "find": "orders", "limit": 1, "readConcern": concern };
    let reply = client.database("big").run_command(find).await.expect("granted");
    let cursor = reply.get_document("cursor").expect("a cursor");
    assert_eq!(cursor.get_timestamp("atClusterTime").expect("a time"), at);
}

#[tokio::test]
async fn a_log_applied_elsewhere_gives_the_same_state() {
    const OPERATIONS: i32 = 25_000;
    let (_source, from) = start(&[]).await;
    let (_target, to) = start(&[]).await;
    let grown = from.database("bench").run_command(doc! { "wireOplog": OPERATIONS }).await.expect("grown");
    let first = grown.get_timestamp("first").expect("a time");
    let log = from.database("local").collection::<Document>("oplog.rs");
    let mut entries = log.find(doc! { "ts": { "$gte": first } }).await.expect("a log");
    let (mut batch, mut count) = (Vec::new(), 0);
    loop {
        let is_more = entries.advance().await.expect("another");
        if is_more {
            count += 1;
            batch.push(entries.deserialize_current().expect("an entry"));
        }
        if batch.len() == 1_000 || !is_more {
            let command = doc! { "applyOps": std::mem::take(&mut batch) };
            to.database("admin").run_command(command).await.expect("applied");
        }
        if !is_more {
            break;
        }
    }
    assert_eq!(count, OPERATIONS + 1, "the operations, and the create before them");
    assert_eq!(digest(&to, "bench").await, digest(&from, "bench").await);
}

#[tokio::test]
async fn an_update_without_its_document_stops_the_batch() {
    let (_double, client) = start(&[]).await;
    let db = client.database("shop");
    let things = db.collection::<Document>("things");
    things.insert_one(doc! { "_id": 1, "a": { "b": 1 }, "list": [1, 2, 3] }).await.expect("inserted");
    let update = |id: i32, diff: Document| {
        doc! { "op": "u", "ns": "shop.things", "o": { "$v": 2, "diff": diff }, "o2": { "_id": id } }
    };
    let diff = doc! { "d": { "gone": false }, "i": { "c": 2 }, "sa": { "u": { "b": 5 } }, "slist": { "a": true, "l": 2, "u0": 9 } };
    let batch =
        vec![update(1, diff), update(2, doc! { "u": { "a": 1 } }), update(1, doc! { "u": { "c": 3 } })];
    let refused = db.run_command(doc! { "applyOps": batch }).await.expect_err("there is no 2");
    assert!(matches!(*refused.kind, ErrorKind::Command(ref why) if why.code == 218), "{refused}");
    let found = things.find_one(doc! { "_id": 1 }).await.expect("found");
    assert_eq!(found, Some(doc! { "_id": 1, "a": { "b": 5 }, "list": [9, 2], "c": 2 }));
}

#[tokio::test]
async fn writes_are_stored_and_duplicates_told() {
    let (_double, client) = start(&[]).await;
    let things = client.database("shop").collection::<Document>("things");
    things.insert_many((0..10).map(|n| doc! { "_id": n, "n": n })).await.expect("inserted");
    things.insert_one(doc! { "_id": 3.0 }).await.expect_err("3.0 is 3");
    let replaced =
        things.replace_one(doc! { "_id": 11 }, doc! { "new": true }).upsert(true).await.expect("put");
    assert_eq!(replaced.upserted_id, Some(Bson::Int32(11)));
    things
        .update_one(doc! { "_id": 4 }, doc! { "$set": { "deep.er": 1 }, "$unset": { "n": 1 } })
        .await
        .expect("set");
    let deleted = things.delete_many(doc! { "_id": { "$in": [0, 1, 99] } }).await.expect("deleted");
    assert_eq!(deleted.deleted_count, 2);
    let found = things.find_one(doc! { "_id": 4 }).await.expect("found");
    assert_eq!(found, Some(doc! { "_id": 4, "deep": { "er": 1 } }));
    assert_eq!(things.count_documents(doc! {}).await.expect("counted"), 9);
}
