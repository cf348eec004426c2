//! What somebody may wish of a restore into a Redis.

use serde_json::Value;

use super::glob::Pattern;
use crate::config::shape::nearest;
use crate::error::{Error, Kind, Result};
use crate::source::Wish;

/// The options of a restore, checked.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Options {
    /// `way`: how the data gets into the server.
    pub way: WishedWay,
    /// `keys`: only keys that match this pattern, and no functions; all other keys stay as they are.
    pub keys: Option<Keys>,
    /// `replace`: with `keys`, overwrite keys that exist. A restore of everything always does.
    pub replace: bool,
}

/// `way`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WishedWay {
    /// Replication where it is possible.
    #[default]
    Auto,
    /// As the target's master.
    Replication,
    /// By `RESTORE` commands.
    Restore,
}

/// `keys`, and what it was read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Keys {
    /// As it was typed.
    pub text: String,
    /// As it is matched.
    pub pattern: Pattern,
}

const NAMES: [&str; 3] = ["way", "keys", "replace"];
const DOING: &str = "reading the options of the restore";

impl Options {
    /// Checks a wish.
    pub fn read(wish: &Wish) -> Result<Options> {
        let mut options = Options::default();
        for (name, value) in &wish.options {
            match name.as_str() {
                "way" => options.way = way(value)?,
                "keys" => options.keys = Some(keys(value)?),
                "replace" => options.replace = truth(value)?,
                _ => return Err(unknown(name)),
            }
        }
        if options.keys.is_some() && options.way == WishedWay::Replication {
            let why = "way=replication brings everything, keys=PATTERN only some";
            return Err(Error::new(Kind::Usage, DOING, why).hint("leave one of the two out"));
        }
        Ok(options)
    }
}

fn way(value: &Value) -> Result<WishedWay> {
    match value.as_str() {
        Some("auto") => Ok(WishedWay::Auto),
        Some("replication") => Ok(WishedWay::Replication),
        Some("restore") => Ok(WishedWay::Restore),
        _ => Err(wrong("way", value, "one of auto, replication, restore")),
    }
}

fn keys(value: &Value) -> Result<Keys> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(Keys { text: text.to_owned(), pattern: Pattern::new(text) }),
        _ => Err(wrong("keys", value, "a pattern as KEYS takes it, for example \"user:*\"")),
    }
}

fn truth(value: &Value) -> Result<bool> {
    match value {
        Value::Bool(yes) => Ok(*yes),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        _ => Err(wrong("replace", value, "true or false")),
    }
}

fn wrong(name: &str, value: &Value, expected: &str) -> Error {
    Error::new(Kind::Usage, DOING, format!("{name} is {value}, expected was {expected}"))
}

fn unknown(name: &str) -> Error {
    let meant = nearest(name, NAMES).map(|near| format!("did you mean {near:?}? ")).unwrap_or_default();
    Error::new(Kind::Usage, DOING, format!("there is no option {name:?}"))
        .hint(format!("{meant}A restore into a Redis knows {}", NAMES.join(", ")))
}
