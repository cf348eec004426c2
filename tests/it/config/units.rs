//! Durations, sizes, cron expressions and time zones.

use std::time::Duration;

use proptest::prelude::*;
use tidekeeper::config::units::{CronText, Period, Size, Zone};

#[test]
fn durations() {
    let read = |text: &str| text.parse::<Period>().map(|period| period.0);
    for (text, ms) in [
        ("0", 0),
        ("250ms", 250),
        ("90s", 90_000),
        ("5m", 300_000),
        ("1h30m", 5_400_000),
        ("1h 30m", 5_400_000),
        ("7d", 604_800_000),
        ("2w", 1_209_600_000),
    ] {
        assert_eq!(read(text), Ok(Duration::from_millis(ms)), "{text}");
    }
    for wrong in ["", "5", "m", "-5m", "5 minutes", "1.5h", "5M", "99999999999999999999s", "9999999999999w"] {
        let message = read(wrong).expect_err(wrong);
        assert!(message.contains("is not a duration"), "{message}");
    }
}

#[test]
fn sizes() {
    let read = |text: &str| text.parse::<Size>().map(|size| size.0);
    for (text, bytes) in
        [("0", 0), ("17", 17), ("1 KiB", 1 << 10), ("4GiB", 4 << 30), ("10GB", 10_000_000_000)]
    {
        assert_eq!(read(text), Ok(bytes), "{text}");
    }
    for wrong in ["", "GiB", "4G", "4gib", "4.5GiB", "-1", "4GiB4", "99999999TiB"] {
        let message = read(wrong).expect_err(wrong);
        assert!(message.contains("is not a size"), "{message}");
    }
}

#[test]
fn cron_has_five_fields() {
    for right in ["0 */6 * * *", "*/5 0-12 1,15 JAN-MAR MON", "0 0 L * *"] {
        right.parse::<CronText>().expect(right);
    }
    for wrong in
        ["", "@daily", "0 * * *", "0 0 * * * *", "60 * * * *", "0 24 * * *", "a b c d e", "0 0 0 * *"]
    {
        let message = wrong.parse::<CronText>().expect_err(wrong);
        assert!(message.contains("is not a cron expression"), "{message}");
    }
}

#[test]
fn zones_are_of_iana() {
    for right in ["UTC", "Europe/Berlin", "America/New_York"] {
        right.parse::<Zone>().expect(right);
    }
    for wrong in ["", "Berlin", "+02:00", "../../etc/passwd"] {
        wrong.parse::<Zone>().expect_err(wrong);
    }
}

proptest! {
    #[test]
    fn what_is_shown_is_read_back(ms in 0u64..10_000_000_000_000, bytes: u64) {
        let period = Period(Duration::from_millis(ms));
        prop_assert_eq!(period.to_string().parse(), Ok(period));
        prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
    }

    #[test]
    fn no_text_panics(text in "\\PC{0,20}|[0-9a-zA-Z*/@# ,-]{0,20}") {
        let _ = text.parse::<Period>();
        let _ = text.parse::<Size>();
        let _ = text.parse::<CronText>();
        let _ = text.parse::<Zone>();
    }
}
