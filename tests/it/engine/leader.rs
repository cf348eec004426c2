use std::sync::Arc;
use std::time::Duration;

use tidekeeper::clock::Clock;
use tidekeeper::engine::daemon::Daemon;
use tidekeeper::engine::leader::{Leadership, Standing};

use super::world::{World, every};

async fn look<const N: usize>(daemons: [&mut Daemon; N], world: &World, seconds: u64) {
    world.pass(daemons, seconds).await;
}

#[tokio::test(start_paused = true)]
async fn the_next_process_of_the_machine_follows_at_once() {
    let world = World::new();
    let one = world.process("one", vec![]);
    let two = world.process("two", vec![]);
    let (mut first, mut second) = (one.daemon(), two.daemon());
    look([&mut first, &mut second], &world, 30).await;
    assert_eq!((one.engine.health().leads, two.engine.health().leads), (Some(1), None));
    drop(first);
    one.kill();
    look([&mut second], &world, 11).await;
    assert_eq!(two.engine.health().leads, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_nobody_can_see_is_asked_and_answers() {
    let world = World::new();
    let store = || Arc::new(world.store.clone());
    let one = world.process_in("cluster", "host-1", "one", store(), vec![]);
    let two = world.process_in("cluster", "host-2", "two", store(), vec![]);
    let (mut first, mut second) = (one.daemon(), two.daemon());
    look([&mut first, &mut second], &world, 600).await;
    assert_eq!((one.engine.health().leads, two.engine.health().leads), (Some(1), None));
    let notes = world.keys("leaders/").await;
    assert!(notes.iter().any(|key| key.ends_with(".answered.json")), "{notes:?}");
    assert!(notes.len() < 10, "old questions are swept away: {notes:?}");
}

#[tokio::test(start_paused = true)]
async fn and_is_succeeded_when_it_does_not() {
    let world = World::new();
    let store = || Arc::new(world.store.clone());
    let one = world.process_in("cluster", "host-1", "one", store(), vec![]);
    let two = world.process_in("cluster", "host-2", "two", store(), vec![]);
    let (mut first, mut second) = (one.daemon(), two.daemon());
    look([&mut first], &world, 5).await;
    look([&mut second], &world, 40).await;
    assert_eq!(two.engine.health().leads, None, "a question waits before it is given up");
    look([&mut second], &world, 30).await;
    assert_eq!(two.engine.health().leads, Some(2));
    // The first was only paused: it learns of its successor at its next look.
    look([&mut first], &world, 1).await;
    assert_eq!(one.engine.health().leads, None);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_there_and_does_nothing_is_succeeded_too() {
    let world = World::new();
    let (one, two) = (world.process("one", vec![]), world.process("two", vec![]));
    let (mut first, mut second) = (one.daemon(), two.daemon());
    look([&mut first, &mut second], &world, 300).await;
    assert_eq!((one.engine.health().leads, two.engine.health().leads), (Some(1), None));
    // Its process lives on, and does not tick.
    look([&mut second], &world, 180).await;
    assert_eq!(two.engine.health().leads, Some(2));
    look([&mut first], &world, 1).await;
    assert_eq!(one.engine.health().leads, None);
}

#[tokio::test(start_paused = true)]
async fn another_domain_only_reads_until_it_takes_over() {
    let world = World::new();
    let store = || Arc::new(world.store.clone());
    let one = world.process_on("here", "one", store(), vec![every("a", 60)]);
    let two = world.process_on("there", "two", store(), vec![every("a", 60)]);
    let mut first = one.daemon();
    look([&mut first], &world, 5).await;
    drop(first);
    one.kill();
    let mut second = two.daemon();
    look([&mut second], &world, 600).await;
    assert_eq!(two.engine.health().reads.as_deref(), Some("here"));
    assert!(world.begun().is_empty());
    let mut second = Daemon::new(&two.engine, true);
    look([&mut second], &world, 65).await;
    assert_eq!(two.engine.health().leads, Some(2));
    assert!(!world.begun().is_empty());
}

#[tokio::test(start_paused = true)]
async fn two_that_take_over_do_not_fight() {
    let world = World::new();
    let store = || Arc::new(world.store.clone());
    let one = world.process_on("here", "one", store(), vec![]);
    let two = world.process_on("there", "two", store(), vec![]);
    let (mut first, mut second) = (Daemon::new(&one.engine, true), Daemon::new(&two.engine, true));
    look([&mut first, &mut second], &world, 300).await;
    assert_eq!((one.engine.health().leads, two.engine.health().leads), (None, Some(2)));
    assert_eq!(world.keys("leaders/").await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_fence_of_a_deposed_leader_stays_closed() {
    let world = World::new();
    let vault = world.vault();
    let host = |name: &str| {
        Arc::new(tidekeeper::engine::host::LocalHost::new(name, Some(name)))
            as Arc<dyn tidekeeper::engine::host::Host>
    };
    let mut old = Leadership::new(vault.clone(), host("old"), false);
    assert_eq!(*old.look().await.unwrap(), Standing::Leads(1));
    let fence = old.fence().unwrap();
    fence.check().await.unwrap();
    let mut new = Leadership::new(vault, host("new"), true);
    assert_eq!(*new.look().await.unwrap(), Standing::Leads(2));
    world.clock.sleep(Duration::from_secs(6)).await;
    assert_eq!(fence.check().await.unwrap_err().kind().code(), "conflict");
    assert!(old.fence().is_none());
    new.fence().unwrap().check().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_post_that_was_won_and_not_learned_of_is_won_again() {
    let world = World::new();
    let process = world.process("a", vec![]);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 1).await;
    assert_eq!(process.engine.health().leads, Some(1));
    // Its look was given up when the store had acted and not answered: the process lives, and knows nothing of its post.
    drop(daemon);
    let mut daemon = process.daemon();
    world.pass([&mut daemon], 1).await;
    assert_eq!(process.engine.health().leads, Some(2));
}
