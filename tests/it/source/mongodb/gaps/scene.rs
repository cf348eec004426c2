//! A source, a vault in a folder that the binary works with, and a history of marks, one after the other.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use serde_json::Value;
use tidekeeper::clock::SystemClock;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::log::Position;
use tidekeeper::vault::store::fs::FsStore;

use super::super::follow::{OFTEN, timelines, to_newest, writer};
use super::super::ground::{Ground, log};
use super::super::stage::numbered;
use crate::harness::cli::{Cli, Ran};
use crate::harness::mongodb::MongoServer;
use crate::harness::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// A part of the history that is unbroken and has a backup in it.
#[derive(Clone, Debug)]
pub struct Part {
    /// A second that comes back,
    pub good: Timestamp,
    /// and the marks that were there by its end.
    pub marks: Vec<i32>,
    /// The last record of it. Its second is not whole in it, so it is no second that can be had.
    pub end: OpTime,
}

pub struct Scene {
    pub server: MongoServer,
    pub scratch: MongoServer,
    pub cli: Cli,
    pub ground: Ground,
    next: i32,
}

/// A vault in a folder, as this process sees it.
fn ground(cli: &Cli) -> Ground {
    let store = FsStore::connect(&cli.path("vault"), false).expect("a local directory");
    Ground::of(Vault::new(Arc::new(store), SystemClock::shared(), None))
}

/// The marks that a server holds.
pub async fn marks(server: &MongoServer) -> Vec<i32> {
    let marks = server.client().await.database("shop").collection::<Document>("marks");
    let found: Vec<Document> = marks
        .find(doc! {})
        .sort(doc! { "_id": 1 })
        .await
        .expect("it is read")
        .try_collect()
        .await
        .expect("read");
    found.iter().map(|mark| mark.get_i32("_id").expect("an id")).collect()
}

impl Scene {
    pub async fn new() -> Self {
        // So short that a log that nobody follows has soon rolled over.
        let (server, scratch) =
            tokio::join!(MongoServer::start(&["--oplog-max-entries", "50"]), MongoServer::start(&[]));
        let cli = Cli::of_mongodb(&server.uri(), ", timeline: true", &scratch.uri());
        cli.run(&["init"]).await.exits(0);
        let ground = ground(&cli);
        let mut scene = Scene { server, scratch, cli, ground, next: 0 };
        scene.fill().await;
        scene
    }

    /// A copy of the vault as it is now, with a configuration of its own.
    pub fn copy(&self) -> Cli {
        let cli = Cli::of_mongodb(&self.server.uri(), ", timeline: true", &self.scratch.uri());
        copy(&self.cli.path("vault"), &cli.path("vault"));
        cli
    }

    /// What stays as it is, so that no backup looks too small.
    async fn fill(&mut self) {
        let still = self.server.client().await.database("shop").collection("still");
        still.insert_many(numbered(0..50, 10)).await.expect("they are inserted");
        self.mark().await;
    }

    pub async fn mark(&mut self) {
        self.next += 1;
        let insert = doc! { "insert": "marks", "documents": [{ "_id": self.next }] };
        self.server.command("shop", insert).await;
    }

    pub async fn follow(&self) {
        to_newest(&self.ground, &self.server).await.expect("it is followed");
    }

    /// Up to where the log is stored, in whichever timeline.
    pub async fn followed_to(&self) -> OpTime {
        let timelines = timelines(&self.ground).await;
        let ends =
            timelines.iter().flat_map(|timeline| timeline.segments.iter().map(|segment| segment.name.to));
        ends.max().expect("some segments").into()
    }

    /// Returns in a later second than that of the newest record.
    pub async fn next_second(&self) -> OpTime {
        let head = self.ground.head(&self.server).await;
        self.later_than(head).await;
        head
    }

    /// The second that it is.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_second(self.ground.clock.now().as_second()).expect("a moment")
    }

    async fn later_than(&self, at: OpTime) {
        wait_for("the next second", LIMIT, async || {
            self.ground.clock.now().as_second() > i64::from(at.seconds)
        })
        .await;
    }

    /// A mark in each of two seconds, the first in a backup, and both in the timeline.
    pub async fn part(&mut self) -> Part {
        self.next_second().await;
        self.mark().await;
        self.follow().await;
        let args = ["backup", "mongo-main", "--deadline", "60s", "--json"];
        let manifest = self.cli.run(&args).await.exits(0).json();
        let position = manifest["log_position"].as_str().expect("a position");
        let exact = OpTime::from(position.parse::<Position>().expect("a position"));
        let marks = marks(&self.server).await;
        self.later_than(exact).await;
        self.mark().await;
        self.follow().await;
        Part { good: exact.moment(), marks, end: self.ground.head(&self.server).await }
    }

    /// More writes than the log keeps.
    pub async fn flood(&self) {
        let noise = self.server.client().await.database("shop").collection::<Document>("noise");
        noise.insert_many(numbered(0..3000, 1)).await.expect("they are inserted");
        noise.drop().await.expect("it is dropped");
    }

    /// Restores the newest backup over the source.
    pub async fn restore_into_the_source(&self) {
        let args = ["restore", "mongo-main/latest", "--drop"];
        let plan = self.cli.run(&[&args[..], &["--dry-run", "--json"]].concat()).await.exits(0).json();
        let hash = plan["hash"].as_str().expect("a hash");
        self.cli.run(&[&args[..], &["--confirm", hash]].concat()).await.exits(0);
    }

    /// This server gives no stamp twice, whatever is done to it. So it is the vault that holds another record at a place of
    /// the log, as if it had been read before a rollback, and the place been written anew since.
    pub async fn read_another_record(&mut self) -> OpTime {
        self.mark().await;
        let (mut out, _) = writer(&self.ground, OFTEN);
        let reach = out.resume().await.expect("it is read").expect("a timeline");
        let at = self.ground.head(&self.server).await;
        let record = log(&self.server, reach.to.into(), at).await.pop().expect("a record");
        let mut entry = Document::from_reader(&*record).expect("an entry");
        entry.get_document_mut("o").expect("an insert").insert("forgotten", true);
        let other = Bytes::from(entry.to_vec().expect("bytes"));
        out.push(other, at.position()).await.expect("it is taken");
        out.seal().await.expect("it is stored").expect("a segment");
        at
    }

    /// Puts the data of a moment ago back in the place of what was followed since.
    pub async fn roll_back(&mut self) -> OpTime {
        let (data, old) = (self.data(), self.server.folder.path().join("old"));
        self.server.stop().await;
        copy(&data, &old);
        self.server.start_again(&[]).await;
        self.mark().await;
        self.follow().await;
        let at = self.ground.head(&self.server).await;
        self.server.stop().await;
        copy(&old, &data);
        self.server.start_again(&[]).await;
        // As a new primary writes at once, behind all that it ever had: else nothing would tell the two logs apart yet.
        self.later_than(at).await;
        self.mark().await;
        at
    }

    /// Another server where this one was.
    pub async fn replace_the_server(&mut self) {
        self.server.stop().await;
        std::fs::remove_dir_all(self.data()).expect("it is removed");
        self.server.start_again(&[]).await;
        self.fill().await;
    }

    fn data(&self) -> PathBuf {
        self.server.folder.path().join("data")
    }

    /// Restores a vault's source to a second, into an empty target; the marks that are there then.
    pub async fn restored(&self, cli: &Cli, at: Timestamp) -> Vec<i32> {
        self.scratch.command("shop", doc! { "dropDatabase": 1 }).await;
        let at = at.to_string();
        let ran = cli.run(&["restore", "mongo-main", "--at", &at, "--to", "mongo-scratch"]).await;
        ran.exits(0);
        marks(&self.scratch).await
    }

    /// A restore to this second is planned without objections: all that it needs was read.
    pub async fn can_be_had(&self, cli: &Cli, at: Timestamp) {
        self.scratch.command("shop", doc! { "dropDatabase": 1 }).await;
        let at = at.to_string();
        let args = ["restore", "mongo-main", "--at", &at, "--to", "mongo-scratch", "--dry-run"];
        cli.run(&args).await.exits(0);
    }

    /// A restore to this second is refused with this exit code and these words, and touches nothing.
    pub async fn is_refused(&self, cli: &Cli, at: Timestamp, code: i32, words: &[&str]) {
        let witness = doc! { "update": "witness", "updates": [{ "q": {}, "u": { "$set": { "n": 1 } }, "upsert": true }] };
        self.scratch.command("shop", doc! { "dropDatabase": 1 }).await;
        self.scratch.command("shop", witness).await;
        let at = at.to_string();
        let ran = cli.run(&["restore", "mongo-main", "--at", &at, "--to", "mongo-scratch"]).await;
        says(ran, code, words);
        let names = self.scratch.client().await.database("shop").list_collection_names().await;
        assert_eq!(names.expect("they are listed"), ["witness"], "a refused restore touched the target");
    }
}

/// Asserts that a command failed so, and said all of these words.
#[track_caller]
fn says(ran: Ran, code: i32, words: &[&str]) {
    let ran = ran.exits(code);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
    }
    assert!(ran.stderr.contains("hint: "), "it does not say what to do: {}", ran.stderr);
}

/// What `tidekeeper timeline` tells, as data and as text.
pub async fn view(cli: &Cli) -> (Value, String) {
    let text = cli.run(&["timeline", "mongo-main"]).await.exits(0).stdout;
    (cli.run(&["timeline", "mongo-main", "--json"]).await.exits(0).json(), text)
}

/// Puts a whole folder where another was.
fn copy(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    let done = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(done.expect("cp runs").success());
}
