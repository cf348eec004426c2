use serde_json::Value;
use tidekeeper::vault::manifest::{Codec, Level, Manifest, Status};

/// A manifest of format 1 as the first release wrote it, with a field and a status that no release knows.
/// It is kept for ever: what is in a vault must stay readable.
const GOLDEN: &str = include_str!("../fixtures/manifest-1.json");

fn golden() -> Manifest {
    serde_json::from_str(GOLDEN).expect("format 1 is read for ever")
}

#[test]
fn format_1_is_understood() {
    let manifest = golden();
    assert_eq!(manifest.backup().to_string(), "redis-main/20261121T060000Z-4k7q2m");
    assert_eq!(manifest.status, Status::Complete);
    assert_eq!(manifest.artifacts[0].codecs, [Codec::Zstd]);
    assert_eq!(manifest.artifacts[1].codecs, [Codec::Zstd, Codec::Age]);
    assert!(manifest.artifacts[1].plain.sha256.is_empty(), "hidden by encryption");
    assert_eq!(manifest.consistency.map(|consistency| consistency.level), Some(Level::PointInTime));
    assert_eq!(manifest.contents.namespaces["db0"].types["string"], 7);
    assert_eq!(manifest.omissions[0].what, "functions");
    assert_eq!(manifest.leader_generation, Some(3));
}

#[test]
fn what_was_read_is_written_again() {
    let before: Value = serde_json::from_str(GOLDEN).expect("JSON");
    assert_eq!(serde_json::to_value(golden()).expect("JSON"), before);
    assert_eq!(before["weather"]["rain"], Value::Bool(true), "with what this build does not know");
}

#[test]
fn an_unknown_status_survives() {
    let text = GOLDEN.replace("\"complete\"", "\"sealed\"");
    let manifest: Manifest = serde_json::from_str(&text).expect("exists, keep");
    assert_eq!(manifest.status, Status::Unknown("sealed".to_owned()));
    assert_eq!(serde_json::to_value(&manifest).expect("JSON")["status"], "sealed");
}

#[test]
fn the_least_manifest_is_enough() {
    let text = r#"{"format": 1, "id": "20261121T060000Z-4k7q2m", "source": "redis-main", "kind": "redis",
        "status": "abandoned", "started_at": "2026-11-21T06:00:00Z", "finished_at": "2026-11-21T06:00:09Z",
        "tool": "tidekeeper 0.1.0", "writer": "0123456789ab", "artifacts": []}"#;
    let manifest: Manifest = serde_json::from_str(text).expect("only these are needed");
    assert_eq!(manifest.status, Status::Abandoned);
}
