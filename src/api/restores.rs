//! `/v1/restores`: a plan first; the same with its hash as `confirm` is the restore.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::input::{Body, IdempotencyKey};
use super::problem::Problem;
use crate::app::RestoreWish;

/// How long planning may take: it reads and checks the whole backup.
const PLANNING: Duration = Duration::from_secs(15 * 60);

/// `POST /v1/restores`. Without `confirm`: 200 with the plan and, if it can be executed, its `hash`; nothing is done. With it:
/// 202 with the run, which plans anew and does nothing if that is not the plan that was confirmed.
pub async fn create(
    State(api): State<Api>,
    key: IdempotencyKey,
    Body(wish): Body<RestoreWish>,
) -> Result<Response, Problem> {
    let task = api.app.task("plan a restore", PLANNING);
    if wish.confirm.is_some() {
        return api
            .ask("POST /v1/restores", key, &wish, api.app.restore_order(&wish, &api.engine, &task))
            .await;
    }
    let plan = api.app.plan_restore(&wish, &api.engine, &task).await?;
    Ok(Json(plan.document()).into_response())
}
