//! Plans of restores, of which moments they are, and what metadata says.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;
use mongodb::bson::{Document, RawDocumentBuf, doc};
use proptest::prelude::*;
use serde_json::json;
use tidekeeper::error::Kind;
use tidekeeper::source::Severity;
use tidekeeper::source::mongodb::blueprint::{Blueprint, Shape, understand};
use tidekeeper::source::mongodb::collections::{buildable, create_command};
use tidekeeper::source::mongodb::documents::{assemble, keeps_timestamps};
use tidekeeper::source::mongodb::facts::Facts;
use tidekeeper::source::mongodb::namespace::Namespace;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::plan::{Spec, actions, wanted};
use tidekeeper::source::mongodb::replay::Survey;
use tidekeeper::source::mongodb::wish::Options;
use tidekeeper::vault::layout::{BackupId, BackupRef};
use tidekeeper::vault::manifest::{Artifact, Digest, Manifest, Status};

fn blueprint(db: &str, collection: &str) -> Blueprint {
    Blueprint {
        namespace: Namespace::new(db, collection),
        shape: Shape::Plain,
        options: Document::new(),
        indexes: vec![
            doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" },
            doc! { "v": 2, "key": { "a": 1 }, "name": "a_1" },
        ],
        documents: None,
    }
}

fn artifact(name: &str) -> Artifact {
    let digest = Digest { bytes: 1, sha256: String::new() };
    Artifact {
        name: name.to_owned(),
        key: "k".to_owned(),
        media_type: "application/octet-stream".to_owned(),
        codecs: Vec::new(),
        plain: digest.clone(),
        stored: digest,
    }
}

fn manifest(facts: serde_json::Value) -> Manifest {
    let now = Timestamp::UNIX_EPOCH;
    let source = "mongo-main".parse().expect("a name");
    let backup = BackupRef { source, id: BackupId::new(now, None, 1) };
    let mut manifest = Manifest::bare(&backup, "mongodb", Status::Complete, now);
    let serde_json::Value::Object(facts) = facts else { panic!("facts are an object") };
    manifest.contents.facts = facts;
    manifest
}

fn at(seconds: u32, increment: u32) -> OpTime {
    OpTime { seconds, increment }
}

#[test]
fn the_cut_is_at_the_end_of_a_second_or_where_it_is_said() {
    let facts =
        Facts::of(&manifest(json!({ "consistency": "fuzzy", "apply_from": "90:2", "exact_at": "100:3" })));
    assert_eq!((facts.apply_from, facts.exact_at, facts.is_fuzzy), (at(90, 2), Some(at(100, 3)), true));
    assert_eq!(facts.tolerate_until(), at(100, 3));
    let second = |second| Some(Timestamp::from_second(second).expect("a moment"));
    let cut = |at, until| facts.cut(at, until).expect("it can be meant");
    assert_eq!(cut(None, None), Ok(Some(at(100, 3))));
    assert_eq!(cut(second(100), None), Ok(Some(at(100, u32::MAX))));
    assert_eq!(cut(None, Some(at(100, 3))), Ok(Some(at(100, 3))));
    for (moment, until, words) in
        [(second(99), None, "1970-01-01T00:01:39Z"), (None, Some(at(100, 2)), "100:2")]
    {
        let finding = cut(moment, until).expect_err("the backup is later");
        assert_eq!(finding.severity, Severity::Error);
        assert!(finding.what.contains(words) && finding.what.contains("100:3"), "{finding:?}");
    }
    let half = Timestamp::from_millisecond(101_500).expect("a moment");
    for (moment, until) in [(second(101), Some(at(101, 4))), (Some(half), None)] {
        assert_eq!(facts.cut(moment, until).expect_err("it cannot be meant").kind(), Kind::Usage);
    }
}

#[test]
fn a_backup_without_a_log_is_of_its_own_moment_only() {
    let facts = Facts::of(&manifest(json!({ "consistency": "fuzzy", "apply_from": null, "exact_at": null })));
    assert_eq!(facts.cut(None, None).expect("it can be meant"), Ok(None));
    let moment = Some(Timestamp::from_second(5).expect("a moment"));
    let finding = facts.cut(moment, None).expect("it can be meant").expect_err("there is no log");
    assert!(finding.advice.contains("oplog"), "{finding:?}");
}

#[test]
fn many_collections_are_told_by_database() {
    let spec = Spec::new(&Options::default(), true, true, None);
    let selection = spec.selection().expect("a selection");
    let few: Vec<Blueprint> = (0..50).map(|n| blueprint("shop", &format!("c{n}"))).collect();
    let lines = actions(&wanted(&few, &selection), &Survey::default(), &spec, &BTreeMap::new());
    assert_eq!(lines.len(), 50 + 2);
    assert_eq!((lines[50].verb.as_str(), lines[50].object.as_str()), ("build", "50 indexes"));
    assert_eq!(lines[51].verb, "merge");
    let mut many: Vec<Blueprint> = (0..60).map(|n| blueprint("shop", &format!("c{n}"))).collect();
    many.extend([blueprint("hr", "people"), blueprint("config", "settings"), blueprint("local", "x")]);
    let lines = actions(&wanted(&many, &selection), &Survey::default(), &spec, &BTreeMap::new());
    let objects: Vec<&str> = lines.iter().map(|line| line.object.as_str()).collect();
    assert_eq!(objects[..2], ["1 collection in hr", "60 collections in shop"], "{objects:?}");
}

#[test]
fn the_log_has_a_line_if_it_does_something() {
    let mut log = Survey::default();
    let spec = Spec::new(&Options::default(), true, false, Some(at(100, 7)));
    assert!(actions(&[], &log, &spec, &BTreeMap::new()).is_empty());
    log.tally.ops = 12;
    let lines = actions(&[], &log, &spec, &BTreeMap::new());
    assert_eq!(lines[0].verb, "replay");
    assert!(lines[0].object.contains("12 operations") && lines[0].reason.contains("100:7"), "{lines:?}");
}

#[test]
fn metadata_says_what_a_collection_was() {
    let artifacts =
        [artifact("shop/a+b.bson"), artifact("shop/system.buckets.ts.bson"), artifact("shop/meas.bson")];
    let read = |name: &str, text: &str| understand(name, text.as_bytes(), &artifacts);
    let text = r#"{"options":{"capped":true,"size":{"$numberLong":"65536"}},"indexes":[{"v":{"$numberInt":"2"},
        "key":{"z":{"$numberInt":"1"},"a":{"$numberDouble":"-1.0"}},"name":"z_a"}],"collectionName":"a b","type":"collection"}"#;
    let capped = read("shop/a+b.metadata.json", text).expect("it is understood");
    assert_eq!(capped.namespace, Namespace::new("shop", "a b"));
    assert_eq!(capped.shape, Shape::Capped);
    assert_eq!(capped.options, doc! { "capped": true, "size": 65536_i64 });
    let key = capped.indexes[0].get_document("key").expect("a key");
    assert_eq!(key.keys().collect::<Vec<_>>(), ["z", "a"], "the order of a key means something");
    assert_eq!(capped.documents.expect("its documents").name, "shop/a+b.bson");

    let series = r#"{"options":{"timeseries":{"timeField":"t"}},"indexes":[],"collectionName":"ts","type":"timeseries"}"#;
    let series = read("shop/ts.metadata.json", series).expect("it is understood");
    assert_eq!(series.shape, Shape::Buckets);
    assert_eq!(series.documents.expect("its buckets").name, "shop/system.buckets.ts.bson");
    let plain = r#"{"options":{"timeseries":{"timeField":"t"}},"collectionName":"meas","type":"collection"}"#;
    assert_eq!(read("shop/meas.metadata.json", plain).expect("it is understood").shape, Shape::Plain);
    let view = r#"{"options":{"viewOn":"a b","pipeline":[]},"collectionName":"v"}"#;
    assert_eq!(read("shop/v.metadata.json", view).expect("it is understood").shape, Shape::View);

    for (name, text) in [
        ("shop/x.metadata.json", r#"{"collectionName":"y"}"#),
        ("x.metadata.json", r#"{"collectionName":"x"}"#),
        ("shop/x.metadata.json", "{"),
    ] {
        assert_eq!(read(name, text).expect_err("it is none").kind(), Kind::Damaged, "{name} {text}");
    }
}

#[test]
fn what_create_refuses_is_left_out() {
    let mut blueprint = blueprint("shop", "x");
    blueprint.options =
        doc! { "uuid": "u", "autoIndexId": false, "expireAfterSeconds": 5_i64, "validator": { "a": 1 } };
    blueprint.indexes[0].insert("ns", "shop.x");
    let command = create_command(&blueprint, &Namespace::new("old", "y"));
    let own = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
    assert_eq!(command, doc! { "create": "y", "validator": { "a": 1 }, "idIndex": own });
    blueprint.options = doc! { "clusteredIndex": { "key": { "_id": 1 }, "unique": true } };
    assert!(!create_command(&blueprint, &blueprint.namespace).contains_key("idIndex"));
}

#[test]
fn an_index_without_a_collation_keeps_none() {
    let spec = doc! { "key": { "a": 1 }, "name": "a_1", "ns": "shop.x" };
    let simple = doc! { "key": { "a": 1 }, "name": "a_1", "collation": { "locale": "simple" } };
    assert_eq!(buildable(&spec, true), Some(simple));
    assert_eq!(buildable(&spec, false), Some(doc! { "key": { "a": 1 }, "name": "a_1" }));
    assert_eq!(buildable(&doc! { "key": { "_id": 1 }, "name": "_id_" }, false), None);
    assert_eq!(buildable(&doc! { "key": { "_id": 1 }, "name": "c", "clustered": true }, false), None);
}

#[test]
fn only_servers_that_know_it_are_told_of_empty_timestamps() {
    for (version, knows) in [
        ("4.4.29", false),
        ("5.0.28", false),
        ("5.0.29", true),
        ("6.0.17", true),
        ("7.0.12", false),
        ("7.0.13-rc1", true),
        ("7.3.1", false),
        ("8.0.0", true),
        ("8.2.11", true),
        ("unknown", false),
    ] {
        assert_eq!(keeps_timestamps(version), knows, "{version}");
    }
}

proptest! {
    #[test]
    fn a_batch_put_together_from_bytes_is_the_command(texts in prop::collection::vec(".{0,40}", 0..120)) {
        let documents: Vec<Document> =
            texts.iter().enumerate().map(|(n, text)| doc! { "_id": n as i64, "text": text }).collect();
        let bytes: Vec<Bytes> = documents.iter().map(|one| Bytes::from(one.to_vec().expect("bytes"))).collect();
        let head = doc! { "insert": "x", "ordered": false };
        let mut whole = head.clone();
        whole.insert("documents", documents);
        let expected = RawDocumentBuf::try_from(&whole).expect("a document");
        prop_assert_eq!(assemble(&head, &bytes).expect("a command"), expected);
    }
}
