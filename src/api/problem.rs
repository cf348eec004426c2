//! What a caller is told when something fails: RFC 9457, `application/problem+json`.

use axum::Json;
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{Error, Kind};

/// A failed request. `code` and `type` are stable; `detail` and `hint` are for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `urn:tidekeeper:problem:<code>`
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status in words.
    pub title: &'static str,
    /// The HTTP status.
    pub status: u16,
    /// What was being done, and why it failed.
    pub detail: String,
    /// [`Kind::code`], or one of this file's own.
    pub code: &'static str,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Whether the same request may succeed later.
    pub retryable: bool,
}

/// How long a caller should wait before a retry can help, in seconds.
const RETRY_AFTER: &str = "5";

impl Problem {
    /// A problem of HTTP itself, before anything of ours was asked.
    pub fn new(status: StatusCode, code: &'static str, detail: impl Into<String>) -> Self {
        Problem {
            kind: format!("urn:tidekeeper:problem:{code}"),
            title: status.canonical_reason().unwrap_or("Error"),
            status: status.as_u16(),
            detail: detail.into(),
            code,
            hint: None,
            retryable: false,
        }
    }

    /// Adds what to do about it.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same problem under another status, where HTTP has a more exact one.
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.title = status.canonical_reason().unwrap_or("Error");
        self.status = status.as_u16();
        self
    }

    /// What is answered for a path that does not exist.
    pub async fn no_such_path(uri: Uri) -> Self {
        let detail = format!("there is nothing at {}", uri.path());
        Problem::new(StatusCode::NOT_FOUND, "no-such-path", detail).hint(
            "the paths are /health/live, /health/ready, /metrics and those under /v1: see docs/operations.md",
        )
    }

    /// What is answered for a method that a path does not know.
    pub async fn no_such_method(method: Method, uri: Uri) -> Self {
        let detail = format!("{} does not take {method}", uri.path());
        Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", detail)
            .hint("the header Allow names those that it takes")
    }
}

/// The status that says the most about a class of failures. What the caller got wrong is 4xx; a failure of a system
/// behind us is 5xx, with 503 and 504 where a retry may help.
fn status_of(kind: Kind) -> StatusCode {
    match kind {
        Kind::Usage => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Refused | Kind::Conflict | Kind::Cancelled => StatusCode::CONFLICT,
        Kind::Unsupported => StatusCode::UNPROCESSABLE_ENTITY,
        Kind::Denied | Kind::Protocol => StatusCode::BAD_GATEWAY,
        Kind::Unreachable | Kind::Unready | Kind::Throttled | Kind::Undecided | Kind::Clock => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Kind::Timeout => StatusCode::GATEWAY_TIMEOUT,
        Kind::Full => StatusCode::INSUFFICIENT_STORAGE,
        Kind::Config | Kind::Damaged | Kind::Io | Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let problem = Problem::new(status_of(error.kind()), error.kind().code(), error.to_string());
        Problem { hint: error.hint_text().map(str::to_owned), retryable: error.is_retryable(), ..problem }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(code = self.code, hint = self.hint, "{}", self.detail);
        }
        let retryable = self.retryable;
        let mut response = (status, Json(self)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if retryable {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER));
        }
        response
    }
}
