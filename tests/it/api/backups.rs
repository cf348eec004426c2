//! Backups asked for, listed and shown.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{Daemon, json_of, problem_of};

#[tokio::test]
async fn a_backup_is_asked_for_once_however_often_the_request_is_sent() {
    let daemon = Daemon::start().await;
    let ask = async |key: &str, source: &str| {
        let call = daemon.call(Method::POST, "/v1/backups").header("idempotency-key", key);
        call.json(&json!({ "source": source })).send().await.expect("an answer")
    };
    let reply = ask("monday", "redis-main").await;
    let (place, key) = (reply.headers()["location"].clone(), reply.headers()["idempotency-key"].clone());
    let first = json_of(reply, StatusCode::ACCEPTED).await;
    assert_eq!(place, format!("/v1/runs/{}", first["run"].as_str().unwrap()).as_str());
    assert_eq!(key, "monday");
    let again = json_of(ask("monday", "redis-main").await, StatusCode::ACCEPTED).await;
    assert_eq!(again["run"], first["run"]);
    let other = json_of(ask("tuesday", "redis-main").await, StatusCode::ACCEPTED).await;
    assert_ne!(other["run"], first["run"]);
    assert_eq!(daemon.end_of(&first).await["state"], "succeeded");
    let late = json_of(ask("monday", "redis-main").await, StatusCode::ACCEPTED).await;
    assert_eq!(
        (&late["run"], &late["state"]),
        (&first["run"], &json!("succeeded")),
        "a run never starts again"
    );
}

#[tokio::test]
async fn one_key_for_two_bodies_is_refused() {
    let daemon = Daemon::start().await;
    daemon.back_up().await;
    let backup = daemon.get("/v1/backups").await["backups"][0]["backup"].clone();
    let ask = async |confirm: &str| {
        let call = daemon.call(Method::POST, "/v1/restores").header("idempotency-key", "one");
        call.json(&json!({ "backup": backup, "confirm": confirm })).send().await.expect("an answer")
    };
    json_of(ask("0123456789abcdef").await, StatusCode::ACCEPTED).await;
    problem_of(ask("fedcba9876543210").await, StatusCode::UNPROCESSABLE_ENTITY, "conflict").await;
}

#[tokio::test]
async fn backups_are_listed_page_by_page_and_shown() {
    let daemon = Daemon::start().await;
    redis::cmd("SET").arg("k").arg("v").exec_async(&mut daemon.redis.connect().await).await.unwrap();
    for _ in 0..3 {
        assert_eq!(daemon.back_up().await["state"], "succeeded");
    }
    let all = daemon.get("/v1/backups?source=redis-main&status=complete").await;
    let names: Vec<&Value> = all["backups"].as_array().unwrap().iter().map(|view| &view["backup"]).collect();
    assert_eq!(names.len(), 3);
    assert!(all["next"].is_null());
    assert!(names.is_sorted_by(|a, b| a.as_str() > b.as_str()), "newest first: {names:?}");

    let mut seen = Vec::new();
    let mut after = String::new();
    loop {
        let page = daemon.get(&format!("/v1/backups?limit=1{after}")).await;
        seen.extend(page["backups"].as_array().unwrap().iter().map(|view| view["backup"].clone()));
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(seen.iter().collect::<Vec<_>>(), names);

    let shown = daemon.get("/v1/backups/redis-main/latest").await;
    assert_eq!(&shown["backup"]["backup"], names[0]);
    assert_eq!(shown["manifest"]["status"], "complete");
    assert_eq!(shown["manifest"]["leader_generation"], 1, "it says under whom it was made");
    let reply =
        daemon.call(Method::GET, "/v1/backups/redis-main/20200101T000000Z-000000").send().await.unwrap();
    problem_of(reply, StatusCode::NOT_FOUND, "not-found").await;
    assert_eq!(daemon.get("/v1/backups?status=suspect").await["backups"], json!([]));
}
