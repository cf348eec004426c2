//! `tidekeeper.yaml` and `schedules/*.yaml`: text -> nodes with spans -> checked structs.
//!
//! This file holds what comes out: data that was checked, which the rooms above act on. A source's own part stays
//! a [`Node`](node::Node) here; `source/<kind>/config.rs` checks it, into the same list of problems.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::load::{Known, load, load_vault, refuse};
pub use self::name::SourceName;
pub use self::place::{ObjectLock, Place, S3Place};
use crate::error::{Error, Kind, Result};
pub use crate::task::Limits;

mod check;
pub mod load;
pub mod name;
pub mod node;
mod place;
mod raw;
pub mod schema;
pub mod secret;
pub mod shape;
pub mod units;
pub mod yaml;

/// Everything that the configuration says, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the vault is.
    pub vault: Place,
    /// Permits one process only, and with it a store that lets two racing creators win.
    pub single_writer: bool,
    /// To whom backups are encrypted; none: they are not.
    pub encryption: Option<Encryption>,
    /// What the process may use of its machine.
    pub limits: Limits,
    /// What is protected.
    pub sources: Vec<Entry>,
    /// Where a restore may go besides its own source.
    pub targets: Vec<Entry>,
    /// What happens when; at most one for each source.
    pub schedules: Vec<Schedule>,
    /// The HTTP API.
    pub api: Api,
}

impl Config {
    /// What `--vault` alone comes to: no sources, and no private key.
    pub fn of_vault(vault: Place) -> Self {
        Config {
            vault,
            single_writer: false,
            encryption: None,
            limits: Limits::default(),
            sources: Vec::new(),
            targets: Vec::new(),
            schedules: Vec::new(),
            api: Api::default(),
        }
    }

    /// The source called `name`.
    pub fn source(&self, name: &str) -> Result<&Entry> {
        find("source", name, self.sources.iter())
    }

    /// The target called `name`: one of `targets`, or a source, which is its own target.
    pub fn target(&self, name: &str) -> Result<&Entry> {
        find("target", name, self.targets.iter().chain(&self.sources))
    }

    /// The schedule of a source, if it has one.
    pub fn schedule(&self, source: &SourceName) -> Option<&Schedule> {
        self.schedules.iter().find(|schedule| schedule.source == *source)
    }
}

fn find<'a>(what: &str, name: &str, entries: impl Iterator<Item = &'a Entry> + Clone) -> Result<&'a Entry> {
    if let Some(entry) = entries.clone().find(|entry| entry.name.as_str() == name) {
        return Ok(entry);
    }
    let known: Vec<&str> = entries.map(|entry| entry.name.as_str()).collect();
    let hint = match shape::nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => "the configuration has none".to_owned(),
        None => format!("there are: {}", known.join(", ")),
    };
    let why = format!("the configuration has no {what} of that name");
    Err(Error::new(Kind::NotFound, format!("looking for the {what} {name:?}"), why).hint(hint))
}

/// age encryption of all data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encryption {
    /// Public keys (`age1...`); each can decrypt.
    pub recipients: Vec<String>,
    /// The private keys; only where restores and verifications run.
    pub identity_file: Option<PathBuf>,
}

/// A source or a target as far as it is common to all kinds.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name; unique over sources and targets.
    pub name: SourceName,
    /// Which folder of `source/` knows it.
    pub kind: String,
    /// Its own part, unchecked.
    pub part: node::Node,
}

/// One file of `schedules/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Of which source.
    pub source: SourceName,
    /// The zone of `cron` and of the retention's hours, days, weeks.
    pub time_zone: units::Zone,
    /// When it is backed up.
    pub backup: Vec<Series>,
    /// What is kept.
    pub retention: Retention,
    /// Nothing of this schedule is due.
    pub suspend: bool,
}

/// A series of due times. Its name is part of the run's id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Series {
    /// Unique in its list.
    pub name: String,
    /// The due times.
    pub when: When,
    /// A run starts up to this much later, by a share that depends on the run's id alone.
    pub jitter: Duration,
    /// How long a run may take, from its start.
    pub deadline: Duration,
    /// What happens to due times that passed while no daemon ran.
    pub missed: Missed,
}

/// How due times are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// Local times.
    Cron(units::CronText),
    /// Multiples of this since the Unix epoch; at least a second.
    Every(Duration),
}

/// What happens to due times that passed while no daemon ran.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Missed {
    /// The newest of them is run.
    #[default]
    RunOnce,
    /// None is run.
    Skip,
}

/// How long backups are kept. A backup stays if any of the rules wants it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retention {
    /// All that are younger.
    pub keep_within: Duration,
    /// So many of the newest.
    pub keep_last: u32,
    /// The newest of each of so many hours that have one; likewise the next four.
    pub hourly: u32,
    /// Days, in the schedule's time zone.
    pub daily: u32,
    /// ISO weeks.
    pub weekly: u32,
    /// Months.
    pub monthly: u32,
    /// Years.
    pub yearly: u32,
    /// So far back any second stays restorable, where the source keeps a timeline.
    pub window: Duration,
    /// Between a deletion's proposal and its verdict.
    pub grace: Duration,
}

impl Default for Retention {
    /// A week of everything, the newest four whatever their age, a day of grace.
    fn default() -> Self {
        Retention {
            keep_within: Duration::from_secs(7 * 86_400),
            keep_last: 4,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            window: Duration::from_secs(7 * 86_400),
            grace: Duration::from_secs(86_400),
        }
    }
}

/// The HTTP API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// Where it listens; only loopback without authentication.
    pub listen: std::net::SocketAddr,
}

impl Default for Api {
    fn default() -> Self {
        Api { listen: units::Listen::default().0 }
    }
}
