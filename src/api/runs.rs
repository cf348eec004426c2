//! `/v1/runs`: every execution of anything.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use serde::{Deserialize, Serialize};

use super::Api;
use super::ask::PRINCIPAL;
use super::input::Params;
use super::problem::Problem;
use crate::config::SourceName;
use crate::config::shape::nearest;
use crate::engine::run::{RunId, State as RunState};
use crate::engine::views::{Filter, RunView};
use crate::engine::work::Action;
use crate::error::{Error, Kind};

/// How many runs are shown unless the caller says how many, and at most.
const USUALLY: usize = 50;
const AT_MOST: usize = 500;

/// What callers may filter by; `Action` itself reads every word, as one that a newer build may know.
const ACTIONS: [Action; 10] = [
    Action::Backup,
    Action::Restore,
    Action::Verify,
    Action::Drill,
    Action::Retention,
    Action::Scrub,
    Action::Hold,
    Action::Unhold,
    Action::Accept,
    Action::Seal,
];

/// Which runs are wanted.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    source: Option<SourceName>,
    action: Option<String>,
    state: Option<RunState>,
    limit: Option<usize>,
}

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Runs {
    /// Newest first.
    pub runs: Vec<RunView>,
}

/// `GET /v1/runs?source=&action=&state=&limit=`
pub async fn list(State(api): State<Api>, Params(wanted): Params<Wanted>) -> Result<Json<Runs>, Problem> {
    let Wanted { source, action, state, limit } = wanted;
    let action = action.as_deref().map(known).transpose()?;
    let limit = limit.unwrap_or(USUALLY).clamp(1, AT_MOST);
    let runs = api.engine.runs(&Filter { source, action, state, limit }).await?;
    Ok(Json(Runs { runs }))
}

/// `GET /v1/runs/{run}`
pub async fn show(State(api): State<Api>, Path(run): Path<String>) -> Result<Json<RunView>, Problem> {
    Ok(Json(api.engine.run(&id(&run)?).await?))
}

/// `POST /v1/runs/{run}/cancel`: asking again changes nothing, so it needs no idempotency key.
pub async fn cancel(
    State(api): State<Api>,
    Path(run): Path<String>,
) -> Result<(StatusCode, Json<RunView>), Problem> {
    let run = id(&run)?;
    api.engine.cancel(&run, PRINCIPAL).await?;
    Ok((StatusCode::ACCEPTED, Json(api.engine.run(&run).await?)))
}

fn known(word: &str) -> Result<Action, Problem> {
    let found = ACTIONS.into_iter().find(|action| action.as_str() == word);
    found.ok_or_else(|| {
        let names = ACTIONS.map(Action::as_str);
        let detail = format!("reading the query: {word:?} is no action; there are {}", names.join(", "));
        let problem = Problem::new(StatusCode::BAD_REQUEST, "usage", detail);
        match nearest(word, names) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem,
        }
    })
}

/// The run that a path names.
pub(super) fn id(text: &str) -> Result<RunId, Error> {
    text.parse().map_err(|error: Error| {
        // To the caller a run with an impossible id is one that does not exist.
        Error::new(Kind::NotFound, format!("looking for run {text:?}"), error.why().to_owned())
            .hint("GET /v1/runs lists them")
    })
}
