//! Every store call of proposing, deciding and deleting fails once in every way, and the process dies before and after
//! every one of them. At no moment is there a backup that looks whole and is not, and the next process finishes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use tidekeeper::error::{Error, Kind, Result};
use tidekeeper::vault::catalog::{missing_objects, read_manifest};
use tidekeeper::vault::deletion::Fence;
use tidekeeper::vault::layout::{self, BackupRef, Marker};
use tidekeeper::vault::marks::Outcome;
use tidekeeper::vault::store::faults::{Before, Call, Hook};

use super::super::estate::{DAY, Estate, HOUR, Leads, keep_one};

/// What befalls one call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Blow {
    /// It fails without having acted, and can be tried again.
    Fails,
    /// It is refused.
    Denied,
    /// It acts, and the reply is lost.
    LosesReply,
    /// The process dies before it acts.
    DiesBefore,
    /// The process dies after it acted.
    DiesAfter,
}

pub const BLOWS: [Blow; 5] = [Blow::Fails, Blow::Denied, Blow::LosesReply, Blow::DiesBefore, Blow::DiesAfter];

/// Strikes the n-th call of a process, counted over all methods. A dead process' calls all fail.
#[derive(Debug)]
pub struct Strike {
    at: u64,
    blow: Blow,
    calls: AtomicU64,
    struck: Mutex<Option<Call>>,
}

impl Strike {
    pub fn new(at: u64, blow: Blow) -> Arc<Self> {
        Arc::new(Strike { at, blow, calls: AtomicU64::new(0), struck: Mutex::default() })
    }

    /// Whether the process made as many calls as that.
    pub fn has_struck(&self) -> bool {
        self.calls.load(Ordering::SeqCst) >= self.at
    }
}

#[async_trait]
impl Hook for Strike {
    async fn before(&self, call: &Call) -> Before {
        let n = 1 + self.calls.fetch_add(1, Ordering::SeqCst);
        if n == self.at {
            *self.struck.lock().expect("no panics") = Some(call.clone());
        }
        let dead = matches!(self.blow, Blow::DiesBefore | Blow::DiesAfter);
        match self.blow {
            Blow::Fails if n == self.at => Before::Fail(Kind::Unreachable),
            Blow::Denied if n == self.at => Before::Fail(Kind::Denied),
            Blow::DiesBefore if n == self.at => Before::Fail(Kind::Internal),
            _ if dead && n > self.at => Before::Fail(Kind::Internal),
            _ => Before::Pass,
        }
    }

    async fn after(&self, call: &Call, _: bool) -> Option<Kind> {
        let is_struck = self.struck.lock().expect("no panics").as_ref() == Some(call);
        match self.blow {
            Blow::LosesReply if is_struck => Some(Kind::Undecided),
            Blow::DiesAfter if is_struck => Some(Kind::Internal),
            _ => None,
        }
    }
}

/// A backup that goes (with everything that can be said of it), and one that stays.
async fn scene(estate: &Estate) -> (BackupRef, BackupRef) {
    let old = estate.backup("complete").await;
    estate.prove(&old, Outcome::Verified).await;
    estate.put(&layout::artifact(&old, "attempt1", "part.zst"), "lost").await;
    let hold = r#"{"nonce": "n", "by": "anna", "reason": "", "at": "2026-11-01T00:00:00Z",
                   "until": "2026-11-01T00:30:00Z", "of_run": false}"#;
    estate.put(&layout::marker(Marker::Hold, &old, "run-0"), hold).await;
    estate.put(&layout::accepted(&old), "{}").await;
    estate.pass(HOUR).await;
    let new = estate.backup("complete").await;
    estate.prove(&new, Outcome::Verified).await;
    (old, new)
}

/// Whatever is listed and not known to be going has all its objects.
async fn assert_nothing_is_half_there(estate: &Estate, say: &str) {
    for row in estate.catalog().list(None).await.expect("a listing").rows {
        if row.marks.fate.is_sealed() {
            continue;
        }
        let manifest = read_manifest(&estate.vault, &row.backup).await.expect("read");
        let missing = missing_objects(&estate.vault, &manifest).await.expect("asked");
        assert!(missing.is_empty(), "{say}: {missing:?}");
    }
}

/// Data, proofs and the like without manifest are under a verdict that says what to do with them.
async fn assert_leftovers_have_a_verdict(estate: &Estate, backup: &BackupRef, say: &str) {
    let traces: BTreeSet<String> = estate.traces(backup).await.into_iter().collect();
    if traces.is_empty() || traces.contains(layout::manifest(backup).as_str()) {
        return;
    }
    assert!(traces.contains(layout::verdict(backup, 1).as_str()), "{say}: {traces:?}");
}

/// Two passes by a process that is struck, then as many by one that is not. Tells whether the blow fell.
async fn survive(at: u64, blow: Blow) -> bool {
    let say = format!("call {at}, {blow:?}");
    let estate = Estate::new();
    let (old, new) = scene(&estate).await;
    let strike = Strike::new(at, blow);
    let (vault, faults) = estate.through(strike.clone());
    for _ in 0..2 {
        let _ = estate.retain_as(&vault, &Leads, &keep_one()).await;
        assert_nothing_is_half_there(&estate, &say).await;
        assert_leftovers_have_a_verdict(&estate, &old, &say).await;
        estate.pass(DAY).await;
    }
    let say = format!("{say}: {:?}", faults.calls().get(at as usize - 1));
    for _ in 0..2 {
        estate.retain(&keep_one()).await.unwrap_or_else(|error| panic!("{say}: {error:?}"));
        assert_nothing_is_half_there(&estate, &say).await;
        estate.pass(DAY).await;
    }
    assert!(estate.traces(&old).await.is_empty(), "{say}: {:?}", estate.traces(&old).await);
    assert_eq!(estate.traces(&new).await.len(), 3, "{say}: manifest, data, proof");
    strike.has_struck()
}

#[tokio::test(start_paused = true)]
async fn a_blow_to_any_call_loses_nothing_and_leaves_nothing() {
    for blow in BLOWS {
        let mut at = 1;
        while survive(at, blow).await {
            at += 1;
        }
        assert!(at > 40, "{blow:?} fell on {at} calls only: the passes have more");
    }
}

/// Leads for so many looks.
struct LeadsFor(AtomicU64);

#[async_trait]
impl Fence for LeadsFor {
    fn generation(&self) -> Option<u64> {
        Some(1)
    }

    async fn still_leading(&self) -> Result<()> {
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        left.map(|_| ()).map_err(|_| Error::new(Kind::Conflict, "leading", "another generation leads"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_leader_deposed_at_any_step_leaves_what_the_next_one_finishes() {
    for looks in 0.. {
        let estate = Estate::new();
        let (old, new) = scene(&estate).await;
        let fence = LeadsFor(AtomicU64::new(looks));
        let mut lasted = true;
        for _ in 0..2 {
            lasted &= estate.retain_as(&estate.vault, &fence, &keep_one()).await.is_ok();
            assert_nothing_is_half_there(&estate, &format!("deposed after {looks} looks")).await;
            estate.pass(DAY).await;
        }
        for _ in 0..2 {
            estate.retain(&keep_one()).await.expect("the next leader's pass");
            estate.pass(DAY).await;
        }
        assert!(estate.traces(&old).await.is_empty());
        assert_eq!(estate.traces(&new).await.len(), 3);
        if lasted {
            assert!(looks > 6, "the fence was asked {looks} times only");
            return;
        }
    }
}
