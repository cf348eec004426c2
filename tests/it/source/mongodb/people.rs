//! Users and roles: brought with everything only, over others only if that is confirmed.

use mongodb::bson::doc;
use serde_json::json;
use tidekeeper::error::Kind;
use tidekeeper::source::Target;
use tidekeeper::source::mongodb::restore::MongoTarget;
use tidekeeper::vault::reader::BackupReader;

use super::restore::{handmade, plan};
use super::stage::Stage;
use crate::harness::mongodb::MongoServer;

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
        assert!(!plan.destructive, "there are no users yet");
    }
}

#[tokio::test]
async fn over_users_that_are_there_they_come_only_if_that_is_confirmed() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    let backup = backup(&stage).await;
    let target = MongoTarget::new(server.settings());
    let before = plan(&stage, &target, &backup, json!({})).await.expect("a plan");
    assert!(!before.destructive);
    let eve = doc! { "createUser": "eve", "pwd": "secret", "roles": [{ "role": "read", "db": "shop" }] };
    server.command("shop", eve).await;
    let plans =
        [(json!({}), true), (json!({ "users": false }), false), (json!({ "include": "shop" }), false)];
    for (wish, destructive) in plans {
        let plan = plan(&stage, &target, &backup, wish.clone()).await.expect("a plan");
        assert_eq!(plan.destructive, destructive, "{wish}: {:?}", plan.live);
        assert_eq!(plan.live.iter().any(|line| line.contains("users")), destructive, "{:?}", plan.live);
    }
    let error = target.restore(&backup, &before, &stage.task).await.expect_err("nobody confirmed that");
    assert!(error.kind() == Kind::Refused && error.why().contains("users"), "{error:?}");
}
