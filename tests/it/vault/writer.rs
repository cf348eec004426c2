use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tidekeeper::clock::{SharedClock, SystemClock};
use tidekeeper::config::Limits;
use tidekeeper::task::{Spool, Task};
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::{BackupId, BackupRef};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::writer::{BackupWriter, Capture};

fn task(clock: &SharedClock, dir: &std::path::Path) -> Task {
    let limits = Limits { spool_dir: dir.to_owned(), ..Limits::default() };
    Task {
        run: "test".into(),
        clock: clock.clone(),
        deadline: Duration::from_secs(60),
        cancel: Default::default(),
        progress: Default::default(),
        spool: Spool::new(&limits, clock.clone()).expect("a spool"),
        limits: Arc::new(limits),
    }
}

#[tokio::test]
async fn what_was_written_is_read_back() {
    let clock = SystemClock::shared();
    let dir = tempfile::tempdir().expect("a directory");
    let task = task(&clock, dir.path());
    let vault = Vault::new(Arc::new(MemoryStore::new(clock.clone())), clock.clone(), None);
    let backup =
        BackupRef { source: "redis".parse().expect("a name"), id: BackupId::new(clock.now(), None, 7) };
    let writer = BackupWriter::new(&vault, backup.clone(), "redis", &task, clock.now());
    let mut out = writer.artifact("dump.rdb", "application/x-redis-rdb").expect("an artifact");
    out.write(Bytes::from_static(b"REDIS0011")).await.expect("written");
    out.finish().await.expect("finished");
    writer.commit(Capture::default(), Status::Complete, None).await.expect("committed");

    let reader = BackupReader::open_backup(&vault, &backup).await.expect("opened");
    let artifact = &reader.manifest.artifacts[0];
    let mut plain = reader.open(artifact, &task).await.expect("an artifact");
    assert_eq!(plain.next().await.expect("bytes"), Some(Bytes::from_static(b"REDIS0011")));
    assert_eq!(plain.next().await.expect("the end"), None);
}
