use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;
use tidekeeper::config::Retention;
use tidekeeper::error::Kind;
use tidekeeper::vault::deletion::{Policy, preview};
use tidekeeper::vault::layout::log::{self, Position};
use tidekeeper::vault::layout::{BackupId, BackupRef};
use tidekeeper::vault::store::faults::Method;
use tidekeeper::vault::timeline::chain::{Base, base_for};
use tidekeeper::vault::timeline::trim::{promised, trim};
use tidekeeper::vault::timeline::{End, Timeline, close};

use super::super::deletion::crash::{BLOWS, Blow, Strike};
use super::super::estate::{DAY, Deposed, Dice, Estate, HOUR, Leads, SOURCE, keep_one};
use super::{LOG, beginning, imagined, keys, push, segment, source, timelines, writer};

const CASES: u64 = 20_000;
const NOW: u64 = 60;

/// In these histories the record at a position was written as many seconds after a beginning.
fn time(position: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + position as i64).expect("a time")
}

/// Timelines one after the other, as a follower makes them: unbroken but for a few losses, sealed a moment later.
fn history(dice: &mut Dice) -> Vec<Timeline> {
    let (mut all, mut at, mut n) = (Vec::new(), 0, 0);
    while at < NOW - 5 {
        let from = at;
        let mut segments = Vec::new();
        for _ in 0..dice.below(6) {
            let to = (at + 1 + dice.below(8)).min(NOW);
            let begun = if dice.chance(20) { from.max(at.saturating_sub(3)) } else { at };
            if to > at && !dice.chance(5) {
                segments.push(segment(begun, to, time(to)));
            }
            at = to;
        }
        let mut timeline = imagined(n, LOG, from, segments);
        timeline.id = log::TimelineId::new(time(from), None, n);
        if dice.chance(30) {
            timeline.end =
                Ok(Some(End::new(Position(at - (at - from).min(dice.below(3))), "closed", time(at))));
        }
        all.push(timeline);
        at += dice.below(4) + 1;
        n += 1;
    }
    all
}

fn backups(dice: &mut Dice) -> Vec<(Base, Timestamp)> {
    let base = |n| {
        let at = dice.below(NOW + 1);
        let backup = BackupRef { source: source(), id: BackupId::new(time(at), None, n) };
        let base = Base { backup, identity: LOG.to_owned(), position: Position(at), good: dice.chance(80) };
        (base, time(at))
    };
    (0..8).map(base).collect()
}

fn restorable(timelines: &[Timeline], bases: &[Base]) -> BTreeSet<u64> {
    (0..=NOW).filter(|at| base_for(timelines, bases, Position(*at)).is_some()).collect()
}

fn without(timelines: &[Timeline], bases: &[Base], since: Timestamp) -> Vec<Timeline> {
    let plan = trim(timelines, bases, since);
    let mut left = timelines.to_vec();
    for (id, gone) in &plan.segments {
        let of = left.iter_mut().find(|timeline| timeline.id == *id).expect("it is there");
        of.segments.retain(|segment| segment != gone);
    }
    left.retain(|timeline| !plan.timelines.contains(&timeline.id));
    left
}

#[test]
fn thinning_never_breaks_the_promised_window() {
    let mut trimmed = 0;
    for seed in 0..CASES {
        let mut dice = Dice(seed);
        let timelines = history(&mut dice);
        let dated = backups(&mut dice);
        let since = dice.below(NOW);
        let kept = promised(&timelines, &dated, time(since));
        let all: Vec<Base> = dated.iter().map(|(base, _)| base.clone()).collect();
        // Whatever the policy keeps besides: any subset.
        let keeps = |base: &&Base| kept.contains(&base.backup.id) || dice.chance(20);
        let left: Vec<Base> = all.iter().filter(keeps).cloned().collect();
        let thinned = without(&timelines, &left, time(since));
        trimmed += trim(&timelines, &left, time(since)).segments.len();
        let (before, after) = (restorable(&timelines, &all), restorable(&thinned, &left));
        for at in since..=NOW {
            assert_eq!(
                before.contains(&at),
                after.contains(&at),
                "seed {seed}, position {at}, since {since}"
            );
        }
        let by_bases_alone = restorable(&timelines, &left);
        assert!(
            after.is_superset(&by_bases_alone),
            "seed {seed}: a trim costs no moment that a base leads to"
        );
    }
    assert!(trimmed > CASES as usize / 4, "{trimmed} segments went in all: that is no test");
}

#[test]
fn whatever_a_crash_leaves_of_a_stretch_is_its_unbroken_end() {
    for seed in 0..CASES {
        let mut dice = Dice(seed);
        let timelines = history(&mut dice);
        let bases: Vec<Base> = backups(&mut dice).into_iter().map(|(base, _)| base).collect();
        let plan = trim(&timelines, &bases, time(dice.below(NOW)));
        let cut = plan.segments.len().min(dice.below(6) as usize);
        let mut left = timelines.clone();
        for (id, gone) in &plan.segments[..cut] {
            let of = left.iter_mut().find(|timeline| timeline.id == *id).expect("it is there");
            of.segments.retain(|segment| segment != gone);
        }
        for (before, after) in timelines.iter().zip(&left) {
            let count = |timeline| tidekeeper::vault::timeline::chain::stretches(timeline).len();
            assert!(count(after) <= count(before).max(1), "seed {seed}: {before:?}, then {after:?}");
        }
        assert!(restorable(&left, &bases).is_superset(&restorable(&timelines, &bases)), "seed {seed}");
    }
}

#[test]
fn what_cannot_be_read_stays_and_keeps_every_base() {
    let old = imagined(1, LOG, 0, vec![segment(0, 5, time(5))]);
    let new = imagined(2, LOG, 9, vec![segment(9, 20, time(20))]);
    let plan = trim(&[old.clone(), new.clone()], &[], time(30));
    assert_eq!((plan.sum().segments, plan.timelines), (1, vec![old.id.clone()]));
    let mut dice = Dice(1);
    let dated = backups(&mut dice);
    for timeline in [
        Timeline { origin: Err("rot".to_owned()), ..old.clone() },
        Timeline { end: Err("rot".to_owned()), ..old.clone() },
    ] {
        let all = [timeline, new.clone()];
        assert!(trim(&all, &[], time(30)).sum().is_nothing());
        assert_eq!(promised(&all, &dated, time(30)).len(), dated.len());
    }
}

fn policy(window: Duration) -> Policy {
    Policy { retention: Retention { window, ..keep_one().retention }, ..keep_one() }
}

/// A backup an hour with a segment between each two.
async fn day(estate: &Estate) -> Vec<BackupRef> {
    let (mut writer, _) = writer(&estate.vault);
    writer.begin(beginning(0)).await.expect("begun");
    let mut backups = Vec::new();
    for hour in 1..=6 {
        push(&mut writer, hour * 10 - 5).await;
        push(&mut writer, hour * 10).await;
        writer.seal().await.expect("sealed");
        let more = json!({
            "timeline": LOG, "log_position": Position(hour * 10),
            "consistency": {"level": "point_in_time", "at": estate.now()},
        });
        backups.push(estate.backup_of(SOURCE, "complete", more).await);
        estate.pass(HOUR).await;
    }
    backups
}

#[tokio::test(start_paused = true)]
async fn retention_keeps_the_base_of_the_window_and_trims_what_lies_before_it() {
    let estate = Estate::new();
    let backups = day(&estate).await;
    // The fourth is of three and a half hours ago, the newest that is old enough.
    estate.pass(HOUR / 2).await;
    let policy = policy(3 * HOUR + HOUR / 4);
    let plan = preview(&estate.catalog(), &estate.vault, &estate.watch, &policy).await.expect("a plan");
    assert_eq!(plan.removals().count(), 4, "{plan:?}");
    assert!(plan.removals().all(|line| line.id != backups[3].id && line.id != backups[5].id), "{plan:?}");
    assert_eq!(plan.trim.segments, 1, "what ends where the oldest begins, which is there still");
    assert_eq!(serde_json::to_value(&plan).expect("JSON")["trim"]["segments"], 1);
    let report = estate.retain(&policy).await.expect("a pass");
    assert_eq!((report.proposed.len(), report.trimmed.segments), (4, 1));
    assert_eq!(report.trimmed.stored_bytes, plan.trim.stored_bytes);

    // A day later the window begins after the last one, which alone is needed.
    estate.pass(DAY).await;
    let report = estate.retain(&policy).await.expect("a pass");
    assert_eq!((report.deleted.len(), report.proposed.len(), report.trimmed.segments), (4, 1, 0));
    let report = estate.retain(&policy).await.expect("a pass");
    assert_eq!((report.pending.len(), report.trimmed.segments), (1, 3), "up to the fourth");
    estate.pass(DAY).await;
    estate.retain(&policy).await.expect("a pass");
    let report = estate.retain(&policy).await.expect("a pass");
    assert_eq!((report.deleted.len(), report.trimmed.segments), (0, 1));
    let left = timelines(&estate).await;
    let ends: Vec<u64> = left[0].segments.iter().map(|segment| segment.name.to.0).collect();
    assert_eq!((left.len(), ends), (1, vec![60]), "the last one stays, to be gone on from");
    let left = estate.catalog().list(None).await.expect("a listing").rows;
    assert_eq!(left.iter().map(|row| &row.backup).collect::<Vec<_>>(), [&backups[5]]);
}

#[tokio::test(start_paused = true)]
async fn an_old_timeline_goes_as_a_whole_and_its_beginning_last() {
    let estate = Estate::new();
    let (mut first, _) = writer(&estate.vault);
    let old = first.begin(beginning(0)).await.expect("begun");
    push(&mut first, 5).await;
    first.seal().await.expect("sealed");
    let end = End::new(Position(5), "a restore", estate.now());
    close(&estate.vault, &source(), &old, end).await.expect("closed");
    let (mut second, _) = writer(&estate.vault);
    second.begin(beginning(9)).await.expect("begun");
    push(&mut second, 12).await;
    second.seal().await.expect("sealed");
    estate.backup("complete").await;
    let week = policy(7 * DAY);
    assert!(estate.retain(&week).await.expect("a pass").trimmed.is_nothing(), "it is young");
    estate.pass(8 * DAY).await;
    let (vault, faults) = estate.through(Strike::new(u64::MAX, Blow::Fails));
    let error = estate.retain_as(&vault, &Deposed, &week).await.expect_err("deposed");
    assert_eq!(error.kind(), Kind::Conflict);
    let report = estate.retain_as(&vault, &Leads, &week).await.expect("a pass");
    assert_eq!((report.trimmed.segments, report.trimmed.timelines), (1, 1));
    let deleted: Vec<String> = faults
        .calls()
        .into_iter()
        .filter(|call| call.method == Method::Delete)
        .map(|call| call.of.rsplit('/').next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(&deleted[1..], ["end.json", "origin.json"], "{deleted:?}");
    assert_eq!(timelines(&estate).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_blow_to_any_call_of_a_trim_leaves_what_the_next_one_finishes() {
    for blow in BLOWS {
        for at in 1.. {
            let estate = Estate::new();
            let backups = day(&estate).await;
            for old in &backups[..4] {
                estate.remove(&tidekeeper::vault::layout::manifest(old)).await;
            }
            let strike = Strike::new(at, blow);
            let (vault, _) = estate.through(strike.clone());
            let policy = policy(5 * HOUR);
            let _ = estate.retain_as(&vault, &Leads, &policy).await;
            let all = timelines(&estate).await;
            let stretches = tidekeeper::vault::timeline::chain::stretches(&all[0]);
            assert_eq!((stretches.len(), stretches[0].to), (1, Position(60)), "{blow:?} at {at}");
            estate.retain(&policy).await.expect("the next pass");
            assert_eq!(keys(&estate).await.len(), 1, "{blow:?} at {at}");
            if !strike.has_struck() {
                assert!(at > 10, "{blow:?} fell on {at} calls only");
                break;
            }
        }
    }
}
