//! The world of one history: a store, clocks, two daemons that come and go, and operators at terminals.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tidekeeper::app::App;
use tidekeeper::clock::{Clock, SharedClock, TestClock};
use tidekeeper::config::node::{Node, Span, Value};
use tidekeeper::config::units::Zone;
use tidekeeper::config::{Config, Entry, Missed, Place, Retention, Schedule, Series, When};
use tidekeeper::engine::daemon::Daemon;
use tidekeeper::engine::executor::{Executor, InProcess};
use tidekeeper::engine::request::Ask;
use tidekeeper::engine::run::RunId;
use tidekeeper::engine::work::{Attempt, Done, Work};
use tidekeeper::engine::{Engine, Parts};
use tidekeeper::error::Result;
use tidekeeper::task::{Limits, Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::store::SharedStore;
use tidekeeper::vault::store::faults::Faults;
use tidekeeper::vault::store::memory::MemoryStore;
use tokio::sync::Notify;

use super::gate::Gate;
use super::saboteur::{Conspiracy, Plant, Saboteur};
use super::system::{DEADLINE, Tide};
use super::truth::{Clocks, Truth};
use super::watched::{InParts, Watched};
use super::weather::Weather;
use crate::engine::world::{Alive, FakeHost, instant, source};
use crate::vault::estate::Dice;

/// How often the source is backed up.
pub const INTERVAL: Duration = Duration::from_secs(3_600);

/// A request that somebody made, perhaps without hearing that it was accepted.
#[derive(Clone)]
pub struct Asked {
    pub ask: Ask,
    /// Whether it was made at a terminal, by a process that does it itself.
    pub local: bool,
    /// Which run was promised, and when first.
    pub run: Option<(RunId, Timestamp)>,
}

/// How fast the daemons tick: a history is mostly waiting.
#[derive(Debug)]
struct Tempo {
    pace_ms: AtomicU64,
    changed: [Notify; 2],
}

impl Tempo {
    /// Waits for the next tick of the daemon on `machine`. The two tick in turn: however slow, whoever leads answers
    /// before it is asked again.
    async fn wait(&self, time: &TestClock, machine: usize) {
        let pace = self.pace_ms.load(Ordering::SeqCst);
        let turn = pace / 2 * machine as u64;
        let now = time.monotonic().as_millis() as u64;
        let next = pace - (now + pace - turn) % pace;
        tokio::select! {
            biased;
            () = self.changed[machine].notified() => {}
            () = time.sleep(Duration::from_millis(next)) => {}
        }
    }
}

pub struct World {
    pub clocks: Clocks,
    pub memory: MemoryStore,
    pub weather: Arc<Weather>,
    pub truth: Arc<Truth>,
    pub daemons: Vec<Process>,
    pub operators: Vec<Process>,
    pub asked: Arc<Mutex<Vec<Asked>>>,
    plant: Option<Plant>,
    common: Arc<Mutex<Conspiracy>>,
    alive: Alive,
    tempo: Arc<Tempo>,
    config: Config,
    /// Whether processes on the two machines can see each other, because it is one.
    one_machine: bool,
    born: u64,
}

/// A process: a daemon, or an operator at a terminal.
pub struct Process {
    pub gate: Arc<Gate>,
    pub app: App,
    pub engine: Engine,
}

/// Runs works, and tells the truth of it.
struct Told {
    truth: Arc<Truth>,
    gate: Arc<Gate>,
}

impl std::fmt::Debug for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the simulation's executor")
    }
}

#[async_trait]
impl Executor for Told {
    async fn execute(&self, work: &dyn Work, task: &Task, attempt: &Attempt) -> Result<Done> {
        let _working = self.truth.works(attempt, work.order().action, &self.gate);
        InProcess.execute(work, task, attempt).await
    }
}

fn schedule(dice: &mut Dice) -> Schedule {
    let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
    Schedule {
        source: source("a"),
        time_zone: Zone::default(),
        backup: vec![Series {
            name: "main".to_owned(),
            when: When::Every(INTERVAL),
            jitter: Duration::ZERO,
            deadline: DEADLINE,
            missed: Missed::RunOnce,
        }],
        retention: Retention {
            keep_within: minutes(if dice.chance(30) { 90 } else { 0 }),
            keep_last: 1 + dice.below(3) as u32,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            window: Duration::ZERO,
            // Longer than any run's deadline.
            grace: minutes(61 + dice.below(30)),
        },
        suspend: false,
    }
}

fn config(schedule: Schedule) -> Config {
    let span = Span { file: Path::new("simulated").into(), line: 1, column: 1 };
    let part = Node { span, value: Value::Null };
    let place = Place::Fs { path: "/nowhere".into(), single_host: false };
    Config {
        sources: vec![Entry { name: schedule.source.clone(), kind: "tide".to_owned(), part }],
        schedules: vec![schedule],
        limits: Limits { spool_dir: std::env::temp_dir(), concurrent_runs: 3, ..Limits::default() },
        ..Config::of_vault(place)
    }
}

impl World {
    pub fn new(seed: u64, plant: Option<Plant>) -> Self {
        let mut dice = Dice(seed);
        let start = instant("2026-11-21T15:50:00Z") + Duration::from_secs(dice.below(8 * 3_600));
        let clock = || TestClock::starting_at(start);
        let clocks = Clocks { time: clock(), store: clock(), machines: [clock(), clock()] };
        let config = config(schedule(&mut dice));
        let truth = Truth::new(&clocks, &config.schedules);
        let one_machine = dice.chance(50);
        let mut world = World {
            memory: MemoryStore::new(clocks.store.clone()),
            weather: Weather::new(clocks.time.clone(), dice),
            clocks,
            truth,
            daemons: Vec::new(),
            operators: Vec::new(),
            asked: Arc::default(),
            plant,
            common: Arc::default(),
            alive: Alive::default(),
            tempo: Arc::new(Tempo {
                pace_ms: AtomicU64::new(3_000),
                changed: [Notify::new(), Notify::new()],
            }),
            config,
            one_machine,
            born: 0,
        };
        for machine in 0..2 {
            let daemon = world.daemon(machine);
            world.daemons.push(daemon);
        }
        world
    }

    /// A daemon that starts now.
    fn daemon(&mut self, machine: usize) -> Process {
        let process = self.process("daemon", machine);
        let (engine, tempo, time) = (process.engine.clone(), self.tempo.clone(), self.clocks.time.clone());
        let task = tokio::spawn(async move {
            let mut daemon = Daemon::new(&engine, false);
            loop {
                daemon.tick().await;
                tempo.wait(&time, machine).await;
            }
        });
        process.gate.adopt(task.abort_handle());
        process
    }

    /// Puts a new daemon in the place of one that died. It sees by itself who died.
    pub fn restart(&mut self, n: usize) {
        self.daemons[n].gate.die();
        let daemon = self.daemon(n);
        self.daemons[n] = daemon;
        self.weather.count("daemons started again");
    }

    /// A process that nobody has started anything in.
    pub fn process(&mut self, name: &str, machine: usize) -> Process {
        self.born += 1;
        let id = format!("{name}{}-{machine}", self.born);
        let gate = Gate::new(&id, machine, &self.weather, &self.alive);
        let truth = self.truth.clone();
        truth.is_born(&gate);
        let host = if self.one_machine { "m".to_owned() } else { format!("m{machine}") };
        let host = FakeHost::of(&id, &host, "cluster", &self.alive);
        let clock: SharedClock = self.clocks.machines[machine].clone();
        let vault = Vault::new(self.store(&gate), clock.clone(), None);
        let kind = Tide { weather: self.weather.clone(), truth: truth.clone(), gate: gate.clone() };
        let app = App::of(&[&kind], self.config.clone(), vault.clone(), clock).expect("an app");
        let spool: &Spool = app.spool();
        let parts = Parts::new(vault, Arc::new(app.clone()), Arc::new(host), spool.clone());
        let engine = Engine::new(Parts {
            executor: Arc::new(Told { truth, gate: gate.clone() }),
            limits: Arc::new(self.config.limits.clone()),
            schedules: self.config.schedules.clone(),
            catalog: app.catalog.clone(),
            store_clock: app.store_clock.clone(),
            ..parts
        });
        Process { gate, app, engine }
    }

    /// The store as a process has it: its bug, if one is planted; parts; the gate; the oracle; memory.
    fn store(&self, gate: &Arc<Gate>) -> SharedStore {
        let (memory, truth) = (self.memory.clone(), self.truth.clone());
        let under = Watched { memory, truth, gate: gate.clone() };
        let faults = Faults::around(Arc::new(under.clone()), gate.clone());
        let inner: SharedStore = Arc::new(InParts(Arc::new(faults)));
        let Some(plant) = self.plant else { return inner };
        Arc::new(Saboteur {
            plant,
            inner,
            under,
            common: self.common.clone(),
            late: Mutex::new(BTreeMap::new()),
            taken: Mutex::default(),
        })
    }

    /// Lets time pass while the daemons tick every `pace`.
    pub async fn pass(&self, time: Duration, pace: Duration) {
        self.tempo.pace_ms.store(pace.as_millis() as u64, Ordering::SeqCst);
        // Whoever leads first: it was asked, perhaps, and had no time to answer.
        let mut machines = [0, 1];
        machines.sort_by_key(|machine| self.daemons[*machine].engine.health().leads.is_none());
        for machine in machines {
            self.tempo.changed[machine].notify_waiters();
            self.clocks.time.sleep(Duration::from_secs(2)).await;
        }
        self.clocks.time.sleep(time).await;
    }

    /// Moves a machine's wall clock, and the store's with it where that is the machine's own.
    pub fn jump(&mut self, machine: usize, store_too: bool, by: SignedDuration) {
        self.clocks.machines[machine].jump(by);
        if store_too {
            self.clocks.store.jump(by);
        }
        self.truth.jumps();
        self.weather.count("clock jumps");
    }

    /// Sets all clocks right.
    pub fn set_clocks(&self) {
        let all = self.clocks.machines.iter().chain([&self.clocks.store]);
        for clock in all {
            clock.jump(self.clocks.time.now().duration_since(clock.now()));
        }
    }
}
