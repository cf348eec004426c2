//! `--server URL`: a daemon does it, and its documents are printed as ours.

use std::future::Future;
use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, StatusCode, Url};
use serde_json::Value;

use super::context::Context;
use super::document;
use super::outcome::error_of;
use super::perform::{Done, RunArgs};
use crate::clock::aloud;
use crate::engine::run::State;
use crate::error::{Error, Kind, Result};
use crate::vault::layout;

/// How long a daemon may take for an answer that is read from the vault.
const PATIENCE: Duration = Duration::from_secs(60);

/// How long it may take to plan a restore: it reads the whole backup.
pub const PLANNING: Duration = Duration::from_secs(20 * 60);

/// How often a run is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often the same request is sent when no answer comes: its idempotency key makes it one request.
const TRIES: u32 = 3;

/// A daemon somewhere.
#[derive(Debug)]
pub struct Remote<'a> {
    context: &'a Context,
    base: Url,
    client: Client,
}

impl<'a> Remote<'a> {
    /// The daemon at `url`.
    ///
    /// # Errors
    /// `Usage` for what is no URL.
    pub fn new(context: &'a Context, url: &str) -> Result<Self> {
        let doing = || format!("reading the daemon's address {url:?}");
        let base = Url::parse(url).map_err(|cause| {
            Error::new(Kind::Usage, doing(), cause).hint("write http://127.0.0.1:8080 or https://HOST")
        })?;
        if !matches!(base.scheme(), "http" | "https") {
            return Err(Error::new(Kind::Usage, doing(), format!("it is no address of {}", base.scheme()))
                .hint("write http://127.0.0.1:8080 or https://HOST"));
        }
        let client = Client::builder().connect_timeout(Duration::from_secs(10)).build();
        let client = client.map_err(|cause| Error::new(Kind::Internal, "making an HTTP client", cause))?;
        Ok(Remote { context, base, client })
    }

    /// `GET path?query`; parts of the query without a value are left out.
    pub async fn get(&self, path: &str, query: &[(&str, Option<String>)]) -> Result<Value> {
        let mut url = self.url(path)?;
        for (name, value) in query {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        self.retried(|| self.send(self.client.request(Method::GET, url.clone()), PATIENCE)).await
    }

    /// `POST path`, which may take up to `limit`; a lost answer is asked for again under the same key.
    pub async fn post(&self, path: &str, body: &Value, key: Option<&str>, limit: Duration) -> Result<Value> {
        let url = self.url(path)?;
        let key = key.map_or_else(layout::nonce, str::to_owned);
        let request = || {
            let request = self.client.request(Method::POST, url.clone());
            request.header("Idempotency-Key", &key).json(body)
        };
        self.retried(|| self.send(request(), limit)).await
    }

    /// `POST path`, then waits until the run that it answers with is over.
    pub async fn perform(&self, path: &str, body: &Value, args: &RunArgs) -> Result<Done> {
        if args.deadline.is_some() {
            let why = "with --server the schedule of the daemon says how long a run may take";
            return Err(Error::new(Kind::Usage, "reading --deadline", why).hint("leave it out"));
        }
        let run = self.post(path, body, args.idempotency_key.as_deref(), PATIENCE).await?;
        Done::of_view(&self.wait(document::text(&run, "/run")).await?)
    }

    /// Follows a run until it is over, and returns its view.
    pub async fn wait(&self, run: &str) -> Result<Value> {
        let mut told = String::new();
        loop {
            let view = self.get(&format!("v1/runs/{run}"), &[]).await?;
            let state =
                view.get("state").and_then(|state| serde_json::from_value::<State>(state.clone()).ok());
            if state.is_some_and(State::is_over) {
                return Ok(view);
            }
            super::runs::tell(&view, &mut told);
            self.context.clock.sleep(LOOK_EVERY).await;
        }
    }

    fn url(&self, path: &str) -> Result<Url> {
        let wrong = |cause| Error::new(Kind::Usage, format!("asking {}", self.base), cause);
        let mut base = self.base.clone();
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", self.base.path()));
        }
        base.join(path).map_err(wrong)
    }

    /// What a daemon answers; where that takes long it is said who is waited for.
    async fn retried<F: Future<Output = Result<Value>>>(&self, send: impl FnMut() -> F) -> Result<Value> {
        let tell = || tracing::warn!(server = %self.base, "the daemon has not answered yet; waiting");
        aloud(&*self.context.clock, self.persist(send), tell).await
    }

    async fn persist<F: Future<Output = Result<Value>>>(&self, mut send: impl FnMut() -> F) -> Result<Value> {
        let mut tries = 1;
        loop {
            match send().await {
                Err(error) if error.is_retryable() && tries < TRIES => {
                    tracing::debug!(%error, "asking once more");
                    self.context.clock.sleep(LOOK_EVERY * tries).await;
                    tries += 1;
                }
                answered => return answered,
            }
        }
    }

    async fn send(&self, request: RequestBuilder, limit: Duration) -> Result<Value> {
        let doing = format!("asking the daemon at {}", self.base);
        let answer = async {
            let response = request.send().await.map_err(|cause| failed(&doing, &cause))?;
            let status = response.status();
            let bytes = response.bytes().await.map_err(|cause| failed(&doing, &cause))?;
            read(&doing, status, &bytes)
        };
        self.context.within(limit, &doing, answer).await
    }
}

fn failed(doing: &str, cause: &reqwest::Error) -> Error {
    let kind = if cause.is_timeout() { Kind::Timeout } else { Kind::Unreachable };
    // reqwest's own text only says that sending failed; why is at the end of the chain.
    let mut why: &dyn std::error::Error = cause;
    while let Some(source) = why.source() {
        why = source;
    }
    Error::new(kind, doing, why).hint("is `tidekeeper serve` running there?")
}

fn read(doing: &str, status: StatusCode, bytes: &[u8]) -> Result<Value> {
    let document = serde_json::from_slice::<Value>(bytes);
    match document {
        Ok(document) if status.is_success() => Ok(document),
        Ok(problem) => Err(error_of(&problem, doing)),
        Err(_) => Err(Error::new(Kind::Protocol, doing, format!("it answered {status}, and no JSON"))
            .hint("is that the address of a tidekeeper?")),
    }
}
