//! What is said of a backup after it was made: proofs, holds, acceptance, and its proposed deletion.
//!
//! Each is a small JSON object of its own, written once. Times are the store's: whoever reads them may live in another
//! process with another clock.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decide::Deciding;
use super::layout::{self, BackupId};

/// `proofs/<source>/<id>/<run>.json`: somebody looked, and this is what was found.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Proof {
    /// By which its writer knows it again.
    pub nonce: String,
    /// What was found.
    pub outcome: Outcome,
    /// When the looking ended.
    pub at: Timestamp,
    /// The run that looked.
    pub run: String,
    /// By which checks.
    pub checks: Vec<Checked>,
    /// How long it took, in seconds.
    pub took_s: f64,
}

/// What a proof says; the later, the stronger, but for `damaged`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Bytes are missing or not what the manifest says: never restored while this is the newest proof.
    Damaged,
    /// Every byte was read and agrees with the manifest.
    Verified,
    /// It was restored, and what came back was compared.
    Restored,
}

/// One comparison that a proof rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// What was compared.
    pub name: String,
    /// What should be.
    pub expected: String,
    /// What is.
    pub found: String,
    /// Whether that is good.
    pub passed: bool,
}

/// `holds/<source>/<id>/<name>.json`: not to be deleted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// By which its writer knows it again.
    pub nonce: String,
    /// An operator's name, or the run.
    pub by: String,
    /// For people: what it is needed for.
    pub reason: String,
    /// When it was taken.
    pub at: Timestamp,
    /// When it ends by itself; none: when somebody ends it.
    pub until: Option<Timestamp>,
    /// Whether a run holds it: then only that run, or time, ends it.
    pub of_run: bool,
}

impl Hold {
    /// Whether it still holds.
    pub fn is_active(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| now < until)
    }
}

/// `accepted/<source>/<id>.json`: this suspect backup is good, and what later ones are measured by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// By which its writer knows it again.
    pub nonce: String,
    /// Who says so.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// `tombstones/<source>/<id>/<n>.json`: it is proposed to delete this backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// By which its proposer knows it again.
    pub nonce: String,
    /// When, as recorded; grace counts from the object's own age in the store.
    pub at: Timestamp,
    /// Why it may go, in words.
    pub reasons: Vec<String>,
    /// The backups that make its going harmless.
    pub relies_on: Vec<BackupId>,
    /// The generation of the leader that proposed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
}

/// `tombstones/<source>/<id>/<n>.verdict.json`: what was decided about proposal n, once and for all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// By which its writer knows it again.
    pub nonce: String,
    /// The decision.
    pub decree: Decree,
    /// Why.
    pub why: String,
    /// When.
    pub at: Timestamp,
}

impl Verdict {
    /// A new verdict, as of `at` by the store's clock.
    pub fn new(decree: Decree, why: impl Into<String>, at: Timestamp) -> Self {
        Verdict { nonce: layout::nonce(), decree, why: why.into(), at }
    }
}

/// What a verdict says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decree {
    /// It goes. From here on nobody may start to use it.
    Delete,
    /// This proposal is off; another may follow.
    Keep,
}

macro_rules! deciding {
    ($($shape:ty),*) => {
        $(impl Deciding for $shape {
            fn nonce(&self) -> &str {
                &self.nonce
            }
        })*
    };
}

deciding!(Proof, Hold, Accepted, Tombstone, Verdict);
