use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidekeeper::clock::{Clock, SharedClock, TestClock};
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store_clock::{StoreClock, Trust};

use super::estate::{DAY, HOUR};

const START: &str = "2026-11-21T06:00:00Z";

/// Our clock, a store with a clock of its own, and the watch over both.
struct Clocks {
    ours: Arc<TestClock>,
    theirs: Arc<TestClock>,
    store: MemoryStore,
    watch: StoreClock,
}

impl Clocks {
    fn new() -> Self {
        let start: Timestamp = START.parse().expect("a time");
        let (ours, theirs) = (TestClock::starting_at(start), TestClock::starting_at(start));
        let (shared, of_store): (SharedClock, SharedClock) = (ours.clone(), theirs.clone());
        Clocks { ours, theirs, store: MemoryStore::new(of_store), watch: StoreClock::new(shared) }
    }

    async fn trust(&self) -> Trust {
        self.watch.read(&self.store, None).await.expect("the store answers").trust
    }

    async fn doubt(&self) -> String {
        match self.trust().await {
            Trust::No(why) => why,
            Trust::Yes => panic!("time was trusted"),
        }
    }
}

const MINUTE: SignedDuration = SignedDuration::from_mins(1);

#[tokio::test(start_paused = true)]
async fn clocks_that_agree_are_trusted_and_the_time_is_the_stores() {
    let clocks = Clocks::new();
    clocks.theirs.jump(MINUTE * 4);
    clocks.ours.sleep(HOUR).await;
    let reading = clocks.watch.read(&clocks.store, None).await.expect("the store answers");
    assert_eq!(reading.trust, Trust::Yes);
    assert_eq!(reading.now, clocks.theirs.now());
}

#[tokio::test(start_paused = true)]
async fn a_store_whose_clock_is_far_from_ours_is_not_trusted() {
    for minutes in [-6, 6] {
        let clocks = Clocks::new();
        clocks.theirs.jump(MINUTE * minutes);
        assert!(clocks.doubt().await.contains("6m apart"), "{}", clocks.doubt().await);
        clocks.theirs.jump(MINUTE * -minutes);
        assert_eq!(clocks.trust().await, Trust::Yes, "set right again");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_jump_time_must_run_evenly_for_a_day() {
    for hours in [-1, 1] {
        let clocks = Clocks::new();
        // A directory: the store's clock is ours, and jumps with it.
        clocks.ours.jump(SignedDuration::from_hours(hours));
        clocks.theirs.jump(SignedDuration::from_hours(hours));
        assert!(clocks.doubt().await.contains("jumped"));
        clocks.ours.sleep(DAY - Duration::from_secs(1)).await;
        assert!(clocks.doubt().await.contains("jumped"));
        clocks.ours.sleep(Duration::from_secs(1)).await;
        assert_eq!(clocks.trust().await, Trust::Yes);
    }
}

#[tokio::test(start_paused = true)]
async fn a_jump_there_and_back_is_seen_if_anybody_looked_in_between() {
    let clocks = Clocks::new();
    clocks.ours.jump(SignedDuration::from_hours(1));
    clocks.theirs.jump(SignedDuration::from_hours(1));
    assert_ne!(clocks.trust().await, Trust::Yes);
    clocks.ours.sleep(HOUR).await;
    clocks.ours.jump(SignedDuration::from_hours(-1));
    clocks.theirs.jump(SignedDuration::from_hours(-1));
    clocks.ours.sleep(DAY - HOUR).await;
    assert!(clocks.doubt().await.contains("jumped"), "the day counts from the second jump");
}

#[tokio::test(start_paused = true)]
async fn creeping_by_small_steps_is_a_jump_too() {
    let clocks = Clocks::new();
    for _ in 0..6 {
        clocks.ours.jump(MINUTE);
        clocks.theirs.jump(MINUTE);
        let _ = clocks.trust().await;
    }
    assert!(clocks.doubt().await.contains("jumped"));
}

#[tokio::test(start_paused = true)]
async fn a_clock_behind_the_newest_object_is_not_trusted() {
    let clocks = Clocks::new();
    let newest = |seconds| Some(clocks.theirs.now() + SignedDuration::from_secs(seconds));
    let read =
        async |newest| clocks.watch.read(&clocks.store, newest).await.expect("the store answers").trust;
    assert_eq!(read(newest(5)).await, Trust::Yes, "whole seconds, of several machines");
    let Trust::No(why) = read(newest(6)).await else { panic!("time was trusted") };
    assert!(why.contains("newest object"), "{why}");
}
