//! Backups of a real server are brought into another one, whole and in part, at any place of the log, and interrupted.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use mongodb::Client;
use mongodb::bson::{Binary, Decimal128, Document, Timestamp, doc, spec::BinarySubtype};
use serde_json::{Value, json};
use tidekeeper::error::{Error, Kind};
use tidekeeper::source::mongodb::client::Link;
use tidekeeper::source::mongodb::follow::follow;
use tidekeeper::source::mongodb::oplog::entry::record_length;
use tidekeeper::source::mongodb::oplog::tail::newest;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::restore::MongoTarget;
use tidekeeper::source::{RestorePlan, Restored, Severity, Target, Until, Wish};
use tidekeeper::vault::layout::{BackupId, BackupRef, random};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::timeline::writer::{Bounds, TimelineWriter};
use tidekeeper::vault::writer::{BackupWriter, Capture};

use super::ground::Leads;
use super::stage::{Stage, fill, held, numbered};
use crate::harness::mongodb::{MongoServer, settings_at, uri_at};
use crate::harness::proxy::{Proxy, Then, Weather};
use crate::harness::wait_for;

const LIMIT: Duration = Duration::from_secs(120);

/// The usual length of a range: nothing here is so large.
const USUAL: u64 = 64 << 20;

/// Names of collections with characters that a file's name must not have.
const ODD: [&str; 4] = ["a b%c", "x/y", "hé中", "dot..ted."];

async fn run(client: &Client, db: &str, command: Document) {
    client.database(db).run_command(command).await.expect("the server obeys");
}

/// Collections of every kind that the server has, indexes with every option, odd values.
async fn furnish(client: &Client) {
    let db = client.database("shop");
    for name in ODD {
        fill(&db.collection(name), 0..5, 10).await;
    }
    run(client, "shop", doc! { "create": "empty" }).await;
    run(client, "shop", doc! { "create": "cap", "capped": true, "size": 65536, "max": 100 }).await;
    fill(&db.collection("cap"), 0..50, 20).await;
    fill(&db.collection("strict"), -3..3, 5).await;
    let strict =
        doc! { "collMod": "strict", "validator": { "n": { "$gte": 0 } }, "validationLevel": "strict" };
    run(client, "shop", strict).await;
    run(
        client,
        "shop",
        doc! { "create": "clear", "clusteredIndex": { "key": { "_id": 1 }, "unique": true, "name": "cl" } },
    )
    .await;
    fill(&db.collection("clear"), 0..20, 5).await;
    run(client, "shop", doc! { "create": "french", "collation": { "locale": "fr", "strength": 1 } }).await;
    run(client, "shop", doc! { "create": "meas", "timeseries": { "timeField": "t", "metaField": "m" } })
        .await;
    let view =
        doc! { "create": "view", "viewOn": "strict", "pipeline": [{ "$match": { "n": { "$gt": 7 } } }] };
    run(client, "shop", view).await;
    let indexes = vec![
        doc! { "key": { "n": 1, "text": -1 }, "name": "n_text", "hidden": true },
        doc! { "key": { "when": 1 }, "name": "ttl", "expireAfterSeconds": 1_000_000_000, "sparse": true },
        doc! { "key": { "n": 1 }, "name": "some", "partialFilterExpression": { "n": { "$gt": 5 } } },
        doc! { "key": { "$**": 1 }, "name": "wild" },
        doc! { "key": { "text": 1 }, "name": "u", "unique": true, "collation": { "locale": "en", "strength": 2 } },
    ];
    run(client, "shop", doc! { "createIndexes": "empty", "indexes": indexes }).await;
    let odd = vec![
        doc! { "_id": Decimal128::from_bytes([7; 16]), "": "empty name", "a.b": 1, "$x": 2 },
        doc! { "_id": mongodb::bson::Bson::MinKey, "nul": "a\0b", "nan": f64::NAN, "ts": Timestamp { time: 0, increment: 0 } },
        doc! { "_id": Binary { subtype: BinarySubtype::Uuid, bytes: vec![1; 16] }, "deep": { "a": [{ "b": [[[]]] }] } },
        doc! { "_id": "large", "text": "x".repeat(9 << 20) },
    ];
    client.database("other").collection("odd").insert_many(odd).await.expect("they are inserted");
}

fn target(server: &MongoServer) -> MongoTarget {
    MongoTarget::new(server.settings())
}

pub async fn plan(
    stage: &Stage,
    target: &MongoTarget,
    from: &BackupReader,
    wish: Value,
) -> Result<RestorePlan, Error> {
    let Value::Object(options) = wish else { panic!("a wish is an object") };
    target.plan_restore(from, None, &Wish { options }, &stage.task).await
}

/// Plans and restores; the plan must have no blocker.
async fn restore(
    stage: &Stage,
    target: &MongoTarget,
    from: &BackupReader,
    wish: Value,
) -> Result<Restored, Error> {
    let plan = plan(stage, target, from, wish).await?;
    assert_eq!(plan.blockers().count(), 0, "{:?}", plan.findings);
    target.restore(from, &plan, &stage.task).await
}

async fn assert_equal(stage: &Stage, target: &MongoTarget, from: &BackupReader) -> usize {
    let checks = target.compare(from, &stage.task).await.expect("it compares");
    let failed: Vec<_> = checks.iter().filter(|check| !check.passed).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    checks.len()
}

/// The documents of each collection.
type Held = BTreeMap<String, Vec<Vec<u8>>>;

/// What each collection of a database holds.
async fn state(client: &Client, db: &str) -> Held {
    let mut state = BTreeMap::new();
    for name in client.database(db).list_collection_names().await.expect("they are listed") {
        state.insert(name.clone(), held(client, db, &name).await);
    }
    state
}

#[tokio::test]
async fn everything_comes_back() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    let client = source.client().await;
    furnish(&client).await;
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let target = target(&server);
    let plan = plan(&stage, &target, &backup, json!({})).await.expect("a plan");
    assert_eq!(plan.blockers().count(), 0, "{:?}", plan.findings);
    assert!(!plan.is_destructive());
    let restored = target.restore(&backup, &plan, &stage.task).await.expect("it restores");
    assert!(restored.omissions.is_empty(), "{:?}", restored.omissions);
    assert_eq!(restored.items, 100);
    let brought = server.client().await;
    for db in ["shop", "other"] {
        assert!(state(&client, db).await == state(&brought, db).await, "{db} is not as it was");
    }
    let ids = |client: Client| async move {
        let mut cursor =
            client.database("shop").collection::<Document>("cap").find(doc! {}).await.expect("it is read");
        let mut ids = Vec::new();
        while cursor.advance().await.expect("it is read") {
            ids.push(cursor.current().get_i32("_id").expect("an id"));
        }
        ids
    };
    assert_eq!(
        ids(brought.clone()).await,
        (0..50).collect::<Vec<_>>(),
        "a capped collection keeps its order"
    );
    assert!(assert_equal(&stage, &target, &backup).await > 10);
    // Another target object has not seen the restore, and comes to the same.
    assert_equal(&stage, &MongoTarget::new(server.settings()), &backup).await;
}

#[tokio::test]
async fn what_differs_is_named() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    furnish(&source.client().await).await;
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let target = target(&server);
    restore(&stage, &target, &backup, json!({})).await.expect("it restores");
    let db = server.client().await.database("shop");
    db.collection::<Document>("strict").delete_one(doc! { "_id": 1 }).await.expect("it is deleted");
    db.collection::<Document>("cap")
        .update_one(doc! { "_id": 1 }, doc! { "$set": { "n": 8 } })
        .await
        .expect("an update");
    let odd = db.collection::<Document>(ODD[0]);
    odd.insert_one(doc! { "_id": 900 }).await.expect("it is inserted");
    odd.delete_one(doc! { "_id": 2 }).await.expect("it is deleted");
    db.collection::<Document>("empty").drop_index("wild").await.expect("it is dropped");
    db.collection::<Document>("clear").drop().await.expect("it is dropped");
    let checks = target.compare(&backup, &stage.task).await.expect("it compares");
    let mut failed: Vec<&str> =
        checks.iter().filter(|check| !check.passed).map(|check| check.name.as_str()).collect();
    failed.sort();
    let expected = [
        "definition of shop.clear",
        "definitions",
        "index wild on shop.empty",
        "shop.a b%c",
        "shop.cap",
        "shop.clear",
        "shop.strict",
    ];
    assert_eq!(failed, expected, "{checks:#?}");
    for (name, words) in [
        ("shop.strict", "missing: 1 (_id 1), taken away since"),
        ("shop.cap", "different: 1 (_id 1), changed since"),
        ("shop.a b%c", "missing: 1 (_id 2), taken away since, or refused; extra: 1 (_id 900), added since"),
        ("shop.clear", "all are missing"),
    ] {
        let check = checks.iter().find(|check| check.name == name).expect("it failed");
        assert!(check.found.contains(words), "{check:?}");
    }
}

#[tokio::test]
async fn a_part_comes_back_under_another_name_beside_what_is_there() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    let client = source.client().await;
    furnish(&client).await;
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let brought = server.client().await;
    fill(&brought.database("shop").collection("cap"), 0..2, 1).await;
    let target = target(&server);
    let wish = json!({ "include": ["shop.cap", "shop.e*"], "rename": ["shop.cap=old.ring", "shop=new"] });
    let restored = restore(&stage, &target, &backup, wish).await.expect("it restores");
    assert_eq!(restored.items, 50);
    assert!(held(&brought, "old", "ring").await == held(&client, "shop", "cap").await);
    assert_eq!(held(&brought, "shop", "cap").await.len(), 2, "what was there is there");
    let mut names = brought.database("new").list_collection_names().await.expect("they are listed");
    names.sort();
    assert_eq!(names, ["empty"]);
    assert_equal(&stage, &target, &backup).await;

    // Each name that means nothing is told, before anything is written.
    for (wish, what, advice) in [
        (json!({ "include": "shpo" }), "--include shpo: there is no such name", "did you mean shop?"),
        (
            json!({ "include": ["shop", "shop.strcit"] }),
            "--include shop.strcit: ",
            "did you mean shop.strict?",
        ),
        (
            json!({ "rename": "shop.cpa=shop.x" }),
            "--rename shop.cpa: there is no such name",
            "mean shop.cap?",
        ),
        (json!({ "rename": "nothing=x" }), "--rename nothing: ", "there are other.odd, shop."),
        (json!({ "include": "other", "rename": "shop=x" }), "shop is to be renamed, and", "--include shop"),
    ] {
        let plan = plan(&stage, &target, &backup, wish).await.expect("a plan");
        let mut blockers = plan.blockers();
        let found = blockers.find(|finding| finding.what.contains(what) && finding.advice.contains(advice));
        assert!(found.is_some(), "{what}: {:?}", plan.findings);
    }
}

#[tokio::test]
async fn what_stands_in_the_way_is_dropped_only_if_that_is_wanted_and_confirmed() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    let client = source.client().await;
    fill(&client.database("shop").collection("a"), 0..30, 5).await;
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let (target, brought) = (target(&server), server.client().await);
    let clean = plan(&stage, &target, &backup, json!({ "drop": true })).await.expect("a plan");
    assert!(!clean.is_destructive());
    for name in ["a", "bystander"] {
        let old = brought.database("shop").collection(name);
        fill(&old, 100..103, 5).await;
    }
    let refused = plan(&stage, &target, &backup, json!({})).await.expect("a plan");
    assert!(
        refused.blockers().any(|finding| finding.what == "the target has shop.a"),
        "{:?}",
        refused.findings
    );
    assert!(refused.document()["hash"].is_null(), "there is nothing that could be confirmed");
    let error = target.restore(&backup, &refused, &stage.task).await.expect_err("it must not");
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("not touched")), "{error:?}");
    let error = target.restore(&backup, &clean, &stage.task).await.expect_err("nobody confirmed that");
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    assert_eq!(held(&brought, "shop", "a").await.len(), 3);

    let drop = plan(&stage, &target, &backup, json!({ "drop": true })).await.expect("a plan");
    assert!(drop.is_destructive());
    assert_eq!(drop.live, ["shop.a: 3 documents"]);
    assert_eq!(drop.at_stake.len(), 1, "{:?}", drop.at_stake);
    assert_ne!(drop.hash(), clean.hash(), "nobody who saw the target empty has said that this may go");
    fill(&brought.database("shop").collection("a"), 200..202, 5).await;
    let more = plan(&stage, &target, &backup, json!({ "drop": true })).await.expect("a plan");
    assert_eq!(more.hash(), drop.hash(), "how much it holds is no part of the hash");
    brought.database("shop").collection::<Document>("a").drop().await.expect("it is dropped");
    fill(&brought.database("shop").collection("a"), 300..303, 5).await;
    let another = plan(&stage, &target, &backup, json!({ "drop": true })).await.expect("a plan");
    assert_ne!(another.hash(), drop.hash(), "it is another collection of the same name");
    let error = target.restore(&backup, &drop, &stage.task).await.expect_err("nobody confirmed that");
    assert_eq!(error.kind(), Kind::Refused, "{error:?}");
    let staying = drop.findings.iter().find(|finding| finding.what.contains("shop.bystander"));
    assert!(staying.is_some_and(|one| one.advice.contains(r#"getCollection("bystander").drop()"#)));
    let drop = another;
    target.restore(&backup, &drop, &stage.task).await.expect("it restores");
    assert!(held(&brought, "shop", "a").await == held(&client, "shop", "a").await);
    assert_eq!(held(&brought, "shop", "bystander").await.len(), 3);
}

/// A backup of these artifacts, whatever they are.
pub async fn handmade(stage: &Stage, artifacts: &[(&str, Vec<u8>)]) -> BackupReader {
    handmade_of(stage, artifacts, Capture::default()).await
}

/// The same, of which this is told.
pub async fn handmade_of(stage: &Stage, artifacts: &[(&str, Vec<u8>)], capture: Capture) -> BackupReader {
    let source = "mongo-main".parse().expect("a name");
    let backup = BackupRef { source, id: BackupId::new(stage.clock.now(), None, random() as u32) };
    let writer = BackupWriter::new(&stage.vault, backup.clone(), "mongodb", &stage.task, stage.clock.now());
    for (name, bytes) in artifacts {
        let mut artifact = writer.artifact(name, "application/octet-stream").expect("an artifact");
        artifact.write(Bytes::copy_from_slice(bytes)).await.expect("it is written");
        artifact.finish().await.expect("it is stored");
    }
    writer.commit(capture, Status::Complete, None).await.expect("it is committed");
    BackupReader::open_backup(&stage.vault, &backup).await.expect("it is there")
}

#[tokio::test]
async fn what_the_target_cannot_take_is_an_omission_and_the_rest_comes() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let documents: Vec<u8> =
        numbered(0..10, 5).iter().flat_map(|document| document.to_vec().expect("bytes")).collect();
    let metadata = r#"{"indexes":[{"v":2,"key":{"_id":1},"name":"_id_"},{"v":2,"key":{"n":1},"name":"n_1"},
        {"v":2,"key":{"text":"text"},"name":"words"}],"collectionName":"a","type":"collection"}"#;
    let artifacts = [
        ("shop/a.bson", documents),
        ("shop/a.metadata.json", metadata.as_bytes().to_vec()),
        (
            "admin/system.users.bson",
            doc! { "_id": "admin.eve", "user": "eve", "db": "admin" }.to_vec().expect("bytes"),
        ),
    ];
    let backup = handmade(&stage, &artifacts).await;
    let target = target(&server);
    let restored = restore(&stage, &target, &backup, json!({})).await.expect("it restores");
    let whats: Vec<&str> = restored.omissions.iter().map(|omission| omission.what.as_str()).collect();
    assert_eq!(whats, ["index words on shop.a", "users and roles"], "{:?}", restored.omissions);
    assert_eq!(restored.items, 10);
    let client = server.client().await;
    let mut names: Vec<String> = client
        .database("shop")
        .collection::<Document>("a")
        .list_index_names()
        .await
        .expect("they are listed");
    names.sort();
    assert_eq!(names, ["_id_", "n_1"]);
    let left = client.database("admin").list_collection_names().await.expect("they are listed");
    assert!(!left.iter().any(|name| name.starts_with("tidekeeper")), "{left:?}");
    assert_equal(&stage, &target, &backup).await;
}

#[tokio::test]
async fn damaged_documents_end_the_restore_and_it_says_so() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let metadata = br#"{"indexes":[],"collectionName":"a","type":"collection"}"#.to_vec();
    let backup = handmade(&stage, &[("shop/a.bson", vec![9; 40]), ("shop/a.metadata.json", metadata)]).await;
    let error =
        restore(&stage, &target(&server), &backup, json!({})).await.map(drop).expect_err("it must fail");
    assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("was being written")), "{error:?}");
}

#[tokio::test]
async fn killed_and_begun_again_it_ends_the_same() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    let client = source.client().await;
    for name in ["a", "b"] {
        let many = client.database("shop").collection(name);
        fill(&many, 0..4000, 2000).await;
    }
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let task = &stage.task;
    let progress = || task.progress.snapshot();
    for items in [0, 1, 3000] {
        let target = target(&server);
        let killed = async {
            let at_step = async || progress().step == "documents" && progress().items >= items;
            wait_for("it is under way", LIMIT, at_step).await;
        };
        tokio::select! {
            done = restore(&stage, &target, &backup, json!({ "drop": true })) => panic!("{done:?} before it was killed"),
            () = killed => {}
        }
        server.at_rest().await;
    }
    let target = target(&server);
    restore(&stage, &target, &backup, json!({ "drop": true })).await.expect("it restores");
    assert_equal(&stage, &target, &backup).await;
}

#[tokio::test]
async fn a_lost_reply_brings_nothing_twice_and_loses_nothing() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    let many = source.client().await.database("shop").collection("a");
    fill(&many, 0..6000, 4000).await;
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let proxy = Proxy::start(server.port).await;
    let target = MongoTarget::new(settings_at(&uri_at(proxy.port)));
    let plan = plan(&stage, &target, &backup, json!({ "workers": 2 })).await.expect("a plan");
    let cut = async {
        let begun = async || stage.task.progress.snapshot().items > 0;
        wait_for("documents come", LIMIT, begun).await;
        // The next reply, or what the driver hears meanwhile, is cut off after a few bytes.
        proxy.set(Weather { after: Some(20), then: Then::Cut, ..Weather::default() });
        wait_for("it is cut", LIMIT, async || proxy.passed() >= 20).await;
        proxy.set(Weather::default());
    };
    let (restored, ()) = tokio::join!(target.restore(&backup, &plan, &stage.task), cut);
    assert_eq!(restored.expect("it restores").items, 6000);
    assert_equal(&stage, &target, &backup).await;
}

/// Follows the source's log to its end.
async fn follow_to_newest(stage: &Stage, source: &MongoServer) {
    let (settings, name) = (source.settings(), "mongo-main".parse().expect("a name"));
    let bounds = Bounds { age: Duration::from_secs(60), plain_bytes: 10_000 };
    let (mut out, _) = TimelineWriter::new(&stage.vault, &name, "oplog", &Leads, bounds, record_length);
    follow(&settings, Until::Newest, &stage.task, &mut out).await.expect("it is followed");
}

/// One round of a history: every kind of change.
async fn change(client: &Client, round: i32) {
    let db = client.database("shop");
    let orders = db.collection::<Document>("orders");
    fill(&orders, round * 10..round * 10 + 10, 20).await;
    let some = doc! { "_id": { "$gte": round * 10 - 5, "$lt": round * 10 + 5 } };
    // One by one: this server's log loses the order of fields that one update adds.
    for change in [doc! { "$set": { "seen": round } }, doc! { "$push": { "rounds": round } }] {
        orders.update_many(some.clone(), change).await.expect("an update");
    }
    orders.delete_many(doc! { "_id": { "$mod": [7, round] } }).await.expect("they are deleted");
    let mut session = client.start_session().await.expect("a session");
    session.start_transaction().await.expect("a transaction");
    for name in ["orders", "stock"] {
        let id = 10_000 + round;
        db.collection::<Document>(name)
            .insert_one(doc! { "_id": id })
            .session(&mut session)
            .await
            .expect("it is inserted");
    }
    session.commit_transaction().await.expect("it is committed");
    let scratch = db.collection::<Document>("scratch");
    match round % 3 {
        0 => fill(&scratch, 0..5, 5).await,
        1 => {
            run(
                client,
                "shop",
                doc! { "createIndexes": "scratch", "indexes": [{ "key": { "n": 1 }, "name": "n" }] },
            )
            .await
        }
        _ => scratch.drop().await.expect("it is dropped"),
    }
}

#[tokio::test]
async fn any_place_of_the_log_comes_back() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    let client = source.client().await;
    let still = client.database("still").collection("a");
    fill(&still, 0..5, 5).await;
    change(&client, 3).await;
    follow_to_newest(&stage, &source).await;
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let link = Link::open(&source.settings(), &stage.clock).await.expect("a link");
    let mut history: Vec<(OpTime, Held)> = Vec::new();
    for round in 4..10 {
        change(&client, round).await;
        if round == 8 {
            fill(&client.database("shop").collection("late"), 0..3, 5).await;
            fill(&client.database("shop").collection("brief"), 0..3, 5).await;
            client.database("shop").collection::<Document>("brief").drop().await.expect("it is dropped");
        }
        let (head, _) = newest(&link, &stage.task).await.expect("it tells").expect("it has an oplog");
        history.push((head, state(&client, "shop").await));
    }
    follow_to_newest(&stage, &source).await;
    let (target, brought) = (target(&server), server.client().await);
    for (at, expected) in &history {
        let wish = json!({ "until": at.to_string(), "drop": true });
        let restored = restore(&stage, &target, &backup, wish).await.expect("it restores");
        assert!(restored.omissions.is_empty(), "{:?}", restored.omissions);
        let mut found = state(&brought, "shop").await;
        // What a later round made, and an earlier one had not, is dropped with the rest.
        found.retain(|name, documents| expected.contains_key(name) || !documents.is_empty());
        assert!(found == *expected, "at {at}: {}", difference(&found, expected));
        let checks = target.compare(&backup, &stage.task).await.expect("it compares");
        assert!(checks.iter().all(|check| check.passed), "{checks:#?}");
        let names: Vec<&str> = checks.iter().map(|check| check.name.as_str()).collect();
        assert!(names.contains(&"still.a") && !names.contains(&"shop.orders"), "{names:?}");
        assert!(names.contains(&&*format!("log up to {at}")), "{names:?}");
        assert!(names.contains(&"number of documents after the log"), "{names:?}");
    }
    let (last, whole) = history.last().expect("a history");
    // What only the log knows has its line, and can be named.
    let wish = json!({ "until": last.to_string(), "drop": true, "rename": ["shop.late=shop.later", "shop.never=x.y"] });
    let named = plan(&stage, &target, &backup, wish).await.expect("a plan");
    let blockers: Vec<&str> = named.blockers().map(|finding| finding.what.as_str()).collect();
    let never = "--rename shop.never: there is no such name in the backup, nor in the log up to that moment";
    assert_eq!(blockers, [never]);
    let line = named.actions.iter().find(|action| action.object == "shop.later").expect("a line");
    assert!(line.reason.starts_with("made by the log"), "{line:?}");
    assert!(!named.actions.iter().any(|action| action.object == "shop.brief"), "{:?}", named.actions);
    assert!(named.as_of.contains(&last.to_string()), "{}", named.as_of);
    let wish = json!({ "until": last.to_string(), "include": "shop.orders", "rename": "shop=copy" });
    let plan = plan(&stage, &target, &backup, wish).await.expect("a plan");
    let split = plan.findings.iter().find(|finding| finding.what.contains("splits"));
    assert!(split.is_some_and(|finding| finding.severity == Severity::Warning), "{:?}", plan.findings);
    target.restore(&backup, &plan, &stage.task).await.expect("it restores");
    let copy = state(&brought, "copy").await;
    assert!(copy.len() == 1 && copy["orders"] == whole["orders"], "{:?}", sizes(&copy));
}

/// Where two states differ first.
fn difference(found: &BTreeMap<String, Vec<Vec<u8>>>, expected: &BTreeMap<String, Vec<Vec<u8>>>) -> String {
    let document = |bytes: &Vec<u8>| Document::from_reader(&**bytes).expect("a document");
    for (name, documents) in expected {
        let none = Vec::new();
        let there = found.get(name).unwrap_or(&none);
        let differing = documents.iter().zip(there).find(|(expected, found)| expected != found);
        if let Some((expected, found)) = differing {
            return format!("{name} has {} instead of {}", document(found), document(expected));
        }
    }
    format!("{:?} instead of {:?}", sizes(found), sizes(expected))
}

fn sizes(state: &BTreeMap<String, Vec<Vec<u8>>>) -> Vec<(&String, usize)> {
    state.iter().map(|(name, documents)| (name, documents.len())).collect()
}

#[tokio::test]
async fn places_outside_of_the_log_are_refused() {
    let (stage, source, server) =
        (Stage::new(), MongoServer::start(&[]).await, MongoServer::start(&[]).await);
    change(&source.client().await, 3).await;
    follow_to_newest(&stage, &source).await;
    let (_, backup) = stage.back_up(&source.settings(), USUAL).await.expect("it is backed up");
    let target = target(&server);
    let early = plan(&stage, &target, &backup, json!({ "until": "1000:1" })).await.expect("a plan");
    assert!(
        early.blockers().any(|finding| finding.what.starts_with("1000:1 was asked for")),
        "{:?}",
        early.findings
    );
    let late = plan(&stage, &target, &backup, json!({ "until": "4294967295:1" })).await;
    assert_eq!(late.map(drop).expect_err("nobody knows the future").kind(), Kind::NotFound);
    let at = Some(stage.clock.now());
    let both = Wish { options: [("until".to_owned(), json!("4294967295:1"))].into_iter().collect() };
    let error =
        target.plan_restore(&backup, at, &both, &stage.task).await.map(drop).expect_err("they disagree");
    assert_eq!(error.kind(), Kind::Usage);
    assert_eq!(server.client().await.list_database_names().await.expect("they are listed"), ["local"]);
}

#[tokio::test]
async fn the_end_of_its_log_is_told() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    fill(&server.client().await.database("shop").collection("a"), 0..3, 5).await;
    let link = Link::open(&server.settings(), &stage.clock).await.expect("a link");
    let (head, _) = newest(&link, &stage.task).await.expect("it tells").expect("it has an oplog");
    let point = target(&server).log_head(&stage.task).await.expect("it tells").expect("it has a log");
    assert_eq!(point.position, head.position());
    let alone = MongoServer::start(&["--standalone"]).await;
    assert_eq!(target(&alone).log_head(&stage.task).await.expect("it tells"), None);
}
