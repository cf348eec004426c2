//! What runs when, who runs it, and what becomes of it when its process dies. Knows only [`Work`], never a source.
//!
//! Everything durable is an object in the vault, and everything that decides is a conditional create: a process is a value
//! that can be dropped at any await, and the next one reads what is true. Three facts carry the rest:
//! - a run's id is derived (from its due time, or from who asked with which key), so asking twice is asking once;
//! - an attempt is claimed by creating `<n>.started.json`, so it runs once;
//! - `<n>.finished.json` says whether another attempt follows, so what is over stays over.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, broadcast};

use self::due::Timetable;
use self::executor::{Executor, InProcess};
use self::followers::Following;
use self::host::Host;
use self::perform::Active;
use self::run::{Failure, RunId};
use self::views::RunView;
use self::work::{Order, Workshop};
use crate::clock::{SharedClock, within};
use crate::config::{Schedule, SourceName};
use crate::error::{Error, Kind, Result};
use crate::task::{Limits, Spool};
use crate::vault::Vault;
use crate::vault::catalog::Catalog;
use crate::vault::store_clock::{StoreClock, Trust};

pub mod claims;
pub mod command;
pub mod daemon;
pub mod due;
pub mod events;
pub mod executor;
pub mod followers;
pub mod guards;
pub mod host;
pub mod leader;
pub mod ledger;
pub mod perform;
pub mod recovery;
pub mod request;
pub mod run;
pub mod schedule;
pub mod serve;
pub mod switches;
pub mod unsettled;
pub mod views;

pub mod work;

/// What an engine is made of.
#[derive(Clone)]
pub struct Parts {
    /// The vault.
    pub vault: Vault,
    /// Makes works from orders.
    pub workshop: Arc<dyn Workshop>,
    /// Which process this is.
    pub host: Arc<dyn Host>,
    /// Who may ask for what, asked again when a request is taken up.
    pub gate: Arc<dyn Gate>,
    /// Where works run.
    pub executor: Arc<dyn Executor>,
    /// What works may use.
    pub limits: Arc<Limits>,
    /// Where their bytes wait.
    pub spool: Spool,
    /// What is due when.
    pub schedules: Vec<Schedule>,
    /// All sources of the configuration, with a schedule or without.
    pub sources: Vec<SourceName>,
    /// The process's view of the backups.
    pub catalog: Catalog,
    /// The process's watch over its clocks.
    pub store_clock: Arc<StoreClock>,
}

impl Parts {
    /// An engine without schedules that runs everything in this process, for whoever asks.
    pub fn new(vault: Vault, workshop: Arc<dyn Workshop>, host: Arc<dyn Host>, spool: Spool) -> Self {
        Parts {
            catalog: Catalog::new(&vault),
            store_clock: Arc::new(StoreClock::new(vault.clock.clone())),
            vault,
            workshop,
            host,
            gate: Arc::new(Everybody),
            executor: Arc::new(InProcess),
            limits: Arc::default(),
            spool,
            schedules: Vec::new(),
            sources: Vec::new(),
        }
    }
}

/// Decides who may do what.
#[async_trait]
pub trait Gate: Send + Sync {
    /// Passes if `principal` may order this, now.
    ///
    /// # Errors
    /// `Denied`: the run then fails with that.
    async fn permits(&self, principal: &str, order: &Order) -> Result<()>;
}

/// Whoever can write to the vault may order anything.
#[derive(Clone, Copy, Debug)]
pub struct Everybody;

#[async_trait]
impl Gate for Everybody {
    async fn permits(&self, _principal: &str, _order: &Order) -> Result<()> {
        Ok(())
    }
}

/// The engine of a process. Clones are the same engine.
#[derive(Clone)]
pub struct Engine(Arc<Core>);

struct Core {
    vault: Vault,
    workshop: Arc<dyn Workshop>,
    host: Arc<dyn Host>,
    gate: Arc<dyn Gate>,
    executor: Arc<dyn Executor>,
    limits: Arc<Limits>,
    spool: Spool,
    timetable: Timetable,
    sources: Vec<SourceName>,
    active: Mutex<BTreeMap<RunId, Active>>,
    events: broadcast::Sender<events::Event>,
    briefs: Mutex<BTreeMap<RunId, RunView>>,
    health: Mutex<Health>,
    followings: Mutex<BTreeMap<SourceName, Following>>,
    catalog: Catalog,
    store_clock: Arc<StoreClock>,
    wake: Notify,
    news: AtomicBool,
    closing: AtomicBool,
    /// Whether a daemon of this process drives it.
    driven: AtomicBool,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "engine of {:?}", self.0.host.me())
    }
}

/// How a daemon fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// Whether the vault was reached at least once.
    pub reached: bool,
    /// Why the vault cannot be worked with at the moment.
    pub vault: Option<Failure>,
    /// Why nothing that depends on the time is done at the moment.
    pub clock: Option<Failure>,
    /// The generation, if this process leads.
    pub leads: Option<u64>,
    /// Who leads, if another domain does: then this process only reads.
    pub reads: Option<String>,
}

impl Health {
    /// Whether requests can be served.
    pub fn is_ready(&self) -> bool {
        self.reached && self.vault.is_none()
    }
}

impl Engine {
    /// Nothing is read or started yet.
    pub fn new(parts: Parts) -> Self {
        let timetable = Timetable::new(&parts.schedules);
        let mut sources = parts.sources;
        sources.extend(timetable.sources().into_iter().cloned());
        sources.sort();
        sources.dedup();
        Engine(Arc::new(Core {
            vault: parts.vault,
            workshop: parts.workshop,
            host: parts.host,
            gate: parts.gate,
            executor: parts.executor,
            limits: parts.limits,
            spool: parts.spool,
            timetable,
            sources,
            active: Mutex::default(),
            events: events::channel(),
            briefs: Mutex::default(),
            health: Mutex::default(),
            followings: Mutex::default(),
            catalog: parts.catalog,
            store_clock: parts.store_clock,
            wake: Notify::new(),
            news: AtomicBool::new(false),
            closing: AtomicBool::new(false),
            driven: AtomicBool::new(false),
        }))
    }

    /// The vault.
    pub fn vault(&self) -> &Vault {
        &self.0.vault
    }

    /// How the daemon of this process fares.
    pub fn health(&self) -> Health {
        self.0.health.lock().expect("no holder panics").clone()
    }

    fn note_health(&self, note: impl FnOnce(&mut Health)) {
        note(&mut self.0.health.lock().expect("no holder panics"));
    }

    /// Tells the daemon of this process that there is something new in the vault.
    fn news(&self) {
        self.0.news.store(true, Ordering::SeqCst);
        self.0.wake.notify_one();
    }

    fn clock(&self) -> &SharedClock {
        &self.0.vault.clock
    }

    fn active(&self) -> MutexGuard<'_, BTreeMap<RunId, Active>> {
        self.0.active.lock().expect("no holder panics")
    }

    fn followings(&self) -> MutexGuard<'_, BTreeMap<SourceName, Following>> {
        self.0.followings.lock().expect("no holder panics")
    }

    /// Passes while the time can be trusted.
    ///
    /// # Errors
    /// `Clock`, saying what speaks against it.
    async fn trust_clock(&self) -> Result<()> {
        let reading = self.0.store_clock.read(self.0.vault.store.as_ref(), None).await?;
        match reading.trust {
            Trust::Yes => Ok(()),
            Trust::No(why) => Err(Error::new(Kind::Clock, "trusting the clock", why)
                .hint("let NTP or chrony keep this machine's clock")),
        }
    }

    /// Waits for `work`, but no longer than `limit`.
    async fn within<T>(
        &self,
        limit: Duration,
        doing: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let late = || {
            let why = format!("no answer within {} s", limit.as_secs());
            Err(Error::new(Kind::Timeout, doing, why).hint("look at the vault's store and the network to it"))
        };
        within(&**self.clock(), limit, work, late).await
    }
}
