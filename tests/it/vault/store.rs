//! One contract, every store: the conformance suite, and beside it what is special to each.

use std::sync::Arc;

use tidekeeper::clock::SystemClock;
use tidekeeper::vault::store::faults::{Faults, Plan};
use tidekeeper::vault::store::fs::FsStore;
use tidekeeper::vault::store::memory::MemoryStore;
use tidekeeper::vault::store::{part_offset, part_size};

use self::suite::{conform, conform_but};
use crate::harness::s3;

mod cases;
mod faults;
mod fs;
mod races;
mod s3_faults;
mod suite;
mod uploads;

#[tokio::test]
async fn memory_conforms() {
    conform("memory", Arc::new(MemoryStore::new(SystemClock::shared()))).await;
}

#[tokio::test]
async fn faults_around_memory_conform_while_nothing_is_planned() {
    let clock = SystemClock::shared();
    let memory = Arc::new(MemoryStore::new(clock.clone()));
    conform("faults(memory)", Arc::new(Faults::around(memory, Plan::new(clock)))).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fs_conforms() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = FsStore::connect(&folder.path().join("vault"), false).expect("a local disk");
    conform("fs", Arc::new(store)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms_on_versitygw() {
    conform("s3 on versitygw", s3::versitygw().await.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms_on_s3s_fs_but_for_races() {
    // It names a file after the whole key, keeps no list of uploads, and denies to know one that has ended.
    let excused = [
        "a name may have 120 bytes",
        "finishing twice changes nothing",
        "aborting twice changes nothing",
        "open uploads are listed, and can be ended",
        "open uploads tell their age",
    ];
    conform_but(&excused, "s3 on s3s-fs", s3::in_process::s3s_fs().await.store()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_conforms_on_moto_but_for_races() {
    // It says that all uploads were begun in November 2010.
    conform_but(&["open uploads tell their age"], "s3 on moto", s3::moto().await.store()).await;
}

#[test]
fn ten_thousand_scheduled_parts_hold_the_largest_object() {
    const TIB: u64 = 1 << 40;
    const GIB: u64 = 1 << 30;
    assert_eq!(part_size(1), 8 << 20);
    assert!((1..=10_000).all(|number| part_offset(number + 1) == part_offset(number) + part_size(number)));
    assert!(part_offset(10_001) >= 5 * TIB && part_size(10_000) <= 5 * GIB);
}
