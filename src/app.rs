//! The one place that wires: which kinds of source exist, which works the engine can be given, what a process
//! is made of.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use self::follow::Sealers;
use self::timelines::Listed;
use crate::clock::SharedClock;
use crate::config::node::Problem;
use crate::config::{self, Config, Entry, SourceName};
use crate::engine::host::LocalHost;
use crate::engine::work::{Action, Order};
use crate::engine::{Engine, Parts};
use crate::error::{Error, Kind, Result};
use crate::source::{self, Configured};
use crate::task::{Progress, Spool, Task};
use crate::vault::Vault;
use crate::vault::catalog::Catalog;
use crate::vault::layout::BackupRef;
use crate::vault::store_clock::StoreClock;

mod again;
mod backup;
mod extract;
mod follow;
mod holding;
mod log;
mod marks;
mod moment;
mod permissions;
mod restore;
mod status;
mod timelines;
mod upkeep;
mod verify;
mod views;
mod workshop;

pub use self::extract::Destination;
pub use self::log::{Log, Place};
pub use self::marks::Mark;
pub use self::permissions::permissions;
pub use self::restore::RestoreWish;
pub use self::timelines::TimelineView;
pub use self::upkeep::ScrubParams;
pub use self::views::BackupView;

/// Every kind of source there is. A new source is its folder and its line here.
pub const KINDS: &[&dyn source::Kind] = &[&source::redis::Redis, &source::mongodb::MongoDb];

/// How long a run may take when neither its caller nor a schedule says.
const AN_HOUR: Duration = Duration::from_secs(3_600);

fn kind_among<'a>(kinds: &[&'a dyn source::Kind], name: &str) -> Option<&'a dyn source::Kind> {
    kinds.iter().copied().find(|kind| kind.name() == name)
}

/// What a process works with. Clones are the same app.
#[derive(Clone, Debug)]
pub struct App {
    /// Where backups live.
    pub vault: Vault,
    /// The backups in it.
    pub catalog: Catalog,
    /// What is configured; with `--vault` alone, nothing but the vault.
    pub config: Arc<Config>,
    /// The process's clock.
    pub clock: SharedClock,
    /// The vault's clock, watched.
    pub store_clock: Arc<StoreClock>,
    spool: Spool,
    systems: Arc<Systems>,
    /// The kinds whose logs it understands.
    kinds: &'static [&'static dyn source::Kind],
    sealers: Sealers,
    listed: Listed,
}

impl App {
    /// Wires a configuration to a vault that was opened.
    ///
    /// # Errors
    /// `Config` with every problem in the sources' own parts, or for a spool that is too small.
    pub fn new(config: Config, vault: Vault, clock: SharedClock) -> Result<Self> {
        App::of(KINDS, config, vault, clock)
    }

    /// As [`new`](App::new), for other kinds of source: the simulation brings its own.
    ///
    /// # Errors
    /// As [`new`](App::new).
    pub fn of(kinds: &[&dyn source::Kind], config: Config, vault: Vault, clock: SharedClock) -> Result<Self> {
        let systems = Systems::configure(kinds, &config).map_err(config::refuse)?;
        let spool = Spool::new(&config.limits, clock.clone())?;
        Ok(App {
            catalog: Catalog::new(&vault),
            store_clock: Arc::new(StoreClock::new(clock.clone())),
            config: Arc::new(config),
            vault,
            clock,
            spool,
            systems: Arc::new(systems),
            kinds: KINDS,
            sealers: Sealers::default(),
            listed: Listed::default(),
        })
    }

    /// The same for a process that reads backups of these kinds.
    pub fn of_kinds(mut self, kinds: &'static [&'static dyn source::Kind]) -> Self {
        self.kinds = kinds;
        self
    }

    /// The kind of this name, if this process reads its backups.
    pub fn kind(&self, name: &str) -> Option<&'static dyn source::Kind> {
        kind_among(self.kinds, name)
    }

    /// A source by its name.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn source(&self, name: &SourceName) -> Result<&dyn Configured> {
        find(self.systems.sources.iter(), name, "source")
    }

    /// A target by its name: one of `targets`, else a source, which is a target for its own backups.
    ///
    /// # Errors
    /// `NotFound`, with the nearest name.
    pub fn target(&self, name: &SourceName) -> Result<&dyn Configured> {
        let all = self.systems.targets.iter().chain(&self.systems.sources);
        find(all, name, "target")
    }

    /// All sources, by name.
    pub fn sources(&self) -> impl Iterator<Item = (&SourceName, &dyn Configured)> {
        self.systems.sources.iter().map(|(name, system)| (name, &**system))
    }

    /// All targets that are not sources, by name.
    pub fn targets(&self) -> impl Iterator<Item = (&SourceName, &dyn Configured)> {
        self.systems.targets.iter().map(|(name, system)| (name, &**system))
    }

    /// A task for what is no run: an inspection, a plan, an extract. It ends after `limit`. Its name becomes part
    /// of keys (of the holds it takes), so only letters, digits and hyphens are left of it.
    pub fn task(&self, name: &str, limit: Duration) -> Task {
        let safe = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
        Task {
            run: name.chars().map(safe).collect::<String>().into(),
            clock: self.clock.clone(),
            deadline: self.clock.monotonic() + limit,
            cancel: CancellationToken::new(),
            progress: Progress::default(),
            limits: Arc::new(self.config.limits.clone()),
            spool: self.spool.clone(),
        }
    }

    /// How long the run of an order may take, if nobody says: the longest deadline in the schedule of its source,
    /// else an hour.
    pub fn deadline(&self, order: &Order) -> Duration {
        let schedule = order.source.as_ref().and_then(|source| self.config.schedule(source));
        let deadlines =
            schedule.into_iter().flat_map(|schedule| &schedule.backup).map(|series| series.deadline);
        deadlines.max().unwrap_or(AN_HOUR)
    }

    /// An engine that does this app's works, in this process.
    pub fn engine(&self) -> Engine {
        let host = LocalHost::new(&self.vault.process, None);
        let parts =
            Parts::new(self.vault.clone(), Arc::new(self.clone()), Arc::new(host), self.spool.clone());
        Engine::new(Parts {
            limits: Arc::new(self.config.limits.clone()),
            schedules: self.config.schedules.clone(),
            sources: self.systems.sources.keys().cloned().collect(),
            catalog: self.catalog.clone(),
            store_clock: self.store_clock.clone(),
            ..parts
        })
    }

    /// The spool that all tasks of this process share.
    pub fn spool(&self) -> &Spool {
        &self.spool
    }
}

fn find<'a>(
    systems: impl Iterator<Item = (&'a SourceName, &'a Box<dyn Configured>)> + Clone,
    name: &SourceName,
    what: &str,
) -> Result<&'a dyn Configured> {
    if let Some((_, system)) = systems.clone().find(|(known, _)| *known == name) {
        return Ok(&**system);
    }
    let known = systems.map(|(known, _)| known);
    let near = known.min_by_key(|known| strsim::levenshtein(known.as_str(), name.as_str()));
    let error =
        Error::new(Kind::NotFound, format!("looking for {what} {name}"), "the configuration names none so");
    Err(match near {
        Some(near) => error.hint(format!("did you mean {near}?")),
        None => error.hint(format!(
            "with --vault alone there are no {what}s: write a tidekeeper.yaml that names the vault and, under `{what}s`, \
             {name}. Data alone is had by `tidekeeper extract`"
        )),
    })
}

/// What an order to verify, unhold or accept says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Named {
    /// About which backup.
    pub backup: BackupRef,
}

impl Named {
    /// The order to do `action` to `backup`.
    pub fn order(action: Action, backup: BackupRef) -> Order {
        Order { action, source: Some(backup.source.clone()), params: json!(Named { backup }) }
    }
}

/// An order's parameters as the type of its work.
fn params<T: DeserializeOwned>(order: &Order) -> Result<T> {
    serde_json::from_value(order.params.clone()).map_err(|cause| {
        Error::new(Kind::Usage, format!("reading the order to {order}"), &cause).caused_by(cause)
    })
}

/// What the configuration's own parts became.
#[derive(Debug, Default)]
struct Systems {
    sources: BTreeMap<SourceName, Box<dyn Configured>>,
    targets: BTreeMap<SourceName, Box<dyn Configured>>,
}

impl Systems {
    /// Every system's own part, checked in its folder; all problems at once.
    fn configure(kinds: &[&dyn source::Kind], config: &Config) -> Result<Self, Vec<Problem>> {
        let (sources, mut problems) = configure_all(kinds, &config.sources);
        let (targets, more) = configure_all(kinds, &config.targets);
        problems.extend(more);
        if problems.is_empty() { Ok(Systems { sources, targets }) } else { Err(problems) }
    }
}

fn configure_all(
    kinds: &[&dyn source::Kind],
    entries: &[Entry],
) -> (BTreeMap<SourceName, Box<dyn Configured>>, Vec<Problem>) {
    let mut systems = BTreeMap::new();
    let mut problems = Vec::new();
    for entry in entries {
        match kind_among(kinds, &entry.kind).map(|kind| kind.configure(&entry.name, &entry.part)) {
            Some(Ok(system)) => drop(systems.insert(entry.name.clone(), system)),
            Some(Err(found)) => problems.extend(found),
            None => {} // unknown kinds are found when the file is read
        }
    }
    (systems, problems)
}
