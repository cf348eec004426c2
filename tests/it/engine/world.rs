//! A small world: one store, one clock, processes that live and die, and works that do as they are told.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tidekeeper::clock::{Clock, SharedClock, TestClock};
use tidekeeper::config::units::Zone;
use tidekeeper::config::{Missed, Retention, Schedule, Series, SourceName, When};
use tidekeeper::engine::daemon::Daemon;
use tidekeeper::engine::followers::Follower;
use tidekeeper::engine::host::{Fate, Holder, Host};
use tidekeeper::engine::leader::Fence;
use tidekeeper::engine::ledger;
use tidekeeper::engine::perform::Stop;
use tidekeeper::engine::request::Ask;
use tidekeeper::engine::run::{Record, RunId};
use tidekeeper::engine::switches::{self, Position};
use tidekeeper::engine::work::{Action, Attempt, Done, Grade, Order, Work, Workshop};
use tidekeeper::engine::{Engine, Parts};
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::task::{Limits, Progress, Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::decide::{Decision, decide, read_json};
use tidekeeper::vault::layout::{self, BackupRef};
use tidekeeper::vault::manifest::{self, Manifest};
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{SharedStore, list_all};

/// 06:00 in UTC on a Saturday.
pub const MORNING: &str = "2026-11-21T06:00:00Z";

/// The store, the clock and everybody who lives.
#[derive(Clone)]
pub struct World {
    pub clock: Arc<TestClock>,
    pub store: MemoryStore,
    pub script: Arc<Script>,
    alive: Alive,
}

/// What works do, and what they did.
#[derive(Default)]
pub struct Script {
    pub acts: Mutex<BTreeMap<String, Act>>,
    /// Every work that was begun: `backup a#1`.
    pub begun: Mutex<Vec<String>>,
    /// How many works run now, and the most that did at once, by source.
    pub running: Mutex<BTreeMap<String, (u32, u32)>>,
    /// The sources whose logs are followed, and how.
    pub follows: Mutex<BTreeMap<String, Follows>>,
    /// What followers did, and when, in seconds of the clock: `a begins`, `a sealed`.
    pub followed: Mutex<Vec<(String, u64)>>,
}

/// What the works of one source do.
#[derive(Clone, Debug)]
pub enum Act {
    /// Takes so long and succeeds.
    Take(Duration),
    /// Fails at its first so many attempts, then succeeds.
    Fail(u32, Kind),
    /// Never ends by itself; ends at a cancel or the deadline.
    Hang,
    /// Never ends, and notices nothing.
    Deaf,
    /// Commits, then fails as if the answer was lost.
    CommitAndFail(Kind),
    /// Claims this target and holds it so long.
    Claim(&'static str, Duration),
    /// Panics.
    Panic,
}

/// What the follower of a source does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Until it is asked to end; then it seals for so long.
    Well(Duration),
    /// Fails after so long.
    Fails(Duration),
    /// Ends after so long, without an error.
    Ends(Duration),
    Panics,
}

impl World {
    pub fn new() -> Self {
        World::at(MORNING)
    }

    pub fn at(time: &str) -> Self {
        let clock = TestClock::starting_at(instant(time));
        World { store: MemoryStore::new(clock.clone()), clock, script: Arc::default(), alive: Arc::default() }
    }

    pub fn act(&self, source: &str, act: Act) {
        self.script.acts.lock().unwrap().insert(source.to_owned(), act);
    }

    /// From now on, for those who begin.
    pub fn follows(&self, source: &str, how: Follows) {
        self.script.follows.lock().unwrap().insert(source.to_owned(), how);
    }

    /// When followers did `what`, in seconds of the clock.
    pub fn followed(&self, what: &str) -> Vec<u64> {
        let followed = self.script.followed.lock().unwrap();
        followed.iter().filter(|(did, _)| did == what).map(|(_, second)| *second).collect()
    }

    /// How many followers of `source` live now.
    pub fn following(&self, source: &str) -> u32 {
        let running = self.script.running.lock().unwrap();
        running.get(&format!("log of {source}")).map_or(0, |(now, _)| *now)
    }

    /// A process on machine `m`, with these schedules.
    pub fn process(&self, name: &str, schedules: Vec<Schedule>) -> Process {
        self.process_on("m", name, Arc::new(self.store.clone()), schedules)
    }

    /// A process on a machine, which sees the vault through `store`. Processes of other machines cannot be seen.
    pub fn process_on(
        &self,
        machine: &str,
        name: &str,
        store: SharedStore,
        schedules: Vec<Schedule>,
    ) -> Process {
        self.process_in(machine, machine, name, store, schedules)
    }

    /// As above, in a domain of several machines.
    pub fn process_in(
        &self,
        domain: &str,
        machine: &str,
        name: &str,
        store: SharedStore,
        schedules: Vec<Schedule>,
    ) -> Process {
        let clock: SharedClock = self.clock.clone();
        let vault = Vault::new(store, clock.clone(), None);
        let id = format!("{name}-{}", vault.process);
        let host = FakeHost::of(&id, machine, domain, &self.alive);
        let workshop = Bench { script: self.script.clone(), vault: vault.clone() };
        let limits = Limits { spool_dir: std::env::temp_dir(), concurrent_runs: 4, ..Limits::default() };
        let spool = Spool::new(&limits, clock.clone()).unwrap();
        let mut parts = Parts::new(vault, Arc::new(workshop), Arc::new(host), spool);
        parts.limits = Arc::new(limits);
        parts.schedules = schedules;
        let engine = Engine::new(parts);
        Process { id, engine, alive: self.alive.clone() }
    }

    /// Lets time pass, second by second.
    pub async fn pass<const N: usize>(&self, mut daemons: [&mut Daemon; N], seconds: u64) {
        for _ in 0..seconds {
            for daemon in &mut daemons {
                daemon.tick().await;
            }
            self.clock.sleep(Duration::from_secs(1)).await;
        }
        for daemon in &mut daemons {
            daemon.tick().await;
        }
    }

    pub fn begun(&self) -> Vec<String> {
        self.script.begun.lock().unwrap().clone()
    }

    pub fn jump(&self, seconds: i64) {
        self.clock.jump(SignedDuration::from_secs(seconds));
    }

    /// All runs in the vault, in order.
    pub async fn records(&self) -> Vec<(RunId, Record)> {
        let vault = self.vault();
        let mut runs = Vec::new();
        ledger::scan(&vault, None, |trace| runs.push(trace.run)).await.unwrap();
        let mut records = Vec::new();
        for run in runs {
            let record = ledger::read(&vault, &run).await.unwrap();
            records.push((run, record));
        }
        records
    }

    pub async fn records_of(&self, action: Action) -> Vec<Record> {
        let all = self.records().await.into_iter().map(|(_, record)| record);
        all.filter(|record| record.tries[0].started.order.action == action).collect()
    }

    pub async fn manifest(&self, backup: &BackupRef) -> Option<Manifest> {
        read_json(&self.store, &layout::manifest(backup)).await.unwrap()
    }

    pub async fn keys(&self, prefix: &str) -> Vec<String> {
        let entries = list_all(&self.store, prefix).await.unwrap();
        entries.into_iter().map(|entry| entry.key.to_string()).collect()
    }

    pub fn vault(&self) -> Vault {
        Vault::new(Arc::new(self.store.clone()), self.clock.clone(), None)
    }
}

/// A process. It lives until it is killed or dropped.
pub struct Process {
    pub id: String,
    pub engine: Engine,
    alive: Alive,
}

impl Process {
    pub fn daemon(&self) -> Daemon {
        Daemon::new(&self.engine, false)
    }

    /// Runs a command to its end.
    pub async fn run(&self, ask: &Ask) -> Result<(RunId, Record)> {
        self.engine.run_once(ask, &Stop::default(), &Progress::default()).await
    }

    /// Begins a command whose work hangs; it is given up where `until` ends.
    pub async fn begin(&self, ask: &Ask, until: impl Future<Output = ()>) {
        tokio::select! {
            _ = self.run(ask) => panic!("it hangs"),
            () = until => {}
        }
    }

    /// Somebody switches the schedule of a source.
    pub async fn switch(&self, name: &str, to: Position) {
        let switch = switches::of_schedule(&source(name));
        switches::flip(self.engine.vault(), &switch, to, "ada", "migration").await.unwrap();
    }

    /// From now on others can see that it is gone.
    pub fn kill(self) {
        drop(self);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.alive.lock().unwrap().remove(&self.id);
    }
}

/// Knows who lives, on its own machine only.
#[derive(Debug)]
pub struct FakeHost {
    me: Holder,
    domain: String,
    alive: Alive,
}

/// The processes that live, by their nonces.
pub type Alive = Arc<Mutex<BTreeSet<String>>>;

impl FakeHost {
    /// The host of the process `id`, which lives from now on.
    pub fn of(id: &str, machine: &str, domain: &str, alive: &Alive) -> Self {
        alive.lock().unwrap().insert(id.to_owned());
        let me = Holder {
            host: machine.to_owned(),
            boot: "boot".to_owned(),
            namespace: "ns".to_owned(),
            pid: 1,
            started: 1,
            process: id.to_owned(),
        };
        FakeHost { me, domain: domain.to_owned(), alive: alive.clone() }
    }
}

impl Host for FakeHost {
    fn me(&self) -> &Holder {
        &self.me
    }

    fn domain(&self) -> &str {
        &self.domain
    }

    fn fate(&self, of: &Holder) -> Fate {
        match self.alive.lock().unwrap().contains(&of.process) {
            _ if of.host != self.me.host => Fate::Unknown,
            true => Fate::Alive,
            false => Fate::Gone,
        }
    }
}

struct Bench {
    script: Arc<Script>,
    vault: Vault,
}

impl Workshop for Bench {
    fn make(&self, order: &Order) -> Result<Box<dyn Work>> {
        if order.source.as_ref().is_some_and(|source| source.as_str() == "unknown") {
            return Err(Error::new(Kind::NotFound, "making a work", "no such source"));
        }
        Ok(Box::new(Scripted {
            script: self.script.clone(),
            vault: self.vault.clone(),
            order: order.clone(),
        }))
    }

    fn again(&self, order: &Order) -> Option<String> {
        Some(format!("tidekeeper restore {} --to {}", order.backup()?, order.source.as_ref()?))
    }

    fn followers(&self) -> Vec<Arc<dyn Follower>> {
        let follows = self.script.follows.lock().unwrap();
        let follower = |name: &String| ScriptedFollower { script: self.script.clone(), source: source(name) };
        follows.keys().map(|name| Arc::new(follower(name)) as Arc<dyn Follower>).collect()
    }
}

struct ScriptedFollower {
    script: Arc<Script>,
    source: SourceName,
}

#[async_trait]
impl Follower for ScriptedFollower {
    fn source(&self) -> &SourceName {
        &self.source
    }

    async fn follow(&self, task: &Task, fence: &Fence) -> Result<()> {
        let did = |what: &str| {
            let second = task.clock.monotonic().as_secs();
            self.script.followed.lock().unwrap().push((format!("{} {what}", self.source), second));
        };
        did("begins");
        let _count = Count::up(&self.script, &format!("log of {}", self.source));
        let how = self.script.follows.lock().unwrap()[self.source.as_str()];
        match how {
            Follows::Well(sealing) => {
                task.cancel.cancelled().await;
                task.clock.sleep(sealing).await;
                fence.check().await?;
                did("sealed");
                Ok(())
            }
            Follows::Fails(after) => {
                task.clock.sleep(after).await;
                Err(Error::new(Kind::Unreachable, "reading the log", "as told"))
            }
            Follows::Ends(after) => {
                task.clock.sleep(after).await;
                Ok(())
            }
            Follows::Panics => panic!("as told"),
        }
    }
}

struct Scripted {
    script: Arc<Script>,
    vault: Vault,
    order: Order,
}

#[async_trait]
impl Work for Scripted {
    fn order(&self) -> &Order {
        &self.order
    }

    fn kind(&self) -> &str {
        "scripted"
    }

    fn needs_leader(&self) -> bool {
        self.order.action == Action::Retention
    }

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        let source = self.order.source.as_ref().map(SourceName::as_str).unwrap_or("none").to_owned();
        self.script.begun.lock().unwrap().push(format!("{}#{}", self.order, attempt.number));
        let _count = Count::up(&self.script, &source);
        task.step("work");
        let act = self.script.acts.lock().unwrap().get(&source).cloned();
        let pause = async |pause| {
            let slept = async {
                task.clock.sleep(pause).await;
                Ok(())
            };
            task.guard(slept).await
        };
        match act.unwrap_or(Act::Take(Duration::from_secs(1))) {
            Act::Take(time) => pause(time).await?,
            Act::Fail(times, kind) if attempt.number <= times => {
                return Err(Error::new(kind, format!("backing up {source}"), "as told"));
            }
            Act::Fail(..) => {}
            Act::Hang => task.guard(std::future::pending()).await?,
            Act::Deaf => std::future::pending().await,
            Act::CommitAndFail(kind) => {
                commit(&self.vault, attempt, manifest::Status::Suspect).await?;
                return Err(Error::new(kind, format!("committing {source}"), "the answer was lost"));
            }
            Act::Claim(target, time) => {
                attempt.claim(target, target).await?;
                pause(time).await?;
            }
            Act::Panic => panic!("as told"),
        }
        if attempt.backup.is_some() {
            task.guard(commit(&self.vault, attempt, manifest::Status::Complete)).await?;
        }
        Ok(Done { status: Grade::Succeeded, summary: "done".to_owned(), detail: Value::Null })
    }
}

/// Counts works of one source that run at the same time, however they end.
struct Count<'a>(&'a Script, String);

impl<'a> Count<'a> {
    fn up(script: &'a Script, source: &str) -> Self {
        let mut running = script.running.lock().unwrap();
        let (now, most) = running.entry(source.to_owned()).or_default();
        *now += 1;
        *most = (*most).max(*now);
        Count(script, source.to_owned())
    }
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.0.running.lock().unwrap().get_mut(&self.1).unwrap().0 -= 1;
    }
}

async fn commit(vault: &Vault, attempt: &Attempt, status: manifest::Status) -> Result<()> {
    let backup = attempt.backup.as_ref().unwrap();
    let writer = layout::nonce();
    let data = layout::artifact(backup, &writer, "dump.zst");
    let _ = vault.store.create(&data, "data".into()).await?;
    let manifest = Manifest {
        writer,
        run: Some(attempt.run.to_string()),
        ..Manifest::bare(backup, "scripted", status, vault.clock.now())
    };
    let key = layout::manifest(backup);
    match decide(vault.store.as_ref(), vault.clock.as_ref(), &key, &manifest).await? {
        Decision::Ours => Ok(()),
        Decision::Theirs(_) => {
            Err(Error::new(Kind::Conflict, format!("committing {backup}"), "another process closed this run"))
        }
    }
}

pub fn instant(text: &str) -> Timestamp {
    text.parse().unwrap()
}

pub fn source(name: &str) -> SourceName {
    name.parse().unwrap()
}

/// A source that is backed up every so many seconds.
pub fn every(name: &str, seconds: u64) -> Schedule {
    schedule(name, When::Every(Duration::from_secs(seconds)))
}

pub fn cron(name: &str, text: &str, zone: &str) -> Schedule {
    Schedule { time_zone: zone.parse().unwrap(), ..schedule(name, When::Cron(text.parse().unwrap())) }
}

fn schedule(name: &str, when: When) -> Schedule {
    Schedule {
        source: source(name),
        time_zone: Zone::default(),
        backup: vec![Series {
            name: "main".to_owned(),
            when,
            jitter: Duration::ZERO,
            deadline: Duration::from_secs(3600),
            missed: Missed::RunOnce,
        }],
        retention: Retention::default(),
        suspend: false,
    }
}

/// Somebody asks for this.
pub fn ask(action: Action, name: &str, key: Option<&str>) -> Ask {
    let order = Order::new(action, Some(source(name)));
    Ask {
        principal: "ada".to_owned(),
        route: "test".to_owned(),
        idempotency: key.map(str::to_owned),
        body: json!(order),
        order,
        deadline: Duration::from_secs(3600),
    }
}
