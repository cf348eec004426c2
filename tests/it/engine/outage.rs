//! A store that is away, or silent, for a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tidekeeper::clock::Clock;
use tidekeeper::engine::run::End;
use tidekeeper::engine::work::Action;
use tidekeeper::error::Kind;
use tidekeeper::vault::store::SharedStore;
use tidekeeper::vault::store::faults::{Before, Call, Faults, Hook, Method};
use tokio::sync::Notify;

use super::world::{Act, Process, World, ask, cron, every};

const WELL: u8 = 0;
const AWAY: u8 = 1;
const SILENT: u8 = 2;
const READ_ONLY: u8 = 3;

/// The way to the store.
#[derive(Debug, Default)]
struct Line {
    state: AtomicU8,
    well: Notify,
}

impl Line {
    fn set(&self, state: u8) {
        self.state.store(state, Ordering::SeqCst);
        self.well.notify_waiters();
    }

    fn behind(self: &Arc<Self>, world: &World) -> SharedStore {
        Arc::new(Faults::around(Arc::new(world.store.clone()), self.clone()))
    }
}

#[async_trait]
impl Hook for Line {
    async fn before(&self, call: &Call) -> Before {
        while self.state.load(Ordering::SeqCst) == SILENT {
            self.well.notified().await;
        }
        match self.state.load(Ordering::SeqCst) {
            AWAY => Before::Fail(Kind::Unreachable),
            READ_ONLY if call.method == Method::Create => Before::Fail(Kind::Denied),
            _ => Before::Pass,
        }
    }

    async fn after(&self, _call: &Call, _ok: bool) -> Option<Kind> {
        None
    }
}

fn process(world: &World, line: &Arc<Line>) -> Process {
    world.process_on("m", "d", line.behind(world), vec![every("a", 60)])
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_takes_nothing_more_is_told_though_nothing_is_due() {
    let (world, line) = (World::new(), Arc::new(Line::default()));
    let process = world.process_on("m", "d", line.behind(&world), vec![]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 70).await;
    assert!(process.engine.health().is_ready());
    assert!(world.keys("probes/").await.is_empty(), "nothing of it stays");
    line.set(READ_ONLY);
    world.pass([&mut daemon], 35).await;
    let down = process.engine.health().vault.expect("it is told");
    assert!(down.code == "denied" && down.message.contains("writing to the vault"), "{down:?}");
    assert!(process.engine.health().leads.is_some(), "what needs no writing goes on");
    line.set(WELL);
    world.pass([&mut daemon], 7).await;
    assert!(process.engine.health().is_ready());
}

#[tokio::test(start_paused = true)]
async fn serving_goes_on_while_the_vault_is_away() {
    for state in [AWAY, SILENT] {
        let (world, line) = (World::new(), Arc::new(Line::default()));
        let process = process(&world, &line);
        let mut daemon = process.daemon();
        world.pass([&mut daemon], 70).await;
        assert!(process.engine.health().is_ready());
        line.set(state);
        world.pass([&mut daemon], 300).await;
        let health = process.engine.health();
        assert!(!health.is_ready());
        let problem = health.vault.unwrap();
        assert!(["unreachable", "timeout"].contains(&problem.code.as_str()), "{problem:?}");
        line.set(WELL);
        let well = world.clock.now();
        world.pass([&mut daemon], 130).await;
        assert!(process.engine.health().is_ready());
        let backups = world.records_of(Action::Backup).await;
        let ended = backups.iter().rev().find_map(|backup| backup.finished()).unwrap();
        assert_eq!(ended.outcome, End::Succeeded);
        assert!(ended.finished_at > well, "runs go on after the outage");
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_run_waits_for_the_vault() {
    let (world, line) = (World::new(), Arc::new(Line::default()));
    world.act("a", Act::Take(Duration::from_secs(20)));
    let process = world.process_on("m", "d", line.behind(&world), vec![cron("a", "1 6 * * *", "UTC")]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 65).await;
    line.set(AWAY);
    world.pass([&mut daemon], 120).await;
    assert_eq!(daemon.running(), 1, "the end is not written yet");
    line.set(WELL);
    world.pass([&mut daemon], 90).await;
    let backups = world.records_of(Action::Backup).await;
    let outcomes: Vec<_> = backups[0].tries.iter().map(|t| t.finished.as_ref().unwrap().outcome).collect();
    assert_eq!(outcomes, [End::Failed, End::Succeeded]);
    assert_eq!(backups[0].tries[0].finished.as_ref().unwrap().error.as_ref().unwrap().code, "unreachable");
}

#[tokio::test(start_paused = true)]
async fn a_vault_that_is_away_at_the_start_is_waited_for() {
    let (world, line) = (World::new(), Arc::new(Line::default()));
    line.set(AWAY);
    let process = process(&world, &line);
    let mut daemon = process.daemon();
    assert!(!process.engine.health().is_ready());
    world.pass([&mut daemon], 60).await;
    assert!(!process.engine.health().is_ready());
    assert!(process.engine.request(&ask(Action::Backup, "a", None)).await.is_err());
    line.set(WELL);
    world.pass([&mut daemon], 70).await;
    assert!(process.engine.health().is_ready());
    assert!(!world.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_frozen_finds_its_attempt_closed() {
    let (world, line) = (World::new(), Arc::new(Line::default()));
    world.act("a", Act::Take(Duration::from_secs(20)));
    let mut schedule = cron("a", "1 6 * * *", "UTC");
    schedule.backup[0].deadline = Duration::from_secs(60);
    let frozen = world.process_in("cluster", "host-1", "old", line.behind(&world), vec![schedule.clone()]);
    let mut old = frozen.daemon();
    world.pass([&mut old], 65).await;
    line.set(SILENT);
    let store = Arc::new(world.store.clone());
    let next = world.process_in("cluster", "host-2", "new", store, vec![schedule]);
    let mut new = next.daemon();
    world.pass([&mut new], 60 + 14 * 60).await;
    assert!(
        world.records_of(Action::Backup).await[0].finished().is_none(),
        "nobody can know that it is gone"
    );
    world.pass([&mut new], 180).await;
    let closed = world.records_of(Action::Backup).await;
    assert_eq!(closed[0].finished().unwrap().outcome, End::Interrupted);
    line.set(WELL);
    world.pass([&mut old, &mut new], 120).await;
    assert_eq!(world.records_of(Action::Backup).await, closed, "what was closed stays closed");
    let backup = closed[0].tries[0].started.backup().unwrap();
    assert_eq!(world.manifest(&backup).await.unwrap().status.as_str(), "abandoned");
    assert_eq!((frozen.engine.health().leads, next.engine.health().leads), (None, Some(2)));
}
