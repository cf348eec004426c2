//! Objects in memory: for tests and simulations, and the simplest reading of the contract.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use super::{Create, Entry, Key, OpenUpload, Page, Part, SMALL_OBJECT_MAX, Store, Upload};
use crate::clock::SharedClock;
use crate::error::{Context, Error, Kind, Result};

const PAGE: usize = 1_000;
const CHUNK: usize = 1 << 20;

/// Objects in memory. Clones are the same store.
#[derive(Clone, Debug)]
pub struct MemoryStore {
    clock: SharedClock,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<Key, Object>,
    uploads: BTreeMap<String, Pending>,
    next_upload: u64,
}

#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    created: Timestamp,
}

#[derive(Debug)]
struct Pending {
    key: Key,
    started: Timestamp,
    parts: BTreeMap<u32, Bytes>,
}

impl MemoryStore {
    /// An empty store whose own clock is `clock`.
    pub fn new(clock: SharedClock) -> Self {
        MemoryStore { clock, state: Arc::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    fn insert(&self, key: &Key, body: Bytes) -> Create {
        let created = self.clock.now();
        let mut state = self.state();
        if state.objects.contains_key(key) {
            return Create::Exists;
        }
        state.objects.insert(key.clone(), Object { body, created });
        Create::Created
    }

    fn object(&self, key: &Key) -> Option<Object> {
        self.state().objects.get(key).cloned()
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn location(&self) -> String {
        "memory".to_owned()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        Ok(self.insert(key, body))
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let started = self.clock.now();
        let mut state = self.state();
        state.next_upload += 1;
        let id = format!("{:08}", state.next_upload);
        let pending = Pending { key: key.clone(), started, parts: BTreeMap::new() };
        state.uploads.insert(id.clone(), pending);
        Ok(Box::new(MemoryUpload { store: self.clone(), key: key.clone(), id }))
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let Some(object) = self.object(key) else { return Ok(None) };
        if object.body.len() as u64 > SMALL_OBJECT_MAX {
            let why = format!("{} bytes, where a small object was expected", object.body.len());
            return Err(Error::new(Kind::Damaged, format!("reading {key}"), why));
        }
        Ok(Some(object.body))
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let doing = || format!("reading {key}");
        let object = self.object(key).ok_or_else(|| Error::new(Kind::NotFound, doing(), "no such object"))?;
        if range.is_empty() || range.end > object.body.len() as u64 {
            let why = format!("range {range:?} of {} bytes", object.body.len());
            return Err(Error::new(Kind::Damaged, doing(), why));
        }
        let mut rest = object.body.slice(range.start as usize..range.end as usize);
        let chunks =
            std::iter::from_fn(move || (!rest.is_empty()).then(|| Ok(rest.split_to(rest.len().min(CHUNK)))));
        Ok(stream::iter(chunks).boxed())
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        Ok(self.object(key).map(|object| entry(key, &object)))
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        let state = self.state();
        let from = match after.map(Key::as_str) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let mut matching = state
            .objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.as_str().starts_with(prefix));
        let entries = matching.by_ref().take(PAGE).map(|(key, object)| entry(key, object)).collect();
        Ok(Page { entries, more: matching.next().is_some() })
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.state().objects.remove(key);
        Ok(())
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        let open = |(id, pending): (&String, &Pending)| OpenUpload {
            key: pending.key.clone(),
            id: id.clone(),
            started: pending.started,
        };
        let state = self.state();
        Ok(state.uploads.iter().filter(|(_, up)| up.key.as_str().starts_with(prefix)).map(open).collect())
    }

    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()> {
        self.state().uploads.remove(&upload.id);
        Ok(())
    }

    async fn now(&self) -> Result<Timestamp> {
        Ok(self.clock.now())
    }
}

fn entry(key: &Key, object: &Object) -> Entry {
    Entry { key: key.clone(), size: object.body.len() as u64, modified: object.created }
}

struct MemoryUpload {
    store: MemoryStore,
    key: Key,
    id: String,
}

impl MemoryUpload {
    fn gone(&self) -> Error {
        Error::new(Kind::NotFound, format!("upload {}", self.id), "it was finished or aborted before")
    }
}

#[async_trait]
impl Upload for MemoryUpload {
    async fn put_part(&self, number: u32, part: Part) -> Result<()> {
        let body = match part {
            Part::Bytes(bytes) => bytes,
            Part::File { file, offset, len } => {
                let mut buffer = vec![0; len as usize];
                file.read_exact_at(&mut buffer, offset).doing("reading the spool")?;
                buffer.into()
            }
        };
        let mut state = self.store.state();
        let pending = state.uploads.get_mut(&self.id).ok_or_else(|| self.gone())?;
        pending.parts.insert(number, body);
        Ok(())
    }

    async fn finish(&self) -> Result<Create> {
        let Some(pending) = self.store.state().uploads.remove(&self.id) else {
            return self.store.object(&self.key).map(|_| Create::Exists).ok_or_else(|| self.gone());
        };
        let mut body = Vec::with_capacity(pending.parts.values().map(Bytes::len).sum());
        pending.parts.values().for_each(|part| body.extend_from_slice(part));
        Ok(self.store.insert(&self.key, body.into()))
    }

    async fn abort(&self) -> Result<()> {
        self.store.state().uploads.remove(&self.id);
        Ok(())
    }
}
