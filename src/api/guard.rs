//! What stands before every handler. Without authentication, being on this machine is the only credential; so the API
//! listens on loopback only, and takes care that a browser's page from elsewhere cannot borrow that.

use std::net::SocketAddr;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Api;
use super::problem::Problem;
use crate::clock::within;
use crate::error::{Error, Kind, Result};

/// How long an answer may take. Only plans of restores take long: they read the whole backup.
const PATIENCE: Duration = Duration::from_secs(30);
const PATIENCE_FOR_PLANS: Duration = Duration::from_secs(15 * 60);

/// Refuses to listen where others than this machine could ask.
///
/// # Errors
/// `Config`, naming the address.
pub fn loopback_only(listen: SocketAddr) -> Result<()> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    let why = "others could reach it, and authentication is not configured";
    Err(Error::new(Kind::Config, format!("listening on {listen}"), why)
        .hint("set `api.listen` to 127.0.0.1 and a port; reach it from elsewhere by `kubectl port-forward` or ssh -L"))
}

/// Checks where a request comes from, limits how long it may take, and counts it.
pub async fn guard(State(api): State<Api>, request: Request, next: Next) -> Response {
    let method = request.method().clone();
    let response = match check(request.headers()) {
        Ok(()) => in_time(&api, request, next).await,
        Err(problem) => problem.into_response(),
    };
    api.metrics.request_answered(name_of(&method), response.status().as_u16());
    response
}

async fn in_time(api: &Api, request: Request, next: Next) -> Response {
    let plans = request.uri().path() == "/v1/restores";
    let patience = if plans { PATIENCE_FOR_PLANS } else { PATIENCE };
    let doing = format!("{} {}", request.method(), request.uri().path());
    let late = || {
        let why = format!("no answer within {} s", patience.as_secs());
        Problem::from(Error::new(Kind::Timeout, doing, why)).into_response()
    };
    within(&*api.app.clock, patience, next.run(request), late).await
}

/// A page of another site reaches us under a name of its own (DNS rebinding: `Host` tells), or from its own place
/// (`Origin` tells). Programs send no `Origin`.
fn check(headers: &HeaderMap) -> Result<(), Problem> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let Some(host) = text(header::HOST).filter(|host| is_loopback(host)) else {
        let detail = format!(
            "the header Host is {}, which is not this machine",
            text(header::HOST).unwrap_or("missing")
        );
        return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, "foreign-host", detail)
            .hint("call the API as 127.0.0.1 or localhost"));
    };
    match text(header::ORIGIN) {
        None => Ok(()),
        Some(origin) if origin.strip_prefix("http://") == Some(host) => Ok(()),
        Some(origin) => {
            let detail = format!("a page of {origin} may not call {host}");
            Err(Problem::new(StatusCode::FORBIDDEN, "foreign-origin", detail))
        }
    }
}

/// Whether `HOST[:PORT]` names loopback.
fn is_loopback(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// The method as a label: callers can invent others.
fn name_of(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::HEAD => "HEAD",
        _ => "other",
    }
}
