//! What `INFO` answers.

use std::collections::{BTreeMap, BTreeSet};

/// The fields of `INFO` by name.
#[derive(Clone, Debug, Default)]
pub struct Info {
    fields: BTreeMap<String, String>,
    /// Names of loaded modules; none before the server lists them here.
    pub modules: Option<BTreeSet<String>>,
}

impl Info {
    /// Reads what `INFO` answered. Modules are several lines with one name, so they are kept apart; without their
    /// heading the server is too old to list them here.
    pub fn read(text: &str) -> Info {
        let mut info = Info::default();
        for line in text.lines() {
            if line == "# Modules" {
                info.modules.get_or_insert_default();
            } else if let Some(module) = line.strip_prefix("module:name=") {
                let name = module.split(',').next().unwrap_or(module);
                info.modules.get_or_insert_default().insert(name.to_owned());
            } else if let Some((name, value)) = line.split_once(':') {
                info.fields.insert(name.to_owned(), value.to_owned());
            }
        }
        info
    }

    /// A field's text; empty if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// `dbN:keys=..,expires=..`
    pub fn keyspace(&self) -> BTreeMap<u32, Keyspace> {
        let dbs = self.fields.iter().filter_map(|(name, value)| {
            let db = name.strip_prefix("db")?.parse().ok()?;
            let field = |wanted: &str| {
                value.split(',').find_map(|part| part.strip_prefix(wanted)?.strip_prefix('=')?.parse().ok())
            };
            Some((db, Keyspace { keys: field("keys")?, expires: field("expires")? }))
        });
        dbs.collect()
    }
}

/// Counts of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyspace {
    /// Keys.
    pub keys: u64,
    /// Those with a time to live.
    pub expires: u64,
}
