//! When a series is due: cron or a multiple of a span. Pure.
//!
//! Cron is evaluated on civil time, and a civil time is mapped to one instant: the first at which the zone's clocks show
//! it or have passed it. So what DST skips is due at the next valid instant, what it repeats is due once, and due
//! times stay in order, whatever the zone does.

use std::time::Duration;

use croner::Cron;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, civil};

use crate::config::When;
use crate::config::units::Zone;

/// The due times of a series: infinitely many, in order.
#[derive(Clone, Debug)]
pub enum Rhythm {
    /// Five fields on the civil time of a zone.
    Cron(Box<Cron>, TimeZone),
    /// Multiples of a span, in nanoseconds since the Unix epoch.
    Every(i128),
}

impl Rhythm {
    /// The due times of `when` on the clocks of `zone`. No span is shorter than a second: nobody could keep up with it.
    pub fn new(when: &When, zone: &Zone) -> Self {
        match when {
            When::Every(span) => Rhythm::Every((*span).max(Duration::from_secs(1)).as_nanos() as i128),
            When::Cron(cron) => Rhythm::Cron(cron.0.clone(), zone.0.clone()),
        }
    }

    /// The newest due time that is not after `now`.
    pub fn latest(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Rhythm::Every(span) => instant(now.as_nanosecond().div_euclid(*span) * span),
            Rhythm::Cron(cron, zone) => {
                let passed = last_passed(now, zone);
                let due = cron.find_previous_occurrence(&passed, true).ok()?;
                first_instant(due, zone)
            }
        }
    }

    /// The newest due time before `time`.
    pub fn before(&self, time: Timestamp) -> Option<Timestamp> {
        self.latest(time.checked_sub(SignedDuration::from_nanos(1)).ok()?)
    }

    /// The first due time after `now`.
    pub fn next(&self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Rhythm::Every(span) => instant((now.as_nanosecond().div_euclid(*span) + 1) * span),
            Rhythm::Cron(cron, zone) => {
                let mut civil = last_passed(now, zone);
                // In a gap several civil times are due at its one end: the first after `now` may need a few steps.
                loop {
                    civil = cron.find_next_occurrence(&civil, false).ok()?;
                    let due = first_instant(civil, zone)?;
                    if due > now {
                        return Some(due);
                    }
                }
            }
        }
    }
}

fn instant(nanoseconds: i128) -> Option<Timestamp> {
    Timestamp::from_nanosecond(nanoseconds).ok()
}

/// The last civil time, to the second, whose first instant is not after `now`: what the clocks show, except while they
/// repeat themselves; then the end of what is repeated.
fn last_passed(now: Timestamp, zone: &TimeZone) -> civil::DateTime {
    let shown = zone.to_datetime(now);
    let repeated = match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Fold { before, after } if zone.to_offset(now) == after => Some(before),
        _ => None,
    };
    let back = |before| zone.preceding(plus(now, 1)).next().map(|t| before_last(before, t.timestamp()));
    repeated.and_then(back).unwrap_or_else(|| whole_second(shown))
}

/// The last second that the clocks showed before they were set back at `transition`.
fn before_last(before: jiff::tz::Offset, transition: Timestamp) -> civil::DateTime {
    before.to_datetime(plus(transition, -1_000_000_000))
}

fn plus(time: Timestamp, nanoseconds: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_nanos(nanoseconds)).unwrap_or(time)
}

fn whole_second(time: civil::DateTime) -> civil::DateTime {
    time.with().subsec_nanosecond(0).build().unwrap_or(time)
}

/// The first instant at which the clocks show `civil` or have passed it.
fn first_instant(civil: civil::DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(civil);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { before, .. } => {
            // Counted on with the old offset, the skipped time lies after the jump: the jump is the one before it.
            let behind = before.to_timestamp(civil).ok()?;
            zone.preceding(plus(behind, 1)).next().map(|transition| transition.timestamp())
        }
        _ => ambiguous.earlier().ok(),
    }
}
