//! Backups that were read while `$out` made collections anew: restored whole and in part, and compared by what the log tells.

use mongodb::bson::{Document, RawDocumentBuf, Timestamp, doc};
use serde_json::{Value, json};
use tidekeeper::source::Target;
use tidekeeper::source::mongodb::restore::MongoTarget;
use tidekeeper::vault::manifest::Contents;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::writer::Capture;

use super::restore::{handmade_of, plan};
use super::stage::Stage;
use crate::harness::mongodb::MongoServer;

fn bytes(documents: &[Document]) -> Vec<u8> {
    let raw = |document| RawDocumentBuf::try_from(document).expect("a document").into_bytes();
    documents.iter().flat_map(raw).collect()
}

/// Second by second: the report is changed, an aggregation makes it anew, twice, and it is changed again.
fn oplog() -> Vec<u8> {
    let mut entries = vec![
        doc! { "op": "n", "ns": "", "o": { "msg": "the dump begins" } },
        doc! { "op": "u", "ns": "shop.report", "o": { "$v": 2, "diff": { "u": { "v": 1 } } }, "o2": { "_id": 77 } },
    ];
    for run in 1..3 {
        let temporary = format!("tmp.agg_out.{run}");
        let from = format!("shop.{temporary}");
        entries.extend([
            doc! { "op": "c", "ns": "shop.$cmd", "o": { "create": &temporary, "temp": true } },
            doc! { "op": "i", "ns": &from, "o": { "_id": run, "run": run } },
            doc! { "op": "i", "ns": &from, "o": { "_id": 10 + run, "run": run } },
            doc! { "op": "c", "ns": "shop.$cmd", "o": { "renameCollection": &from, "to": "shop.report", "dropTarget": true } },
        ]);
    }
    entries.push(doc! { "op": "i", "ns": "shop.report", "o": { "_id": 20, "run": 2 } });
    entries.push(doc! { "op": "i", "ns": "shop.orders", "o": { "_id": 2 } });
    for (n, entry) in entries.iter_mut().enumerate() {
        let rest = std::mem::take(entry);
        *entry = doc! { "ts": Timestamp { time: 100 + n as u32, increment: 1 }, "t": 1_i64, "v": 2_i64 };
        entry.extend(rest);
    }
    bytes(&entries)
}

/// What was read: the report after the first run, what the second had made by then, and another collection.
async fn backup(stage: &Stage) -> BackupReader {
    let metadata = |name: &str| {
        format!(r#"{{"indexes":[],"collectionName":"{name}","type":"collection"}}"#).into_bytes()
    };
    let artifacts = [
        ("shop/report.bson", bytes(&[doc! { "_id": 1, "run": 1 }, doc! { "_id": 11, "run": 1 }])),
        ("shop/report.metadata.json", metadata("report")),
        ("shop/tmp.agg_out.2.bson", bytes(&[doc! { "_id": 2, "run": 2 }])),
        ("shop/tmp.agg_out.2.metadata.json", metadata("tmp.agg_out.2")),
        ("shop/orders.bson", bytes(&[doc! { "_id": 1 }])),
        ("shop/orders.metadata.json", metadata("orders")),
        ("oplog.bson", oplog()),
    ];
    let facts = json!({ "consistency": "fuzzy", "apply_from": "100:1", "exact_at": "111:1" });
    let Value::Object(facts) = facts else { panic!("facts are an object") };
    let capture = Capture { contents: Contents { facts, ..Contents::default() }, ..Capture::default() };
    handmade_of(stage, &artifacts, capture).await
}

#[tokio::test]
async fn what_out_made_while_the_dump_was_read_comes_back_as_it_was_left() {
    let stage = Stage::new();
    let backup = backup(&stage).await;
    for (wish, db) in
        [(json!({}), "shop"), (json!({ "include": "shop.report", "rename": "shop=copy" }), "copy")]
    {
        let server = MongoServer::start(&[]).await;
        let target = MongoTarget::new(server.settings());
        let plan = plan(&stage, &target, &backup, wish.clone()).await.expect("a plan");
        assert_eq!(plan.blockers().count(), 0, "{:?}", plan.findings);
        let restored = target.restore(&backup, &plan, &stage.task).await.expect("it restores");
        let client = server.client().await;
        let report = client.database(db).collection::<Document>("report");
        let mut ids: Vec<i32> = Vec::new();
        let mut found = report.find(doc! { "run": 2 }).sort(doc! { "_id": 1 }).await.expect("it is read");
        while found.advance().await.expect("it is read") {
            ids.push(found.current().get_i32("_id").expect("an id"));
        }
        assert_eq!(ids, [2, 12, 20], "{wish}");
        let mut names = client.database(db).list_collection_names().await.expect("they are listed");
        names.sort();
        let expected: &[&str] = if db == "copy" { &["report"] } else { &["orders", "report"] };
        assert_eq!(names, expected, "nothing that was made in between stays");
        // By number what the log made, and not at all what was changed while it was read.
        let told = async || {
            let checks = target.compare(&backup, &stage.task).await.expect("it compares");
            let failed = checks.iter().filter(|check| !check.passed).map(|check| check.name.clone());
            let failed: Vec<String> = failed.collect();
            let counted = checks.iter().find(|check| check.name.starts_with("number of documents"));
            (failed, counted.expect("the log changed something").found.clone())
        };
        let counted = if db == "copy" { "3 counted" } else { "3 counted, 1 not compared: shop.orders" };
        assert_eq!(told().await, (vec![], counted.to_owned()));
        assert_eq!(restored.changed, if db == "copy" { 3 } else { 4 });
        report.delete_one(doc! { "_id": 12 }).await.expect("it is deleted");
        let (failed, _) = told().await;
        assert_eq!(
            failed,
            [format!("{db}.report after the log"), "number of documents after the log".to_owned()]
        );
    }
}
