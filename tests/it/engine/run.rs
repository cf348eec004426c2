use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidekeeper::engine::run::{RunId, retry_at, share};

use super::world::instant;

#[test]
fn run_ids_are_read_back_and_nothing_else_is() {
    let run: RunId = "20261121T060000Z-9d1x4m7qk2ab".parse().unwrap();
    assert_eq!((run.time(), run.tail()), (instant("2026-11-21T06:00:00Z"), "9d1x4m7qk2ab"));
    for text in
        ["", "20261121T060000Z-9d1x4m", "20261321T060000Z-9d1x4m7qk2ab", "20261121T060000Z-9d1x4m7qk2aé"]
    {
        assert!(text.parse::<RunId>().is_err(), "{text}");
    }
}

#[test]
fn pauses_grow_stay_bounded_and_end_at_the_deadline() {
    let run: RunId = "20261121T060000Z-9d1x4m7qk2ab".parse().unwrap();
    let now = instant("2026-11-21T06:00:00Z");
    let far = now + SignedDuration::from_hours(24);
    let pauses: Vec<f64> = (1..12)
        .map(|attempt| retry_at(&run, attempt, now, far).unwrap().duration_since(now).as_secs_f64())
        .collect();
    assert!((10.0..=12.5).contains(&pauses[0]) && (20.0..=25.0).contains(&pauses[1]), "{pauses:?}");
    assert!(pauses[6..].iter().all(|pause| (300.0..=375.0).contains(pause)), "{pauses:?}");
    assert_eq!(retry_at(&run, 1, now, now + SignedDuration::from_secs(10)), None);
}

#[test]
fn shares_are_spread() {
    let whole = Duration::from_secs(100);
    let mut quarters = [0; 4];
    for n in 0..400i64 {
        let at = Timestamp::from_second(1_800_000_000 + n).unwrap();
        let run = RunId::new(at, "9d1x4m7qk2ab");
        let share = share(run.as_str(), "jitter", whole);
        assert!(share < whole);
        quarters[share.as_secs() as usize / 25] += 1;
    }
    assert!(quarters.iter().all(|count| *count > 60), "{quarters:?}");
}
