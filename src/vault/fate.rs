//! Whether a backup stays: its tombstones and their verdicts, and how to object to them.
//!
//! The verdict's key decides. A deleter may take a backup only with the verdict `delete`, and whoever needs the backup
//! closes every open proposal with `keep` first. Both use the same conditional create, so exactly one of them wins.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::Vault;
use super::decide::{Decision, decide, read_json};
use super::layout::{self, BackupRef, Marker};
use super::marks::{Decree, Verdict};
use super::store::{Entry, list_all};
use crate::error::{Error, Kind, Result};

/// What is decided about a backup's deletion so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fate {
    /// Nobody proposes to delete it.
    #[default]
    Stays,
    /// Proposal `n` waits for its verdict since `since`, by the store's clock.
    Proposed {
        /// The proposal's number.
        n: u32,
        /// The tombstone's age.
        since: Timestamp,
    },
    /// It is being deleted: as good as gone.
    Deleting {
        /// The proposal whose verdict says so.
        n: u32,
    },
    /// A verdict cannot be read: neither used as a good backup, nor deleted.
    Unclear(String),
}

impl Fate {
    /// Whether it is being deleted, or may be.
    pub fn is_sealed(&self) -> bool {
        matches!(self, Fate::Deleting { .. } | Fate::Unclear(_))
    }
}

/// A proposal to delete a backup, as far as it can be seen.
#[derive(Clone, Debug, Default)]
pub struct Proposal {
    /// When the tombstone was created, by the store's clock; none: only the verdict is left of it.
    pub since: Option<Timestamp>,
    /// The decision, or why it cannot be read; none: there is none yet.
    pub verdict: Option<std::result::Result<Decree, String>>,
}

/// The proposals about one backup by their numbers.
pub type Proposals = BTreeMap<u32, Proposal>;

/// Draws the conclusion: one `delete` outweighs everything, then what cannot be read, then an open proposal.
pub fn conclude(proposals: &Proposals) -> Fate {
    let mut fate = Fate::Stays;
    for (&n, proposal) in proposals {
        match (&proposal.verdict, proposal.since) {
            (Some(Ok(Decree::Delete)), _) => return Fate::Deleting { n },
            (Some(Err(why)), _) => fate = Fate::Unclear(why.clone()),
            (None, Some(since)) if !fate.is_sealed() => fate = Fate::Proposed { n, since },
            _ => {}
        }
    }
    fate
}

/// The number for the next proposal.
pub fn next_number(proposals: &Proposals) -> u32 {
    proposals.last_key_value().map_or(1, |(n, _)| n + 1)
}

/// Notes in `proposals` what the object `entry` named `name` says; `verdict` is its content if it is a verdict.
/// Tells whether the name is one of ours.
pub fn note(
    proposals: &mut Proposals,
    entry: &Entry,
    name: &str,
    verdict: Option<Result<Option<Decree>>>,
) -> bool {
    let Some((n, _)) = layout::proposal_of(name) else { return false };
    let proposal = proposals.entry(n).or_default();
    match verdict {
        None => proposal.since = Some(entry.modified),
        Some(Ok(Some(decree))) => proposal.verdict = Some(Ok(decree)),
        // Only the end of a deletion removes a verdict, and it does so last of all.
        Some(Ok(None)) => proposal.verdict = Some(Ok(Decree::Delete)),
        Some(Err(error)) => proposal.verdict = Some(Err(error.to_string())),
    }
    true
}

/// Reads the proposals about `backup`, fresh from the store.
pub async fn proposals(vault: &Vault, backup: &BackupRef) -> Result<Proposals> {
    let mut proposals = Proposals::new();
    for entry in list_all(&*vault.store, &layout::markers_of(Marker::Tombstone, backup)).await? {
        let Some((_, name)) = layout::backup_of_marker(Marker::Tombstone, &entry.key) else { continue };
        let verdict = match layout::proposal_of(name) {
            Some((_, true)) => Some(read_json::<Verdict>(&*vault.store, &entry.key).await),
            _ => None,
        };
        let decree = verdict.map(|read| read.map(|found| found.map(|verdict| verdict.decree)));
        note(&mut proposals, &entry, name, decree);
    }
    Ok(proposals)
}

/// Objects to every open proposal to delete `backup`, because of `why`. Call it *after* the reason is durable in the
/// vault (a hold, an acceptance): then a deleter either sees that reason, or meets this objection.
///
/// Why no interleaving deletes a backup whose holder got `Ok` here. Let H be the write of the hold, L this listing of
/// tombstones, T the write of a tombstone, S its deleter's last look at the holds, V its verdict. A holder does H < L;
/// a deleter does T < S < V, with T in the vault before S begins.
/// - T < L: the holder sees T and decides its verdict `keep` (or finds `delete`, and does not get `Ok`). V loses.
/// - L < T: then H < L < T < S, so the deleter's last look sees the hold, and it does not decide `delete`.
/// - All of it is over already: the tombstone is gone before L, but a deletion removes the manifest first and its
///   verdict last, so the look for the manifest at the end finds none, and the holder does not get `Ok`.
///
/// # Errors
/// `Conflict` if it is being deleted, `NotFound` if there is no such backup (any more).
pub async fn object(vault: &Vault, backup: &BackupRef, why: &str) -> Result<()> {
    let proposals = proposals(vault, backup).await?;
    for (&n, proposal) in &proposals {
        match &proposal.verdict {
            Some(Ok(Decree::Keep)) => {}
            Some(Ok(Decree::Delete)) => return Err(too_late(backup)),
            Some(Err(unreadable)) => {
                return Err(Error::new(Kind::Damaged, format!("keeping {backup}"), unreadable)
                    .hint("whether it is being deleted cannot be told; `tidekeeper scrub` tells more"));
            }
            None => keep(vault, backup, n, why).await?,
        }
    }
    match vault.store.stat(&layout::manifest(backup)).await? {
        Some(_) => Ok(()),
        None => Err(Error::new(Kind::NotFound, format!("keeping {backup}"), "there is no such backup")
            .hint("`tidekeeper backups` lists what there is")),
    }
}

async fn keep(vault: &Vault, backup: &BackupRef, n: u32, why: &str) -> Result<()> {
    let verdict = Verdict::new(Decree::Keep, why, vault.store.now().await?);
    let key = layout::verdict(backup, n);
    match decide(&*vault.store, &*vault.clock, &key, &verdict).await? {
        Decision::Theirs(Verdict { decree: Decree::Delete, .. }) => Err(too_late(backup)),
        Decision::Ours | Decision::Theirs(_) => Ok(()),
    }
}

fn too_late(backup: &BackupRef) -> Error {
    Error::new(Kind::Conflict, format!("keeping {backup}"), "retention decided to delete it, and is doing so")
        .hint("choose another backup: `tidekeeper backups` lists what stays")
}
