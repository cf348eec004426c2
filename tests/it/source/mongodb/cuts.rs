//! The line breaks: while the log is followed, and in each step of a restore. What comes of it is the whole, or an error that
//! says what broke; and started again it is the whole.

use std::collections::BTreeMap;
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Document, doc};
use serde_json::json;
use tidekeeper::error::{Error, Kind};
use tidekeeper::source::mongodb::follow::follow;
use tidekeeper::source::mongodb::restore::MongoTarget;
use tidekeeper::source::{Restored, Target, Until, Wish};
use tidekeeper::task::Task;
use tidekeeper::vault::reader::BackupReader;

use super::follow::{OFTEN, assert_kept, to_newest, writer};
use super::ground::{Ground, insert, transaction};
use super::stage::{Stage, held, numbered};
use crate::harness::mongodb::{MongoServer, settings_at, uri_at};
use crate::harness::proxy::{Proxy, Then, Weather};
use crate::harness::wait_for;
use crate::vault::estate::Dice;

const LIMIT: Duration = Duration::from_secs(120);

/// Where the line breaks in a restore.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// In this step, once so many items have come in it.
    At(&'static str, u64),
    /// After this part, in thousandths, of what the target sends in a restore that nothing disturbs.
    After(u64),
}

const STEPS: [Cut; 5] = [
    Cut::At("create", 0),
    Cut::At("documents", 1),
    Cut::At("replay", 0),
    Cut::At("replay", 150),
    Cut::At("indexes", 0),
];

/// A backup, and a log after it that takes many round trips to replay.
struct Scene {
    stage: Stage,
    source: MongoServer,
    target: MongoServer,
    proxy: Proxy,
    base: BackupReader,
    until: String,
}

async fn scene() -> Scene {
    let (source, target) = tokio::join!(MongoServer::start(&[]), MongoServer::start(&[]));
    let (stage, proxy) = (Stage::new(), Proxy::start(target.port).await);
    let ground = Ground::of(stage.vault.clone());
    let db = source.client().await.database("shop");
    db.collection("orders").insert_many(numbered(0..900, 4000)).await.expect("they are inserted");
    let indexes = doc! { "createIndexes": "orders", "indexes": [{ "key": { "n": 1 }, "name": "by_n" }] };
    source.command("shop", indexes).await;
    to_newest(&ground, &source).await.expect("it is followed");
    let (_, base) = stage.back_up(&source.settings(), 64 << 20).await.expect("it is backed up");
    for round in 0..8 {
        let name = format!("round-{round}");
        db.collection(&name).insert_many(numbered(0..40, 100)).await.expect("they are inserted");
        transaction(&source, round * 3).await;
        // A command: what came before it is applied before it.
        source
            .command("shop", doc! { "createIndexes": &name, "indexes": [{ "key": { "n": 1 }, "name": "n" }] })
            .await;
        if round % 3 == 0 {
            db.collection::<Document>(&name).drop().await.expect("it is dropped");
        }
    }
    to_newest(&ground, &source).await.expect("it is followed");
    let until = ground.head(&source).await.to_string();
    Scene { stage, source, target, proxy, base, until }
}

/// The documents of each collection.
async fn state(client: &Client) -> BTreeMap<String, Vec<Vec<u8>>> {
    let mut state = BTreeMap::new();
    for name in client.database("shop").list_collection_names().await.expect("they are listed") {
        let documents = held(client, "shop", &name).await;
        if !documents.is_empty() {
            state.insert(name, documents);
        }
    }
    state
}

impl Scene {
    fn task(&self) -> Task {
        Task { progress: Default::default(), ..self.stage.task.clone() }
    }

    async fn restore(&self, task: &Task) -> Result<Restored, Error> {
        let target = MongoTarget::new(settings_at(&uri_at(self.proxy.port)));
        let options = json!({ "until": self.until, "drop": true });
        let wish = Wish { options: options.as_object().expect("a map").clone() };
        let plan = target.plan_restore(&self.base, None, &wish, task).await?;
        assert_eq!(plan.blockers().count(), 0, "{:?}", plan.findings);
        target.restore(&self.base, &plan, task).await
    }

    /// Returns once the line was cut, and is whole again.
    async fn cut(&self, cut: Cut, undisturbed: u64, task: &Task) -> String {
        let after = match cut {
            Cut::At(step, items) => {
                // Each answer takes its time, so that each step does.
                self.proxy.set(Weather { delay: Duration::from_millis(30), ..Weather::default() });
                wait_for(step, LIMIT, async || {
                    let now = task.progress.snapshot();
                    now.step == step && now.items >= items
                })
                .await;
                // The next reply is cut off after a few bytes.
                20
            }
            Cut::After(part) => undisturbed * part / 1000,
        };
        self.proxy.set(Weather { after: Some(after), then: Then::Cut, ..Weather::default() });
        wait_for("it is cut", LIMIT, async || self.proxy.passed() >= after).await;
        let step = task.progress.snapshot().step.to_string();
        self.proxy.set(Weather::default());
        step
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_over_a_line_that_breaks_is_whole_or_says_so() {
    let scene = scene().await;
    let seed = tidekeeper::vault::layout::random();
    let mut dice = Dice(seed);
    println!("seed {seed}");
    scene.proxy.set(Weather::default());
    scene.restore(&scene.task()).await.expect("nothing disturbs it");
    let undisturbed = scene.proxy.passed();
    let expected = state(&scene.source.client().await).await;
    let brought = scene.target.client().await;
    assert!(state(&brought).await == expected);

    let anywhere = (0..3).map(|_| Cut::After(dice.below(900)));
    for cut in STEPS.into_iter().chain(anywhere) {
        brought.database("shop").drop().await.expect("it is dropped");
        let task = scene.task();
        let (restored, step) = tokio::join!(scene.restore(&task), scene.cut(cut, undisturbed, &task));
        println!("{cut:?}, in step {step:?}: {:?}", restored.as_ref().map(|restored| restored.items));
        if let Err(error) = restored {
            let words = format!("{error}, {:?}", error.hint_text());
            assert!(
                matches!(error.kind(), Kind::Unreachable | Kind::Unready),
                "{cut:?}, seed {seed}: {error:?}"
            );
            assert!(words.contains("127.0.0.1:"), "{cut:?}, seed {seed}: it does not say to whom: {words}");
            scene.target.at_rest().await;
            scene.restore(&scene.task()).await.expect("nothing disturbs it");
        }
        let found = state(&brought).await;
        assert!(found == expected, "{cut:?}, seed {seed}: {:?}", found.keys().collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_followed_over_a_line_that_breaks_has_no_gap() {
    let (server, ground) = (MongoServer::start(&[]).await, Ground::new());
    insert(&server, 0, 10).await;
    let from = ground.head(&server).await;
    to_newest(&ground, &server).await.expect("it begins");
    let proxy = Proxy::start(server.port).await;
    let settings = settings_at(&uri_at(proxy.port));
    let follows = async {
        loop {
            let (mut out, _sealer) = writer(&ground, OFTEN);
            let error = follow(&settings, Until::Cancelled, &ground.task, &mut out).await;
            // It is started again by whoever supervises it.
            assert!(error.as_ref().is_err_and(Error::is_retryable), "{error:?}");
        }
    };
    let breaks = async {
        for round in 0..12 {
            proxy.set(Weather { after: Some(700 << (round % 5)), then: Then::Cut, ..Weather::default() });
            insert(&server, 1000 + round * 50, 40).await;
            transaction(&server, 10_000 + round * 3).await;
            wait_for("it is cut", LIMIT, async || proxy.passed() >= 700 << (round % 5)).await;
            proxy.set(Weather::default());
        }
    };
    tokio::select! {
        () = breaks => {}
        () = follows => {}
    }
    to_newest(&ground, &server).await.expect("it goes on");
    let timelines = super::follow::timelines(&ground).await;
    assert_eq!(timelines.len(), 1, "{timelines:?}");
    assert_kept(&ground, &server, from, ground.head(&server).await).await;
}
