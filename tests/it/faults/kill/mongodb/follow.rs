//! The follower dies at each object that it makes: the next goes on from the last durable segment, and nothing of the log is
//! missing in between.

use std::time::Duration;

use futures_util::future::join_all;
use mongodb::bson::{Document, doc};
use tidekeeper::clock::SystemClock;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::vault::Vault;
use tidekeeper::vault::timeline::Timeline;
use tidekeeper::vault::timeline::chain::stretches;

use crate::harness::cli::Cli;
use crate::harness::daemon::{Daemon, LONG};
use crate::harness::mongodb::MongoServer;
use crate::harness::s3::gate::{Fate, Gate};
use crate::harness::s3::versitygw;
use crate::harness::within;
use crate::source::mongodb::follow::{assert_kept, timelines};
use crate::source::mongodb::ground::Ground;

/// Where the follower dies, and how many segments are stored before.
struct Point {
    part: &'static str,
    fate: Fate,
    stored: usize,
}

const ORIGIN: &str = "/origin.json";
const SEGMENT: &str = ".mongodb.zst";

/// Before the timeline exists; when it does, and its writer does not know; before the first segment; when that is there, and its
/// writer does not know; in the middle of a later one.
const POINTS: [Point; 5] = [
    Point { part: ORIGIN, fate: Fate::Held(0), stored: 0 },
    Point { part: ORIGIN, fate: Fate::AnswerHeld, stored: 0 },
    Point { part: SEGMENT, fate: Fate::Held(0), stored: 0 },
    Point { part: SEGMENT, fate: Fate::AnswerHeld, stored: 0 },
    Point { part: SEGMENT, fate: Fate::Held(300), stored: 2 },
];

/// Writes without an end, not so much that the log rolls over meanwhile.
async fn write(server: &MongoServer) {
    let carts = server.client().await.database("shop").collection::<Document>("carts");
    for id in 0.. {
        carts.insert_one(doc! { "_id": id, "text": "x".repeat(40) }).await.expect("it is inserted");
        SystemClock::shared().sleep(Duration::from_millis(30)).await;
    }
}

/// Those that hold something.
async fn written(ground: &Ground) -> Vec<Timeline> {
    let all = timelines(ground).await;
    all.into_iter().filter(|timeline| !timeline.segments.is_empty()).collect()
}

async fn stored(ground: &Ground) -> usize {
    written(ground).await.iter().map(|timeline| timeline.segments.len()).sum()
}

/// Up to where the log is stored.
async fn reached(ground: &Ground) -> OpTime {
    let ends = written(ground).await;
    let ends = ends.iter().flat_map(|timeline| timeline.segments.iter().map(|segment| segment.name.to));
    ends.max().map(OpTime::from).unwrap_or_default()
}

async fn killed_while_following(point: &Point, server: &MongoServer) {
    let gate = Gate::before(versitygw().await).await;
    let place = gate.server.place();
    let more = ", timeline: true, segment_every: 1s";
    let cli = Cli::of_mongodb_in(&server.uri(), more, &gate.server, &place);
    cli.run(&["init"]).await.exits(0);
    let store = gate.server.store_at(&place, SystemClock::shared());
    let ground = Ground::of(Vault::new(store, SystemClock::shared(), None));
    let early = (point.stored == 0).then(|| gate.on("PUT", point.part, 1, point.fate));
    let mut daemon = Daemon::start(&cli).await;
    let rule = match early {
        Some(rule) => rule,
        None => {
            daemon.wait("segments are stored", async || stored(&ground).await >= point.stored).await;
            gate.on("PUT", point.part, 1, point.fate)
        }
    };
    within(point.part, LONG, rule.met()).await;
    daemon.kill().await;

    // What is written while nobody follows is no gap: the log still holds it.
    let head = ground.head(server).await;
    let mut next = Daemon::start(&cli).await;
    next.wait("it is followed again", async || reached(&ground).await >= head).await;
    if point.fate != Fate::AnswerHeld {
        within("what was late arrives", LONG, rule.arrive_late()).await;
    }
    let later = ground.head(server).await;
    next.wait("it goes on", async || reached(&ground).await >= later).await;
    assert_eq!(next.end().await, Some(0));

    let all = timelines(&ground).await;
    let lost_its_origin = point.part == ORIGIN && point.fate != Fate::AnswerHeld;
    assert_eq!(all.len(), if lost_its_origin { 2 } else { 1 }, "{}: {all:?}", point.part);
    let written = written(&ground).await;
    let [timeline] = written.as_slice() else { panic!("{}: {written:?}", point.part) };
    let origin = timeline.origin.clone().expect("an origin");
    assert_eq!((origin.why.as_str(), stretches(timeline).len()), ("the first", 1), "{}", point.part);
    assert_kept(&ground, server, origin.from.into(), reached(&ground).await).await;
    cli.run(&["scrub", "--deep"]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_goes_on_from_the_last_durable_segment() {
    let server = MongoServer::start(&["--oplog-max-entries", "20000"]).await;
    tokio::select! {
        () = write(&server) => unreachable!("it writes for ever"),
        _ = join_all(POINTS.iter().map(|point| killed_while_following(point, &server))) => {}
    }
}
