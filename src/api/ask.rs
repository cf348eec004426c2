//! From a POST to a run: accepted once per idempotency key, answered with 202 and where to look.

use axum::Json;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};

use serde::Serialize;
use serde_json::{Value, json};

use super::Api;
use super::input::{IDEMPOTENCY_KEY, IdempotencyKey};
use super::problem::Problem;
use crate::engine::request::{Ask, Request};
use crate::engine::work::Order;
use crate::error::{Kind, Result};

/// Who asks. Without authentication it is whoever is on this machine.
pub const PRINCIPAL: &str = "api";

impl Api {
    /// Hands what `body` asks for to the engine. `order` is what it comes to now; it is not looked at when the same was
    /// asked for before. A key that asked for something else before is 422.
    pub(super) async fn ask(
        &self,
        route: &str,
        IdempotencyKey(key): IdempotencyKey,
        body: &impl Serialize,
        order: impl Future<Output = Result<Order>>,
    ) -> std::result::Result<Response, Problem> {
        let body = json!(body);
        let accepted = match self.engine.remembered(PRINCIPAL, route, &key).await? {
            Some(first) => first.repeated(&body),
            None => self.order(route, &key, body, order.await?).await,
        };
        let request = accepted.map_err(|error| {
            let reused = error.kind() == Kind::Conflict;
            let problem = Problem::from(error);
            if reused { problem.with_status(StatusCode::UNPROCESSABLE_ENTITY) } else { problem }
        })?;
        let view = self.engine.run(&request.run).await?;
        let headers: [(HeaderName, String); 2] =
            [(header::LOCATION, format!("/v1/runs/{}", view.run)), (IDEMPOTENCY_KEY, key)];
        Ok((StatusCode::ACCEPTED, headers, Json(view)).into_response())
    }

    async fn order(&self, route: &str, key: &str, body: Value, order: Order) -> Result<Request> {
        let ask = Ask {
            principal: PRINCIPAL.to_owned(),
            route: route.to_owned(),
            idempotency: Some(key.to_owned()),
            body,
            deadline: self.app.deadline(&order),
            order,
        };
        self.engine.request(&ask).await
    }
}
