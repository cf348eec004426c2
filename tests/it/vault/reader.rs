use std::time::Duration;

use bytes::Bytes;
use tidekeeper::error::{Error, Kind};
use tidekeeper::vault::layout;
use tidekeeper::vault::manifest::{Artifact, Manifest, Status};
use tidekeeper::vault::reader::{BackupReader, HELD_BACK, Verified};
use tidekeeper::vault::store::Store;
use tidekeeper::vault::store::faults::{Fault, Method};

use super::scene::{Scene, drain, noise, text};
use crate::harness::wait_for;

const MIB: usize = 1 << 20;

/// Reads an artifact that is not what its manifest says; returns what was handed out before that was noticed.
async fn damaged(scene: &Scene, manifest: &Manifest, artifact: &Artifact, how: &str) -> Vec<u8> {
    let reader = BackupReader::resolve(&scene.vault, manifest.clone()).await.expect("a manifest");
    let (error, plain) = match reader.open(artifact, &scene.task).await {
        Ok(opened) => drain(opened).await.expect_err(how),
        Err(error) => (error, Vec::new()),
    };
    check(&error, artifact, how);
    check(&reader.verify(artifact, &scene.task).await.expect_err(how), artifact, how);
    plain
}

fn check(error: &Error, artifact: &Artifact, how: &str) {
    assert_eq!(error.kind(), Kind::Damaged, "{how}: {error:?}");
    assert!(error.to_string().contains(&artifact.name), "{how}: {error}");
    assert!(error.to_string().contains(&artifact.key), "{how}: {error}");
    assert!(error.hint_text().is_some(), "{how}: {error}");
}

async fn dump(scene: &Scene, plain: &Bytes) -> (Manifest, Artifact) {
    let manifest = scene.write(&[("dump.rdb", plain.clone())]).await;
    let dump = manifest.artifacts.iter().find(|artifact| artifact.name == "dump.rdb").expect("it").clone();
    (manifest, dump)
}

#[tokio::test]
async fn damage_is_noticed_before_the_end_is_handed_out() {
    for encrypted in [false, true] {
        for plain in [text(3 * MIB + 17), noise(5, 2 * MIB + 1), text(20)] {
            let scene = if encrypted { Scene::new().encrypted() } else { Scene::new() };
            let (manifest, artifact) = dump(&scene, &plain).await;
            let stored = scene.stored(&artifact.key).await.to_vec();
            let mut damages = vec![
                ("cut by a byte".to_owned(), stored[..stored.len() - 1].to_vec()),
                ("cut in half".to_owned(), stored[..stored.len() / 2].to_vec()),
                ("a byte more".to_owned(), [&stored[..], &[0]].concat()),
                ("the same length, other bytes".to_owned(), noise(1, stored.len()).to_vec()),
            ];
            for at in [0, 1, stored.len() / 3, stored.len() / 2, stored.len() - 1] {
                let mut flipped = stored.clone();
                flipped[at] ^= 4;
                damages.push((format!("a bit flipped at {at} of {}", stored.len()), flipped));
            }
            for (how, bytes) in damages {
                scene.replace(&artifact.key, bytes).await;
                let came = damaged(&scene, &manifest, &artifact, &how).await;
                assert!(plain.starts_with(&came), "{how}: other bytes were handed out");
                assert!(
                    came.len() + HELD_BACK.min(plain.len()) <= plain.len(),
                    "{how}: the end was handed out"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_missing_object_is_damage() {
    let scene = Scene::new();
    let (manifest, artifact) = dump(&scene, &text(MIB)).await;
    scene.memory.delete(&tidekeeper::vault::store::Key::new(&artifact.key)).await.expect("deleted");
    damaged(&scene, &manifest, &artifact, "missing").await;
}

#[tokio::test]
async fn one_artifact_does_not_pass_for_another() {
    for encrypted in [false, true] {
        let scene = if encrypted { Scene::new().encrypted() } else { Scene::new() };
        // Of one length, so that nothing but their bytes tells them apart.
        let manifest = scene.write(&[("a.rdb", noise(1, MIB)), ("b.rdb", noise(2, MIB))]).await;
        let [a, b] = &manifest.artifacts[..2] else { panic!("two artifacts") };
        // age pads its header at random.
        assert!(encrypted || a.stored.bytes == b.stored.bytes);
        let swapped = Artifact { key: b.key.clone(), ..a.clone() };
        damaged(&scene, &manifest, &swapped, "swapped").await;
    }
}

#[tokio::test]
async fn a_manifest_that_lies_is_noticed() {
    let scene = Scene::new();
    let (manifest, artifact) = dump(&scene, &text(3 * MIB)).await;
    let other = "0".repeat(64);
    type Lie = fn(&mut Artifact, &str);
    let lies: [(&str, Lie); 6] = [
        ("fewer plain bytes", |artifact, _| artifact.plain.bytes -= 1),
        ("far fewer plain bytes", |artifact, _| artifact.plain.bytes = 10),
        ("more plain bytes", |artifact, _| artifact.plain.bytes += 1),
        ("another plain hash", |artifact, other| artifact.plain.sha256 = other.to_owned()),
        ("another stored hash", |artifact, other| artifact.stored.sha256 = other.to_owned()),
        ("no key", |artifact, _| artifact.key = "../../etc/passwd".to_owned()),
    ];
    for (how, lie) in lies {
        let mut artifact = artifact.clone();
        lie(&mut artifact, &other);
        damaged(&scene, &manifest, &artifact, how).await;
    }
}

#[tokio::test]
async fn a_cut_is_resumed_where_it_was() {
    let scene = Scene::new();
    let plain = noise(5, 9 * MIB);
    let (manifest, artifact) = dump(&scene, &plain).await;
    for (nth, fault) in [
        (1, Fault::Cut(700_000)),
        (2, Fault::Before(Kind::Unreachable)),
        (3, Fault::Cut(0)),
        (6, Fault::Before(Kind::Throttled)),
        (7, Fault::Cut(2_000_000)),
    ] {
        scene.plan.on(Method::Read, nth, fault);
    }
    let reader = scene.reader(&manifest).await;
    let opened = reader.open(&artifact, &scene.task).await.expect("opened");
    assert!(drain(opened).await.expect("whole") == plain);
    assert_eq!(scene.faults.count(Method::Read), 5 + 5, "five ranges of 2 MiB, five faults");
}

#[tokio::test]
async fn what_cannot_be_read_is_no_damage() {
    let scene = Scene::new();
    let (manifest, artifact) = dump(&scene, &noise(5, 5 * MIB)).await;
    scene.plan.on(Method::Read, 2, Fault::Before(Kind::Denied));
    let reader = scene.reader(&manifest).await;
    let opened = reader.open(&artifact, &scene.task).await.expect("opened");
    let (error, _) = drain(opened).await.expect_err("denied");
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains(&artifact.key), "{error}");
}

#[tokio::test]
async fn without_the_private_key_nothing_is_opened_but_all_stored_bytes_are_checked() {
    let scene = Scene::new().encrypted();
    let (manifest, artifact) = dump(&scene, &noise(5, MIB)).await;
    let reader = BackupReader::resolve(&scene.without_key(), manifest.clone()).await.expect("opened");
    let error = reader.open(&artifact, &scene.task).await.expect_err("no key");
    assert_eq!(error.kind(), Kind::Config);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("identity_file")), "{error:?}");
    let stored_bytes = artifact.stored.bytes;
    let verified = reader.verify(&artifact, &scene.task).await.expect("as stored");
    assert_eq!(verified, Verified { stored_bytes, plain_bytes: None });

    let mut flipped = scene.stored(&artifact.key).await.to_vec();
    flipped[stored_bytes as usize / 2] ^= 1;
    scene.replace(&artifact.key, flipped).await;
    check(&reader.verify(&artifact, &scene.task).await.expect_err("flipped"), &artifact, "flipped");
}

#[tokio::test]
async fn a_private_key_of_somebody_else_is_refused() {
    let scene = Scene::new().encrypted();
    let (manifest, artifact) = dump(&scene, &text(MIB)).await;
    // The same store, but a new key pair.
    let other = scene.encrypted();
    let reader = BackupReader::resolve(&other.vault, manifest.clone()).await.expect("opened");
    let error = reader.open(&artifact, &other.task).await.map(drop).expect_err("another key");
    assert_eq!(error.kind(), Kind::Denied, "{error:?}");
}

#[tokio::test]
async fn verifying_reads_all_of_it() {
    for encrypted in [false, true] {
        let scene = if encrypted { Scene::new().encrypted() } else { Scene::new() };
        let plain = text(5 * MIB);
        let (manifest, artifact) = dump(&scene, &plain).await;
        let reader = scene.reader(&manifest).await;
        let verified = reader.verify(&artifact, &scene.task).await.expect("whole");
        let expected =
            Verified { stored_bytes: artifact.stored.bytes, plain_bytes: Some(plain.len() as u64) };
        assert_eq!(verified, expected);
    }
}

#[tokio::test]
async fn an_unknown_status_is_read_and_a_newer_format_is_not() {
    let scene = Scene::new();
    let (manifest, _) = dump(&scene, &text(10)).await;
    let key = layout::manifest(&manifest.backup());
    let newer = Manifest { status: Status::Unknown("sealed".into()), ..manifest.clone() };
    scene.replace(key.as_str(), serde_json::to_vec(&newer).expect("JSON")).await;
    assert_eq!(scene.reader(&manifest).await.manifest.status.as_str(), "sealed");

    let newer = Manifest { format: 2, ..manifest.clone() };
    scene.replace(key.as_str(), serde_json::to_vec(&newer).expect("JSON")).await;
    let error = BackupReader::open_backup(&scene.vault, &manifest.backup()).await.expect_err("too new");
    assert_eq!(error.kind(), Kind::Unsupported);

    scene.replace(key.as_str(), Bytes::from_static(b"{\"format\": 2, \"artifacts\": {}}")).await;
    let error = BackupReader::open_backup(&scene.vault, &manifest.backup()).await.expect_err("too new");
    assert_eq!(error.kind(), Kind::Unsupported, "its fields are others, which is no damage");

    scene.replace(key.as_str(), Bytes::from_static(b"{")).await;
    let error = BackupReader::open_backup(&scene.vault, &manifest.backup()).await.expect_err("torn");
    assert_eq!(error.kind(), Kind::Damaged);
}

#[tokio::test]
async fn a_manifest_under_another_id_is_not_that_backup() {
    let scene = Scene::new();
    let (first, _) = dump(&scene, &text(10)).await;
    let (second, _) = dump(&scene, &text(20)).await;
    let copied = scene.stored(layout::manifest(&first.backup()).as_str()).await;
    scene.replace(layout::manifest(&second.backup()).as_str(), copied).await;
    let error = BackupReader::open_backup(&scene.vault, &second.backup()).await.expect_err("a copy");
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.why().contains(&first.backup().to_string()), "{error}");
}

#[tokio::test]
async fn a_backup_that_is_not_there_is_said_so() {
    let scene = Scene::new();
    let error = BackupReader::open_backup(&scene.vault, &scene.backup()).await.expect_err("none");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(
        error.hint_text().is_some_and(|hint| hint.contains("tidekeeper backups redis-main")),
        "{error:?}"
    );
    let (manifest, _) = dump(&scene, &text(10)).await;
    let error = scene.reader(&manifest).await.artifact("other").map(drop).expect_err("none");
    assert!(error.why().contains("dump.rdb"), "{error}");
}

#[tokio::test]
async fn a_reader_that_is_dropped_stops_reading() {
    let scene = Scene::new();
    let (manifest, artifact) = dump(&scene, &noise(5, 60 * MIB)).await;
    let reader = scene.reader(&manifest).await;
    let mut opened = reader.open(&artifact, &scene.task).await.expect("opened");
    opened.next().await.expect("bytes").expect("some");
    drop(opened);
    let reads = scene.faults.count(Method::Read);
    assert!(reads < 20, "it read {reads} of 30 ranges ahead");
    // Nothing is left that holds the store: the readers in the background have ended.
    let store = std::sync::Arc::downgrade(&scene.vault.store);
    drop(reader);
    let Scene { vault, .. } = scene;
    drop(vault);
    wait_for("the background ends", Duration::from_secs(10), async || store.strong_count() == 0).await;
}

#[tokio::test]
async fn cancelling_ends_a_read() {
    let scene = Scene::new();
    let (manifest, artifact) = dump(&scene, &noise(5, 20 * MIB)).await;
    scene.plan.on(Method::Read, 3, Fault::Delay(Duration::from_secs(3600)));
    let reader = scene.reader(&manifest).await;
    let opened = reader.open(&artifact, &scene.task).await.expect("opened");
    let draining = tokio::spawn(drain(opened));
    wait_for("the read hangs", Duration::from_secs(10), async || scene.faults.count(Method::Read) >= 3).await;
    scene.task.cancel.cancel();
    let (error, _) = draining.await.expect("no panic").expect_err("cancelled");
    assert_eq!(error.kind(), Kind::Cancelled);
}
