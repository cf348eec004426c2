//! Objects as files of a directory: every key is a path below the root, `cat` and `cp` work.
//!
//! An object is staged in `<root>/.tmp/` under a name that nobody lists, synced, and given its final name by `link(2)`,
//! which fails where `rename(2)` would replace: the kernel decides which of several racing creators wins, and a torn write
//! never has a key. Folder and new parents are synced before a create is called durable; deleting syncs too, so that a
//! manifest can never outlive, after a power cut, the data that was deleted behind it.
//!
//! Limits: a key cannot also be the folder of another (the layout composes none such), a name between two slashes is
//! at most 255 bytes, and the file system must have hard links.

use std::fs::{File, Metadata};
use std::io;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::{self, BoxStream};
use jiff::Timestamp;

use self::disk::{Home, Reserve};
use self::staging::{FsUpload, Staging};
use super::{Create, Entry, Key, OpenUpload, Page, SMALL_OBJECT_MAX, Store, Upload};
use crate::error::{Error, Kind, Result};

mod disk;
mod staging;
mod walk;

/// How much of a file is read at a time, and how many such chunks are read ahead of the consumer.
const CHUNK: u64 = 256 << 10;
const READ_AHEAD: usize = 2;

/// Room for most manifests and marks.
const USUAL: usize = 4 << 10;

/// Objects in a directory. Clones are the same store.
#[derive(Clone, Debug)]
pub struct FsStore(Arc<Root>);

#[derive(Debug)]
struct Root {
    home: Arc<Home>,
    staging: Staging,
    reserve: Reserve,
}

impl FsStore {
    /// The store at `path`, which need not exist yet; nothing is written before the first create.
    ///
    /// # Errors
    /// `Refused` if `path` is on a network mount, where links and syncs of several hosts may not be seen in one order,
    /// unless `single_host` says that only this host writes there.
    pub fn connect(path: &Path, single_host: bool) -> Result<Self> {
        let doing = || format!("opening the directory {}", path.display());
        let path = std::path::absolute(path).map_err(|cause| Error::io(doing(), cause))?;
        if let Some(mount) = disk::network_mount(&path).map_err(|cause| Error::io(doing(), cause))?
            && !single_host
        {
            let why = format!("it is on a network mount ({mount}), where racing hosts could both win a key");
            return Err(Error::new(Kind::Refused, doing(), why)
                .hint("use s3, or set `vault.fs.single_host: true` if only this host ever writes there"));
        }
        let home = Arc::new(Home::new(path));
        let (staging, reserve) = (Staging::below(&home), Reserve::below(&home.path));
        Ok(FsStore(Arc::new(Root { home, staging, reserve })))
    }

    /// Runs `work` where it may block.
    async fn run<T: Send + 'static>(
        &self,
        doing: String,
        work: impl FnOnce(&Root) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let root = self.0.clone();
        let done =
            tokio::task::spawn_blocking(move || root.home.is_still_there().and_then(|()| work(&root))).await;
        match done {
            Ok(result) => result.map_err(|cause| self.0.failed(doing, cause)),
            Err(panic) => Err(Error::new(Kind::Internal, doing, panic)),
        }
    }
}

#[async_trait]
impl Store for FsStore {
    fn location(&self) -> String {
        self.0.home.path.display().to_string()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        let key = key.clone();
        self.run(format!("creating {key}"), move |root| {
            root.using_reserve(&key, || root.staging.create(&key, &root.path_of(&key), &body))
        })
        .await
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        let of = key.clone();
        let staged = self.run(format!("beginning the upload of {key}"), move |root| root.begin(&of)).await?;
        Ok(Box::new(FsUpload::new(self.clone(), key.clone(), staged)))
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let key = key.clone();
        self.run(format!("reading {key}"), move |root| Ok(root.get(&key))).await?
    }

    /// One thread reads them all: to hand each to a thread of its own takes longer than to read it.
    async fn get_all(&self, keys: &[Key]) -> Vec<Result<Option<Bytes>>> {
        let wanted = keys.to_vec();
        let read = move |root: &Root| Ok(wanted.iter().map(|key| root.get(key)).collect());
        match self.run("reading small objects".to_owned(), read).await {
            Ok(found) => found,
            // What is wrong with the whole directory is wrong with each of them.
            Err(_) => join_all(keys.iter().map(|key| self.get(key))).await,
        }
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let doing = format!("reading {key} in {}", self.location());
        let path = self.0.path_of(key);
        let opened = self.run(doing.clone(), move |_| absent_is_none(open_object(&path))).await?;
        let Some((file, size)) = opened else {
            return Err(Error::new(Kind::NotFound, doing, "no such object"));
        };
        if range.is_empty() || range.end > size {
            return Err(Error::new(Kind::Damaged, doing, format!("range {range:?} of {size} bytes")));
        }
        let (store, file) = (self.clone(), Arc::new(file));
        let chunks = range.clone().step_by(CHUNK as usize).map(move |at| {
            let (file, end) = (file.clone(), range.end.min(at + CHUNK));
            store.clone().read_chunk(doing.clone(), file, at..end)
        });
        Ok(stream::iter(chunks).buffered(READ_AHEAD).boxed())
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        let (path, key) = (self.0.path_of(key), key.clone());
        self.run(format!("looking at {key}"), move |_| {
            let found = absent_is_none(path.symlink_metadata())?;
            found.filter(Metadata::is_file).map(|metadata| entry(key, &metadata)).transpose()
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        let (prefix, after) = (prefix.to_owned(), after.cloned());
        self.run(format!("listing {prefix} in {}", self.location()), move |root| {
            walk::page(&root.home.path, &prefix, after.as_ref())
        })
        .await
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.run(format!("deleting {key}"), move |root| {
            let path = root.path_of(&key);
            match disk::remove(&path) {
                Err(cause) if disk::is_full(&cause) && root.reserve.release() => disk::remove(&path)?,
                result => result?,
            }
            disk::remove_empty_folders(&path, &root.home.path);
            root.reserve.refill();
            Ok(())
        })
        .await
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        let prefix = prefix.to_owned();
        self.run(format!("listing open uploads in {}", self.location()), move |root| {
            root.staging.open(&prefix)
        })
        .await
    }

    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()> {
        let doing = format!("aborting the upload {} of {}", upload.id, upload.key);
        if !Staging::is_id(&upload.id) {
            return Err(Error::new(Kind::Usage, doing, "that is not the name of an upload"));
        }
        let id = upload.id.clone();
        self.run(doing, move |root| root.staging.discard(&id)).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.run(format!("asking the disk of {} for the time", self.location()), |root| {
            root.home.path.symlink_metadata()?;
            timestamp(&root.staging.touch()?)
        })
        .await
    }
}

impl FsStore {
    async fn read_chunk(self, doing: String, file: Arc<File>, range: Range<u64>) -> Result<Bytes> {
        self.run(doing, move |_| {
            let mut chunk = vec![0; (range.end - range.start) as usize];
            file.read_exact_at(&mut chunk, range.start)?;
            Ok(chunk.into())
        })
        .await
    }
}

impl Root {
    fn path_of(&self, key: &Key) -> PathBuf {
        self.home.path.join(key.as_str())
    }

    fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        let doing = || format!("reading {key}");
        match absent_is_none(read_small(&self.path_of(key))) {
            Ok(None) => Ok(None),
            Ok(Some(Ok(body))) => Ok(Some(body)),
            Ok(Some(Err(size))) => {
                let why = format!("{size} bytes, where a small object was expected");
                Err(Error::new(Kind::Damaged, doing(), why))
            }
            Err(cause) => Err(self.failed(doing(), cause)),
        }
    }

    fn begin(&self, key: &Key) -> io::Result<String> {
        let (id, _) = self.staging.begin(key)?;
        self.reserve.refill();
        Ok(id)
    }

    /// Repeats `create` with more and more of the reserve while the disk is full, unless `key` belongs to a backup: what is
    /// held back is for the small objects (runs, tombstones, verdicts) without which nothing can be deleted.
    fn using_reserve<T>(&self, key: &Key, create: impl Fn() -> io::Result<T>) -> io::Result<T> {
        let of_a_backup =
            ["manifests/", "data/", "timelines/"].iter().any(|room| key.as_str().starts_with(room));
        loop {
            match create() {
                Err(cause) if disk::is_full(&cause) && !of_a_backup && self.reserve.release() => {}
                result => return result,
            }
        }
    }

    /// Our error for what the file system said, with what to do about it.
    fn failed(&self, doing: String, cause: io::Error) -> Error {
        use io::ErrorKind as Io;
        let root = self.home.path.display();
        let hint = match cause.kind() {
            Io::StorageFull | Io::QuotaExceeded => format!(
                "make room on the disk of {root}, or let old backups go: `tidekeeper retention --apply`"
            ),
            Io::ReadOnlyFilesystem => format!("the disk of {root} is mounted read-only; `dmesg` may say why"),
            Io::PermissionDenied => format!("the user of this process must own {root} and everything in it"),
            Io::Unsupported => format!("the file system of {root} lacks hard links; use ext4, xfs or btrfs"),
            Io::UnexpectedEof => {
                return Error::new(Kind::Damaged, doing, "the file ended before its end")
                    .caused_by(cause)
                    .hint("somebody cut it, or the disk lost data: `tidekeeper scrub` tells what else is damaged");
            }
            Io::NotFound => {
                format!("is {root} typed right, and mounted? `tidekeeper init` makes a new vault")
            }
            Io::NotConnected => {
                format!("is the disk of {root} mounted? A new vault in its place needs a new start")
            }
            _ => return Error::io(doing, cause),
        };
        Error::io(doing, cause).hint(hint)
    }
}

/// Opens a file that is an object; its length comes with it.
fn open_object(path: &Path) -> io::Result<(File, u64)> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    Ok((file, metadata.len()))
}

/// A small file's bytes, or its length where it is not small.
fn read_small(path: &Path) -> io::Result<Result<Bytes, u64>> {
    let mut file = File::open(path)?;
    let mut body = Vec::with_capacity(USUAL);
    // Asking for the size first would double the calls, and a catalog makes thousands of them.
    match (&mut file).take(SMALL_OBJECT_MAX + 1).read_to_end(&mut body) {
        Err(cause) if cause.kind() == io::ErrorKind::IsADirectory => {
            return Err(io::ErrorKind::NotFound.into());
        }
        read => read?,
    };
    match body.len() as u64 {
        0..=SMALL_OBJECT_MAX => Ok(Ok(body.into())),
        _ => Ok(Err(file.metadata()?.len())),
    }
}

/// Nothing is at a path, also when what should be a folder on the way is a file.
fn absent_is_none<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        other => other.map(Some),
    }
}

fn entry(key: Key, metadata: &Metadata) -> io::Result<Entry> {
    Ok(Entry { key, size: metadata.len(), modified: timestamp(metadata)? })
}

fn timestamp(metadata: &Metadata) -> io::Result<Timestamp> {
    Timestamp::try_from(metadata.modified()?).map_err(io::Error::other)
}
