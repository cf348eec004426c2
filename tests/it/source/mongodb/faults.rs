//! Cursors that are lost, links that break: a range is read on from where it was.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use tidekeeper::error::Kind;

use super::stage::{Stage, fill, held};
use crate::harness::mongodb::{MongoServer, settings_at, uri_at};
use crate::harness::proxy::{Proxy, Then, Weather};
use crate::harness::wait_for;

/// 8 MiB, so that a range has several batches.
async fn server() -> MongoServer {
    let server = MongoServer::start(&["--enable-test-commands"]).await;
    let db = server.client().await.database("data");
    fill(&db.collection("docs"), 0..8000, 1024).await;
    server
}

async fn fail(server: &MongoServer, times: i32, what: Document) {
    let point = doc! { "configureFailPoint": "failCommand", "mode": { "times": times }, "data": what };
    server.command("admin", point).await;
}

async fn mend(server: &MongoServer) {
    server.command("admin", doc! { "configureFailPoint": "failCommand", "mode": "off" }).await;
}

async fn whole(stage: &Stage, server: &MongoServer, backup: &tidekeeper::vault::reader::BackupReader) {
    let mut found: Vec<Vec<u8>> = stage
        .documents(backup, "data/docs.bson")
        .await
        .iter()
        .map(|document| document.as_bytes().to_vec())
        .collect();
    found.sort();
    assert!(found == held(&server.client().await, "data", "docs").await, "{} documents", found.len());
}

#[tokio::test]
async fn a_lost_cursor_is_opened_again_where_it_was() {
    let (stage, server) = (Stage::new(), server().await);
    // CursorNotFound, NotWritablePrimary, InterruptedDueToReplStateChange, QueryPlanKilled.
    for code in [43, 10107, 11602, 175] {
        let data = doc! { "failCommands": ["getMore"], "errorCode": code, "namespace": "data.docs" };
        fail(&server, 3, data).await;
        let (capture, backup) = stage.back_up(&server.settings(), 64 << 20).await.expect("it is backed up");
        mend(&server).await;
        assert_eq!(capture.contents.namespaces["data.docs"].items, 8000, "after code {code}");
        whole(&stage, &server, &backup).await;
    }
}

#[tokio::test]
async fn a_find_that_is_refused_for_good_ends_the_backup() {
    let (stage, server) = (Stage::new(), server().await);
    fail(&server, 100, doc! { "failCommands": ["getMore"], "errorCode": 8000 }).await;
    let error = stage.back_up(&server.settings(), 64 << 20).await.map(drop).expect_err("it must fail");
    assert!(error.doing().contains("reading data.docs") && error.why().contains("8000"), "{error:?}");
}

#[tokio::test]
async fn a_cut_link_is_mended() {
    let (stage, server) = (Stage::new(), server().await);
    let proxy = Proxy::start(server.port).await;
    let settings = settings_at(&uri_at(proxy.port));
    for after in [1 << 20, 5 << 20] {
        proxy.set(Weather { after: Some(after), then: Then::Cut, rate: 8 << 20, ..Weather::default() });
        let mend = async {
            wait_for("it is cut", Duration::from_secs(60), async || proxy.passed() >= after).await;
            proxy.set(Weather::default());
        };
        let (backed_up, ()) = tokio::join!(stage.back_up(&settings, 64 << 20), mend);
        let (_, backup) = backed_up.expect("it is backed up");
        whole(&stage, &server, &backup).await;
    }
}

#[tokio::test]
async fn a_server_that_goes_for_good_ends_the_backup() {
    let (stage, mut server) = (Stage::new(), server().await);
    let proxy = Proxy::start(server.port).await;
    proxy.set(Weather { rate: 1 << 20, ..Weather::default() });
    let settings = settings_at(&format!("{}&serverSelectionTimeoutMS=200", uri_at(proxy.port)));
    let kill = async {
        wait_for("a part is read", Duration::from_secs(60), async || proxy.passed() > 1 << 20).await;
        server.kill();
    };
    let (backed_up, ()) = tokio::join!(stage.back_up(&settings, 64 << 20), kill);
    let error = backed_up.map(drop).expect_err("it must fail");
    assert!(matches!(error.kind(), Kind::Unreachable | Kind::Unready), "{error:?}");
    assert!(error.is_retryable(), "{error:?}");
}

#[tokio::test]
async fn an_oplog_that_is_too_short_for_the_dump_is_named() {
    let (stage, server) = (Stage::new(), MongoServer::start(&["--oplog-max-entries", "1000"]).await);
    let client = server.client().await;
    let slow = client.database("slow").collection("docs");
    fill(&slow, 0..1500, 4096).await;
    let proxy = Proxy::start(server.port).await;
    proxy.set(Weather { rate: 1 << 20, ..Weather::default() });
    let write = async {
        wait_for("a part is read", Duration::from_secs(60), async || proxy.passed() > 1 << 20).await;
        for n in 0..4 {
            let other = client.database("other").collection("docs");
            fill(&other, n * 1000..(n + 1) * 1000, 1).await;
        }
    };
    let settings = settings_at(&uri_at(proxy.port));
    let (backed_up, ()) = tokio::join!(stage.back_up(&settings, 64 << 20), write);
    match backed_up {
        // The tail was fast enough to see all of it.
        Ok((_, backup)) => assert!(stage.documents(&backup, "oplog.bson").await.len() > 4000),
        Err(error) => {
            assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("replSetResizeOplog")), "{error:?}");
            assert!(!error.is_retryable());
        }
    }
}
