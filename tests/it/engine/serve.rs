//! The real loop: real time, the real scheduler, this machine's processes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::Value;
use tidekeeper::clock::{SharedClock, SystemClock};
use tidekeeper::engine::host::LocalHost;
use tidekeeper::engine::perform::Stop;
use tidekeeper::engine::serve::Options;
use tidekeeper::engine::views::Filter;
use tidekeeper::engine::work::{Action, Attempt, Done, Grade, Order, Work, Workshop};
use tidekeeper::engine::{Engine, Parts};
use tidekeeper::error::Result;
use tidekeeper::task::{Limits, Progress, Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::store::memory::MemoryStore;
use tokio_util::sync::CancellationToken;

use super::world::{World, ask, every};
use crate::harness::wait_for;

struct Nothing(Order);

#[async_trait]
impl Work for Nothing {
    fn order(&self) -> &Order {
        &self.0
    }

    async fn run(&self, _task: &Task, _attempt: &Attempt) -> Result<Done> {
        Ok(Done { status: Grade::Succeeded, summary: String::new(), detail: Value::Null })
    }
}

struct Bench;

impl Workshop for Bench {
    fn make(&self, order: &Order) -> Result<Box<dyn Work>> {
        Ok(Box::new(Nothing(order.clone())))
    }
}

#[tokio::test]
async fn serving_keeps_schedules_and_stops_when_asked() {
    let clock: SharedClock = SystemClock::shared();
    let vault = Vault::new(Arc::new(MemoryStore::new(clock.clone())), clock.clone(), None);
    let host = LocalHost::new(&vault.process, None);
    let spool = Spool::new(&Limits::default(), clock.clone()).unwrap();
    let mut parts = Parts::new(vault, Arc::new(Bench), Arc::new(host), spool);
    parts.schedules = vec![every("a", 1)];
    let engine = Engine::new(parts);
    let stop = CancellationToken::new();
    let options = Options { take_over: false, grace: Duration::from_secs(5) };
    let serving = tokio::spawn({
        let (engine, stop) = (engine.clone(), stop.clone());
        async move { engine.serve(options, stop).await }
    });
    let backups = Filter { action: Some(Action::Backup), limit: 10, ..Filter::default() };
    wait_for("three backups", Duration::from_secs(20), async || {
        engine.runs(&backups).await.is_ok_and(|runs| runs.len() >= 3)
    })
    .await;
    assert!(engine.health().is_ready());
    let began = clock.monotonic();
    stop.cancel();
    serving.await.unwrap().unwrap();
    assert!(clock.monotonic() - began < Duration::from_secs(2), "there was nothing to wait for");
}

/// Handlers of an API run on any thread.
#[tokio::test(start_paused = true)]
async fn everything_that_is_asked_can_be_awaited_anywhere() {
    fn anywhere<T: Send>(future: T) -> T {
        future
    }
    let world = World::new();
    let process = world.process("p", vec![every("a", 60)]);
    let (engine, ask) = (&process.engine, ask(Action::Backup, "a", None));
    let request = anywhere(engine.request(&ask)).await.unwrap();
    anywhere(engine.runs(&Filter::default())).await.unwrap();
    anywhere(engine.run(&request.run)).await.unwrap();
    anywhere(engine.status()).await.unwrap();
    anywhere(engine.cancel(&request.run, "ada")).await.unwrap();
    anywhere(engine.run_once(&ask, &Stop::default(), &Progress::default())).await.unwrap();
    let mut daemon = process.daemon();
    anywhere(daemon.tick()).await;
}
