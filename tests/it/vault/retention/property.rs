//! The plan against the model, over random histories: DST zones, clocks set back and ahead, every worth and mark.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tidekeeper::config::Retention;
use tidekeeper::vault::layout::BackupId;
use tidekeeper::vault::retention::{Action, Proof, Row, Situation, Worth, plan};
use tidekeeper::vault::store_clock::{Reading, Trust};

use super::super::estate::Dice;
use super::model;

const HISTORIES: u64 = 100_000;
const FIRST_SEED: u64 = 20_261_121;

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Asia/Kathmandu",
    "America/St_Johns",
    "Africa/Casablanca",
];

/// Around changes of clocks: Berlin in spring and autumn, Lord Howe's half hour, the day that Apia skipped, two new
/// years with and without a 53rd week.
const STARTS: [&str; 7] = [
    "2026-03-28T20:00:00Z",
    "2026-10-24T20:00:00Z",
    "2027-04-03T12:00:00Z",
    "2011-12-29T06:00:00Z",
    "2026-12-28T00:00:00Z",
    "2027-12-27T00:00:00Z",
    "2028-02-27T00:00:00Z",
];

const STEPS: [i64; 7] = [600, 1_800, 3_600, 6 * 3_600, 86_400, 7 * 86_400, 31 * 86_400];

#[derive(Debug)]
struct History {
    situation: Situation,
    policy: Retention,
    rows: Vec<Row>,
}

fn history(seed: u64, zones: &[TimeZone]) -> History {
    let mut dice = Dice(seed);
    let step = *dice.pick(&STEPS);
    let mut time: Timestamp = dice.pick(&STARTS).parse().expect("a time");
    let mut rows: Vec<Row> = Vec::new();
    for _ in 0..dice.below(18) {
        time += SignedDuration::from_secs(step / 2 + dice.below(step as u64) as i64);
        if dice.chance(2) {
            // A clock set back: the id still sorts after the newest.
            time -= SignedDuration::from_hours(dice.below(72) as i64);
        }
        let newest = rows.last().map(|row| &row.id);
        let id = BackupId::new(time, newest, dice.next() as u32);
        let row = row(&mut dice, id, time, &rows);
        rows.push(row);
    }
    let late = SignedDuration::from_secs(dice.below(4 * step as u64 + 1) as i64);
    let now = if dice.chance(5) { time - late } else { time + late };
    let trust = if dice.chance(3) { Trust::No("a jump".to_owned()) } else { Trust::Yes };
    let interval = dice.chance(30).then(|| Duration::from_secs(step as u64));
    let situation = Situation { clock: Reading { now, trust }, zone: dice.pick(zones).clone(), interval };
    let policy = policy(&mut dice, step as u64);
    if dice.chance(50) {
        // Listings come sorted; the plan must not rely on it.
        rows.reverse();
    }
    History { situation, policy, rows }
}

fn row(dice: &mut Dice, id: BackupId, time: Timestamp, older: &[Row]) -> Row {
    let worth = match dice.below(100) {
        0..60 => Worth::Good,
        60..72 => Worth::Partial,
        72..82 => Worth::Suspect,
        82..88 => Worth::Damaged,
        88..95 => Worth::Abandoned,
        _ => Worth::Unknown("status \"frozen\"".to_owned()),
    };
    let skew = if dice.chance(5) { dice.below(172_800) as i64 - 86_400 } else { dice.below(600) as i64 };
    let requires = if dice.chance(20) && !older.is_empty() {
        vec![dice.pick(older).id.clone(), BackupId::new(time, None, 7)]
    } else {
        Vec::new()
    };
    Row {
        id,
        stored_at: time + SignedDuration::from_secs(skew),
        worth,
        proven: [None, None, None, Some(Proof::Verified), Some(Proof::Restored)][dice.below(5) as usize],
        held: dice.chance(4).then(|| "held by anna: audit".to_owned()),
        requires,
        used_by: None,
        promised: dice.chance(3),
        unreadable: dice.chance(1).then(|| "EOF".to_owned()),
    }
}

fn policy(dice: &mut Dice, step: u64) -> Retention {
    let mut few = |percent| if dice.chance(percent) { dice.below(5) as u32 } else { 0 };
    let [keep_last, hourly, daily, weekly, monthly, yearly] = [60, 40, 40, 40, 30, 30].map(&mut few);
    let keep_within = Duration::from_secs(if dice.chance(50) { dice.below(6 * step) } else { 0 });
    let grace = Duration::from_secs(dice.below(2 * 86_400));
    Retention {
        keep_within,
        keep_last,
        hourly,
        daily,
        weekly,
        monthly,
        yearly,
        window: Duration::ZERO,
        grace,
    }
}

#[test]
fn the_plan_is_what_its_definition_says() {
    let zones: Vec<TimeZone> = ZONES.iter().map(|name| TimeZone::get(name).expect("a zone")).collect();
    let (mut removed, mut kept) = (0, 0);
    for seed in FIRST_SEED..FIRST_SEED + HISTORIES {
        let History { situation, policy, rows } = history(seed, &zones);
        let plan = plan(&situation, &policy, &rows);
        let say = || format!("seed {seed}: {situation:#?} {policy:#?} {rows:#?} {plan:#?}");
        let stays: BTreeSet<BackupId> = plan
            .lines
            .iter()
            .filter(|line| line.action == Action::Keep)
            .map(|line| line.id.clone())
            .collect();
        assert_eq!(stays, model::stays(&situation, &policy, &rows), "{}", say());
        assert_eq!(plan.lines.len(), rows.len(), "a line for each: {}", say());
        assert!(plan.lines.iter().all(|line| !line.reasons.is_empty()), "a reason for each: {}", say());
        for line in plan.removals() {
            assert!(!line.relies_on.is_empty(), "{}", say());
            assert!(line.relies_on.iter().all(|id| stays.contains(id)), "it relies on what stays: {}", say());
            removed += 1;
        }
        kept += stays.len();
    }
    println!("{HISTORIES} histories from seed {FIRST_SEED}: {kept} backups kept, {removed} removed");
    assert!(removed > kept / 20, "the histories let too little go to say anything: {removed} of {kept}");
}
