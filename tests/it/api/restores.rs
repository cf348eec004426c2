//! A plan first; the restore only with its hash.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Daemon, json_of, problem_of};

async fn fill(daemon: &Daemon, keys: usize) {
    let mut connection = daemon.redis.connect().await;
    for n in 0..keys {
        redis::cmd("SET").arg(format!("key:{n}")).arg(n).exec_async(&mut connection).await.unwrap();
    }
}

async fn plan(daemon: &Daemon) -> Value {
    let reply = daemon.post("/v1/restores", json!({ "backup": "redis-main/latest" })).await;
    json_of(reply, StatusCode::OK).await
}

#[tokio::test]
async fn the_plan_touches_nothing_and_its_hash_makes_it_happen() {
    let daemon = Daemon::start().await;
    fill(&daemon, 100).await;
    let before = daemon.redis.digest().await;
    assert_eq!(daemon.back_up().await["state"], "succeeded");
    fill(&daemon, 150).await;
    let changed = daemon.redis.digest().await;

    let planned = plan(&daemon).await;
    assert_eq!(planned["destructive"], true, "the target holds keys: {planned}");
    assert_eq!(planned["hash"], plan(&daemon).await["hash"], "the hash never covers live counts");
    assert_eq!(daemon.redis.digest().await, changed, "a plan touches nothing");

    let wrong = json!({ "backup": "redis-main/latest", "confirm": "0123456789abcdef" });
    let run = json_of(daemon.post("/v1/restores", wrong).await, StatusCode::ACCEPTED).await;
    let refused = daemon.end_of(&run).await;
    assert_eq!(
        (&refused["state"], &refused["error"]["code"]),
        (&json!("failed"), &json!("refused")),
        "{refused}"
    );
    assert_eq!(daemon.redis.digest().await, changed, "a wrong hash touches nothing");

    let right = json!({ "backup": "redis-main/latest", "confirm": planned["hash"] });
    let run = json_of(daemon.post("/v1/restores", right).await, StatusCode::ACCEPTED).await;
    let done = daemon.end_of(&run).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert_eq!(daemon.redis.digest().await, before);
}

#[tokio::test]
async fn a_wish_that_contradicts_itself_is_refused() {
    let daemon = Daemon::start().await;
    for wish in [
        json!({}),
        json!({ "backup": "redis-main/latest", "source": "redis-main" }),
        json!({ "backup": "redis-main/latest", "at": "2026-11-21T06:00:00Z" }),
    ] {
        problem_of(daemon.post("/v1/restores", wish).await, StatusCode::BAD_REQUEST, "usage").await;
    }
    let none = daemon.post("/v1/restores", json!({ "backup": "redis-main/latest" })).await;
    problem_of(none, StatusCode::NOT_FOUND, "not-found").await;
}

#[tokio::test]
async fn a_restore_asked_for_again_is_the_same_though_latest_is_another() {
    let daemon = Daemon::start().await;
    fill(&daemon, 10).await;
    daemon.back_up().await;
    let planned = plan(&daemon).await;
    let wish = json!({ "backup": "redis-main/latest", "confirm": planned["hash"] });
    let ask = async |wish: Value| {
        let call = daemon.call(Method::POST, "/v1/restores").header("idempotency-key", "one");
        call.json(&wish).send().await.expect("an answer")
    };
    let first = json_of(ask(wish.clone()).await, StatusCode::ACCEPTED).await;
    assert_eq!(daemon.end_of(&first).await["state"], "succeeded");

    // The reply was lost; meanwhile there is a newer backup.
    daemon.back_up().await;
    let again = json_of(ask(wish).await, StatusCode::ACCEPTED).await;
    assert_eq!(again["run"], first["run"]);
    let other = json!({ "backup": "redis-main/latest", "confirm": "fedcba9876543210" });
    problem_of(ask(other).await, StatusCode::UNPROCESSABLE_ENTITY, "conflict").await;
}

#[tokio::test]
async fn a_restore_that_waited_for_another_does_not_undo_what_came_since() {
    let daemon = Daemon::start().await;
    fill(&daemon, 1_000).await;
    daemon.back_up().await;
    let wish = json!({ "backup": "redis-main/latest", "confirm": plan(&daemon).await["hash"] });
    // Clicked twice, each with a key of its own.
    let first = json_of(daemon.post("/v1/restores", wish.clone()).await, StatusCode::ACCEPTED).await;
    let second = json_of(daemon.post("/v1/restores", wish).await, StatusCode::ACCEPTED).await;
    assert_ne!(first["run"], second["run"]);
    let (first, second) = (daemon.end_of(&first).await, daemon.end_of(&second).await);
    assert_eq!((&first["state"], &second["state"]), (&json!("succeeded"), &json!("failed")), "{second}");
    assert_eq!(second["error"]["code"], "conflict");
    let message = second["error"]["message"].as_str().unwrap_or_default();
    assert!(message.contains(first["run"].as_str().unwrap_or("?")), "{message}");
}
