use std::slice::from_ref;
use std::time::Duration;

use async_trait::async_trait;
use jiff::SignedDuration;
use serde_json::json;
use tidekeeper::config::Retention;
use tidekeeper::error::{Kind, Result};
use tidekeeper::vault::accept::accept;
use tidekeeper::vault::deletion::{Fence, Policy, preview};
use tidekeeper::vault::hold::hold;
use tidekeeper::vault::layout::{self, BackupRef};
use tidekeeper::vault::marks::Outcome;
use tidekeeper::vault::retention::Wait;
use tidekeeper::vault::store::faults::{Fault, Method, Plan};
use tidekeeper::vault::verify::newest_proof;

use super::estate::{DAY, Deposed, Estate, HOUR, Leads, SOURCE, keep_one};

pub mod crash;
mod races;

/// An old backup and a newer one.
async fn two(estate: &Estate) -> (BackupRef, BackupRef) {
    let old = estate.backup("complete").await;
    estate.pass(HOUR).await;
    (old, estate.backup("complete").await)
}

#[tokio::test(start_paused = true)]
async fn a_backup_goes_a_grace_after_it_was_proposed_and_leaves_nothing() {
    let estate = Estate::new();
    let (old, new) = two(&estate).await;
    estate.prove(&old, Outcome::Verified).await;
    estate.prove(&new, Outcome::Verified).await;
    estate.put(&layout::artifact(&old, "lost", "part.zst"), "of a lost attempt").await;

    let first = estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!((&first.proposed, first.deleted.len()), (&vec![old.clone()], 0));
    estate.pass(DAY - Duration::from_secs(1)).await;
    let second = estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!((second.proposed.len(), &second.pending, second.deleted.len()), (0, &vec![old.clone()], 0));
    estate.pass(Duration::from_secs(1)).await;
    let third = estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!(third.deleted, from_ref(&old));
    assert!(estate.traces(&old).await.is_empty(), "{:?}", estate.traces(&old).await);
    assert_eq!(estate.traces(&new).await.len(), 3, "manifest, data, proof");
    let fourth = estate.retain(&keep_one()).await.expect("a pass");
    assert!(fourth.proposed.is_empty() && fourth.deleted.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_says_why_and_on_what_it_relies() {
    let estate = Estate::new();
    let (old, new) = two(&estate).await;
    estate.retain(&keep_one()).await.expect("a pass");
    let body = tidekeeper::vault::store::Store::get(&estate.memory, &layout::tombstone(&old, 1)).await;
    let tombstone: serde_json::Value =
        serde_json::from_slice(&body.expect("read").expect("there")).expect("JSON");
    assert_eq!(tombstone["reasons"], json!(["no rule keeps it"]));
    assert_eq!(tombstone["relies_on"], json!([new.id]));
    assert_eq!(tombstone["generation"], json!(1));
}

#[tokio::test(start_paused = true)]
async fn a_preview_changes_nothing() {
    let estate = Estate::new();
    let (old, _) = two(&estate).await;
    let before = estate.keys("").await;
    let plan = preview(&estate.catalog(), &estate.vault, &estate.watch, &keep_one()).await.expect("a plan");
    assert_eq!(plan.removals().map(|line| &line.id).collect::<Vec<_>>(), [&old.id]);
    assert_eq!(estate.keys("").await, before);
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_changed_its_mind_withdraws_the_proposal() {
    let estate = Estate::new();
    let (old, _) = two(&estate).await;
    estate.retain(&keep_one()).await.expect("a pass");
    estate.pass(2 * DAY).await;
    let keep_two = Policy { retention: Retention { keep_last: 2, ..keep_one().retention }, ..keep_one() };
    let report = estate.retain(&keep_two).await.expect("a pass");
    assert_eq!(report.withdrawn, from_ref(&old));
    let report = estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!(report.proposed, from_ref(&old), "the second proposal has its own grace");
    assert!(report.deleted.is_empty());
    estate.pass(DAY).await;
    assert_eq!(estate.retain(&keep_one()).await.expect("a pass").deleted, [old]);
}

#[tokio::test(start_paused = true)]
async fn a_hold_or_a_word_of_acceptance_in_the_grace_keeps_it() {
    let estate = Estate::new();
    let suspect = estate.backup("suspect").await;
    estate.pass(HOUR).await;
    let (old, _) = two(&estate).await;
    let first = estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!(first.proposed, [old.clone(), suspect.clone()]);
    let until = estate.now() + SignedDuration::from_hours(100);
    let _held = hold(&estate.vault, &old, "run-a", "anna", "audit", Some(until)).await.expect("held");
    accept(&estate.vault, &suspect, "anna").await.expect("accepted");
    estate.pass(DAY).await;
    let second = estate.retain(&keep_one()).await.expect("a pass");
    assert!(second.deleted.is_empty());
    assert_eq!(second.proposed, [suspect], "accepted, it still is old: proposed anew, with a new grace");
    estate.pass(4 * DAY).await;
    assert_eq!(estate.retain(&keep_one()).await.expect("a pass").proposed, [old], "the hold has ended");
}

/// A leader while whose pass a verification of a backup ends.
struct Meanwhile<'a>(&'a Estate, BackupRef);

#[async_trait]
impl Fence for Meanwhile<'_> {
    fn generation(&self) -> Option<u64> {
        Some(1)
    }

    async fn still_leading(&self) -> Result<()> {
        let Meanwhile(estate, backup) = self;
        if newest_proof(&estate.vault, backup).await?.is_none() {
            estate.prove(backup, Outcome::Verified).await;
        }
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_that_comes_between_the_listing_and_the_verdict_keeps_it() {
    let estate = Estate::new();
    let (oldest, old) = two(&estate).await;
    estate.pass(HOUR).await;
    estate.backup("complete").await;
    estate.retain(&keep_one()).await.expect("a pass");
    estate.pass(DAY).await;
    // The newer one is decided first.
    let fence = Meanwhile(&estate, oldest.clone());
    let report = estate.retain_as(&estate.vault, &fence, &keep_one()).await.expect("a pass");
    assert_eq!((report.deleted, report.withdrawn), (vec![old], vec![oldest]));
    estate.pass(DAY).await;
    let report = estate.retain(&keep_one()).await.expect("a pass");
    assert!(report.deleted.is_empty(), "the only proven one goes: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_pillar_that_is_not_whole_stops_the_verdict() {
    for spoil in ["object", "proof", "manifest"] {
        let estate = Estate::new();
        let (old, new) = two(&estate).await;
        estate.retain(&keep_one()).await.expect("a pass");
        estate.pass(DAY).await;
        match spoil {
            "object" => estate.remove(&layout::artifact(&new, "attempt0", "dump.rdb.zst")).await,
            "proof" => estate.prove(&new, Outcome::Damaged).await,
            _ => estate.spoil(&layout::manifest(&new), "{").await,
        }
        let outcome = estate.retain(&keep_one()).await;
        match spoil {
            "object" => {
                let error = outcome.expect_err("the pillar is broken");
                assert_eq!(error.kind(), Kind::Refused);
                assert!(error.hint_text().expect("a hint").contains("tidekeeper verify"), "{error:?}");
            }
            "proof" => {
                assert_eq!(outcome.expect("a pass").withdrawn, from_ref(&old), "the old one is the last good")
            }
            _ => assert!(matches!(outcome.expect("a pass").waits[..], [Wait::Unreadable(..)])),
        }
        assert!(estate.traces(&old).await.contains(&layout::manifest(&old).to_string()), "{spoil}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_pillar_uses_must_be_whole_too() {
    let estate = Estate::new();
    let base = estate.backup("complete").await;
    estate.pass(HOUR).await;
    let old = estate.backup("complete").await;
    estate.pass(HOUR).await;
    estate.backup_of(SOURCE, "complete", json!({"requires": [base]})).await;
    let first = estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!(first.proposed, from_ref(&old), "the base stays with what uses it");
    estate.pass(DAY).await;
    estate.remove(&layout::artifact(&base, "attempt0", "dump.rdb.zst")).await;
    assert_eq!(estate.retain(&keep_one()).await.expect_err("a broken base").kind(), Kind::Refused);
}

#[tokio::test(start_paused = true)]
async fn users_go_before_what_they_use() {
    let estate = Estate::new();
    let base = estate.backup("complete").await;
    estate.pass(HOUR).await;
    let user = estate.backup_of(SOURCE, "complete", json!({"requires": [base]})).await;
    estate.pass(HOUR).await;
    estate.backup("complete").await;
    assert_eq!(estate.retain(&keep_one()).await.expect("a pass").proposed, [user.clone(), base.clone()]);
    estate.pass(DAY).await;
    assert_eq!(estate.retain(&keep_one()).await.expect("a pass").deleted, [user, base]);
}

#[tokio::test(start_paused = true)]
async fn a_backup_that_another_source_uses_stays() {
    let estate = Estate::new();
    let base = estate.backup("complete").await;
    estate.pass(HOUR).await;
    estate.backup("complete").await;
    estate.backup_of("models", "complete", json!({"requires": [base]})).await;
    assert!(estate.retain(&keep_one()).await.expect("a pass").proposed.is_empty());
}

#[tokio::test(start_paused = true)]
async fn while_the_clock_looks_wrong_nothing_is_proposed_decided_or_deleted() {
    let estate = Estate::new();
    two(&estate).await;
    estate.retain(&keep_one()).await.expect("a pass");
    estate.pass(DAY).await;
    let before = estate.keys("").await;
    for hours in [-1, 1] {
        estate.clock.jump(SignedDuration::from_hours(hours));
        let report = estate.retain(&keep_one()).await.expect("a pass");
        assert!(matches!(report.waits[..], [Wait::Clock(_)]), "{:?}", report.waits);
        assert_eq!(estate.keys("").await, before);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_long_silence_deletion_waits_for_a_new_good_backup() {
    let estate = Estate::new();
    let (old, _) = two(&estate).await;
    let policy = Policy { interval: Some(6 * HOUR), ..keep_one() };
    estate.retain(&policy).await.expect("a pass");
    estate.pass(2 * DAY).await;
    let report = estate.retain(&policy).await.expect("a pass");
    assert!(matches!(report.waits[..], [Wait::Silence { .. }]), "{:?}", report.waits);
    assert!(report.deleted.is_empty() && report.withdrawn.is_empty());
    estate.backup("suspect").await;
    assert!(estate.retain(&policy).await.expect("a pass").deleted.is_empty(), "that one is not good");
    estate.backup("complete").await;
    assert_eq!(estate.retain(&policy).await.expect("a pass").deleted, [old]);
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_lead_changes_nothing() {
    let estate = Estate::new();
    two(&estate).await;
    for _ in 0..2 {
        let before = estate.keys("").await;
        let error = estate.retain_as(&estate.vault, &Deposed, &keep_one()).await.expect_err("deposed");
        assert_eq!(error.kind(), Kind::Conflict);
        assert_eq!(estate.keys("").await, before);
        estate.retain(&keep_one()).await.expect("a pass");
        estate.pass(DAY).await;
    }
}

#[tokio::test(start_paused = true)]
async fn one_verdict_that_cannot_be_read_makes_its_source_wait() {
    let estate = Estate::new();
    let (old, _) = two(&estate).await;
    estate.retain(&keep_one()).await.expect("a pass");
    estate.put(&layout::verdict(&old, 1), "{").await;
    estate.pass(DAY).await;
    let report = estate.retain(&keep_one()).await.expect("a pass");
    assert!(matches!(report.waits[..], [Wait::Unreadable(..)]), "{:?}", report.waits);
}

#[tokio::test(start_paused = true)]
async fn an_error_ends_the_pass_of_its_source() {
    let estate = Estate::new();
    let old = estate.backup("complete").await;
    estate.pass(HOUR).await;
    let (older, _) = two(&estate).await;
    estate.retain(&keep_one()).await.expect("a pass");
    estate.pass(DAY).await;
    let plan = Plan::new(estate.clock.clone());
    plan.on(Method::Delete, 2, Fault::Before(Kind::Denied));
    let (vault, _) = estate.through(plan);
    let error = estate.retain_as(&vault, &Leads, &keep_one()).await.expect_err("denied");
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.doing().starts_with("retention of redis-main"), "{error}");
    assert_eq!(estate.traces(&old).await.len(), 3, "the next one was not touched: manifest, data, tombstone");
    let mut deleted = estate.retain(&keep_one()).await.expect("a pass").deleted;
    deleted.sort();
    assert_eq!(deleted, [old, older]);
}
