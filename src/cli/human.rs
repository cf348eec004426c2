//! Numbers as people read them: sizes, ages, durations, counts.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};

pub use crate::words::bytes;

/// `944,000`.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() + digits.len() / 3);
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `350 ms`, `12.3 s`, `4 min 05 s`, `2 h 07 min`, `3 d 4 h`.
pub fn duration(duration: Duration) -> String {
    let whole = duration.as_secs();
    let (minutes, hours, days) = (whole / 60, whole / 3_600, whole / 86_400);
    match whole {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64().min(59.9)),
        60..3_600 => format!("{minutes} min {:02} s", whole % 60),
        3_600..86_400 => format!("{hours} h {:02} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

/// `2026-11-21T06:00:00Z`: what other commands take, to the second.
pub fn time(time: Timestamp) -> String {
    time.round(Unit::Second).unwrap_or(time).to_string()
}

/// `2 h ago`, `in 5 min`, `now`: the largest unit is enough to see whether something is late.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let since: SignedDuration = now.duration_since(then);
    let length = match since.unsigned_abs().as_secs() {
        0..2 => return "now".to_owned(),
        seconds @ 2..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    };
    if since.is_negative() { format!("in {length}") } else { format!("{length} ago") }
}
