use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;
use tidekeeper::clock::{Clock, TestClock};
use tidekeeper::engine::guards::OpenAttempts;
use tidekeeper::engine::ledger;
use tidekeeper::engine::run::{End, RunId, Started};
use tidekeeper::engine::work::{Action, Grade};
use tidekeeper::error::Kind;
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::{self, BackupRef};
use tidekeeper::vault::scrub::{Liveness, Writers};
use tidekeeper::vault::store::Store;
use tidekeeper::vault::store::faults::{Before, Call, Faults, Hook, Method};

use super::world::{Act, World, ask, cron, every, instant, source};

#[tokio::test(start_paused = true)]
async fn a_commit_whose_answer_was_lost_is_a_backup() {
    let world = World::new();
    world.act("a", Act::CommitAndFail(Kind::Undecided));
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Backup, "a", None);
    let (_, record) = cli.run(&order).await.unwrap();
    let finished = record.finished().unwrap();
    assert_eq!(record.tries.len(), 1);
    assert_eq!((finished.outcome, finished.status), (End::Succeeded, Some(Grade::Suspect)));
    assert_eq!(finished.error.as_ref().unwrap().code, "undecided", "what happened is still told");
}

#[tokio::test(start_paused = true)]
async fn what_a_dead_process_left_is_closed_within_a_minute() {
    let world = World::new();
    world.act("a", Act::Hang);
    let daemon = world.process("d", vec![]);
    let mut ticking = daemon.daemon();
    world.pass([&mut ticking], 5).await;
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Backup, "a", None);
    cli.begin(&order, world.pass([&mut ticking], 100)).await;
    assert!(world.records().await[0].1.finished().is_none(), "nobody closes what lives");
    cli.kill();
    world.pass([&mut ticking], 61).await;
    let record = &world.records().await[0].1;
    let finished = record.finished().unwrap();
    assert_eq!((finished.outcome, finished.retry_at), (End::Interrupted, None));
    let manifest = world.manifest(&record.tries[0].started.backup().unwrap()).await.unwrap();
    assert_eq!(manifest.status.as_str(), "abandoned");
}

#[tokio::test(start_paused = true)]
async fn a_restore_that_died_names_what_it_may_have_left() {
    let world = World::new();
    world.act("a", Act::Hang);
    let cli = world.process("cli", vec![]);
    let mut order = ask(Action::Restore, "a", None);
    order.order.params = json!({ "backup": { "source": "b", "id": "20261121T050000Z-000000" } });
    cli.begin(&order, world.clock.sleep(Duration::from_secs(5))).await;
    cli.kill();
    let daemon = world.process("d", vec![]);
    let mut ticking = daemon.daemon();
    world.pass([&mut ticking], 61).await;
    let error = world.records().await[0].1.finished().unwrap().error.clone().unwrap();
    assert!(error.message.starts_with("restoring b/20261121T050000Z-000000 into a: "), "{error:?}");
    let hint = error.hint.unwrap();
    assert!(hint.starts_with("a may be half restored"), "{hint}");
    assert!(hint.contains("`tidekeeper restore b/20261121T050000Z-000000 --to a --dry-run`"), "{hint}");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_closed_while_the_clock_looks_wrong() {
    let world = World::new();
    world.act("a", Act::Hang);
    let daemon = world.process("d", vec![cron("b", "*/30 * * * *", "UTC")]);
    let mut ticking = daemon.daemon();
    world.pass([&mut ticking], 5).await;
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Backup, "a", None);
    cli.begin(&order, world.clock.sleep(Duration::from_secs(5))).await;
    world.jump(-3600);
    cli.kill();
    world.pass([&mut ticking], 300).await;
    assert!(world.records_of(Action::Backup).await[0].finished().is_none());
    let health = daemon.engine.health();
    assert_eq!(health.clock.unwrap().code, "clock");
    assert!(health.vault.is_none(), "the vault is well");
    // What is due is still done: a backup too many costs less than one too few.
    world.pass([&mut ticking], 5400).await;
    assert!(world.begun().contains(&"backup b#1".to_owned()), "{:?}", world.begun());
}

#[tokio::test(start_paused = true)]
async fn a_backup_of_a_killed_daemon_goes_on_in_the_next() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(300)));
    let first = world.process("first", vec![cron("a", "1 6 * * *", "UTC")]);
    let mut daemon = first.daemon();
    world.pass([&mut daemon], 65).await;
    drop(daemon);
    first.kill();
    world.act("a", Act::Take(Duration::from_secs(1)));
    let second = world.process("second", vec![cron("a", "1 6 * * *", "UTC")]);
    let mut daemon = second.daemon();
    world.pass([&mut daemon], 30).await;
    let backups = world.records_of(Action::Backup).await;
    assert_eq!(backups.len(), 1);
    let outcomes: Vec<_> = backups[0].tries.iter().map(|t| t.finished.as_ref().unwrap().outcome).collect();
    assert_eq!(outcomes, [End::Interrupted, End::Succeeded]);
}

/// A store that takes a third of a tick's time to list a page of runs.
#[derive(Debug)]
struct Slow(Arc<TestClock>);

#[async_trait]
impl Hook for Slow {
    async fn before(&self, call: &Call) -> Before {
        if call.method == Method::List && call.of == layout::RUNS {
            self.0.sleep(Duration::from_secs(20)).await;
        }
        Before::Pass
    }

    async fn after(&self, _call: &Call, _ok: bool) -> Option<Kind> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn years_of_runs_keep_nothing_from_starting() {
    let world = World::new();
    let abandoned = RunId::new(instant("2024-01-01T00:00:00Z"), "000000000001");
    for second in 0..2_000 {
        let run = RunId::new(instant("2024-01-02T00:00:00Z") + Duration::from_secs(second), "000000000001");
        for key in [layout::started(&run, 1), layout::finished(&run, 1)] {
            let _ = world.store.create(&key, "{}".into()).await.unwrap();
        }
    }
    let dead = world.process("dead", vec![]);
    let (_, record) = dead.run(&ask(Action::Verify, "b", None)).await.unwrap();
    dead.kill();
    let left = Started { run: abandoned.clone(), ..record.tries[0].started.clone() };
    let _ = ledger::claim(&world.vault(), &left).await.unwrap();
    let store = Faults::around(Arc::new(world.store.clone()), Arc::new(Slow(world.clock.clone())));
    let process = world.process_on("m", "d", Arc::new(store), vec![every("a", 60)]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 150).await;
    assert!(world.begun().contains(&"backup a#1".to_owned()), "{:?}", world.begun());
    world.pass([&mut daemon], 150).await;
    let closed = ledger::read(&world.vault(), &abandoned).await.unwrap();
    assert_eq!(closed.finished().unwrap().outcome, End::Interrupted, "the search came to its end");
}

#[tokio::test(start_paused = true)]
async fn one_look_at_all_runs_tells_who_wrote_what_is_old() {
    let world = World::new();
    world.act("a", Act::Hang);
    let store = Faults::around(Arc::new(world.store.clone()), Arc::new(Slow(world.clock.clone())));
    let writers = OpenAttempts::new(&Vault::new(Arc::new(store), world.clock.clone(), None));
    let began = world.clock.monotonic();
    for hour in 10..20 {
        let id = format!("20261120T{hour}0000Z-000000").parse().unwrap();
        let alive = writers.liveness(&BackupRef { source: source("a"), id }).await.unwrap();
        assert!(matches!(alive, Liveness::Dead(_)), "{alive:?}");
    }
    assert_eq!(world.clock.monotonic() - began, Duration::from_secs(20), "one listing for all of them");
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Backup, "a", None);
    cli.begin(&order, world.clock.sleep(Duration::from_secs(2))).await;
    let young = world.records().await[0].1.tries[0].started.backup().unwrap();
    assert_eq!(writers.liveness(&young).await.unwrap(), Liveness::Alive, "claimed after that look");
}
