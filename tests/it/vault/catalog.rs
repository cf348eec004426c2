use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use serde_json::json;
use tidekeeper::error::Kind;
use tidekeeper::vault::accept::accept;
use tidekeeper::vault::catalog::{Catalog, baseline, latest, missing_objects, read_manifest};
use tidekeeper::vault::fate::Fate;
use tidekeeper::vault::layout::{self, Marker};
use tidekeeper::vault::marks::Outcome;
use tidekeeper::vault::store::faults::{Before, Call, Fault, Hook, Method, Plan};
use tidekeeper::vault::suspect::Size;

use super::estate::{Estate, HOUR, SOURCE};

#[tokio::test(start_paused = true)]
async fn backups_are_listed_by_source_newest_first_with_what_is_said_of_them() {
    let estate = Estate::new();
    let other = estate.backup_of("mongo-main", "partial", json!({})).await;
    let first = estate.backup("complete").await;
    estate.pass(HOUR).await;
    let second = estate.backup("suspect").await;
    estate.prove(&first, Outcome::Restored).await;
    accept(&estate.vault, &second, "anna").await.expect("accepted");

    let all = estate.catalog().list(None).await.expect("a listing");
    let names: Vec<_> = all.rows.iter().map(|row| row.backup.clone()).collect();
    assert_eq!(names, [other, second.clone(), first.clone()]);
    assert_eq!(all.newest_object, Some(estate.now()));
    assert!(all.strays.is_empty() && all.strange.is_empty());
    assert_eq!(all.rows[2].marks.proven().map(|proof| proof.outcome), Some(Outcome::Restored));
    assert!(all.rows[1].is_good(), "accepted");
    assert!(!all.rows[0].is_good() && all.rows[0].is_usable(), "partial");

    let source = SOURCE.parse().expect("a name");
    let one = estate.catalog().list(Some(&source)).await.expect("a listing");
    assert_eq!(one.rows.len(), 2);
    assert_eq!(estate.catalog().ids(&source).await.expect("ids"), [first.id, second.id]);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_a_row_with_the_reason() {
    let estate = Estate::new();
    let torn = estate.backup("complete").await;
    estate.spoil(&layout::manifest(&torn), "{\"format\": 1").await;
    estate.backup_of(SOURCE, "complete", json!({"format": 2})).await;
    let moved = estate.name(SOURCE);
    let body = estate.keys("manifests/").await.last().cloned().expect("one");
    let body = tidekeeper::vault::store::Store::get(&estate.memory, &layout_key(&body)).await.expect("read");
    estate
        .put(
            &layout::manifest(&moved),
            String::from_utf8(body.expect("there").to_vec())
                .expect("text")
                .replace("\"format\":2", "\"format\":1"),
        )
        .await;
    estate.put(&layout_key("manifests/redis-main/notes.txt"), "hello").await;

    let listing = estate.catalog().list(None).await.expect("a listing");
    let problems: Vec<&str> = listing.rows.iter().filter_map(|row| row.problem()).collect();
    assert_eq!(problems.len(), 3, "{problems:?}");
    assert!(problems[0].contains("it is the manifest of redis-main/"), "{problems:?}");
    assert!(problems[1].contains("format 2, and this build reads up to 1"), "{problems:?}");
    assert!(problems[2].contains("EOF"), "{problems:?}");
    assert_eq!(listing.strange, [layout_key("manifests/redis-main/notes.txt")]);
    let newer = read_manifest(&estate.vault, &listing.rows[1].backup).await.expect_err("a newer format");
    assert_eq!(newer.kind(), Kind::Unsupported);
}

fn layout_key(text: &str) -> tidekeeper::vault::store::Key {
    tidekeeper::vault::store::Key::new(text)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_did_not_come_is_a_problem_of_that_row_and_is_asked_for_again() {
    let estate = Estate::new();
    estate.backup("complete").await;
    let plan = Plan::new(estate.clock.clone());
    plan.on(Method::Get, 1, Fault::Before(Kind::Throttled));
    let (vault, _) = estate.through(plan);
    let catalog = Catalog::new(&vault);
    let first = catalog.list(None).await.expect("a listing");
    assert!(first.rows[0].problem().is_some());
    let second = catalog.list(None).await.expect("a listing");
    assert_eq!(second.rows[0].problem(), None);
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_fails_is_no_empty_catalog() {
    let estate = Estate::new();
    estate.backup("complete").await;
    for nth in 1..=5 {
        let plan = Plan::new(estate.clock.clone());
        plan.on(Method::List, nth, Fault::Before(Kind::Unreachable));
        let (vault, _) = estate.through(plan);
        let error = Catalog::new(&vault).list(None).await.expect_err("the listing failed");
        assert_eq!(error.kind(), Kind::Unreachable);
    }
}

/// Counts how many reads are under way at the same time; each takes a few turns.
#[derive(Debug, Default)]
struct Width {
    now: AtomicU64,
    most: AtomicU64,
}

#[async_trait]
impl Hook for Width {
    async fn before(&self, call: &Call) -> Before {
        if call.method == Method::Get {
            let now = 1 + self.now.fetch_add(1, Ordering::SeqCst);
            self.most.fetch_max(now, Ordering::SeqCst);
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
        }
        Before::Pass
    }

    async fn after(&self, call: &Call, _: bool) -> Option<Kind> {
        if call.method == Method::Get {
            self.now.fetch_sub(1, Ordering::SeqCst);
        }
        None
    }
}

#[tokio::test(start_paused = true)]
async fn unknown_objects_are_read_once_and_not_too_many_at_a_time() {
    let estate = Estate::new();
    for _ in 0..1_100 {
        let backup = estate.backup("complete").await;
        estate.prove(&backup, Outcome::Verified).await;
    }
    let width = Arc::new(Width::default());
    let (vault, faults) = estate.through(width.clone());
    let catalog = Catalog::new(&vault);
    assert_eq!(catalog.list(None).await.expect("a listing").rows.len(), 1_100, "more than a page");
    assert_eq!(faults.count(Method::Get), 2_200);
    assert_eq!(width.most.load(Ordering::SeqCst), 128);
    estate.backup("complete").await;
    assert_eq!(catalog.clone().list(None).await.expect("a listing").rows.len(), 1_101);
    assert_eq!(faults.count(Method::Get), 2_201, "only the new one");
}

#[tokio::test(start_paused = true)]
async fn a_replaced_object_is_read_again() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let catalog = estate.catalog();
    assert_eq!(catalog.list(None).await.expect("a listing").rows[0].problem(), None);
    estate.spoil(&layout::manifest(&backup), "{").await;
    assert!(catalog.list(None).await.expect("a listing").rows[0].problem().is_some());
}

#[tokio::test(start_paused = true)]
async fn marks_without_a_backup_are_strays() {
    let estate = Estate::new();
    let gone = estate.name(SOURCE);
    estate.put(&layout::tombstone(&gone, 2), "{}").await;
    let verdict = r#"{"nonce": "n", "decree": "delete", "why": "", "at": "2026-11-01T00:00:00Z"}"#;
    estate.put(&layout::verdict(&gone, 2), verdict).await;
    let listing = estate.catalog().list(None).await.expect("a listing");
    assert!(listing.rows.is_empty());
    assert_eq!(listing.strays[&gone].fate, Fate::Deleting { n: 2 });
}

#[tokio::test(start_paused = true)]
async fn the_newest_proof_decides_whether_a_backup_is_damaged() {
    let estate = Estate::new();
    let backup = estate.backup("complete").await;
    let good = async || estate.catalog().list(None).await.expect("a listing").rows[0].is_good();
    estate.prove(&backup, Outcome::Restored).await;
    estate.prove(&backup, Outcome::Damaged).await;
    assert!(!good().await, "of two at one moment, the worse counts");
    estate.pass(HOUR).await;
    estate.prove(&backup, Outcome::Verified).await;
    assert!(good().await, "found whole since");
    estate.put(&layout::marker(Marker::Proof, &backup, "torn"), "{").await;
    let listing = estate.catalog().list(None).await.expect("a listing");
    assert!(listing.rows[0].problem().is_some());
}

#[tokio::test(start_paused = true)]
async fn latest_is_the_newest_that_counts() {
    let estate = Estate::new();
    let good = estate.backup("complete").await;
    for status in ["partial", "suspect", "abandoned", "frozen"] {
        estate.pass(HOUR).await;
        estate.backup(status).await;
    }
    let damaged = estate.backup("complete").await;
    estate.prove(&damaged, Outcome::Damaged).await;
    let listing = estate.catalog().list(None).await.expect("a listing");
    assert_eq!(latest(&listing.rows).map(|row| &row.backup), Some(&good));
    let found = estate.catalog().resolve("redis-main/latest").await.expect("found");
    assert_eq!(found, good);
    let by_id = estate.catalog().resolve(&damaged.to_string()).await.expect("found");
    assert_eq!(by_id, damaged, "whoever names it in full gets it");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_answered_with_what_is_near() {
    let estate = Estate::new();
    let refused = async |text: &str| estate.catalog().resolve(text).await.expect_err("nothing there");
    assert!(refused("redis-main/latest").await.hint_text().expect("a hint").contains("no backups at all"));
    let backup = estate.backup("suspect").await;

    let error = refused("redis-main").await;
    assert_eq!(error.kind(), Kind::Usage);
    assert!(error.hint_text().expect("a hint").contains("redis-main/latest"));
    let error = refused("redis-mian/latest").await;
    assert_eq!(error.kind(), Kind::NotFound);
    assert!(error.hint_text().expect("a hint").contains("did you mean redis-main?"), "{error:?}");
    let wrong = backup.to_string().replace("000000Z", "000001Z");
    let error = refused(&wrong).await;
    assert!(error.hint_text().expect("a hint").contains(backup.id.as_str()), "{error:?}");
    let error = refused("redis-main/latest").await;
    assert!(error.hint_text().expect("a hint").contains("(suspect)"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn the_baseline_is_the_newest_good_ones_back_to_the_last_accepted() {
    let estate = Estate::new();
    let with = |items: u64| json!({"contents": {"items": items}});
    let mut accepted = None;
    for (items, status) in
        [(9, "complete"), (8, "complete"), (1, "suspect"), (2, "suspect"), (3, "complete"), (4, "partial")]
    {
        estate.pass(HOUR).await;
        let backup = estate.backup_of(SOURCE, status, with(items)).await;
        if items == 1 {
            accepted = Some(backup);
        }
    }
    let items = |sizes: Vec<Size>| sizes.iter().map(|size| size.items).collect::<Vec<_>>();
    let listing = estate.catalog().list(None).await.expect("a listing");
    assert_eq!(items(baseline(&listing.rows)), [3, 8, 9]);
    accept(&estate.vault, &accepted.expect("made"), "anna").await.expect("accepted");
    let listing = estate.catalog().list(None).await.expect("a listing");
    assert_eq!(items(baseline(&listing.rows)), [3, 1]);
}

#[tokio::test(start_paused = true)]
async fn restorable_means_every_object_is_there_with_its_size() {
    let estate = Estate::new();
    let base = estate.backup("complete").await;
    let manifest = read_manifest(&estate.vault, &base).await.expect("read");
    assert!(missing_objects(&estate.vault, &manifest).await.expect("asked").is_empty());
    let data = layout_key(&manifest.artifacts[0].key);
    let user = estate
        .backup_of(SOURCE, "complete", json!({"artifacts": manifest.artifacts, "requires": [base]}))
        .await;
    let user = read_manifest(&estate.vault, &user).await.expect("read");
    assert!(missing_objects(&estate.vault, &user).await.expect("asked").is_empty(), "another's data");

    estate.spoil(&data, "short").await;
    for manifest in [&manifest, &user] {
        let missing = missing_objects(&estate.vault, manifest).await.expect("asked");
        assert!(missing[0].contains("has 5 bytes where the manifest says"), "{missing:?}");
    }
    estate.remove(&data).await;
    for manifest in [&manifest, &user] {
        let missing = missing_objects(&estate.vault, manifest).await.expect("asked");
        assert!(missing[0].contains("is not there"), "{missing:?}");
    }
}
