//! The object store: the narrow contract on which every promise of the vault rests.
//!
//! A dozen calls, each with one sentence that the conformance suite checks on every implementation.
//! Objects are written once: there is no call that replaces one.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::BoxStream;
use jiff::Timestamp;

use crate::error::Result;
use crate::finding::Finding;

pub mod faults;
pub mod fs;
pub mod memory;
pub mod s3;

/// The largest object that [`Store::get`] returns and [`Store::create`] takes: manifests are at most 64 KiB, plans and
/// slices a few MiB. Anything longer goes through [`Store::begin_upload`] and [`Store::read`].
pub const SMALL_OBJECT_MAX: u64 = 8 << 20;

/// The longest key. S3 takes 1,024 bytes, of which a vault's prefix needs some.
pub const KEY_MAX: usize = 900;

/// The name of an object, relative to the vault's root: slash-separated, no empty, `.` or `..` part.
/// Only `vault::layout` composes keys.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// Takes a key that our own layout composed, or that a store listed.
    ///
    /// # Panics
    /// If the text is not a key: that is a mistake of ours, never of an input.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        assert!(Key::is_valid(text), "not a key: {text:?}");
        Key(text.into())
    }

    /// Whether `text` can be a key.
    pub fn is_valid(text: &str) -> bool {
        !text.is_empty()
            && text.len() <= KEY_MAX
            && text.split('/').all(|part| !matches!(part, "" | "." | ".."))
            && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'"' | b'*' | b'?'))
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a conditional create ended. That an answer did not come is the error kind `Undecided`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Create {
    /// The object is ours, and durable.
    Created,
    /// An object has this key already (ours, if an earlier answer was lost: read it back, compare the nonce).
    Exists,
}

/// What a listing or a `stat` tells of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: Key,
    /// Its length in bytes.
    pub size: u64,
    /// When it was created, by the store's clock.
    pub modified: Timestamp,
}

/// One page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In ascending byte order of the keys; as many as the store gives at a time, some thousands at most.
    pub entries: Vec<Entry>,
    /// Whether more follow after the last of `entries`.
    pub more: bool,
}

/// An upload that was begun and neither finished nor aborted.
#[derive(Clone, Debug)]
pub struct OpenUpload {
    /// The key it would have created.
    pub key: Key,
    /// The store's name for it.
    pub id: String,
    /// When it was begun, by the store's clock.
    pub started: Timestamp,
}

/// What a part of an upload consists of.
#[derive(Clone, Debug)]
pub enum Part {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A section of a file, so that an upload in flight holds no memory.
    File {
        /// The spool file; read at offsets, its cursor is not used.
        file: Arc<std::fs::File>,
        /// Where the section begins.
        offset: u64,
        /// How long it is.
        len: u64,
    },
}

impl Part {
    /// The part's length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::File { len, .. } => *len,
        }
    }

    /// Whether the part has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How many parts of one size come before the next, twice as large.
const PARTS_PER_SIZE: u64 = 1_000;
const FIRST_PART: u64 = 8 << 20;

/// The size that part `number` (from 1) of an upload should have: 8 MiB, doubled after every 1,000 parts. So 10,000 parts,
/// S3's limit, hold 8 TiB, more than S3's largest object; the last is 4 GiB, less than S3's largest part; and all up to
/// 8 GiB travels in parts of 8 MiB. Other sizes are legal; a directory then has to copy the parts together.
pub fn part_size(number: u32) -> u64 {
    FIRST_PART << (u64::from(number.saturating_sub(1)) / PARTS_PER_SIZE).min(20)
}

/// Where part `number` begins in the object, if all before it have their [`part_size`].
pub fn part_offset(number: u32) -> u64 {
    let before = u64::from(number.saturating_sub(1));
    let doublings = (before / PARTS_PER_SIZE).min(20);
    let whole_sizes = PARTS_PER_SIZE * FIRST_PART * ((1 << doublings) - 1);
    whole_sizes + (before - doublings * PARTS_PER_SIZE) * (FIRST_PART << doublings)
}

/// An object being written in parts. Dropped without `finish`, it leaves an open upload for scrub.
#[async_trait]
pub trait Upload: Send + Sync {
    /// Stores part `number` (from 1, each but the last at least 5 MiB); calls may run in parallel, and a repeated number replaces.
    async fn put_part(&self, number: u32, part: Part) -> Result<()>;

    /// Makes the object visible, whole and durable, unless the key exists: the same promise as [`Store::create`].
    /// With either answer the upload has ended and its parts are freed; repeated, it answers either and changes nothing.
    async fn finish(&self) -> Result<Create>;

    /// Gives the upload up and frees its parts; repeating it is harmless.
    async fn abort(&self) -> Result<()>;
}

/// A place that keeps objects: a directory, a bucket, memory.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Where this is, for people, without credentials: `s3://bucket/prefix` or a path.
    fn location(&self) -> String;

    /// Creates a small object durably; of any number of callers racing for one key exactly one gets `Created`.
    async fn create(&self, key: &Key, body: Bytes) -> Result<Create>;

    /// Begins an object of any length; nothing is visible under `key` before [`Upload::finish`].
    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>>;

    /// Reads a small object whole; `None` if the key has none, an error if it is longer than [`SMALL_OBJECT_MAX`].
    async fn get(&self, key: &Key) -> Result<Option<Bytes>>;

    /// Reads several small objects, each as [`get`](Store::get) does; the answers are in the order of `keys`.
    async fn get_all(&self, keys: &[Key]) -> Vec<Result<Option<Bytes>>> {
        join_all(keys.iter().map(|key| self.get(key))).await
    }

    /// Streams a non-empty range in chunks of at most 1 MiB; a range past the end, a missing object and a cut are errors.
    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>>;

    /// Tells size and age of an object; `None` if the key has none.
    async fn stat(&self, key: &Key) -> Result<Option<Entry>>;

    /// Lists keys that begin with `prefix` and come after `after`; what existed before the call and was not deleted is in it.
    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page>;

    /// Deletes an object; deleting one that is not there succeeds.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Lists the uploads under `prefix` that were begun and not ended.
    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>>;

    /// Ends somebody's open upload and frees its parts; repeating it is harmless.
    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()>;

    /// The store's own clock: what `modified` of an object created now would be, to a second.
    async fn now(&self) -> Result<Timestamp>;

    /// Tells what the place's own settings (versioning, lifecycle rules) would do to a vault; what cannot be known is said so.
    async fn inspect(&self) -> Result<Vec<Finding>> {
        Ok(Vec::new())
    }
}

/// How a store is passed around.
pub type SharedStore = Arc<dyn Store>;

/// Lists everything under `prefix`, page after page.
pub async fn list_all(store: &dyn Store, prefix: &str) -> Result<Vec<Entry>> {
    let mut all = Vec::new();
    loop {
        let page = store.list(prefix, all.last().map(|entry: &Entry| &entry.key)).await?;
        all.extend(page.entries);
        if !page.more {
            return Ok(all);
        }
    }
}
