//! What callers are told when they got it wrong.

use reqwest::{Method, StatusCode};
use serde_json::json;

use super::{Daemon, problem_of};

#[tokio::test]
async fn whatever_is_wrong_with_a_request_is_a_problem_with_a_code() {
    let daemon = Daemon::start().await;
    let send = async |request: reqwest::RequestBuilder| request.send().await.expect("an answer");

    let reply = send(daemon.call(Method::GET, "/v1/nothing")).await;
    problem_of(reply, StatusCode::NOT_FOUND, "no-such-path").await;

    let reply = send(daemon.call(Method::DELETE, "/v1/backups")).await;
    assert_eq!(reply.headers()["allow"], "GET,HEAD,POST");
    problem_of(reply, StatusCode::METHOD_NOT_ALLOWED, "no-such-method").await;

    let form = daemon.call(Method::POST, "/v1/backups").header("content-type", "text/plain").body("{}");
    problem_of(send(form).await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json").await;

    let long = daemon.post("/v1/backups", json!({ "source": "x".repeat(100_000) })).await;
    problem_of(long, StatusCode::PAYLOAD_TOO_LARGE, "too-large").await;

    let broken =
        daemon.call(Method::POST, "/v1/backups").header("content-type", "application/json").body("{");
    problem_of(send(broken).await, StatusCode::BAD_REQUEST, "usage").await;

    let key = daemon.call(Method::POST, "/v1/backups").header("idempotency-key", "k".repeat(256));
    problem_of(send(key.json(&json!({ "source": "redis-main" }))).await, StatusCode::BAD_REQUEST, "usage")
        .await;
}

#[tokio::test]
async fn an_unknown_field_is_refused_with_the_nearest_known_one() {
    let daemon = Daemon::start().await;
    let body = json!({ "backup": "redis-main/latest", "tagret": "redis-scratch" });
    let problem = problem_of(daemon.post("/v1/restores", body).await, StatusCode::BAD_REQUEST, "usage").await;
    assert_eq!(problem["hint"], "did you mean `target`?", "{problem}");

    let reply = daemon.call(Method::GET, "/v1/backups?sourse=redis-main").send().await.expect("an answer");
    let problem = problem_of(reply, StatusCode::BAD_REQUEST, "usage").await;
    assert_eq!(problem["hint"], "did you mean `source`?", "{problem}");

    let reply = daemon.call(Method::GET, "/v1/runs?action=bakcup").send().await.expect("an answer");
    let problem = problem_of(reply, StatusCode::BAD_REQUEST, "usage").await;
    assert_eq!(problem["hint"], "did you mean `backup`?", "{problem}");
}

#[tokio::test]
async fn what_is_not_configured_is_not_found_and_the_nearest_is_named() {
    let daemon = Daemon::start().await;
    let reply = daemon.post("/v1/backups", json!({ "source": "redis-mian" })).await;
    let problem = problem_of(reply, StatusCode::NOT_FOUND, "not-found").await;
    assert_eq!(problem["hint"], "did you mean redis-main?");
    let restore = json!({ "backup": "redis-main/latest", "target": "redis-other" });
    problem_of(daemon.post("/v1/restores", restore).await, StatusCode::NOT_FOUND, "not-found").await;
}
