//! Which backups there are, and what is said of them.
//!
//! The truth is in the keys: a listing of `manifests/` is the list of backups. What the manifests and marks say is read
//! once per process and kept as compact rows, since no object is ever rewritten. What cannot be read is listed with
//! the reason: an unreadable manifest is a backup in trouble, never an absent one.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::TryChunksError;
use futures_util::{Stream, StreamExt, TryFutureExt, TryStreamExt, stream};
use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::task::AbortOnDropHandle;

use super::Vault;
use super::fate::{self, Proposals};
use super::layout::{self, BackupId, BackupRef, Marker};
use super::marks::{Decree, Hold, Verdict};
use super::store::{Entry, Key, SharedStore, list_all};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};

mod read;
mod resolve;
mod row;

pub use self::read::{inspect, missing_among, missing_objects, named_objects, not_there, read_manifest};
pub use self::resolve::{baseline, latest};
pub use self::row::{Marks, Proven, Row, Summary};

/// How many objects one task reads, and how many tasks read at the same time, over all listings of a process: parsing ten
/// thousand manifests keeps every core busy, not one, and no more than 128 bodies are in memory.
const BATCH: usize = 16;
const BATCHES: usize = 8;

/// The backups of a vault. Clones share what was read already.
#[derive(Clone, Debug)]
pub struct Catalog {
    vault: Vault,
    seen: Arc<Mutex<HashMap<Key, Seen>>>,
    reading: Arc<Semaphore>,
}

/// What a listing found.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// By source, then newest first.
    pub rows: Vec<Row>,
    /// What is said of backups that have no manifest (any more): leftovers of deletions, for the deleter and scrub.
    pub strays: BTreeMap<BackupRef, Marks>,
    /// Keys in these rooms that nobody here understands.
    pub strange: Vec<Key>,
    /// When the newest of the listed objects was created, by the store's clock.
    pub newest_object: Option<Timestamp>,
}

impl Listing {
    /// The rows of one source, newest first.
    pub fn of<'a>(&'a self, source: &'a SourceName) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.backup.source == *source)
    }
}

/// An object that was read, and by which a changed one would show.
#[derive(Clone, Debug)]
struct Seen {
    size: u64,
    modified: Timestamp,
    content: Content,
}

/// What a small object says, as much of it as rows need.
#[derive(Clone, Debug)]
enum Content {
    /// Its key says it all.
    Nothing,
    Manifest(Arc<Summary>),
    Proof(Proven),
    Hold(Arc<Hold>),
    Verdict(Decree),
}

/// The rooms that say something of backups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Room {
    Manifests,
    Accepted,
    Marks(Marker),
}

const ROOMS: [Room; 5] = [
    Room::Manifests,
    Room::Accepted,
    Room::Marks(Marker::Proof),
    Room::Marks(Marker::Hold),
    Room::Marks(Marker::Tombstone),
];

type Found = (Entry, Result<Option<Content>>);

impl Catalog {
    /// The catalog of `vault`; nothing is read yet.
    pub fn new(vault: &Vault) -> Self {
        Catalog { vault: vault.clone(), seen: Arc::default(), reading: Arc::new(Semaphore::new(BATCHES)) }
    }

    /// Lists the backups of one source, or of all.
    ///
    /// # Errors
    /// Only if a listing itself fails: what cannot be read is in the rows.
    pub async fn list(&self, source: Option<&SourceName>) -> Result<Listing> {
        let [manifests, accepted, proofs, holds, tombstones] = ROOMS.map(|room| self.room(room, source));
        let (manifests, accepted, proofs, holds, tombstones) =
            tokio::try_join!(manifests, accepted, proofs, holds, tombstones)?;
        let mut listing = Listing::default();
        let mut marks = BTreeMap::new();
        for (room, found) in ROOMS[1..].iter().zip([accepted, proofs, holds, tombstones]) {
            for one in found {
                listing.note_mark(&mut marks, *room, one);
            }
        }
        for (entry, content) in manifests {
            listing.note_manifest(&mut marks, entry, content);
        }
        listing.strays = marks
            .into_iter()
            .map(|(backup, (marks, proposals))| (backup, marks.conclude(&proposals)))
            .collect();
        listing.rows.sort_by(|a, b| (&a.backup.source, &b.backup.id).cmp(&(&b.backup.source, &a.backup.id)));
        Ok(listing)
    }

    /// The ids of a source's backups, oldest first; reads no manifest.
    pub async fn ids(&self, source: &SourceName) -> Result<Vec<BackupId>> {
        let entries = list_all(&*self.vault.store, &layout::manifests(Some(source))).await?;
        let id = |entry: &Entry| layout::backup_of_manifest(&entry.key).map(|backup| backup.id);
        Ok(entries.iter().filter_map(id).collect())
    }

    async fn room(&self, room: Room, source: Option<&SourceName>) -> Result<Vec<Found>> {
        let prefix = room.prefix(source);
        let batches = entries(self.vault.store.clone(), prefix.clone()).try_chunks(BATCH);
        let read = |batch| {
            let reading = AbortOnDropHandle::new(tokio::spawn(self.clone().read_all(room, batch)));
            reading.map_err(|died| Error::new(Kind::Internal, "reading the catalog", died))
        };
        let batches = batches.map_err(|TryChunksError(_, error)| error).map_ok(read);
        let mut found: Vec<Found> = batches.try_buffer_unordered(BATCHES).try_concat().await?;
        found.sort_unstable_by(|(a, _), (b, _)| a.key.cmp(&b.key));
        self.forget_unlisted(&prefix, &found);
        Ok(found)
    }

    async fn read_all(self, room: Room, batch: Vec<Entry>) -> Vec<Found> {
        let known: Vec<_> = batch.iter().map(|entry| self.known(room, entry)).collect();
        let unknown = batch.iter().zip(&known).filter(|(_, known)| known.is_none());
        let keys: Vec<Key> = unknown.map(|(entry, _)| entry.key.clone()).collect();
        let mut bodies = self.bodies(&keys).await.into_iter();
        let found = |(entry, known): (Entry, Option<Content>)| {
            let content = match known {
                Some(content) => Ok(Some(content)),
                None => self.learn(room, &entry, bodies.next().expect("an answer for each key")),
            };
            (entry, content)
        };
        batch.into_iter().zip(known).map(found).collect()
    }

    async fn bodies(&self, keys: &[Key]) -> Vec<Result<Option<Bytes>>> {
        if keys.is_empty() {
            return Vec::new();
        }
        let _permit = self.reading.acquire().await.expect("never closed");
        self.vault.store.get_all(keys).await
    }

    /// What is known of an object without reading it (again).
    fn known(&self, room: Room, entry: &Entry) -> Option<Content> {
        if !room.has_content(&entry.key) {
            return Some(Content::Nothing);
        }
        let seen = self.seen.lock().expect("no holder panics");
        let known = seen.get(&entry.key)?;
        (known.size == entry.size && known.modified == entry.modified).then(|| known.content.clone())
    }

    fn learn(&self, room: Room, entry: &Entry, body: Result<Option<Bytes>>) -> Result<Option<Content>> {
        let Some(bytes) = body? else { return Ok(None) };
        let content = self.parse(room, &entry.key, &bytes)?;
        let seen = Seen { size: entry.size, modified: entry.modified, content: content.clone() };
        self.seen.lock().expect("no holder panics").insert(entry.key.clone(), seen);
        Ok(Some(content))
    }

    fn parse(&self, room: Room, key: &Key, bytes: &[u8]) -> Result<Content> {
        Ok(match room {
            Room::Manifests => {
                let manifest = read::parse_manifest(&self.vault, key, bytes)?;
                Content::Manifest(Arc::new(Summary::of(&manifest)))
            }
            Room::Marks(Marker::Proof) => Content::Proof(Proven::of(&read::parse(&self.vault, key, bytes)?)),
            Room::Marks(Marker::Hold) => Content::Hold(Arc::new(read::parse(&self.vault, key, bytes)?)),
            Room::Marks(Marker::Tombstone) => {
                Content::Verdict(read::parse::<Verdict>(&self.vault, key, bytes)?.decree)
            }
            Room::Accepted => Content::Nothing,
        })
    }

    /// `found` is in order.
    fn forget_unlisted(&self, prefix: &str, found: &[Found]) {
        let is_listed = |key: &Key| found.binary_search_by(|(entry, _)| entry.key.cmp(key)).is_ok();
        let mut seen = self.seen.lock().expect("no holder panics");
        seen.retain(|key, _| !key.as_str().starts_with(prefix) || is_listed(key));
    }
}

impl Room {
    fn prefix(self, source: Option<&SourceName>) -> String {
        match self {
            Room::Manifests => layout::manifests(source),
            Room::Accepted => layout::accepted_in(source),
            Room::Marks(marker) => layout::markers(marker, source),
        }
    }

    /// Whether the object behind `key` must be read to know what it says.
    fn has_content(self, key: &Key) -> bool {
        match self {
            Room::Accepted => false,
            Room::Manifests => layout::backup_of_manifest(key).is_some(),
            Room::Marks(Marker::Tombstone) => layout::backup_of_marker(Marker::Tombstone, key)
                .and_then(|(_, name)| layout::proposal_of(name))
                .is_some_and(|(_, is_verdict)| is_verdict),
            Room::Marks(_) => true,
        }
    }
}

type OpenMarks = BTreeMap<BackupRef, (Marks, Proposals)>;

impl Listing {
    fn note_manifest(&mut self, marks: &mut OpenMarks, entry: Entry, content: Result<Option<Content>>) {
        self.newest_object = self.newest_object.max(Some(entry.modified));
        let Some(backup) = layout::backup_of_manifest(&entry.key) else {
            self.strange.push(entry.key);
            return;
        };
        let manifest = match content {
            Ok(Some(Content::Manifest(summary))) => Ok(summary),
            // Deleted between the listing and the reading: gone is what a deletion looks like.
            Ok(_) => return,
            Err(error) => Err(error.to_string()),
        };
        let (marks, proposals) = marks.remove(&backup).unwrap_or_default();
        self.rows.push(Row {
            backup,
            stored_at: entry.modified,
            manifest,
            marks: marks.conclude(&proposals),
        });
    }

    fn note_mark(&mut self, marks: &mut OpenMarks, room: Room, (entry, content): Found) {
        self.newest_object = self.newest_object.max(Some(entry.modified));
        let parsed = match room {
            Room::Marks(marker) => layout::backup_of_marker(marker, &entry.key),
            _ => layout::backup_of_accepted(&entry.key).map(|backup| (backup, "")),
        };
        let Some((backup, name)) = parsed else {
            self.strange.push(entry.key);
            return;
        };
        let (marks, proposals) = marks.entry(backup).or_default();
        match (room, content) {
            (Room::Accepted, _) => marks.accepted = true,
            (Room::Marks(Marker::Tombstone), content) => {
                let verdict =
                    layout::proposal_of(name).and_then(|(_, is_verdict)| is_verdict.then_some(content));
                let decree = verdict.map(|read| {
                    read.map(|found| match found {
                        Some(Content::Verdict(decree)) => Some(decree),
                        _ => None,
                    })
                });
                if !fate::note(proposals, &entry, name, decree) {
                    self.strange.push(entry.key);
                }
            }
            (_, Ok(Some(Content::Proof(proof)))) => marks.proofs.push(proof),
            (_, Ok(Some(Content::Hold(hold)))) => marks.holds.push(hold),
            (_, Ok(_)) => {}
            (_, Err(error)) => marks.problems.push(error.to_string()),
        }
    }
}

/// Everything under `prefix`, one page after the other; while a page is awaited, what came before is worked on.
pub(super) fn entries(store: SharedStore, prefix: String) -> impl Stream<Item = Result<Entry>> + Send {
    let next = move |state: Option<Option<Key>>| {
        let (store, prefix) = (store.clone(), prefix.clone());
        async move {
            let Some(after) = state else { return Ok::<_, Error>(None) };
            let page = store.list(&prefix, after.as_ref()).await?;
            let last = page.entries.last().map(|entry| entry.key.clone());
            let state = (page.more && last.is_some()).then_some(last);
            Ok(Some((stream::iter(page.entries.into_iter().map(Ok)), state)))
        }
    };
    stream::try_unfold(Some(None), next).try_flatten().boxed()
}
