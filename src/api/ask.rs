//! From a POST to a run: accepted once per idempotency key, answered with 202 and where to look.

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::Api;
use super::input::{IDEMPOTENCY_KEY, IdempotencyKey};
use super::problem::Problem;
use crate::engine::request::Ask;
use crate::engine::work::Order;
use crate::error::Kind;

/// Who asks. Without authentication it is whoever is on this machine.
pub const PRINCIPAL: &str = "api";

impl Api {
    /// Hands an order to the engine. A key that asked for something else before is 422.
    pub(super) async fn ask(
        &self,
        route: &str,
        key: IdempotencyKey,
        order: Order,
    ) -> Result<Response, Problem> {
        let deadline = self.app.deadline(&order);
        let IdempotencyKey(key) = key;
        let ask = Ask {
            principal: PRINCIPAL.to_owned(),
            route: route.to_owned(),
            idempotency: Some(key.clone()),
            order,
            deadline,
        };
        let request = self.engine.request(&ask).await.map_err(|error| {
            let reused = error.kind() == Kind::Conflict;
            let problem = Problem::from(error);
            if reused { problem.with_status(StatusCode::UNPROCESSABLE_ENTITY) } else { problem }
        })?;
        let view = self.engine.run(&request.run).await?;
        let headers: [(HeaderName, String); 2] =
            [(header::LOCATION, format!("/v1/runs/{}", view.run)), (IDEMPOTENCY_KEY, key)];
        Ok((StatusCode::ACCEPTED, headers, Json(view)).into_response())
    }
}
