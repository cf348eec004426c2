//! Compares what a target holds with what a backup says it should. Pure.
//!
//! A key whose time has come since the backup may be missing, and no other. So the keys without a time to live are
//! counted exactly, and a database may lack as many of the others as have ended in it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::backup::OTHER_DATABASES;
use super::server::Server;
use crate::source::Check;
use crate::vault::manifest::Contents;

/// Keys without and with a time to live, keys per database, and function libraries. `ended` says of how many keys in
/// each database the time has come.
pub fn compare(expected: &Contents, ended: &BTreeMap<u32, u64>, server: &Server) -> Vec<Check> {
    let fact = |name: &str| expected.facts.get(name).and_then(Value::as_u64).unwrap_or_default();
    let expires = fact("expires");
    let found_expires: u64 = server.keyspace.values().map(|keyspace| keyspace.expires).sum();
    let lasting = (expected.items.saturating_sub(expires), server.keys().saturating_sub(found_expires));
    let mut checks = vec![
        exactly("keys without a time to live", lasting.0, lasting.1),
        at_most("keys with a time to live", expires, found_expires, ended.values().sum()),
    ];
    let named = |db: &u32| expected.namespaces.contains_key(&format!("db{db}"));
    for (name, counts) in &expected.namespaces {
        let of_it = |db: &u32| match name.as_str() {
            OTHER_DATABASES => !named(db),
            name => name == format!("db{db}"),
        };
        let found = server.keyspace.iter().filter(|(db, _)| of_it(db)).map(|(_, keyspace)| keyspace.keys);
        let ended = ended.iter().filter(|(db, _)| of_it(db)).map(|(_, ended)| ended);
        checks.push(at_most(name, counts.items, found.sum(), ended.sum()));
    }
    if !expected.namespaces.contains_key(OTHER_DATABASES) {
        let strange = server.keyspace.iter().filter(|(db, _)| !named(db));
        checks.extend(strange.map(|(db, keyspace)| exactly(&format!("db{db}"), 0, keyspace.keys)));
    }
    checks.push(exactly("function libraries", fact("functions"), server.libraries));
    checks
}

fn exactly(name: &str, expected: u64, found: u64) -> Check {
    let passed = expected == found;
    Check { name: name.to_owned(), expected: expected.to_string(), found: found.to_string(), passed }
}

/// Fewer are fine, as far as the keys whose time has come explain it. One that has come may linger in the counts.
fn at_most(name: &str, expected: u64, found: u64, ended: u64) -> Check {
    let missing = expected.checked_sub(found);
    let passed = missing.is_some_and(|missing| missing <= ended);
    let explained = match missing {
        Some(missing @ 1..) if passed => format!("{found}: the time of {missing} has come since the backup"),
        _ => found.to_string(),
    };
    Check { name: name.to_owned(), expected: expected.to_string(), found: explained, passed }
}
