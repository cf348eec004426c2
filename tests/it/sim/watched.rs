//! The store as one process reaches it: every effect is told to the oracle at the moment it happens.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use tidekeeper::error::Result;
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{Create, Entry, Key, OpenUpload, Page, Part, SharedStore, Store, Upload};

use super::gate::Gate;
use super::truth::Truth;

/// Memory, and somebody who watches.
#[derive(Clone, Debug)]
pub struct Watched {
    pub memory: MemoryStore,
    pub truth: Arc<Truth>,
    pub gate: Arc<Gate>,
}

impl Watched {
    /// Replaces an object, as no store of ours can.
    pub async fn replace(&self, key: &Key, body: Bytes) -> Result<()> {
        self.truth.replaced(&self.gate, key, body.clone());
        self.memory.delete(key).await?;
        self.memory.create(key, body).await.map(drop)
    }

    async fn tell(&self, key: &Key, created: Create) -> Result<Create> {
        if created == Create::Created {
            let body = self.memory.get(key).await?.unwrap_or_default();
            self.truth.created(&self.gate, key, body);
        }
        Ok(created)
    }
}

#[async_trait]
impl Store for Watched {
    fn location(&self) -> String {
        self.memory.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        let created = self.memory.create(key, body).await?;
        self.tell(key, created).await
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let inner = self.memory.begin_upload(key).await?;
        Ok(Box::new(WatchedUpload { store: self.clone(), key: key.clone(), inner }))
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.memory.get(key).await
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.memory.read(key, range).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.memory.stat(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        self.memory.list(prefix, after).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.truth.deleted(&self.gate, key);
        self.memory.delete(key).await
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        self.memory.open_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()> {
        self.truth.aborted(&self.gate, &upload.key);
        self.memory.abort_upload(upload).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.memory.now().await
    }
}

struct WatchedUpload {
    store: Watched,
    key: Key,
    inner: Box<dyn Upload>,
}

#[async_trait]
impl Upload for WatchedUpload {
    async fn put_part(&self, number: u32, part: Part) -> Result<()> {
        self.inner.put_part(number, part).await
    }

    async fn finish(&self) -> Result<Create> {
        let created = self.inner.finish().await?;
        self.store.tell(&self.key, created).await
    }

    async fn abort(&self) -> Result<()> {
        self.inner.abort().await
    }
}

/// Sends data in parts, however little of it there is: a process can die between any two of them.
#[derive(Debug)]
pub struct InParts(pub SharedStore);

#[async_trait]
impl Store for InParts {
    fn location(&self) -> String {
        self.0.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        if !key.as_str().starts_with("data/") {
            return self.0.create(key, body).await;
        }
        let upload = self.0.begin_upload(key).await?;
        upload.put_part(1, Part::Bytes(body)).await?;
        upload.finish().await
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.0.begin_upload(key).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.0.read(key, range).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.0.stat(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        self.0.list(prefix, after).await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.0.delete(key).await
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        self.0.open_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()> {
        self.0.abort_upload(upload).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.0.now().await
    }
}
