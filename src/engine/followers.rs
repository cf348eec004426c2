//! Followers of logs: one for each source that keeps a timeline, for as long as this process leads.
//!
//! A follower can be dropped at any await, as everything else here: the next one goes on from what is durable. So whoever
//! leads no more just drops them; only at a shutdown they are asked to end, so that they store what they have.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use jiff::Timestamp;
use serde::Serialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::Engine;
use super::executor::panicked;
use super::leader::Fence;
use super::run::{Failure, share};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::task::{Progress, Task};

/// Follows the log of one source. `app.rs` makes them; tests have others.
#[async_trait]
pub trait Follower: Send + Sync {
    /// Of which source.
    fn source(&self) -> &SourceName;

    /// Follows until the task is cancelled, and stores then what it has.
    ///
    /// # Errors
    /// Whatever ends it before. It is started again after a while.
    async fn follow(&self, task: &Task, fence: &Fence) -> Result<()>;
}

/// How the follower of a source fares.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Following {
    /// Since when it follows, or, with an error, fails; by the wall clock.
    pub since: Timestamp,
    /// Why it ended last; none once it has followed for a minute since.
    pub error: Option<Failure>,
}

/// The pause before it is started again doubles from one to the other, and grows by up to a quarter, so that those that fell
/// together do not come back together. One that followed for longer than [`SETTLED`] begins with the first again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest where nobody answers: whoever is away may be back at any moment, and is asked at little cost.
const LONGEST_WHILE_AWAY: Duration = Duration::from_secs(8);

const SETTLED: Duration = Duration::from_secs(5 * 60);

/// One that followed for so long is over what ended the one before.
const BELIEVED: Duration = Duration::from_secs(60);

/// A follower's task has no deadline; but all clocks end somewhere.
const FOREVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// The followers of a daemon.
pub(super) struct Followers {
    engine: Engine,
    lives: Vec<Life>,
    jobs: JoinSet<(usize, Result<()>)>,
    end: CancellationToken,
}

struct Life {
    follower: Arc<dyn Follower>,
    state: State,
    /// How long the next pause is.
    pause: Duration,
    /// How often it has ended.
    ends: u32,
}

/// By the monotonic clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waits { until: Duration },
    Lives { since: Duration },
}

impl fmt::Debug for Followers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} followers", self.jobs.len(), self.lives.len())
    }
}

impl Followers {
    /// Those of the engine's workshop; none is started yet.
    pub fn new(engine: &Engine) -> Self {
        let idle = |follower| Life {
            follower,
            state: State::Waits { until: Duration::ZERO },
            pause: FIRST_PAUSE,
            ends: 0,
        };
        let lives = engine.0.workshop.followers().into_iter().map(idle).collect();
        Followers { engine: engine.clone(), lives, jobs: JoinSet::new(), end: CancellationToken::new() }
    }

    /// Takes in which have ended, and starts those whose pause is over.
    pub fn tend(&mut self, fence: &Fence) {
        while let Some(ended) = self.jobs.try_join_next() {
            match ended {
                Ok((n, ended)) => self.note_end(n, ended),
                Err(error) => tracing::error!(%error, "a follower ended without a word"),
            }
        }
        let now = self.now();
        for n in 0..self.lives.len() {
            match self.lives[n].state {
                State::Waits { until } if until <= now => self.start(n, fence.clone()),
                State::Lives { since } if now.saturating_sub(since) >= BELIEVED => self.note_recovery(n),
                _ => {}
            }
        }
    }

    /// Drops them all: another process follows from now on.
    pub fn abandon(&mut self) {
        self.jobs = JoinSet::new();
        for life in &mut self.lives {
            (life.state, life.pause) = (State::Waits { until: Duration::ZERO }, FIRST_PAUSE);
        }
        self.engine.followings().clear();
    }

    /// Asks all to store what they have, and to end.
    pub fn end(&self) {
        self.end.cancel();
    }

    /// Returns when all have ended.
    pub async fn ended(&mut self) {
        while let Some(ended) = self.jobs.join_next().await {
            if let Ok((n, Err(error))) = ended {
                let source = self.lives[n].follower.source();
                tracing::warn!(%source, %error, hint = error.hint_text(), "following ended");
            }
        }
    }

    fn now(&self) -> Duration {
        self.engine.clock().monotonic()
    }

    fn start(&mut self, n: usize, fence: Fence) {
        let now = self.now();
        let life = &mut self.lives[n];
        life.state = State::Lives { since: now };
        let follower = life.follower.clone();
        let task = Task {
            run: format!("follow-{}", follower.source()).into(),
            clock: self.engine.clock().clone(),
            deadline: now + FOREVER,
            cancel: self.end.child_token(),
            progress: Progress::default(),
            limits: self.engine.0.limits.clone(),
            spool: self.engine.0.spool.clone(),
        };
        let known = self.engine.followings().get(follower.source()).and_then(|known| known.error.clone());
        self.note(n, known);
        self.jobs.spawn(async move {
            let followed = AssertUnwindSafe(follower.follow(&task, &fence)).catch_unwind().await;
            let doing = || format!("following the log of {}", follower.source());
            (n, followed.unwrap_or_else(|panic| Err(panicked(doing(), &*panic))))
        });
    }

    /// One that ended without an error has done its part of something (its timeline was closed): it is started again too.
    fn note_end(&mut self, n: usize, ended: Result<()>) {
        let now = self.now();
        let life = &mut self.lives[n];
        let lived = match life.state {
            State::Lives { since } => now.saturating_sub(since),
            State::Waits { .. } => Duration::ZERO,
        };
        if lived >= SETTLED || ended.is_ok() {
            life.pause = FIRST_PAUSE;
        }
        life.ends += 1;
        let pause = life.pause.min(longest_pause(&ended));
        let pause = pause + share(life.follower.source().as_str(), &life.ends.to_string(), pause / 4);
        life.state = State::Waits { until: now + pause };
        life.pause = (life.pause * 2).min(longest_pause(&ended));
        let source = life.follower.source().clone();
        let failure = ended.as_ref().err().map(Failure::from);
        if let Err(error) = &ended
            && self.engine.followings().get(&source).is_none_or(|known| known.error != failure)
        {
            let hint = error.hint_text();
            tracing::warn!(%source, %error, hint, pause_s = pause.as_secs(), "following ended; tried again");
        }
        self.note(n, failure);
    }

    fn note_recovery(&self, n: usize) {
        let source = self.lives[n].follower.source();
        let failed = self.engine.followings().get(source).is_some_and(|known| known.error.is_some());
        if failed {
            tracing::info!(%source, "its log is followed again");
            self.note(n, None);
        }
    }

    /// For status: what is wrong with it now.
    fn note(&self, n: usize, error: Option<Failure>) {
        let source = self.lives[n].follower.source();
        let mut followings = self.engine.followings();
        let same = followings.get(source).filter(|known| known.error.is_some() == error.is_some());
        let since = same.map_or_else(|| self.engine.clock().now(), |known| known.since);
        followings.insert(source.clone(), Following { since, error });
    }
}

fn longest_pause(ended: &Result<()>) -> Duration {
    match ended.as_ref().err().map(Error::kind) {
        Some(Kind::Unreachable | Kind::Unready) => LONGEST_WHILE_AWAY,
        _ => LONGEST_PAUSE,
    }
}

impl Engine {
    /// How the followers of this process fare; empty where it does not lead.
    pub fn following(&self) -> BTreeMap<SourceName, Following> {
        self.followings().clone()
    }
}
