//! Documents that are in the target already: ours, somebody else's, or not there at all though the server says so.

use mongodb::Client;
use mongodb::bson::{Document, doc};
use tidekeeper::error::{Error, Kind};
use tidekeeper::source::mongodb::client::Link;
use tidekeeper::source::mongodb::documents::{Cargo, Loaded, Loader};
use tidekeeper::source::mongodb::namespace::Namespace;

use super::restore::handmade;
use super::stage::{Stage, numbered};
use crate::harness::mongodb::{MongoServer, settings_at};
use crate::harness::wire::{Double, Options};

/// Brings a hundred documents into the collection `db.a` of the server at this uri.
async fn load(uri: &str) -> Result<Loaded, Error> {
    let stage = Stage::new();
    let documents = numbered(0..100, 5).iter().flat_map(|one| one.to_vec().expect("bytes")).collect();
    let backup = handmade(&stage, &[("db/a.bson", documents)]).await;
    let link = Link::open(&settings_at(uri), &stage.clock).await?;
    let loader = Loader::new(&link, "8.0.4", &backup, &stage.task, 2);
    let artifact = backup.artifact("db/a.bson").expect("it is in the backup").clone();
    let cargo = Cargo { artifact, into: Namespace::new("db", "a"), in_order: false, raw: false };
    Ok(loader.load(&[cargo]).await?.remove(0).1)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_lost_hides_nobody_elses_document() {
    for lost in [false, true] {
        for foreign in [None, Some(7)] {
            let double = Double::start(Options::default(), 0).expect("loopback has ports");
            let client = Client::with_uri_str(double.uri()).await.expect("an address");
            if let Some(id) = foreign {
                let other = client.database("db").collection::<Document>("a");
                other.insert_one(doc! { "_id": id, "whose": "another" }).await.expect("it is inserted");
            }
            if lost {
                let ask = doc! { "wireBefall": "insert", "after": 0 };
                client.database("admin").run_command(ask).await.expect("known to the double");
            }
            match (load(&double.uri()).await, foreign) {
                (Ok(loaded), None) => assert_eq!((loaded.documents, loaded.refused), (100, None)),
                (Err(error), Some(_)) => {
                    assert_eq!(error.kind(), Kind::Conflict, "{error:?}");
                    assert!(error.why().ends_with("under these _id: 1 (_id 7)"), "{error:?}");
                    assert!(error.hint_text().is_some_and(|hint| hint.contains("somebody else writes")));
                }
                (other, _) => panic!("lost: {lost}, foreign: {foreign:?}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn what_another_index_refuses_is_missing_and_nobody_elses() {
    let server = MongoServer::start(&[]).await;
    let unique = doc! { "key": { "n": 1 }, "name": "n_1", "unique": true };
    server.command("db", doc! { "createIndexes": "a", "indexes": [unique] }).await;
    server.command("db", doc! { "insert": "a", "documents": [{ "_id": "other", "n": 21 }] }).await;
    let error = load(&server.uri()).await.expect_err("one is refused");
    assert_eq!(error.kind(), Kind::Conflict, "{error:?}");
    assert!(error.why().contains("has not: 1 (_id 3). E11000") && error.why().contains("n_1"), "{error:?}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("another unique index")), "{error:?}");
}
