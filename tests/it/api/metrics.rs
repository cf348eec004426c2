//! `/metrics` after something happened.

use reqwest::Method;

use super::{Daemon, LONG};
use crate::harness::wait_for;

#[tokio::test]
async fn a_backup_shows_in_the_metrics() {
    let daemon = Daemon::start().await;
    let scrape = async || {
        let reply = daemon.call(Method::GET, "/metrics").send().await.expect("an answer");
        assert!(
            reply.headers()["content-type"].to_str().unwrap().starts_with("application/openmetrics-text")
        );
        reply.text().await.expect("a body")
    };
    let before = scrape().await;
    assert!(
        !before.contains("tidekeeper_recovery_point_age_seconds{"),
        "unknown is absent, not zero: {before}"
    );
    assert!(before.contains("tidekeeper_vault_up 1\n"), "{before}");

    redis::cmd("SET").arg("k").arg("v").exec_async(&mut daemon.redis.connect().await).await.unwrap();
    daemon.back_up().await;
    let counted = r#"tidekeeper_runs_total{action="backup",source="redis-main",outcome="succeeded"} 1"#;
    wait_for("the run is counted", LONG, async || scrape().await.contains(counted)).await;
    let after = scrape().await;
    for expected in [
        r#"tidekeeper_recovery_point_age_seconds{source="redis-main"} "#,
        r#"tidekeeper_backup_stored_bytes{source="redis-main"} "#,
        r#"tidekeeper_backups{source="redis-main",status="complete"} 1"#,
        r#"tidekeeper_run_duration_seconds_count{action="backup"} 1"#,
        r#"tidekeeper_http_requests_total{method="POST",status="202"} 1"#,
    ] {
        assert!(after.contains(expected), "{expected} is missing in:\n{after}");
    }
}
