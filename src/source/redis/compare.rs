//! Compares what a target holds with what a backup says it should. Pure.

use serde_json::Value;

use super::server::{Keyspace, Server};
use crate::source::Check;
use crate::vault::manifest::Contents;

/// The name of a database's namespace in [`Contents`].
pub fn namespace(db: u32) -> String {
    format!("db{db}")
}

/// Per database the keys without a time to live, of which none may be missing, and those with one, of which some may
/// have ended since the backup; and the function libraries.
pub fn compare(expected: &Contents, server: &Server) -> Vec<Check> {
    let mut checks = Vec::new();
    let held = server.keyspace.keys().map(|db| namespace(*db));
    let mut names: Vec<String> = expected.namespaces.keys().cloned().chain(held).collect();
    names.sort_by_key(|name| (name.len(), name.clone()));
    names.dedup();
    for name in names {
        let keys = expected.namespaces.get(&name).map_or(0, |counts| counts.items);
        let expires = expected.facts.get("expires").and_then(|expires| expires.get(&name));
        let expires = expires.and_then(Value::as_u64).unwrap_or_default();
        let found = name.strip_prefix("db").and_then(|db| server.keyspace.get(&db.parse().ok()?));
        checks.extend(database(&name, Keyspace { keys, expires }, found.copied().unwrap_or_default()));
    }
    let functions = expected.facts.get("functions").and_then(Value::as_u64).unwrap_or_default();
    checks.push(Check {
        name: "function libraries".to_owned(),
        expected: functions.to_string(),
        found: server.libraries.to_string(),
        passed: functions == server.libraries,
    });
    checks
}

fn database(name: &str, expected: Keyspace, found: Keyspace) -> [Check; 2] {
    let lasting = |keyspace: Keyspace| keyspace.keys.saturating_sub(keyspace.expires);
    let ended = expected.expires.saturating_sub(found.expires);
    let explained = match ended {
        0 => found.expires.to_string(),
        _ => format!("{}: the time of {ended} has come since the backup", found.expires),
    };
    [
        Check {
            name: format!("{name}: keys without a time to live"),
            expected: lasting(expected).to_string(),
            found: lasting(found).to_string(),
            passed: lasting(expected) == lasting(found),
        },
        Check {
            name: format!("{name}: keys with a time to live"),
            expected: match expected.expires {
                0 => "0".to_owned(),
                some => format!("at most {some}"),
            },
            found: explained,
            passed: found.expires <= expected.expires,
        },
    ]
}
