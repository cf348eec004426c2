//! What a comparison after a restore lets pass, and what it finds.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tidekeeper::source::Target;
use tidekeeper::source::redis::survey::Endings;
use tidekeeper::vault::reader::BackupReader;

use super::stage::{Stage, command, fill, script, target};
use crate::harness::redis::RedisServer;
use crate::harness::wait_for;

const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn keys_whose_time_has_come_are_left_out() {
    let stage = Stage::new();
    let source = RedisServer::start(&[]).await;
    script(&source, "redis.call('SET', 'stays', 1); redis.call('SET', 'goes', 1, 'PX', 400)").await;
    let backup = stage.backup_of(&source).await;
    wait_for("the key expires", LIMIT, async || command::<u64>(&source, &["EXISTS", "goes"]).await == 0)
        .await;
    for way in ["restore", "replication"] {
        let server = RedisServer::start(&[]).await;
        let target = target(&server);
        let restored = stage.restore(&target, &backup, json!({"way": way})).await.expect("it restores");
        assert!(restored.omissions.is_empty());
        wait_for("the key expires", LIMIT, async || command::<u64>(&server, &["DBSIZE"]).await == 1).await;
        let checks = target.compare(&backup, &stage.task).await.expect("it compares");
        assert!(checks.iter().all(|check| check.passed), "{checks:?}");
        assert!(checks[1].found.starts_with("0: the time of 1 has come"), "{checks:?}");
    }
}

/// A backup of a filled server, and another server into which it was restored.
async fn copied(stage: &Stage) -> (BackupReader, RedisServer) {
    let (source, server) = tokio::join!(RedisServer::start(&[]), RedisServer::start(&[]));
    fill(&source).await;
    let backup = stage.backup_of(&source).await;
    stage.restore(&target(&server), &backup, json!({})).await.expect("it restores");
    (backup, server)
}

/// The names of the checks that fail.
async fn failed(stage: &Stage, backup: &BackupReader, server: &RedisServer) -> Vec<String> {
    let checks = target(server).compare(backup, &stage.task).await.expect("it compares");
    checks.into_iter().filter(|check| !check.passed).map(|check| check.name).collect()
}

#[tokio::test]
async fn a_comparison_finds_what_is_missing() {
    let stage = Stage::new();
    let (backup, server) = copied(&stage).await;
    let _: () = command(&server, &["DEL", "text"]).await;
    let _: () = command(&server, &["FUNCTION", "FLUSH"]).await;
    assert_eq!(
        failed(&stage, &backup, &server).await,
        ["keys without a time to live", "db0", "function libraries"]
    );
}

/// A time to live excuses nobody whose time has not come.
#[tokio::test]
async fn keys_with_time_left_may_not_be_missing() {
    let stage = Stage::new();
    let (backup, server) = copied(&stage).await;
    let _: () = command(&server, &["DEL", "soon"]).await;
    assert_eq!(failed(&stage, &backup, &server).await, ["keys with a time to live", "db0"]);
}

#[test]
fn endings_are_told_at_least() {
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(1_000_000);
    let after = |ms: i64| now + SignedDuration::from_millis(ms);
    let left = [-5, 0, 1, 900, 1_100, 60_000, 90_000_000];
    let mut endings = Endings::seen_at(now);
    left.iter().for_each(|left| endings.note(after(*left).as_millisecond()));
    for passed in [-7, 0, 1, 2, 1_000, 59_999, 60_000, 1_000_000_000] {
        let ended = left.iter().filter(|left| **left <= passed.max(0)).count() as u64;
        let by_twice = left.iter().filter(|left| **left < 2 * passed.max(1)).count() as u64;
        let told = endings.by(after(passed));
        assert!((ended..=by_twice.max(ended)).contains(&told), "{told} within {passed} ms");
    }
    endings.note(i64::MAX);
    endings.note(i64::MIN);
    assert_eq!((endings.by(now), endings.by(Timestamp::MAX)), (3, 8));
}
