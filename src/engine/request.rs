//! Somebody asks for a run. An accepted request is an object in the vault: it survives a crash, and whichever process leads
//! takes it up. Asking twice with one idempotency key is asking once, over midnight and over restarts alike.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::run::RunId;
use super::work::Order;
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::decide::{Deciding, Decision, decide, read_json};
use crate::vault::layout;
use crate::vault::store::{Entry, list_all};

/// How long a request is remembered after its run has ended: so long an idempotency key holds.
pub const REMEMBERED: SignedDuration = SignedDuration::from_hours(7 * 24);

/// `requests/<key>.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The hash of principal, route and idempotency key.
    pub key: String,
    /// Of this object alone.
    pub nonce: String,
    /// The run it asks for: fixed by whoever created this object first.
    pub run: RunId,
    /// Who asks.
    pub principal: String,
    /// Through which door: `POST /v1/restores`, `tidekeeper backup`.
    pub route: String,
    /// What was sent, word for word: a repeat is known by it.
    pub body: Value,
    /// What that came to on the day it was asked.
    pub order: Order,
    /// How long the run may take from its start, in seconds.
    pub deadline_s: u64,
    /// Whether the process that asks does it itself; then the leader leaves it alone.
    pub local: bool,
    /// When, by the asker's clock.
    pub at: Timestamp,
}

impl Deciding for Request {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// What somebody asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Who asks.
    pub principal: String,
    /// Through which door: a key of one route says nothing on another.
    pub route: String,
    /// The caller's idempotency key; none: each call is a new run.
    pub idempotency: Option<String>,
    /// What was sent, word for word: `latest` may mean another backup when it is sent again after a lost reply.
    pub body: Value,
    /// What is wanted.
    pub order: Order,
    /// How long the run may take from its start.
    pub deadline: Duration,
}

impl Ask {
    /// The key that this request has.
    pub fn key(&self) -> String {
        match &self.idempotency {
            Some(text) => key_of(&self.principal, &self.route, text),
            None => layout::nonce(),
        }
    }
}

/// The key of what `principal` asked for on `route` with an idempotency key.
pub fn key_of(principal: &str, route: &str, idempotency: &str) -> String {
    layout::digest(&[principal, route, idempotency])
}

impl Request {
    /// This request, if it is what `body` asks for again.
    ///
    /// # Errors
    /// `Conflict` if its idempotency key is used for something else now.
    pub fn repeated(self, body: &Value) -> Result<Self> {
        if self.body == *body {
            return Ok(self);
        }
        let why = format!("its idempotency key asked for another thing before: run {}", self.run);
        Err(Error::new(Kind::Conflict, format!("asking on {}", self.route), why)
            .hint("use a new idempotency key for a new request"))
    }
}

/// Creates the request, or finds the one that was there before with the same body.
///
/// # Errors
/// `Conflict` if the idempotency key was used for another body.
pub async fn submit(vault: &Vault, ask: &Ask, local: bool) -> Result<Request> {
    let (key, now) = (ask.key(), vault.clock.now());
    let request = Request {
        run: RunId::new(now, &key),
        nonce: layout::nonce(),
        principal: ask.principal.clone(),
        route: ask.route.clone(),
        body: ask.body.clone(),
        order: ask.order.clone(),
        deadline_s: ask.deadline.as_secs(),
        local,
        at: now,
        key,
    };
    let place = layout::request(&request.key);
    match decide(vault.store.as_ref(), vault.clock.as_ref(), &place, &request).await? {
        Decision::Ours => Ok(request),
        Decision::Theirs(first) => first.repeated(&ask.body),
    }
}

/// The request with this key.
pub async fn read(vault: &Vault, key: &str) -> Result<Option<Request>> {
    read_json(vault.store.as_ref(), &layout::request(key)).await
}

/// The keys of all requests that are remembered, and when each was made, by the store's clock.
pub async fn keys(vault: &Vault) -> Result<Vec<(String, Timestamp)>> {
    let entries = list_all(vault.store.as_ref(), layout::REQUESTS).await?;
    let key = |entry: &Entry| Some((layout::key_of_request(&entry.key)?.to_owned(), entry.modified));
    Ok(entries.iter().filter_map(key).collect())
}

/// `requests/<key>/cancel.json`: somebody wants a run to end. `<key>` is the tail of the run's id, scheduled or requested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cancel {
    /// Of this object alone.
    pub nonce: String,
    /// The run.
    pub run: RunId,
    /// Who wants it.
    pub principal: String,
    /// When, by the asker's clock.
    pub at: Timestamp,
}

impl Deciding for Cancel {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// Asks for the end of a run; asking again changes nothing.
pub async fn cancel(vault: &Vault, run: &RunId, principal: &str) -> Result<()> {
    let cancel = Cancel {
        nonce: layout::nonce(),
        run: run.clone(),
        principal: principal.to_owned(),
        at: vault.clock.now(),
    };
    let key = layout::cancel(run.tail());
    let _ = decide(vault.store.as_ref(), vault.clock.as_ref(), &key, &cancel).await?;
    Ok(())
}

/// Who asked for the end of a run, if anybody did.
pub async fn cancelled(vault: &Vault, run: &RunId) -> Result<Option<Cancel>> {
    read_json(vault.store.as_ref(), &layout::cancel(run.tail())).await
}

/// Forgets a request and what was said about it. The request goes last: a crash in between leaves it to be found again.
pub async fn forget(vault: &Vault, key: &str) -> Result<()> {
    for note in list_all(vault.store.as_ref(), &layout::request_notes(key)).await? {
        vault.store.delete(&note.key).await?;
    }
    vault.store.delete(&layout::request(key)).await
}
