use serde::{Deserialize, Serialize};
use tidekeeper::error::Kind;
use tidekeeper::vault::decide::{Deciding, Decision, decide, read_json};
use tidekeeper::vault::store::faults::{Fault, Method};
use tidekeeper::vault::store::{Key, Store};

use super::scene::Scene;

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Claim {
    nonce: String,
}

impl Deciding for Claim {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

fn claim(nonce: &str) -> Claim {
    Claim { nonce: nonce.to_owned() }
}

fn key() -> Key {
    Key::new("claims/redis-main/1.json")
}

async fn decided(scene: &Scene, nonce: &str) -> Decision<Claim> {
    decide(&scene.faults, &*scene.clock, &key(), &claim(nonce)).await.expect("decided")
}

#[tokio::test]
async fn the_first_decides_and_the_second_learns_of_it() {
    let scene = Scene::new();
    assert!(matches!(decided(&scene, "a").await, Decision::Ours));
    assert!(matches!(decided(&scene, "b").await, Decision::Theirs(found) if found == claim("a")));
    assert!(matches!(decided(&scene, "a").await, Decision::Ours), "our own object is recognised");
}

#[tokio::test]
async fn a_lost_reply_is_not_a_lost_race() {
    for kind in [Kind::Undecided, Kind::Timeout, Kind::Unreachable] {
        let scene = Scene::new();
        scene.plan.on(Method::Create, 1, Fault::After(kind));
        assert!(matches!(decided(&scene, "a").await, Decision::Ours), "{kind:?}");
        assert_eq!(scene.faults.count(Method::Create), 2);
    }
}

#[tokio::test]
async fn a_race_that_was_lost_while_nobody_answered_is_lost() {
    let scene = Scene::new();
    scene.plan.on(Method::Create, 1, Fault::Before(Kind::Undecided));
    let theirs = serde_json::to_vec(&claim("b")).expect("JSON");
    let _ = scene.memory.create(&key(), theirs.into()).await.expect("created");
    assert!(matches!(decided(&scene, "a").await, Decision::Theirs(found) if found == claim("b")));
}

#[tokio::test]
async fn reading_back_may_fail_too() {
    let scene = Scene::new();
    scene.plan.on(Method::Create, 1, Fault::After(Kind::Undecided));
    scene.plan.on(Method::Get, 1, Fault::Before(Kind::Throttled));
    assert!(matches!(decided(&scene, "a").await, Decision::Ours));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_never_answers_leaves_it_undecided() {
    let clock = tidekeeper::clock::TestClock::starting_at(jiff::Timestamp::UNIX_EPOCH);
    let scene = Scene::with(clock, tidekeeper::task::Limits::default());
    for nth in 1..100 {
        scene.plan.on(Method::Create, nth, Fault::Before(Kind::Undecided));
    }
    let error = decide(&scene.faults, &*scene.clock, &key(), &claim("a")).await.expect_err("nobody knows");
    assert_eq!(error.kind(), Kind::Undecided);
    assert!(scene.faults.count(Method::Create) < 20);
}

#[tokio::test]
async fn what_cannot_be_retried_is_passed_on_at_once() {
    let scene = Scene::new();
    scene.plan.on(Method::Create, 1, Fault::Before(Kind::Denied));
    let error = decide(&scene.faults, &*scene.clock, &key(), &claim("a")).await.expect_err("denied");
    assert_eq!((error.kind(), scene.faults.count(Method::Create)), (Kind::Denied, 1));
}

#[tokio::test]
async fn an_object_that_cannot_be_understood_decides_nothing_for_us() {
    let scene = Scene::new();
    let _ = scene.memory.create(&key(), "{".into()).await.expect("created");
    let error = decide(&scene.faults, &*scene.clock, &key(), &claim("a")).await.expect_err("damaged");
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains(key().as_str()), "{error}");
    assert!(
        read_json::<Claim>(&scene.faults, &Key::new("claims/other.json")).await.expect("asked").is_none()
    );
}
