//! What somebody may wish of a restore into a MongoDB.

use serde_json::Value;

use super::optime::OpTime;
use crate::config::shape::nearest;
use crate::error::{Error, Kind, Result};
use crate::source::Wish;

/// The options of a restore, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// `include`: only databases and collections that match one of these patterns; empty: everything.
    pub include: Vec<String>,
    /// `rename`: `from=to`, databases or collections.
    pub rename: Vec<String>,
    /// `drop`: collections that the restore brings are dropped first where the target has them.
    pub drop: bool,
    /// `users`: whether users and roles are restored; unsaid: with everything, and not with a selection.
    pub users: Option<bool>,
    /// `until`: the last entry of the log that is applied, instead of a second.
    pub until: Option<OpTime>,
    /// `workers`: how many batches of documents are on their way at the same time.
    pub workers: usize,
}

const NAMES: [&str; 6] = ["include", "rename", "drop", "users", "until", "workers"];
const DOING: &str = "reading the options of the restore";

/// More than this and a server is only kept from its other work.
const WORKERS_MAX: usize = 16;

impl Default for Options {
    fn default() -> Self {
        let (include, rename) = (Vec::new(), Vec::new());
        Options { include, rename, drop: false, users: None, until: None, workers: 4 }
    }
}

impl Options {
    /// Checks a wish.
    ///
    /// # Errors
    /// `Usage`, naming the option and what was expected.
    pub fn read(wish: &Wish) -> Result<Options> {
        let mut options = Options::default();
        for (name, value) in &wish.options {
            match name.as_str() {
                "include" => options.include = texts(name, value, "patterns like \"shop\" or \"shop.o*\"")?,
                "rename" => options.rename = texts(name, value, "from=to, like \"shop=shop_old\"")?,
                "drop" => options.drop = truth(name, value)?,
                "users" => options.users = Some(truth(name, value)?),
                "until" => options.until = Some(optime(value)?),
                "workers" => options.workers = workers(value)?,
                _ => return Err(unknown(name)),
            }
        }
        Ok(options)
    }
}

/// `1764301234:5`, as the manifest and the server's own tools write it.
pub fn parse_optime(text: &str) -> Option<OpTime> {
    let (seconds, increment) = text.split_once(':')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(seconds) || !digits(increment) {
        return None;
    }
    Some(OpTime { seconds: seconds.parse().ok()?, increment: increment.parse().ok()? })
}

/// One text, or several.
fn texts(name: &str, value: &Value, expected: &str) -> Result<Vec<String>> {
    let wrong = || wrong(name, value, expected);
    let text = |value: &Value| match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(wrong()),
    };
    match value {
        Value::Array(values) if !values.is_empty() => values.iter().map(text).collect(),
        value => Ok(vec![text(value)?]),
    }
}

fn truth(name: &str, value: &Value) -> Result<bool> {
    match value {
        Value::Bool(yes) => Ok(*yes),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(wrong(name, value, "true or false")),
    }
}

fn optime(value: &Value) -> Result<OpTime> {
    let expected =
        "an opTime, seconds:increment, like \"1764301234:5\"; a second is given by the restore's `at`";
    value.as_str().and_then(parse_optime).ok_or_else(|| wrong("until", value, expected))
}

fn workers(value: &Value) -> Result<usize> {
    let given = match value {
        Value::String(text) => text.parse().ok(),
        value => value.as_u64().and_then(|given| usize::try_from(given).ok()),
    };
    given
        .filter(|given| (1..=WORKERS_MAX).contains(given))
        .ok_or_else(|| wrong("workers", value, &format!("a number from 1 to {WORKERS_MAX}")))
}

fn wrong(name: &str, value: &Value, expected: &str) -> Error {
    Error::new(Kind::Usage, DOING, format!("{name} is {value}, expected was {expected}"))
}

fn unknown(name: &str) -> Error {
    let meant = nearest(name, NAMES).map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
    Error::new(Kind::Usage, DOING, format!("there is no option {name:?}"))
        .hint(format!("{meant}A restore into a MongoDB knows {}", NAMES.join(", ")))
}
