//! The probe believes no store, and finds what is wrong with each.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
use tidekeeper::clock::{SharedClock, SystemClock, TestClock};
use tidekeeper::error::{Kind, Result};
use tidekeeper::finding::{Finding, Severity};
use tidekeeper::vault::probe::{probe, refuse};
use tidekeeper::vault::store::faults::{Fault, Faults, Method, Plan};
use tidekeeper::vault::store::fs::FsStore;
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{Create, Entry, Key, OpenUpload, Page, SharedStore, Store, Upload, list_all};

use crate::harness::s3;

fn worst(findings: &[Finding]) -> Severity {
    findings.iter().map(|finding| finding.severity).max().expect("something was looked at")
}

fn memory() -> (SharedClock, SharedStore) {
    let clock = SystemClock::shared();
    (clock.clone(), Arc::new(MemoryStore::new(clock)))
}

#[tokio::test]
async fn good_stores_pass_and_are_left_as_they_were() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let fs: SharedStore = Arc::new(FsStore::connect(folder.path(), false).expect("a local disk"));
    let (clock, memory) = memory();
    for store in [fs, memory] {
        let findings = probe(&store, &clock, false).await.unwrap();
        assert_eq!(worst(&findings), Severity::Ok, "{findings:#?}");
        assert!(list_all(&*store, "").await.unwrap().is_empty());
        assert!(store.open_uploads("").await.unwrap().is_empty());
        refuse(&*store, &findings).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versitygw_passes_and_what_it_cannot_tell_is_unknown() {
    let store = s3::versitygw().await.store();
    let findings = probe(&store, &SystemClock::shared(), false).await.unwrap();
    assert!(worst(&findings) <= Severity::Warning, "{findings:#?}");
    assert!(list_all(&*store, "").await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_server_that_lets_several_creators_win_is_refused() {
    let store = s3::in_process::s3s_fs().await.store();
    let findings = probe(&store, &SystemClock::shared(), false).await.unwrap();
    assert_eq!(worst(&findings), Severity::Error, "{findings:#?}");
    assert_eq!(refuse(&*store, &findings).unwrap_err().kind(), Kind::Unsupported);
}

/// A store that breaks one promise.
#[derive(Debug)]
struct Liar {
    inner: SharedStore,
    lie: Lie,
}

#[derive(Debug, PartialEq)]
enum Lie {
    EverybodyWins,
    HidesNewObjects,
    ShiftsRanges,
    DeletesNothing,
}

#[async_trait]
impl Store for Liar {
    fn location(&self) -> String {
        "a liar".to_owned()
    }

    async fn create(&self, key: &Key, body: Bytes) -> Result<Create> {
        let created = self.inner.create(key, body).await?;
        Ok(if self.lie == Lie::EverybodyWins { Create::Created } else { created })
    }

    async fn begin_upload(&self, key: &Key) -> Result<Box<dyn Upload>> {
        self.inner.begin_upload(key).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn read(&self, key: &Key, range: Range<u64>) -> Result<BoxStream<'static, Result<Bytes>>> {
        let shift = u64::from(self.lie == Lie::ShiftsRanges);
        self.inner.read(key, range.start + shift..range.end + shift).await
    }

    async fn stat(&self, key: &Key) -> Result<Option<Entry>> {
        self.inner.stat(key).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>) -> Result<Page> {
        match self.lie {
            Lie::HidesNewObjects => Ok(Page::default()),
            _ => self.inner.list(prefix, after).await,
        }
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.lie {
            Lie::DeletesNothing => Ok(()),
            _ => self.inner.delete(key).await,
        }
    }

    async fn open_uploads(&self, prefix: &str) -> Result<Vec<OpenUpload>> {
        self.inner.open_uploads(prefix).await
    }

    async fn abort_upload(&self, upload: &OpenUpload) -> Result<()> {
        self.inner.abort_upload(upload).await
    }

    async fn now(&self) -> Result<Timestamp> {
        self.inner.now().await
    }
}

#[tokio::test]
async fn every_lie_is_found() {
    for lie in [Lie::EverybodyWins, Lie::HidesNewObjects, Lie::ShiftsRanges, Lie::DeletesNothing] {
        let (clock, inner) = memory();
        let name = format!("{lie:?}");
        let liar: SharedStore = Arc::new(Liar { inner, lie });
        let findings = probe(&liar, &clock, false).await.unwrap();
        assert_eq!(worst(&findings), Severity::Error, "{name} was believed: {findings:#?}");
        assert!(refuse(&*liar, &findings).is_err());
    }
}

#[tokio::test]
async fn a_single_writer_may_use_a_store_that_loses_races() {
    let (clock, inner) = memory();
    let racy: SharedStore = Arc::new(Liar { inner, lie: Lie::EverybodyWins });
    let findings = probe(&racy, &clock, true).await.unwrap();
    let races = findings.iter().find(|finding| finding.what.contains("racing")).unwrap();
    assert_eq!(races.severity, Severity::Warning, "{findings:#?}");
}

#[tokio::test(start_paused = true)]
async fn clocks_that_differ_are_a_warning() {
    let ours: SharedClock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let theirs = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let store: SharedStore = Arc::new(MemoryStore::new(theirs.clone()));
    theirs.jump(SignedDuration::from_mins(4));
    assert_eq!(worst(&probe(&store, &ours, false).await.unwrap()), Severity::Ok);
    theirs.jump(SignedDuration::from_mins(-10));
    let findings = probe(&store, &ours, false).await.unwrap();
    let clocks = findings.iter().find(|finding| finding.severity == Severity::Warning).unwrap();
    assert_eq!(clocks.what, "the store's clock is 360 s behind ours");
}

#[tokio::test(start_paused = true)]
async fn lost_replies_are_not_taken_for_broken_promises() {
    let clock: SharedClock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let plan = Plan::new(clock.clone());
    let inner = Arc::new(MemoryStore::new(clock.clone()));
    let store: SharedStore = Arc::new(Faults::around(inner, plan.clone()));
    for nth in [1, 2, 9, 20] {
        plan.on(Method::Create, nth, Fault::After(Kind::Undecided));
    }
    let findings = probe(&store, &clock, false).await.unwrap();
    assert_eq!(worst(&findings), Severity::Ok, "{findings:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_cannot_be_asked_is_an_error_and_no_finding() {
    let clock: SharedClock = TestClock::starting_at(Timestamp::UNIX_EPOCH);
    let plan = Plan::new(clock.clone());
    let inner = Arc::new(MemoryStore::new(clock.clone()));
    let store: SharedStore = Arc::new(Faults::around(inner, plan.clone()));
    plan.on(Method::Create, 1, Fault::Before(Kind::Denied));
    assert_eq!(probe(&store, &clock, false).await.unwrap_err().kind(), Kind::Denied);
}
