//! A vault in memory, a brook, a place to restore it into, and a daemon that ticks.

use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use tidekeeper::app::{App, RestoreWish};
use tidekeeper::clock::{Clock, TestClock};
use tidekeeper::config::node::{Node, Span, Value as Part};
use tidekeeper::config::{Config, Entry, Place, SourceName};
use tidekeeper::engine::daemon::Daemon;
use tidekeeper::engine::request::Ask;
use tidekeeper::engine::run::Finished;
use tidekeeper::engine::work::{Action, Order};
use tidekeeper::engine::{Engine, Parts};
use tidekeeper::error::Result;
use tidekeeper::source::RestorePlan;
use tidekeeper::task::Limits;
use tidekeeper::vault::Vault;
use tidekeeper::vault::store::memory::MemoryStore;

use super::brook::{Bed, Brook, KINDS};
use crate::engine::world::{Alive, FakeHost, MORNING, instant};

pub struct Stage {
    pub clock: Arc<TestClock>,
    pub store: MemoryStore,
    pub name: SourceName,
    pub bed: Arc<Bed>,
    /// Where it is restored into.
    pub pond: Arc<Bed>,
    pub app: App,
    pub engine: Engine,
    pub daemon: Option<Daemon>,
    alive: Alive,
    config: Config,
    written: u32,
}

impl Stage {
    /// A daemon leads, and nothing has happened. The name is the test's own.
    pub fn new(name: &str) -> Self {
        let clock = TestClock::starting_at(instant(MORNING));
        let store = MemoryStore::new(clock.clone());
        let (name, pond): (SourceName, SourceName) =
            (name.parse().unwrap(), format!("{name}-pond").parse().unwrap());
        let (bed, pond_bed) = (Bed::of(&name, &clock), Bed::of(&pond, &clock));
        let span = Span { file: Path::new("staged").into(), line: 1, column: 1 };
        let entry = |name: &SourceName| Entry {
            name: name.clone(),
            kind: "brook".to_owned(),
            part: Node { span: span.clone(), value: Part::Null },
        };
        let config = Config {
            sources: vec![entry(&name)],
            targets: vec![entry(&pond)],
            limits: Limits { spool_dir: std::env::temp_dir(), ..Limits::default() },
            ..Config::of_vault(Place::Fs { path: "/nowhere".into(), single_host: false })
        };
        let alive = Alive::default();
        let (app, engine) = process("daemon", &alive, &config, &store, &clock);
        let daemon = Some(Daemon::new(&engine, false));
        Stage { clock, store, name, bed, pond: pond_bed, app, engine, daemon, alive, config, written: 0 }
    }

    /// Another process on the same vault and machine, such as a command.
    pub fn process(&self, id: &str) -> (App, Engine) {
        process(id, &self.alive, &self.config, &self.store, &self.clock)
    }

    /// From now on others can see that a process is gone.
    pub fn kill(&self, id: &str) {
        self.alive.lock().unwrap().remove(id);
    }

    /// The daemon ends in order, and its process with it.
    pub async fn end_daemon(&mut self) {
        let daemon = self.daemon.take().expect("it has not ended yet");
        daemon.shutdown(Duration::from_secs(10)).await;
        self.alive.lock().unwrap().remove("daemon");
    }

    pub fn write(&mut self) {
        self.written += 1;
        self.bed.write(&format!("word-{}", self.written));
    }

    /// Lets time pass, second by second, with three words a second.
    pub async fn flow(&mut self, seconds: u32) {
        for _ in 0..seconds {
            for _ in 0..3 {
                self.write();
            }
            self.rest(1).await;
        }
    }

    /// Lets time pass, and nothing is written.
    pub async fn rest(&mut self, seconds: u32) {
        for _ in 0..seconds {
            if let Some(daemon) = &mut self.daemon {
                daemon.tick().await;
            }
            self.clock.sleep(Duration::from_secs(1)).await;
        }
    }

    /// Waits for `work` while the daemon ticks.
    pub async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = self.rest(1) => {}
            }
        }
    }

    /// Has the daemon do it.
    pub async fn run(&mut self, order: Order) -> Finished {
        let engine = self.engine.clone();
        self.meanwhile(async move { done(&engine, order).await }).await
    }

    /// A restore into the source that a process of its own does, and how that ends.
    pub fn commanded(&self, id: &str, wish: &RestoreWish) -> impl Future<Output = Finished> + use<> {
        let ((app, engine), wish) = (self.process(id), wish.clone());
        async move {
            let task = app.task("order", Duration::from_secs(600));
            let order = app.restore_order(&wish, &engine, &task).await.unwrap();
            done(&engine, order).await
        }
    }

    pub async fn back_up(&mut self) -> Finished {
        let order = Order::new(Action::Backup, Some(self.name.clone()));
        self.run(order).await
    }

    /// As it was at `at`, into the pond.
    pub fn wish(&self, at: Timestamp) -> RestoreWish {
        RestoreWish {
            source: Some(self.name.clone()),
            at: Some(at),
            target: Some(format!("{}-pond", self.name).parse().unwrap()),
            ..RestoreWish::default()
        }
    }

    /// The daemon's plan.
    pub async fn plan(&mut self, wish: &RestoreWish) -> Result<RestorePlan> {
        let (app, engine, wish) = (self.app.clone(), self.engine.clone(), wish.clone());
        let planned = async move {
            let task = app.task("plan", Duration::from_secs(600));
            app.plan_restore(&wish, &engine, &task).await
        };
        self.meanwhile(planned).await
    }

    /// Restores, and tells how that ended.
    pub async fn restore(&mut self, wish: &RestoreWish) -> Finished {
        let (app, engine, wish) = (self.app.clone(), self.engine.clone(), wish.clone());
        let ordered = async move {
            let task = app.task("order", Duration::from_secs(600));
            app.restore_order(&wish, &engine, &task).await
        };
        let order = self.meanwhile(ordered).await.expect("a moment that can be had");
        self.run(order).await
    }
}

/// Has an engine see to it that an order is done.
async fn done(engine: &Engine, order: Order) -> Finished {
    let ask = Ask {
        principal: "ada".to_owned(),
        route: "test".to_owned(),
        idempotency: None,
        body: Value::Null,
        order,
        deadline: Duration::from_secs(600),
    };
    let (_, record) = engine.have_done(&ask, Duration::from_secs(700)).await.unwrap();
    record.finished().expect("it is over").clone()
}

fn process(
    id: &str,
    alive: &Alive,
    config: &Config,
    store: &MemoryStore,
    clock: &Arc<TestClock>,
) -> (App, Engine) {
    let vault = Vault::new(Arc::new(store.clone()), clock.clone(), None);
    let app = App::of(&[&Brook], config.clone(), vault.clone(), clock.clone()).expect("an app");
    let app = app.of_kinds(KINDS);
    let host = FakeHost::of(id, "m", "m", alive);
    let parts = Parts::new(vault, Arc::new(app.clone()), Arc::new(host), app.spool().clone());
    let sources = config.sources.iter().map(|entry| entry.name.clone()).collect();
    let engine = Engine::new(Parts { sources, catalog: app.catalog.clone(), ..parts });
    (app, engine)
}
