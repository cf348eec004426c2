//! Runs the cases against a store, and keeps a table of stores and cases.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Mutex;

use futures_util::future::BoxFuture;
use tidekeeper::vault::layout;
use tidekeeper::vault::store::{Key, SharedStore};

use super::{cases, races, uploads};

/// What a case gets: a store, and a room in it that nobody else uses.
#[derive(Clone, Debug)]
pub struct Stage {
    pub store: SharedStore,
    /// Ends in a slash.
    pub room: String,
}

impl Stage {
    pub fn key(&self, name: impl std::fmt::Display) -> Key {
        Key::new(format!("{}{name}", self.room))
    }

    /// The names in this stage's room that begin with `prefix`.
    pub async fn listed(&self, prefix: &str) -> Vec<String> {
        let all = tidekeeper::vault::store::list_all(&*self.store, &format!("{}{prefix}", self.room)).await;
        let all = all.expect("the store lists");
        all.iter().map(|entry| entry.key.as_str()[self.room.len()..].to_owned()).collect()
    }
}

/// A promise, and the test of it.
pub struct Case {
    pub promise: &'static str,
    pub test: fn(Stage) -> BoxFuture<'static, ()>,
}

/// All promises, racing ones last.
fn sequential() -> Vec<Case> {
    cases::all().into_iter().chain(uploads::all()).collect()
}

/// Checks every promise on `store`.
pub async fn conform(name: &'static str, store: SharedStore) {
    run(name, store, sequential(), races::all()).await;
}

/// Checks every promise but that of races and those in `excused`: this store's server is known to break them.
pub async fn conform_but(excused: &[&str], name: &'static str, store: SharedStore) {
    let (skipped, asked): (Vec<_>, Vec<_>) =
        sequential().into_iter().partition(|case| excused.contains(&case.promise));
    assert_eq!(skipped.len(), excused.len(), "an excuse for a promise that nobody makes: {excused:?}");
    let skipped = skipped.iter().chain(&races::all()).map(|case| (case.promise, Outcome::Excused)).collect();
    note(name, skipped);
    run(name, store, asked, Vec::new()).await;
}

async fn run(name: &'static str, store: SharedStore, sequential: Vec<Case>, racing: Vec<Case>) {
    let mut outcomes = Vec::new();
    for case in sequential.into_iter().chain(racing) {
        let stage = Stage { store: store.clone(), room: format!("data/suite-{}/", layout::nonce()) };
        let ended = tokio::spawn((case.test)(stage)).await;
        let outcome = if ended.is_ok() { Outcome::Held } else { Outcome::Broken };
        outcomes.push((case.promise, outcome));
    }
    let broken: Vec<_> = outcomes
        .iter()
        .filter(|(_, outcome)| *outcome == Outcome::Broken)
        .map(|(promise, _)| *promise)
        .collect();
    note(name, outcomes);
    println!("{}", table());
    assert!(broken.is_empty(), "{name} breaks its promises: {broken:#?}");
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Held,
    Broken,
    Excused,
}

type Table = BTreeMap<&'static str, BTreeMap<&'static str, Outcome>>;

static TABLE: Mutex<Table> = Mutex::new(BTreeMap::new());

fn note(store: &'static str, outcomes: Vec<(&'static str, Outcome)>) {
    TABLE.lock().expect("no holder panics").entry(store).or_default().extend(outcomes);
}

/// The table of what was checked so far: a line per promise, a column per store.
pub fn table() -> String {
    let table = TABLE.lock().expect("no holder panics");
    let mut text = String::new();
    let _ = write!(text, "{:<60}", "promise");
    for store in table.keys() {
        let _ = write!(text, " | {store:^15}");
    }
    for case in sequential().iter().chain(&races::all()) {
        let _ = write!(text, "\n{:<60}", case.promise);
        for outcomes in table.values() {
            let mark = match outcomes.get(case.promise) {
                Some(Outcome::Held) => "held",
                Some(Outcome::Broken) => "BROKEN",
                Some(Outcome::Excused) => "not asked",
                None => "",
            };
            let _ = write!(text, " | {mark:^15}");
        }
    }
    text
}
