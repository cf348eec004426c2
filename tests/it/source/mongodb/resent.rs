//! A replay onto a server that applies `applyOps`, and whose answers are lost, late or bad: what is sent twice is done as if once,
//! and what a fuzzy dump read under which name does not matter.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use mongodb::Client;
use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};
use tidekeeper::error::{Kind, Result};
use tidekeeper::source::mongodb::client::Link;
use tidekeeper::source::mongodb::indexes::Catalogue;
use tidekeeper::source::mongodb::oplog::records::Records;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::replay::{Replay, Replayed, Span};
use tidekeeper::source::mongodb::selection::Selection;

use super::history::Dice;
use crate::harness::bench::Bench;
use crate::harness::mongodb::settings_at;
use crate::harness::wire::{Double, Options};

/// A double as the target.
struct Scene {
    double: Double,
    client: Client,
}

/// What each collection holds: the documents' `v` by their ids.
type Held = BTreeMap<String, BTreeMap<i32, i32>>;

impl Scene {
    async fn new() -> Self {
        let double = Double::start(Options::default(), 0).expect("loopback has ports");
        let client = Client::with_uri_str(double.uri()).await.expect("an address");
        Scene { double, client }
    }

    async fn put(&self, name: &str, documents: Vec<Document>) {
        let collection = self.client.database("db").collection::<Document>(name);
        match documents.is_empty() {
            true => self.client.database("db").create_collection(name).await.expect("it is made"),
            false => drop(collection.insert_many(documents).await.expect("they are inserted")),
        }
    }

    /// Something befalls the answer to a command of this name, after so many others: it says with a code that most members do not
    /// have it, or it is lost.
    async fn befall(&self, command: &str, after: i32, unmet: Option<i32>) {
        let ask = doc! { "wireBefall": command, "after": after, "unmet": unmet };
        self.client.database("admin").run_command(ask).await.expect("known to the double");
    }

    /// Commands that came without a write concern.
    async fn hasty(&self) -> Vec<String> {
        let ask = doc! { "wireStats": 1 };
        let stats = self.client.database("admin").run_command(ask).await.expect("known to the double");
        let hasty = stats.get_array("hasty").expect("they are told").iter();
        hasty.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    }

    /// All of these, one second apart, of which the data may be newer than the first.
    async fn replay(&self, entries: &[Document], tolerate_until: u32, apply_ops: bool) -> Result<Replayed> {
        let bench = Bench::new();
        let task = &bench.task;
        let link = Link::open(&settings_at(&self.double.uri()), &task.clock).await?;
        let selection = Selection::default();
        let span = Span {
            selection: &selection,
            apply_from: OpTime::ZERO,
            until: OpTime { seconds: u32::MAX, increment: 0 },
            tolerate_until: OpTime { seconds: tolerate_until, increment: 0 },
        };
        let replay = Replay { link: &link, task, span, apply_ops };
        replay.run(Records::given(vec![log(entries)], task), &mut Catalogue::default()).await
    }

    async fn held(&self) -> Held {
        let db = self.client.database("db");
        let mut held = Held::new();
        for name in db.list_collection_names().await.expect("they are listed") {
            let found = db.collection::<Document>(&name).find(doc! {}).await.expect("a cursor");
            let found: Vec<Document> = found.try_collect().await.expect("documents");
            let pairs =
                found.iter().map(|one| (one.get_i32("_id").expect("an id"), one.get_i32("v").expect("v")));
            held.insert(name, pairs.collect());
        }
        held
    }
}

fn log(entries: &[Document]) -> Bytes {
    let mut log = Vec::new();
    for (n, entry) in entries.iter().enumerate() {
        let mut whole = doc! { "ts": Timestamp { time: n as u32 + 1, increment: 1 }, "t": 1_i64, "v": 2_i64 };
        whole.extend(entry.clone());
        log.extend(RawDocumentBuf::try_from(&whole).expect("a document").into_bytes());
    }
    log.into()
}

fn command(o: Document) -> Document {
    doc! { "op": "c", "ns": "db.$cmd", "o": o }
}

fn insert(name: &str, id: i32, v: i32) -> Document {
    doc! { "op": "i", "ns": format!("db.{name}"), "o": { "_id": id, "v": v } }
}

fn set(name: &str, id: i32, v: i32) -> Document {
    let diff = doc! { "$v": 2, "diff": { "u": { "v": v } } };
    doc! { "op": "u", "ns": format!("db.{name}"), "o": diff, "o2": { "_id": id } }
}

fn remove(name: &str, id: i32) -> Document {
    doc! { "op": "d", "ns": format!("db.{name}"), "o": { "_id": id } }
}

fn number(pairs: &[(i32, i32)]) -> BTreeMap<i32, i32> {
    pairs.iter().copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_answer_is_lost_is_done_as_if_once() {
    let entries = [
        insert("a", 2, 0),
        set("a", 1, 1),
        set("a", 2, 1),
        remove("a", 1),
        set("a", 2, 2),
        set("a", 3, 1),
        remove("a", 3),
        insert("a", 3, 5),
        set("a", 3, 6),
        command(doc! { "create": "made" }),
        insert("made", 1, 1),
        command(doc! { "renameCollection": "db.made", "to": "db.named", "dropTarget": true }),
        command(doc! { "drop": "gone" }),
    ];
    for apply_ops in [true, false] {
        for lost in ["", "applyOps", "create", "renameCollection", "drop", "update", "insert", "delete"] {
            let scene = Scene::new().await;
            scene.put("a", vec![doc! { "_id": 1, "v": 0 }, doc! { "_id": 3, "v": 0 }]).await;
            scene.put("gone", vec![doc! { "_id": 1, "v": 0 }]).await;
            // The first asks whether it is granted; those of four lanes follow.
            for after in [0, 1, 2] {
                scene.befall(lost, after + i32::from(lost == "applyOps"), None).await;
            }
            scene.replay(&entries, 0, apply_ops).await.unwrap_or_else(|error| panic!("{lost}: {error:?}"));
            let expected = [("a", number(&[(2, 2), (3, 6)])), ("named", number(&[(1, 1)]))];
            let expected: Held = expected.into_iter().map(|(name, held)| (name.to_owned(), held)).collect();
            assert_eq!(scene.held().await, expected, "{lost}, {apply_ops}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_nobody_took_away_is_missed() {
    for entries in [vec![set("a", 1, 1), remove("a", 2)], vec![remove("a", 1), set("a", 1, 1)]] {
        let scene = Scene::new().await;
        scene.put("a", vec![doc! { "_id": 9, "v": 0 }]).await;
        scene.befall("applyOps", 1, None).await;
        let error = scene.replay(&entries, 0, true).await.expect_err("it is not there");
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
        scene.replay(&entries, 9, true).await.expect("where the data may be newer it is not missed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_done_in_a_collection_that_is_gone_is_left_out() {
    let entries = [
        set("gone", 1, 1),
        remove("gone", 2),
        insert("b", 1, 0),
        set("b", 1, 1),
        set("b", 7, 1),
        set("b", 1, 2),
    ];
    for apply_ops in [true, false] {
        let scene = Scene::new().await;
        let done = scene.replay(&entries, 9, apply_ops).await.expect("it is replayed");
        assert_eq!(done.by_apply_ops, apply_ops);
        assert_eq!(scene.held().await, Held::from([("b".to_owned(), number(&[(1, 2)]))]), "{apply_ops}");
        let error = scene.replay(&[set("gone", 1, 1)], 0, apply_ops).await.expect_err("it should be there");
        assert_eq!(error.kind(), Kind::Damaged, "{error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn most_members_have_all_that_is_done() {
    let entries = [
        command(doc! { "create": "c" }),
        insert("c", 1, 0),
        command(doc! { "collMod": "c", "validationLevel": "off" }),
        set("c", 1, 1),
        insert("implicit", 1, 1),
        command(doc! { "renameCollection": "db.c", "to": "db.d" }),
        remove("d", 1),
        command(doc! { "drop": "d" }),
    ];
    const READS: [&str; 5] = ["hello", "isMaster", "listCollections", "find", "endSessions"];
    for apply_ops in [true, false] {
        let scene = Scene::new().await;
        scene.replay(&entries, 0, apply_ops).await.expect("it is replayed");
        let mut hasty = scene.hasty().await;
        hasty.retain(|name| !READS.contains(&name.as_str()));
        assert!(hasty.is_empty(), "{hasty:?}");
        // CannotSatisfyWriteConcern; and the primary steps down while it waits for the others.
        scene.befall("create", 0, Some(100)).await;
        let error = scene.replay(&entries, 0, apply_ops).await.expect_err("most do not have it");
        assert!(error.kind() == Kind::Unready && error.why().contains("most members"), "{error:?}");
        for command in ["create", "applyOps", "update", "renameCollection", "drop"] {
            scene.befall(command, 1, Some(189)).await;
        }
        scene.replay(&entries, 0, apply_ops).await.expect("it is sent again");
        let expected = Held::from([("implicit".to_owned(), number(&[(1, 1)]))]);
        assert_eq!(scene.held().await, expected);
    }
}

/// What one entry does to the model.
fn apply(held: &mut Held, entry: &Document) {
    let o = entry.get_document("o").expect("o");
    let name = entry.get_str("ns").expect("ns").trim_start_matches("db.").to_owned();
    match entry.get_str("op").expect("op") {
        "i" => drop(
            held.entry(name).or_default().insert(o.get_i32("_id").expect("id"), o.get_i32("v").expect("v")),
        ),
        "d" => drop(held.get_mut(&name).expect("it is there").remove(&o.get_i32("_id").expect("id"))),
        "u" => {
            let id = entry.get_document("o2").and_then(|o2| o2.get_i32("_id")).expect("id");
            let v =
                o.get_document("diff").and_then(|diff| diff.get_document("u")).and_then(|u| u.get_i32("v"));
            held.get_mut(&name).expect("it is there").insert(id, v.expect("v"));
        }
        _ => {
            let own = |name: &str| o.get_str(name).ok().map(|name| name.trim_start_matches("db.").to_owned());
            if let Some(name) = own("create") {
                held.insert(name, BTreeMap::new());
            } else if let Some(name) = own("drop") {
                held.remove(&name);
            } else {
                let moved = held.remove(&own("renameCollection").expect("a name")).expect("it is there");
                held.insert(own("to").expect("a name"), moved);
            }
        }
    }
}

/// One entry that a server could write now: documents come and go, collections are dropped, and an aggregation with `$out` makes
/// one that takes the place of another in the end.
fn dream(dice: &mut Dice, held: &Held, next: &mut i32) -> Document {
    const NAMES: [&str; 2] = ["a", "b"];
    *next += 1;
    let pick = |dice: &mut Dice, most: usize| dice.roll(most as u64) as usize;
    let there: Vec<&String> = held.keys().collect();
    let Some(name) = there.get(pick(dice, there.len().max(1))) else {
        return command(doc! { "create": NAMES[pick(dice, 2)] });
    };
    let ids: Vec<i32> = held[*name].keys().copied().collect();
    let id = ids.get(pick(dice, ids.len().max(1))).copied();
    let is_out = name.starts_with("out");
    match (dice.roll(12), id) {
        (0, _) if !is_out => command(doc! { "create": format!("out{next}") }),
        (1 | 2, _) if is_out => {
            let to = format!("db.{}", NAMES[pick(dice, 2)]);
            command(doc! { "renameCollection": format!("db.{name}"), "to": to, "dropTarget": true })
        }
        (3, _) if dice.roll(4) == 0 => command(doc! { "drop": *name }),
        (4 | 5, Some(id)) => remove(name, id),
        (6..=8, Some(id)) => set(name, id, *next),
        // Few ids, so that a collection and the one that takes its place have the same.
        _ => match (0..12).find(|id| !held[*name].contains_key(id)) {
            Some(free) => insert(name, free, *next),
            None => remove(name, 0),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_read_while_collections_take_the_place_of_others_comes_to_one_moment() {
    let mut dice = Dice::new();
    for round in 0..120 {
        let (mut held, mut next, mut entries) = (Held::new(), 0, Vec::new());
        let before = dice.roll(20) as usize;
        let (span, after) = (5 + dice.roll(40) as usize, dice.roll(10) as usize);
        let mut states = vec![held.clone()];
        while entries.len() < before + span + after {
            let mut entry = dream(&mut dice, &held, &mut next);
            // What the span makes it may rename; what was made before it may not.
            let rename =
                entry.get_document("o").and_then(|o| o.get_str("renameCollection")).unwrap_or_default();
            let older = format!("\"create\": \"{}\"", rename.trim_start_matches("db."));
            if !rename.is_empty()
                && entries[..before.min(entries.len())]
                    .iter()
                    .any(|one: &Document| one.to_string().contains(&older))
            {
                entry = command(doc! { "create": format!("other{next}") });
            }
            apply(&mut held, &entry);
            entries.push(entry);
            states.push(held.clone());
        }
        // Listed at one moment of the span, and each read at another after that.
        let listed = before + dice.roll(span as u64 + 1) as usize;
        let scene = Scene::new().await;
        for (name, then) in &states[listed] {
            let read = listed + dice.roll((before + span - listed) as u64 + 1) as usize;
            let documents = states[read].get(name).unwrap_or(then);
            scene.put(name, documents.iter().map(|(id, v)| doc! { "_id": id, "v": v }).collect()).await;
        }
        let mut log = entries.clone();
        log.drain(..before);
        let done = scene.replay(&log, span as u32, round % 2 == 0).await;
        done.unwrap_or_else(|error| panic!("round {round}: {error:?}\n{log:#?}"));
        assert_eq!(scene.held().await, held, "round {round}, {log:#?}");
    }
}
