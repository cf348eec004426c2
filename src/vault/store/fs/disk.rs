//! What a directory needs of its disk: folders that survive a power cut, a reserve for when it is full.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};

use rustix::fs::FallocateFlags;

/// How often a race with somebody who removes empty folders is run again; each needs a deletion in just that moment.
pub(super) const RACES: u32 = 100;

/// Makes the names in a folder durable. A folder that is gone needs none.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match File::open(folder) {
        Ok(folder) => folder.sync_all(),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(cause) => Err(cause),
    }
}

/// The directory that is a vault's root, known again by its device and inode once it was seen. Where its disk is
/// unmounted another one shows, empty: that is no empty vault, and what is written there vanishes when the disk is back.
#[derive(Debug)]
pub(super) struct Home {
    /// Where it is.
    pub(super) path: PathBuf,
    identity: OnceLock<(u64, u64)>,
}

impl Home {
    /// The root at `path`, which need not exist yet.
    pub(super) fn new(path: PathBuf) -> Self {
        Home { path, identity: OnceLock::new() }
    }

    /// Passes while it is the directory that was seen first, or nothing was seen yet.
    pub(super) fn is_still_there(&self) -> io::Result<()> {
        let found = match self.path.metadata() {
            Ok(folder) => (folder.dev(), folder.ino()),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound && self.identity.get().is_none() => {
                return Ok(());
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Err(gone()),
            Err(cause) => return Err(cause),
        };
        if *self.identity.get_or_init(|| found) == found { Ok(()) } else { Err(gone()) }
    }

    /// Makes a folder in it and its missing parents, for this user only, durably: backups hold secrets. It is made itself
    /// only if it was never seen.
    pub(super) fn make_folder(&self, folder: &Path) -> io::Result<()> {
        if folder == self.path && self.identity.get().is_some() {
            return Err(gone());
        }
        for _ in 0..RACES {
            match DirBuilder::new().mode(0o700).create(folder) {
                Ok(()) => return folder.parent().map_or(Ok(()), sync_folder),
                Err(cause) if cause.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
                Err(cause) if cause.kind() == io::ErrorKind::NotFound => match folder.parent() {
                    Some(parent) => self.make_folder(parent)?,
                    None => return Err(cause),
                },
                Err(cause) => return Err(cause),
            }
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::NotConnected, "the directory is gone, or another one is in its place")
}

/// Removes a file durably; one that is not there is removed.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => path.parent().map_or(Ok(()), sync_folder),
        Err(cause) if matches!(cause.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(())
        }
        Err(cause) => Err(cause),
    }
}

/// Removes the folders above `path` that became empty, up to `root`. A creator who needs one of them makes it again.
pub(super) fn remove_empty_folders(path: &Path, root: &Path) {
    for folder in path.ancestors().skip(1).take_while(|folder| *folder != root) {
        if std::fs::remove_dir(folder).is_err() {
            return;
        }
    }
}

/// Whether the disk, or this user's part of it, is full.
pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Room that is held back so that a vault on a full disk can still be emptied: a file of 16 MiB, given back in steps so
/// that an upload that runs at the same time does not eat all of it at once.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    changing: Mutex<()>,
}

const RESERVE: u64 = 16 << 20;
const STEP: u64 = 1 << 20;

impl Reserve {
    /// The reserve of the vault at `root`; made by the first write.
    pub(super) fn below(root: &Path) -> Self {
        Reserve { path: root.join(super::walk::RESERVE), changing: Mutex::new(()) }
    }

    /// Gives a step of it back to the disk; `false` when nothing is left.
    pub(super) fn release(&self) -> bool {
        let _alone = self.changing.lock();
        let shrink = || {
            let file = OpenOptions::new().write(true).open(&self.path)?;
            let size = file.metadata()?.len();
            file.set_len(size.saturating_sub(STEP))?;
            file.sync_all()?;
            Ok::<bool, io::Error>(size > 0)
        };
        shrink().unwrap_or(false)
    }

    /// Takes it (again) if the disk has room; if not, the next deletion tries once more.
    pub(super) fn refill(&self) {
        let _alone = self.changing.lock();
        if std::fs::metadata(&self.path).is_ok_and(|file| file.len() == RESERVE) {
            return;
        }
        if let Err(cause) = self.grow()
            && !is_full(&cause)
        {
            tracing::debug!(path = %self.path.display(), %cause, "no reserve for a full disk");
        }
    }

    fn grow(&self) -> io::Result<()> {
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&self.path)?;
        Ok(rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE)?)
    }
}

/// File systems that several hosts can write at once, or that a process in user space serves in ways we cannot know:
/// `f_type` as statfs(2) lists them.
const SHARED: [(u32, &str); 16] = [
    (0x6969, "nfs"),
    (0xff53_4d42, "cifs"),
    (0xfe53_4d42, "smb2"),
    (0x517b, "smb"),
    (0x6573_5546, "fuse"),
    (0x0102_1997, "9p"),
    (0x00c3_6400, "ceph"),
    (0x0bd0_0bd0, "lustre"),
    (0x4750_4653, "gpfs"),
    (0x1961_0210, "gfs"),
    (0x0116_1970, "gfs2"),
    (0x7461_636f, "ocfs2"),
    (0x5346_414f, "afs"),
    (0x6b41_4653, "afs"),
    (0x7375_7245, "coda"),
    (0x786f_4256, "vboxsf"),
];

/// The kind of network mount that `path`, or its nearest parent that exists, is on; `None` on a local disk.
pub(super) fn network_mount(path: &Path) -> io::Result<Option<&'static str>> {
    for place in path.ancestors() {
        match rustix::fs::statfs(place) {
            Err(rustix::io::Errno::NOENT) => {}
            Err(cause) => return Err(cause.into()),
            Ok(mount) => return Ok(kind_of_mount(mount.f_type as u32)),
        }
    }
    Ok(None)
}

fn kind_of_mount(f_type: u32) -> Option<&'static str> {
    SHARED.iter().find(|(number, _)| *number == f_type).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::kind_of_mount;

    #[test]
    fn tells_network_mounts_from_local_disks() {
        assert_eq!(kind_of_mount(0x6969), Some("nfs"));
        assert_eq!(kind_of_mount(0xff53_4d42), Some("cifs"));
        assert_eq!(kind_of_mount(0x6573_5546), Some("fuse"));
        let (ext4, xfs, tmpfs) = (0xef53, 0x5846_5342, 0x0102_1994);
        assert_eq!([ext4, xfs, tmpfs].map(kind_of_mount), [None, None, None]);
    }
}
