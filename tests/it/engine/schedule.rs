use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, civil};
use proptest::prelude::*;
use tidekeeper::config::When;
use tidekeeper::config::units::Zone;
use tidekeeper::engine::schedule::Rhythm;

use super::world::instant;

fn cron(text: &str, zone: &str) -> Rhythm {
    Rhythm::new(&When::Cron(text.parse().unwrap()), &zone.parse().unwrap())
}

/// The due times after `from` and not after `to`.
fn due(rhythm: &Rhythm, from: &str, to: &str) -> Vec<String> {
    let (mut at, to) = (instant(from), instant(to));
    let mut found = Vec::new();
    while let Some(next) = rhythm.next(at).filter(|next| *next <= to) {
        assert_eq!(rhythm.latest(next), Some(next), "the newest due time at a due time is itself");
        found.push(next.to_string());
        at = next;
    }
    found
}

#[test]
fn every_counts_from_the_epoch() {
    let rhythm = Rhythm::new(&When::Every(Duration::from_secs(5)), &Zone::default());
    let found = due(&rhythm, "2026-11-21T06:00:01Z", "2026-11-21T06:00:15Z");
    assert_eq!(found, ["2026-11-21T06:00:05Z", "2026-11-21T06:00:10Z", "2026-11-21T06:00:15Z"]);
}

#[test]
fn cron_follows_its_zone() {
    let found = due(&cron("30 6 * * 1-5", "Asia/Kolkata"), "2026-11-20T00:00:00Z", "2026-11-23T12:00:00Z");
    assert_eq!(found, ["2026-11-20T01:00:00Z", "2026-11-23T01:00:00Z"]);
}

/// Zone, expression, from, to, due times.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

/// Both changes of several zones: what is skipped is due at the end of the gap, what is repeated is due the first time.
const CHANGES: &[Case] = &[
    // 2026-03-29 in Berlin: 02:00 becomes 03:00 at 01:00 UTC.
    (
        "Europe/Berlin",
        "30 2 * * *",
        "2026-03-28T00:00:00Z",
        "2026-03-30T23:00:00Z",
        &["2026-03-28T01:30:00Z", "2026-03-29T01:00:00Z", "2026-03-30T00:30:00Z"],
    ),
    (
        "Europe/Berlin",
        "*/30 * * * *",
        "2026-03-29T00:00:00Z",
        "2026-03-29T01:30:00Z",
        &["2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z", "2026-03-29T01:30:00Z"],
    ),
    // 2026-10-25 in Berlin: 03:00 becomes 02:00 at 01:00 UTC.
    (
        "Europe/Berlin",
        "30 2 * * *",
        "2026-10-24T12:00:00Z",
        "2026-10-26T12:00:00Z",
        &["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"],
    ),
    (
        "Europe/Berlin",
        "0 * * * *",
        "2026-10-24T23:00:00Z",
        "2026-10-25T02:30:00Z",
        &["2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"],
    ),
    // New York: 2026-03-08 at 07:00 UTC, 2026-11-01 at 06:00 UTC.
    (
        "America/New_York",
        "15 2 * * *",
        "2026-03-07T12:00:00Z",
        "2026-03-09T12:00:00Z",
        &["2026-03-08T07:00:00Z", "2026-03-09T06:15:00Z"],
    ),
    (
        "America/New_York",
        "15 1 * * *",
        "2026-10-31T12:00:00Z",
        "2026-11-02T12:00:00Z",
        &["2026-11-01T05:15:00Z", "2026-11-02T06:15:00Z"],
    ),
    // Lord Howe moves by half an hour: 2026-10-04 at 15:30 UTC the day before, 2026-04-05 at 15:00 UTC the day before.
    (
        "Australia/Lord_Howe",
        "10 2 * * *",
        "2026-10-03T00:00:00Z",
        "2026-10-04T23:00:00Z",
        &["2026-10-03T15:30:00Z", "2026-10-04T15:10:00Z"],
    ),
    (
        "Australia/Lord_Howe",
        "45 1 * * *",
        "2026-04-04T00:00:00Z",
        "2026-04-05T23:00:00Z",
        &["2026-04-04T14:45:00Z", "2026-04-05T15:15:00Z"],
    ),
    // Beirut skips midnight itself: 2026-03-29 at 22:00 UTC the day before.
    (
        "Asia/Beirut",
        "0 0 * * *",
        "2026-03-28T00:00:00Z",
        "2026-03-30T00:00:00Z",
        &["2026-03-28T22:00:00Z", "2026-03-29T21:00:00Z"],
    ),
    // Samoa skipped the 30th of December 2011: three due times of one day become one.
    (
        "Pacific/Apia",
        "0 6,12,18 * * *",
        "2011-12-30T05:00:00Z",
        "2011-12-31T00:00:00Z",
        &["2011-12-30T10:00:00Z", "2011-12-30T16:00:00Z", "2011-12-30T22:00:00Z"],
    ),
];

#[test]
fn daylight_saving_skips_nothing_and_repeats_nothing() {
    for (zone, text, from, to, expected) in CHANGES {
        assert_eq!(due(&cron(text, zone), from, to), *expected, "{text} in {zone} from {from}");
    }
}

#[test]
fn the_newest_due_time_is_right_inside_a_repeated_hour() {
    let hourly = cron("0 * * * *", "Europe/Berlin");
    let half = cron("30 2 * * *", "Europe/Berlin");
    for minute in 0..60 {
        let second_pass = instant("2026-10-25T01:00:00Z") + SignedDuration::from_mins(minute);
        assert_eq!(hourly.latest(second_pass), Some(instant("2026-10-25T00:00:00Z")));
        assert_eq!(half.latest(second_pass), Some(instant("2026-10-25T00:30:00Z")));
        assert_eq!(half.next(second_pass), Some(instant("2026-10-26T01:30:00Z")));
    }
}

/// A civil time is due at the first minute at which the clocks show it or have passed it: read off a zone's clocks,
/// minute by minute, with nobody's idea of gaps and folds.
fn naive(fields: &Fields, zone: &str, from: Timestamp, minutes: i64) -> BTreeSet<Timestamp> {
    let zone = TimeZone::get(zone).unwrap();
    let mut latest: Option<civil::DateTime> = None;
    let mut due = BTreeSet::new();
    for minute in 0..minutes {
        let at = from + SignedDuration::from_mins(minute);
        let shown = zone.to_datetime(at);
        let mut passed = latest.map_or(shown, |latest| latest + SignedDuration::from_mins(1));
        while passed <= shown {
            if fields.matches(passed) {
                due.insert(at);
            }
            passed += SignedDuration::from_mins(1);
        }
        latest = Some(latest.map_or(shown, |latest| latest.max(shown)));
    }
    due
}

#[derive(Clone, Debug)]
struct Fields {
    minutes: BTreeSet<i8>,
    hours: BTreeSet<i8>,
    weekdays: Option<BTreeSet<i8>>,
}

impl Fields {
    fn matches(&self, time: civil::DateTime) -> bool {
        let weekday = time.weekday().to_sunday_zero_offset();
        self.minutes.contains(&time.minute())
            && self.hours.contains(&time.hour())
            && self.weekdays.as_ref().is_none_or(|days| days.contains(&weekday))
    }

    fn text(&self) -> String {
        let list = |set: &BTreeSet<i8>| set.iter().map(i8::to_string).collect::<Vec<_>>().join(",");
        let weekdays = self.weekdays.as_ref().map_or("*".to_owned(), list);
        format!("{} {} * * {weekdays}", list(&self.minutes), list(&self.hours))
    }
}

fn fields() -> impl Strategy<Value = Fields> {
    let minutes = prop::collection::btree_set(0i8..60, 1..4);
    let hours = prop::collection::btree_set(prop_oneof![0i8..5, 0i8..24], 1..5);
    let weekdays = prop::option::of(prop::collection::btree_set(0i8..7, 1..4));
    (minutes, hours, weekdays).prop_map(|(minutes, hours, weekdays)| Fields { minutes, hours, weekdays })
}

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Beirut",
    "Pacific/Apia",
    "America/Havana",
    "Africa/Casablanca",
];

/// Days near which those zones change, one of them at random.
const NEAR: [&str; 8] = [
    "2026-03-28T00:00:00Z",
    "2026-10-24T00:00:00Z",
    "2026-03-07T00:00:00Z",
    "2026-10-31T00:00:00Z",
    "2026-04-04T00:00:00Z",
    "2026-10-03T00:00:00Z",
    "2011-12-29T00:00:00Z",
    "2026-02-14T00:00:00Z",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn due_times_are_those_of_a_clock_watched_minute_by_minute(
        fields in fields(),
        zone in prop::sample::select(&ZONES[..]),
        near in prop::sample::select(&NEAR[..]),
        offset in 0i64..2880,
    ) {
        let rhythm = cron(&fields.text(), zone);
        let begin = instant(near);
        let all = naive(&fields, zone, begin, 4 * 1440);
        // The first minutes of the watch cannot tell what came before them.
        let from = begin + SignedDuration::from_mins(1440 + offset);
        let until = begin + SignedDuration::from_mins(4 * 1440 - 1);
        prop_assert_eq!(rhythm.latest(from), all.range(..=from).next_back().copied().or(rhythm.latest(from)));
        let expected: Vec<_> = all.range(from + SignedDuration::from_nanos(1)..=until).copied().collect();
        let mut found = Vec::new();
        let mut at = from;
        while let Some(next) = rhythm.next(at).filter(|next| *next <= until) {
            prop_assert_eq!(rhythm.before(next), rhythm.latest(next - SignedDuration::from_nanos(1)));
            found.push(next);
            at = next;
        }
        prop_assert_eq!(found, expected);
    }
}
