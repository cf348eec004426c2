//! Numbers as people read them.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tidekeeper::cli::human::{age, bytes, count, duration};
use tidekeeper::words::counted;

#[test]
fn one_is_not_many() {
    for (number, one, shown) in [
        (1, "index", "1 index"),
        (2, "index", "2 indexes"),
        (0, "function library", "0 function libraries"),
        (3, "key", "3 keys"),
    ] {
        assert_eq!(counted(number, one), shown);
    }
}

#[test]
fn sizes() {
    for (size, shown) in [
        (0, "0 B"),
        (1_023, "1023 B"),
        (1_024, "1.0 KiB"),
        (1_048_575, "1.0 MiB"),
        (1_288_490_189, "1.2 GiB"),
        (u64::MAX, "16777216.0 TiB"),
    ] {
        assert_eq!(bytes(size), shown);
    }
}

#[test]
fn counts() {
    for (number, shown) in
        [(0, "0"), (999, "999"), (1_000, "1,000"), (944_000, "944,000"), (1_234_567, "1,234,567")]
    {
        assert_eq!(count(number), shown);
    }
}

#[test]
fn durations() {
    for (ms, shown) in [
        (0, "0 ms"),
        (350, "350 ms"),
        (12_340, "12.3 s"),
        (59_990, "59.9 s"),
        (245_000, "4 min 05 s"),
        (7_620_000, "2 h 07 min"),
        (273_600_000, "3 d 4 h"),
    ] {
        assert_eq!(duration(Duration::from_millis(ms)), shown);
    }
}

#[test]
fn ages() {
    let now: Timestamp = "2026-11-21T06:00:00Z".parse().expect("a time");
    for (seconds, shown) in [
        (0, "now"),
        (-1, "now"),
        (59, "59 s ago"),
        (-300, "in 5 min"),
        (7_200, "2 h ago"),
        (172_800, "2 d ago"),
        (-8_640_000, "in 100 d"),
    ] {
        assert_eq!(age(now - SignedDuration::from_secs(seconds), now), shown);
    }
}
