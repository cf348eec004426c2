//! Retention as its definition reads: slow, and obviously right.

use std::collections::BTreeSet;

use jiff::civil::Weekday;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use tidekeeper::config::Retention;
use tidekeeper::vault::layout::BackupId;
use tidekeeper::vault::retention::{Proof, Row, Situation, Worth};
use tidekeeper::vault::store_clock::Trust;

/// The ids that stay.
pub fn stays(situation: &Situation, policy: &Retention, rows: &[Row]) -> BTreeSet<BackupId> {
    let periods: Vec<[String; 5]> = rows.iter().map(|row| periods(row, &situation.zone)).collect();
    let everything = || rows.iter().map(|row| row.id.clone()).collect();
    if waits(situation, rows) {
        return everything();
    }
    let mut stays: BTreeSet<BackupId> = (0..rows.len())
        .filter(|&n| by_rule(situation, policy, rows, &periods, n) || for_safety(situation, policy, rows, n))
        .map(|n| rows[n].id.clone())
        .collect();
    loop {
        let required: Vec<BackupId> = rows
            .iter()
            .filter(|row| stays.contains(&row.id))
            .flat_map(|row| row.requires.clone())
            .filter(|id| rows.iter().any(|row| row.id == *id))
            .collect();
        let before = stays.len();
        stays.extend(required);
        if stays.len() == before {
            return stays;
        }
    }
}

fn good(row: &Row) -> bool {
    row.worth == Worth::Good
}

fn usable(row: &Row) -> bool {
    row.worth == Worth::Good || row.worth == Worth::Partial
}

fn seconds(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::from_secs(duration.as_secs() as i64)
}

fn waits(situation: &Situation, rows: &[Row]) -> bool {
    let newest_of =
        |class: fn(&Row) -> bool| rows.iter().filter(|row| class(row)).max_by_key(|row| row.id.clone());
    let Some(newest) = newest_of(good).or(newest_of(usable)) else { return true };
    let silent = situation.interval.is_some_and(|interval| {
        newest.stored_at + seconds(interval) + seconds(interval) < situation.clock.now
    });
    situation.clock.trust != Trust::Yes || rows.iter().any(|row| row.unreadable.is_some()) || silent
}

fn by_rule(
    situation: &Situation,
    policy: &Retention,
    rows: &[Row],
    periods: &[[String; 5]],
    n: usize,
) -> bool {
    let row = &rows[n];
    let age = |born: Timestamp| situation.clock.now.duration_since(born);
    let young =
        age(row.stored_at) < seconds(policy.keep_within) || age(row.id.time()) < seconds(policy.keep_within);
    if young && row.worth != Worth::Abandoned {
        return true;
    }
    let counts = [policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly];
    [good as fn(&Row) -> bool, usable].into_iter().any(|class| {
        let newer: Vec<usize> = (0..rows.len()).filter(|&m| class(&rows[m]) && rows[m].id > row.id).collect();
        class(row)
            && (newer.len() < policy.keep_last as usize
                || (0..5).any(|rule| {
                    let taken: BTreeSet<&String> = newer.iter().map(|&m| &periods[m][rule]).collect();
                    taken.len() < counts[rule] as usize && !taken.contains(&periods[n][rule])
                }))
    })
}

fn for_safety(situation: &Situation, policy: &Retention, rows: &[Row], n: usize) -> bool {
    let row = &rows[n];
    let is_last = |class: &dyn Fn(&Row) -> bool| {
        class(row) && !rows.iter().any(|other| class(other) && other.id > row.id)
    };
    let grace = seconds(policy.grace) + SignedDuration::from_hours(30 * 24);
    is_last(&good)
        || is_last(&usable)
        || is_last(&|row| usable(row) && row.proven.is_some())
        || is_last(&|row| usable(row) && row.proven == Some(Proof::Restored))
        || row.held.is_some()
        || row.used_by.is_some()
        || row.promised
        || matches!(row.worth, Worth::Unknown(_))
        || (row.worth == Worth::Suspect && !rows.iter().any(|other| good(other) && other.id > row.id))
        || (row.worth == Worth::Abandoned && situation.clock.now < row.stored_at + grace)
}

/// Hour, day, week, month and year, by civil arithmetic.
fn periods(row: &Row, zone: &TimeZone) -> [String; 5] {
    let local = row.id.time().to_zoned(zone.clone());
    let date = local.date();
    let since_monday = date.weekday().since(Weekday::Monday);
    let monday = date.checked_sub(i32::from(since_monday).days()).expect("dates of our era");
    [
        format!("{date} {} {}", local.hour(), local.offset().seconds()),
        date.to_string(),
        monday.to_string(),
        format!("{} {}", date.year(), date.month()),
        date.year().to_string(),
    ]
}
