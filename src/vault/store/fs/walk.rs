//! Lists a directory tree as a store lists keys: in byte order, a page at a time, reading only folders that matter.

use std::cmp::Ordering;
use std::fs::{DirEntry, ReadDir};
use std::io;
use std::path::Path;

use super::entry;
use crate::vault::store::{Entry, Key, Page};

/// Where objects are staged, and what is held back for a full disk: the two names in a root that are no objects.
pub(super) const STAGING: &str = ".tmp";
pub(super) const RESERVE: &str = ".reserve";

const PAGE: usize = 1_000;

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
    root.symlink_metadata()?;
    walk.enter(&root.join(folder), folder)?;
    let more = walk.found.len() > PAGE;
    walk.found.truncate(PAGE);
    Ok(Page { entries: walk.found, more })
}

struct Walk<'a> {
    prefix: &'a str,
    after: &'a str,
    found: Vec<Entry>,
}

/// Something in a folder. A folder's key ends in a slash, so that all keys sort as whole keys do.
struct Child {
    key: String,
    entry: DirEntry,
}

impl Walk<'_> {
    /// Collects what is in `path`, whose keys begin with `key` (empty, or ending in a slash), up to a page and one.
    fn enter(&mut self, path: &Path, key: &str) -> io::Result<()> {
        let children = match std::fs::read_dir(path) {
            Err(cause) if is_gone(&cause) => return Ok(()),
            children => self.wanted(children?, key)?,
        };
        for child in children {
            if self.found.len() > PAGE {
                break;
            }
            if child.key.ends_with('/') {
                self.enter(&child.entry.path(), &child.key)?;
                continue;
            }
            match child.entry.metadata() {
                Err(cause) if is_gone(&cause) => {}
                metadata => self.found.push(entry(Key::new(&child.key), &metadata?)?),
            }
        }
        Ok(())
    }

    /// The children that can contribute, in order. No more than a page and one of them can: in a folder of many
    /// thousands the rest is not even sorted.
    fn wanted(&self, folder: ReadDir, key: &str) -> io::Result<Vec<Child>> {
        let mut children = Vec::new();
        for entry in folder {
            let entry = entry?;
            let kind = entry.file_type()?;
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else { continue };
            let slash = if kind.is_dir() { "/" } else { "" };
            let child = Child { key: format!("{key}{name}{slash}"), entry };
            if (kind.is_dir() || kind.is_file()) && self.wants(&child.key) {
                children.push(child);
            }
        }
        let by_key = |a: &Child, b: &Child| -> Ordering { a.key.cmp(&b.key) };
        // Folders may turn out to be empty, so only a folder of files can be cut.
        let files_only = children.iter().all(|child| !child.key.ends_with('/'));
        if files_only && children.len() > PAGE + 1 {
            children.select_nth_unstable_by(PAGE + 1, by_key);
            children.truncate(PAGE + 1);
        }
        children.sort_unstable_by(by_key);
        Ok(children)
    }

    fn wants(&self, key: &str) -> bool {
        let folder = key.strip_suffix('/');
        let in_prefix = key.starts_with(self.prefix) || folder.is_some() && self.prefix.starts_with(key);
        let in_time = key > self.after || folder.is_some() && self.after.starts_with(key);
        let ours = !matches!(folder.unwrap_or(key), STAGING | RESERVE);
        in_prefix && in_time && ours && Key::is_valid(folder.unwrap_or(key))
    }
}

/// A folder or file that somebody deleted while we walked, or a prefix through what is a file.
fn is_gone(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}
