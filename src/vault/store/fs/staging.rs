//! `<root>/.tmp`: where objects grow before they have a key.
//!
//! An upload has an id and up to four kinds of files:
//!
//! - `<id>.key`, a symbolic link whose text is the key: made first, removed last. It appears whole or not at all, also
//!   after a power cut, so every leftover can be told and removed by `tidekeeper scrub`.
//! - `<id>.object`, the bytes. Part sizes follow a [schedule](part_size), so a part can be written to its place before
//!   those in front of it have come.
//! - `<id>.<n>`, a part that is longer than scheduled, and `<id>.whole`, made when parts have other sizes: then the
//!   kernel copies them together (on btrfs and xfs it shares the blocks instead).

use std::collections::BTreeMap;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};

use super::disk::{self, Home, RACES};
use super::{FsStore, timestamp, walk};
use crate::error::Result;
use crate::vault::layout;
use crate::vault::store::{Create, Key, OpenUpload, Part, Upload, part_offset, part_size};

/// The staging folder of a vault.
#[derive(Debug)]
pub(super) struct Staging {
    home: Arc<Home>,
    folder: PathBuf,
}

impl Staging {
    pub(super) fn below(home: &Arc<Home>) -> Self {
        Staging { home: home.clone(), folder: home.path.join(walk::STAGING) }
    }

    /// Whether `id` can be one of ours: it becomes part of a path.
    pub(super) fn is_id(id: &str) -> bool {
        id.len() == 12 && id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    }

    fn file(&self, id: &str, what: impl std::fmt::Display) -> PathBuf {
        self.folder.join(format!("{id}.{what}"))
    }

    /// Begins an upload: its id, and its file, empty.
    pub(super) fn begin(&self, key: &Key) -> io::Result<(String, File)> {
        let id = layout::nonce();
        let name = self.file(&id, "key");
        match symlink(key.as_str(), &name) {
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
                self.home.make_folder(&self.folder)?;
                symlink(key.as_str(), &name)?;
            }
            result => result?,
        }
        let file = new_file(&self.file(&id, "object")).inspect_err(|_| drop(std::fs::remove_file(&name)))?;
        Ok((id, file))
    }

    /// Creates a small object: an upload of one part.
    pub(super) fn create(&self, key: &Key, target: &Path, body: &[u8]) -> io::Result<Create> {
        if target.is_file() {
            return exists(target);
        }
        let (id, mut file) = self.begin(key)?;
        let object = self.file(&id, "object");
        let written = file.write_all(body).and_then(|()| file.sync_all());
        let created = written.and_then(|()| publish(&self.home, &object, target));
        // Names that stay behind do no harm, and scrub finds them.
        let _ = std::fs::remove_file(object).and_then(|()| std::fs::remove_file(self.file(&id, "key")));
        created
    }

    /// Removes everything of an upload, its key last. A part that comes at the same time is either seen by the second
    /// look, or sees itself that the key is gone.
    pub(super) fn discard(&self, id: &str) -> io::Result<()> {
        let key = self.file(id, "key");
        self.discard_files(id, &key)?;
        disk::remove(&key)?;
        self.discard_files(id, &key)
    }

    fn discard_files(&self, id: &str, but: &Path) -> io::Result<()> {
        let Some(names) = super::absent_is_none(std::fs::read_dir(&self.folder))? else { return Ok(()) };
        for name in names {
            let path = name?.path();
            let of_id = path.file_stem().is_some_and(|stem| stem == id);
            if of_id && path != but {
                super::absent_is_none(std::fs::remove_file(path))?;
            }
        }
        Ok(())
    }

    /// The uploads under `prefix` that were begun and not ended.
    pub(super) fn open(&self, prefix: &str) -> io::Result<Vec<OpenUpload>> {
        let Some(names) = super::absent_is_none(std::fs::read_dir(&self.folder))? else {
            return Ok(Vec::new());
        };
        let mut open = Vec::new();
        for name in names {
            let path = name?.path();
            if path.extension().is_some_and(|ending| ending == "key")
                && let Some(upload) = super::absent_is_none(open_upload(&path))?.flatten()
                && upload.key.as_str().starts_with(prefix)
            {
                open.push(upload);
            }
        }
        open.sort_by(|a, b| (&a.key, &a.id).cmp(&(&b.key, &b.id)));
        Ok(open)
    }

    /// Sets the folder's time to the disk's own now, which leaves no file behind and works on a full disk.
    pub(super) fn touch(&self) -> io::Result<Metadata> {
        self.home.make_folder(&self.folder)?;
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let as_it_is = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: as_it_is, last_modification: now };
        rustix::fs::utimensat(CWD, &self.folder, &times, AtFlags::empty())?;
        self.folder.metadata()
    }
}

fn open_upload(link: &Path) -> io::Result<Option<OpenUpload>> {
    let key = std::fs::read_link(link)?;
    let started = timestamp(&link.symlink_metadata()?)?;
    let id = link.file_stem().and_then(|stem| stem.to_str()).filter(|id| Staging::is_id(id));
    let key = key.to_str().filter(|key| Key::is_valid(key));
    Ok(id.zip(key).map(|(id, key)| OpenUpload { key: Key::new(key), id: id.to_owned(), started }))
}

fn new_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

/// Gives a synced file its key, unless the key exists. Exactly one of any number of racing callers gets `Created`.
fn publish(home: &Home, staged: &Path, target: &Path) -> io::Result<Create> {
    let folder = target.parent().unwrap_or(target);
    for _ in 0..RACES {
        match std::fs::hard_link(staged, target) {
            Ok(()) => return disk::sync_folder(folder).map(|()| Create::Created),
            Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return exists(target),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && staged.is_file() => {
                home.make_folder(folder)?
            }
            // Hard links are missing: EPERM, though nothing is forbidden.
            Err(cause) if cause.raw_os_error() == Some(libc::EPERM) => {
                return Err(io::ErrorKind::Unsupported.into());
            }
            Err(cause) => return Err(cause),
        }
    }
    Err(io::ErrorKind::NotFound.into())
}

/// Tells that somebody else was first, once that is durable: its creator may not have come to sync the folder.
fn exists(target: &Path) -> io::Result<Create> {
    if !target.is_file() {
        return Err(io::Error::new(io::ErrorKind::IsADirectory, "other objects lie below that key"));
    }
    target.parent().map_or(Ok(()), disk::sync_folder).map(|()| Create::Exists)
}

/// An upload into a directory.
pub(super) struct FsUpload {
    store: FsStore,
    key: Key,
    id: String,
    parts: Arc<Mutex<BTreeMap<u32, Stored>>>,
}

/// Where a part is: at its place in the object, or in a file of its own.
#[derive(Clone, Copy)]
struct Stored {
    in_place: bool,
    len: u64,
}

impl FsUpload {
    pub(super) fn new(store: FsStore, key: Key, id: String) -> Self {
        FsUpload { store, key, id, parts: Arc::default() }
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<u32, Stored>> {
        self.parts.lock().expect("no holder panics")
    }

    fn doing(&self, verb: &str) -> String {
        format!("{verb} the upload {} of {}", self.id, self.key)
    }
}

#[async_trait]
impl Upload for FsUpload {
    async fn put_part(&self, number: u32, part: Part) -> Result<()> {
        let id = self.id.clone();
        let stored = Stored { in_place: part.len() <= part_size(number), len: part.len() };
        let doing = self.doing(&format!("writing part {number} of"));
        self.store.run(doing, move |root| root.staging.put(&id, number, stored, &part)).await?;
        self.parts().insert(number, stored);
        Ok(())
    }

    async fn finish(&self) -> Result<Create> {
        let (id, parts) = (self.id.clone(), self.parts().clone());
        let target = self.store.0.path_of(&self.key);
        let finished = self.store.run(self.doing("finishing"), move |root| {
            if !root.staging.file(&id, "object").is_file() && target.is_file() {
                return exists(&target);
            }
            let created =
                root.staging.assemble(&id, &parts).and_then(|whole| publish(&root.home, &whole, &target))?;
            // Names that stay behind do no harm, and scrub finds them.
            let _ = root.staging.discard(&id);
            Ok(created)
        });
        finished.await
    }

    async fn abort(&self) -> Result<()> {
        let id = self.id.clone();
        self.store.run(self.doing("aborting"), move |root| root.staging.discard(&id)).await
    }
}

impl Staging {
    fn put(&self, id: &str, number: u32, stored: Stored, part: &Part) -> io::Result<()> {
        if stored.in_place {
            let mut object = OpenOptions::new().write(true).open(self.file(id, "object"))?;
            object.seek(SeekFrom::Start(part_offset(number)))?;
            return pour(part, &mut object);
        }
        let path = self.file(id, number);
        let mut own = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        pour(part, &mut own)?;
        match self.file(id, "key").symlink_metadata() {
            Ok(_) => Ok(()),
            Err(cause) => std::fs::remove_file(&path).and(Err(cause)),
        }
    }

    /// Makes one synced file of the parts: its path.
    fn assemble(&self, id: &str, parts: &BTreeMap<u32, Stored>) -> io::Result<PathBuf> {
        let object = self.file(id, "object");
        let file = OpenOptions::new().read(true).write(true).open(&object)?;
        if let Some(len) = length_in_place(parts) {
            file.set_len(len)?;
            file.sync_all()?;
            return Ok(object);
        }
        let path = self.file(id, "whole");
        let mut whole = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        for (number, part) in parts {
            let own = if part.in_place { None } else { Some(File::open(self.file(id, number))?) };
            let mut from = own.as_ref().unwrap_or(&file);
            from.seek(SeekFrom::Start(if part.in_place { part_offset(*number) } else { 0 }))?;
            copy_exactly(from, part.len, &mut whole)?;
        }
        whole.sync_all()?;
        Ok(path)
    }
}

/// The object's length, if every part is at its place and they leave no gap.
fn length_in_place(parts: &BTreeMap<u32, Stored>) -> Option<u64> {
    let mut end = 0;
    for (number, part) in parts {
        if !part.in_place || part_offset(*number) != end || *number == 0 {
            return None;
        }
        end += part.len;
    }
    Some(end)
}

/// Writes a part. A section of a file goes from file to file inside the kernel.
fn pour(part: &Part, into: &mut File) -> io::Result<()> {
    match part {
        Part::Bytes(bytes) => into.write_all(bytes),
        Part::File { file, offset, len } => {
            // A second opening has a cursor of its own, also of a file that has no name any more.
            let mut own = File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
            own.seek(SeekFrom::Start(*offset))?;
            copy_exactly(&own, *len, into)
        }
    }
}

/// `io::copy` between files is copy_file_range(2), sendfile(2) where that is refused, and buffers last.
fn copy_exactly(from: &File, len: u64, into: &mut File) -> io::Result<()> {
    match io::copy(&mut from.take(len), into)? {
        copied if copied == len => Ok(()),
        copied => Err(io::Error::other(format!("the part ended after {copied} of {len} bytes"))),
    }
}
