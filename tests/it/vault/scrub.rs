use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use serde_json::json;
use tidekeeper::error::{Kind, Result};
use tidekeeper::vault::Vault;
use tidekeeper::vault::catalog::{Catalog, read_manifest};
use tidekeeper::vault::deletion::{Deleter, Fence, NoNatives};
use tidekeeper::vault::layout::{self, BackupRef, Marker};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::marks::Outcome;
use tidekeeper::vault::scrub::{Finding, Line, Liveness, Repair, Repaired, Scrub, Writers};
use tidekeeper::vault::store::faults::{Fault, Method, Plan};
use tidekeeper::vault::store::{Key, Part, Store};

use super::estate::{DAY, Deposed, Estate, HOUR, Leads, SOURCE, keep_one, stored};

mod crash;

/// What the runs say of writers.
#[derive(Debug, Default)]
struct Runs {
    alive: Mutex<BTreeSet<BackupRef>>,
    dead: Mutex<BTreeMap<BackupRef, String>>,
}

impl Runs {
    fn dead(backup: &BackupRef) -> Self {
        let runs = Runs::default();
        runs.dead.lock().expect("no panics").insert(backup.clone(), "its deadline has passed".into());
        runs
    }

    fn all_dead() -> EverybodyIsDead {
        EverybodyIsDead
    }
}

#[async_trait]
impl Writers for Runs {
    async fn liveness(&self, backup: &BackupRef) -> Result<Liveness> {
        if self.alive.lock().expect("no panics").contains(backup) {
            return Ok(Liveness::Alive);
        }
        let dead = self.dead.lock().expect("no panics").get(backup).cloned();
        Ok(dead.map_or(Liveness::Unknown, Liveness::Dead))
    }
}

#[derive(Debug)]
struct EverybodyIsDead;

#[async_trait]
impl Writers for EverybodyIsDead {
    async fn liveness(&self, _: &BackupRef) -> Result<Liveness> {
        Ok(Liveness::Dead("its run has ended".to_owned()))
    }
}

async fn inspect(estate: &Estate, writers: &dyn Writers, deep: bool) -> Vec<Line> {
    let (vault, catalog) = (&estate.vault, &estate.catalog());
    let scrub = Scrub { vault, catalog, writers, deep };
    scrub.inspect(&estate.task()).await.expect("a scrub")
}

async fn repair_as(
    estate: &Estate,
    vault: &Vault,
    writers: &dyn Writers,
    fence: &dyn Fence,
    lines: &[Line],
) -> Result<Vec<Repair>> {
    let catalog = &Catalog::new(vault);
    let scrub = Scrub { vault, catalog, writers, deep: false };
    let deleter = Deleter { vault, catalog, clock: &estate.watch, fence, natives: &NoNatives };
    scrub.repair(lines, &deleter).await
}

async fn repair(estate: &Estate, writers: &dyn Writers, lines: &[Line]) -> Vec<Repaired> {
    let repairs = repair_as(estate, &estate.vault, writers, &Leads, lines).await.expect("a repair");
    repairs.into_iter().map(|repair| repair.repaired).collect()
}

/// Data of an attempt that did not commit, and an upload that was begun and not ended.
async fn uncommitted(estate: &Estate) -> BackupRef {
    let backup = estate.name(SOURCE);
    estate.data(&backup, "attempt0").await;
    begin_upload(estate, &backup).await;
    backup
}

async fn begin_upload(estate: &Estate, backup: &BackupRef) {
    let key = layout::artifact(backup, "attempt0", "more.zst");
    let upload = estate.memory.begin_upload(&key).await.expect("begun");
    upload.put_part(1, Part::Bytes(Bytes::from_static(b"part"))).await.expect("stored");
}

async fn uploads(estate: &Estate) -> usize {
    estate.memory.open_uploads("").await.expect("listed").len()
}

#[tokio::test(start_paused = true)]
async fn what_the_newest_proof_calls_damaged_is_damage() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    estate.prove(&backup, Outcome::Damaged).await;
    let lines = inspect(&estate, &Runs::all_dead(), false).await;
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(matches!(&line.finding, Finding::FoundDamaged { backup: of, .. } if *of == backup), "{line:?}");
    assert!(line.is_damage());
    estate.pass(HOUR).await;
    estate.prove(&backup, Outcome::Verified).await;
    assert_eq!(inspect(&estate, &Runs::all_dead(), false).await, []);
}

#[tokio::test(start_paused = true)]
async fn a_vault_in_order_has_no_findings() {
    let estate = Estate::new();
    for status in ["complete", "partial", "suspect", "frozen"] {
        estate.backup(status).await;
    }
    estate.backup_of(SOURCE, "abandoned", json!({"artifacts": []})).await;
    let backup = estate.backup("complete").await;
    for own in ["plan.json", "slices/0.json"] {
        estate.put(&Key::new(format!("{}{own}", layout::data_of(&backup))), "{}").await;
    }
    // The abandoned one has data, which is the only thing to find.
    let lines = inspect(&estate, &Runs::all_dead(), true).await;
    assert!(matches!(&lines[..], [Line { finding: Finding::AbandonedData { .. }, .. }]), "{lines:?}");
    assert_eq!(repair(&estate, &Runs::all_dead(), &lines).await, [Repaired::Done]);
    assert_eq!(inspect(&estate, &Runs::all_dead(), true).await, []);
}

#[tokio::test(start_paused = true)]
async fn data_without_a_manifest_is_given_up_first_and_deleted_then() {
    let estate = Estate::new();
    estate.backup("complete").await;
    let lost = uncommitted(&estate).await;
    let runs = Runs::dead(&lost);
    let lines = inspect(&estate, &runs, false).await;
    let objects = Finding::Uncommitted { backup: lost.clone(), objects: 1, bytes: stored().len() as u64 };
    assert_eq!(lines[0].finding, objects);
    assert!(lines[0].repair.as_deref().expect("a repair").contains("abandoned"));
    assert!(matches!(lines[1].finding, Finding::OpenUpload { .. }), "{lines:?}");
    assert_eq!(estate.keys("").await.len(), 3, "inspecting changes nothing");

    let ended = "it has ended meanwhile".to_owned();
    assert_eq!(repair(&estate, &runs, &lines).await, [Repaired::Done, Repaired::Left(ended)]);
    let manifest = read_manifest(&estate.vault, &lost).await.expect("it exists now");
    assert_eq!((&manifest.status, &*manifest.kind), (&Status::Abandoned, "redis"));
    assert!(manifest.reason.expect("a reason").contains("its deadline has passed"));
    assert_eq!(estate.traces(&lost).await, [layout::manifest(&lost).to_string()]);
    assert_eq!(uploads(&estate).await, 0);
    assert_eq!(inspect(&estate, &runs, false).await, []);
}

#[tokio::test(start_paused = true)]
async fn under_a_living_writer_nothing_is_found_and_nothing_touched() {
    let estate = Estate::new();
    let backup = uncommitted(&estate).await;
    let dead = Runs::dead(&backup);
    let lines = inspect(&estate, &dead, false).await;
    assert_eq!(lines.len(), 2);
    let before = estate.keys("").await;

    // It turns out to live between the look and the repair.
    let alive = Runs::default();
    alive.alive.lock().expect("no panics").insert(backup);
    let repaired = repair(&estate, &alive, &lines).await;
    assert!(repaired.iter().all(|done| matches!(done, Repaired::Left(_))), "{repaired:?}");
    assert_eq!((estate.keys("").await, uploads(&estate).await), (before, 1));
    assert_eq!(inspect(&estate, &alive, false).await, []);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_can_tell_it_is_a_persons_turn() {
    let estate = Estate::new();
    uncommitted(&estate).await;
    let lines = inspect(&estate, &Runs::default(), false).await;
    assert_eq!(lines.len(), 2);
    assert!(lines.iter().all(|line| line.repair.is_none() && line.advice.is_some()), "{lines:?}");
    assert!(repair(&estate, &Runs::default(), &lines).await.is_empty());
}

/// A directory stages small objects too, and a process can die before they have a name.
#[tokio::test(start_paused = true)]
async fn what_was_staged_for_a_small_object_is_freed_after_an_hour() {
    let estate = Estate::new();
    for key in [layout::manifest(&estate.name(SOURCE)), layout::leader(1), Key::new("notes/ours.json")] {
        drop(estate.memory.begin_upload(&key).await.expect("begun"));
    }
    let findings = async || inspect(&estate, &Runs::default(), false).await;
    let young = findings().await;
    assert!(matches!(&young[..], [Line { repair: None, .. }]), "only the strange key is told: {young:?}");
    assert!(repair(&estate, &Runs::default(), &young).await.is_empty());
    estate.pass(HOUR).await;
    let lines = findings().await;
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(repair(&estate, &Runs::default(), &lines).await, [Repaired::Done, Repaired::Done]);
    assert_eq!(findings().await, young);
}

#[tokio::test(start_paused = true)]
async fn a_commit_that_came_in_time_is_left_alone() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let key = layout::manifest(&backup);
    let manifest = estate.memory.get(&key).await.expect("read").expect("there");
    estate.remove(&key).await;
    let lines = inspect(&estate, &Runs::all_dead(), false).await;
    assert!(matches!(lines[0].finding, Finding::Uncommitted { .. }));
    estate.put(&key, manifest).await;
    let repaired = repair(&estate, &Runs::all_dead(), &lines).await;
    assert_eq!(repaired, [Repaired::Left("it was committed meanwhile as \"complete\"".to_owned())]);
    assert_eq!(estate.traces(&backup).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn data_of_an_attempt_that_lost_goes_and_the_winners_stays() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    estate.data(&backup, "attempt1").await;
    begin_upload(&estate, &backup).await;
    let lines = inspect(&estate, &Runs::all_dead(), false).await;
    let lost = Finding::LostAttempt {
        backup: backup.clone(),
        attempt: "attempt1".into(),
        objects: 1,
        bytes: stored().len() as u64,
    };
    assert_eq!(lines[0].finding, lost);
    assert_eq!(repair(&estate, &Runs::all_dead(), &lines).await, [Repaired::Done, Repaired::Done]);
    assert_eq!(inspect(&estate, &Runs::all_dead(), true).await, []);
    assert_eq!(estate.traces(&backup).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deletion_that_was_interrupted_is_finished() {
    let estate = Estate::new();
    let old = estate.backup("complete").await;
    estate.pass(HOUR).await;
    estate.backup("complete").await;
    estate.retain(&keep_one()).await.expect("a pass");
    estate.pass(DAY).await;
    let plan = Plan::new(estate.clock.clone());
    plan.on(Method::Delete, 2, Fault::Before(Kind::Denied));
    let (vault, _) = estate.through(plan);
    estate.retain_as(&vault, &Leads, &keep_one()).await.expect_err("denied");

    // Its data has no manifest, but a verdict: that is not uncommitted data.
    let lines = inspect(&estate, &Runs::all_dead(), false).await;
    let unfinished = Finding::UnfinishedDeletion { backup: old.clone(), n: 1 };
    assert_eq!(lines.iter().map(|line| &line.finding).collect::<Vec<_>>(), [&unfinished]);
    assert_eq!(repair(&estate, &Runs::all_dead(), &lines).await, [Repaired::Done]);
    assert!(estate.traces(&old).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn marks_of_nothing_go() {
    let estate = Estate::new();
    let gone = estate.name(SOURCE);
    estate.put(&layout::tombstone(&gone, 1), "{}").await;
    estate.put(&layout::accepted(&gone), "{}").await;
    estate.put(&layout::marker(Marker::Proof, &gone, "run-a"), "{").await;
    let lines = inspect(&estate, &Runs::default(), false).await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert_eq!(repair(&estate, &Runs::default(), &lines).await, [Repaired::Done]);
    assert_eq!(estate.keys("").await, Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn what_only_a_person_can_mend_is_said_and_left() {
    let estate = Estate::new();
    let torn = estate.backup("complete").await;
    estate.spoil(&layout::manifest(&torn), "{").await;
    let missing = estate.backup("complete").await;
    estate.remove(&layout::artifact(&missing, "attempt0", "dump.rdb.zst")).await;
    let marked = estate.backup("complete").await;
    estate.put(&layout::marker(Marker::Hold, &marked, "run-a"), "{").await;
    estate.put(&Key::new("data/notes.txt"), "hello").await;
    let before = estate.keys("").await;

    let lines = inspect(&estate, &Runs::all_dead(), false).await;
    let [unreadable, mark, gone, strange] = &lines[..] else { panic!("{lines:#?}") };
    assert!(matches!(&unreadable.finding, Finding::UnreadableManifest { backup, .. } if *backup == torn));
    assert!(matches!(&mark.finding, Finding::UnreadableMark { backup, .. } if *backup == marked));
    assert!(matches!(&gone.finding, Finding::Missing { backup, .. } if *backup == missing));
    assert_eq!(strange.finding, Finding::StrangeKey { key: "data/notes.txt".to_owned() });
    assert!(lines.iter().all(|line| line.repair.is_none() && line.advice.is_some()));
    assert_eq!(lines.iter().filter(|line| line.is_damage()).count(), 2);
    assert!(repair(&estate, &Runs::all_dead(), &lines).await.is_empty());
    assert_eq!(estate.keys("").await, before);
}

#[tokio::test(start_paused = true)]
async fn only_a_deep_scrub_reads_the_bytes() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let mut flipped = stored();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    estate.spoil(&layout::artifact(&backup, "attempt0", "dump.rdb.zst"), flipped).await;
    assert_eq!(inspect(&estate, &Runs::all_dead(), false).await, []);
    let lines = inspect(&estate, &Runs::all_dead(), true).await;
    assert!(matches!(&lines[..], [Line { finding: Finding::Damaged { .. }, .. }]), "{lines:?}");
    assert!(lines[0].is_damage());
    assert!(estate.keys("proofs/").await.is_empty(), "a look leaves no trace");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_did_not_come_is_no_finding() {
    let estate = Estate::new();
    estate.backup("complete").await;
    uncommitted(&estate).await;
    for method in [Method::List, Method::Get, Method::OpenUploads] {
        let plan = Plan::new(estate.clock.clone());
        for nth in 1..20 {
            plan.on(method, nth, Fault::Before(Kind::Unreachable));
        }
        let (vault, _) = estate.through(plan);
        let catalog = Catalog::new(&vault);
        let scrub = Scrub { vault: &vault, catalog: &catalog, writers: &Runs::all_dead(), deep: false };
        let error = scrub.inspect(&estate.task()).await.expect_err("nobody looked");
        assert_eq!(error.kind(), Kind::Unreachable, "{method:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_repair_needs_a_clock_and_a_leader() {
    let estate = Estate::new();
    uncommitted(&estate).await;
    let lines = inspect(&estate, &Runs::all_dead(), false).await;
    let before = estate.keys("").await;
    let error = repair_as(&estate, &estate.vault, &Runs::all_dead(), &Deposed, &lines).await;
    assert_eq!(error.expect_err("deposed").kind(), Kind::Conflict);
    estate.clock.jump(SignedDuration::from_hours(1));
    let error = repair_as(&estate, &estate.vault, &Runs::all_dead(), &Leads, &lines).await;
    assert_eq!(error.expect_err("the clock jumped").kind(), Kind::Clock);
    assert_eq!(estate.keys("").await, before);
}

#[tokio::test(start_paused = true)]
async fn a_finding_reads_well() {
    let estate = Estate::new();
    uncommitted(&estate).await;
    let lines = inspect(&estate, &Runs::all_dead(), false).await;
    let json = serde_json::to_value(&lines[0]).expect("a line is plain data");
    insta::assert_json_snapshot!(json, @r#"
    {
      "advice": null,
      "backup": {
        "id": "20261101T000000Z-000000",
        "source": "redis-main"
      },
      "bytes": 63,
      "finding": "uncommitted",
      "objects": 1,
      "repair": "creates its manifest as `abandoned`, then deletes the data"
    }
    "#);
}
