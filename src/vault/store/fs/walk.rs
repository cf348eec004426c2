//! Lists a directory tree as a store lists keys: in byte order, a page at a time, reading only folders that matter.
//!
//! A page reads a folder's names anew, for a listing may not miss what was created since the last page; so a name
//! that does not matter costs no more than the look at it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, RawDirEntry};

use crate::vault::store::{Entry, KEY_MAX, Key, Page};

/// Where objects are staged, and what is held back for a full disk: the two names in a root that are no objects.
pub(super) const STAGING: &str = ".tmp";
pub(super) const RESERVE: &str = ".reserve";

/// How many entries a page has at most: each page reads its folder's names anew, and an entry takes about 200 bytes.
const PAGE: usize = 5_000;

/// How many bytes of names the kernel hands over at a time.
const NAMES: usize = 64 << 10;

/// The first keys that begin with `prefix` and come after `after`.
///
/// # Errors
/// Also if the root is not there: an unmounted disk must not look like an empty vault.
pub(super) fn page(root: &Path, prefix: &str, after: Option<&Key>) -> io::Result<Page> {
    let folder = &prefix[..prefix.rfind('/').map_or(0, |slash| slash + 1)];
    if !folder.is_empty() && !Key::is_valid(folder.trim_end_matches('/')) {
        return Ok(Page::default());
    }
    let mut walk = Walk { prefix, after: after.map_or("", Key::as_str), found: Vec::new() };
    let root = rustix::fs::open(root, FOLDER, Mode::empty())?;
    let below = folder.trim_end_matches('/');
    let opened = if below.is_empty() { Ok(root) } else { open(&root, below) };
    match opened {
        Err(cause) if is_gone(&cause) => {}
        opened => walk.enter(&opened?, folder)?,
    }
    let more = walk.found.len() > PAGE;
    walk.found.truncate(PAGE);
    Ok(Page { entries: walk.found, more })
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

fn open(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?)
}

/// Somebody deleted it while we walked, or what should be a folder on the way is a file.
fn is_gone(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    found: Vec<Entry>,
}

impl Walk<'_> {
    /// Collects what is in a folder, whose keys begin with `key` (empty, or ending in a slash), up to a page and one.
    fn enter(&mut self, folder: &OwnedFd, key: &str) -> io::Result<()> {
        for name in self.wanted(folder, key)? {
            if self.found.len() > PAGE {
                break;
            }
            let child = format!("{key}{name}");
            let entered = match name.strip_suffix('/') {
                Some(name) => open(folder, name).and_then(|folder| self.enter(&folder, &child)),
                None => stat(folder, &name, Key::new(child)).map(|entry| self.found.extend(entry)),
            };
            match entered {
                Err(cause) if is_gone(&cause) => {}
                result => result?,
            }
        }
        Ok(())
    }

    /// The names in a folder that can contribute, in order; those of folders end in a slash, so that names sort as whole
    /// keys do. No more than a page and one file can contribute: in a folder of many thousands the rest is not even sorted.
    fn wanted(&self, folder: &OwnedFd, key: &str) -> io::Result<Vec<String>> {
        let prefix = self.prefix.get(key.len()..).unwrap_or("");
        let after = match self.after.strip_prefix(key) {
            Some(after) => after,
            None if key < self.after => return Ok(Vec::new()),
            None => "",
        };
        let mut buffer = Vec::with_capacity(NAMES);
        let mut listing = RawDir::new(folder, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = listing.next() {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            let in_reach = name >= after || after.starts_with(name);
            let ours = !(key.is_empty() && matches!(name, STAGING | RESERVE));
            let fits = Key::is_valid(name) && key.len() + name.len() < KEY_MAX;
            if !(in_reach && name.starts_with(prefix) && ours && fits) {
                continue;
            }
            match kind(folder, &entry)? {
                FileType::Directory => names.push(format!("{name}/")),
                FileType::RegularFile => names.push(name.to_owned()),
                _ => {}
            }
        }
        names.retain(|name| name.as_str() > after || name.ends_with('/') && after.starts_with(name));
        // Folders may turn out to be empty, so only a folder of files can be cut.
        if names.len() > PAGE + 1 && !names.iter().any(|name| name.ends_with('/')) {
            names.select_nth_unstable(PAGE + 1);
            names.truncate(PAGE + 1);
        }
        names.sort_unstable();
        Ok(names)
    }
}

/// What kind of file a name is; some file systems tell only when asked for each. One that is gone is of no kind.
fn kind(folder: &OwnedFd, entry: &RawDirEntry<'_>) -> io::Result<FileType> {
    match entry.file_type() {
        FileType::Unknown => match rustix::fs::statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode)),
            Err(rustix::io::Errno::NOENT) => Ok(FileType::Unknown),
            Err(cause) => Err(cause.into()),
        },
        kind => Ok(kind),
    }
}

/// Size and age of a file.
fn stat(folder: &OwnedFd, name: &str, key: Key) -> io::Result<Option<Entry>> {
    let stat = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
    let modified = Timestamp::new(stat.st_mtime, stat.st_mtime_nsec as i32).map_err(io::Error::other)?;
    let is_file = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    Ok(is_file.then_some(Entry { key, size: stat.st_size as u64, modified }))
}
