//! Users and roles: brought with everything only, over others only if that is confirmed, and never left lying about.

use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::json;
use tidekeeper::error::Kind;
use tidekeeper::source::Target;
use tidekeeper::source::mongodb::restore::MongoTarget;
use tidekeeper::task::Task;
use tidekeeper::vault::reader::BackupReader;
use tokio_util::sync::CancellationToken;

use super::restore::{handmade, plan};
use super::stage::Stage;
use crate::harness::mongodb::{MongoServer, settings_at};
use crate::harness::wait_for;
use crate::harness::wire::{Double, Options};

async fn backup(stage: &Stage) -> BackupReader {
    let user =
        doc! { "_id": "admin.eve", "user": "eve", "db": "admin", "credentials": { "SCRAM-SHA-256": {} } };
    let document = doc! { "_id": 1 };
    let artifacts = [
        ("shop/a.bson", document.to_vec().expect("bytes")),
        ("shop/a.metadata.json", br#"{"indexes":[],"collectionName":"a","type":"collection"}"#.to_vec()),
        ("admin/system.users.bson", user.to_vec().expect("bytes")),
    ];
    handmade(stage, &artifacts).await
}

#[tokio::test]
async fn under_other_names_nobody_asked_for_users() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let backup = backup(&stage).await;
    let target = MongoTarget::new(server.settings());
    for (wish, users) in [
        (json!({}), true),
        (json!({ "rename": "shop=other" }), false),
        (json!({ "rename": "shop.a=shop.b" }), false),
        (json!({ "include": "shop" }), false),
        (json!({ "rename": "shop=other", "users": true }), true),
    ] {
        let plan = plan(&stage, &target, &backup, wish.clone()).await.expect("a plan");
        assert_eq!(plan.actions.iter().any(|action| action.verb == "merge"), users, "{wish}");
        assert!(!plan.is_destructive(), "there are no users yet");
    }
}

#[tokio::test]
async fn over_users_that_are_there_they_come_only_if_that_is_confirmed() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let backup = backup(&stage).await;
    let target = MongoTarget::new(server.settings());
    let before = plan(&stage, &target, &backup, json!({})).await.expect("a plan");
    assert!(!before.is_destructive());
    let eve = doc! { "createUser": "eve", "pwd": "secret", "roles": [{ "role": "read", "db": "shop" }] };
    server.command("shop", eve).await;
    let plans =
        [(json!({}), true), (json!({ "users": false }), false), (json!({ "include": "shop" }), false)];
    for (wish, destructive) in plans {
        let plan = plan(&stage, &target, &backup, wish.clone()).await.expect("a plan");
        assert_eq!(plan.is_destructive(), destructive, "{wish}: {:?}", plan.live);
        assert_eq!(plan.live.iter().any(|line| line.contains("users")), destructive, "{:?}", plan.live);
    }
    let error = target.restore(&backup, &before, &stage.task).await.expect_err("nobody confirmed that");
    assert!(error.kind() == Kind::Refused && error.why().contains("users"), "{error:?}");
}

async fn meanwhile(client: &Client) -> Vec<String> {
    let names = client.database("admin").list_collection_names().await.expect("they are listed");
    names.into_iter().filter(|name| name.starts_with("tidekeeper")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_ends_a_restore_leaves_no_hashes_of_passwords() {
    let stage = Stage::new();
    let backup = backup(&stage).await;
    let double = Double::start(Options::default(), 0).expect("loopback has ports");
    let client = Client::with_uri_str(double.uri()).await.expect("an address");
    // Merging is sent again and again, which takes ten seconds: there is time to say stop. The first asks whether it is known.
    for n in 0..10 {
        let lost = doc! { "wireBefall": "_mergeAuthzCollections", "after": i32::from(n == 0) };
        client.database("admin").run_command(lost).await.expect("known to the double");
    }
    let target = MongoTarget::new(settings_at(&double.uri()));
    let plan = plan(&stage, &target, &backup, json!({})).await.expect("a plan");
    let cancel = CancellationToken::new();
    let task = Task { cancel: cancel.clone(), ..stage.task.clone() };
    let stop = async {
        let there = async || !meanwhile(&client).await.is_empty();
        wait_for("hashes lie there", Duration::from_secs(60), there).await;
        cancel.cancel();
    };
    let (restored, ()) = tokio::join!(target.restore(&backup, &plan, &task), stop);
    let error = restored.expect_err("somebody asked for an end");
    assert_eq!(error.kind(), Kind::Cancelled, "{error:?}");
    assert_eq!(meanwhile(&client).await, [""; 0]);
    let held = client.database("shop").collection::<Document>("a");
    assert_eq!(held.count_documents(doc! {}).await.expect("it counts"), 1, "what came before is there");
}
