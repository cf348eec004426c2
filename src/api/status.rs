//! `/v1/status`: how every source fares, what is wrong, and what to do about it.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Api;
use super::problem::Problem;
use crate::engine::views::source::StatusView;

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Where the vault is.
    pub vault: String,
    /// How everything in it fares.
    #[serde(flatten)]
    pub status: StatusView,
}

/// `GET /v1/status`
pub async fn show(State(api): State<Api>) -> Result<Json<Status>, Problem> {
    let status = api.app.status(&api.engine).await?;
    Ok(Json(Status { vault: api.app.config.vault.to_string(), status }))
}
