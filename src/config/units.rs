//! Values that are written as text and mean more: sizes, durations, cron expressions, time zones.
//!
//! Each names itself in the JSON Schema by `format`; [`check`] is how [`shape`](super::shape) knows, while it
//! walks, that a later conversion cannot fail.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::TimeZone;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::SourceName;

/// Checks a text against a `format` of the schema; formats that are not ours always pass.
pub fn check(format: &str, text: &str) -> Result<(), String> {
    match format {
        Period::FORMAT => text.parse::<Period>().map(drop),
        Size::FORMAT => text.parse::<Size>().map(drop),
        CronText::FORMAT => text.parse::<CronText>().map(drop),
        Zone::FORMAT => text.parse::<Zone>().map(drop),
        Listen::FORMAT => text.parse::<Listen>().map(drop),
        NAME_FORMAT => text
            .parse::<SourceName>()
            .map(drop)
            .map_err(|error| format!("{text:?} is not a name: {}", error.hint_text().unwrap_or_default())),
        _ => Ok(()),
    }
}

/// Says what a `format` of ours expects.
pub fn expected(format: &str) -> Option<&'static str> {
    Some(match format {
        Period::FORMAT => "a duration such as 30s, 5m, 6h or 7d",
        Size::FORMAT => "a size such as 512MiB or 4GiB",
        CronText::FORMAT => "a cron expression of five fields such as \"0 */6 * * *\"",
        Zone::FORMAT => "an IANA time zone such as UTC or Europe/Berlin",
        Listen::FORMAT => "an address and a port such as 127.0.0.1:8080",
        NAME_FORMAT => "a name of lower-case letters, digits and inner hyphens",
        _ => return None,
    })
}

/// The names of sources and targets.
const NAME_FORMAT: &str = "dns-label";

impl JsonSchema for SourceName {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "SourceName".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": NAME_FORMAT,
            "maxLength": 63,
            "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
        })
    }
}

/// Ties a text type to its `format`: serde by way of `FromStr`, and the schema.
macro_rules! text_format {
    ($type:ty, $format:literal, $json_type:tt) => {
        impl $type {
            /// Its name in the JSON Schema.
            pub const FORMAT: &'static str = $format;
        }

        impl TryFrom<String> for $type {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(value: $type) -> String {
                value.to_string()
            }
        }

        impl JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": $json_type, "format": $format })
            }
        }
    };
}

/// A duration as people write it: `90s`, `5m`, `1h30m`, `7d`, `2w`; down to milliseconds (`250ms`). A day is
/// 24 hours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(pub Duration);

text_format!(Period, "human-duration", ["string", "integer"]);

/// Units of a [`Period`] in milliseconds, the longest first.
const PERIODS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

impl FromStr for Period {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text:?} is not a duration: {why}; expected for example 30s, 5m, 1h30m or 7d")
        };
        let mut rest = text.trim();
        if rest.is_empty() {
            return Err(wrong("it is empty"));
        }
        if rest == "0" {
            return Ok(Period::default());
        }
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (number, unit, after) = number_and_unit(rest);
            let number: u64 = number.parse().map_err(|_| wrong("a number is missing or too large"))?;
            let known = PERIODS.iter().find(|(name, _)| *name == unit);
            let (_, ms) = known.ok_or_else(|| wrong("the units are ms, s, m, h, d, w"))?;
            let part = number.checked_mul(*ms);
            total = part.and_then(|part| total.checked_add(part)).ok_or_else(|| wrong("it is too long"))?;
            rest = after;
        }
        match i64::try_from(total) {
            Ok(_) => Ok(Period(Duration::from_millis(total))),
            Err(_) => Err(wrong("it is too long")),
        }
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut ms = self.0.as_millis();
        if ms == 0 {
            return f.write_str("0s");
        }
        for (unit, length) in PERIODS {
            let count = ms / u128::from(length);
            if count > 0 {
                write!(f, "{count}{unit}")?;
                ms %= u128::from(length);
            }
        }
        Ok(())
    }
}

/// A number of bytes: `512MiB`, `4GiB`, `10GB`, `0`. Binary and decimal units mean what they say; `K`, `M`,
/// `G` alone are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size(pub u64);

text_format!(Size, "byte-size", ["string", "integer"]);

/// Units of a [`Size`] in bytes.
const SIZES: [(&str, u64); 10] = [
    ("", 1),
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("{text:?} is not a size: {why}; expected for example 512MiB, 4GiB or 10GB");
        let (number, unit, after) = number_and_unit(text.trim());
        let number: u64 = number.parse().map_err(|_| wrong("expected a whole number and a unit"))?;
        let known = SIZES.iter().find(|(name, _)| *name == unit && after.is_empty());
        let (_, bytes) = known.ok_or_else(|| wrong("the units are B, KiB, MiB, GiB, TiB, kB, MB, GB, TB"))?;
        number.checked_mul(*bytes).map(Size).ok_or_else(|| wrong("it is too large"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exact = |(_, bytes): &&(&str, u64)| self.0 >= *bytes && self.0.is_multiple_of(*bytes);
        let (unit, bytes) = SIZES[1..6].iter().rev().find(exact).unwrap_or(&("B", 1));
        write!(f, "{}{unit}", self.0 / bytes)
    }
}

/// Splits `12 h30m` into `12`, `h` and `30m`.
fn number_and_unit(text: &str) -> (&str, &str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    (number, unit, rest.trim_start())
}

/// A cron expression of five fields, no seconds, no years, and how it was written. Names of months and weekdays, lists,
/// ranges and steps are allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CronText(pub Box<croner::Cron>, String);

text_format!(CronText, "cron", "string");

impl FromStr for CronText {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &dyn fmt::Display| {
            let fields = "minute, hour, day of month, month, day of week";
            format!("{text:?} is not a cron expression: {why}; expected {fields}")
        };
        let fields = text.split_whitespace().count();
        if fields != 5 {
            return Err(wrong(&format_args!("five fields are needed, found {fields}")));
        }
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|cause| wrong(&cause.to_string().trim_end_matches('.')))?;
        Ok(CronText(Box::new(cron), text.to_owned()))
    }
}

impl fmt::Display for CronText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.1)
    }
}

/// An IANA time zone that this machine knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(pub TimeZone);

text_format!(Zone, "iana-time-zone", "string");

impl Default for Zone {
    fn default() -> Self {
        Zone(TimeZone::UTC)
    }
}

impl FromStr for Zone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        TimeZone::get(text).map(Zone).map_err(|_| {
            format!("{text:?} is not a time zone; expected an IANA name such as UTC or Europe/Berlin")
        })
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.iana_name().unwrap_or("UTC"))
    }
}

/// Where a server listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Listen(pub std::net::SocketAddr);

text_format!(Listen, "socket-address", "string");

impl Default for Listen {
    fn default() -> Self {
        Listen(std::net::SocketAddr::from(([127, 0, 0, 1], 8080)))
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("{text:?} is not an address and a port; expected for example 127.0.0.1:8080");
        text.parse().map(Listen).map_err(wrong)
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
