//! One streaming pipeline: zstd -> age (optional) -> SHA-256 -> spool -> store; and its inverse.
//!
//! Plain bytes are cut into blocks of [`BLOCK`]; each becomes one zstd frame with a checksum, is decoded again, and is
//! compared with what it was made of. Frames are independent, so blocks are packed in parallel without the memory
//! and the overlap of zstd's own workers, and still the object is what `zstd -d` reads: frames one after the other.
//! On an RDB of JSON values that costs 2 % of stored bytes against one long frame (measured; 1 % with 2 MiB).
//!
//! The steps that compute (pack, seal, hash, unpack) are plain functions on a chunk of bytes; the ways that wait
//! (spool, store, channels) are async. No thread ever waits, so a test's paused clock may run ahead safely.

use std::time::Duration;

use aws_lc_rs::digest::{Context as Sha, SHA256};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Future};

use super::manifest::Digest;
use crate::clock::{self, Clock};
use crate::error::{Error, Kind, Result};

pub mod download;
pub mod name;
pub mod pack;
pub mod parts;
pub mod pool;
pub mod seal;
pub mod upload;

/// Plain bytes in one frame. In flight are at most one that fills, three that are packed and one that is stored, each
/// with a frame of about its size: 10 MiB, besides 3 MiB of tables and scratch for each of the packers.
pub const BLOCK: usize = 1 << 20;

/// Work on fewer bytes than this is done where it stands: handing it to another thread takes longer.
const LIGHT: usize = 64 << 10;

/// Starts work that computes: on a thread of its own at once, or, when it is light, when it is awaited.
pub fn start<T: Send + 'static>(
    bytes: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> BoxFuture<'static, Result<T>> {
    if bytes <= LIGHT {
        return async move { work() }.boxed();
    }
    let died = |cause| Err(Error::new(Kind::Internal, "working on a chunk of bytes", cause));
    tokio::task::spawn_blocking(work).map(move |done| done.unwrap_or_else(died)).boxed()
}

/// Counts and hashes bytes that pass.
pub struct Hasher {
    sha256: Sha,
    bytes: u64,
}

impl Default for Hasher {
    fn default() -> Self {
        Hasher { sha256: Sha::new(&SHA256), bytes: 0 }
    }
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        self.bytes += bytes.len() as u64;
    }

    /// How many bytes have passed.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        let mut hasher = Hasher::default();
        hasher.update(bytes);
        hasher.finish()
    }

    /// What passed.
    pub fn finish(self) -> Digest {
        Digest { bytes: self.bytes, sha256: hex::encode(self.sha256.finish()) }
    }
}

/// How often a call is repeated before its error is passed on: with the pauses below, 25 s.
pub const TRIES: u32 = 10;

/// The pause after so many failures in a row: 100 ms, doubling up to 5 s.
pub fn pause(failures: u32) -> Duration {
    Duration::from_millis((100 << failures.min(6)).min(5_000))
}

/// Repeats `attempt` while its error says that this can help; each try may take `limit`. The first failure is told: a store
/// has repeated its calls by then.
pub async fn persist<T, F: Future<Output = Result<T>>>(
    clock: &dyn Clock,
    limit: Duration,
    mut attempt: impl FnMut() -> F,
) -> Result<T> {
    for failures in 0..TRIES - 1 {
        match within(clock, limit, attempt()).await {
            Err(error) if error.is_retryable() && failures == 0 => {
                tracing::warn!(%error, hint = error.hint_text(), "trying again");
            }
            Err(error) if error.is_retryable() => tracing::debug!(%error, failures, "trying again"),
            outcome => return outcome,
        }
        clock.sleep(pause(failures)).await;
    }
    within(clock, limit, attempt()).await
}

/// Waits for one call, but no longer than `limit`: what does not answer must not hang us.
pub async fn within<T>(
    clock: &dyn Clock,
    limit: Duration,
    call: impl Future<Output = Result<T>>,
) -> Result<T> {
    let late =
        || Err(Error::new(Kind::Timeout, "waiting for the vault", format!("no answer within {limit:?}")));
    clock::within(clock, limit, call, late).await
}
