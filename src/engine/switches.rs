//! What is switched: schedules suspended and resumed, series watched. The newest object of a switch counts.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::config::SourceName;
use crate::error::{Error, Result};
use crate::vault::Vault;
use crate::vault::decide::{Deciding, Decision, decide, read_json, set_aside};
use crate::vault::layout;
use crate::vault::store::list_all;

/// `switches/<name>/<time>.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Switch {
    /// Of this object alone.
    pub nonce: String,
    /// To what.
    pub position: Position,
    /// Who switched; the configuration is one of them.
    pub principal: String,
    /// Why, in their words; for a series, its full name.
    pub reason: String,
    /// Since when. By the switcher's clock, but later than the switch's object before.
    pub at: Timestamp,
}

impl Deciding for Switch {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// What a switch can say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Position {
    /// A series is watched from now on: older due times are none of ours.
    Watched,
    /// Nothing of a schedule is due.
    Suspended,
    /// It is again, from now on: what was due meanwhile stays undone.
    Resumed,
    /// Something that a newer build knows.
    #[serde(other)]
    Other,
}

/// Who switches when the configuration says `suspend`.
pub const CONFIGURATION: &str = "configuration";

/// The switch of a source's schedule.
pub fn of_schedule(source: &SourceName) -> String {
    format!("schedule-{source}")
}

/// The newest object of every switch that can be read; the others are `unreadable`. `known` spares reading what did not
/// change.
pub async fn read_all(
    vault: &Vault,
    known: &BTreeMap<String, Switch>,
    unreadable: &mut Vec<Error>,
) -> Result<BTreeMap<String, Switch>> {
    let mut times: BTreeMap<String, Vec<Timestamp>> = BTreeMap::new();
    for entry in list_all(vault.store.as_ref(), layout::SWITCHES).await? {
        if let Some((name, time)) = layout::switch_of(&entry.key) {
            times.entry(name.to_owned()).or_default().push(time);
        }
    }
    let mut all = BTreeMap::new();
    for (name, times) in times {
        for time in times.into_iter().rev() {
            let read = match known.get(&name).filter(|switch| switch.at == time) {
                Some(switch) => Ok(Some(switch.clone())),
                None => read_json(vault.store.as_ref(), &layout::switch(&name, time)).await,
            };
            if let Some(Some(switch)) = set_aside(read, unreadable)? {
                all.insert(name, switch);
                break;
            }
        }
    }
    Ok(all)
}

/// Switches, later than whatever is there.
pub async fn flip(
    vault: &Vault,
    name: &str,
    position: Position,
    principal: &str,
    reason: &str,
) -> Result<Switch> {
    let entries = list_all(vault.store.as_ref(), &layout::switches(name)).await?;
    let newest = entries.iter().filter_map(|entry| layout::switch_of(&entry.key)).map(|(_, time)| time).max();
    let mut at = whole_second(vault.clock.now());
    if let Some(newest) = newest.filter(|newest| *newest >= at) {
        at = newest + SignedDuration::from_secs(1);
    }
    loop {
        let (principal, reason) = (principal.to_owned(), reason.to_owned());
        let switch = Switch { nonce: layout::nonce(), position, principal, reason, at };
        let key = layout::switch(name, at);
        match decide(vault.store.as_ref(), vault.clock.as_ref(), &key, &switch).await? {
            Decision::Ours => return Ok(switch),
            Decision::Theirs(_) => at += SignedDuration::from_secs(1),
        }
    }
}

fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}
