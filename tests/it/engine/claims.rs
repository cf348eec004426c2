use std::time::Duration;

use tidekeeper::clock::Clock;
use tidekeeper::engine::claims::{Claimed, Wanted, claim};
use tidekeeper::engine::run::{End, RunId};
use tidekeeper::engine::work::Action;

use super::world::{Act, World, ask};

const ONE: &str = "20261121T060000Z-000000000001";
const TWO: &str = "20261121T060000Z-000000000002";

#[tokio::test(start_paused = true)]
async fn a_target_has_one_holder_until_it_lets_go() {
    let world = World::new();
    let vault = world.vault();
    let (one, two): (RunId, RunId) = (ONE.parse().unwrap(), TWO.parse().unwrap());
    let deadline = world.clock.now() + Duration::from_secs(600);
    let wanted = |run| Wanted {
        identity: "redis:abc/../x",
        label: "the target",
        run,
        attempt: 1,
        asked_at: world.clock.now(),
        deadline,
    };
    let Claimed::Ours(held) = claim(&vault, &wanted(&one)).await.unwrap() else { panic!("it is free") };
    let again = claim(&vault, &wanted(&one)).await.unwrap();
    assert!(matches!(again, Claimed::Ours(_)), "the same attempt asks twice: an answer got lost");
    let waiting = wanted(&two);
    world.clock.sleep(Duration::from_secs(1)).await;
    let Claimed::Theirs(holder) = claim(&vault, &waiting).await.unwrap() else { panic!("it is held") };
    assert_eq!(holder.run, one);
    assert!(holder.refusal().to_string().contains(ONE), "{}", holder.refusal());
    held.release(&vault).await.unwrap();
    held.release(&vault).await.unwrap();
    assert!(matches!(claim(&vault, &wanted(&two)).await.unwrap(), Claimed::Ours(_)));
    // Past the deadline and its margin nobody can still be at it.
    world.clock.sleep(Duration::from_secs(600 + 14 * 60)).await;
    assert!(matches!(claim(&vault, &wanted(&one)).await.unwrap(), Claimed::Theirs(_)));
    world.clock.sleep(Duration::from_secs(2 * 60)).await;
    assert!(matches!(claim(&vault, &wanted(&one)).await.unwrap(), Claimed::Ours(_)));
}

#[tokio::test(start_paused = true)]
async fn one_that_waited_for_another_restore_is_refused() {
    let world = World::new();
    let vault = world.vault();
    let (one, two): (RunId, RunId) = (ONE.parse().unwrap(), TWO.parse().unwrap());
    let (asked_at, deadline) = (world.clock.now(), world.clock.now() + Duration::from_secs(600));
    let wanted =
        |run| Wanted { identity: "redis:abc", label: "the target", run, attempt: 1, asked_at, deadline };
    world.clock.sleep(Duration::from_secs(1)).await;
    let Claimed::Ours(held) = claim(&vault, &wanted(&one)).await.unwrap() else { panic!("it is free") };
    held.release(&vault).await.unwrap();
    let Claimed::Overtaken(by) = claim(&vault, &wanted(&two)).await.unwrap() else {
        panic!("the second was asked for before the first began")
    };
    assert!(by.overtook().to_string().contains(ONE), "{}", by.overtook());
}

#[tokio::test(start_paused = true)]
async fn the_second_restore_into_a_target_is_refused_naming_the_first() {
    let world = World::new();
    world.act("a", Act::Claim("target", Duration::from_secs(60)));
    world.act("b", Act::Claim("target", Duration::from_secs(60)));
    let (one, two) = (world.process("one", vec![]), world.process("two", vec![]));
    let (first, second) = (ask(Action::Restore, "a", None), ask(Action::Restore, "b", None));
    let (stop, progress) = Default::default();
    let later = async {
        world.clock.sleep(Duration::from_secs(5)).await;
        two.run(&second).await.unwrap()
    };
    let (first, (_, refused)) = tokio::join!(one.engine.run_once(&first, &stop, &progress), later);
    let (run, record) = first.unwrap();
    assert_eq!(record.finished().unwrap().outcome, End::Succeeded);
    let error = refused.finished().unwrap().error.clone().unwrap();
    assert_eq!(error.code, "conflict");
    assert!(error.message.contains(run.as_str()), "{}", error.message);
    // The first is over: its target is free.
    let again = ask(Action::Restore, "b", None);
    let (_, record) = two.run(&again).await.unwrap();
    assert_eq!(record.finished().unwrap().outcome, End::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_killed_restore_does_not_lock_its_target() {
    let world = World::new();
    world.act("a", Act::Claim("target", Duration::from_secs(600)));
    let one = world.process("one", vec![]);
    let first = ask(Action::Restore, "a", None);
    tokio::select! {
        _ = one.run(&first) => panic!("it takes longer"),
        () = world.clock.sleep(Duration::from_secs(5)) => {}
    }
    one.kill();
    world.act("a", Act::Claim("target", Duration::from_secs(1)));
    let two = world.process("two", vec![]);
    let second = ask(Action::Restore, "a", None);
    let (_, record) = two.run(&second).await.unwrap();
    assert_eq!(record.finished().unwrap().outcome, End::Succeeded);
    let ends: Vec<_> = world.records().await.iter().map(|(_, r)| r.finished().unwrap().outcome).collect();
    assert!(ends.contains(&End::Interrupted), "{ends:?}");
}
