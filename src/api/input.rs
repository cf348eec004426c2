//! What callers send, read strictly: an unknown field is refused with the nearest known one, never passed over.

use axum::body::to_bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use crate::config::shape::nearest;
use crate::vault::layout;

/// The longest body that is read: the longest request we know has a tenth of it.
const BODY_MAX: usize = 64 << 10;

/// The longest idempotency key that is taken.
const KEY_MAX: usize = 255;

/// A JSON body. `T` says `deny_unknown_fields`.
#[derive(Clone, Copy, Debug)]
pub struct Body<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        // A page of another site can post a form here, but not JSON: for that its browser asks us first.
        if !is_json(request.headers()) {
            let detail = "the body is not declared to be JSON";
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "not-json", detail)
                .hint("send the header Content-Type: application/json"));
        }
        let Ok(bytes) = to_bytes(request.into_body(), BODY_MAX).await else {
            let detail = format!("the body is longer than {BODY_MAX} bytes, or was cut off");
            return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", detail));
        };
        serde_json::from_slice(&bytes).map(Body).map_err(|cause| misread("the body", &cause.to_string()))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    declared.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

/// The parameters behind `?`. `T` says `deny_unknown_fields`.
#[derive(Clone, Copy, Debug)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let read = Query::<T>::try_from_uri(&parts.uri);
        read.map(|Query(params)| Params(params)).map_err(|cause| misread("the query", &cause.body_text()))
    }
}

/// What serde says, with the nearest known field where one was not known: its message names the unknown one first and
/// all others after it, each in backquotes.
fn misread(what: &str, message: &str) -> Problem {
    let problem = Problem::new(StatusCode::BAD_REQUEST, "usage", format!("reading {what}: {message}"));
    let mut names = message
        .split_once("unknown field")
        .into_iter()
        .flat_map(|(_, rest)| rest.split('`').skip(1).step_by(2));
    let near = names.next().and_then(|unknown| nearest(unknown, names));
    match near {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem,
    }
}

/// The header that makes a retried POST the same request.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The caller's idempotency key, or a new one, which the answer then tells.
#[derive(Clone, Debug)]
pub struct IdempotencyKey(pub String);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(&IDEMPOTENCY_KEY) else {
            return Ok(IdempotencyKey(layout::nonce()));
        };
        match value.to_str() {
            Ok(text) if !text.is_empty() && text.len() <= KEY_MAX => Ok(IdempotencyKey(text.to_owned())),
            _ => {
                let detail =
                    format!("the header Idempotency-Key is not 1 to {KEY_MAX} visible ASCII characters");
                Err(Problem::new(StatusCode::BAD_REQUEST, "usage", detail).hint("a UUID is a good one"))
            }
        }
    }
}
