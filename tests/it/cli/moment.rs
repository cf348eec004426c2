//! `restore --at`: any second since the first backup, from the real daemon's timeline by the real command.

use std::path::PathBuf;
use std::time::Duration;

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use futures_util::TryStreamExt;
use jiff::Timestamp;
use mongodb::bson::{Document, doc};
use serde_json::Value;
use tidekeeper::clock::SystemClock;

use crate::harness::cli::{Cli, Ran};
use crate::harness::daemon::Daemon;
use crate::harness::mongodb::MongoServer;
use crate::harness::wait_for;

const LIMIT: Duration = Duration::from_secs(60);

/// A source that is followed, and another server to restore into.
struct Shop {
    source: MongoServer,
    scratch: MongoServer,
    cli: Cli,
}

impl Shop {
    async fn new() -> Self {
        let (source, scratch) = tokio::join!(MongoServer::start(&[]), MongoServer::start(&[]));
        let cli = Cli::of_mongodb(&source.uri(), ", timeline: true, segment_every: 1s", &scratch.uri());
        Shop { source, scratch, cli }
    }

    /// A daemon that follows it, and a backup.
    async fn followed(&self) -> Daemon {
        let daemon = Daemon::start(&self.cli).await;
        daemon
            .wait("it is followed", async || self.cli.run(&["timeline", "mongo-main"]).await.code == 0)
            .await;
        let run = daemon.back_up_of("mongo-main").await;
        daemon.run_is(&run, "succeeded").await;
        daemon
    }

    async fn insert(&self, collection: &str, ids: std::ops::Range<i32>) {
        let documents = ids.map(|n| doc! { "_id": n, "n": n * 7 });
        let shop = self.source.client().await.database("shop");
        shop.collection(collection).insert_many(documents).await.expect("they are inserted");
    }

    async fn window(&self) -> (String, String) {
        let view = self.cli.run(&["timeline", "mongo-main", "--json"]).await.exits(0).json();
        let text = |field: &str| view["windows"][0][field].as_str().expect("a moment").to_owned();
        (text("from"), text("to"))
    }

    /// `restore mongo-main --at MOMENT --to mongo-scratch` with more arguments.
    async fn at(&self, moment: Timestamp, more: &[&str]) -> Ran {
        let moment = moment.to_string();
        let args = ["restore", "mongo-main", "--at", &moment, "--to", "mongo-scratch"];
        self.cli.run(&[&args[..], more].concat()).await
    }

    async fn planned(&self, moment: Timestamp, more: &[&str]) -> Value {
        self.at(moment, &[more, &["--dry-run", "--json"]].concat()).await.exits(0).json()
    }
}

async fn documents(server: &MongoServer, db: &str, collection: &str) -> Vec<Document> {
    let all = server.client().await.database(db).collection::<Document>(collection);
    let found = all.find(doc! {}).sort(doc! { "_id": 1 }).await.expect("it is read");
    found.try_collect().await.expect("they are read")
}

/// This second, once it is over.
async fn this_second() -> Timestamp {
    let clock = SystemClock::shared();
    let second = Timestamp::from_second(clock.now().as_second()).expect("a time");
    wait_for("the next second", LIMIT, async || clock.now().as_second() > second.as_second()).await;
    second
}

#[track_caller]
fn says(ran: Ran, code: i32, words: &[&str]) {
    let ran = ran.exits(code);
    for word in words {
        assert!(ran.stderr.contains(word), "{word:?} is not in {}", ran.stderr);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_dropped_by_accident_comes_back_as_it_was_the_second_before() {
    let shop = Shop::new().await;
    shop.cli.run(&["init"]).await.exits(0);
    let long_ago = this_second().await;
    shop.insert("orders", 0..50).await;
    shop.insert("users", 0..5).await;
    let daemon = shop.followed().await;
    shop.insert("orders", 50..80).await;
    let some = doc! { "q": { "_id": { "$lt": 9 } }, "u": { "$set": { "sent": true } }, "multi": true };
    let sent = doc! { "update": "orders", "updates": [some] };
    shop.source.command("shop", sent).await;
    let wanted = documents(&shop.source, "shop", "orders").await;
    let before = this_second().await;
    shop.source.command("shop", doc! { "drop": "orders" }).await;
    shop.insert("users", 5..9).await;

    let plan = shop.planned(before, &[]).await;
    assert_eq!((&plan["at"], &plan["destructive"]), (&before.to_string().into(), &false.into()), "{plan}");
    assert!(
        plan["actions"].as_array().is_some_and(|all| all.iter().any(|one| one["verb"] == "replay")),
        "{plan}"
    );
    assert!(documents(&shop.scratch, "shop", "orders").await.is_empty(), "a plan touches nothing");
    // An empty target needs no confirmation.
    shop.at(before, &[]).await.exits(0);
    assert_eq!(documents(&shop.scratch, "shop", "orders").await, wanted);
    assert_eq!(documents(&shop.scratch, "shop", "users").await.len(), 5, "of that second, and not of now");

    // Only some of it, under another name, beside what is there.
    shop.at(before, &["--include", "shop.orders", "--rename", "shop.orders=rescue.orders"]).await.exits(0);
    assert_eq!(documents(&shop.scratch, "rescue", "orders").await, wanted);
    assert!(documents(&shop.scratch, "rescue", "users").await.is_empty());

    // What is in the way refuses it, until somebody says that it may go and has seen what goes.
    says(
        shop.at(before, &[]).await,
        3,
        &["the target has shop.orders", "the target was not touched", "--drop"],
    );
    says(shop.at(before, &["--drop"]).await, 3, &["shop.orders: 80 documents", "--confirm"]);
    let after = this_second().await;
    let plan = shop.planned(after, &["--drop"]).await;
    let staying = "the target has 1 collection that the source did not have at that moment: rescue.orders";
    assert!(plan["findings"].to_string().contains(staying), "{plan}");
    let hash = plan["hash"].as_str().expect("a hash");
    let done = shop.at(after, &["--drop", "--confirm", hash]).await;
    assert!(done.stdout.contains(&format!(", as of {after}: ")), "{done:?}");
    says(done, 0, &["warning", staying]);
    assert_eq!(documents(&shop.scratch, "shop", "users").await.len(), 9);
    assert!(documents(&shop.scratch, "shop", "orders").await.is_empty());

    let (from, to) = shop.window().await;
    let refused = shop.at(long_ago, &[]).await;
    says(refused, 1, &[&from, &to, "before the first backup", "hint: `tidekeeper timeline mongo-main`"]);
    let future = after + Duration::from_secs(3_600);
    says(shop.at(future, &[]).await, 2, &["`at` is in the future", "now", &from, &to]);
    let half = after + Duration::from_millis(500);
    says(shop.at(half, &[]).await, 2, &["a part of a second", &format!("{after} is with all")]);
    let both = shop.at(after, &["-o", "until=1764301234:5"]).await;
    says(both, 2, &["both the moment", "leave one of the two out"]);
    let mistyped = shop.cli.run(&["restore", "mongo-mian", "--at", &after.to_string()]).await;
    says(mistyped, 1, &["mongo-mian has no backup", "did you mean mongo-main?"]);
    drop(daemon);
}

/// The files of all segments.
fn segments(cli: &Cli) -> Vec<PathBuf> {
    let timelines = std::fs::read_dir(cli.path("vault/timelines/mongo-main")).into_iter().flatten().flatten();
    let files =
        timelines.flat_map(|timeline| std::fs::read_dir(timeline.path()).into_iter().flatten().flatten());
    files.map(|file| file.path()).filter(|file| file.extension().is_none_or(|end| end != "json")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_encrypted_timeline_needs_the_private_key() {
    let shop = Shop::new().await;
    let [key, spare, other] = [Identity::generate(), Identity::generate(), Identity::generate()];
    // Whoever writes needs the public keys only.
    let recipients = [&key, &spare].map(|key| key.to_public().to_string()).join(", ");
    shop.cli.configure(&format!("encryption: {{ recipients: [{recipients}] }}\n"));
    shop.cli.write("key", key.to_string().expose_secret());
    shop.cli.write("other", other.to_string().expose_secret());
    shop.cli.run(&["init"]).await.exits(0);
    shop.insert("orders", 0..20).await;
    let mut daemon = shop.followed().await;
    shop.insert("orders", 20..40).await;
    daemon.wait("a segment is stored", async || !segments(&shop.cli).is_empty()).await;
    assert_eq!(daemon.end().await, Some(0));
    // The next goes on without being able to read what it goes on from.
    let daemon = Daemon::start(&shop.cli).await;
    shop.insert("orders", 40..60).await;
    let moment = this_second().await;
    shop.insert("orders", 60..70).await;

    let words = ["no private key is configured", "hint: ", "`encryption.identity_file`"];
    says(shop.at(moment, &[]).await, 2, &words);
    says(shop.at(moment, &["--identity", "other"]).await, 1, &["private key"]);
    assert!(documents(&shop.scratch, "shop", "orders").await.is_empty());
    shop.at(moment, &["--identity", "key"]).await.exits(0);
    let expected = documents(&shop.source, "shop", "orders").await;
    assert_eq!(documents(&shop.scratch, "shop", "orders").await, expected[..60]);

    let segments = segments(&shop.cli);
    assert!(segments.len() > 1, "{segments:?}");
    for segment in segments {
        let bytes = std::fs::read(&segment).expect("it is read");
        assert!(bytes.starts_with(b"age-encryption.org/v1\n"), "{segment:?}");
        assert!(segment.to_string_lossy().ends_with(".zst.age"), "{segment:?}");
    }
    let view = shop.cli.run(&["timeline", "mongo-main", "--json"]).await.exits(0).json();
    assert_eq!(
        (view["windows"].as_array().map(Vec::len), view["gaps"].as_array().map(Vec::len)),
        (Some(1), Some(0))
    );
    drop(daemon);
}
