//! Hours, days, weeks, months and years as people of a time zone count them.

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::config::Retention;

/// A kind of period that retention keeps the newest backup of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Period {
    /// An hour on the wall clock; the one that DST repeats counts as two.
    Hour,
    /// A calendar day.
    Day,
    /// A week from Monday on, of the ISO year.
    Week,
    /// A calendar month.
    Month,
    /// A calendar year.
    Year,
}

impl Period {
    /// All, the shortest first.
    pub const ALL: [Period; 5] = [Period::Hour, Period::Day, Period::Week, Period::Month, Period::Year];

    /// The rule's name in the configuration.
    pub fn rule(self) -> &'static str {
        match self {
            Period::Hour => "hourly",
            Period::Day => "daily",
            Period::Week => "weekly",
            Period::Month => "monthly",
            Period::Year => "yearly",
        }
    }

    /// How many of them `policy` keeps.
    pub fn count(self, policy: &Retention) -> u32 {
        match self {
            Period::Hour => policy.hourly,
            Period::Day => policy.daily,
            Period::Week => policy.weekly,
            Period::Month => policy.monthly,
            Period::Year => policy.yearly,
        }
    }

    /// Names the period in which `time` lies in `zone`: equal names, same period.
    pub fn name(self, time: Timestamp, zone: &TimeZone) -> String {
        let local = time.to_zoned(zone.clone());
        match self {
            Period::Hour => local.strftime("%Y-%m-%dT%H%:z").to_string(),
            Period::Day => local.date().to_string(),
            Period::Week => {
                let week = local.date().iso_week_date();
                format!("{:04}-W{:02}", week.year(), week.week())
            }
            Period::Month => local.strftime("%Y-%m").to_string(),
            Period::Year => local.strftime("%Y").to_string(),
        }
    }
}
