//! One key decides: a conditional create that knows its own object again.
//!
//! An answer can get lost after the store has acted. Then the retry is told that the object exists, and only reading it
//! back tells whether it is ours: every deciding object carries its writer's nonce.

use std::time::Duration;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::store::{Create, Key, Store};
use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// An object that decides something.
pub trait Deciding: Serialize + DeserializeOwned {
    /// Unique to this write: never shared by two processes, two attempts, or two decisions of one process.
    fn nonce(&self) -> &str;
}

/// Who decided.
#[derive(Debug)]
#[must_use]
pub enum Decision<T> {
    /// We did: our object is there, durably.
    Ours,
    /// Somebody else did, with this object.
    Theirs(T),
}

/// How often an undecided write is tried again before the error is passed on: with the doubling pause below, 12 s.
const TRIES: u32 = 7;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// Creates `object` under `key` unless somebody did before; own object read back after a lost answer counts as ours.
///
/// # Errors
/// Those of the store; `Undecided` only when the store could not be asked for so long that nobody knows.
pub async fn decide<T: Deciding>(
    store: &dyn Store,
    clock: &dyn Clock,
    key: &Key,
    object: &T,
) -> Result<Decision<T>> {
    let body = encode(key, object)?;
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match attempt(store, key, object, body.clone()).await {
            Err(error) if error.is_retryable() => {}
            outcome => return outcome,
        }
        clock.sleep(pause).await;
        pause *= 2;
    }
    attempt(store, key, object, body).await
}

async fn attempt<T: Deciding>(store: &dyn Store, key: &Key, object: &T, body: Bytes) -> Result<Decision<T>> {
    if let Create::Created = store.create(key, body).await? {
        return Ok(Decision::Ours);
    }
    let Some(found) = read_json::<T>(store, key).await? else {
        // It existed and is gone: only a deletion does that, and a deleted key is never decided anew.
        return Err(Error::new(Kind::Conflict, format!("creating {key}"), "it was there and is gone"));
    };
    Ok(if found.nonce() == object.nonce() { Decision::Ours } else { Decision::Theirs(found) })
}

/// Reads a small JSON object; `None` if there is none.
pub async fn read_json<T: DeserializeOwned>(store: &dyn Store, key: &Key) -> Result<Option<T>> {
    let Some(bytes) = store.get(key).await? else { return Ok(None) };
    serde_json::from_slice(&bytes).map(Some).map_err(|cause| {
        Error::new(Kind::Damaged, format!("reading {key} in {}", store.location()), &cause)
            .caused_by(cause)
            .hint("`tidekeeper scrub` tells what else is damaged")
    })
}

/// Sets aside an object that cannot be read, damaged or of a newer build: one of them must not stop what is about others.
/// It is there all the same: what depends on it is left alone.
///
/// # Errors
/// All else, such as a store that does not answer.
pub fn set_aside<T>(read: Result<T>, unreadable: &mut Vec<Error>) -> Result<Option<T>> {
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Unsupported) => {
            unreadable.push(error);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The bytes of a JSON object: indented, so that people can read a vault with `cat`.
pub fn encode<T: Serialize>(key: &Key, object: &T) -> Result<Bytes> {
    let mut bytes = serde_json::to_vec_pretty(object)
        .map_err(|cause| Error::new(Kind::Internal, format!("writing {key}"), cause))?;
    bytes.push(b'\n');
    Ok(bytes.into())
}
