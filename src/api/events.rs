//! `/v1/runs/{run}/events`: a run as server-sent events, until it is over.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::IntoResponse;
use axum::response::sse::{Event as Sse, KeepAlive};
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::problem::Problem;
use super::{Api, runs};
use crate::engine::events::{Event, What};
use crate::engine::run::RunId;
use crate::engine::views::RunView;
use crate::error::Result;
use crate::task::Snapshot;

/// How often a run is looked up when this process hears nothing of it: it may be another's.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// `GET /v1/runs/{run}/events`: `run` with the whole run whenever it changed, `progress` while this process works on
/// it, `end` with the whole run as the last one.
pub async fn follow(State(api): State<Api>, Path(run): Path<String>) -> Result<impl IntoResponse, Problem> {
    let run = runs::id(&run)?;
    let heard = api.engine.events();
    let view = api.engine.run(&run).await?;
    let watch = Watch { api, run, heard, told: None, next: Some(view), over: false };
    Ok(axum::response::Sse::new(watch.stream()).keep_alive(KeepAlive::default()))
}

struct Watch {
    api: Api,
    run: RunId,
    heard: Receiver<Event>,
    /// What the listener was told last.
    told: Option<RunView>,
    /// What it is told next.
    next: Option<RunView>,
    over: bool,
}

impl Watch {
    fn stream(self) -> impl Stream<Item = Result<Sse, Infallible>> {
        stream::unfold(self, async |mut watch| {
            let event = watch.event().await?;
            Some((Ok(event), watch))
        })
    }

    /// The next event; none once the run is over, the process ends, or the vault cannot be asked.
    async fn event(&mut self) -> Option<Sse> {
        if self.over {
            return None;
        }
        loop {
            if let Some(view) = self.next.take().filter(|view| self.is_news(view)) {
                return Some(self.tell(view));
            }
            let stop = self.api.stop.clone();
            let clock = self.api.app.clock.clone();
            tokio::select! {
                biased;
                () = stop.cancelled() => return None,
                event = self.heard.recv() => match event {
                    Ok(event) if event.run != self.run => {}
                    Ok(Event { what: What::Progress(snapshot), .. }) => return Some(progress(&snapshot)),
                    Ok(_) | Err(RecvError::Lagged(_)) => self.look().await?,
                    Err(RecvError::Closed) => return None,
                },
                () = clock.sleep(LOOK_EVERY) => self.look().await?,
            }
        }
    }

    async fn look(&mut self) -> Option<()> {
        match self.api.engine.run(&self.run).await {
            Ok(view) => self.next = Some(view),
            Err(error) => {
                tracing::warn!(run = %self.run, %error, "a stream of events ends early");
                return None;
            }
        }
        Some(())
    }

    /// How far it is goes its own way, as `progress`.
    fn is_news(&self, view: &RunView) -> bool {
        let without_progress = |view: &RunView| RunView { progress: None, ..view.clone() };
        self.told.as_ref().map(without_progress) != Some(without_progress(view))
    }

    fn tell(&mut self, view: RunView) -> Sse {
        self.over = view.state.is_over();
        let event = event(if self.over { "end" } else { "run" }, &view);
        self.told = Some(view);
        event
    }
}

fn progress(snapshot: &Snapshot) -> Sse {
    event("progress", snapshot)
}

fn event(name: &str, data: &impl Serialize) -> Sse {
    let data = serde_json::to_string(data).expect("our views are plain data");
    Sse::default().event(name).data(data)
}
