use std::time::Duration;

use tidekeeper::clock::Clock;
use tidekeeper::engine::perform::{Reason, Stop};
use tidekeeper::engine::run::{End, State};
use tidekeeper::engine::work::Action;
use tidekeeper::task::Progress;

use super::world::{Act, World, ask};
use crate::harness::within;

#[tokio::test(start_paused = true)]
async fn a_command_runs_without_a_daemon() {
    let world = World::new();
    let cli = world.process("cli", vec![]);
    let ask = ask(Action::Backup, "a", None);
    let (_, record) = cli.run(&ask).await.unwrap();
    let last = record.last().unwrap();
    assert_eq!(last.finished.as_ref().unwrap().outcome, End::Succeeded);
    assert_eq!(last.started.principal, "ada");
    assert!(world.manifest(&last.started.backup().unwrap()).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn asking_twice_with_one_key_is_asking_once_even_over_midnight() {
    let world = World::at("2026-11-21T23:59:59Z");
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Backup, "a", Some("nightly"));
    let (first, _) = cli.run(&order).await.unwrap();
    cli.kill();
    world.clock.sleep(Duration::from_secs(3600)).await;
    let cli = world.process("cli", vec![]);
    let (again, record) = cli.run(&order).await.unwrap();
    assert_eq!(again, first);
    assert_eq!(record.tries.len(), 1);
    assert_eq!(world.begun(), ["backup a#1"]);
    let other = ask(Action::Backup, "b", Some("nightly"));
    let refused = cli.run(&other).await.unwrap_err();
    assert_eq!(refused.kind().code(), "conflict");
    assert!(refused.to_string().contains(first.as_str()), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn keys_of_others_and_of_other_doors_are_other_keys() {
    let world = World::new();
    let process = world.process("p", vec![]);
    let first = ask(Action::Backup, "a", Some("k"));
    let mut other_principal = first.clone();
    other_principal.principal = "bob".to_owned();
    let mut other_door = first.clone();
    other_door.route = "elsewhere".to_owned();
    let mut runs = std::collections::BTreeSet::new();
    for ask in [&first, &other_principal, &other_door, &first] {
        runs.insert(process.engine.request(ask).await.unwrap().run);
    }
    assert_eq!(runs.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_daemon_leaves_alone_what_a_command_does_itself() {
    let world = World::new();
    world.act("a", Act::Hang);
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Backup, "a", Some("k"));
    cli.begin(&order, world.clock.sleep(Duration::from_secs(2))).await;
    cli.kill();
    let process = world.process("d", vec![]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 300).await;
    assert_eq!(world.begun(), ["backup a#1"]);
    let records = world.records_of(Action::Backup).await;
    assert_eq!(records[0].finished().unwrap().outcome, End::Interrupted);
    // The same command with the same key learns that its run is over.
    let cli = world.process("cli", vec![]);
    let (_, record) = cli.run(&order).await.unwrap();
    assert_eq!(record.finished().unwrap().outcome, End::Interrupted);
    assert_eq!(world.begun(), ["backup a#1"]);
}

#[tokio::test(start_paused = true)]
async fn a_command_retries_and_can_be_stopped() {
    let world = World::new();
    world.act("a", Act::Fail(1, tidekeeper::error::Kind::Unready));
    world.act("b", Act::Hang);
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Backup, "a", None);
    let (_, record) = cli.run(&order).await.unwrap();
    assert_eq!(record.tries.len(), 2);
    assert_eq!(record.finished().unwrap().outcome, End::Succeeded);
    let (stop, order) = (Stop::default(), ask(Action::Backup, "b", None));
    let progress = Default::default();
    let (ended, ()) = tokio::join!(cli.engine.run_once(&order, &stop, &progress), async {
        world.clock.sleep(Duration::from_secs(3)).await;
        stop.stop(Reason::Asked);
    });
    assert_eq!(ended.unwrap().1.finished().unwrap().outcome, End::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_own_steps() {
    let world = World::new();
    world.act("a", Act::Fail(1, tidekeeper::error::Kind::Unready));
    let cli = world.process("cli", vec![]);
    let (_, record) = cli.run(&ask(Action::Backup, "a", None)).await.unwrap();
    let steps = &record.finished().unwrap().steps;
    assert_eq!(steps.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["work"]);
    assert_eq!(steps[0].began_s, 0.0, "counted from the attempt's own beginning");
}

#[tokio::test(start_paused = true)]
async fn a_command_waits_for_a_run_that_occupies_its_source() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(30)));
    let (daemon, cli) = (world.process("d", vec![]), world.process("cli", vec![]));
    let mut ticking = daemon.daemon();
    let restore = daemon.engine.request(&ask(Action::Restore, "a", None)).await.unwrap();
    world.pass([&mut ticking], 3).await;
    let order = ask(Action::Backup, "a", None);
    let (stop, progress) = (Stop::default(), Progress::default());
    let (ended, ()) = tokio::join!(cli.engine.run_once(&order, &stop, &progress), async {
        world.pass([&mut ticking], 10).await;
        assert_eq!(progress.snapshot().step, format!("wait for run {}", restore.run));
        world.pass([&mut ticking], 60).await;
    });
    assert_eq!(ended.unwrap().1.finished().unwrap().outcome, End::Succeeded);
    assert_eq!(world.begun(), ["restore a#1", "backup a#1"]);
    assert_eq!(world.script.running.lock().unwrap()["a"], (0, 1), "they do not overlap");
}

#[tokio::test(start_paused = true)]
async fn stopped_between_two_attempts_a_command_is_over() {
    let world = World::new();
    world.act("a", Act::Fail(9, tidekeeper::error::Kind::Unready));
    let cli = world.process("cli", vec![]);
    let (stop, progress, order) = (Stop::default(), Progress::default(), ask(Action::Backup, "a", None));
    let (ended, ()) = tokio::join!(cli.engine.run_once(&order, &stop, &progress), async {
        world.clock.sleep(Duration::from_secs(5)).await;
        stop.stop(Reason::Asked);
    });
    let (run, record) = ended.unwrap();
    assert_eq!(record.tries.len(), 1);
    assert_eq!(cli.engine.run(&run).await.unwrap().state, State::Cancelled);
}

#[tokio::test(start_paused = true)]
async fn what_only_a_leader_may_do_is_handed_to_the_one_that_leads() {
    let world = World::new();
    let (process, cli) = (world.process("d", vec![]), world.process("cli", vec![]));
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 2).await;
    let order = ask(Action::Retention, "a", None);
    let (stop, progress) = Default::default();
    let (done, ()) =
        tokio::join!(cli.engine.run_once(&order, &stop, &progress), world.pass([&mut daemon], 20));
    let (_, record) = done.unwrap();
    let last = record.last().unwrap();
    assert_eq!(last.started.holder.process, process.id);
    assert_eq!(last.finished.as_ref().unwrap().outcome, End::Succeeded);
    let (asked, led): (Vec<_>, Vec<_>) =
        world.keys("leaders/").await.into_iter().partition(|key| key.matches('/').count() > 1);
    assert_eq!((led.len(), asked.len()), (1, 2), "it was asked, and answered: nobody was deposed");
}

#[tokio::test(start_paused = true)]
async fn stopped_while_it_waits_a_command_says_that_the_run_goes_on() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(20)));
    let (process, cli) = (world.process("d", vec![]), world.process("cli", vec![]));
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 2).await;
    let order = ask(Action::Retention, "a", None);
    let (stop, progress) = <(Stop, Progress)>::default();
    let (ended, ()) = tokio::join!(cli.engine.run_once(&order, &stop, &progress), async {
        world.pass([&mut daemon], 5).await;
        stop.stop(Reason::Asked);
        world.pass([&mut daemon], 30).await;
    });
    let error = ended.unwrap_err();
    let run = world.records().await.remove(0).0;
    assert_eq!(error.kind().code(), "conflict", "nothing was cancelled");
    assert!(error.to_string().contains("only the waiting has ended"), "{error}");
    assert!(error.hint_text().unwrap().starts_with(&format!("`tidekeeper runs cancel {run}`")), "{error:?}");
    assert_eq!(cli.engine.run(&run).await.unwrap().state, State::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_command_learns_that_the_daemon_it_waits_for_is_gone() {
    let world = World::new();
    world.act("a", Act::Hang);
    let (process, cli) = (world.process("d", vec![]), world.process("cli", vec![]));
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 2).await;
    let order = ask(Action::Retention, "a", None);
    let (stop, progress) = Default::default();
    let work = cli.engine.run_once(&order, &stop, &progress);
    let waiting = within("it does not wait for ever", Duration::from_secs(120), work);
    let (ended, ()) = tokio::join!(waiting, async {
        world.pass([&mut daemon], 5).await;
        drop(daemon);
        process.kill();
    });
    let (_, record) = ended.unwrap();
    assert_eq!(record.finished().unwrap().outcome, End::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn without_a_daemon_the_command_leads_for_a_moment() {
    let world = World::new();
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Retention, "a", None);
    let (_, record) = cli.run(&order).await.unwrap();
    let last = record.last().unwrap();
    assert_eq!(last.started.generation, Some(1));
    assert_eq!(last.finished.as_ref().unwrap().outcome, End::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn and_refuses_where_another_machine_leads() {
    let world = World::new();
    let store = std::sync::Arc::new(world.store.clone());
    let far = world.process_on("far", "d", store, vec![]);
    let mut daemon = far.daemon();
    world.pass([&mut daemon], 2).await;
    let cli = world.process("cli", vec![]);
    let order = ask(Action::Retention, "a", None);
    let refused = cli.run(&order).await.unwrap_err();
    assert_eq!(refused.kind().code(), "refused");
    assert!(refused.hint_text().unwrap().contains("--take-over"));
    assert!(world.keys("requests/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn unknown_runs_cannot_be_cancelled() {
    let world = World::new();
    let process = world.process("p", vec![]);
    let run = "20261121T060000Z-000000000001".parse().unwrap();
    assert_eq!(process.engine.cancel(&run, "ada").await.unwrap_err().kind().code(), "not-found");
}
