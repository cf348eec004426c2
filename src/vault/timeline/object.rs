//! Whole objects between memory and the store. A name that holds the hash of its object's bytes makes this simple: whatever
//! lies under it is that object, or damage.

use std::time::Duration;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{CALL_LIMIT, Segment};
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::codec::download::fetch;
use crate::vault::codec::{Hasher, persist, start, within};
use crate::vault::store::{Create, Key, Part, SMALL_OBJECT_MAX, Upload, part_offset, part_size};

/// How long a try may take that carries `bytes`: what a line of 1 Mbit/s needs for them, too.
fn limit(bytes: usize) -> Duration {
    CALL_LIMIT + Duration::from_secs(bytes as u64 / (128 << 10))
}

/// Creates an object, durable when this returns; one that is there already is ours.
pub async fn create(vault: &Vault, key: &Key, body: &Bytes) -> Result<()> {
    if body.len() as u64 > SMALL_OBJECT_MAX {
        return upload(vault, key, body).await;
    }
    persist(&*vault.clock, limit(body.len()), || async {
        match vault.store.create(key, body.clone()).await? {
            Create::Created => Ok(()),
            Create::Exists => recognise(vault, key, body).await,
        }
    })
    .await
}

/// Checks that what is under our key has our length.
async fn recognise(vault: &Vault, key: &Key, body: &Bytes) -> Result<()> {
    let doing = || format!("creating {key}");
    match vault.store.stat(key).await? {
        Some(entry) if entry.size == body.len() as u64 => Ok(()),
        Some(entry) => {
            let why = format!("an object of {} bytes is there, where ours has {}", entry.size, body.len());
            Err(Error::new(Kind::Damaged, doing(), why).hint(
                "something else writes under the vault's prefix, or the store tears writes: `tidekeeper check`",
            ))
        }
        None => Err(Error::new(Kind::Conflict, doing(), "it was there and is gone")),
    }
}

/// Creates an object that is too long for one call: a record of many megabytes that does not compress.
async fn upload(vault: &Vault, key: &Key, body: &Bytes) -> Result<()> {
    let upload = persist(&*vault.clock, CALL_LIMIT, || vault.store.begin_upload(key)).await?;
    let outcome = fill(vault, key, body, &*upload).await;
    if outcome.is_err()
        && let Err(error) = within(&*vault.clock, CALL_LIMIT, upload.abort()).await
    {
        tracing::warn!(%key, %error, "an upload stays open; `tidekeeper scrub --repair` ends it");
    }
    outcome
}

async fn fill(vault: &Vault, key: &Key, body: &Bytes, upload: &dyn Upload) -> Result<()> {
    let mut number = 1;
    while (part_offset(number) as usize) < body.len() {
        let from = part_offset(number) as usize;
        let part = body.slice(from..body.len().min(from + part_size(number) as usize));
        persist(&*vault.clock, limit(part.len()), || upload.put_part(number, Part::Bytes(part.clone())))
            .await?;
        number += 1;
    }
    // A lost reply makes the next try say that it exists, or that there is no such upload: the object itself tells.
    persist(&*vault.clock, limit(body.len()), || async {
        match upload.finish().await {
            Ok(Create::Created) => Ok(()),
            Ok(Create::Exists) => recognise(vault, key, body).await,
            Err(error) => match recognise(vault, key, body).await {
                Err(other) if other.kind() == Kind::Conflict => Err(error),
                found => found,
            },
        }
    })
    .await
}

/// Reads a segment as a whole, and checks its bytes against its name.
///
/// # Errors
/// `Damaged` if it is missing or other bytes; those of the store.
pub async fn read(vault: &Vault, key: &Key, segment: &Segment) -> Result<Vec<Bytes>> {
    let damaged = |why: String| {
        Error::new(Kind::Damaged, format!("reading {key}"), why).hint(
            "`tidekeeper scrub --deep` tells what else is damaged; restore to a moment before it, or from the second copy",
        )
    };
    let mut hasher = Hasher::default();
    let mut read = Vec::new();
    let chunks = fetch(vault.store.clone(), vault.clock.clone(), key.clone(), segment.stored_bytes);
    let mut chunks = std::pin::pin!(chunks);
    loop {
        let chunk = match chunks.try_next().await {
            Ok(Some(chunk)) => chunk,
            Ok(None) => break,
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Damaged) => {
                return Err(damaged(error.why().to_owned()));
            }
            Err(error) => return Err(error),
        };
        hasher = {
            let chunk = chunk.clone();
            start(chunk.len(), move || {
                hasher.update(&chunk);
                Ok(hasher)
            })
            .await?
        };
        read.push(chunk);
    }
    let found = hasher.finish().sha256;
    if found != segment.name.sha256 {
        return Err(damaged(format!("the SHA-256 of its bytes is {found}, not the one in its name")));
    }
    Ok(read)
}
