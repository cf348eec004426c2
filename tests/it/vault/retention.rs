use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tidekeeper::config::Retention;
use tidekeeper::vault::layout::BackupId;
use tidekeeper::vault::retention::{Action, Plan, Proof, Reason, Row, Situation, Wait, Worth, plan};
use tidekeeper::vault::store_clock::{Reading, Trust};

use super::estate::{DAY, HOUR};

pub mod model;
mod property;

fn time(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

fn row(at: &str, worth: Worth) -> Row {
    row_at(time(at), worth)
}

fn row_at(at: Timestamp, worth: Worth) -> Row {
    Row {
        id: BackupId::new(at, None, 0),
        stored_at: at,
        worth,
        proven: None,
        held: None,
        requires: Vec::new(),
        used_by: None,
        promised: false,
        unreadable: None,
    }
}

fn good(at: &str) -> Row {
    row(at, Worth::Good)
}

fn nothing_kept() -> Retention {
    Retention {
        keep_within: Duration::ZERO,
        keep_last: 0,
        hourly: 0,
        daily: 0,
        weekly: 0,
        monthly: 0,
        yearly: 0,
        window: Duration::ZERO,
        grace: DAY,
    }
}

fn at(now: &str) -> Situation {
    Situation { clock: Reading { now: time(now), trust: Trust::Yes }, zone: TimeZone::UTC, interval: None }
}

fn kept(plan: &Plan) -> Vec<String> {
    let kept = plan.lines.iter().filter(|line| line.action == Action::Keep);
    kept.map(|line| line.id.time().to_string()).collect()
}

fn reasons<'a>(plan: &'a Plan, row: &Row) -> &'a [Reason] {
    &plan.line(&row.id).expect("each row has a line").reasons
}

const NOW: &str = "2026-11-21T00:00:00Z";

#[test]
fn the_newest_few_stay_and_the_rest_goes() {
    let rows = [good("2026-11-01T00:00:00Z"), good("2026-11-02T00:00:00Z"), good("2026-11-03T00:00:00Z")];
    let plan = plan(&at(NOW), &Retention { keep_last: 2, ..nothing_kept() }, &rows);
    assert_eq!(kept(&plan), ["2026-11-03T00:00:00Z", "2026-11-02T00:00:00Z"]);
    let gone = plan.line(&rows[0].id).expect("a line");
    assert_eq!(gone.reasons, [Reason::Outlived]);
    assert_eq!(gone.relies_on, [rows[2].id.clone()], "a removal names what makes it harmless");
}

#[test]
fn an_empty_policy_still_keeps_the_last_good_one() {
    let rows = [good("2026-11-01T00:00:00Z"), good("2026-11-02T00:00:00Z")];
    let plan = plan(&at(NOW), &nothing_kept(), &rows);
    assert_eq!(kept(&plan), ["2026-11-02T00:00:00Z"]);
    assert_eq!(reasons(&plan, &rows[1]), [Reason::LastGood]);
}

#[test]
fn age_is_the_younger_of_the_two_clocks() {
    let within = Retention { keep_within: DAY, ..nothing_kept() };
    let mut stored_late = good("2026-11-01T00:00:00Z");
    stored_late.stored_at = time("2026-11-20T12:00:00Z");
    let mut named_ahead = good("2026-11-20T13:00:00Z");
    named_ahead.stored_at = time("2026-11-02T00:00:00Z");
    let plan = plan(&at(NOW), &within, &[stored_late, named_ahead, good("2026-11-20T14:00:00Z")]);
    assert_eq!(kept(&plan).len(), 3);
}

#[test]
fn a_reason_says_a_duration_as_a_configuration_does() {
    for (hours, said) in [(168, "younger than 7d"), (24, "younger than 1d"), (36, "younger than 36h")] {
        let reason = Reason::Within(jiff::SignedDuration::from_hours(hours)).to_string();
        assert!(reason.ends_with(said), "{reason}");
    }
}

#[test]
fn days_are_those_of_the_zone() {
    // 23:30 and 00:30 in Berlin are one UTC day and two local ones.
    let rows = [good("2026-11-10T22:30:00Z"), good("2026-11-10T23:30:00Z"), good("2026-11-11T12:00:00Z")];
    let policy = Retention { daily: 2, ..nothing_kept() };
    let berlin = Situation { zone: TimeZone::get("Europe/Berlin").expect("a zone"), ..at(NOW) };
    assert_eq!(kept(&plan(&berlin, &policy, &rows)), ["2026-11-11T12:00:00Z", "2026-11-10T22:30:00Z"]);
    assert_eq!(kept(&plan(&at(NOW), &policy, &rows)), ["2026-11-11T12:00:00Z", "2026-11-10T23:30:00Z"]);
}

#[test]
fn the_hour_that_dst_repeats_is_two() {
    let rows = [good("2026-10-25T00:30:00Z"), good("2026-10-25T01:30:00Z"), good("2026-10-25T02:30:00Z")];
    let berlin = Situation { zone: TimeZone::get("Europe/Berlin").expect("a zone"), ..at(NOW) };
    let plan = plan(&berlin, &Retention { hourly: 3, ..nothing_kept() }, &rows);
    assert_eq!(kept(&plan).len(), 3, "02:30 CEST and 02:30 CET are different hours");
}

#[test]
fn weeks_are_iso_weeks() {
    // 2027-01-01 is a Friday of 2026-W53; 2027-01-04 begins 2027-W01.
    let rows = [good("2026-12-30T00:00:00Z"), good("2027-01-01T00:00:00Z"), good("2027-01-04T00:00:00Z")];
    let plan = plan(&at("2027-01-05T00:00:00Z"), &Retention { weekly: 2, ..nothing_kept() }, &rows);
    assert_eq!(kept(&plan), ["2027-01-04T00:00:00Z", "2027-01-01T00:00:00Z"]);
    let named = Reason::NewestOf(tidekeeper::vault::retention::Period::Week, "2026-W53".to_owned());
    assert_eq!(reasons(&plan, &rows[1]), [named]);
}

#[test]
fn suspects_and_partials_displace_no_good_one() {
    let old = good("2026-11-01T00:00:00Z");
    let newer = [
        row("2026-11-02T00:00:00Z", Worth::Partial),
        row("2026-11-03T00:00:00Z", Worth::Suspect),
        row("2026-11-04T00:00:00Z", Worth::Damaged),
    ];
    let rows: Vec<Row> = [vec![old.clone()], newer.to_vec()].concat();
    let plan = plan(&at(NOW), &Retention { keep_last: 1, ..nothing_kept() }, &rows);
    assert!(reasons(&plan, &old).contains(&Reason::LastGood));
    assert!(reasons(&plan, &old).contains(&Reason::Last(1)), "it is the newest that counts");
    assert_eq!(reasons(&plan, &newer[1]), [Reason::Undecided]);
    assert_eq!(plan.line(&newer[2].id).expect("a line").action, Action::Remove, "damaged, and old enough");
}

#[test]
fn a_suspect_goes_once_a_good_one_came_after_it() {
    let rows = [
        good("2026-11-01T00:00:00Z"),
        row("2026-11-02T00:00:00Z", Worth::Suspect),
        good("2026-11-03T00:00:00Z"),
    ];
    let plan = plan(&at(NOW), &Retention { keep_last: 2, ..nothing_kept() }, &rows);
    assert_eq!(kept(&plan), ["2026-11-03T00:00:00Z", "2026-11-01T00:00:00Z"]);
}

#[test]
fn a_source_that_is_always_partial_has_a_history_and_an_end_of_it() {
    let rows: Vec<Row> =
        (1..=9).map(|day| row(&format!("2026-11-0{day}T00:00:00Z"), Worth::Partial)).collect();
    let plan = plan(&at(NOW), &Retention { keep_last: 3, ..nothing_kept() }, &rows);
    assert_eq!(kept(&plan).len(), 3);
    assert_eq!(plan.line(&rows[0].id).expect("a line").relies_on, [rows[8].id.clone()]);
}

#[test]
fn the_last_proven_ones_stay() {
    let mut rows = [good("2026-11-01T00:00:00Z"), good("2026-11-02T00:00:00Z"), good("2026-11-03T00:00:00Z")];
    rows[0].proven = Some(Proof::Restored);
    rows[1].proven = Some(Proof::Verified);
    let plan = plan(&at(NOW), &nothing_kept(), &rows);
    assert_eq!(reasons(&plan, &rows[0]), [Reason::LastRestored]);
    assert_eq!(reasons(&plan, &rows[1]), [Reason::LastVerified]);
}

#[test]
fn held_used_promised_and_unknown_ones_stay() {
    let mut rows = ["01", "02", "03", "04", "05", "06"].map(|day| good(&format!("2026-11-{day}T00:00:00Z")));
    rows[0].held = Some("held by anna: audit".to_owned());
    rows[1].promised = true;
    rows[2].worth = Worth::Unknown("status \"frozen\"".to_owned());
    rows[5].requires = vec![rows[4].id.clone()];
    rows[4].requires = vec![rows[3].id.clone()];
    let plan = plan(&at(NOW), &nothing_kept(), &rows);
    assert_eq!(kept(&plan).len(), 6);
    assert_eq!(reasons(&plan, &rows[0]), [Reason::Held("held by anna: audit".to_owned())]);
    assert_eq!(reasons(&plan, &rows[3]), [Reason::NeededBy(rows[4].id.clone())]);
}

#[test]
fn an_abandoned_manifest_keeps_late_writers_out_for_its_time() {
    let abandoned = row("2026-11-01T00:00:00Z", Worth::Abandoned);
    let rows = [abandoned.clone(), good("2026-12-20T00:00:00Z")];
    let early = plan(&at("2026-12-01T23:59:59Z"), &nothing_kept(), &rows);
    let until = time("2026-12-02T00:00:00Z");
    assert_eq!(reasons(&early, &abandoned), [Reason::AbandonedUntil(until)], "a day of grace and 30 days");
    let late = plan(&at("2026-12-02T00:00:00Z"), &nothing_kept(), &rows);
    assert_eq!(reasons(&late, &abandoned), [Reason::AbandonedLongAgo]);
}

#[test]
fn nothing_goes_while_something_speaks_against_it() {
    let rows = [good("2026-11-01T00:00:00Z"), good("2026-11-20T00:00:00Z")];
    let old = rows[0].id.clone();
    let kept_by = |situation: &Situation, rows: &[Row]| {
        let plan = plan(situation, &nothing_kept(), rows);
        assert_eq!(plan.removals().count(), 0);
        plan.line(&old).expect("a line").reasons.clone()
    };
    let mut doubtful = at(NOW);
    doubtful.clock.trust = Trust::No("it jumped".to_owned());
    assert_eq!(kept_by(&doubtful, &rows), [Reason::Waits(Wait::Clock("it jumped".to_owned()))]);

    let silent = Situation { interval: Some(6 * HOUR), ..at(NOW) };
    let since = time("2026-11-20T00:00:00Z");
    let silence = Wait::Silence { since, interval: SignedDuration::from_hours(6) };
    assert_eq!(kept_by(&silent, &rows), [Reason::Waits(silence)]);

    let mut unreadable = rows.clone();
    unreadable[1].unreadable = Some("EOF".to_owned());
    let wait = Wait::Unreadable(rows[1].id.clone(), "EOF".to_owned());
    assert_eq!(kept_by(&at(NOW), &unreadable), [Reason::Waits(wait)]);

    let damaged = rows.clone().map(|row| Row { worth: Worth::Damaged, ..row });
    assert_eq!(kept_by(&at(NOW), &damaged), [Reason::Waits(Wait::NothingUsable)]);
}

#[test]
fn silence_of_two_intervals_is_none() {
    let rows = [good("2026-11-01T00:00:00Z"), good("2026-11-20T12:00:00Z")];
    let situation = Situation { interval: Some(6 * HOUR), ..at(NOW) };
    assert_eq!(plan(&situation, &nothing_kept(), &rows).removals().count(), 1);
}

#[test]
fn a_plan_reads_well() {
    let rows = [good("2026-11-01T00:00:00Z"), good("2026-11-20T00:00:00Z")];
    let plan = plan(&at(NOW), &Retention { daily: 1, ..nothing_kept() }, &rows);
    let json = serde_json::to_value(&plan).expect("a plan is plain data");
    insta::assert_json_snapshot!(json, @r#"
    {
      "lines": [
        {
          "action": "keep",
          "id": "20261120T000000Z-000000",
          "reasons": [
            "daily: the newest of 2026-11-20",
            "the last good one"
          ],
          "relies_on": []
        },
        {
          "action": "remove",
          "id": "20261101T000000Z-000000",
          "reasons": [
            "no rule keeps it"
          ],
          "relies_on": [
            "20261120T000000Z-000000"
          ]
        }
      ],
      "waits": []
    }
    "#);
}
