use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;
use tidekeeper::clock::TestClock;
use tidekeeper::error::Kind;
use tidekeeper::task::Limits;
use tidekeeper::task::spool::SPOOL_MIN;
use tidekeeper::vault::abandon::abandon;
use tidekeeper::vault::codec::BLOCK;
use tidekeeper::vault::decide::Decision;
use tidekeeper::vault::details::REST;
use tidekeeper::vault::layout;
use tidekeeper::vault::manifest::{
    Codec, Consistency, Contents, Counts, Level, MANIFEST_MAX, Omission, Status,
};
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::store::faults::{Fault, Method};
use tidekeeper::vault::store::fs::FsStore;
use tidekeeper::vault::store::{Key, SharedStore, Store, list_all};
use tidekeeper::vault::writer::Capture;

use super::scene::{Scene, drain, noise, text, write_artifact};
use crate::harness::{s3, wait_for};

const MIB: usize = 1 << 20;

/// One pass of chunks through the vault and back.
async fn round_trip(scene: &Scene, chunks: &[Bytes]) {
    let backup = scene.backup();
    let writer = scene.writer(&backup);
    let mut out = writer.artifact("dump.rdb", "application/x-redis-rdb").expect("begun");
    for chunk in chunks {
        out.write(chunk.clone()).await.expect("written");
    }
    let artifact = out.finish().await.expect("finished");
    let whole = chunks.concat();
    assert_eq!(artifact.plain.bytes, whole.len() as u64);
    assert_eq!(writer.plain_bytes(), whole.len() as u64);
    writer.commit(Capture::default(), Status::Complete, None).await.expect("committed");
    let reader = BackupReader::open_backup(&scene.vault, &backup).await.expect("opened");
    let opened = reader.open(reader.artifact("dump.rdb").expect("it"), &scene.task).await.expect("opened");
    assert!(drain(opened).await.expect("whole") == whole, "other bytes came back");
}

fn chunks() -> impl Strategy<Value = Vec<Bytes>> {
    let size = prop_oneof![0..40_usize, 60_000..70_000_usize, (BLOCK - 2)..(BLOCK + 3), 0..2 * BLOCK];
    let chunk = (size, any::<bool>(), any::<u64>());
    let chunk = chunk.prop_map(|(len, dull, seed)| if dull { text(len) } else { noise(seed, len) });
    prop::collection::vec(chunk, 0..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_chunks_come_back(chunks in chunks(), encrypted in any::<bool>()) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime").block_on(async {
            let scene = if encrypted { Scene::new().encrypted() } else { Scene::new() };
            round_trip(&scene, &chunks).await;
            assert!(scene.is_clean().await);
        });
    }
}

/// The whole way computes in short steps and waits in async ones, so a test's clock may run ahead of both.
#[tokio::test(start_paused = true)]
async fn a_paused_clock_does_no_harm() {
    let scene = Scene::with(TestClock::starting_at(Timestamp::UNIX_EPOCH), Limits::default());
    scene.plan.on(Method::BeginUpload, 1, Fault::Before(Kind::Throttled));
    scene.plan.on(Method::PutPart, 1, Fault::Delay(Duration::from_secs(20)));
    scene.plan.on(Method::PutPart, 2, Fault::Before(Kind::Unreachable));
    scene.plan.on(Method::Read, 3, Fault::Cut(1000));
    round_trip(&scene, &[noise(3, 20 * MIB)]).await;
    assert!(scene.clock.monotonic() < Duration::from_secs(60), "{:?}", scene.clock.monotonic());
}

#[tokio::test]
async fn a_long_artifact_goes_in_parts_and_leaves_the_spool() {
    let scene = Scene::with(
        tidekeeper::clock::SystemClock::shared(),
        Limits { spool_max: SPOOL_MIN, ..Limits::default() },
    );
    let plain = noise(7, 40 * MIB);
    let manifest = scene.write(&[("dump.rdb", plain.clone())]).await;
    assert_eq!(scene.faults.count(Method::PutPart), 6, "five parts of 8 MiB, and the frames' overhead");
    assert!(scene.is_clean().await);
    let stored = scene.stored_len(&manifest.artifacts[0].key).await;
    assert_eq!(stored, manifest.artifacts[0].stored.bytes);
    let reader = scene.reader(&manifest).await;
    let opened = reader.open(&reader.manifest.artifacts[0], &scene.task).await.expect("opened");
    assert!(drain(opened).await.expect("whole") == plain);
}

#[tokio::test]
async fn what_is_shorter_than_a_part_is_created_in_one_call() {
    let scene = Scene::new();
    scene.write(&[("dump.rdb", noise(7, 7 * MIB)), ("empty", Bytes::new())]).await;
    assert_eq!(scene.faults.count(Method::BeginUpload), 0);
    assert_eq!(scene.faults.count(Method::Create), 3, "two artifacts and the manifest");
}

#[tokio::test]
async fn artifacts_are_written_at_the_same_time() {
    let scene = Scene::with(
        tidekeeper::clock::SystemClock::shared(),
        Limits { spool_max: 2 * SPOOL_MIN, ..Limits::default() },
    );
    let backup = scene.backup();
    let writer = scene.writer(&backup);
    // Their beginnings of parts together are more than the spool holds: it must cut parts before their time.
    let names: Vec<String> = (0..5).map(|shard| format!("shard-{shard}.rdb")).collect();
    let mut outs: Vec<_> = names.iter().map(|name| writer.artifact(name, "x").expect("begun")).collect();
    for piece in 0..10 {
        for (shard, out) in outs.iter_mut().enumerate() {
            out.write(noise((piece * 5 + shard) as u64, MIB)).await.expect("written");
        }
    }
    for out in outs {
        out.finish().await.expect("finished");
    }
    let manifest = writer.commit(Capture::default(), Status::Complete, None).await.expect("committed");
    let found: Vec<_> = manifest.artifacts.iter().map(|artifact| artifact.name.clone()).collect();
    assert_eq!(found, names);
    let reader = scene.reader(&manifest).await;
    for artifact in &reader.manifest.artifacts {
        reader.verify(artifact, &scene.task).await.expect("whole");
    }
    assert!(scene.is_clean().await);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let scene = Scene::new();
    let writer = scene.writer(&scene.backup());
    let _first = writer.artifact("dump.rdb", "x").expect("begun");
    assert_eq!(writer.artifact("dump.rdb", "x").expect_err("taken").kind(), Kind::Internal);
    writer.artifact("Dump.rdb", "x").expect("another name");
    assert_eq!(writer.artifact("details.json", "x").expect_err("reserved").kind(), Kind::Internal);
}

/// Each call on the way fails once, before and after it has acted; the artifact is stored all the same, once.
#[tokio::test]
async fn a_call_that_fails_once_is_made_again() {
    let ways = [Fault::Before(Kind::Throttled), Fault::After(Kind::Undecided), Fault::Cut(1000)];
    let calls =
        [Method::Create, Method::BeginUpload, Method::PutPart, Method::Finish, Method::Stat, Method::Get];
    for method in calls {
        for fault in ways {
            for len in [1000, 20 * MIB] {
                let scene = Scene::new();
                scene.plan.on(method, 1, fault);
                round_trip(&scene, &[noise(9, len)]).await;
                let left = list_all(&scene.memory, "data/").await.expect("listed");
                assert_eq!(left.len(), 1, "{method:?} {fault:?} {len}");
                assert_eq!(scene.task.spool.used(), 0, "{method:?} {fault:?} {len}");
            }
        }
    }
}

#[tokio::test]
async fn a_part_that_fails_again_and_again_goes_in_the_end() {
    let scene = Scene::new();
    for nth in 1..=4 {
        scene.plan.on(Method::PutPart, nth, Fault::Before(Kind::Unreachable));
    }
    round_trip(&scene, &[noise(9, 10 * MIB)]).await;
    assert_eq!(scene.faults.count(Method::PutPart), 2 + 4);
    assert!(scene.is_clean().await);
}

#[tokio::test]
async fn what_cannot_be_stored_fails_and_is_cleaned_up() {
    for (method, kind) in
        [(Method::PutPart, Kind::Denied), (Method::Finish, Kind::Full), (Method::BeginUpload, Kind::Denied)]
    {
        let scene = Scene::new();
        scene.plan.on(method, 1, Fault::Before(kind));
        let writer = scene.writer(&scene.backup());
        let error = write_artifact(&writer, "dump.rdb", noise(1, 30 * MIB)).await.expect_err("refused");
        assert_eq!(error.kind(), kind);
        assert!(error.to_string().contains("dump.rdb"), "{error}");
        scene.cleaned().await;
    }
}

#[tokio::test]
async fn a_writer_that_is_dropped_leaves_nothing() {
    let scene = Scene::new();
    let writer = scene.writer(&scene.backup());
    let mut out = writer.artifact("dump.rdb", "x").expect("begun");
    out.write(noise(1, 20 * MIB)).await.expect("written");
    wait_for("the upload begins", Duration::from_secs(10), async || scene.faults.count(Method::PutPart) > 0)
        .await;
    drop(out);
    scene.cleaned().await;
    assert!(list_all(&scene.memory, "data/").await.expect("listed").is_empty());
}

#[tokio::test]
async fn cancelling_the_task_ends_the_writer() {
    let scene = Scene::new();
    let writer = scene.writer(&scene.backup());
    scene.plan.on(Method::PutPart, 1, Fault::Delay(Duration::from_secs(3600)));
    let mut out = writer.artifact("dump.rdb", "x").expect("begun");
    out.write(noise(1, 10 * MIB)).await.expect("written");
    let finishing = tokio::spawn(out.finish());
    wait_for("the part hangs", Duration::from_secs(10), async || scene.faults.count(Method::PutPart) > 1)
        .await;
    scene.task.cancel.cancel();
    let error = finishing.await.expect("no panic").expect_err("cancelled");
    assert_eq!(error.kind(), Kind::Cancelled);
    scene.cleaned().await;
}

#[tokio::test(start_paused = true)]
async fn the_deadline_ends_the_writer() {
    let mut scene = Scene::with(TestClock::starting_at(Timestamp::UNIX_EPOCH), Limits::default());
    scene.task.deadline = Duration::from_secs(10);
    scene.plan.on(Method::PutPart, 1, Fault::Delay(Duration::from_secs(3600)));
    let writer = scene.writer(&scene.backup());
    let error = write_artifact(&writer, "dump.rdb", noise(1, 10 * MIB)).await.expect_err("too late");
    assert_eq!((error.kind(), scene.clock.monotonic()), (Kind::Timeout, Duration::from_secs(10)));
    scene.cleaned().await;
}

#[tokio::test(start_paused = true)]
async fn a_store_that_hangs_fills_the_spool_and_then_the_write_fails() {
    let limits = Limits { spool_max: SPOOL_MIN, ..Limits::default() };
    let mut scene = Scene::with(TestClock::starting_at(Timestamp::UNIX_EPOCH), limits);
    scene.task.deadline = Duration::from_secs(36_000);
    for nth in 1..100 {
        scene.plan.on(Method::PutPart, nth, Fault::Delay(Duration::from_secs(7200)));
    }
    let writer = scene.writer(&scene.backup());
    let error = write_artifact(&writer, "dump.rdb", noise(1, 40 * MIB)).await.expect_err("full");
    assert_eq!(error.kind(), Kind::Full);
    assert!(error.to_string().contains("spool_max"), "{error}");
    assert!(scene.clock.monotonic() < Duration::from_secs(60), "before the server hangs up");
    scene.cleaned().await;
}

#[tokio::test(start_paused = true)]
async fn the_upload_rate_holds() {
    let limits = Limits { upload_rate: MIB as u64, ..Limits::default() };
    let scene = Scene::with(TestClock::starting_at(Timestamp::UNIX_EPOCH), limits);
    let writer = scene.writer(&scene.backup());
    write_artifact(&writer, "dump.rdb", noise(1, 32 * MIB)).await.expect("stored");
    let took = scene.clock.monotonic().as_secs();
    assert!((31..=33).contains(&took), "{took} s for 32 MiB at 1 MiB a second");
}

#[tokio::test]
async fn nothing_is_committed_whose_objects_are_not_there() {
    let scene = Scene::new();
    let backup = scene.backup();
    let writer = scene.writer(&backup);
    let artifact = write_artifact(&writer, "dump.rdb", text(1000)).await.expect("stored");
    scene.memory.delete(&Key::new(&artifact.key)).await.expect("deleted");
    let error = writer.commit(Capture::default(), Status::Complete, None).await.expect_err("refused");
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.to_string().contains(&artifact.key), "{error}");
    let manifest = scene.memory.stat(&layout::manifest(&backup)).await.expect("asked");
    assert!(manifest.is_none(), "data first, manifest last");
}

#[tokio::test]
async fn whoever_creates_the_manifest_first_has_decided() {
    let scene = Scene::new();
    let backup = scene.backup();
    let writer = scene.writer(&backup);
    write_artifact(&writer, "dump.rdb", text(1000)).await.expect("stored");
    let abandoned = abandon(&scene.vault, &backup, "redis", Some("run-1"), "its process died", None).await;
    assert!(matches!(abandoned.expect("decided"), Decision::Ours));
    let error = writer.commit(Capture::default(), Status::Complete, None).await.expect_err("too late");
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.why().contains("its process died"), "{error}");

    let error = BackupReader::open_backup(&scene.vault, &backup).await.expect_err("holds nothing");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.why().contains("its process died"), "{error}");
}

#[tokio::test]
async fn a_committed_backup_is_not_abandoned() {
    let scene = Scene::new();
    let manifest = scene.write(&[("dump.rdb", text(10))]).await;
    let abandoned = abandon(&scene.vault, &manifest.backup(), "redis", Some("run-1"), "too late", None).await;
    let Decision::Theirs(found) = abandoned.expect("decided") else { panic!("it was there before") };
    assert_eq!(found, manifest);
}

#[tokio::test]
async fn an_abandoned_backup_names_its_run_and_who_gave_it_up() {
    let scene = Scene::new();
    let backup = scene.backup();
    let before = scene.clock.now();
    let abandoned = abandon(&scene.vault, &backup, "redis", Some("run-1"), "why", Some(7)).await;
    assert!(matches!(abandoned.expect("decided"), Decision::Ours));
    let manifest = scene.memory.get(&layout::manifest(&backup)).await.expect("read").expect("there");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!((&manifest["status"], &manifest["run"]), (&json!("abandoned"), &json!("run-1")));
    assert_eq!((&manifest["reason"], &manifest["leader_generation"]), (&json!("why"), &json!(7)));
    assert_eq!(manifest["started_at"], json!(backup.id.time()));
    let finished: Timestamp = manifest["finished_at"].as_str().expect("a text").parse().expect("a time");
    assert!((before..=scene.clock.now()).contains(&finished), "{finished}");
}

#[tokio::test]
async fn a_lost_reply_to_the_commit_is_recognised() {
    let scene = Scene::new();
    let writer = scene.writer(&scene.backup());
    let attempt = writer.attempt().to_owned();
    scene.plan.on(Method::Create, 1, Fault::After(Kind::Undecided));
    let manifest = writer.commit(Capture::default(), Status::Complete, None).await.expect("ours");
    assert_eq!((scene.faults.count(Method::Create), manifest.writer), (2, attempt));
}

#[tokio::test]
async fn omissions_make_a_backup_partial() {
    let scene = Scene::new();
    let omissions = vec![Omission { what: "functions".into(), why: "no right".into() }];
    let capture = Capture { omissions, ..Capture::default() };
    let writer = scene.writer(&scene.backup()).led_by(Some(4));
    let manifest = writer.commit(capture.clone(), Status::Complete, None).await.expect("committed");
    assert_eq!((manifest.status, manifest.leader_generation), (Status::Partial, Some(4)));
    let suspect = scene.writer(&scene.backup()).commit(capture, Status::Suspect, Some("empty".into())).await;
    let suspect = suspect.expect("committed");
    assert_eq!((suspect.status, suspect.reason.as_deref()), (Status::Suspect, Some("empty")));
}

fn counted() -> Capture {
    let counts = Counts { items: 3, types: BTreeMap::new(), digest: Some("d1".repeat(32)) };
    let namespaces = BTreeMap::from([("db0".to_owned(), counts)]);
    let details = json!({"largest": ["user:17"]}).as_object().expect("a map").clone();
    Capture {
        contents: Contents { items: 3, namespaces, ..Contents::default() },
        details,
        ..Capture::default()
    }
}

#[tokio::test]
async fn encryption_hides_what_would_tell() {
    let scene = Scene::new().encrypted();
    let backup = scene.backup();
    let writer = scene.writer(&backup);
    let artifact = write_artifact(&writer, "dump.rdb", text(5000)).await.expect("stored");
    writer.commit(counted(), Status::Complete, None).await.expect("committed");

    let manifest = scene.memory.get(&layout::manifest(&backup)).await.expect("read").expect("there");
    let manifest = String::from_utf8(manifest.to_vec()).expect("text");
    let plain = &artifact.plain.sha256;
    assert!(
        !manifest.contains(plain) && !manifest.contains("d1d1") && !manifest.contains("user:17"),
        "{manifest}"
    );
    assert!(manifest.contains(&artifact.stored.sha256) && manifest.contains("age1"), "{manifest}");

    let reader = BackupReader::open_backup(&scene.vault, &backup).await.expect("opened");
    assert_eq!(reader.details(&scene.task).await.expect("details")["largest"], json!(["user:17"]));
    let contents = reader.contents(&scene.task).await.expect("contents");
    assert_eq!(contents, counted().contents);
    let dump = reader.artifact("dump.rdb").expect("it");
    assert_eq!(dump.codecs, [Codec::Zstd, Codec::Age]);
    let opened = reader.open(dump, &scene.task).await.expect("opened");
    assert!(drain(opened).await.expect("whole") == text(5000));
}

#[tokio::test]
async fn details_are_kept_beside_the_data() {
    let scene = Scene::new();
    let manifest = scene.writer(&scene.backup()).commit(counted(), Status::Complete, None).await;
    let manifest = manifest.expect("committed");
    assert_eq!(manifest.contents, counted().contents, "without encryption nothing is hidden");
    let reader = scene.reader(&manifest).await;
    assert_eq!(reader.details(&scene.task).await.expect("details")["largest"], json!(["user:17"]));

    let bare = scene.write(&[]).await;
    assert!(bare.artifacts.is_empty());
    assert!(scene.reader(&bare).await.details(&scene.task).await.expect("none").is_empty());
}

#[tokio::test]
async fn a_list_that_is_too_long_for_the_manifest_is_an_artifact() {
    for encrypted in [false, true] {
        let scene = if encrypted { Scene::new().encrypted() } else { Scene::new() };
        let backup = scene.backup();
        let writer = scene.writer(&backup);
        for n in 0..200 {
            write_artifact(&writer, &format!("namespace-{n:03}/objects.json"), text(n))
                .await
                .expect("stored");
        }
        let omissions =
            (0..1000).map(|n| Omission { what: format!("thing {n}"), why: "no right".into() }).collect();
        let capture = Capture { omissions, ..counted() };
        let manifest = writer.commit(capture.clone(), Status::Complete, None).await.expect("committed");
        let stored = scene.stored(layout::manifest(&backup).as_str()).await;
        assert!(stored.len() <= MANIFEST_MAX, "{}", stored.len());
        assert_eq!((manifest.artifacts.len(), &*manifest.artifacts[0].name), (1, REST));
        assert_eq!((manifest.contents.items, manifest.omissions.len()), (3, 1));

        let keyless = scene.without_key();
        let reader =
            BackupReader::open_backup(&keyless, &backup).await.expect("readable without a private key");
        assert_eq!(reader.manifest.artifacts.len(), 201, "with the details");
        assert_eq!(reader.manifest.omissions, capture.omissions);
        let reader = BackupReader::open_backup(&scene.vault, &backup).await.expect("opened");
        let artifact = reader.artifact("namespace-150/objects.json").expect("it");
        let opened = reader.open(artifact, &scene.task).await.expect("opened");
        assert!(drain(opened).await.expect("whole") == text(150));
        assert_eq!(reader.contents(&scene.task).await.expect("contents"), capture.contents);
    }
}

#[test]
fn slices_add_up() {
    let at = |seconds| Timestamp::from_second(seconds).expect("a time");
    let slice = |seconds| Capture {
        consistency: Some(Consistency {
            level: Level::PointInTime,
            at: Some(at(seconds)),
            from: None,
            to: None,
            position: BTreeMap::from([(format!("shard-{seconds}"), "offset".to_owned())]),
        }),
        contents: Contents { items: 5, ..Contents::default() },
        ..Capture::default()
    };
    let mut whole = Capture::default();
    whole.absorb(slice(10));
    assert_eq!(whole.consistency, slice(10).consistency, "one slice is the whole");
    whole.absorb(slice(30));
    whole.absorb(slice(20));
    let consistency = whole.consistency.expect("some");
    assert_eq!(consistency.level, Level::PerType);
    assert_eq!((consistency.at, consistency.from, consistency.to), (None, Some(at(10)), Some(at(30))));
    assert_eq!((consistency.position.len(), whole.contents.items), (3, 15));
}

/// The way over real stores: parts copied by the kernel, parts sent by HTTP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn real_stores_take_it_and_give_it_back() {
    let dir = tempfile::tempdir().expect("a directory");
    let directory: SharedStore = Arc::new(FsStore::connect(dir.path(), false).expect("a directory"));
    let server = s3::versitygw().await;
    for store in [directory, server.store()] {
        let mut scene = Scene::new().encrypted();
        scene.vault.store = store.clone();
        round_trip(&scene, &[noise(3, 20 * MIB), text(5 * MIB)]).await;
        round_trip(&scene, &[text(5)]).await;
        assert!(store.open_uploads("").await.expect("listed").is_empty());
        assert_eq!(scene.task.spool.used(), 0);
    }
}
