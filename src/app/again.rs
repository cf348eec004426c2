//! The command that orders a restore again: the same moment, the same selection, the same target.

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::App;
use crate::engine::work::{Action, Order};
use crate::vault::layout::BackupRef;

/// What of an order a command can say.
#[derive(Deserialize)]
struct Asked {
    backup: BackupRef,
    #[serde(default)]
    at: Option<Timestamp>,
    #[serde(default)]
    options: Map<String, Value>,
}

/// Options that have an argument of their own, and may be given several times.
const LISTS: [&str; 2] = ["include", "rename"];

/// The same of one alone.
const KEYS: &str = "keys";

impl App {
    /// The command that restores again what `order` restores, over what was left half done; `None` for other orders.
    pub(super) fn restore_again(&self, order: &Order) -> Option<String> {
        if order.action != Action::Restore {
            return None;
        }
        let mut asked: Asked = serde_json::from_value(order.params.clone()).ok()?;
        let target = order.source.as_ref()?;
        // One that this configuration does not name is of the kind of what goes into it.
        let system = self.target(target).ok().or_else(|| self.source(&asked.backup.source).ok());
        if let Some(kind) = system.and_then(|system| self.kind(system.kind())) {
            kind.restore_again(&mut asked.options);
        }
        let mut words = vec!["tidekeeper".to_owned(), "restore".to_owned()];
        match asked.at {
            Some(at) => words.extend([asked.backup.source.to_string(), "--at".to_owned(), at.to_string()]),
            None => words.push(asked.backup.to_string()),
        }
        words.extend(["--to".to_owned(), target.to_string()]);
        for (name, value) in &asked.options {
            words.extend(argument(name, value));
        }
        Some(words.join(" "))
    }
}

fn argument(name: &str, value: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let one = |value: &Value| [format!("--{name}"), quoted(&text(value))];
    match value {
        Value::Array(list) if LISTS.contains(&name) => list.iter().flat_map(one).collect(),
        Value::String(_) if LISTS.contains(&name) || name == KEYS => one(value).to_vec(),
        Value::Bool(true) if name == "drop" => vec!["--drop".to_owned()],
        _ => vec!["--option".to_owned(), quoted(&format!("{name}={}", text(value)))],
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    match !text.is_empty() && text.chars().all(is_plain) {
        true => text.to_owned(),
        false => format!("'{}'", text.replace('\'', "'\\''")),
    }
}
