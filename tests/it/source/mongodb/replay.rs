//! The replay: a history made by a client on one real server, its log applied to another, compared to the byte.

use bytes::Bytes;
use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::mongodb::client::Link;
use tidekeeper::source::mongodb::indexes::Catalogue;
use tidekeeper::source::mongodb::namespace::Namespace;
use tidekeeper::source::mongodb::oplog::records::Records;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::replay::{Replay, Replayed, Span, survey};
use tidekeeper::source::mongodb::selection::Selection;

use super::history::{self, State, Writer, clear, end, indexes, state};
use crate::harness::bench::Bench;
use crate::harness::mongodb::MongoServer;

/// A target, and the log that is applied to it.
struct Scene {
    target: MongoServer,
    client: Client,
    log: Bytes,
    selection: Selection,
    catalogue: Catalogue,
}

impl Scene {
    async fn new(log: &[Vec<u8>]) -> Self {
        let target = MongoServer::start(&[]).await;
        let client = target.client().await;
        let selection = Selection::default();
        Scene { target, client, log: Bytes::from(log.concat()), selection, catalogue: Catalogue::default() }
    }

    async fn replay(&mut self, from: OpTime, until: OpTime, tolerate_until: OpTime) -> Result<Replayed> {
        let bench = Bench::new();
        let link = Link::open(&self.target.settings(), &bench.clock).await?;
        let span = Span { selection: &self.selection, apply_from: from, until, tolerate_until };
        let replay = Replay { link: &link, task: &bench.task, span, apply_ops: true };
        replay.run(Records::given(vec![self.log.clone()], &bench.task), &mut self.catalogue).await
    }

    async fn anew(&mut self, until: OpTime) -> Replayed {
        clear(&self.client).await;
        self.catalogue = Catalogue::default();
        self.replay(OpTime::ZERO, until, OpTime::ZERO).await.expect("it is replayed")
    }
}

#[track_caller]
fn assert_same(found: &State, expected: &State, when: &str) {
    let names = |state: &State| state.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(found), names(expected), "{when}");
    for (name, (options, documents)) in expected {
        let (found_options, found) = &found[name];
        assert_eq!(found_options, options, "{name} {when}");
        let shown = |documents: &[Vec<u8>]| -> Vec<String> {
            let document = |bytes: &Vec<u8>| RawDocumentBuf::from_bytes(bytes.clone()).expect("a document");
            documents.iter().map(|bytes| format!("{:?}", Document::try_from(document(bytes)))).collect()
        };
        assert_eq!(shown(found), shown(documents), "{name} {when}");
        assert_eq!(found, documents, "{name} {when}: the bytes");
    }
}

/// So many changes, and the states in between: where the log stood, and what the server held.
async fn history(server: &MongoServer, steps: usize, renames: bool) -> (Vec<Vec<u8>>, Vec<(OpTime, State)>) {
    let mut writer = Writer::new(server, renames).await;
    let client = server.client().await;
    let mut states = Vec::new();
    for step in 1..=steps {
        writer.step().await;
        if step % (steps / 12) == 0 {
            states.push((end(&history::log(&client).await), state(&client).await));
        }
    }
    (history::log(&client).await, states)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_prefix_of_a_history_is_the_state_of_its_time() {
    let server = MongoServer::start(&[]).await;
    let (log, states) = history(&server, 240, true).await;
    let mut scene = Scene::new(&log).await;
    for (at, expected) in &states {
        let done = scene.anew(*at).await;
        assert_eq!(done.log.last, Some(*at));
        assert!(!done.by_apply_ops, "this server has no applyOps");
        assert_same(&state(&scene.client).await, expected, &format!("at {at}"));
    }
    let source = server.client().await;
    for (ns, (options, _)) in &states.last().expect("states").1 {
        let ns = Namespace::parse(ns).expect("a namespace");
        if options.contains_key("viewOn") {
            continue;
        }
        let mut expected = indexes(&source.database(&ns.db), &ns.collection).await;
        let mut found: Vec<Vec<u8>> = scene.catalogue.of(&ns).iter().map(|spec| spec.to_vec()).collect();
        // The server lists them by name, the catalogue as they were made.
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "the indexes of {ns}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_applied_twice_and_from_behind_the_data() {
    let server = MongoServer::start(&[]).await;
    let (log, states) = history(&server, 240, false).await;
    let mut scene = Scene::new(&log).await;
    let (last, expected) = states.last().expect("states");
    scene.anew(*last).await;
    scene.replay(OpTime::ZERO, *last, *last).await.expect("it is replayed again");
    assert_same(&state(&scene.client).await, expected, "after the second time");
    // As after a fuzzy dump: the data is of a later moment than the log begins at.
    for early in [0, 3, 6] {
        let (from, exact) = (states[early].0, states[early + 4].0);
        scene.anew(exact).await;
        scene.replay(from, *last, exact).await.expect("it is replayed");
        assert_same(&state(&scene.client).await, expected, &format!("with data of {exact} from {from}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_selection_is_taken_under_other_names() {
    let server = MongoServer::start(&[]).await;
    let (log, states) = history(&server, 180, false).await;
    let mut scene = Scene::new(&log).await;
    let rename = ["one.a=nine.z".to_owned()];
    scene.selection = Selection::parse(&["one.a".to_owned()], &rename).expect("a selection");
    let (last, expected) = states.last().expect("states");
    let done = scene.anew(*last).await;
    let found = state(&scene.client).await;
    match expected.get("one.a") {
        Some(expected) => assert_eq!(found.get("nine.z"), Some(expected)),
        None => assert!(!found.contains_key("nine.z")),
    }
    assert!(found.keys().all(|name| name == "nine.z"), "{:?}", found.keys());
    assert!(
        done.log.tally.touched.iter().all(|ns| ns.to_string() == "nine.z"),
        "{:?}",
        done.log.tally.touched
    );
    // What would be done is what was done.
    let bench = Bench::new();
    let span = Span {
        selection: &scene.selection,
        apply_from: OpTime::ZERO,
        until: *last,
        tolerate_until: OpTime::ZERO,
    };
    let records = Records::given(vec![scene.log.clone()], &bench.task);
    let planned = survey(span, records, &mut Catalogue::default()).await.expect("a survey");
    assert_eq!((planned.tally.ops, planned.tally.split), (done.log.tally.ops, done.log.tally.split));
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_collections_and_documents_come_out_the_same() {
    let server = MongoServer::start(&[]).await;
    let client = server.client().await;
    let db = client.database("odd");
    let run = async |command: Document| db.run_command(command).await.expect("the server obeys");
    run(doc! { "create": "capped", "capped": true, "size": 1 << 20, "max": 100 }).await;
    run(doc! { "create": "collated", "collation": { "locale": "en", "strength": 2 } }).await;
    for n in 0..20 {
        run(doc! { "insert": "capped", "documents": [{ "_id": 20 - n, "v": n }] }).await;
    }
    run(doc! { "update": "capped", "updates": [{ "q": { "_id": 7 }, "u": { "$set": { "v": 99 } } }] }).await;
    run(doc! { "insert": "collated", "documents": [{ "_id": "A", "v": 1 }, { "_id": "b", "v": 1 }] }).await;
    run(doc! { "update": "collated", "updates": [{ "q": { "_id": "A" }, "u": { "$set": { "v": 2 } } }] })
        .await;
    run(doc! { "delete": "collated", "deletes": [{ "q": { "_id": "b" }, "limit": 1 }] }).await;
    run(doc! { "insert": "collated", "documents": [{ "_id": "B", "v": 3 }] }).await;
    // The same _id by value: gone as an integer, back as a float, changed as a long.
    run(doc! { "insert": "plain", "documents": [{ "_id": 1, "v": 1 }, { "_id": 2, "$x": 1, "a.b": 2 }] })
        .await;
    run(doc! { "delete": "plain", "deletes": [{ "q": { "_id": 1 }, "limit": 1 }] }).await;
    run(doc! { "insert": "plain", "documents": [{ "_id": 1.0, "v": 2 }, { "_id": 3, "v": [] }] }).await;
    run(doc! { "update": "plain", "updates": [{ "q": { "_id": 1_i64 }, "u": { "$inc": { "v": 1 } } }] })
        .await;
    run(doc! { "update": "plain", "updates": [{ "q": { "_id": 2 }, "u": { "$set": { "v": 1 } } }] }).await;
    let log = history::log(&client).await;
    let expected = state(&client).await;
    let natural = history::documents(&db, "capped").await;
    let mut scene = Scene::new(&log).await;
    scene.anew(end(&log)).await;
    assert_same(&state(&scene.client).await, &expected, "at the end");
    assert_eq!(history::documents(&scene.client.database("odd"), "capped").await, natural);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_operations_take_few_round_trips() {
    let server = MongoServer::start(&["--oplog-max-entries", "20000"]).await;
    let client = server.client().await;
    let collection = client.database("many").collection::<Document>("c");
    let documents: Vec<_> = (0..4000).map(|n| doc! { "_id": n, "v": 0, "t": "x".repeat(100) }).collect();
    collection.insert_many(documents).await.expect("they are inserted");
    let early = end(&history::log(&client).await);
    collection.update_many(doc! {}, doc! { "$inc": { "v": 1 } }).await.expect("they are changed");
    collection.delete_many(doc! { "_id": { "$gte": 3000 } }).await.expect("they are deleted");
    let log = history::log(&client).await;
    let mut scene = Scene::new(&log).await;
    scene.anew(early).await;
    // Of these none is brought along by the log: they are read from the target.
    let done = scene.replay(early, end(&log), early).await.expect("it is replayed");
    assert_eq!(done.log.tally.ops, 5000);
    assert!(done.round_trips * 100 <= done.log.tally.ops, "{} round trips", done.round_trips);
    assert_same(&state(&scene.client).await, &state(&client).await, "at the end");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_what_is_not_there_is_an_error_that_names_it() {
    let server = MongoServer::start(&[]).await;
    let client = server.client().await;
    let collection = client.database("gone").collection::<Document>("c");
    collection.insert_one(doc! { "_id": 42, "v": 1 }).await.expect("it is inserted");
    let early = end(&history::log(&client).await);
    collection.update_one(doc! { "_id": 42 }, doc! { "$set": { "v": 2 } }).await.expect("it is changed");
    let log = history::log(&client).await;
    let mut scene = Scene::new(&log).await;
    let error = scene.replay(early, end(&log), early).await.expect_err("there is no such document");
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains("gone.c") && error.to_string().contains("42"), "{error}");
    // Where the data may be newer than the log, the document may have gone since.
    scene.replay(early, end(&log), end(&log)).await.expect("it is tolerated");
    assert!(state(&scene.client).await.values().all(|(_, documents)| documents.is_empty()));
}
