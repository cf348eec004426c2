//! What entries of the log, as a mongod writes them, mean for a target.

use bytes::Bytes;
use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::mongodb::indexes::Catalogue;
use tidekeeper::source::mongodb::namespace::Namespace;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::replay::apply_ops::{compose, understands};
use tidekeeper::source::mongodb::replay::route::{Act, Change, Router, Step, Tally, Write};
use tidekeeper::source::mongodb::selection::Selection;

use super::ground::{assembler, block_on, units};

fn bytes(document: &Document) -> Bytes {
    RawDocumentBuf::try_from(document).expect("a document").into_bytes().into()
}

fn document(bytes: &[u8]) -> Document {
    let raw = RawDocumentBuf::from_bytes(bytes.to_vec()).expect("a document");
    Document::try_from(raw).expect("a document")
}

fn ns(name: &str) -> Namespace {
    Namespace::parse(name).expect("a namespace")
}

/// What was decided, with the catalogue's edits and the counts.
struct Routed {
    steps: Vec<Step>,
    catalogue: Catalogue,
    tally: Tally,
    followed: std::collections::BTreeMap<Namespace, Namespace>,
}

impl Routed {
    fn acts(&self) -> Vec<(&'static str, String, Document)> {
        let acts = self.steps.iter().filter_map(|step| match step {
            Step::Command(command) => Some(&command.act),
            Step::Write(_) => None,
        });
        let told = |act: &Act| match act {
            Act::Create(ns, create) => ("create", ns.to_string(), document(create)),
            Act::Modify(ns, modify) => ("modify", ns.to_string(), document(modify)),
            Act::Drop(ns) => ("drop", ns.to_string(), doc! {}),
            Act::Rename(from, to) => ("rename", format!("{from}={to}"), doc! {}),
        };
        acts.map(told).collect()
    }

    fn writes(&self) -> Vec<&Write> {
        let writes = self.steps.iter().filter_map(|step| match step {
            Step::Write(write) => Some(write),
            Step::Command(_) => None,
        });
        writes.collect()
    }
}

fn route_by(selection: &Selection, fuzzy_until: u32, entries: Vec<Document>) -> Result<Routed> {
    route_onto(&mut Catalogue::default(), selection, fuzzy_until, entries)
}

/// Entries one second apart, each with what every entry of a mongod has.
fn route_onto(
    catalogue: &mut Catalogue,
    selection: &Selection,
    fuzzy_until: u32,
    entries: Vec<Document>,
) -> Result<Routed> {
    let fuzzy_until = OpTime { seconds: fuzzy_until, increment: 0 };
    let mut router = Router::new(selection, catalogue, fuzzy_until);
    let mut assembler = assembler(OpTime::ZERO);
    let mut steps = Vec::new();
    for (n, mut entry) in entries.into_iter().enumerate() {
        entry.extend(doc! { "ts": Timestamp { time: n as u32 + 1, increment: 1 }, "t": 1_i64, "v": 2_i64 });
        for unit in block_on(units(&mut assembler, bytes(&entry)))? {
            steps.extend(router.route(&unit)?);
        }
    }
    let (tally, followed) = (router.tally, router.followed);
    Ok(Routed { steps, catalogue: catalogue.clone(), tally, followed })
}

fn route(entries: Vec<Document>) -> Routed {
    route_by(&Selection::default(), 0, entries).expect("it is routed")
}

fn selection(include: &[&str], rename: &[&str]) -> Selection {
    let owned = |texts: &[&str]| texts.iter().map(ToString::to_string).collect::<Vec<_>>();
    Selection::parse(&owned(include), &owned(rename)).expect("it is meant")
}

fn command(db: &str, o: Document) -> Document {
    doc! { "op": "c", "ns": format!("{db}.$cmd"), "o": o }
}

fn insert(ns: &str, id: i32) -> Document {
    doc! { "op": "i", "ns": ns, "o": { "_id": id } }
}

#[test]
fn a_time_series_is_made_by_its_own_name_and_expires_last() {
    let made = doc! {
        "create": "system.buckets.ts", "validator": { "$jsonSchema": {} }, "validationLevel": "strict", "clusteredIndex": true,
        "timeseries": { "timeField": "t", "metaField": "m", "granularity": "seconds" }, "expireAfterSeconds": 3600_i64,
    };
    let view = doc! { "_id": "db.ts", "viewOn": "system.buckets.ts", "pipeline": [] };
    let key = doc! { "control.min.t": 1, "control.max.t": 1 };
    let by_meta = doc! { "meta": 1, "meta.site": 1, "control.max.t": -1, "control.min.t": -1 };
    let bounds = doc! { "control.min.v": 1, "control.max.v": 1 };
    let original =
        doc! { "v": 2, "key": { "v": 1 }, "name": "some", "partialFilterExpression": { "v": { "$gt": 5 } } };
    let routed = route(vec![
        command("db", doc! { "create": "system.views", "idIndex": {} }),
        command("db", made),
        doc! { "op": "i", "ns": "db.system.views", "o": view },
        insert("db.system.buckets.ts", 1),
        command("db", doc! { "createIndexes": "system.buckets.ts", "v": 2, "key": key, "name": "t_1" }),
        command("db", doc! { "createIndexes": "system.buckets.ts", "v": 2, "key": by_meta, "name": "who" }),
        command(
            "db",
            doc! { "createIndexes": "system.buckets.ts", "v": 2, "key": { "meta": 1 }, "name": "gone" },
        ),
        command("db", doc! { "dropIndexes": "system.buckets.ts", "index": "gone" }),
        command(
            "db",
            doc! { "createIndexes": "system.buckets.ts", "v": 2, "key": bounds, "name": "some", "originalSpec": original.clone() },
        ),
        command("db", doc! { "collMod": "system.buckets.ts", "timeseries": { "granularity": "hours" } }),
    ]);
    let expected = [
        (
            "create",
            "db.ts".to_owned(),
            doc! { "create": "ts", "timeseries": { "timeField": "t", "metaField": "m", "granularity": "seconds" } },
        ),
        ("modify", "db.ts".to_owned(), doc! { "collMod": "ts", "timeseries": { "granularity": "hours" } }),
    ];
    assert_eq!(routed.acts(), expected);
    assert_eq!(routed.catalogue.expiries().collect::<Vec<_>>(), [(&ns("db.ts"), 3600)]);
    let found: Vec<Document> = routed.catalogue.of(&ns("db.ts")).iter().map(|spec| document(spec)).collect();
    let expected = [
        doc! { "v": 2, "key": { "t": 1 }, "name": "t_1" },
        doc! { "v": 2, "key": { "m": 1, "m.site": 1, "t": -1 }, "name": "who" },
        original,
    ];
    assert_eq!(found, expected);
    assert!(routed.catalogue.of(&ns("db.system.buckets.ts")).is_empty());
    assert_eq!(routed.writes().len(), 1);
}

/// As 8.3 writes them down.
#[test]
fn a_time_series_without_a_view_has_indexes_in_the_words_of_its_buckets() {
    let of_series = |o: Document| {
        let mut entry = command("db", o);
        entry.insert("isTimeseries", true);
        entry
    };
    let options = doc! { "timeField": "t", "metaField": "m" };
    let index = |key: Document, name: &str| doc! { "v": 2, "key": key, "name": name };
    let (by_meta, by_time) = (
        doc! { "meta": 1, "control.min.t": 1, "control.max.t": 1 },
        doc! { "control.max.t": -1, "control.min.t": -1 },
    );
    let mut made = doc! { "createIndexes": "ts" };
    made.extend(index(by_meta, "m_1_t_1"));
    let routed = route(vec![
        of_series(doc! { "create": "ts", "timeseries": options.clone() }),
        of_series(made.clone()),
        of_series(doc! { "commitIndexBuild": "ts", "indexes": [index(by_time, "t_-1")] }),
        // A server of another make has none of this: its keys are as they were asked for.
        command("db", doc! { "create": "plain", "timeseries": options }),
        command("db", doc! { "createIndexes": "plain", "indexes": [index(doc! { "meta": 1 }, "meta")] }),
    ]);
    let found = |name: &str| -> Vec<Document> {
        routed.catalogue.of(&ns(name)).iter().map(|spec| document(spec)).collect()
    };
    let expected = [index(doc! { "m": 1, "t": 1 }, "m_1_t_1"), index(doc! { "t": -1 }, "t_-1")];
    assert_eq!(found("db.ts"), expected);
    assert_eq!(found("db.plain"), [index(doc! { "meta": 1 }, "meta")]);
}

#[test]
fn views_come_from_the_collection_that_holds_them() {
    let on = |view: &str, on: &str| doc! { "_id": view, "viewOn": on, "pipeline": [{ "$match": {} }] };
    let entries = vec![
        doc! { "op": "i", "ns": "db.system.views", "o": on("db.v", "a") },
        doc! { "op": "u", "ns": "db.system.views", "o": on("db.v", "b"), "o2": { "_id": "db.v" } },
        doc! { "op": "d", "ns": "db.system.views", "o": { "_id": "db.v" } },
        command("db", doc! { "create": "w", "viewOn": "a", "viewPipeline": [] }),
        command("db", doc! { "drop": "system.views" }),
    ];
    let renamed = selection(&[], &["db=other", "db.a=other.z"]);
    let routed = route_by(&renamed, 0, entries).expect("it is routed");
    let expected = [
        (
            "create",
            "other.v".to_owned(),
            doc! { "create": "v", "viewOn": "z", "pipeline": [{ "$match": {} }] },
        ),
        (
            "modify",
            "other.v".to_owned(),
            doc! { "collMod": "v", "viewOn": "b", "pipeline": [{ "$match": {} }] },
        ),
        ("drop", "other.v".to_owned(), doc! {}),
        ("create", "other.w".to_owned(), doc! { "create": "w", "viewOn": "z", "pipeline": [] }),
        ("drop", "other.w".to_owned(), doc! {}),
    ];
    assert_eq!(routed.acts(), expected);
}

#[test]
fn only_views_that_are_known_go_with_their_database() {
    let mut catalogue = Catalogue::default();
    for view in ["db.old", "db.left.out", "more.v"] {
        catalogue.add_view(&ns(view));
    }
    let renamed = selection(&["db.old", "more"], &["db=other"]);
    let entries =
        vec![command("db", doc! { "drop": "system.views" }), command("db", doc! { "dropDatabase": 1 })];
    let routed = route_onto(&mut catalogue, &renamed, 0, entries).expect("it is routed");
    assert_eq!(routed.acts(), [("drop", "other.old".to_owned(), doc! {})]);
    assert!(routed.tally.touched.contains(&ns("other.old")) && routed.tally.touched.len() == 1);
}

fn create(db: &str, name: &str) -> Document {
    command(db, doc! { "create": name })
}

fn rename(from: &str, to: &str) -> Document {
    command("db", doc! { "renameCollection": from, "to": to, "dropTarget": true })
}

#[test]
fn what_the_log_makes_is_followed_to_a_name_that_is_selected() {
    let only = selection(&["db.report"], &["db=other"]);
    let entries = || {
        vec![
            insert("db.t1", 7),
            command("db", doc! { "drop": "t1" }),
            create("db", "t1"),
            insert("db.t1", 1),
            rename("db.t1", "db.t2"),
            insert("db.t2", 2),
            rename("db.t2", "db.report"),
            insert("db.t1", 3),
        ]
    };
    let mut followed = std::collections::BTreeMap::new();
    let mut rounds = 0;
    let routed = loop {
        rounds += 1;
        let mut routed = route_by(&only.clone().following(&followed), 9, entries()).expect("it is routed");
        if routed.followed.is_empty() {
            break routed;
        }
        followed.append(&mut routed.followed);
    };
    assert_eq!(rounds, 3, "from the last name to the first");
    let expected = [
        ("create", "other.t1".to_owned(), doc! { "create": "t1" }),
        ("rename", "other.t1=other.t2".to_owned(), doc! {}),
        ("rename", "other.t2=other.report".to_owned(), doc! {}),
    ];
    assert_eq!(routed.acts(), expected);
    let writes: Vec<String> = routed.writes().iter().map(|write| write.ns.to_string()).collect();
    assert_eq!(writes, ["other.t1", "other.t2"], "and nothing of another collection of the same name");
}

#[test]
fn only_what_another_server_understands_is_sent() {
    let id_index = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
    let routed = route(vec![
        doc! { "op": "n", "ns": "", "o": { "msg": "periodic noop" } },
        doc! { "op": "km", "ns": "db.c", "o": { "k": 1 } },
        command(
            "db",
            doc! { "create": "c", "capped": true, "size": 4096, "idIndex": id_index, "temp": true },
        ),
        command("db", doc! { "startIndexBuild": "c", "indexes": [] }),
        command("db", doc! { "abortIndexBuild": "c", "indexes": [] }),
        command("db", doc! { "dropDatabase": 1 }),
        command("config", doc! { "create": "image_collection" }),
        insert("config.transactions", 1),
        insert("local.x", 1),
        insert("db.system.profile", 1),
        insert("db.system.js", 1),
        insert("admin.system.users", 1),
        command("db", doc! { "collMod": "c", "index": { "name": "x", "hidden": true } }),
        command("db", doc! { "collMod": "c" }),
        command(
            "db",
            doc! { "collMod": "c", "validationLevel": "off", "index": { "name": "x", "hidden": true } },
        ),
    ]);
    let expected = [
        ("create", "db.c".to_owned(), doc! { "create": "c", "capped": true, "size": 4096 }),
        ("modify", "db.c".to_owned(), doc! { "collMod": "c", "validationLevel": "off" }),
    ];
    assert_eq!(routed.acts(), expected);
    assert_eq!(
        routed.writes().iter().map(|write| write.ns.to_string()).collect::<Vec<_>>(),
        ["db.system.js"]
    );
    assert_eq!(routed.tally.users, 1);
    let unknown = route_by(&Selection::default(), 0, vec![command("db", doc! { "importCollection": "c" })]);
    let error = unknown.err().expect("it is not known");
    assert!(error.kind() == Kind::Unsupported && error.to_string().contains("importCollection"), "{error}");
}

#[test]
fn a_rename_over_the_selections_edge_is_a_drop_or_an_error() {
    let only = selection(&["db.a", "db.b"], &[]);
    let acts =
        |from, to| Ok::<_, tidekeeper::error::Error>(route_by(&only, 0, vec![rename(from, to)])?.acts());
    assert_eq!(acts("db.a", "db.b").expect("both"), [("rename", "db.a=db.b".to_owned(), doc! {})]);
    assert_eq!(acts("db.a", "db.x").expect("it leaves"), [("drop", "db.a".to_owned(), doc! {})]);
    assert_eq!(acts("db.x", "db.y").expect("neither"), []);
    let error = acts("db.x", "db.b").expect_err("what it holds is not there");
    assert!(
        error.kind() == Kind::Refused && error.hint_text().is_some_and(|hint| hint.contains("db.x")),
        "{error:?}"
    );
    // While a fuzzy dump was read, nobody knows which name its documents were read under.
    let error = route_by(&only, 9, vec![rename("db.a", "db.b")]).err().expect("it is refused");
    assert_eq!(error.kind(), Kind::Unsupported);
    // Nobody needs to know where the log has all of it, and as little where that has got another name since.
    let made = vec![create("db", "a"), rename("db.a", "db.b"), rename("db.b", "db.a")];
    assert_eq!(route_by(&only, 9, made).expect("it is routed").acts().len(), 3);
    let made = vec![create("db", "b"), rename("db.a", "db.b")];
    assert!(
        route_by(&only, 9, made).is_err(),
        "the one that is replaced was made, not the one that is renamed"
    );
}

#[test]
fn a_transaction_that_the_selection_splits_is_told() {
    let lsid = doc! { "id": 1 };
    let ops = vec![insert("db.a", 1), insert("db.b", 2), insert("other.c", 3)];
    let transaction = doc! {
        "op": "c", "ns": "admin.$cmd", "o": { "applyOps": ops }, "lsid": lsid, "txnNumber": 1_i64,
        "prevOpTime": { "ts": Timestamp { time: 0, increment: 0 }, "t": -1_i64 },
    };
    let routed = route_by(&selection(&["db.a"], &[]), 0, vec![transaction]).expect("it is routed");
    assert_eq!(routed.writes().len(), 1);
    assert_eq!((routed.tally.split.transactions, routed.tally.split.left_out), (1, 2));
    assert_eq!(routed.tally.split.first, Some(OpTime { seconds: 1, increment: 1 }));
}

#[test]
fn two_that_would_become_one_are_refused_where_they_meet() {
    let merge = selection(&[], &["a=b"]);
    let error = route_by(&merge, 0, vec![insert("a.x", 1), insert("b.x", 1)]).err().expect("it is refused");
    assert!(error.kind() == Kind::Refused && error.to_string().contains("a.x and b.x"), "{error}");
}

#[test]
fn apply_ops_get_the_operation_alone() {
    let diff = doc! { "$v": 2, "diff": { "u": { "v": 1 } } };
    let routed = route(vec![
        doc! { "op": "i", "ns": "db.c", "ui": 1, "o": { "_id": 1, "v": 0 }, "lsid": { "id": 1 }, "txnNumber": 1_i64, "stmtId": 0 },
        doc! { "op": "u", "ns": "db.c", "ui": 1, "o": diff.clone(), "o2": { "_id": 1, "shard": 2 } },
        doc! { "op": "u", "ns": "db.c", "o": { "_id": 1, "v": 2 }, "o2": { "_id": 1 } },
        doc! { "op": "d", "ns": "db.c", "o": { "_id": 1, "shard": 2 } },
    ]);
    let writes = routed.writes();
    assert!(matches!(writes[1].change, Change::Patch(_)));
    let (composed, count) = compose(&writes);
    let expected = doc! { "applyOps": [
        { "op": "i", "ns": "db.c", "o": { "_id": 1, "v": 0 } },
        { "op": "u", "ns": "db.c", "o": diff, "o2": { "_id": 1 } },
        { "op": "u", "ns": "db.c", "o": { "_id": 1, "v": 2 }, "o2": { "_id": 1 }, "b": true },
        { "op": "d", "ns": "db.c", "o": { "_id": 1 } },
    ], "allowAtomic": false };
    assert_eq!((document(&composed), count), (expected, 4));
    let described = doc! { "$v": 2, "diff": { "updatedFields": { "v": 1 } } };
    let routed = route(vec![doc! { "op": "u", "ns": "db.c", "o": described, "o2": { "_id": 1 } }]);
    let writes: Vec<Write> = routed.writes().into_iter().cloned().collect();
    assert!(!understands(&writes).expect("it is read"), "a mongod does not know these words");
}
