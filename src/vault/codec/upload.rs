//! An object on its way from the spool into the store.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::sync::mpsc::UnboundedReceiver;

use super::parts::{PARTS_MAX, Section};
use super::{TRIES, pause, persist, start, within};
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::task::spool::{Spool, SpoolFile};
use crate::vault::store::{Create, Key, Part, SharedStore, Upload};

/// Parts on their way at the same time. A part is read from the spool as it is sent, so this costs no memory.
const IN_FLIGHT: usize = 4;

/// How long a call may take that carries no data.
const CALL_LIMIT: Duration = Duration::from_secs(60);

/// How long a try may take that carries `bytes`: 30 s, and what a line of 1 Mbit/s needs for them.
fn limit(bytes: u64) -> Duration {
    Duration::from_secs(30 + bytes / (128 << 10))
}

/// An object that is being written. Its key holds a nonce of ours: whatever is found under it is our own.
pub struct Outgoing {
    store: SharedStore,
    clock: SharedClock,
    key: Key,
    spool: Spool,
    file: SpoolFile,
    upload: OnceLock<Box<dyn Upload>>,
}

impl Outgoing {
    /// An object of which nothing was written yet.
    pub fn new(store: SharedStore, clock: SharedClock, key: Key, spool: &Spool) -> Result<Self> {
        let (spool, file) = (spool.clone(), spool.file()?);
        Ok(Outgoing { store, clock, key, spool, file, upload: OnceLock::new() })
    }

    /// The file in which it waits.
    pub fn file(&self) -> &SpoolFile {
        &self.file
    }

    /// Uploads sections as they come, until the last has come and is stored.
    pub async fn upload(&self, mut sections: UnboundedReceiver<Section>) -> Result<()> {
        let Some(first) = sections.recv().await else { return Ok(()) };
        let upload = persist(&*self.clock, CALL_LIMIT, || self.store.begin_upload(&self.key)).await?;
        let upload = self.upload.get_or_init(|| upload);
        let rest = stream::poll_fn(move |context| sections.poll_recv(context));
        stream::iter([first])
            .chain(rest)
            .map(Ok)
            .try_for_each_concurrent(IN_FLIGHT, |section| self.put(&**upload, section))
            .await
    }

    async fn put(&self, upload: &dyn Upload, section: Section) -> Result<()> {
        let Section { number, from, to } = section;
        if number > PARTS_MAX {
            let why = format!("it needs more than {PARTS_MAX} parts, because a full spool cut them small");
            return Err(Error::new(Kind::Full, format!("uploading {}", self.key), why)
                .hint("raise `limits.spool_max`"));
        }
        self.spool.pace().book(to - from).await;
        let part = Part::File { file: self.file.file().clone(), offset: from, len: to - from };
        persist(&*self.clock, limit(to - from), || upload.put_part(number, part.clone()))
            .await
            .map_err(|error| error.while_doing(format!("uploading part {number} of {}", self.key)))?;
        let file = self.file.clone();
        start(usize::MAX, move || {
            file.release(from, to);
            Ok(())
        })
        .await
    }

    /// Makes an object of `bytes` bytes visible of which all parts were uploaded, or, if none was, creates it.
    pub async fn finish(&self, bytes: u64) -> Result<()> {
        match self.upload.get() {
            Some(upload) => self.settle(bytes, CALL_LIMIT, || upload.finish()).await,
            None => {
                let body = self.body(bytes).await?;
                self.spool.pace().book(bytes).await;
                self.settle(bytes, limit(bytes), || self.store.create(&self.key, body.clone())).await
            }
        }
    }

    /// Repeats a create until the object is there. A lost answer makes the next try say that it exists, or that there is
    /// no such upload: so after each failure the object itself is asked for.
    async fn settle<F>(&self, bytes: u64, limit: Duration, create: impl Fn() -> F) -> Result<()>
    where
        F: Future<Output = Result<Create>>,
    {
        let mut failures = 0;
        loop {
            let outcome = within(&*self.clock, limit, create()).await;
            if let Ok(Create::Created) = outcome {
                return Ok(());
            }
            let found = within(&*self.clock, CALL_LIMIT, self.store.stat(&self.key)).await;
            match (outcome, found) {
                (_, Ok(Some(entry))) if entry.size == bytes => return Ok(()),
                (_, Ok(Some(entry))) => return Err(self.foreign(entry.size, bytes)),
                (Err(error), _) if !error.is_retryable() || failures == TRIES => return Err(error),
                (Ok(_), Err(error)) if !error.is_retryable() || failures == TRIES => return Err(error),
                (Ok(_), Ok(None)) if failures == TRIES => {
                    return Err(Error::new(
                        Kind::Conflict,
                        format!("creating {}", self.key),
                        "it comes and goes",
                    ));
                }
                _ => self.clock.sleep(pause(failures)).await,
            }
            failures += 1;
        }
    }

    fn foreign(&self, found: u64, bytes: u64) -> Error {
        let why = format!("an object of {found} bytes is there, where ours has {bytes}");
        Error::new(Kind::Damaged, format!("creating {}", self.key), why).hint(
            "something else writes under the vault's prefix, or the store tears writes: `tidekeeper check`",
        )
    }

    async fn body(&self, bytes: u64) -> Result<Bytes> {
        let file = self.file.file().clone();
        let len = usize::try_from(bytes).expect("a small object");
        start(len, move || {
            use std::os::unix::fs::FileExt;
            let mut body = vec![0; len];
            file.read_exact_at(&mut body, 0).map_err(|cause| Error::io("reading the spool", cause))?;
            Ok(body.into())
        })
        .await
    }

    /// Gives the object up. What cannot be aborted now is found by scrub.
    pub async fn abort(&self) {
        let Some(upload) = self.upload.get() else { return };
        if let Err(error) = within(&*self.clock, CALL_LIMIT, upload.abort()).await {
            tracing::warn!(key = %self.key, %error, "an upload stays open; `tidekeeper scrub --repair` ends it");
        }
    }
}
