//! A restore dies in each of its steps: started again it comes to the same as one that was left in peace.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use tidekeeper::clock::SystemClock;
use tidekeeper::vault::Vault;
use tidekeeper::vault::store::SharedStore;

use super::filled;
use crate::faults::{backed_up_of, directory, keys, says};
use crate::harness::cli::{Cli, finish};
use crate::harness::clock::hurried;
use crate::harness::daemon::LONG;
use crate::harness::mongodb::{MongoServer, uri_at};
use crate::harness::proxy::{Proxy, Weather};
use crate::harness::wait_for;
use crate::source::mongodb::follow::to_newest;
use crate::source::mongodb::ground::Ground;
use crate::source::mongodb::stage::held;

const BLOBS: usize = 7;

/// What was just done for the first time when the restore dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Point {
    /// The target is claimed, and nothing is written.
    Claimed,
    /// Collections are there, ...
    Created,
    /// ... some documents, ...
    Loaded,
    /// ... something that only the log made, ...
    Replayed,
    /// ... an index.
    Indexed,
}

const POINTS: [Point; 5] = [Point::Claimed, Point::Created, Point::Loaded, Point::Replayed, Point::Indexed];

/// A source with a backup and a log after it, and a target behind a proxy.
struct Scene {
    source: MongoServer,
    target: MongoServer,
    proxy: Proxy,
    cli: Cli,
    store: SharedStore,
    /// How the restore is asked for, without its confirmation.
    args: Vec<String>,
}

async fn scene() -> Scene {
    let (source, target) = tokio::join!(filled(BLOBS), MongoServer::start(&[]));
    let proxy = Proxy::start(target.port).await;
    // Clocks that are in a hurry find it slow, and one that is away must not be waited for in each of many calls.
    let patience = "connectTimeoutMS=600000&serverSelectionTimeoutMS=20000";
    let scratch = format!("{}&{patience}", uri_at(proxy.port));
    let cli = Cli::of_mongodb(&source.uri(), ", timeline: true", &scratch);
    cli.run(&["init"]).await.exits(0);
    let store = directory(&cli);
    let ground = Ground::of(Vault::new(store.clone(), SystemClock::shared(), None));
    to_newest(&ground, &source).await.expect("it is followed");
    let backup = backed_up_of(&cli, "mongo-main").await;
    change(&source).await;
    to_newest(&ground, &source).await.expect("it is followed");
    let until = format!("until={}", ground.head(&source).await);
    let args = ["restore", &backup, "--to", "mongo-scratch", "--drop", "--option", &until];
    Scene { args: args.map(str::to_owned).to_vec(), source, target, proxy, cli, store }
}

/// What only the log knows.
async fn change(server: &MongoServer) {
    let db = server.client().await.database("shop");
    let orders = db.collection::<Document>("orders");
    let some = doc! { "_id": { "$lt": 50 } };
    orders.update_many(some, doc! { "$set": { "state": "sent" } }).await.expect("an update");
    orders.delete_many(doc! { "_id": { "$gte": 190 } }).await.expect("they are deleted");
    let late = (0..100).map(|n| doc! { "_id": n });
    db.collection::<Document>("late").insert_many(late).await.expect("they are inserted");
    let indexes = doc! { "createIndexes": "late", "indexes": [{ "key": { "n": 1 }, "name": "late_n" }] };
    server.command("shop", indexes).await;
}

/// The documents and the indexes of each collection.
async fn state(server: &MongoServer) -> BTreeMap<String, (Vec<Vec<u8>>, Vec<String>)> {
    let client = server.client().await;
    let mut state = BTreeMap::new();
    for name in collections(&client).await {
        let mut indexes = indexes(&client, &name).await;
        indexes.sort();
        state.insert(name.clone(), (held(&client, "shop", &name).await, indexes));
    }
    state
}

async fn collections(client: &Client) -> Vec<String> {
    client.database("shop").list_collection_names().await.expect("they are listed")
}

async fn indexes(client: &Client, name: &str) -> Vec<String> {
    let collection = client.database("shop").collection::<Document>(name);
    // One that is being dropped at this moment has none.
    collection.list_index_names().await.unwrap_or_default()
}

impl Scene {
    fn args(&self) -> Vec<&str> {
        self.args.iter().map(String::as_str).collect()
    }

    /// Whether what marks a point is there.
    async fn is_at(&self, point: Point, client: &Client, claims: usize) -> bool {
        let there = async |name: &str| collections(client).await.iter().any(|other| other == name);
        let blobs = client.database("shop").collection::<Document>("blobs");
        match point {
            Point::Claimed => keys(&self.store, "claims/").await.len() > claims,
            Point::Created => there("blobs").await,
            Point::Loaded => blobs.count_documents(doc! {}).await.expect("they are counted") > 0,
            Point::Replayed => there("late").await,
            Point::Indexed => indexes(client, "orders").await.iter().any(|name| name == "by_n"),
        }
    }

    /// The hash of the plan as the target is now.
    async fn planned(&self) -> String {
        let args = [&self.args()[..], &["--dry-run", "--json"]].concat();
        let plan = self.cli.run(&args).await.exits(0).json();
        plan["hash"].as_str().expect("a hash").to_owned()
    }

    /// Starts the restore into an empty target, and kills it as soon as a point is reached.
    async fn killed_at(&self, point: Point) {
        let client = self.target.client().await;
        self.target.command("shop", doc! { "dropDatabase": 1 }).await;
        let claims = keys(&self.store, "claims/").await.len();
        // Each answer of the target takes its time, so that each step does.
        self.proxy.set(Weather { delay: Duration::from_millis(70), ..Weather::default() });
        let mut command = self.cli.command(&self.args());
        let mut restore =
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the binary is built");
        wait_for(&format!("{point:?}"), LONG, async || self.is_at(point, &client, claims).await).await;
        assert_eq!(restore.try_wait().expect("it is our child"), None, "{point:?} was too late");
        restore.kill().await.expect("it was running");
        self.proxy.set(Weather::default());
        let status = self.cli.run(&["status", "--json"]).await.exits(0).json();
        let told = status["problems"].to_string();
        let again = format!("`tidekeeper {} --to mongo-scratch --drop", self.args[..2].join(" "));
        match point {
            Point::Claimed => {
                assert_eq!(collections(&client).await, [""; 0], "it was to be looked at only");
                assert!(!told.contains(&again), "{told}");
            }
            _ => assert!(told.contains("was interrupted") && told.contains(&again), "{point:?}: {told}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_was_killed_and_started_again_ends_the_same() {
    let scene = scene().await;
    let expected = state(&scene.source).await;
    assert_eq!(expected.len(), 3);
    for point in POINTS {
        scene.killed_at(point).await;
        scene.target.at_rest().await;
        // What the dead one has brought is in the way now, so that the plan is another.
        let hash = scene.planned().await;
        scene.cli.run(&[&scene.args()[..], &["--confirm", &hash]].concat()).await.exits(0);
        assert!(state(&scene.target).await == expected, "{point:?}: the target is not as the source was");
        let status = scene.cli.run(&["status", "--json"]).await.exits(0).json();
        assert_eq!(status["problems"].to_string().matches("interrupted").count(), 0, "{status}");
    }
    let runs = scene.cli.run(&["runs", "--action", "restore", "--json"]).await.exits(0).json();
    let runs = runs["runs"].as_array().expect("a list");
    let ended = |state: &str| runs.iter().filter(|run| run["state"] == state).count();
    let (killed, done) = (ended("interrupted"), ended("succeeded"));
    assert_eq!((killed, done, runs.len()), (POINTS.len(), POINTS.len(), 2 * POINTS.len()), "{runs:?}");
}

/// It is waited for as long as an election or a restart may take: by these clocks that is soon over.
const IMPATIENT: u32 = 30;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_goes_for_good_ends_the_restore_which_says_how_to_go_on() {
    let mut scene = scene().await;
    let expected = state(&scene.source).await;
    let client = scene.target.client().await;
    scene.proxy.set(Weather { delay: Duration::from_millis(20), ..Weather::default() });
    let args = scene.args();
    let mut command = scene.cli.command(&args);
    command.envs(hurried(IMPATIENT));
    let restore = finish(command, &args);
    let gone = async {
        wait_for("the log is replayed", LONG, async || scene.is_at(Point::Replayed, &client, 0).await).await;
        scene.proxy.set(Weather { after: Some(0), ..Weather::default() });
    };
    let (ended, ()) = tokio::join!(restore, gone);
    let endpoint = format!("127.0.0.1:{}", scene.proxy.port);
    says(ended, 1, &["restoring mongo-main/", &endpoint, "the target was being written", "drop=true"]);
    scene.target.restart().await;
    scene.proxy.set(Weather::default());
    let hash = scene.planned().await;
    scene.cli.run(&[&scene.args()[..], &["--confirm", &hash]].concat()).await.exits(0);
    assert!(state(&scene.target).await == expected, "the target is not as the source was");
}
