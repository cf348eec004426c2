//! Any second of the window, exactly: a writer that never stops, a dump in the middle of it, a timeline that follows, and then
//! restores to many moments, each compared with what a naive model says that the data was then: 0 missing, 0 extra.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use serde_json::json;
use tidekeeper::error::Result;
use tidekeeper::source::mongodb::MongoDb;
use tidekeeper::source::mongodb::config::Settings;
use tidekeeper::source::mongodb::follow::follow;
use tidekeeper::source::mongodb::oplog::entry::record_length;
use tidekeeper::source::mongodb::optime::OpTime;
use tidekeeper::source::mongodb::restore::MongoTarget;
use tidekeeper::source::{Kind, Target, Until, Wish};
use tidekeeper::task::Task;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::timeline;
use tidekeeper::vault::timeline::writer::{Bounds, Sealer, TimelineWriter};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use self::history::{History, contents};
use super::ground::Leads;
use super::stage::Stage;
use crate::harness::mongodb::MongoServer;

mod history;
mod model;

/// How many moments are restored, besides the edges. `TIDEKEEPER_PITR` says another number.
const MOMENTS: usize = 200;

fn moments() -> usize {
    std::env::var("TIDEKEEPER_PITR").ok().and_then(|text| text.parse().ok()).unwrap_or(MOMENTS)
}

/// Ranges of a dump: so short that even small collections are read in several.
const RANGE: u64 = 2 << 10;

/// A follower at work.
struct Followed {
    settings: Settings,
    sealer: Sealer,
    cancel: CancellationToken,
    running: JoinHandle<Result<()>>,
}

impl Followed {
    fn start(stage: &Stage, settings: Settings) -> Self {
        let (bounds, name) = (Bounds::default(), settings.name.clone());
        let (mut out, sealer) =
            TimelineWriter::new(&stage.vault, &name, MongoDb.name(), &Leads, bounds, record_length);
        let cancel = CancellationToken::new();
        let task = Task { cancel: cancel.clone(), ..patient(stage) };
        let followed = settings.clone();
        let running = tokio::spawn(async move { follow(&followed, Until::Cancelled, &task, &mut out).await });
        Followed { settings, sealer, cancel, running }
    }

    /// Ends it, and tells where its segments begin and end.
    async fn end(self, stage: &Stage) -> Vec<OpTime> {
        self.cancel.cancel();
        self.running.await.expect("it does not panic").expect("it ends well");
        let timelines = timeline::list(&stage.vault, &self.settings.name).await.expect("they are listed");
        assert_eq!(timelines.len(), 1, "one unbroken timeline");
        let segments = timelines[0].segments.iter();
        segments.flat_map(|segment| [segment.name.from.into(), segment.name.to.into()]).collect()
    }
}

/// Hundreds of restores take longer than other tests.
fn patient(stage: &Stage) -> Task {
    Task { deadline: stage.clock.monotonic() + Duration::from_secs(3_600), ..stage.task.clone() }
}

/// A history with everything that restores to its moments need.
struct Scene {
    stage: Stage,
    history: History,
    base: BackupReader,
    /// The first and the last position of each segment.
    borders: Vec<OpTime>,
}

/// A writer writes before, during and after the dump; a follower runs all the time.
async fn scene(seed: u64) -> Scene {
    let stage = Stage::new();
    let server = MongoServer::start(&["--oplog-max-entries", "100000"]).await;
    let mut history = History::new(&server, seed).await;
    history.write(60).await;
    let follower = Followed::start(&stage, server.settings());
    follower.sealer.seal().await.expect("it is followed");
    let settings = server.settings();
    let (backup, ()) = tokio::join!(stage.back_up(&settings, RANGE), history.write(120));
    let (_, base) = backup.expect("it is backed up");
    for _ in 0..12 {
        history.write(25).await;
        follower.sealer.seal().await.expect("it seals");
    }
    let borders = follower.end(&stage).await;
    history.conclude().await;
    Scene { stage, history, base, borders }
}

impl Scene {
    /// From where on this base restores: before that its data is of several moments.
    fn exact_at(&self) -> OpTime {
        self.base.manifest.log_position.expect("a base").into()
    }

    /// Moments to restore to: random ones of the window, and its edges.
    fn targets(&self, random: usize) -> Vec<OpTime> {
        let exact = self.exact_at();
        let last = self.history.last();
        let mut targets: Vec<OpTime> = self.borders.iter().copied().filter(|at| *at >= exact).collect();
        targets.extend([exact, last]);
        targets.extend(self.history.equal_stamps().into_iter().filter(|at| *at >= exact));
        let moments: Vec<OpTime> = self.history.moments().filter(|at| *at >= exact).collect();
        let mut dice = history::Dice::new(self.history.seed ^ 0x71de);
        for _ in 0..random {
            let moment = moments[dice.below(moments.len())];
            // The stamp of an entry, or one behind it, which may be nobody's: then nothing more is written by then.
            let later = OpTime { increment: moment.increment + dice.below(2) as u32, ..moment };
            targets.push(later.min(last));
        }
        targets
    }

    /// Into an empty target: what an earlier restore left there is not this one's to remove.
    async fn restore(&self, target: &MongoServer, until: OpTime) {
        history::empty(target).await;
        let system = MongoTarget::new(target.settings());
        let options = json!({ "until": until.to_string() });
        let wish = Wish { options: options.as_object().expect("a map").clone() };
        let plan = system.plan_restore(&self.base, None, &wish, &patient(&self.stage)).await;
        let plan = plan.unwrap_or_else(|error| panic!("planning for {until}: {error:?}"));
        assert_eq!(plan.blockers().count(), 0, "{until}: {:?}", plan.findings);
        let restored = system.restore(&self.base, &plan, &patient(&self.stage)).await;
        let restored = restored.unwrap_or_else(|error| panic!("restoring to {until}: {error:?}"));
        assert_eq!(restored.omissions, [], "{until}");
    }

    /// What differs between a target and the model's prefix, in words.
    async fn differences(&self, target: &MongoServer, until: OpTime) -> Vec<String> {
        let (expected, found) = (self.history.at(until), contents(target).await);
        expected.differences(&found)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_window_restores_exactly_to_any_moment() {
    let seed = std::env::var("TIDEKEEPER_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(tidekeeper::vault::layout::random);
    println!("seed {seed}");
    let scene = scene(seed).await;
    let target = MongoServer::start(&[]).await;
    let targets = scene.targets(moments());
    let mut wrong = Vec::new();
    for until in &targets {
        scene.restore(&target, *until).await;
        let differences = scene.differences(&target, *until).await;
        if !differences.is_empty() {
            wrong.push(format!("{until}: {}", differences.join("; ")));
        }
    }
    println!("{} moments restored, seed {seed}: {} wrong", targets.len(), wrong.len());
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_is_all_that_was_stamped_with_it() {
    let scene = scene(7).await;
    let target = MongoServer::start(&[]).await;
    let system = MongoTarget::new(target.settings());
    let second = scene.history.last().moment();
    let until = OpTime::from(MongoDb.position_at(second).expect("a position"));
    assert!(scene.history.last() < until, "the whole second counts");
    // It was sealed after that second, and there was nothing more.
    let base = scene.base.clone().log_up_to(Some(scene.history.last().position()));
    let (wish, task) = (Wish::default(), patient(&scene.stage));
    let plan = system.plan_restore(&base, Some(second), &wish, &task).await.expect("a plan");
    system.restore(&base, &plan, &task).await.expect("it is restored");
    assert_eq!(scene.differences(&target, scene.history.last()).await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outside_the_window_nothing_is_touched() {
    let scene = scene(8).await;
    let target = MongoServer::start(&[]).await;
    let witness: Document = doc! { "insert": "witness", "documents": [{ "_id": 1 }] };
    target.command("bystander", witness).await;
    let system = MongoTarget::new(target.settings());
    let before = OpTime { increment: scene.exact_at().increment.saturating_sub(1), ..scene.exact_at() };
    let after = OpTime { seconds: scene.history.last().seconds + 3600, increment: 1 };
    for until in [before, after] {
        let options = json!({ "until": until.to_string() });
        let wish = Wish { options: options.as_object().expect("a map").clone() };
        let planned = system.plan_restore(&scene.base, None, &wish, &patient(&scene.stage)).await;
        let refused = match &planned {
            Ok(plan) => plan.blockers().next().is_some(),
            Err(_) => true,
        };
        assert!(refused, "{until}: {planned:?}");
    }
    assert_eq!(contents(&target).await.collections().collect::<Vec<_>>(), ["bystander.witness"]);
}
