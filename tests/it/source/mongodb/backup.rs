//! Backups of a real server: everything is in, as the stock tools lay it out, of one moment with its oplog.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Bson, Decimal128, Document, Timestamp, doc};
use serde_json::{Value, json};
use tidekeeper::config::secret::{Password, Secret};
use tidekeeper::error::Kind;
use tidekeeper::source::mongodb::digest::Tally;
use tidekeeper::source::mongodb::namespace::file_name;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::vault::manifest::{Level, Status};

use super::stage::{Stage, fill, held};
use crate::harness::mongodb::{MongoServer, settings_at, uri_at};
use crate::harness::proxy::{Proxy, Weather};
use crate::harness::wait_for;

/// The usual length of a range: nothing here is so large.
const USUAL: u64 = 64 << 20;

/// Names of collections with every character that a file's name must not have.
const ODD: [&str; 6] = ["a b%c", "x/y", "sl\\ash", "hé中", "dot..ted.", "star*q?\"<>|:"];

async fn furnish(client: &Client) {
    let db = client.database("shop");
    let run = async |command: Document| db.run_command(command).await.expect("the server obeys");
    for name in ODD {
        fill(&db.collection(name), 0..5, 10).await;
    }
    run(doc! { "create": "empty" }).await;
    run(doc! { "create": "cap", "capped": true, "size": 65536, "max": 100 }).await;
    fill(&db.collection("cap"), 0..50, 20).await;
    run(doc! { "create": "strict", "validator": { "n": { "$gte": 0 } }, "validationLevel": "moderate" })
        .await;
    fill(&db.collection("strict"), 0..3, 5).await;
    run(doc! { "create": "clear", "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "cl" } })
        .await;
    fill(&db.collection("clear"), 0..20, 5).await;
    run(doc! { "create": "meas", "timeseries": { "timeField": "t", "metaField": "m" } }).await;
    run(doc! { "create": "view", "viewOn": "strict", "pipeline": [{ "$match": { "n": { "$gt": 7 } } }] })
        .await;
    let indexes = vec![
        doc! { "key": { "n": 1, "text": -1 }, "name": "n_text", "hidden": true },
        doc! { "key": { "when": 1 }, "name": "ttl", "expireAfterSeconds": 1_000_000_000, "sparse": true },
        doc! { "key": { "n": 1 }, "name": "some", "partialFilterExpression": { "n": { "$gt": 5 } } },
        doc! { "key": { "$**": 1 }, "name": "wild" },
        doc! { "key": { "text": 1 }, "name": "u", "unique": true, "collation": { "locale": "en", "strength": 2 } },
    ];
    run(doc! { "createIndexes": "empty", "indexes": indexes }).await;
    fill(&client.database("other").collection("x"), 0..1, 1).await;
}

fn fact<'a>(facts: &'a serde_json::Map<String, Value>, name: &str) -> &'a str {
    facts[name].as_str().unwrap_or_else(|| panic!("{name} in {facts:?}"))
}

fn optime(text: &str) -> OpTime {
    let (seconds, increment) = text.split_once(':').expect("seconds and increment");
    OpTime { seconds: seconds.parse().expect("a number"), increment: increment.parse().expect("a number") }
}

#[tokio::test]
async fn everything_is_in_as_the_stock_tools_lay_it_out() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let client = server.client().await;
    furnish(&client).await;
    let (capture, backup) = stage.back_up(&server.settings(), USUAL).await.expect("it is backed up");
    assert_eq!(backup.manifest.status, Status::Complete, "{:?}", capture.omissions);
    let plain = ["empty", "cap", "strict", "clear", "meas"];
    for name in ODD.iter().chain(&plain) {
        let stem = format!("shop/{}", file_name(name));
        let mut documents: Vec<Vec<u8>> = stage
            .documents(&backup, &format!("{stem}.bson"))
            .await
            .iter()
            .map(|document| document.as_bytes().to_vec())
            .collect();
        documents.sort();
        assert_eq!(documents, held(&client, "shop", name).await, "{name}");
        let mut tally = Tally::default();
        documents.iter().for_each(|document| tally.add(document));
        let counts = &capture.contents.namespaces[&format!("shop.{name}")];
        assert_eq!((counts.items, counts.digest.clone()), (tally.items, Some(tally.digest())), "{name}");
        let metadata = stage.bytes(&backup, &format!("{stem}.metadata.json")).await;
        let metadata: Value = serde_json::from_slice(&metadata).expect("it is JSON");
        assert_eq!(metadata["collectionName"], *name);
    }
    let capped = stage.documents(&backup, "shop/cap.bson").await;
    let order: Vec<i32> = capped.iter().filter_map(|document| document.get_i32("_id").ok()).collect();
    assert_eq!(order, (0..50).collect::<Vec<_>>(), "a capped collection keeps the order in which they came");
    assert!(backup.artifact("shop/view.bson").is_err(), "a view has no documents");
    assert!(!backup.manifest.artifacts.iter().any(|artifact| artifact.name.starts_with("local/")));
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it is text");
    let view = text(stage.bytes(&backup, "shop/view.metadata.json").await);
    assert!(
        view.starts_with(
            r#"{"options":{"viewOn":"strict","pipeline":[{"$match":{"n":{"$gt":{"$numberInt":"7"}}}}]},"indexes":[]"#
        ) && view.ends_with(r#","collectionName":"view","type":"view"}"#),
        "{view}"
    );
    let empty = text(stage.bytes(&backup, "shop/empty.metadata.json").await);
    for part in [
        r#"{"v":{"$numberInt":"2"},"key":{"_id":{"$numberInt":"1"}},"name":"_id_"}"#,
        r#""key":{"n":{"$numberInt":"1"},"text":{"$numberInt":"-1"}},"name":"n_text","hidden":true"#,
        r#""expireAfterSeconds":{"$numberInt":"1000000000"}"#,
        r#""partialFilterExpression":{"n":{"$gt":{"$numberInt":"5"}}}"#,
        r#""key":{"$**":{"$numberInt":"1"}}"#,
        r#""collation":{"locale":"en","strength":{"$numberInt":"2"}}"#,
    ] {
        assert!(empty.contains(part), "{part} in {empty}");
    }
    let prelude = text(stage.bytes(&backup, "prelude.json").await);
    assert_eq!(prelude, r#"{"ServerVersion":"8.2.11","ToolVersion":"100.18.0"}"#);
}

#[tokio::test]
async fn it_is_of_one_moment_with_its_oplog() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let client = server.client().await;
    furnish(&client).await;
    let (capture, backup) = stage.back_up(&server.settings(), USUAL).await.expect("it is backed up");
    let facts = &capture.contents.facts;
    assert_eq!(fact(facts, "consistency"), "fuzzy", "this server heeds no atClusterTime");
    let exact_at = optime(fact(facts, "exact_at"));
    assert_eq!(backup.manifest.log_position, Some(exact_at.position()));
    let identity = backup.manifest.timeline.clone().expect("the log has a name");
    assert_ne!(identity, "secantus", "every server of this make has a set of this name");
    assert!(identity.len() == 32 && identity.bytes().all(|digit| digit.is_ascii_hexdigit()), "{identity}");
    let consistency = capture.consistency.expect("it is told");
    assert_eq!(consistency.level, Level::LogBounded);
    assert_eq!(consistency.to, Some(exact_at.moment()));
    assert_eq!(consistency.position["optime"], exact_at.to_string());
    let entries = stage.documents(&backup, "oplog.bson").await;
    let stamp =
        |entry: &mongodb::bson::RawDocumentBuf| OpTime::from(entry.get_timestamp("ts").expect("a ts"));
    assert_eq!(stamp(&entries[0]), optime(fact(facts, "oplog_from")));
    assert_eq!(stamp(&entries[0]), optime(fact(facts, "apply_from")), "no transaction was in progress");
    assert_eq!(entries.last().map(stamp), Some(exact_at));
}

/// One writer that never stops, in several collections in turn; what it has been told to be written, it counts.
#[tokio::test]
async fn a_dump_under_writes_and_its_oplog_are_a_prefix_of_them() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let client = server.client().await;
    for n in 0..4 {
        let collection = client.database("busy").collection(&format!("c{n}"));
        fill(&collection, -400..0, 200).await;
    }
    let (stop, written) = (Arc::new(AtomicBool::new(false)), server.client().await);
    let writer = tokio::spawn({
        let stop = stop.clone();
        async move {
            let mut n = 0;
            while !stop.load(Ordering::SeqCst) {
                let collection = written.database("busy").collection::<Document>(&format!("c{}", n % 4));
                collection.insert_one(doc! { "_id": n }).await.expect("it is inserted");
                n += 1;
            }
            n
        }
    });
    wait_for("the writer writes", Duration::from_secs(60), async || {
        !held(&client, "busy", "c3").await.is_empty() && held(&client, "busy", "c0").await.len() > 410
    })
    .await;
    let backed_up = stage.back_up(&server.settings(), 20 << 10).await;
    stop.store(true, Ordering::SeqCst);
    let total = writer.await.expect("the writer ends");
    let (capture, backup) = backed_up.expect("it is backed up");
    let mut found = BTreeSet::new();
    for n in 0..4 {
        let mut ids = BTreeSet::new();
        for document in stage.documents(&backup, &format!("busy/c{n}.bson")).await {
            assert!(ids.insert(document.get_i32("_id").expect("a number")), "{document:?} is there twice");
        }
        found.extend(ids.into_iter().filter(|id| *id >= 0));
    }
    let from_dump = found.len();
    for entry in stage.documents(&backup, "oplog.bson").await {
        if entry.get_str("op").is_ok_and(|op| op == "i") {
            found.insert(entry.get_document("o").and_then(|o| o.get_i32("_id")).expect("an inserted _id"));
        }
    }
    let last = *found.last().expect("some were found");
    assert_eq!(found.len() as i32, last + 1, "no gap up to the last");
    assert!(last < total);
    println!("{from_dump} in the dump, {} with the oplog, {total} written", found.len());
    let facts = &capture.contents.facts;
    let end = optime(fact(facts, "exact_at"));
    let clock = client.database("local").collection::<Document>("oplog.rs");
    let entry = clock.find_one(doc! { "ts": mongodb::bson::Timestamp::from(end) }).await.expect("it is read");
    let entry = entry.expect("the last entry is there");
    assert_eq!(entry.get_document("o").and_then(|o| o.get_i32("_id")).ok(), Some(last), "{entry:?}");
}

/// What this server keeps of it comes back as it keeps it: compared byte for byte.
#[tokio::test]
async fn odd_documents_pass_as_they_are() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let client = server.client().await;
    let mut deep = doc! { "end": true };
    for _ in 0..90 {
        deep = doc! { "d": deep };
    }
    let largest = (16 << 20) - doc! { "_id": 0, "text": "" }.to_vec().expect("it is BSON").len();
    let documents = vec![
        doc! { "_id": 1, "nul": "a\0b", "": "no name", "$x": 1, "a.b": 2, "min": Bson::MinKey, "max": Bson::MaxKey },
        doc! { "_id": 2, "decimal": "-1.2300E-6000".parse::<Decimal128>().expect("a decimal"), "nan": f64::NAN },
        doc! { "_id": 3, "deep": deep, "zero": -0.0, "stamp": Timestamp { time: 0, increment: 0 } },
    ];
    client.database("odd").collection("docs").insert_many(documents).await.expect("they are inserted");
    for id in 0..3 {
        let large = doc! { "_id": id, "text": "x".repeat(largest) };
        client.database("odd").collection("large").insert_one(large).await.expect("it is inserted");
    }
    let (_, backup) = stage.back_up(&server.settings(), USUAL).await.expect("it is backed up");
    for (name, count) in [("docs", 3), ("large", 3)] {
        let documents = stage.documents(&backup, &format!("odd/{name}.bson")).await;
        let mut documents: Vec<_> = documents.iter().map(|document| document.as_bytes().to_vec()).collect();
        documents.sort();
        assert_eq!(documents.len(), count);
        assert!(documents == held(&client, "odd", name).await, "{name}");
    }
}

#[tokio::test]
async fn a_small_spool_and_many_collections_do_not_wait_for_each_other() {
    let (stage, server) = (Stage::with_spool(16 << 20), MongoServer::start(&[]).await);
    let client = server.client().await;
    for n in 0..40 {
        let collection = client.database("many").collection(&format!("c{n}"));
        fill(&collection, n..n + 3, 10).await;
    }
    fill(&client.database("many").collection("big"), 0..3000, 1024).await;
    let (capture, backup) = stage.back_up(&server.settings(), 256 << 10).await.expect("it is backed up");
    for n in 0..40 {
        assert_eq!(capture.contents.namespaces[&format!("many.c{n}")].items, 3);
    }
    let mut ids: Vec<i32> = stage
        .documents(&backup, "many/big.bson")
        .await
        .iter()
        .filter_map(|document| document.get_i32("_id").ok())
        .collect();
    ids.sort_unstable();
    assert_eq!(ids, (0..3000).collect::<Vec<_>>(), "read in ranges, each document once");
}

#[tokio::test]
async fn without_an_oplog_it_says_so() {
    let (stage, server) = (Stage::new(), MongoServer::start(&["--standalone"]).await);
    let client = server.client().await;
    furnish(&client).await;
    let (capture, backup) = stage.back_up(&server.settings(), USUAL).await.expect("it is backed up");
    assert_eq!(capture.log, None);
    let consistency = capture.consistency.expect("it is told");
    assert_eq!((consistency.level, consistency.at), (Level::PerType, None));
    assert!(consistency.from < consistency.to);
    assert!(backup.artifact("oplog.bson").is_err());
    assert!(fact(&capture.contents.facts, "note").contains("no oplog"));
    assert_eq!(backup.manifest.status, Status::Complete);
}

/// A collection of 4 MiB, read in ranges through a link of 2 MiB a second.
async fn slowly(server: &MongoServer) -> (Proxy, tidekeeper::source::mongodb::config::Settings) {
    let collection = server.client().await.database("slow").collection("from");
    fill(&collection, 0..2000, 2048).await;
    let proxy = Proxy::start(server.port).await;
    proxy.set(Weather { rate: 2 << 20, ..Weather::default() });
    let settings = settings_at(&uri_at(proxy.port));
    (proxy, settings)
}

#[tokio::test]
async fn a_collection_that_is_renamed_under_its_reader_ends_the_backup() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let (proxy, settings) = slowly(&server).await;
    let rename = async {
        wait_for("a part is read", Duration::from_secs(60), async || proxy.passed() > 1 << 20).await;
        server.command("admin", doc! { "renameCollection": "slow.from", "to": "slow.to" }).await;
    };
    let (backed_up, ()) = tokio::join!(stage.back_up(&settings, USUAL), rename);
    let error = backed_up.expect_err("it must fail");
    assert_eq!(error.kind(), Kind::Conflict, "{error:?}");
    assert!(error.is_retryable() && error.why().contains("slow.from was renamed"), "{error:?}");
    let (capture, _) = stage.back_up(&server.settings(), USUAL).await.expect("the next one");
    assert_eq!(capture.contents.namespaces["slow.to"].items, 2000);
}

#[tokio::test]
async fn a_collection_that_is_dropped_under_its_reader_is_dropped_in_the_oplog() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let (proxy, settings) = slowly(&server).await;
    let drop = async {
        wait_for("a part is read", Duration::from_secs(60), async || proxy.passed() > 1 << 20).await;
        server.command("slow", doc! { "drop": "from" }).await;
        server.command("slow", doc! { "create": "new" }).await;
    };
    let (backed_up, ()) = tokio::join!(stage.back_up(&settings, USUAL), drop);
    let (capture, backup) = backed_up.expect("it is backed up");
    assert_eq!(capture.omissions, []);
    let entries = stage.documents(&backup, "oplog.bson").await;
    let commands: Vec<_> = entries.iter().filter_map(|entry| entry.get_document("o").ok()).collect();
    assert!(commands.iter().any(|o| o.get_str("drop").is_ok_and(|name| name == "from")), "{commands:?}");
    assert!(commands.iter().any(|o| o.get_str("create").is_ok_and(|name| name == "new")), "{commands:?}");
}

#[tokio::test]
async fn rights_are_needed_and_named() {
    let (stage, mut server) = (Stage::new(), MongoServer::start(&[]).await);
    furnish(&server.client().await).await;
    for (user, role) in [("full", "backup"), ("reader", "readAnyDatabase"), ("narrow", "read")] {
        let create = doc! { "createUser": user, "pwd": "secret", "roles": [{ "role": role, "db": "admin" }] };
        server.command("admin", create).await;
    }
    server.stop().await;
    server.start_again(&["--auth"]).await;
    let with = |user: &str, password: &str| {
        let mut settings = server.settings();
        settings.username = Some(user.to_owned());
        settings.password = Some(Password::Given(Secret::new(password)));
        settings
    };
    let (capture, _) =
        stage.back_up(&with("full", "secret"), USUAL).await.expect("the role backup is enough");
    assert_eq!(capture.omissions, []);
    assert_eq!(capture.contents.namespaces["admin.system.users"].items, 3);
    for (user, password) in [("full", "wrong"), ("nobody", "secret"), ("narrow", "secret")] {
        let error = stage.back_up(&with(user, password), USUAL).await.map(drop).expect_err("it must fail");
        assert_eq!(error.kind(), Kind::Denied, "{user}: {error:?}");
        assert!(error.hint_text().is_some(), "{user}: {error:?}");
    }
    let error = stage.back_up(&server.settings(), USUAL).await.map(drop).expect_err("it must fail");
    assert_eq!(error.kind(), Kind::Denied, "nobody at all: {error:?}");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    let (stage, mut server) = (Stage::new(), MongoServer::start(&[]).await);
    server.kill();
    let settings = settings_at(&format!("{}&serverSelectionTimeoutMS=500", server.uri()));
    let error = stage.back_up(&settings, USUAL).await.map(drop).expect_err("it must fail");
    assert_eq!(error.kind(), Kind::Unreachable, "{error:?}");
    assert!(error.is_retryable());
}

#[tokio::test]
async fn facts_are_those_that_a_restore_needs() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    fill(&server.client().await.database("a").collection("b"), 0..9, 9).await;
    let (capture, _) = stage.back_up(&server.settings(), USUAL).await.expect("it is backed up");
    let facts = &capture.contents.facts;
    assert_eq!(facts["server_version"], json!("8.2.11"));
    assert!(facts["collections"].as_u64().is_some_and(|count| count >= 1), "{facts:?}");
    assert_eq!(
        capture.contents.items,
        capture.contents.namespaces.values().map(|counts| counts.items).sum::<u64>()
    );
}
