use std::time::Duration;

use jiff::Timestamp;
use tidekeeper::clock::{Clock, TestClock};
use tidekeeper::task::pace::Pace;

#[tokio::test(start_paused = true)]
async fn the_average_holds_whatever_the_sizes_are() {
    let clock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let pace = Pace::new(1_000, clock.clone());
    for bytes in [4_000, 500, 500, 0] {
        pace.book(bytes).await;
    }
    assert_eq!(clock.monotonic(), Duration::from_secs(5), "the last waits for all before it");
    clock.sleep(Duration::from_secs(60)).await;
    pace.book(1_000).await;
    assert_eq!(clock.monotonic(), Duration::from_secs(65), "an idle line is free at once");
}

#[tokio::test(start_paused = true)]
async fn senders_share_the_line() {
    let clock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let pace = Pace::new(1_000, clock.clone());
    futures_util::future::join_all((0..4).map(|_| pace.book(1_000))).await;
    assert_eq!(clock.monotonic(), Duration::from_secs(3));
}

#[tokio::test(start_paused = true)]
async fn what_goes_ahead_waits_for_its_own_kind_and_others_pay() {
    let clock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let pace = Pace::new(1_000, clock.clone());
    pace.book(100_000).await;
    pace.book_ahead(5_000).await;
    assert_eq!(clock.monotonic(), Duration::ZERO, "the line is booked for 100 s, but not by its kind");
    pace.book_ahead(1_000).await;
    assert_eq!(clock.monotonic(), Duration::from_secs(5));
    pace.book(1).await;
    assert_eq!(clock.monotonic(), Duration::from_secs(106), "all bytes were counted");
}

#[tokio::test(start_paused = true)]
async fn zero_is_unlimited() {
    let clock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let pace = Pace::new(0, clock.clone());
    for _ in 0..100 {
        pace.book(u64::MAX).await;
        pace.book_ahead(u64::MAX).await;
    }
    assert_eq!(clock.monotonic(), Duration::ZERO);
}
