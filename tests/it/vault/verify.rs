use tidekeeper::error::Kind;
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::{BackupRef, Marker, marker};
use tidekeeper::vault::marks::Outcome;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::store::Key;
use tidekeeper::vault::store::faults::{Fault, Method, Plan};
use tidekeeper::vault::verify::{ensure_not_damaged, newest_proof, verify};

use super::estate::{Estate, HOUR, PLAIN, stored};
use super::scene::{Scene, text};

async fn reader(vault: &Vault, backup: &BackupRef) -> BackupReader {
    BackupReader::open_backup(vault, backup).await.expect("opened")
}

async fn artifact_of(reader: &BackupReader) -> Key {
    Key::new(&reader.manifest.artifacts[0].key)
}

#[tokio::test(start_paused = true)]
async fn a_whole_backup_is_verified_and_proven() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let reader = reader(&estate.vault, &backup).await;
    let found = verify(&reader, &estate.task()).await.expect("verified");
    assert_eq!(found.outcome, Outcome::Verified);
    assert_eq!(found.bytes, PLAIN.len() as u64);
    let proof = newest_proof(&estate.vault, &backup).await.expect("read").expect("a proof");
    assert_eq!((proof.outcome, &*proof.run), (Outcome::Verified, "run-1"));
    assert!(estate.keys("holds/").await.is_empty(), "the hold ends with it");
    ensure_not_damaged(&estate.vault, &backup).await.expect("whole");
}

#[tokio::test(start_paused = true)]
async fn a_flipped_bit_a_short_object_and_a_missing_one_are_damage() {
    let mut flipped = stored();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    for spoilt in [Some(flipped), Some(b"short".to_vec()), None] {
        let estate = Estate::new();
        let backup = estate.backup("complete").await;
        let reader = reader(&estate.vault, &backup).await;
        let key = artifact_of(&reader).await;
        match spoilt {
            Some(body) => estate.spoil(&key, body).await,
            None => estate.remove(&key).await,
        }
        let found = verify(&reader, &estate.task()).await.expect("damage is an outcome");
        assert_eq!(found.outcome, Outcome::Damaged);
        let error = ensure_not_damaged(&estate.vault, &backup).await.expect_err("damaged");
        assert_eq!(error.kind(), Kind::Damaged);
        assert!(error.why().contains("run run-1 found it damaged"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_proves_nothing() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    for method in [Method::Read, Method::List, Method::Create] {
        let plan = Plan::new(estate.clock.clone());
        for nth in 1..200 {
            plan.on(method, nth, Fault::Before(Kind::Unreachable));
        }
        let (vault, _) = estate.through(plan);
        let reader = reader(&vault, &backup).await;
        let error = verify(&reader, &estate.task()).await.expect_err("nobody looked");
        assert_eq!(error.kind(), Kind::Unreachable, "{method:?}");
        assert!(estate.keys("proofs/").await.is_empty(), "{method:?}");
    }
    let catalog = estate.catalog().list(None).await.expect("a listing");
    assert!(catalog.rows[0].is_good());
}

#[tokio::test]
async fn without_the_private_key_a_proof_says_that_nobody_looked_inside() {
    let scene = Scene::new().encrypted();
    let manifest = scene.write(&[("dump.rdb", text(10_000))]).await;
    let backup = manifest.backup();
    let keyless = reader(&scene.without_key(), &backup).await;
    let found = verify(&keyless, &scene.task).await.expect("its stored bytes are there");
    assert_eq!((found.outcome, found.inside), (Outcome::Verified, false));
    let proof = newest_proof(&scene.vault, &backup).await.expect("read").expect("a proof");
    let dump = proof.checks.iter().find(|check| check.name == "dump.rdb").expect("its check");
    assert!(dump.found.contains("what is inside was not looked at"), "{dump:?}");

    let found = verify(&reader(&scene.vault, &backup).await, &scene.task).await.expect("verified");
    assert_eq!((found.outcome, found.inside), (Outcome::Verified, true));
    assert!(found.checks.iter().all(|check| check.found.contains("plain bytes agree")), "{found:?}");
}

#[tokio::test]
async fn without_the_private_key_damage_is_not_taken_back() {
    let scene = Scene::new().encrypted();
    let manifest = scene.write(&[("dump.rdb", text(10_000))]).await;
    let dump = manifest.artifacts.iter().find(|artifact| artifact.name == "dump.rdb").expect("it");
    let whole = scene.stored(&dump.key).await;
    scene.replace(&dump.key, whole.slice(1..)).await;
    let keyless = reader(&scene.without_key(), &manifest.backup()).await;
    let found = verify(&keyless, &scene.task).await.expect("damage is an outcome");
    assert_eq!(found.outcome, Outcome::Damaged);
    scene.replace(&dump.key, whole).await;
    let error = verify(&keyless, &scene.task).await.expect_err("it may lie inside");
    assert_eq!(error.kind(), Kind::Damaged);
    assert!(error.hint_text().is_some_and(|hint| hint.contains("identity_file")), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_that_stays_denies_no_verification() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let plan = Plan::new(estate.clock.clone());
    for nth in 1..50 {
        plan.on(Method::Delete, nth, Fault::Before(Kind::Denied));
    }
    let (vault, _) = estate.through(plan);
    let found = verify(&reader(&vault, &backup).await, &estate.task()).await.expect("verified");
    assert_eq!(found.outcome, Outcome::Verified);
    assert_eq!(estate.keys("holds/").await.len(), 1, "it ends by itself");
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_verification_proves_nothing_and_its_hold_ends_by_itself() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let task = estate.task();
    task.cancel.cancel();
    let reader = reader(&estate.vault, &backup).await;
    let error = verify(&reader, &task).await.expect_err("cancelled");
    assert_eq!(error.kind(), Kind::Cancelled);
    assert!(estate.keys("proofs/").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_proof_may_be_the_one_that_says_damaged() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    estate.prove(&backup, Outcome::Verified).await;
    estate.pass(HOUR).await;
    estate.put(&marker(Marker::Proof, &backup, "torn"), "{").await;
    let error = ensure_not_damaged(&estate.vault, &backup).await.expect_err("nobody knows");
    assert_eq!(error.kind(), Kind::Damaged);
}

#[tokio::test(start_paused = true)]
async fn the_same_run_proves_the_same_once_and_damage_always() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let reader = reader(&estate.vault, &backup).await;
    let task = estate.task();
    verify(&reader, &task).await.expect("verified");
    verify(&reader, &task).await.expect("verified again");
    assert_eq!(estate.keys("proofs/").await.len(), 1);
    estate.remove(&artifact_of(&reader).await).await;
    let found = verify(&reader, &task).await.expect("damage is an outcome");
    assert_eq!(found.outcome, Outcome::Damaged);
    assert_eq!(estate.keys("proofs/").await.len(), 2);
    assert!(ensure_not_damaged(&estate.vault, &backup).await.is_err());
}
