use std::collections::BTreeSet;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use tidekeeper::config::{Missed, Schedule, When};
use tidekeeper::engine::due::{Due, History, Timetable, candidates, due, scheduled};
use tidekeeper::engine::run::{Next, RunId};
use tidekeeper::engine::work::Action;

use super::world::{cron, every, instant, source};

/// What a vault would answer: which runs were started.
struct Past {
    timetable: Timetable,
    history: History,
    started: BTreeSet<RunId>,
}

impl Past {
    fn since(schedules: &[Schedule], since: &str) -> Self {
        let timetable = Timetable::new(schedules);
        let since = timetable.lines.iter().map(|line| (line.switch(), instant(since))).collect();
        Past { timetable, history: History { since, ..History::default() }, started: BTreeSet::new() }
    }

    /// What is due, looked up as a daemon would.
    fn at(&mut self, now: Timestamp) -> Vec<Due> {
        self.history.runs.clear();
        for due in candidates(now, &self.timetable, &self.history) {
            let next = if self.started.contains(&due.run) { Next::Over } else { Next::Start(1) };
            self.history.runs.insert(due.run, next);
        }
        due(now, &self.timetable, &self.history)
    }

    /// As above, and all of it is started.
    fn start(&mut self, now: Timestamp) -> Vec<Timestamp> {
        let due = self.at(now);
        self.started.extend(due.iter().map(|due| due.run.clone()));
        due.into_iter().map(|due| due.due_at).collect()
    }
}

#[test]
fn what_is_due_is_due_once() {
    let mut past = Past::since(&[cron("a", "0 */6 * * *", "UTC")], "2026-11-21T01:00:00Z");
    assert!(past.start(instant("2026-11-21T05:59:59Z")).is_empty());
    assert_eq!(past.start(instant("2026-11-21T06:00:00Z")), [instant("2026-11-21T06:00:00Z")]);
    assert!(past.start(instant("2026-11-21T06:00:01Z")).is_empty());
    assert!(past.start(instant("2026-11-21T11:59:59Z")).is_empty());
}

#[test]
fn a_new_series_does_not_fire_for_the_past() {
    let mut past = Past::since(&[cron("a", "0 */6 * * *", "UTC")], "2026-11-21T06:00:00Z");
    assert!(past.start(instant("2026-11-21T07:00:00Z")).is_empty());
    assert_eq!(past.start(instant("2026-11-21T12:00:00Z")).len(), 1);
}

#[test]
fn what_is_not_looked_up_is_not_due() {
    let past = Past::since(&[cron("a", "0 */6 * * *", "UTC")], "2026-11-21T01:00:00Z");
    assert!(due(instant("2026-11-21T06:00:00Z"), &past.timetable, &past.history).is_empty());
}

#[test]
fn days_of_silence_are_made_up_for_by_one_run() {
    let mut past = Past::since(&[cron("a", "0 */6 * * *", "UTC")], "2026-11-01T00:00:00Z");
    let now = instant("2026-11-21T07:30:00Z");
    let found = past.at(now);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].due_at, instant("2026-11-21T06:00:00Z"));
    assert_eq!(found[0].reason, "missed by 5400 s, run once");
    past.start(now);
    assert!(past.start(now).is_empty());
}

#[test]
fn or_by_none() {
    let mut schedule = cron("a", "0 */6 * * *", "UTC");
    schedule.backup[0].missed = Missed::Skip;
    let mut past = Past::since(&[schedule], "2026-11-01T00:00:00Z");
    assert!(past.start(instant("2026-11-21T07:30:00Z")).is_empty());
    assert_eq!(past.start(instant("2026-11-21T12:00:30Z")).len(), 1, "a slow tick is no missed one");
}

#[test]
fn a_clock_set_back_an_hour_makes_no_run_twice() {
    let mut past = Past::since(&[every("a", 1800)], "2026-11-21T00:00:00Z");
    let mut runs = Vec::new();
    let start = instant("2026-11-21T06:00:00Z");
    let forth = (0..7200).chain(3600..10_800);
    for second in forth {
        runs.extend(past.start(start + SignedDuration::from_secs(second)));
    }
    let expected: Vec<_> = (0..6).map(|n| start + SignedDuration::from_secs(1800 * n)).collect();
    assert_eq!(runs, expected);
}

#[test]
fn a_clock_that_was_years_ahead_blocks_nothing() {
    let mut past = Past::since(&[every("a", 1800)], "2026-11-21T00:00:00Z");
    assert_eq!(past.start(instant("2036-01-01T00:00:00Z")).len(), 1);
    assert_eq!(past.start(instant("2026-11-21T06:00:00Z")).len(), 1);
}

#[test]
fn one_source_runs_one_thing_at_a_time() {
    let mut schedule = every("a", 60);
    schedule.backup.push(schedule.backup[0].clone());
    schedule.backup[1].name = "other".to_owned();
    let mut past = Past::since(&[schedule, every("b", 60)], "2026-11-21T00:00:00Z");
    let now = instant("2026-11-21T06:00:00Z");
    let sources: Vec<_> = past.at(now).iter().map(|due| due.order.source.clone().unwrap()).collect();
    assert_eq!(sources.len(), 2);
    assert!(sources.contains(&source("a")) && sources.contains(&source("b")));
    past.history.busy.insert(source("a"));
    assert!(past.at(now).iter().all(|due| due.order.source == Some(source("b"))));
}

#[test]
fn a_suspended_schedule_is_silent_and_resuming_does_not_fire() {
    let mut past = Past::since(&[every("a", 600)], "2026-11-21T00:00:00Z");
    past.history.suspended.insert(source("a"));
    past.history.backed_up.insert(source("a"), instant("2026-11-21T05:00:00Z"));
    assert!(past.at(instant("2026-11-21T06:00:00Z")).is_empty());
    past.history.suspended.clear();
    past.history.backed_up.clear();
    let resumed = instant("2026-11-21T06:05:00Z");
    past.history.since.values_mut().for_each(|since| *since = resumed);
    assert!(past.start(resumed).is_empty());
    assert_eq!(past.start(instant("2026-11-21T06:10:00Z")).len(), 1);
}

#[test]
fn a_failed_attempt_goes_on_though_missed_says_skip() {
    let mut schedule = cron("a", "0 6 * * *", "UTC");
    schedule.backup[0].missed = Missed::Skip;
    let mut past = Past::since(&[schedule], "2026-11-01T00:00:00Z");
    let run = past.timetable.lines[0].run(instant("2026-11-21T06:00:00Z"));
    past.history.runs.insert(run.clone(), Next::Start(2));
    let found = due(instant("2026-11-21T06:20:00Z"), &past.timetable, &past.history);
    assert_eq!(found.iter().map(|due| &due.run).collect::<Vec<_>>(), [&run]);
}

#[test]
fn retention_follows_the_first_good_backup_of_an_hour() {
    let mut past = Past::since(&[every("a", 86_400)], "2026-11-21T00:00:00Z");
    past.started.insert(past.timetable.lines[0].run(instant("2026-11-21T00:00:00Z")));
    let pass = |past: &mut Past, ended: &str| {
        past.history.backed_up.insert(source("a"), instant(ended));
        let found = past.at(instant(ended));
        past.started.extend(found.iter().map(|due| due.run.clone()));
        found.into_iter().map(|due| due.order.action).collect::<Vec<_>>()
    };
    assert_eq!(pass(&mut past, "2026-11-21T06:01:00Z"), [Action::Retention]);
    assert!(pass(&mut past, "2026-11-21T06:59:00Z").is_empty());
    assert_eq!(pass(&mut past, "2026-11-21T07:00:00Z"), [Action::Retention]);
}

#[test]
fn a_run_is_of_its_source_its_action_its_series_and_its_time() {
    let at = instant("2026-11-21T06:00:00Z");
    let run = scheduled(&source("a"), Action::Backup, "six-hourly", at);
    assert_eq!(run.as_str().len(), 29);
    assert_eq!(run.time(), at);
    // Written down once: an id that changed would make every due time of the last release due again.
    assert_eq!(run.as_str(), "20261121T060000Z-ybn36tjjbwn3");
    let others = [
        scheduled(&source("b"), Action::Backup, "six-hourly", at),
        scheduled(&source("a"), Action::Drill, "six-hourly", at),
        scheduled(&source("a"), Action::Backup, "hourly", at),
        scheduled(&source("a"), Action::Backup, "six-hourly", at + SignedDuration::from_millis(1)),
    ];
    assert!(others.iter().all(|other| *other != run));
}

/// Over a weekend nothing is late, and neither is anything after it.
#[test]
fn the_interval_of_a_series_is_its_longest_pause() {
    let interval = |cron_text: &str, now: &str| {
        let timetable = Timetable::new(&[cron("a", cron_text, "UTC")]);
        timetable.lines[0].interval(instant(now)).unwrap().as_hours()
    };
    // 2026-11-21 is a Saturday.
    for now in
        ["2026-11-20T10:00:00Z", "2026-11-22T10:00:00Z", "2026-11-23T10:00:00Z", "2026-11-26T10:00:00Z"]
    {
        assert_eq!(interval("0 9 * * 1-5", now), 72, "{now}");
        assert_eq!(interval("0 9 * * *", now), 24, "{now}");
    }
    assert_eq!(interval("0 9,10 * * *", "2026-11-21T09:30:00Z"), 23);
    let hourly = Timetable::new(&[every("a", 3_600)]);
    assert_eq!(
        hourly.lines[0].interval(instant("2026-11-21T09:30:00Z")),
        Some(SignedDuration::from_hours(1))
    );
}

#[test]
fn reordering_is_nothing_and_renaming_is_a_new_series() {
    let mut schedule = every("a", 60);
    schedule.backup.push(schedule.backup[0].clone());
    schedule.backup[1].name = "other".to_owned();
    let runs = |schedule: &Schedule| {
        let timetable = Timetable::new(std::slice::from_ref(schedule));
        let at = instant("2026-11-21T06:00:00Z");
        timetable.lines.iter().map(|line| (line.run(at), line.switch())).collect::<BTreeSet<_>>()
    };
    let before = runs(&schedule);
    schedule.backup.reverse();
    assert_eq!(runs(&schedule), before);
    schedule.backup[0].name = "new".to_owned();
    assert_eq!(runs(&schedule).intersection(&before).count(), 1);
}

#[test]
fn jitter_puts_a_start_off_by_less_than_itself() {
    let mut schedule = every("a", 600);
    schedule.backup[0].jitter = Duration::from_secs(300);
    let mut past = Past::since(&[schedule], "2026-11-21T05:59:00Z");
    let mut offsets = BTreeSet::new();
    for second in 0..6000 {
        for due in past.at(instant("2026-11-21T06:00:00Z") + SignedDuration::from_secs(second)) {
            past.started.insert(due.run);
            let offset = due.start_at.duration_since(due.due_at);
            assert!(!offset.is_negative() && offset < SignedDuration::from_secs(300));
            offsets.insert(offset);
        }
    }
    assert_eq!(offsets.len(), 10, "each due time has its own share");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20, failure_persistence: None, ..ProptestConfig::default() })]

    /// However a daemon comes and goes and its clock jumps: no due time twice, none while it was down but the newest, and
    /// all of those that it was up for.
    #[test]
    fn restarts_neither_lose_nor_double(
        period in 60u64..2000,
        downs in prop::collection::vec((0u64..8_000, 1u64..4_000), 0..4),
        set_back in prop::option::of((1u64..8_000, 1u64..3_600)),
    ) {
        let mut past = Past::since(&[every("a", period)], "2026-11-21T00:00:00Z");
        let begin = instant("2026-11-21T06:00:00Z");
        let up = |second: u64| !downs.iter().any(|(from, long)| (*from..from + long).contains(&second));
        let mut runs: Vec<Timestamp> = Vec::new();
        let mut up_for = BTreeSet::new();
        let mut offset = 0;
        for second in 0..8_000u64 {
            if let Some((_, back)) = set_back.filter(|(at, _)| *at == second) {
                offset = back as i64;
            }
            let now = begin + SignedDuration::from_secs(second as i64 - offset);
            if up(second) {
                runs.extend(past.start(now));
                if now.as_second().rem_euclid(period as i64) == 0 {
                    up_for.insert(now);
                }
            }
        }
        let unique: BTreeSet<_> = runs.iter().copied().collect();
        prop_assert_eq!(unique.len(), runs.len());
        prop_assert!(up_for.is_subset(&unique), "lost: {:?}", up_for.difference(&unique).collect::<Vec<_>>());
        prop_assert!(unique.iter().all(|at| at.as_second().rem_euclid(period as i64) == 0));
        let when = When::Every(Duration::from_secs(period));
        prop_assert_eq!(&past.timetable.lines[0].series.when, &when);
    }
}
