//! What the runs of this process tell while they run: the source of `/events` and of progress bars.

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use super::Engine;
use super::run::{End, RunId};
use super::work::{Action, Grade};
use crate::config::SourceName;
use crate::task::Snapshot;

/// How many events a slow listener may be behind before it misses some; it is told that it did.
const BACKLOG: usize = 256;

/// Something happened to a run of this process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// To which.
    pub run: RunId,
    /// What it does.
    pub action: Action,
    /// To which source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<SourceName>,
    /// What happened.
    #[serde(flatten)]
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
pub enum What {
    /// An attempt began.
    Started {
        /// Which.
        attempt: u32,
    },
    /// It goes on.
    Progress(Snapshot),
    /// An attempt ended.
    Finished {
        /// How.
        outcome: End,
        /// How good.
        status: Option<Grade>,
        /// How long it took, in seconds.
        took_s: f64,
    },
}

pub(super) fn channel() -> broadcast::Sender<Event> {
    broadcast::channel(BACKLOG).0
}

impl Engine {
    /// All events from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Tells whoever listens; nobody needs to.
    pub(super) fn tell(&self, event: Event) {
        let _ = self.0.events.send(event);
    }
}
