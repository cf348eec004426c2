//! Followers: of the leader only, started again after what ends them, asked to seal at the end.

use std::sync::Arc;
use std::time::Duration;

use tidekeeper::clock::Clock;
use tidekeeper::engine::daemon::Daemon;
use tidekeeper::engine::work::Action;

use super::world::{Act, Follows, World, ask, source};

const PROMPT: Follows = Follows::Well(Duration::from_secs(2));

/// The pauses between what happened.
fn pauses(seconds: &[u64]) -> Vec<u64> {
    seconds.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn the_leader_follows_each_log_once() {
    let world = World::new();
    world.follows("a", PROMPT);
    world.follows("b", PROMPT);
    let (one, two) = (world.process("one", Vec::new()), world.process("two", Vec::new()));
    let (mut first, mut second) = (one.daemon(), two.daemon());
    world.pass([&mut first, &mut second], 120).await;
    assert_eq!((world.followed("a begins").len(), world.followed("b begins").len()), (1, 1));
    assert_eq!((world.following("a"), world.following("b")), (1, 1));
    let names: Vec<_> = one.engine.following().into_keys().collect();
    assert_eq!(names, [source("a"), source("b")]);
    assert!(two.engine.following().is_empty(), "who does not lead follows nothing");

    drop(first);
    one.kill();
    world.pass([&mut second], 30).await;
    assert_eq!((world.followed("a begins").len(), world.following("a")), (2, 1), "the next leader goes on");
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_is_started_again_ever_later() {
    let world = World::new();
    world.follows("a", Follows::Fails(Duration::ZERO));
    world.follows("b", Follows::Panics);
    let process = world.process("d", Vec::new());
    let mut daemon = process.daemon();
    let began = world.clock.now();
    world.pass([&mut daemon], 360).await;
    // Who is away may be back at any moment; what fails in another way is mended by somebody.
    for (name, expected) in [("a", [1, 2, 4, 8, 8, 8, 8, 8]), ("b", [1, 2, 4, 8, 16, 32, 60, 60])] {
        let pauses = pauses(&world.followed(&format!("{name} begins")));
        for (pause, expected) in pauses.iter().zip(expected) {
            // A tick is a second, and it takes one to see the end and one to see that the pause is over.
            assert!((expected..=expected + expected / 4 + 2).contains(pause), "{name}: {pauses:?}");
        }
        assert!(pauses.len() >= 8, "{name}: {pauses:?}");
    }
    let known = process.engine.following()[&source("a")].clone();
    let error = known.error.expect("it is kept for status");
    assert_eq!((error.code.as_str(), error.message.as_str()), ("unreachable", "reading the log: as told"));
    assert!(known.since.duration_since(began).as_secs() <= 2, "since the first time: {}", known.since);
}

#[tokio::test(start_paused = true)]
async fn one_that_lived_long_is_started_again_at_once() {
    let world = World::new();
    world.follows("a", Follows::Fails(Duration::from_secs(301)));
    world.follows("b", Follows::Fails(Duration::from_secs(200)));
    let process = world.process("d", Vec::new());
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 2_000).await;
    let long = pauses(&world.followed("a begins"));
    assert!(long.len() >= 5 && long.iter().all(|pause| (302..=305).contains(pause)), "{long:?}");
    let short = pauses(&world.followed("b begins"));
    assert!(short.last().is_some_and(|last| *last >= 200 + 8), "it fell too often: {short:?}");
}

#[tokio::test(start_paused = true)]
async fn what_ended_it_is_told_until_it_has_lived_a_minute() {
    let world = World::new();
    world.follows("a", Follows::Fails(Duration::ZERO));
    let process = world.process("d", Vec::new());
    let mut daemon = process.daemon();
    let error = || process.engine.following()[&source("a")].error.clone();
    world.pass([&mut daemon], 5).await;
    world.follows("a", PROMPT);
    world.pass([&mut daemon], 20).await;
    assert_eq!(world.following("a"), 1);
    assert!(error().is_some(), "it lives for a few seconds only");
    world.pass([&mut daemon], 60).await;
    assert_eq!(error(), None);
}

#[tokio::test(start_paused = true)]
async fn a_panic_and_an_end_without_error_end_one_life_only() {
    let world = World::new();
    world.follows("a", Follows::Panics);
    world.follows("b", Follows::Ends(Duration::from_secs(3)));
    world.follows("c", PROMPT);
    let process = world.process("d", Vec::new());
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 60).await;
    let following = process.engine.following();
    let failed = following[&source("a")].error.clone().expect("it panicked");
    assert!(failed.message.contains("panicked: as told"), "{failed:?}");
    assert_eq!(following[&source("b")].error, None, "its part was done");
    assert!(world.followed("b begins").len() >= 8, "{:?}", world.followed("b begins"));
    assert_eq!(world.followed("c begins").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_leads_no_more_follows_no_more() {
    let world = World::new();
    world.follows("a", PROMPT);
    let one = world.process("one", Vec::new());
    let two = world.process_on("n", "two", Arc::new(world.store.clone()), Vec::new());
    let mut first = one.daemon();
    world.pass([&mut first], 30).await;
    let mut second = Daemon::new(&two.engine, true);
    world.pass([&mut first, &mut second], 15).await;
    assert_eq!(two.engine.health().leads, Some(2));
    assert_eq!((world.followed("a begins").len(), world.following("a")), (2, 1), "the first was dropped");
    assert!(one.engine.following().is_empty() && !two.engine.following().is_empty());
    assert!(world.followed("a sealed").is_empty(), "it may write nothing any more");
}

#[tokio::test(start_paused = true)]
async fn at_a_shutdown_it_seals_beside_the_runs_that_end() {
    let world = World::new();
    world.follows("a", PROMPT);
    world.act("b", Act::Take(Duration::from_secs(5)));
    let process = world.process("d", Vec::new());
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 3).await;
    process.engine.request(&ask(Action::Backup, "b", None)).await.unwrap();
    world.pass([&mut daemon], 1).await;
    let asked = world.clock.monotonic();
    daemon.shutdown(Duration::from_secs(60)).await;
    let took = world.clock.monotonic() - asked;
    assert!(took <= Duration::from_secs(6), "nobody waits for the grace to pass: {took:?}");
    let sealed = world.followed("a sealed");
    assert!(sealed.len() == 1 && sealed[0] <= asked.as_secs() + 3, "before the run has ended: {sealed:?}");
    assert_eq!(world.following("a"), 0);
}

#[tokio::test(start_paused = true)]
async fn one_that_does_not_end_holds_up_no_shutdown() {
    let world = World::new();
    world.follows("a", Follows::Well(Duration::from_secs(3_600)));
    let process = world.process("d", Vec::new());
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 3).await;
    let asked = world.clock.monotonic();
    daemon.shutdown(Duration::from_secs(20)).await;
    assert_eq!((world.clock.monotonic() - asked).as_secs(), 20);
    // What was dropped goes with the next turn of the runtime.
    world.clock.sleep(Duration::from_secs(1)).await;
    assert_eq!((world.following("a"), world.followed("a sealed").len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_seal_starts_though_all_places_are_taken() {
    let world = World::new();
    for name in ["a", "b", "c", "d", "e"] {
        world.act(name, Act::Take(Duration::from_secs(600)));
    }
    let process = world.process("d", Vec::new());
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 3).await;
    for name in ["a", "b", "c", "d", "e"] {
        process.engine.request(&ask(Action::Verify, name, None)).await.unwrap();
    }
    world.pass([&mut daemon], 10).await;
    assert_eq!(daemon.running(), 4, "as many as there are places");
    process.engine.request(&ask(Action::Seal, "f", None)).await.unwrap();
    world.pass([&mut daemon], 10).await;
    assert_eq!(world.records_of(Action::Seal).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_must_be_done_is_done_by_the_daemon_of_the_process_or_right_here() {
    let world = World::new();
    let process = world.process("cli", Vec::new());
    let limit = Duration::from_secs(30);
    let (_, record) = process.engine.have_done(&ask(Action::Seal, "a", None), limit).await.unwrap();
    assert!(record.tries[0].started.is_local() || record.tries[0].started.generation.is_some());

    world.act("b", Act::Hang);
    let asked = world.clock.monotonic();
    let ended = process.engine.have_done(&ask(Action::Verify, "b", None), limit).await;
    assert!(world.clock.monotonic() - asked < Duration::from_secs(70));
    assert!(ended.is_ok_and(|(_, record)| record.finished().is_some()), "it was ended in order");

    let daemon = world.process("d", Vec::new());
    let mut ticking = daemon.daemon();
    let seal = ask(Action::Seal, "c", None);
    let mut done = std::pin::pin!(daemon.engine.have_done(&seal, limit));
    let record = loop {
        tokio::select! {
            biased;
            done = &mut done => break done.unwrap().1,
            () = world.pass([&mut ticking], 1) => {}
        }
    };
    assert_eq!(record.finished().unwrap().summary, "done");
}
