//! The vault is in a real S3 server: a gate holds the request that is the commit point.

use futures_util::future::join_all;
use tidekeeper::clock::SystemClock;

use super::{FASTER, Point, Stage};
use crate::faults::{EAGER, deleted_until, filled};
use crate::harness::cli::Cli;
use crate::harness::clock::hurried;
use crate::harness::daemon::Daemon;
use crate::harness::redis::RedisServer;
use crate::harness::s3::gate::{Fate, Gate};
use crate::harness::s3::versitygw;

async fn stage(server: &RedisServer, backups: usize) -> (Gate, Stage) {
    let gate = Gate::before(versitygw().await).await;
    let place = gate.server.place();
    let cli = Cli::of_redis_in(&server.url(), &gate.server, &place);
    if backups == 2 {
        cli.write("schedules/redis.yaml", EAGER);
    }
    let store = gate.server.store_at(&place, SystemClock::shared());
    (gate, Stage::with(cli, store, backups).await)
}

/// Before any data; in the middle of a part; when all parts are there and the object is not; before the manifest; after it,
/// while its writer does not know; after it, while the run does not say so.
const POINTS: [Point; 6] = [
    Point { method: "POST", part: "?uploads", fate: Fate::Held(0), committed: false },
    Point { method: "PUT", part: "partNumber=1&", fate: Fate::Held(1 << 20), committed: false },
    Point { method: "POST", part: "?uploadId=", fate: Fate::Held(0), committed: false },
    Point { method: "PUT", part: "/manifests/redis-main/", fate: Fate::Held(0), committed: false },
    Point { method: "PUT", part: "/manifests/redis-main/", fate: Fate::AnswerHeld, committed: true },
    Point { method: "PUT", part: "/1.finished.json", fate: Fate::Held(0), committed: true },
];

async fn killed_in_a_backup(point: &Point, server: &RedisServer) {
    let (gate, stage) = stage(server, 1).await;
    stage.is_killed_at(point, &gate, "redis-main").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_whole_or_not_there() {
    let server = filled(9 << 20).await;
    join_all(POINTS.iter().map(|point| killed_in_a_backup(point, &server))).await;
}

/// Between tombstone and verdict; between the verdict and each of the deletions behind it.
const DELETIONS: [(&str, &str); 4] =
    [("PUT", "/1.verdict.json"), ("DELETE", "/manifests/"), ("DELETE", "/data/"), ("DELETE", "/tombstones/")];

async fn killed_in_a_deletion((method, part): (&'static str, &str), server: &RedisServer) {
    let (gate, stage) = stage(server, 2).await;
    stage.cli.run(&["retention", "--apply"]).await.exits(0);
    let mut daemon = Daemon::start_with(&stage.cli, &hurried(FASTER)).await;
    let rule = gate.on(method, part, 1, Fate::Held(0));
    deleted_until(&stage.cli, rule.met()).await;
    daemon.kill().await;
    stage.goes_on_after_a_deletion(rule.arrive_late()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_goes_on_where_it_was_left() {
    let server = filled(1 << 10).await;
    join_all(DELETIONS.map(|point| killed_in_a_deletion(point, &server))).await;
}
