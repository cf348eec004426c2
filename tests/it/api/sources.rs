//! What is configured, and how it fares.

use serde_json::json;

use super::{Daemon, LONG};
use crate::harness::wait_for;

#[tokio::test]
async fn sources_are_shown_without_their_addresses() {
    let daemon = Daemon::start().await;
    let shown = daemon.get("/v1/sources").await;
    assert_eq!(shown["sources"][0]["source"], "redis-main");
    assert_eq!(shown["sources"][0]["kind"], "redis");
    assert_eq!(shown["sources"][0]["schedule"]["backup"], json!([["yearly", "0 0 1 1 *"]]));
    assert!(!shown.to_string().contains(&daemon.redis.port.to_string()), "no addresses: {shown}");
}

#[tokio::test]
async fn status_says_what_is_wrong_and_what_to_do() {
    let daemon = Daemon::start().await;
    wait_for("it leads", LONG, async || daemon.get("/v1/status").await["leader"]["alive"] == true).await;
    let status = daemon.get("/v1/status").await;
    assert_eq!(status["problems"], json!([]), "{status}");
    let source = &status["sources"][0];
    assert_eq!(source["source"], "redis-main");
    assert!(source["last_backup"].is_null() && source["rpo_s"].is_null(), "{status}");
    assert_eq!(source["problems"][0]["advice"], "`tidekeeper backup redis-main`", "{status}");
    daemon.back_up().await;
    let status = daemon.get("/v1/status").await;
    assert!(status["sources"][0]["rpo_s"].is_number(), "{status}");
}
