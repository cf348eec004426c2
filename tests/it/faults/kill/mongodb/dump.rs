//! A dump is many objects: the daemon dies before, between and after them.

use futures_util::StreamExt;
use futures_util::stream;
use tidekeeper::clock::SystemClock;

use super::super::{Point, Stage};
use super::filled;
use crate::harness::cli::Cli;
use crate::harness::mongodb::MongoServer;
use crate::harness::s3::gate::{Fate, Gate};
use crate::harness::s3::versitygw;

/// Before the first object; in the middle of a collection; when all parts of it are there and the object is not; when there are
/// documents and no log; when there are documents and no description; before the manifest; after it, while its writer does not
/// know; after it, while the run does not say so.
const POINTS: [Point; 8] = [
    Point { method: "PUT", part: "/data/mongo-main/", fate: Fate::Held(0), committed: false },
    Point { method: "PUT", part: "partNumber=1&", fate: Fate::Held(1 << 20), committed: false },
    Point { method: "POST", part: "?uploadId=", fate: Fate::Held(0), committed: false },
    Point { method: "PUT", part: "/oplog.bson", fate: Fate::Held(0), committed: false },
    Point { method: "PUT", part: "orders.metadata.json", fate: Fate::AnswerHeld, committed: false },
    Point { method: "PUT", part: "/manifests/mongo-main/", fate: Fate::Held(0), committed: false },
    Point { method: "PUT", part: "/manifests/mongo-main/", fate: Fate::AnswerHeld, committed: true },
    Point { method: "PUT", part: "/1.finished.json", fate: Fate::Held(0), committed: true },
];

async fn killed_in_a_dump(point: &Point, server: &MongoServer) {
    let gate = Gate::before(versitygw().await).await;
    let place = gate.server.place();
    // The clocks of the next daemon are in a hurry, so its patience with a server that has much to do is longer.
    let uri = format!("{}&connectTimeoutMS=120000", server.uri());
    let cli = Cli::of_mongodb_in(&uri, "", &gate.server, &place);
    let store = gate.server.store_at(&place, SystemClock::shared());
    let stage = Stage::of("mongo-main", cli, store, 1).await;
    stage.is_killed_at(point, &gate, "mongo-main").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dump_is_whole_or_not_there() {
    let server = filled(9).await;
    let points: Vec<_> = POINTS.iter().map(|point| killed_in_a_dump(point, &server)).collect();
    stream::iter(points).buffer_unordered(4).collect::<()>().await;
}
