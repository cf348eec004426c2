//! What stands between a process and the store: it pauses here, its calls fail here, and here it dies.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tidekeeper::clock::Clock;
use tidekeeper::error::Kind;
use tidekeeper::vault::store::faults::{Before, Call, Hook, Method};
use tokio::task::AbortHandle;

use super::weather::Weather;
use crate::engine::world::Alive;

/// A process as the world outside sees it.
pub struct Gate {
    /// The process's nonce, with its name.
    pub id: String,
    /// On which machine it runs.
    pub machine: usize,
    weather: Arc<Weather>,
    alive: Alive,
    state: Mutex<State>,
    tasks: Mutex<Vec<AbortHandle>>,
}

#[derive(Debug, Default)]
struct State {
    dead: bool,
    /// Until when it does nothing.
    pauses: Duration,
    /// It dies at the call after so many more.
    doom: Option<u64>,
    /// When it first tried to create this key; that may come about much later.
    begun: BTreeMap<String, Duration>,
    /// When it last went on after it had stood still for a while.
    stalled: Duration,
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)
    }
}

impl Gate {
    pub fn new(id: &str, machine: usize, weather: &Arc<Weather>, alive: &Alive) -> Arc<Self> {
        Arc::new(Gate {
            id: id.to_owned(),
            machine,
            weather: weather.clone(),
            alive: alive.clone(),
            state: Mutex::default(),
            tasks: Mutex::default(),
        })
    }

    /// What ends when the process dies.
    pub fn adopt(&self, task: AbortHandle) {
        self.tasks.lock().unwrap().push(task);
    }

    pub fn is_dead(&self) -> bool {
        self.state.lock().unwrap().dead
    }

    /// The process dies, or ends: whoever can see it, sees that it is gone.
    pub fn die(&self) {
        self.state.lock().unwrap().dead = true;
        self.alive.lock().unwrap().remove(&self.id);
        for task in self.tasks.lock().unwrap().drain(..) {
            task.abort();
        }
    }

    /// It does nothing for so long: a frozen machine, a stopped process.
    pub fn pause(&self, pause: Duration) {
        self.state.lock().unwrap().pauses = self.weather.time.monotonic() + pause;
        self.weather.count("pauses");
    }

    pub fn resume(&self) {
        self.state.lock().unwrap().pauses = Duration::ZERO;
    }

    /// It dies in the middle of what it does after `calls` more calls.
    pub fn doom(&self, calls: u64) {
        self.state.lock().unwrap().doom = Some(calls);
    }

    /// When it last went on after a pause.
    pub fn stalled(&self) -> Duration {
        self.state.lock().unwrap().stalled
    }

    /// When it first tried to create `key`.
    pub fn began(&self, key: &str) -> Duration {
        self.state.lock().unwrap().begun.get(key).copied().unwrap_or_default()
    }

    /// Whether its hour has come.
    fn is_doomed(&self) -> bool {
        let mut state = self.state.lock().unwrap();
        let doomed = !self.weather.is_calm() && state.doom == Some(0);
        state.doom = state.doom.and_then(|calls| calls.checked_sub(1));
        doomed
    }

    async fn crash(&self, counted: &'static str) {
        if !self.is_dead() {
            self.weather.count("crashes");
            self.weather.count(counted);
        }
        self.die();
        pending().await
    }

    /// The way to the store and back takes a while, and a paused process does not go it.
    async fn linger(&self) {
        if self.weather.strikes(|odds| odds.pause) {
            self.pause(self.weather.seconds(20, 2_400));
        }
        match self.weather.below(16) {
            0 => self.weather.time.sleep(self.weather.seconds(0, 2)).await,
            1..=5 => tokio::task::yield_now().await,
            _ => {}
        }
        loop {
            let (dead, pauses) = {
                let state = self.state.lock().unwrap();
                (state.dead, state.pauses.saturating_sub(self.weather.time.monotonic()))
            };
            match pauses {
                _ if dead => pending().await,
                Duration::ZERO => return,
                // A pause may end before its time.
                rest => self.weather.time.sleep(rest.min(Duration::from_secs(60))).await,
            }
            self.state.lock().unwrap().stalled = self.weather.time.monotonic();
        }
    }
}

#[async_trait]
impl Hook for Gate {
    async fn before(&self, call: &Call) -> Before {
        self.weather.count("store calls");
        if call.method == Method::Create {
            let now = self.weather.time.monotonic();
            self.state.lock().unwrap().begun.entry(call.of.clone()).or_insert(now);
        }
        if self.is_doomed() || self.weather.strikes(|odds| odds.crash) {
            self.crash("crashes before a call acted").await;
        }
        self.linger().await;
        if self.weather.strikes(|odds| odds.fail) {
            self.weather.count("failed calls");
            return Before::Fail(Kind::Unreachable);
        }
        Before::Pass
    }

    async fn after(&self, _: &Call, ok: bool) -> Option<Kind> {
        if self.weather.strikes(|odds| odds.crash) {
            self.crash("crashes after a call acted").await;
        }
        self.linger().await;
        if ok && self.weather.strikes(|odds| odds.lose) {
            self.weather.count("lost replies");
            return Some(Kind::Undecided);
        }
        None
    }
}
