use std::time::Duration;

use tidekeeper::clock::Clock;
use tidekeeper::config::Missed;
use tidekeeper::engine::run::{End, Why};
use tidekeeper::engine::switches::Position;
use tidekeeper::engine::work::Action;

use super::world::{Act, World, ask, cron, every, instant};

#[tokio::test(start_paused = true)]
async fn a_schedule_is_kept() {
    let world = World::at("2026-11-21T05:59:50Z");
    let process = world.process("d", vec![cron("a", "0 */6 * * *", "UTC")]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 20).await;
    let backups = world.records_of(Action::Backup).await;
    assert_eq!(backups.len(), 1);
    let run = &backups[0].tries[0];
    let due = instant("2026-11-21T06:00:00Z");
    let why = Why::Schedule { series: "main".to_owned(), due, reason: "due".to_owned() };
    assert_eq!(run.started.why, why);
    assert_eq!(run.started.started_at.as_second(), due.as_second());
    assert_eq!(run.started.principal, "schedule");
    assert_eq!(run.started.generation, Some(1));
    let finished = run.finished.as_ref().unwrap();
    assert_eq!((finished.outcome, finished.retry_at), (End::Succeeded, None));
    assert_eq!(finished.steps[0].name, "work");
    assert!(world.manifest(&run.started.backup().unwrap()).await.is_some());
    assert_eq!(world.records_of(Action::Retention).await.len(), 1, "retention follows a good backup");
    assert_eq!(process.engine.health().leads, Some(1));
}

#[tokio::test(start_paused = true)]
async fn two_daemons_run_each_due_time_once() {
    let world = World::new();
    let one = world.process("one", vec![every("a", 60), every("b", 45)]);
    let two = world.process("two", vec![every("a", 60), every("b", 45)]);
    let (mut first, mut second) = (one.daemon(), two.daemon());
    world.pass([&mut first, &mut second], 365).await;
    let backups = world.records_of(Action::Backup).await;
    assert_eq!(backups.len(), 6 + 8);
    assert!(backups.iter().all(|backup| backup.tries.len() == 1));
    assert_eq!(world.begun().iter().filter(|work| work.starts_with("backup")).count(), 14);
    let leaders = (one.engine.health().leads, two.engine.health().leads);
    assert_eq!(leaders, (Some(1), None));
}

#[tokio::test(start_paused = true)]
async fn two_leaders_would_still_run_it_once() {
    let world = World::at("2026-11-21T06:00:05Z");
    let one = world.process("one", vec![every("a", 60)]);
    let two = world.process_on("n", "two", std::sync::Arc::new(world.store.clone()), vec![every("a", 60)]);
    let mut first = one.daemon();
    // The first looks who leads every ten seconds, lastly at 06:00:55. Then the second takes over, and at 06:01:00, when
    // the run is due, both believe that they lead.
    world.pass([&mut first], 50).await;
    let mut second = tidekeeper::engine::daemon::Daemon::new(&two.engine, true);
    world.pass([&mut second, &mut first], 20).await;
    assert_eq!(world.records_of(Action::Backup).await.len(), 1);
    assert_eq!(world.begun().iter().filter(|work| work.starts_with("backup")).count(), 1);
}

#[tokio::test(start_paused = true)]
async fn due_times_of_a_daemon_that_was_down_are_made_up_for_once() {
    let world = World::new();
    let process = world.process("d", vec![cron("a", "0 */6 * * *", "UTC")]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 3).await;
    drop(daemon);
    process.kill();
    world.clock.sleep(Duration::from_secs(3 * 86_400)).await;
    let process = world.process("e", vec![cron("a", "0 */6 * * *", "UTC")]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 30).await;
    let backups = world.records_of(Action::Backup).await;
    assert_eq!(backups.len(), 1);
    let Why::Schedule { due, .. } = &backups[0].tries[0].started.why else { panic!("not scheduled") };
    assert_eq!(*due, instant("2026-11-24T06:00:00Z"));
}

#[tokio::test(start_paused = true)]
async fn a_failed_backup_is_tried_again_within_its_deadline() {
    let world = World::new();
    world.act("a", Act::Fail(2, tidekeeper::error::Kind::Unreachable));
    let process = world.process("d", vec![cron("a", "1 6 * * *", "UTC")]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 150).await;
    let backups = world.records_of(Action::Backup).await;
    assert_eq!(backups.len(), 1);
    let ends: Vec<_> = backups[0].tries.iter().map(|t| t.finished.as_ref().unwrap()).collect();
    assert_eq!(
        ends.iter().map(|end| end.outcome).collect::<Vec<_>>(),
        [End::Failed, End::Failed, End::Succeeded]
    );
    assert_eq!(ends[0].error.as_ref().unwrap().code, "unreachable");
    for (end, next) in ends.iter().zip(&backups[0].tries[1..]) {
        assert!(next.started.started_at >= end.retry_at.unwrap());
    }
    // Each attempt has its own backup id, and those that were given up are closed for ever.
    for failed in &backups[0].tries[..2] {
        let manifest = world.manifest(&failed.started.backup().unwrap()).await.unwrap();
        assert_eq!(manifest.status.as_str(), "abandoned");
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_help_is_not_repeated() {
    let world = World::new();
    world.act("a", Act::Fail(9, tidekeeper::error::Kind::Denied));
    let process = world.process("d", vec![cron("a", "1 6 * * *", "UTC")]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 400).await;
    assert_eq!(world.begun(), ["backup a#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_restore_waits_for_the_operator() {
    let world = World::new();
    world.act("a", Act::Fail(1, tidekeeper::error::Kind::Unreachable));
    let process = world.process("d", vec![]);
    let mut daemon = process.daemon();
    process.engine.request(&ask(Action::Restore, "a", None)).await.unwrap();
    world.pass([&mut daemon], 400).await;
    assert_eq!(world.begun(), ["restore a#1"]);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_a_run_and_its_retries() {
    let world = World::new();
    world.act("a", Act::Hang);
    let mut schedule = cron("a", "1 6 * * *", "UTC");
    schedule.backup[0].deadline = Duration::from_secs(120);
    let process = world.process("d", vec![schedule]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 400).await;
    let backups = world.records_of(Action::Backup).await;
    assert_eq!(backups[0].tries.len(), 1);
    let finished = backups[0].finished().unwrap();
    assert_eq!(finished.error.as_ref().unwrap().code, "timeout");
    assert_eq!(finished.finished_at.as_second(), instant("2026-11-21T06:03:00Z").as_second());
}

#[tokio::test(start_paused = true)]
async fn a_work_that_notices_nothing_is_ended_after_a_while() {
    let world = World::new();
    world.act("a", Act::Deaf);
    let mut schedule = cron("a", "1 6 * * *", "UTC");
    schedule.backup[0].deadline = Duration::from_secs(120);
    let process = world.process("d", vec![schedule]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 260).await;
    let backups = world.records_of(Action::Backup).await;
    let ended = backups[0].finished().unwrap().finished_at;
    assert_eq!(ended.as_second(), instant("2026-11-21T06:03:30Z").as_second());
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failed_run() {
    let world = World::new();
    world.act("a", Act::Panic);
    let process = world.process("d", vec![cron("a", "1 6 * * *", "UTC")]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 100).await;
    let backups = world.records_of(Action::Backup).await;
    let error = backups[0].finished().unwrap().error.clone().unwrap();
    assert_eq!(error.code, "internal");
    assert!(error.message.contains("as told"), "{}", error.message);
}

#[tokio::test(start_paused = true)]
async fn runs_of_one_source_do_not_overlap() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(100)));
    let process = world.process("d", vec![every("a", 60)]);
    let mut daemon = process.daemon();
    process.engine.request(&ask(Action::Backup, "a", None)).await.unwrap();
    world.pass([&mut daemon], 1000).await;
    let most = world.script.running.lock().unwrap()["a"].1;
    assert_eq!(most, 1);
    let begun = world.begun().iter().filter(|work| work.starts_with("backup")).count();
    assert!((9..=11).contains(&begun), "{begun} backups of 100 s in 1000 s");
}

#[tokio::test(start_paused = true)]
async fn nor_with_those_of_another_process() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(200)));
    let (daemon, cli) =
        (world.process("d", vec![cron("a", "1 6 * * *", "UTC")]), world.process("cli", vec![]));
    let mut ticking = daemon.daemon();
    let backup = ask(Action::Backup, "a", None);
    let (stop, progress) = Default::default();
    let both = async {
        tokio::join!(cli.engine.run_once(&backup, &stop, &progress), world.pass([&mut ticking], 700))
    };
    both.await.0.unwrap();
    assert_eq!(world.script.running.lock().unwrap()["a"], (0, 1));
    assert_eq!(world.begun().iter().filter(|work| work.starts_with("backup")).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn skipped_due_times_are_skipped() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(200)));
    let mut schedule = every("a", 100);
    schedule.backup[0].missed = Missed::Skip;
    let process = world.process("d", vec![schedule]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 1000).await;
    let backups = world.records_of(Action::Backup).await;
    let dues: Vec<_> =
        backups.iter().map(|backup| backup.tries[0].started.started_at.as_second() % 100).collect();
    assert!(dues.len() > 2 && dues.iter().all(|late| *late <= 60), "{dues:?}");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_run_ends_as_cancelled() {
    let world = World::new();
    world.act("a", Act::Hang);
    let (one, two) = (world.process("one", vec![]), world.process("two", vec![]));
    let mut daemon = one.daemon();
    let request = one.engine.request(&ask(Action::Backup, "a", None)).await.unwrap();
    world.pass([&mut daemon], 10).await;
    // Asked of another process: the one that works on it finds the wish in the vault.
    two.engine.cancel(&request.run, "bob").await.unwrap();
    world.pass([&mut daemon], 10).await;
    let view = two.engine.run(&request.run).await.unwrap();
    assert_eq!(serde_json::to_value(view.state).unwrap(), "cancelled");
    let manifest = world.manifest(&view.backup.unwrap()).await.unwrap();
    assert_eq!(manifest.status.as_str(), "abandoned");
    let again = two.engine.cancel(&request.run, "bob").await.unwrap_err();
    assert_eq!(again.kind().code(), "conflict");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_cancelled_before_it_began_never_begins() {
    let world = World::new();
    let process = world.process("d", vec![]);
    let request = process.engine.request(&ask(Action::Backup, "a", None)).await.unwrap();
    process.engine.cancel(&request.run, "bob").await.unwrap();
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 30).await;
    assert!(world.begun().is_empty());
    let view = process.engine.run(&request.run).await.unwrap();
    assert_eq!(serde_json::to_value(view.state).unwrap(), "cancelled");
}

#[tokio::test(start_paused = true)]
async fn suspend_and_resume() {
    let world = World::new();
    let process = world.process("d", vec![every("a", 60)]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 61).await;
    process.switch("a", Position::Suspended).await;
    world.pass([&mut daemon], 300).await;
    let before = world.records_of(Action::Backup).await.len();
    assert_eq!(before, 1);
    process.switch("a", Position::Resumed).await;
    world.pass([&mut daemon], 35).await;
    assert_eq!(world.records_of(Action::Backup).await.len(), before, "resuming does not fire");
    world.pass([&mut daemon], 60).await;
    assert_eq!(world.records_of(Action::Backup).await.len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn suspend_in_the_configuration_is_a_switch_too() {
    let world = World::new();
    let mut schedule = cron("a", "0 * * * *", "UTC");
    schedule.suspend = true;
    let process = world.process("d", vec![schedule.clone()]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 3).await;
    let status = process.engine.status().await.unwrap();
    let problem = status.sources[0].problems.last().unwrap();
    assert!(problem.what.starts_with("its schedule is suspended by configuration"), "{problem:?}");
    assert!(problem.advice.contains("`suspend: true`"), "{problem:?}");
    drop(daemon);
    process.kill();
    world.clock.sleep(Duration::from_secs(7000)).await;
    schedule.suspend = false;
    let process = world.process("e", vec![schedule]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 100).await;
    assert!(world.records_of(Action::Backup).await.is_empty(), "what was due meanwhile stays undone");
    world.pass([&mut daemon], 200).await;
    assert_eq!(world.records_of(Action::Backup).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn shutdown_lets_runs_finish() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(10)));
    let process = world.process("d", vec![]);
    let mut daemon = process.daemon();
    let request = process.engine.request(&ask(Action::Backup, "a", None)).await.unwrap();
    world.pass([&mut daemon], 2).await;
    daemon.shutdown(Duration::from_secs(25)).await;
    let view = process.engine.run(&request.run).await.unwrap();
    assert_eq!(serde_json::to_value(view.state).unwrap(), "succeeded");
    let refused = process.engine.request(&ask(Action::Backup, "a", None)).await.unwrap_err();
    assert_eq!(refused.kind().code(), "unready");
}

#[tokio::test(start_paused = true)]
async fn shutdown_interrupts_what_takes_longer_and_the_next_process_goes_on() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(600)));
    let process = world.process("d", vec![]);
    let mut daemon = process.daemon();
    let request = process.engine.request(&ask(Action::Backup, "a", None)).await.unwrap();
    world.pass([&mut daemon], 2).await;
    let began = world.clock.monotonic();
    daemon.shutdown(Duration::from_secs(25)).await;
    assert!(world.clock.monotonic() - began <= Duration::from_secs(25));
    let view = process.engine.run(&request.run).await.unwrap();
    assert_eq!(serde_json::to_value(view.state).unwrap(), "waiting");
    process.kill();
    world.act("a", Act::Take(Duration::from_secs(1)));
    let next = world.process("e", vec![]);
    let mut daemon = next.daemon();
    world.pass([&mut daemon], 30).await;
    let view = next.engine.run(&request.run).await.unwrap();
    assert_eq!(serde_json::to_value(view.state).unwrap(), "succeeded");
    assert_eq!(view.attempts, 2);
}

#[tokio::test(start_paused = true)]
async fn requests_are_forgotten_a_week_after_their_runs() {
    let world = World::new();
    let process = world.process("d", vec![]);
    let mut daemon = process.daemon();
    process.engine.request(&ask(Action::Backup, "a", Some("k"))).await.unwrap();
    world.pass([&mut daemon], 10).await;
    for _ in 0..6 * 24 {
        world.clock.sleep(Duration::from_secs(3600)).await;
        daemon.tick().await;
    }
    assert_eq!(world.keys("requests/").await.len(), 1);
    for _ in 0..2 * 24 {
        world.clock.sleep(Duration::from_secs(3600)).await;
        daemon.tick().await;
    }
    assert!(world.keys("requests/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_order_that_nobody_understands_is_a_failed_run() {
    let world = World::new();
    let process = world.process("d", vec![]);
    let mut daemon = process.daemon();
    let request = process.engine.request(&ask(Action::Backup, "unknown", None)).await.unwrap();
    world.pass([&mut daemon], 3).await;
    let view = process.engine.run(&request.run).await.unwrap();
    assert_eq!(view.error.unwrap().code, "not-found");
    assert_eq!(view.backup, None);
}

#[tokio::test(start_paused = true)]
async fn backup_ids_stay_in_order_when_the_clock_is_set_back() {
    let world = World::new();
    let process = world.process("d", vec![]);
    let (stop, progress) = Default::default();
    let run = async || {
        let (_, record) =
            process.engine.run_once(&ask(Action::Backup, "a", None), &stop, &progress).await.unwrap();
        record.last().unwrap().started.backup().unwrap().id
    };
    let first = run().await;
    world.jump(-3600);
    let (second, third) = (run().await, run().await);
    assert!(first < second && second < third, "{first} {second} {third}");
}
