//! From the catalog's rows to what retention must know of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::{Proof, Row, Worth};
use crate::config::SourceName;
use crate::vault::catalog::{self, Listing};
use crate::vault::fate::Fate;
use crate::vault::layout::{BackupId, BackupRef};
use crate::vault::manifest::Status;
use crate::vault::marks::Outcome;
use crate::vault::timeline::chain::Base;

/// The rows of `source` at `now`. `listing` is of *all* sources: backups of others may use its data. `promised` are the bases
/// of its timelines' windows. A backup that is being deleted is gone already.
pub fn rows(
    listing: &Listing,
    source: &SourceName,
    now: Timestamp,
    promised: &BTreeSet<BackupId>,
) -> Vec<Row> {
    let users = users_elsewhere(listing, source);
    let row = |found: &catalog::Row| Row {
        promised: promised.contains(&found.backup.id),
        ..row(found, users.get(&found.backup.id).copied(), now)
    };
    listing.of(source).filter(stays).map(row).collect()
}

fn stays(row: &&catalog::Row) -> bool {
    !matches!(row.marks.fate, Fate::Deleting { .. })
}

/// The backups of `source` from which a log goes on, with the moments that they are of.
pub fn bases(listing: &Listing, source: &SourceName) -> Vec<(Base, Timestamp)> {
    let base = |row: &catalog::Row| {
        // One that does not say is of no moment later than its end.
        let at = row.manifest.as_ref().ok()?.at.unwrap_or(row.stored_at);
        Some((Base::of(row)?, at))
    };
    listing.of(source).filter(stays).filter_map(base).collect()
}

fn row(found: &catalog::Row, used_by: Option<&BackupRef>, now: Timestamp) -> Row {
    let own = requires(found).iter().filter(|required| required.source == found.backup.source);
    Row {
        id: found.backup.id.clone(),
        stored_at: found.stored_at,
        worth: worth(found),
        proven: found.marks.proven().map(|proof| match proof.outcome {
            Outcome::Restored => Proof::Restored,
            _ => Proof::Verified,
        }),
        held: found.marks.held(now).map(|hold| format!("held by {}: {}", hold.by, hold.reason)),
        requires: own.map(|required| required.id.clone()).collect(),
        used_by: used_by.cloned(),
        promised: false,
        unreadable: found.problem().map(str::to_owned),
    }
}

fn requires(row: &catalog::Row) -> &[BackupRef] {
    row.manifest.as_ref().map(|summary| &*summary.requires).unwrap_or_default()
}

/// Which backups of `source` are used by backups of other sources, and by which.
fn users_elsewhere<'a>(listing: &'a Listing, source: &SourceName) -> BTreeMap<&'a BackupId, &'a BackupRef> {
    let others = listing.rows.iter().filter(|row| row.backup.source != *source);
    others
        .flat_map(|row| requires(row).iter().map(move |used| (used, &row.backup)))
        .filter(|(used, _)| used.source == *source)
        .map(|(used, user)| (&used.id, user))
        .collect()
}

fn worth(found: &catalog::Row) -> Worth {
    let summary = match &found.manifest {
        Ok(summary) => summary,
        Err(why) => return Worth::Unknown(why.clone()),
    };
    match &summary.status {
        Status::Unknown(status) => Worth::Unknown(format!("status {status:?}")),
        Status::Abandoned => Worth::Abandoned,
        _ if found.marks.is_damaged() => Worth::Damaged,
        Status::Suspect if !found.marks.accepted => Worth::Suspect,
        Status::Complete | Status::Suspect => Worth::Good,
        Status::Partial => Worth::Partial,
    }
}
