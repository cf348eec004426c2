use std::slice::from_ref;
use std::time::Duration;

use jiff::SignedDuration;
use tidekeeper::error::Kind;
use tidekeeper::vault::accept::accept;
use tidekeeper::vault::fate::{self, Fate};
use tidekeeper::vault::hold::{hold, hold_for, holder, unhold};
use tidekeeper::vault::layout;

use super::estate::{DAY, Estate, HOUR, keep_one};

#[tokio::test(start_paused = true)]
async fn a_hold_lasts_until_it_is_ended_or_its_time_has_come() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let until = estate.now() + SignedDuration::from_hours(1);
    let _first = hold(&estate.vault, &backup, "run-a", "anna", "audit", Some(until)).await.expect("held");
    let who = holder(&estate.vault, &backup, estate.now()).await.expect("read");
    assert_eq!(who.as_deref(), Some("held by anna: audit"));
    estate.pass(HOUR).await;
    assert_eq!(holder(&estate.vault, &backup, estate.now()).await.expect("read"), None);

    let _second = hold(&estate.vault, &backup, "run-b", "anna", "audit", None).await.expect("held");
    estate.pass(1_000 * DAY).await;
    assert!(holder(&estate.vault, &backup, estate.now()).await.expect("read").is_some());
    assert_eq!(unhold(&estate.vault, &backup).await.expect("ended"), 2);
    assert_eq!(holder(&estate.vault, &backup, estate.now()).await.expect("read"), None);
}

#[tokio::test(start_paused = true)]
async fn a_runs_hold_ends_with_it_or_a_margin_after_its_deadline_and_not_by_unhold() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let task = estate.task();
    let held = hold_for(&estate.vault, &backup, "restore", &task).await.expect("held");
    let again = hold_for(&estate.vault, &backup, "restore", &task).await.expect("held twice by one run");
    assert_eq!(unhold(&estate.vault, &backup).await.expect("nothing to end"), 0);
    held.release().await.expect("released");
    assert!(holder(&estate.vault, &backup, estate.now()).await.expect("read").is_some(), "the other one");
    drop(again);
    estate.pass(HOUR).await;
    assert!(holder(&estate.vault, &backup, estate.now()).await.expect("read").is_some(), "the margin");
    estate.pass(Duration::from_secs(15 * 60)).await;
    assert_eq!(holder(&estate.vault, &backup, estate.now()).await.expect("read"), None);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_held_is_refused_and_leaves_no_hold() {
    let estate = Estate::new();
    let nothing = estate.name("redis-main");
    let error = hold(&estate.vault, &nothing, "run-a", "anna", "audit", None).await.expect_err("no backup");
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(estate.keys("holds/").await.is_empty());

    let backup = estate.backup("complete").await;
    let past = Some(estate.now());
    let error = hold(&estate.vault, &backup, "run-a", "anna", "audit", past).await.expect_err("too late");
    assert_eq!(error.kind(), Kind::Usage);

    let _held = hold(&estate.vault, &backup, "run-a", "anna", "audit", None).await.expect("held");
    let error =
        hold(&estate.vault, &backup, "run-a", "bert", "test", None).await.expect_err("the name is taken");
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(error.why().contains("anna"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_hold_on_a_proposed_backup_closes_the_proposal() {
    let estate = Estate::new();
    let old = estate.backup("complete").await;
    estate.pass(HOUR).await;
    estate.backup("complete").await;
    let report = estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!(report.proposed, from_ref(&old));
    let _held = hold(&estate.vault, &old, "run-a", "anna", "audit", None).await.expect("held");
    let proposals = fate::proposals(&estate.vault, &old).await.expect("read");
    assert_eq!(fate::conclude(&proposals), Fate::Stays);
    assert!(estate.keys("tombstones/").await.iter().any(|key| key.ends_with("/1.verdict.json")));

    estate.pass(2 * DAY).await;
    estate.retain(&keep_one()).await.expect("a pass");
    assert_eq!(estate.traces(&old).await.len(), 5, "manifest, data, hold, tombstone, verdict");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_being_deleted_cannot_be_held_or_accepted() {
    let estate = Estate::new();
    let backup = estate.backup("suspect").await;
    estate.put(&layout::tombstone(&backup, 1), "{}").await;
    let verdict = r#"{"nonce": "n", "decree": "delete", "why": "", "at": "2026-11-01T00:00:00Z"}"#;
    estate.put(&layout::verdict(&backup, 1), verdict).await;
    let error = hold(&estate.vault, &backup, "run-a", "anna", "audit", None).await.expect_err("too late");
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(estate.keys("holds/").await.is_empty());
    let error = accept(&estate.vault, &backup, "anna").await.expect_err("too late");
    assert_eq!(error.kind(), Kind::Conflict);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_hold_holds_and_an_unreadable_verdict_refuses_the_hold() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    estate.put(&layout::marker(layout::Marker::Hold, &backup, "run-a"), "{").await;
    let who = holder(&estate.vault, &backup, estate.now()).await.expect("read").expect("somebody");
    assert!(who.contains("cannot be read"), "{who}");
    assert_eq!(unhold(&estate.vault, &backup).await.expect_err("unreadable").kind(), Kind::Damaged);

    let other = estate.backup("complete").await;
    estate.put(&layout::verdict(&other, 1), "{").await;
    let error = hold(&estate.vault, &other, "run-a", "anna", "audit", None).await.expect_err("nobody knows");
    assert_eq!(error.kind(), Kind::Damaged);
}

#[tokio::test(start_paused = true)]
async fn only_a_suspect_backup_is_accepted_and_twice_is_once() {
    let estate = Estate::new();
    let good = estate.backup("complete").await;
    let error = accept(&estate.vault, &good, "anna").await.expect_err("not suspect");
    assert_eq!(error.kind(), Kind::Refused);
    let suspect = estate.backup("suspect").await;
    accept(&estate.vault, &suspect, "anna").await.expect("accepted");
    accept(&estate.vault, &suspect, "bert").await.expect("accepted again");
    assert_eq!(estate.keys("accepted/").await.len(), 1);
}
