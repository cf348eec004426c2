use std::sync::Arc;
use std::time::Duration;

use tidekeeper::clock::Clock;
use tidekeeper::config::{Missed, Schedule, Series};
use tidekeeper::engine::daemon::Daemon;
use tidekeeper::engine::events::What;
use tidekeeper::engine::run::State;
use tidekeeper::engine::switches::Position;
use tidekeeper::engine::views::Filter;
use tidekeeper::engine::work::Action;
use tidekeeper::error::Kind;
use tidekeeper::vault::layout;
use tidekeeper::vault::store::{Create, Store};

use super::world::{Act, Process, World, ask, cron, every, instant, source};

#[tokio::test(start_paused = true)]
async fn runs_are_listed_newest_first_and_filtered() {
    let world = World::new();
    world.act("b", Act::Fail(9, Kind::Denied));
    let process = world.process("p", vec![]);
    let run = async |action, name: &str| {
        let ask = ask(action, name, None);
        let (run, _) = process.run(&ask).await.unwrap();
        world.clock.sleep(Duration::from_secs(86_400)).await;
        run
    };
    let first = run(Action::Backup, "a").await;
    let second = run(Action::Backup, "b").await;
    let third = run(Action::Verify, "a").await;
    let waiting = process.engine.request(&ask(Action::Backup, "a", None)).await.unwrap().run;
    let listed = async |filter: Filter| {
        let views = process.engine.runs(&filter).await.unwrap();
        views.into_iter().map(|view| view.run).collect::<Vec<_>>()
    };
    let all = Filter { limit: 10, ..Filter::default() };
    assert_eq!(listed(all.clone()).await, [waiting.clone(), third.clone(), second.clone(), first.clone()]);
    assert_eq!(listed(Filter { limit: 2, ..all.clone() }).await, [waiting.clone(), third.clone()]);
    assert_eq!(
        listed(Filter { source: Some(source("b")), ..all.clone() }).await,
        std::slice::from_ref(&second)
    );
    assert_eq!(
        listed(Filter { action: Some(Action::Verify), ..all.clone() }).await,
        std::slice::from_ref(&third)
    );
    assert_eq!(listed(Filter { state: Some(State::Failed), ..all.clone() }).await, [second]);
    assert_eq!(listed(Filter { state: Some(State::Requested), ..all.clone() }).await, [waiting]);
    // After a year of silence the newest are still found.
    world.clock.sleep(Duration::from_secs(365 * 86_400)).await;
    assert_eq!(listed(Filter { limit: 1, ..all }).await, [third]);
}

#[tokio::test(start_paused = true)]
async fn status_says_what_is_wrong_and_what_to_do() {
    let world = World::new();
    let process = world.process("d", vec![cron("a", "0 */6 * * *", "UTC")]);
    let status = async || process.engine.status().await.unwrap().sources.remove(0);
    let view = status().await;
    assert_eq!(view.next_due, Some(instant("2026-11-21T12:00:00Z")));
    assert_eq!(view.problems[0].what, "there is no good backup");
    assert_eq!(view.problems[0].advice, "`tidekeeper backup a`");
    let run = async || {
        let ask = ask(Action::Backup, "a", None);
        process.run(&ask).await.unwrap()
    };
    let (_, record) = run().await;
    let view = status().await;
    assert!(view.problems.is_empty(), "{:?}", view.problems);
    assert_eq!(view.last_good.as_ref().unwrap().backup, record.last().unwrap().started.backup().unwrap());
    assert!(view.rpo_s.unwrap() <= 1);
    assert_eq!(view.last_run.unwrap().state, State::Succeeded);
    world.act("a", Act::Fail(9, Kind::Denied));
    world.clock.sleep(Duration::from_secs(13 * 3600)).await;
    run().await;
    process.switch("a", Position::Suspended).await;
    let view = status().await;
    let what: Vec<_> = view.problems.iter().map(|problem| problem.what.as_str()).collect();
    assert_eq!(what.len(), 3, "{what:?}");
    assert!(what[0].contains("more than 2 intervals ago"), "{what:?}");
    assert!(what[1].starts_with("the last backup failed: backing up a: as told"), "{what:?}");
    assert!(what[2].starts_with("its schedule is suspended by ada"), "{what:?}");
    assert_eq!(view.problems[2].advice, "ask ada to resume it once that is over");
    assert_eq!(view.next_due, None);
}

#[tokio::test(start_paused = true)]
async fn status_says_when_nobody_leads_and_who_did() {
    let world = World::new();
    let schedules = || vec![cron("a", "0 0 1 1 *", "UTC")];
    let asker = world.process("asker", schedules());
    let problems = async |process: &Process| {
        let status = process.engine.status().await.unwrap();
        let what: Vec<_> = status.problems.into_iter().map(|problem| problem.what).collect();
        (status.leader, what)
    };
    let (leader, what) = problems(&asker).await;
    assert!(leader.is_none() && what[0].ends_with("nobody ever led this vault"), "{what:?}");
    let daemon = world.process("d", schedules());
    let mut ticking = daemon.daemon();
    world.pass([&mut ticking], 3).await;
    let (leader, what) = problems(&asker).await;
    assert_eq!((leader.unwrap().alive, what.len()), (Some(true), 0), "{what:?}");
    drop(ticking);
    daemon.kill();
    let (leader, what) = problems(&asker).await;
    assert_eq!(leader.unwrap().alive, Some(false));
    assert!(
        what[0].contains("nothing runs by itself: the last was process 1 of m, which led since"),
        "{what:?}"
    );
    let (_, what) = problems(&world.process("x", vec![])).await;
    assert!(what.is_empty(), "nothing waits for a leader: {what:?}");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_can_see_is_gone_once_it_left_a_question_open() {
    let world = World::new();
    let process = |machine: &str| {
        let store = Arc::new(world.store.clone());
        world.process_in("cluster", machine, machine, store, vec![cron("a", "0 0 1 1 *", "UTC")])
    };
    let (leader, follower, asker) = (process("host-1"), process("host-2"), process("host-3"));
    let alive = async || asker.engine.status().await.unwrap().leader.unwrap().alive;
    world.pass([&mut leader.daemon()], 3).await;
    assert_eq!(alive().await, None, "nobody asked it");
    world.pass([&mut follower.daemon()], 3).await;
    assert_eq!(alive().await, None, "it still may answer");
    world.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(alive().await, Some(false));
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_was_due_and_not_begun_is_told_from_anywhere() {
    let world = World::new();
    let process = |machine: &str, missed: Missed| {
        let schedule = cron("a", "0 */6 * * *", "UTC");
        let series = Series { missed, ..schedule.backup[0].clone() };
        let schedules = vec![Schedule { backup: vec![series], ..schedule }];
        world.process_on(machine, machine, Arc::new(world.store.clone()), schedules)
    };
    let asker = process("far", Missed::RunOnce);
    let late = async |asker: &Process| {
        let problems = asker.engine.status().await.unwrap().sources.remove(0).problems;
        problems.into_iter().map(|problem| problem.what).find(|what| what.ends_with("was not begun"))
    };
    world.clock.sleep(Duration::from_secs(13 * 3600)).await;
    assert_eq!(late(&asker).await, None, "nobody watched it yet");
    let daemon = process("here", Missed::RunOnce);
    world.pass([&mut daemon.daemon()], 3).await;
    daemon.kill();
    world.clock.sleep(Duration::from_secs(5 * 3600 + 300)).await;
    assert_eq!(late(&asker).await, None, "five minutes late: it may just be busy");
    world.clock.sleep(Duration::from_secs(600)).await;
    assert_eq!(late(&asker).await.unwrap(), "the backup due at 2026-11-22T00:00:00Z was not begun");
    assert_eq!(late(&process("elsewhere", Missed::Skip)).await, None, "it is skipped, as it should be");
    let next = process("there", Missed::RunOnce);
    world.pass([&mut Daemon::new(&next.engine, true)], 3).await;
    assert_eq!(late(&asker).await, None);
    next.kill();

    world.act("a", Act::Take(Duration::from_secs(86_400)));
    world.clock.sleep(Duration::from_secs(6 * 3600)).await;
    let doomed = process("doomed", Missed::RunOnce);
    world.pass([&mut Daemon::new(&doomed.engine, true)], 3).await;
    doomed.kill();
    assert_eq!(late(&asker).await, None, "it was begun");
    world.clock.sleep(Duration::from_secs(6 * 3600)).await;
    let told = late(&asker).await;
    assert_eq!(
        told.unwrap(),
        "the backup due at 2026-11-22T12:00:00Z was not begun",
        "it died in the one before"
    );
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_be_read_must_not_be_deleted() {
    let world = World::new();
    assert_eq!(world.store.create(&layout::leader(1), "{".into()).await.unwrap(), Create::Created);
    let status = world.process("asker", vec![every("a", 60)]).engine.status().await.unwrap();
    assert!(status.leader.is_none());
    assert!(status.problems[0].advice.contains("do not delete it"), "{:?}", status.problems);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_always_busy_hides_no_other() {
    let world = World::new();
    world.act("a", Act::Fail(9, Kind::Denied));
    let process = world.process("d", vec![cron("a", "1 6 * * *", "UTC"), every("b", 3)]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 900).await;
    let status = process.engine.status().await.unwrap();
    let last = status.sources[0].last_run.as_ref().expect("it ran a quarter of an hour ago");
    assert_eq!((last.action, last.state), (Action::Backup, State::Failed));
    let what: Vec<_> = status.sources[0].problems.iter().map(|problem| problem.what.as_str()).collect();
    assert!(what.iter().any(|what| what.starts_with("the last backup failed")), "{what:?}");
}

#[tokio::test(start_paused = true)]
async fn events_tell_a_run_from_its_start_to_its_end() {
    let world = World::new();
    world.act("a", Act::Take(Duration::from_secs(3)));
    let process = world.process("p", vec![]);
    let mut events = process.engine.events();
    let ask = ask(Action::Backup, "a", None);
    let (run, _) = process.run(&ask).await.unwrap();
    let mut told = Vec::new();
    while let Ok(event) = events.try_recv() {
        assert_eq!((&event.run, &event.source), (&run, &Some(source("a"))));
        told.push(match event.what {
            What::Started { .. } => "started",
            What::Progress(snapshot) => {
                assert_eq!(snapshot.step, "work");
                "progress"
            }
            What::Finished { took_s, .. } => {
                assert!((3.0..4.0).contains(&took_s));
                "finished"
            }
        });
    }
    told.dedup();
    assert_eq!(told, ["started", "progress", "finished"]);
}
