//! Ready is whether the vault can be worked with, and nothing else.

use reqwest::{Method, StatusCode};

use super::{Daemon, LONG, problem_of};
use crate::harness::wait_for;

#[tokio::test]
async fn ready_names_the_vault_when_it_is_down_and_never_a_source() {
    let mut daemon = Daemon::start().await;
    assert_eq!(daemon.get("/health/live").await["live"], true);
    daemon.redis.stop();
    assert!(daemon.is_ready().await, "a source that is down is no reason");

    let vault = daemon.folder.path().join("vault");
    std::fs::rename(&vault, daemon.folder.path().join("away")).unwrap();
    wait_for("not ready", LONG, async || !daemon.is_ready().await).await;
    let reply = daemon.call(Method::GET, "/health/ready").send().await.unwrap();
    assert_eq!(reply.headers()["retry-after"], "5");
    let problem = problem_of(reply, StatusCode::SERVICE_UNAVAILABLE, "not-ready").await;
    assert!(problem["detail"].as_str().unwrap().starts_with("the vault is down: "), "{problem}");
    assert_eq!(daemon.get("/health/live").await["live"], true);

    std::fs::rename(daemon.folder.path().join("away"), &vault).unwrap();
    wait_for("ready again", LONG, async || daemon.is_ready().await).await;
}
