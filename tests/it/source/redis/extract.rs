//! What is extracted starts a stock server.

use std::path::Path;

use tidekeeper::error::{Kind, Result};
use tidekeeper::source::redis::extract::extract;
use tidekeeper::source::{Extracted, Outlet};
use tidekeeper::vault::reader::BackupReader;

use super::stage::{Stage, fill, saved};
use crate::harness::redis::RedisServer;

async fn into(stage: &Stage, from: &BackupReader, folder: &Path) -> Result<Vec<Extracted>> {
    extract(from, Outlet::Directory(folder), &stage.task).await
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_stock_server_starts_from_it() {
    let stage = Stage::new();
    let source = RedisServer::start(&[]).await;
    fill(&source).await;
    let bytes = saved(&source).await;
    let backup = stage.backup(&[("dump.rdb", &bytes)]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let extracted = into(&stage, &backup, folder.path()).await.expect("it is written");
    assert_eq!((extracted[0].path.as_str(), extracted[0].bytes), ("dump.rdb", bytes.len() as u64));
    assert!(extracted[0].usage.contains("--dbfilename dump.rdb"), "{}", extracted[0].usage);
    assert_eq!(files(folder.path()), ["dump.rdb"]);
    let server = RedisServer::start_in(folder, &[]).await;
    assert_eq!(server.digest().await, source.digest().await);
}

#[tokio::test]
async fn each_shard_is_a_file() {
    let stage = Stage::new();
    let backup = stage.backup(&[("shard-0-8191.rdb", b"REDIS1"), ("shard-8192-16383.rdb", b"REDIS2")]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let below = folder.path().join("a/b");
    into(&stage, &backup, &below).await.expect("it is written");
    assert_eq!(files(&below), ["shard-0-8191.rdb", "shard-8192-16383.rdb"]);
    assert_eq!(std::fs::read(below.join("shard-8192-16383.rdb")).expect("it is there"), b"REDIS2");
}

#[tokio::test]
async fn nothing_is_overwritten() {
    let stage = Stage::new();
    let backup = stage.backup(&[("dump.rdb", b"REDIS")]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("dump.rdb"), "mine").expect("it is written");
    let error = into(&stage, &backup, folder.path()).await.expect_err("it exists");
    assert_eq!(error.kind(), Kind::Conflict);
    assert_eq!(std::fs::read(folder.path().join("dump.rdb")).expect("it is there"), b"mine");
    assert_eq!(files(folder.path()), ["dump.rdb"]);
}

#[tokio::test]
async fn a_damaged_backup_leaves_no_file() {
    let stage = Stage::new();
    let backup = stage.backup(&[("dump.rdb", &[7; 300_000])]).await;
    stage.damage(&backup).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let error = into(&stage, &backup, folder.path()).await.expect_err("it is damaged");
    assert_eq!(error.kind(), Kind::Damaged);
    assert_eq!(files(folder.path()), [""; 0]);
}

#[tokio::test]
async fn names_do_not_lead_out_of_the_folder() {
    let stage = Stage::new();
    let mut backup = stage.backup(&[("dump.rdb", b"REDIS")]).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    for name in ["../dump.rdb", "/tmp/dump.rdb", "a/../../dump.rdb"] {
        backup.manifest.artifacts[0].name = name.to_owned();
        let error = into(&stage, &backup, folder.path()).await.expect_err("it leads out");
        assert_eq!(error.kind(), Kind::Damaged, "{name}");
    }
}
