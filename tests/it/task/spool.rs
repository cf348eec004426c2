use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use jiff::Timestamp;
use tidekeeper::clock::{SharedClock, SystemClock, TestClock};
use tidekeeper::error::Kind;
use tidekeeper::task::spool::{SPOOL_MIN, STALL_LIMIT};
use tidekeeper::task::{Limits, Spool};

const MIB: u64 = 1 << 20;

fn spool(dir: &Path, clock: SharedClock) -> Spool {
    Spool::new(&limits(dir), clock).expect("a spool")
}

fn limits(dir: &Path) -> Limits {
    Limits { spool_dir: dir.to_owned(), spool_max: SPOOL_MIN, ..Limits::default() }
}

fn names_in(dir: &Path) -> usize {
    std::fs::read_dir(dir).expect("the directory").count()
}

#[tokio::test]
async fn bytes_are_read_back_from_a_file_without_a_name() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("made/by/us");
    let spool = spool(&folder, SystemClock::shared());
    let file = spool.file().expect("a file");
    file.book(0, 5).await.expect("room");
    file.write_at(b"hello", 0).expect("written");
    let mut back = [0; 5];
    file.file().read_exact_at(&mut back, 0).expect("read");
    assert_eq!(&back, b"hello");
    assert_eq!(names_in(&folder), 0, "a crash would leave what has a name");
}

#[tokio::test]
async fn whoever_wants_no_file_makes_no_folder() {
    let dir = tempfile::tempdir().expect("a directory");
    let folder = dir.path().join("spool");
    let spool = spool(&folder, SystemClock::shared());
    assert!(!folder.exists());
    let file = spool.file().expect("a file");
    assert!(folder.exists());
    let mode = file.file().metadata().expect("its mode").mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else reads what waits there");
}

#[tokio::test]
async fn released_bytes_go_back_to_the_disk_and_to_the_budget() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path(), SystemClock::shared());
    let file = spool.file().expect("a file");
    // Cuts that lie inside of pages: the sums must come out all the same.
    let (cut, end) = (5 * MIB + 17, 9 * MIB + 3);
    for from in (0..end).step_by(MIB as usize) {
        let to = (from + MIB).min(end);
        file.book(from, to).await.expect("room");
        file.write_at(&vec![7; (to - from) as usize], from).expect("written");
    }
    assert_eq!(spool.used(), end / 4096 * 4096);
    let before = file.file().metadata().expect("its size").blocks();
    file.release(0, cut);
    let after = file.file().metadata().expect("its size").blocks();
    assert!(after < before, "the disk has {after} blocks of {before}");
    assert_eq!(spool.used(), end / 4096 * 4096 - cut / 4096 * 4096);
    let mut rest = [0; 3];
    file.file().read_exact_at(&mut rest, cut).expect("read");
    assert_eq!(rest, [7; 3], "the next part is untouched");
    file.release(cut, end);
    assert_eq!(spool.used(), 0);
}

#[tokio::test]
async fn a_dropped_file_gives_all_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path(), SystemClock::shared());
    let file = spool.file().expect("a file");
    file.book(0, SPOOL_MIN).await.expect("room");
    let other = spool.file().expect("a file");
    assert!(!other.try_book(0, 4096), "the spool is full");
    drop(file);
    assert!(other.try_book(0, SPOOL_MIN), "the spool is empty again");
}

#[tokio::test(start_paused = true)]
async fn a_full_spool_makes_the_writer_wait_and_then_go_on() {
    let dir = tempfile::tempdir().expect("a directory");
    let spool = spool(dir.path(), TestClock::starting_at(Timestamp::UNIX_EPOCH));
    let (full, waiting) = (spool.file().expect("a file"), spool.file().expect("a file"));
    full.book(0, SPOOL_MIN).await.expect("room");
    let waits = tokio::spawn(async move { waiting.book(0, MIB).await });
    tokio::task::yield_now().await;
    assert!(!waits.is_finished());
    drop(full);
    waits.await.expect("no panic").expect("room");
}

#[tokio::test(start_paused = true)]
async fn a_spool_that_stays_full_is_an_error_that_names_the_limit() {
    let dir = tempfile::tempdir().expect("a directory");
    let clock: SharedClock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let spool = spool(dir.path(), clock.clone());
    let file = spool.file().expect("a file");
    file.book(0, SPOOL_MIN).await.expect("room");
    let error = file.book(SPOOL_MIN, SPOOL_MIN + MIB).await.expect_err("no room");
    assert_eq!(clock.monotonic(), STALL_LIMIT);
    assert_eq!(error.kind(), Kind::Full);
    assert!(error.to_string().contains("spool_max"), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("limits.spool_max")), "{error:?}");
    assert_eq!(
        STALL_LIMIT.max(Duration::from_secs(60)),
        Duration::from_secs(60),
        "before the server's own limit"
    );
}

#[tokio::test]
async fn a_place_that_cannot_be_a_spool_is_refused_with_the_first_file() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("file");
    std::fs::write(&file, "").expect("a file");
    let error = spool(&file.join("below"), SystemClock::shared()).file().expect_err("a file, no folder");
    assert!(error.to_string().contains(file.to_str().expect("text")), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("spool_dir")), "{error:?}");

    let small = Limits { spool_max: SPOOL_MIN - 1, ..limits(dir.path()) };
    let error = Spool::new(&small, SystemClock::shared()).expect_err("too small");
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.to_string().contains("spool_max"), "{error}");
}

/// A file system of 1 MiB; unmounted when dropped.
struct TinyDisk(tempfile::TempDir);

impl TinyDisk {
    fn mount() -> Option<TinyDisk> {
        let dir = tempfile::tempdir().expect("a directory");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(dir.path()).output();
        mounted.is_ok_and(|mounted| mounted.status.success()).then(|| TinyDisk(dir))
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "{} stays mounted", self.0.path().display());
    }
}

#[tokio::test]
async fn a_full_disk_is_an_error_that_names_the_folder() {
    let Some(disk) = TinyDisk::mount() else {
        eprintln!("SKIPPED a_full_disk: mounting a tmpfs needs root");
        return;
    };
    let spool = spool(disk.0.path(), SystemClock::shared());
    let file = spool.file().expect("a file");
    file.book(0, 2 * MIB).await.expect("room in the budget");
    let error = file.write_at(&vec![1; 2 << 20], 0).expect_err("no room on the disk");
    assert_eq!(error.kind(), Kind::Full);
    assert!(error.to_string().contains(disk.0.path().to_str().expect("text")), "{error}");
    assert!(error.hint_text().is_some_and(|hint| hint.contains("spool_dir")), "{error:?}");
}
