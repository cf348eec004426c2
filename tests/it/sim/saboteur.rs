//! The planted bugs: each changes what the calls of a process mean, as the mistake would have that it is named after.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::Timestamp;
use serde_json::{Value, json};
use tidekeeper::engine::run::{RunId, Started};
use tidekeeper::error::Result;
use tidekeeper::vault::layout::{self, BackupRef, Mark, Marker};
use tidekeeper::vault::store::{Create, Entry, Key, OpenUpload, Page, SharedStore, Store, Upload, list_all};

use super::watched::Watched;

/// A bug.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// The manifest is written first, the data after it.
    ManifestFirst,
    /// A backup is given up by a write that overwrites.
    AbandonOverwrites,
    /// All attempts at a run write their data under the same keys.
    OneDataKey,
    /// Whoever finds its own object under a key believes that another was faster.
    OwnIsForeign,
    /// Deletions are carried out without a verdict in the vault.
    NoVerdict,
    /// Deletions are decided by what was known when they were proposed.
    OldPlan,
    /// Scrub takes every writer for dead.
    WritersAreDead,
    /// A run that is over looks as if another attempt followed.
    RunsStartAgain,
}

/// What all processes of a history have in common.
#[derive(Debug, Default)]
pub struct Conspiracy {
    /// For each backup, the one under whose keys its run writes.
    writes_as: BTreeMap<BackupRef, BackupRef>,
    /// The first backup of each run.
    first: BTreeMap<RunId, BackupRef>,
}

/// A store with a bug between it and its process.
#[derive(Debug)]
pub struct Saboteur {
    pub plant: Plant,
    /// The store as the process means it.
    pub inner: SharedStore,
    /// The store itself.
    pub under: Watched,
    pub common: Arc<Mutex<Conspiracy>>,
    /// What is not written yet.
    pub late: Mutex<BTreeMap<Key, Bytes>>,
    /// Keys that were there when this process created them.
    pub taken: Mutex<BTreeSet<Key>>,
}

/// The key of an artifact as all attempts of its run share it.
fn shared(common: &Conspiracy, key: &Key) -> Option<Key> {
    let backup = layout::backup_of_data(key)?;
    let file = key.as_str().rsplit('/').next()?;
    let first = common.writes_as.get(&backup).unwrap_or(&backup);
    Some(layout::artifact(first, "attempt", file))
}

/// A JSON object, changed.
fn changed(body: Bytes, change: impl FnOnce(&mut Value)) -> Bytes {
    let Ok(mut value) = serde_json::from_slice(&body) else { return body };
    change(&mut value);
    value.to_string().into()
}

impl Saboteur {
    async fn create_late(&self, key: &Key, body: Bytes) -> Result<Create> {
        if layout::backup_of_data(key).is_some() {
            self.late.lock().unwrap().insert(key.clone(), body);
            return Ok(Create::Created);
        }
        let created = self.inner.create(key, body).await;
        if let Some(backup) = layout::backup_of_manifest(key) {
            let late = self.late.lock().unwrap().clone();
            for (key, body) in
                late.into_iter().filter(|(key, _)| layout::backup_of_data(key).as_ref() == Some(&backup))
            {
                let _ = self.inner.create(&key, body).await?;
            }
        }
        created
    }

    async fn create_over(&self, key: &Key, body: Bytes) -> Result<Create> {
        if self.inner.stat(key).await?.is_none() {
            return self.inner.create(key, body).await;
        }
        self.under.replace(key, body).await.map(|()| Create::Created)
    }

    async fn create_shared(&self, key: &Key, body: Bytes) -> Result<Create> {
        if let Some((run, _, Mark::Started)) = layout::attempt_of(key)
            && let Ok(Some(backup)) = serde_json::from_slice(&body).map(|started: Started| started.backup())
        {
            let mut common = self.common.lock().unwrap();
            let first = common.first.entry(run).or_insert_with(|| backup.clone()).clone();
            common.writes_as.insert(backup, first);
        }
        let place = shared(&self.common.lock().unwrap(), key);
        if let Some(place) = place {
            return self.create_over(&place, body).await;
        }
        let Some(backup) = layout::backup_of_manifest(key) else { return self.inner.create(key, body).await };
        let first = self.common.lock().unwrap().writes_as.get(&backup).cloned().unwrap_or(backup.clone());
        let body = changed(body, |manifest| {
            let writer = manifest["writer"].as_str().unwrap_or_default().to_owned();
            for artifact in manifest["artifacts"].as_array_mut().into_iter().flatten() {
                let key = artifact["key"].as_str().unwrap_or_default();
                let own = format!("{}{writer}/", layout::data_of(&backup));
                artifact["key"] = json!(key.replace(&own, &format!("{}attempt/", layout::data_of(&first))));
            }
        });
        self.inner.create(key, body).await
    }

    /// The key by which an object is looked for.
    fn place(&self, key: &Key) -> Key {
        let place = (self.plant == Plant::OneDataKey).then(|| shared(&self.common.lock().unwrap(), key));
        place.flatten().unwrap_or_else(|| key.clone())
    }

    /// What a listing of marks showed when the oldest open proposal of each source was made.
    async fn as_proposed(&self, page: Page) -> Result<Page> {
        let tombstones = list_all(&self.under.memory, "tombstones/").await?;
        let open = |entry: &&Entry| {
            let verdict = entry.key.as_str().replace(".json", ".verdict.json");
            !entry.key.as_str().ends_with(".verdict.json")
                && !tombstones.iter().any(|other| other.key.as_str() == verdict)
        };
        let oldest = |source: &str| {
            let of = |entry: &&Entry| entry.key.as_str().split('/').nth(1) == Some(source);
            tombstones.iter().filter(open).filter(of).map(|entry| entry.modified).min()
        };
        let known = |entry: &Entry| {
            let source = entry.key.as_str().split('/').nth(1).unwrap_or_default();
            oldest(source).is_none_or(|proposed| entry.modified <= proposed)
        };
        Ok(Page { entries: page.entries.into_iter().filter(known).collect(), more: page.more })
    }

    /// Whether a listing is of what a plan goes by beside the backups themselves: without the newest of those it would
    /// wait, and delete nothing.
    fn is_of_plan(&self, prefix: &str, after: Option<&Key>) -> bool {
        let rooms = ["proofs/", "holds/"];
        after.is_none() && rooms.contains(&prefix) && self.under.truth.plans(&self.under.gate)
    }
}

#[async_trait]
impl Store for Saboteur {
    fn location(&self) -> String {
        self.inner.location()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        let is_verdict = layout::backup_of_marker(Marker::Tombstone, key)
            .is_some_and(|(_, name)| name.ends_with(".verdict"));
        let gives_up = layout::backup_of_manifest(key).is_some()
            && serde_json::from_slice(&body).is_ok_and(|manifest: Value| manifest["status"] == "abandoned");
        match self.plant {
            Plant::ManifestFirst => return self.create_late(key, body).await,
            Plant::AbandonOverwrites if gives_up => return self.create_over(key, body).await,
            Plant::OneDataKey => return self.create_shared(key, body).await,
            Plant::NoVerdict if is_verdict => return Ok(Create::Created),
            _ => {}
        }
        let created = self.inner.create(key, body).await?;
        if created == Create::Exists {
            self.taken.lock().unwrap().insert(key.clone());
        }
        Ok(created)
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.inner.begin_upload(key).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let Some(found) = self.inner.get(&self.place(key)).await? else { return Ok(None) };
        let is_end = matches!(layout::attempt_of(key), Some((_, _, Mark::Finished)));
        Ok(Some(match self.plant {
            Plant::OwnIsForeign if self.taken.lock().unwrap().contains(key) => changed(found, |object| {
                let nonce = if layout::backup_of_manifest(key).is_some() { "writer" } else { "nonce" };
                object[nonce] = json!("somebodyelse");
            }),
            Plant::RunsStartAgain if is_end => {
                changed(found, |end| end["retry_at"] = end["finished_at"].clone())
            }
            _ => found,
        }))
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        self.inner.read(&self.place(key), range).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        let late = self.late.lock().unwrap().get(key).map(|body| body.len() as u64);
        if let Some(size) = late {
            return Ok(Some(Entry { key: key.clone(), size, modified: self.now().await? }));
        }
        self.inner.stat(&self.place(key)).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        if self.plant == Plant::WritersAreDead && prefix == layout::RUNS && after.is_none() {
            return Ok(Page::default());
        }
        let page = self.inner.list(prefix, after).await?;
        match self.plant {
            Plant::OldPlan if self.is_of_plan(prefix, after) => self.as_proposed(page).await,
            _ => Ok(page),
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        self.inner.open_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()> {
        self.inner.abort_upload(upload).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }
}
