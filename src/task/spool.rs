//! Where stored bytes wait on disk until the vault has taken them: bounded, shared by all runs of a process.
//!
//! A source must be read at its own speed (a slow reader can cost the server memory), and a vault takes bytes at its own.
//! Between them is a file without a name, so that a crash leaves nothing behind. Its bytes count against one budget
//! for the whole process; what the vault has taken is given back to the disk and to the budget.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::fs::{FallocateFlags, Mode, OFlags};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Limits;
use super::pace::Pace;
use crate::clock::SharedClock;
use crate::error::{Context, Error, Kind, Result};

/// The smallest `spool_max` that lets one artifact flow: a part on its way out, and one that fills.
pub const SPOOL_MIN: u64 = 16 << 20;

/// How long a writer waits for space before it fails. A server hangs up on a replica that does not read, by default
/// after 60 s; ours is the better message, so it must come first.
pub const STALL_LIMIT: Duration = Duration::from_secs(50);

/// The budget is counted in pages, because holes are punched in pages.
const PAGE: u64 = 4096;

/// The spool of a process. Clones share its budget.
#[derive(Clone, Debug)]
pub struct Spool(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    limits: Limits,
    clock: SharedClock,
    stall_limit: Duration,
    free: Arc<Semaphore>,
    pace: Pace,
}

impl Spool {
    /// The spool in `limits.spool_dir`. Nothing is touched before the first file is wanted: whoever only looks needs
    /// no place to write.
    ///
    /// # Errors
    /// If `spool_max` is below [`SPOOL_MIN`].
    pub fn new(limits: &Limits, clock: SharedClock) -> Result<Self> {
        Spool::with_stall_limit(limits, clock, STALL_LIMIT)
    }

    /// As [`new`](Spool::new), with another limit than [`STALL_LIMIT`].
    pub fn with_stall_limit(limits: &Limits, clock: SharedClock, stall_limit: Duration) -> Result<Self> {
        if limits.spool_max < SPOOL_MIN {
            let why = format!("spool_max is {} bytes, and at least {SPOOL_MIN} are needed", limits.spool_max);
            return Err(Error::new(Kind::Config, "preparing the spool", why)
                .hint("set `limits.spool_max` to 1GiB or more"));
        }
        let free = Arc::new(Semaphore::new((limits.spool_max / PAGE) as usize));
        let pace = Pace::new(limits.upload_rate, clock.clone());
        let inner = Inner { limits: limits.clone(), clock, stall_limit, free, pace };
        Ok(Spool(Arc::new(inner)))
    }

    /// A new, empty file; the folder is made if it is not there.
    ///
    /// # Errors
    /// If the folder cannot be made, or we may not write there.
    pub fn file(&self) -> Result<SpoolFile> {
        let dir = &self.0.limits.spool_dir;
        let made = std::fs::create_dir_all(dir).and_then(|()| nameless(dir));
        let file = made
            .doing(format!("making a file in spool_dir {}", dir.display()))
            .map_err(|error| error.hint("point `limits.spool_dir` to a directory we may write"))?;
        let nothing = self.0.free.clone().try_acquire_many_owned(0).expect("nothing is always to be had");
        Ok(SpoolFile(Arc::new(FileInner {
            spool: self.clone(),
            file: Arc::new(file),
            held: Mutex::new(nothing),
            warned: AtomicBool::new(false),
        })))
    }

    /// How many bytes wait now, over all runs, in whole pages.
    pub fn used(&self) -> u64 {
        self.0.limits.spool_max / PAGE * PAGE - self.0.free.available_permits() as u64 * PAGE
    }

    /// How fast bytes may leave for the vault (`upload_rate`).
    pub fn pace(&self) -> &Pace {
        &self.0.pace
    }
}

/// A file without a name. Clones are the same file; with the last of them its bytes go back to the budget.
#[derive(Clone, Debug)]
pub struct SpoolFile(Arc<FileInner>);

#[derive(Debug)]
struct FileInner {
    spool: Spool,
    file: Arc<File>,
    held: Mutex<OwnedSemaphorePermit>,
    warned: AtomicBool,
}

impl SpoolFile {
    /// The file, for reading at offsets.
    pub fn file(&self) -> &Arc<File> {
        &self.0.file
    }

    /// Books room for the bytes from `from` to `to` if there is some now.
    pub fn try_book(&self, from: u64, to: u64) -> bool {
        match self.free().try_acquire_many_owned(pages(from, to)) {
            Ok(permit) => {
                self.hold(permit);
                true
            }
            Err(_) => false,
        }
    }

    /// Waits for room for the bytes from `from` to `to`.
    ///
    /// # Errors
    /// `Full`, naming `spool_max`, after the spool's stall limit.
    pub async fn book(&self, from: u64, to: u64) -> Result<()> {
        if self.try_book(from, to) {
            return Ok(());
        }
        let inner = &self.0.spool.0;
        if !self.0.warned.swap(true, Ordering::Relaxed) {
            let spool_max = inner.limits.spool_max;
            tracing::warn!(spool_max, "the spool is full: the source waits until the vault has taken more");
        }
        tokio::select! {
            biased;
            permit = self.free().acquire_many_owned(pages(from, to)) => {
                self.hold(permit.expect("the budget is never closed"));
                Ok(())
            }
            () = inner.clock.sleep(inner.stall_limit) => Err(self.stalled()),
        }
    }

    /// Writes `bytes` at `offset`, where room was booked. Blocks on the disk.
    pub fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        let dir = self.0.spool.0.limits.spool_dir.display();
        let written = self.0.file.write_all_at(bytes, offset);
        written.doing(format!("writing to spool_dir {dir}")).map_err(|error| match error.kind() {
            Kind::Full => error.hint("free space there, or point `limits.spool_dir` to a larger disk"),
            _ => error,
        })
    }

    /// Gives the bytes from `from` to `to` back to the disk and to the budget. Blocks on the disk.
    ///
    /// Where the file system cannot punch holes they are given back with the file.
    pub fn release(&self, from: u64, to: u64) {
        let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        if rustix::fs::fallocate(&*self.0.file, flags, from, to - from).is_ok() {
            let mut held = self.0.held.lock().expect("no holder panics");
            drop(held.split(pages(from, to) as usize));
        }
    }

    fn free(&self) -> Arc<Semaphore> {
        self.0.spool.0.free.clone()
    }

    fn hold(&self, permit: OwnedSemaphorePermit) {
        self.0.held.lock().expect("no holder panics").merge(permit);
    }

    fn stalled(&self) -> Error {
        let inner = &self.0.spool.0;
        let why = format!(
            "all {} bytes of spool_max were in use for {:?}: bytes leave slower than they come",
            inner.limits.spool_max, inner.stall_limit
        );
        Error::new(Kind::Full, format!("writing to spool_dir {}", inner.limits.spool_dir.display()), why)
            .hint("raise `limits.spool_max`, or `limits.upload_rate`, or run fewer backups at the same time")
    }
}

/// The pages that end in a span. Adjacent spans share none, so sums are exact whatever the cuts are.
fn pages(from: u64, to: u64) -> u32 {
    u32::try_from(to / PAGE - from / PAGE).expect("a span of less than 16 TiB")
}

/// A file that vanishes with its last handle.
fn nameless(dir: &Path) -> std::io::Result<File> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(dir, flags, Mode::RUSR | Mode::WUSR) {
        return Ok(file.into());
    }
    // Some file systems (NFS, overlayfs on old kernels) know no O_TMPFILE: the name lives for an instant.
    let path = dir.join(format!(".spool-{:016x}", getrandom::u64().map_err(std::io::Error::other)?));
    let file = File::options().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}
