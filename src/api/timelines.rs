//! `/v1/timelines`: to which seconds sources can be restored.

use axum::Json;
use axum::extract::{Path, State};
use serde::Serialize;

use super::Api;
use super::problem::Problem;
use crate::app::TimelineView;
use crate::config::SourceName;

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Timelines {
    /// Of each source that has one, by name.
    pub timelines: Vec<TimelineView>,
}

/// `GET /v1/timelines`
pub async fn list(State(api): State<Api>) -> Result<Json<Timelines>, Problem> {
    Ok(Json(Timelines { timelines: api.app.timelines().await? }))
}

/// `GET /v1/timelines/{source}`
pub async fn show(State(api): State<Api>, Path(source): Path<String>) -> Result<Json<TimelineView>, Problem> {
    let source: SourceName = source.parse()?;
    Ok(Json(api.app.timeline(&source).await?))
}
