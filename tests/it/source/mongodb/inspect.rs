//! What `check` tells of a MongoDB.

use tidekeeper::config::secret::{Password, Secret};
use tidekeeper::source::mongodb::inspect::{inspect, window};
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::permissions::permissions;
use tidekeeper::source::{Inspection, Role, Severity};
use tidekeeper::vault::timeline::writer::Bounds;

use super::stage::{Stage, fill};
use crate::harness::mongodb::MongoServer;

fn says(inspection: &Inspection, severity: Severity, words: &str) -> bool {
    inspection.findings.iter().any(|finding| finding.severity == severity && finding.what.contains(words))
}

#[tokio::test]
async fn a_replica_set_is_looked_at() {
    let (stage, server) = (Stage::new(), MongoServer::start(&[]).await);
    fill(&server.client().await.database("a").collection("b"), 0..9, 100).await;
    let inspection = inspect(&server.settings(), &stage.task).await.expect("it is inspected");
    assert_eq!(inspection.server, "MongoDB 8.2.11");
    assert_eq!(inspection.endpoint, format!("127.0.0.1:{}", server.port));
    assert!(inspection.bytes.is_some_and(|bytes| bytes > 900), "{inspection:?}");
    assert!(says(&inspection, Severity::Ok, "replica set secantus"), "{inspection:?}");
    assert!(says(&inspection, Severity::Ok, "the oplog reaches back"), "{inspection:?}");
    assert!(says(&inspection, Severity::Ok, "no snapshot reads"), "{inspection:?}");
    assert!(inspection.findings.iter().all(|finding| finding.severity == Severity::Ok), "{inspection:?}");
}

#[tokio::test]
async fn a_standalone_server_has_no_timeline() {
    let (stage, server) = (Stage::new(), MongoServer::start(&["--standalone"]).await);
    let mut settings = server.settings();
    let inspection = inspect(&settings, &stage.task).await.expect("it is inspected");
    assert!(says(&inspection, Severity::Warning, "keeps no oplog"), "{inspection:?}");
    settings.timeline = Some(Bounds::default());
    let inspection = inspect(&settings, &stage.task).await.expect("it is inspected");
    assert!(says(&inspection, Severity::Error, "keeps no oplog"), "{inspection:?}");
}

#[test]
fn a_short_oplog_is_worth_a_word() {
    let at = |seconds| OpTime { seconds, increment: 1 };
    let hour = 3600;
    assert_eq!(window(at(0), at(30 * hour), false).severity, Severity::Ok);
    assert_eq!(window(at(0), at(2 * hour), true).severity, Severity::Ok, "it has overwritten nothing yet");
    let short = window(at(0), at(2 * hour), false);
    assert_eq!(short.severity, Severity::Warning);
    assert!(short.what.contains("2.0 h") && short.advice.contains("replSetResizeOplog"), "{short:?}");
}

#[tokio::test]
async fn the_roles_that_are_printed_are_enough() {
    let (stage, mut server) = (Stage::new(), MongoServer::start(&[]).await);
    fill(&server.client().await.database("a").collection("b"), 0..9, 1).await;
    let lines = permissions(&server.settings(), Role::Source);
    assert_eq!(lines.len(), 2);
    assert_eq!(permissions(&server.settings(), Role::Target), lines[1..], "a target is never backed up");
    let roles: Vec<&str> =
        lines[0].text.split("role: \"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let roles: Vec<_> =
        roles.into_iter().map(|role| mongodb::bson::doc! { "role": role, "db": "admin" }).collect();
    let create = mongodb::bson::doc! { "createUser": "tidekeeper", "pwd": "secret", "roles": roles };
    server.command("admin", create).await;
    server.stop().await;
    server.start_again(&["--auth"]).await;
    let mut settings = server.settings();
    settings.timeline = Some(Bounds::default());
    let inspection = inspect(&settings, &stage.task).await.expect("it is inspected");
    let first = inspection.findings.iter().find(|one| one.severity != Severity::Ok).expect("it has no login");
    assert!(
        first.what.contains("requires authentication"),
        "the cause, before what comes of it: {inspection:?}"
    );
    assert!(!says(&inspection, Severity::Error, "make it a replica set"), "{inspection:?}");
    settings.username = Some("tidekeeper".to_owned());
    settings.password = Some(Password::Given(Secret::new("secret")));
    let inspection = inspect(&settings, &stage.task).await.expect("it is inspected");
    assert!(inspection.findings.iter().all(|finding| finding.severity == Severity::Ok), "{inspection:?}");
    stage.back_up(&settings, 64 << 20).await.expect("it is backed up");
}
