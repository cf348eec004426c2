//! Finds what does not belong or is not as it should be, says what repairing it would do, and does that on request.
//!
//! A repair never guesses. Data without a manifest goes only after the manifest was created as `abandoned`, by the
//! conditional create that a commit uses too: a writer that lives after all has then lost its backup, never half of
//! it. And nothing is touched while its writer lives, or while nobody can tell.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;

use super::Vault;
use super::catalog::Catalog;
use super::layout::BackupRef;
use crate::error::Result;

mod find;
mod repair;
mod timelines;

pub use self::repair::{Repair, Repaired};

/// Whether somebody may still be writing a backup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// Its run is under way, as far as anybody knows.
    Alive,
    /// Its run has ended, its process is provably gone, or its deadline and the margin have passed: which of these.
    Dead(String),
    /// No run says so.
    Unknown,
}

/// Who writes: the runs know.
#[async_trait]
pub trait Writers: Send + Sync {
    /// Whether somebody may still be writing `backup`, asked anew before every repair.
    async fn liveness(&self, backup: &BackupRef) -> Result<Liveness>;
}

/// Looks through a vault.
#[derive(Clone, Copy)]
pub struct Scrub<'a> {
    /// Which.
    pub vault: &'a Vault,
    /// How it is listed.
    pub catalog: &'a Catalog,
    /// Who may be writing.
    pub writers: &'a dyn Writers,
    /// Whether to read every byte of every backup.
    pub deep: bool,
}

/// One line of a scrub's report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Line {
    /// What was found.
    #[serde(flatten)]
    pub finding: Finding,
    /// What `--repair` would do about it; none: nothing, see `advice`.
    pub repair: Option<String>,
    /// What a person should do about it.
    pub advice: Option<String>,
}

impl Line {
    /// A finding that a repair deals with.
    fn repairable(finding: Finding, repair: &str) -> Self {
        Line { finding, repair: Some(repair.to_owned()), advice: None }
    }

    /// A finding that needs a person.
    fn for_people(finding: Finding, advice: impl Into<String>) -> Self {
        Line { finding, repair: None, advice: Some(advice.into()) }
    }

    /// Whether bytes of a backup are missing or wrong: the exit code of the command tells.
    pub fn is_damage(&self) -> bool {
        use Finding::{BrokenTimeline, Damaged, DamagedSegment, FoundDamaged};
        use Finding::{Missing, UnreadableManifest, UnreadableTimeline};
        matches!(
            self.finding,
            UnreadableManifest { .. }
                | Missing { .. }
                | Damaged { .. }
                | FoundDamaged { .. }
                | UnreadableTimeline { .. }
                | BrokenTimeline { .. }
                | DamagedSegment { .. }
        )
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// Data without a manifest, and nobody who is known to be writing it.
    Uncommitted {
        /// Of which backup.
        backup: BackupRef,
        /// How many objects.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Data of a backup that was given up.
    AbandonedData {
        /// Of which backup.
        backup: BackupRef,
        /// How many objects.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// Data of an attempt that was not the one committed.
    LostAttempt {
        /// Of which backup.
        backup: BackupRef,
        /// The attempt's nonce.
        attempt: String,
        /// How many objects.
        objects: u64,
        /// Their bytes.
        bytes: u64,
    },
    /// An upload that was begun and not ended; it costs space that no listing shows.
    OpenUpload {
        /// The object it would have become.
        key: String,
        /// The store's name for it.
        upload: String,
        /// When it was begun.
        started: Timestamp,
    },
    /// A deletion that was decided and not carried out to its end.
    UnfinishedDeletion {
        /// Of which backup.
        backup: BackupRef,
        /// By which proposal.
        n: u32,
    },
    /// Proofs, holds or tombstones of a backup that does not exist.
    StrayMarks {
        /// Of which backup.
        backup: BackupRef,
    },
    /// A manifest that cannot be read.
    UnreadableManifest {
        /// Of which backup.
        backup: BackupRef,
        /// Why.
        why: String,
    },
    /// A proof, hold or verdict that cannot be read.
    UnreadableMark {
        /// Of which backup.
        backup: BackupRef,
        /// Why.
        why: String,
    },
    /// An object that a manifest names is not there, or not with its size.
    Missing {
        /// Of which backup.
        backup: BackupRef,
        /// Which, and what is wrong with it.
        what: String,
    },
    /// Bytes that are not what the manifest says.
    Damaged {
        /// Of which backup.
        backup: BackupRef,
        /// Which artifact.
        artifact: String,
        /// What is wrong.
        why: String,
    },
    /// Its newest proof says that it is damaged; this scrub has not looked itself.
    FoundDamaged {
        /// Which.
        backup: BackupRef,
        /// Who found it, and when.
        why: String,
    },
    /// A backup whose bytes could not be looked at.
    Unchecked {
        /// Which.
        backup: BackupRef,
        /// Why not.
        why: String,
    },
    /// An object that nobody here understands.
    StrangeKey {
        /// Which.
        key: String,
    },
    /// A timeline of which nobody can tell how it began, or whether it ended.
    UnreadableTimeline {
        /// Where it lies.
        key: String,
        /// Why.
        why: String,
    },
    /// Segments are missing in the middle of a timeline.
    BrokenTimeline {
        /// Where it lies.
        key: String,
        /// After which position, and before which.
        why: String,
    },
    /// A segment whose bytes are not what its name says.
    DamagedSegment {
        /// Which.
        key: String,
        /// What is wrong.
        why: String,
    },
}
