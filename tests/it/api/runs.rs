//! Runs: listed, followed, cancelled.

use reqwest::{Method, StatusCode};
use serde_json::json;
use tidekeeper::engine::work::{Action, Order, Workshop};
use tidekeeper::error::Kind;

use super::{Daemon, app, json_of, problem_of};
use crate::harness::free_port;
use crate::harness::redis::RedisServer;

#[tokio::test]
async fn a_run_is_followed_to_its_end() {
    let daemon = Daemon::start().await;
    let accepted = daemon.post("/v1/backups", json!({ "source": "redis-main" })).await;
    let run = json_of(accepted, StatusCode::ACCEPTED).await;
    let path = format!("/v1/runs/{}/events", run["run"].as_str().unwrap());
    let follow = async || {
        let reply = daemon.call(Method::GET, &path).send().await.expect("an answer");
        assert_eq!(reply.headers()["content-type"], "text/event-stream");
        reply.text().await.expect("the stream ends when the run does")
    };
    let told = follow().await;
    let last = told.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: end\n"), "{told}");
    assert!(last.contains("\"state\":\"succeeded\""), "{told}");
    assert!(told.matches("event: end").count() == 1, "{told}");
    let after = follow().await;
    assert!(after.starts_with("event: end\n"), "a run that is over is told at once: {after}");
}

#[tokio::test]
async fn runs_are_listed_newest_first_and_filtered() {
    let daemon = Daemon::start().await;
    let (first, second) = (daemon.back_up().await, daemon.back_up().await);
    let runs = daemon.get("/v1/runs?action=backup&source=redis-main&state=succeeded").await;
    let ids = runs["runs"].as_array().unwrap().iter().map(|run| run["run"].as_str().unwrap());
    let ids: Vec<&str> = ids.collect();
    assert!(ids.len() == 2 && ids.is_sorted_by(|a, b| a > b), "newest first: {ids:?}");
    assert!([&first, &second].iter().all(|run| ids.contains(&run["run"].as_str().unwrap())), "{ids:?}");
    assert_eq!(daemon.get("/v1/runs?action=backup&limit=1").await["runs"].as_array().unwrap().len(), 1);
    assert_eq!(daemon.get("/v1/runs?action=restore").await["runs"], json!([]));
}

#[tokio::test]
async fn what_is_over_cannot_be_cancelled_and_what_never_was_is_not_found() {
    let daemon = Daemon::start().await;
    let run = daemon.back_up().await;
    let cancel = async |id: &str| daemon.post(&format!("/v1/runs/{id}/cancel"), json!({})).await;
    problem_of(cancel(run["run"].as_str().unwrap()).await, StatusCode::CONFLICT, "conflict").await;
    for nothing in ["20200101T000000Z-0123456789abcdef", "nonsense"] {
        problem_of(cancel(nothing).await, StatusCode::NOT_FOUND, "not-found").await;
        let reply = daemon.call(Method::GET, &format!("/v1/runs/{nothing}")).send().await.unwrap();
        problem_of(reply, StatusCode::NOT_FOUND, "not-found").await;
        let reply = daemon.call(Method::GET, &format!("/v1/runs/{nothing}/events")).send().await.unwrap();
        problem_of(reply, StatusCode::NOT_FOUND, "not-found").await;
    }
}

/// Whoever keeps an order may have written it by hand: what a verb does not take is named, not passed over.
#[tokio::test]
async fn an_order_of_a_mark_takes_only_what_its_verb_does() {
    let (folder, redis) = (tempfile::tempdir().unwrap(), RedisServer::start(&[]).await);
    let app = app(&folder, &redis, free_port()).await;
    let refusal = |action, params| {
        let order = Order { params, ..Order::new(action, None) };
        let error = app.make(&order).err().expect("it is refused");
        assert_eq!(error.kind(), Kind::Usage, "{error:?}");
        error.why().to_owned()
    };
    let backup = json!({ "source": "redis-main", "id": "20261121T060000Z-4k7q2m" });
    for action in [Action::Unhold, Action::Accept, Action::Verify] {
        let why = refusal(action, json!({ "backup": backup, "reason": "an audit" }));
        assert!(why.contains("`reason`"), "{action:?}: {why}");
    }
    let why = refusal(Action::Hold, json!({ "backup": backup }));
    assert!(why.contains("`reason`"), "{why}");
}
