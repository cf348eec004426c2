//! Ranges of `_id`: every document is in exactly one, whatever the type of its `_id`.

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{
    Binary, Bson, DateTime, Decimal128, Document, RawDocumentBuf, Timestamp, doc, oid::ObjectId, rawdoc,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tidekeeper::clock::SystemClock;
use tidekeeper::source::mongodb::client::{Link, Server};
use tidekeeper::source::mongodb::cursor;
use tidekeeper::source::mongodb::ranges::{self, Behind, Concern, Range};
use tidekeeper::source::mongodb::raw;
use tidekeeper::source::mongodb::survey::{Data, survey};

use crate::harness::mongodb::{MongoServer, mongod, settings_at};

fn id(n: i32) -> RawDocumentBuf {
    rawdoc! { "_id": n }
}

/// Each begins where the one before ends; the first and the last are open.
fn are_adjacent(ranges: &[Range]) -> bool {
    ranges.first().is_some_and(|first| first.from.is_none())
        && ranges.last().is_some_and(|last| last.to.is_none())
        && ranges.windows(2).all(|pair| pair[0].to.is_some() && pair[0].to == pair[1].from)
}

proptest! {
    #[test]
    fn cuts_cover_everything(samples in prop::collection::vec(0i32..500, 0..300), wanted in 0u64..200) {
        let mut samples = samples;
        samples.sort_unstable();
        let ranges = ranges::cut(samples.iter().map(|n| id(*n)).collect(), wanted);
        prop_assert!(are_adjacent(&ranges), "{ranges:?}");
        prop_assert!(ranges.len() as u64 <= wanted.max(1));
        samples.dedup();
        prop_assert_eq!(ranges.len(), (wanted.max(1) as usize).min(samples.len() + 1));
        let bounds: Vec<i32> =
            ranges.iter().filter_map(|range| range.from.as_ref()?.get_i32("_id").ok()).collect();
        prop_assert!(bounds.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn few_and_small_are_one_range(bytes in any::<u64>(), documents in any::<u64>()) {
        let wanted = ranges::wanted(bytes, documents, 64 << 20);
        if let Some((ranges, samples)) = wanted {
            prop_assert!((2..=128).contains(&ranges) && samples >= 1 && samples * 20 <= documents);
        }
        prop_assert!(bytes >= 128 << 20 || wanted.is_none());
    }
}

/// Ids of all types that can be one, several of each.
fn mixed() -> Vec<Bson> {
    let mut ids = vec![Bson::MinKey, Bson::MaxKey, Bson::Null, Bson::Boolean(false), Bson::Boolean(true)];
    for n in 0..12i32 {
        ids.push(Bson::Int32(n * 10));
        ids.push(Bson::Int64(i64::from(n) * 10 + 1));
        ids.push(Bson::Double(f64::from(n) * 10.0 + 2.5));
        ids.push(Bson::Decimal128(format!("{}.75", n * 10 + 3).parse::<Decimal128>().expect("a decimal")));
        ids.push(Bson::String(format!("text {n}")));
        ids.push(Bson::ObjectId(ObjectId::from_bytes([n as u8; 12])));
        ids.push(Bson::DateTime(DateTime::from_millis(i64::from(n) * 86_400_000)));
        ids.push(Bson::Binary(Binary { subtype: BinarySubtype::Generic, bytes: vec![n as u8; n as usize] }));
        ids.push(Bson::Document(doc! { "a": n, "b": { "c": "x" } }));
        ids.push(Bson::Timestamp(Timestamp { time: n as u32 + 1, increment: 7 }));
    }
    ids.extend([f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(Bson::Double));
    ids.push(Bson::Decimal128("-1E+600".parse::<Decimal128>().expect("a decimal")));
    ids.push(Bson::String("nul \0 inside".to_owned()));
    ids.push(Bson::String(String::new()));
    ids
}

struct Scene {
    link: Link,
    data: Data,
    /// `{_id: ..}`, in the server's order.
    sorted: Vec<RawDocumentBuf>,
    _server: Option<MongoServer>,
}

/// On a mongod where one was named, else on the server of the tests.
async fn scene(collation: bool) -> Scene {
    let server = match mongod() {
        Some(_) => None,
        None => Some(MongoServer::start(&[]).await),
    };
    let uri = server.as_ref().map(MongoServer::uri).or_else(mongod).expect("one of the two");
    let link = Link::open(&settings_at(&uri), &SystemClock::shared()).await.expect("a link");
    let db = link.database("ranges");
    db.drop().await.expect("it is dropped");
    if collation {
        let command = doc! { "create": "mixed", "collation": { "locale": "en", "strength": 2 } };
        db.run_command(command).await.expect("it is created");
    }
    let documents: Vec<Document> = mixed().into_iter().map(|id| doc! { "_id": id, "v": 1 }).collect();
    db.collection::<Document>("mixed").insert_many(documents).await.expect("they are inserted");
    let asked = Server::ask(&link).await.expect("it answers");
    let found = survey(&link, &asked).await.expect("it is surveyed");
    let mixed = found.collections.iter().find(|one| one.namespace.to_string() == "ranges.mixed");
    let data = mixed.and_then(|one| one.data.clone()).expect("it is there");
    let all =
        rawdoc! { "find": "mixed", "sort": { "_id": 1 }, "projection": { "_id": 1 }, "batchSize": 1000 };
    let sorted = cursor::all(&link, "ranges", all).await.expect("in time").expect("they are found");
    assert_eq!(sorted.len(), self::mixed().len());
    Scene { link, data, sorted, _server: server }
}

impl Scene {
    /// The ids in a range, in the order in which they come.
    async fn read(&self, range: &Range, behind: Option<&Behind>) -> Vec<RawDocumentBuf> {
        let find = ranges::find(&self.data, range, behind, Concern::Majority, 1000);
        let read = cursor::all(&self.link, "ranges", find).await.expect("in time").expect("it is granted");
        read.iter().map(only_id).collect()
    }
}

fn only_id(document: &RawDocumentBuf) -> RawDocumentBuf {
    let id = raw::field(document.as_bytes(), "_id").expect("BSON").expect("an _id");
    ranges::single("_id", id).expect("an _id")
}

fn behind(document: &RawDocumentBuf) -> Behind {
    Behind::new(raw::field(document.as_bytes(), "_id").expect("BSON").expect("an _id")).expect("an _id")
}

#[tokio::test]
async fn every_id_is_in_exactly_one_range_and_every_place_can_be_left() {
    for collation in [false, true] {
        let scene = scene(collation).await;
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::default() });
        for _ in 0..12 {
            let picks = prop::collection::vec(any::<prop::sample::Index>(), 0..12);
            let tree = picks.new_tree(&mut runner).expect("a case");
            let mut at: Vec<usize> = proptest::strategy::ValueTree::current(&tree)
                .iter()
                .map(|pick| pick.index(scene.sorted.len()))
                .collect();
            at.sort_unstable();
            at.dedup();
            let samples = at.iter().map(|at| scene.sorted[*at].clone()).collect();
            let ranges = ranges::cut(samples, at.len() as u64 + 1);
            assert!(are_adjacent(&ranges));
            let mut read = Vec::new();
            for range in &ranges {
                read.extend(scene.read(range, None).await);
            }
            assert_eq!(read, scene.sorted, "cut at {at:?}");
        }
        // Left behind any document, the rest comes, and nothing twice.
        for at in (0..scene.sorted.len()).step_by(5) {
            let rest = scene.read(&Range::default(), Some(&behind(&scene.sorted[at]))).await;
            assert_eq!(rest, scene.sorted[at + 1..], "behind {:?}", scene.sorted[at]);
        }
    }
}

#[tokio::test]
async fn samples_are_sorted_as_the_index_is() {
    let scene = scene(false).await;
    let data = Data { bytes: 1 << 20, items: 100_000, ..scene.data.clone() };
    let ranges = ranges::split(&scene.link, &data, 64 << 10).await.expect("it is split");
    assert!(ranges.len() > 8 && are_adjacent(&ranges), "{ranges:?}");
    let mut read = Vec::new();
    for range in &ranges {
        read.extend(scene.read(range, None).await);
    }
    assert_eq!(read, scene.sorted);
}
