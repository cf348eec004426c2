//! The metrics, as Prometheus reads them.

use std::time::Duration;

use tidekeeper::telemetry::{LogFormat, Metrics, ProcessFacts, RunEnded, SourceFacts, start_logs};

const NOW: &str = "2026-11-21T06:00:00Z";

fn facts() -> ProcessFacts {
    let source = SourceFacts {
        source: "redis-main".to_owned(),
        recovery_point: Some("2026-11-21T05:59:30Z".parse().unwrap()),
        plain_bytes: Some(1_000),
        stored_bytes: Some(400),
        backups: vec![("complete".to_owned(), 3)],
        ..SourceFacts::default()
    };
    ProcessFacts { vault_up: true, leads: true, sources: vec![source] }
}

#[test]
fn a_scrape_shows_what_is_known() {
    let metrics = Metrics::default();
    let took = Duration::from_secs(2);
    metrics.run_ended(RunEnded { action: "backup", source: "redis-main", outcome: "succeeded", took });
    metrics.request_answered("GET", 200);
    insta::assert_snapshot!(metrics.scrape(&facts(), NOW.parse().unwrap()));
}

#[test]
fn what_is_no_longer_known_is_gone() {
    let metrics = Metrics::default();
    metrics.scrape(&facts(), NOW.parse().unwrap());
    let text = metrics.scrape(&ProcessFacts::default(), NOW.parse().unwrap());
    assert!(!text.contains("redis-main"), "{text}");
    assert!(text.contains("tidekeeper_vault_up 0\n"), "{text}");
}

#[test]
fn every_metric_has_our_prefix_and_a_help() {
    let text = Metrics::default().scrape(&facts(), NOW.parse().unwrap());
    for line in text.lines().filter(|line| *line != "# EOF") {
        let name =
            line.trim_start_matches("# HELP ").trim_start_matches("# TYPE ").trim_start_matches("# UNIT ");
        assert!(name.starts_with("tidekeeper_"), "{line}");
    }
    assert_eq!(text.matches("# HELP").count(), text.matches("# TYPE").count());
}

#[test]
fn a_log_filter_that_cannot_be_meant_is_refused() {
    let refused = start_logs(LogFormat::Json, "tidekeeper=loud", std::io::sink).unwrap_err();
    assert!(refused.contains("\"tidekeeper=loud\" is no log filter"), "{refused}");
}
