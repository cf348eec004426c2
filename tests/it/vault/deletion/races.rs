//! Two processes on one vault, their store calls interleaved by dice: whoever needs a backup against whoever deletes it.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use tidekeeper::error::{Kind, Result};
use tidekeeper::vault::accept::accept;
use tidekeeper::vault::catalog::{missing_objects, read_manifest};
use tidekeeper::vault::deletion::Report;
use tidekeeper::vault::hold::hold;
use tidekeeper::vault::layout::BackupRef;
use tidekeeper::vault::store::faults::{Before, Call, Hook};

use super::super::estate::{DAY, Dice, Estate, HOUR, Leads, keep_one};

const SEEDS: u64 = 3_000;

/// Gives the other process a turn before each call and after it.
#[derive(Debug)]
struct Turns;

#[async_trait]
impl Hook for Turns {
    async fn before(&self, _: &Call) -> Before {
        tokio::task::yield_now().await;
        Before::Pass
    }

    async fn after(&self, _: &Call, _: bool) -> Option<Kind> {
        tokio::task::yield_now().await;
        None
    }
}

/// Runs both to their ends, one step of one of them at a time. One of them goes first more often, by the dice too:
/// with fair dice two processes would always meet in their middles.
async fn interleave<A, B>(
    dice: &mut Dice,
    one: impl Future<Output = A>,
    other: impl Future<Output = B>,
) -> (A, B) {
    let (mut one, mut other) = (pin!(one), pin!(other));
    let (mut first, mut second) = (None, None);
    let bias = dice.below(101);
    poll_fn(move |context| {
        if first.is_none() && (second.is_some() || dice.chance(bias)) {
            if let Poll::Ready(done) = one.as_mut().poll(context) {
                first = Some(done);
            }
        } else if second.is_none()
            && let Poll::Ready(done) = other.as_mut().poll(context)
        {
            second = Some(done);
        }
        match (first.take(), second.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (first, second) = (a, b);
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

async fn is_whole(estate: &Estate, backup: &BackupRef) -> bool {
    match read_manifest(&estate.vault, backup).await {
        Ok(manifest) => missing_objects(&estate.vault, &manifest).await.expect("asked").is_empty(),
        Err(_) => false,
    }
}

/// A backup of `status` whose proposal is ripe, or is made just now, and another that stays.
async fn proposed(estate: &Estate, status: &str, ripe: bool) -> BackupRef {
    let old = estate.backup(status).await;
    estate.pass(HOUR).await;
    estate.backup("complete").await;
    if ripe {
        estate.retain(&keep_one()).await.expect("a pass");
        estate.pass(DAY).await;
    }
    old
}

/// Checks one outcome of the race; tells whether the backup was kept.
async fn judge(estate: &Estate, old: &BackupRef, kept: &Result<()>, pass: Result<Report>, say: &str) -> bool {
    match kept {
        Ok(()) => {
            assert!(is_whole(estate, old).await, "{say}: kept, and deleted: {:?}", estate.keys("").await);
            estate.pass(30 * DAY).await;
            estate.retain(&keep_one()).await.unwrap_or_else(|error| panic!("{say}: {error}"));
            assert!(is_whole(estate, old).await, "{say}: kept, and deleted later");
            true
        }
        Err(error) => {
            let told = matches!(error.kind(), Kind::Conflict | Kind::NotFound);
            assert!(told, "{say}: refused with {error:?}");
            pass.unwrap_or_else(|error| panic!("{say}: the deleter failed: {error:?}"));
            assert!(!is_whole(estate, old).await, "{say}: refused, and it stays");
            assert!(estate.keys("holds/").await.is_empty(), "{say}: a hold is left behind");
            false
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_and_a_deletion_never_both_succeed() {
    let mut kept = 0;
    for seed in 0..SEEDS {
        let mut dice = Dice(seed);
        let estate = Estate::new();
        let old = proposed(&estate, "complete", dice.chance(80)).await;
        let (holder, _) = estate.through(Arc::new(Turns));
        let (deleter, _) = estate.through(Arc::new(Turns));
        let taking = async { hold(&holder, &old, "run-a", "anna", "audit", None).await.map(drop) };
        let policy = keep_one();
        let deleting = estate.retain_as(&deleter, &Leads, &policy);
        let (held, pass) = interleave(&mut dice, taking, deleting).await;
        kept += u64::from(judge(&estate, &old, &held, pass, &format!("seed {seed}")).await);
    }
    println!("of {SEEDS} races the holder won {kept}");
    assert!(kept > SEEDS / 10 && kept < SEEDS * 9 / 10, "the dice are loaded: {kept} of {SEEDS}");
}

#[tokio::test(start_paused = true)]
async fn a_word_of_acceptance_and_a_deletion_never_both_succeed() {
    let mut kept = 0;
    for seed in 0..SEEDS / 3 {
        let say = format!("seed {seed}");
        let mut dice = Dice(seed);
        let estate = Estate::new();
        let old = proposed(&estate, "suspect", true).await;
        let (operator, _) = estate.through(Arc::new(Turns));
        let (deleter, _) = estate.through(Arc::new(Turns));
        let policy = keep_one();
        let deleting = estate.retain_as(&deleter, &Leads, &policy);
        let (accepted, pass) = interleave(&mut dice, accept(&operator, &old, "anna"), deleting).await;
        match accepted {
            Ok(()) => {
                assert!(is_whole(&estate, &old).await, "{say}: accepted, and deleted");
                kept += 1;
            }
            Err(error) => {
                assert!(matches!(error.kind(), Kind::Conflict | Kind::NotFound), "{say}: {error:?}");
                pass.unwrap_or_else(|error| panic!("{say}: the deleter failed: {error:?}"));
                assert!(!is_whole(&estate, &old).await, "{say}: refused, and it stays");
            }
        }
    }
    assert!(kept > SEEDS / 30 && kept < SEEDS * 9 / 30, "the dice are loaded: {kept}");
}

#[tokio::test(start_paused = true)]
async fn two_deleters_of_one_mind_do_it_once_and_leave_nothing() {
    for seed in 0..SEEDS / 3 {
        let say = format!("seed {seed}");
        let mut dice = Dice(seed);
        let estate = Estate::new();
        let old = proposed(&estate, "complete", dice.chance(70)).await;
        let policy = keep_one();
        for _ in 0..3 {
            let (one, _) = estate.through(Arc::new(Turns));
            let (other, _) = estate.through(Arc::new(Turns));
            let first = estate.retain_as(&one, &Leads, &policy);
            let second = estate.retain_as(&other, &Leads, &policy);
            let (first, second) = interleave(&mut dice, first, second).await;
            for error in [first.err(), second.err()].into_iter().flatten() {
                let told = matches!(error.kind(), Kind::Conflict | Kind::NotFound);
                assert!(told, "{say}: {error:?}");
            }
            estate.pass(DAY).await;
        }
        estate.retain(&policy).await.unwrap_or_else(|error| panic!("{say}: {error}"));
        assert_eq!(
            estate.keys("").await.len(),
            2,
            "{say}: manifest and data of the other: {:?}",
            estate.traces(&old).await
        );
    }
}
