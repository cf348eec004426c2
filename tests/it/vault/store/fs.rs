//! What is special to a directory: leftovers of a crash, a full and a read-only disk, ten thousand files.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use tempfile::TempDir;
use tidekeeper::error::Kind;
use tidekeeper::vault::store::fs::FsStore;
use tidekeeper::vault::store::{Create, Key, Part, Store, list_all, part_size};

use super::cases::{pattern, read};
use super::uploads::unlinked;

fn fresh() -> (TempDir, FsStore) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let store = FsStore::connect(folder.path(), false).expect("a local disk");
    (folder, store)
}

fn names(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).map(|names| {
        names
            .map(|name| name.expect("it can be read").file_name().into_string().expect("it is text"))
            .collect()
    });
    let mut names: Vec<String> = names.unwrap_or_default();
    names.sort();
    names
}

#[tokio::test]
async fn opening_a_directory_that_is_not_there_makes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("mistyped/vault");
    let store = FsStore::connect(&path, false).unwrap();
    assert!(store.get(&Key::new("format/1.json")).await.unwrap().is_none());
    assert_eq!(store.list("", None).await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(store.now().await.unwrap_err().kind(), Kind::NotFound);
    assert_eq!(names(folder.path()), Vec::<String>::new());
    assert_eq!(store.create(&Key::new("format/1.json"), "{}".into()).await.unwrap(), Create::Created);
    assert_eq!(names(&path), [".tmp", "format"]);
}

#[tokio::test]
async fn a_key_is_a_path_and_nothing_stays_behind() {
    let (folder, store) = fresh();
    let key = Key::new("manifests/redis-main/1.json");
    assert_eq!(store.create(&key, "{}".into()).await.unwrap(), Create::Created);
    assert_eq!(std::fs::read_to_string(folder.path().join(key.as_str())).unwrap(), "{}");
    let upload = store.begin_upload(&Key::new("data/x")).await.unwrap();
    upload.put_part(1, Part::Bytes(pattern(part_size(1) as usize))).await.unwrap();
    upload.put_part(2, Part::Bytes(pattern(part_size(2) as usize + 1))).await.unwrap();
    upload.put_part(3, Part::Bytes(pattern(3))).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert_eq!(names(&folder.path().join(".tmp")), Vec::<String>::new());
    for key in ["manifests/redis-main/1.json", "data/x"] {
        store.delete(&Key::new(key)).await.unwrap();
    }
    assert_eq!(names(folder.path()), [".reserve", ".tmp"], "empty folders go with their last object");
}

#[tokio::test]
async fn what_a_crash_left_has_no_key_and_can_be_ended() {
    let (folder, store) = fresh();
    let staging = folder.path().join(".tmp");
    std::fs::create_dir(&staging).unwrap();
    // A process that died while it wrote: the link that holds the key, half an object, a part, a half-made whole.
    std::os::unix::fs::symlink("manifests/redis-main/1.json", staging.join("0123456789ab.key")).unwrap();
    for name in ["object", "2", "whole"] {
        std::fs::write(staging.join(format!("0123456789ab.{name}")), "{\"torn").unwrap();
    }
    assert!(list_all(&store, "").await.unwrap().is_empty());
    assert!(store.get(&Key::new("manifests/redis-main/1.json")).await.unwrap().is_none());
    let open = store.open_uploads("manifests/").await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].key, Key::new("manifests/redis-main/1.json"));
    store.abort_upload(&open[0]).await.unwrap();
    assert_eq!(names(&staging), Vec::<String>::new());
}

#[tokio::test]
async fn a_made_up_upload_id_reaches_no_other_file() {
    let (folder, store) = fresh();
    std::fs::write(folder.path().join("precious.object"), "x").unwrap();
    let key = Key::new("a");
    for id in ["../precious", "*", "", "precious"] {
        let open = tidekeeper::vault::store::OpenUpload {
            key: key.clone(),
            id: id.to_owned(),
            started: jiff::Timestamp::UNIX_EPOCH,
        };
        assert_eq!(store.abort_upload(&open).await.unwrap_err().kind(), Kind::Usage, "{id:?}");
    }
    assert_eq!(names(folder.path()), ["precious.object"]);
}

#[tokio::test]
async fn foreign_files_are_no_objects() {
    let (folder, store) = fresh();
    assert_eq!(store.create(&Key::new("a/b"), "x".into()).await.unwrap(), Create::Created);
    std::fs::write(folder.path().join("a/with space"), "x").unwrap();
    std::os::unix::fs::symlink("/etc/passwd", folder.path().join("a/link")).unwrap();
    std::fs::create_dir(folder.path().join("a/empty")).unwrap();
    let listed = list_all(&store, "").await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.key.as_str()).collect::<Vec<_>>(), ["a/b"]);
    assert!(store.get(&Key::new("a")).await.unwrap().is_none(), "a folder is no object");
    assert!(store.create(&Key::new("a"), "x".into()).await.is_err(), "nor can an object take its place");
}

#[tokio::test]
async fn a_page_after_a_key_outside_of_the_prefix_is_all_or_nothing() {
    let (_folder, store) = fresh();
    for key in ["b/1", "b/2", "b-c"] {
        assert_eq!(store.create(&Key::new(key), "x".into()).await.unwrap(), Create::Created);
    }
    for (after, count) in [("a", 2), ("b-c", 2), ("b/1", 1), ("b/2", 0), ("c", 0)] {
        let page = store.list("b/", Some(&Key::new(after))).await.unwrap();
        assert_eq!((page.entries.len(), page.more), (count, false), "after {after}");
    }
}

#[tokio::test]
async fn a_truncated_object_is_damaged_not_short() {
    let (folder, store) = fresh();
    let key = Key::new("data/x");
    assert_eq!(store.create(&key, pattern(2 << 20)).await.unwrap(), Create::Created);
    let mut stream = store.read(&key, 0..2 << 20).await.unwrap();
    stream.next().await.unwrap().unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(folder.path().join("data/x")).unwrap();
    file.set_len(700_000).unwrap();
    let outcome: Result<Vec<_>, _> = stream.try_collect().await;
    assert_eq!(outcome.unwrap_err().kind(), Kind::Damaged);
}

/// Ten thousand manifests in one folder, listed and read: the whole of it once per page would take seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_manifests_are_listed_and_read() {
    let (folder, store) = fresh();
    let manifests = folder.path().join("manifests/redis-main");
    std::fs::create_dir_all(&manifests).unwrap();
    for n in 0..10_000 {
        std::fs::write(manifests.join(format!("{n:05}.json")), format!("{{\"n\": {n}}}")).unwrap();
    }
    let store = Arc::new(store);
    let listed = list_all(&*store, "manifests/").await.unwrap();
    assert_eq!(listed.len(), 10_000);
    assert!(listed.is_sorted_by(|a, b| a.key < b.key));
    let bodies: Vec<_> =
        stream::iter(&listed).map(|entry| store.get(&entry.key)).buffered(64).try_collect().await.unwrap();
    assert!(
        bodies.iter().zip(0..).all(|(body, n)| body.as_deref() == Some(format!("{{\"n\": {n}}}").as_bytes()))
    );
}

/// Runs one ignored test of this binary in a mount namespace where `VAULT_DISK` is a small disk of its own.
fn on_a_small_disk(test: &str) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let script = r#"mount -t tmpfs -o size=36m,mode=700 disk "$VAULT_DISK" && exec "$0" --exact "$1" --ignored --nocapture"#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().expect("the test binary"))
        .arg(test)
        .env("VAULT_DISK", folder.path())
        .output()
        .expect("unshare is missing: run dev/setup, or `apt-get install util-linux`");
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "on a small disk: {text}");
}

#[test]
fn a_full_disk_refuses_backups_and_still_lets_old_ones_go() {
    on_a_small_disk("vault::store::fs::inside_a_full_disk");
}

fn on_disk() -> FsStore {
    let disk = std::env::var_os("VAULT_DISK").expect("the other test sets it");
    FsStore::connect(Path::new(&disk), false).expect("a local disk")
}

/// How large the reserve of the vault on the small disk is.
fn reserve() -> u64 {
    let disk = std::env::var_os("VAULT_DISK").expect("the other test sets it");
    std::fs::metadata(Path::new(&disk).join(".reserve")).map_or(0, |file| file.len())
}

#[tokio::test]
#[ignore = "runs inside a_full_disk_refuses_backups_and_still_lets_old_ones_go"]
async fn inside_a_full_disk() {
    let store = on_disk();
    let old = Key::new("data/redis-main/old");
    let upload = store.begin_upload(&old).await.unwrap();
    upload.put_part(1, Part::Bytes(pattern(8 << 20))).await.unwrap();
    assert_eq!(upload.finish().await.unwrap(), Create::Created);
    assert_eq!(reserve(), 16 << 20);

    let upload = store.begin_upload(&Key::new("data/redis-main/new")).await.unwrap();
    let file = unlinked(&pattern(24 << 20));
    let part = |offset| Part::File { file: file.clone(), offset, len: 8 << 20 };
    upload.put_part(1, part(0)).await.unwrap();
    let full = upload.put_part(2, part(8 << 20)).await.unwrap_err();
    assert_eq!(full.kind(), Kind::Full, "{full:?}");
    assert!(full.hint_text().is_some_and(|hint| hint.contains("retention")), "{full:?}");

    let manifest = store.create(&Key::new("manifests/redis-main/new.json"), pattern(64 << 10)).await;
    assert_eq!(manifest.unwrap_err().kind(), Kind::Full, "no new backup is let into the reserve");
    let tombstone = store.create(&Key::new("tombstones/redis-main/old/1.json"), pattern(64 << 10)).await;
    assert_eq!(tombstone.unwrap(), Create::Created);
    assert!((1..16 << 20).contains(&reserve()), "a step of the reserve was given: {}", reserve());

    upload.abort().await.unwrap();
    store.delete(&old).await.unwrap();
    assert_eq!(reserve(), 16 << 20, "it is whole again");
    assert!(read(&store, &Key::new("tombstones/redis-main/old/1.json"), 0..64 << 10).await.is_ok());
}

#[tokio::test]
async fn a_directory_that_goes_away_is_neither_empty_nor_made_again() {
    let (folder, store) = fresh();
    let key = Key::new("manifests/redis-main/1.json");
    assert_eq!(store.create(&key, "{}".into()).await.unwrap(), Create::Created);
    let (root, away) = (folder.path().to_owned(), folder.path().with_extension("away"));
    for another_in_its_place in [false, true] {
        std::fs::rename(&root, &away).expect("a rename");
        if another_in_its_place {
            std::fs::create_dir(&root).expect("a folder, as an unmounted disk leaves one");
        }
        let failures = [
            store.create(&Key::new("a"), "x".into()).await.err(),
            store.begin_upload(&Key::new("a")).await.err(),
            store.get(&key).await.err(),
            list_all(&store, "manifests/").await.err(),
            store.delete(&key).await.err(),
            store.now().await.err(),
        ];
        for error in failures {
            let error = error.expect("it is not there");
            assert!(error.kind() == Kind::Unreachable && error.is_retryable(), "{error:?}");
            assert!(error.hint_text().is_some_and(|hint| hint.contains("mounted")), "{error:?}");
        }
        assert_eq!(root.exists(), another_in_its_place, "nobody made it again");
        assert_eq!(names(&root), Vec::<String>::new(), "nothing was written there");
        let _ = std::fs::remove_dir(&root);
        std::fs::rename(&away, &root).expect("a rename");
        assert_eq!(store.get(&key).await.unwrap().unwrap(), "{}", "it is back");
    }
}

#[test]
fn a_read_only_disk_is_read_and_refuses_writes_with_a_reason() {
    on_a_small_disk("vault::store::fs::inside_a_read_only_disk");
}

#[tokio::test]
#[ignore = "runs inside a_read_only_disk_is_read_and_refuses_writes_with_a_reason"]
async fn inside_a_read_only_disk() {
    let store = on_disk();
    let key = Key::new("manifests/redis-main/1.json");
    assert_eq!(store.create(&key, "{}".into()).await.unwrap(), Create::Created);
    let disk = std::env::var("VAULT_DISK").expect("the other test sets it");
    assert!(Command::new("mount").args(["-o", "remount,ro", &disk]).status().expect("mount").success());
    assert_eq!(store.get(&key).await.unwrap().unwrap(), "{}");
    assert_eq!(store.create(&key, "{}".into()).await.unwrap(), Create::Exists);
    let failures = [
        store.create(&Key::new("a"), "x".into()).await.err(),
        store.begin_upload(&Key::new("a")).await.err(),
        store.delete(&key).await.err(),
        store.now().await.err(),
    ];
    for error in failures {
        let error = error.expect("the disk is read-only");
        assert_eq!(error.kind(), Kind::Denied, "{error:?}");
        assert!(error.hint_text().is_some_and(|hint| hint.contains("read-only")), "{error:?}");
    }
}
