//! From when to when sources can be restored.

use reqwest::{Method, StatusCode};

use super::{Daemon, problem_of};
use crate::app::seed;

#[tokio::test]
async fn timelines_are_listed_and_shown() {
    let daemon = Daemon::start().await;
    assert_eq!(daemon.get("/v1/timelines").await["timelines"], serde_json::json!([]));
    let none = daemon.call(Method::GET, "/v1/timelines/redis-main").send().await.expect("an answer");
    problem_of(none, StatusCode::NOT_FOUND, "not-found").await;
    let odd = daemon.call(Method::GET, "/v1/timelines/No%20Name").send().await.expect("an answer");
    problem_of(odd, StatusCode::BAD_REQUEST, "usage").await;

    let vault = daemon.folder.path().join("vault");
    seed::timelines(&vault, &"mongo-main".parse().expect("a name")).await;
    let all = daemon.get("/v1/timelines").await;
    assert_eq!(all["timelines"].as_array().map(Vec::len), Some(1), "{all}");
    let one = daemon.get("/v1/timelines/mongo-main").await;
    assert_eq!((&all["timelines"][0]["windows"], &one["kind"]), (&one["windows"], &"mongodb".into()));
    assert_eq!(one["windows"][1]["to"], "2026-11-21T07:30:00Z");
    assert_eq!(one["timelines"][1]["why"], "the log has rolled over");

    let text =
        daemon.call(Method::GET, "/metrics").send().await.expect("an answer").text().await.expect("a body");
    let metric = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(&format!("{name}{{source=\"mongo-main\"}}")));
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).unwrap_or_default()
    };
    let end = metric("tidekeeper_window_end_timestamp_seconds");
    assert_eq!(end - metric("tidekeeper_window_start_timestamp_seconds"), 25.0 * 60.0, "{text}");
    assert_eq!(metric("tidekeeper_recovery_point_timestamp_seconds"), end);
}
