//! Whether the process lives, and whether it can do its work.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::Api;
use super::problem::Problem;

/// `GET /health/live`: the process answers.
pub async fn live() -> Json<Value> {
    Json(json!({ "live": true }))
}

/// `GET /health/ready`: requests can be served; else 503 that names what is down. A source that is down is none of
/// this: restarting us does not help it, and its other backups are as readable as ever.
pub async fn ready(State(api): State<Api>) -> Result<Json<Value>, Problem> {
    let health = api.engine.health();
    if health.is_ready() {
        let (leads, reads) = (health.leads.is_some(), health.reads);
        return Ok(Json(
            json!({ "ready": true, "leads": leads, "reads_only_because": reads, "clock": health.clock }),
        ));
    }
    let (why, hint) = match health.vault {
        Some(problem) => (problem.message, problem.hint),
        None => ("it was not reached yet".to_owned(), None),
    };
    let problem =
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-ready", format!("the vault is down: {why}"));
    Err(Problem { hint, retryable: true, ..problem })
}
