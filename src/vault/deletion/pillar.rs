//! What a deletion relies on is looked at again, in the vault itself, before the verdict.

use std::collections::BTreeSet;

use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::catalog::{missing_objects, read_manifest};
use crate::vault::fate::{self, Fate};
use crate::vault::layout::BackupRef;
use crate::vault::verify;

/// Checks that `pillar`, and every backup whose data it uses, is restorable and stays.
///
/// # Errors
/// `Refused` if nothing should be deleted by relying on it; those of the store.
pub(super) async fn check(vault: &Vault, pillar: &BackupRef) -> Result<()> {
    let mut seen = BTreeSet::new();
    let mut open = vec![pillar.clone()];
    while let Some(backup) = open.pop() {
        if !seen.insert(backup.clone()) {
            continue;
        }
        let manifest =
            read_manifest(vault, &backup).await.map_err(|error| error.while_doing(doing(pillar)))?;
        if let Some(flaw) = flaw(vault, &backup, &missing_objects(vault, &manifest).await?).await? {
            return Err(Error::new(Kind::Refused, doing(pillar), format!("{backup}: {flaw}")).hint(format!(
                "nothing of {} is deleted until it has a good backup again; \
                 `tidekeeper verify {backup}` records what is wrong with this one",
                backup.source
            )));
        }
        open.extend(manifest.requires);
    }
    Ok(())
}

fn doing(pillar: &BackupRef) -> String {
    format!("checking {pillar}, which stays when others go")
}

async fn flaw(vault: &Vault, backup: &BackupRef, missing: &[String]) -> Result<Option<String>> {
    if let Some(first) = missing.first() {
        return Ok(Some(first.clone()));
    }
    if let Err(error) = verify::ensure_not_damaged(vault, backup).await {
        return match error.kind() {
            Kind::Damaged => Ok(Some(error.why().to_owned())),
            _ => Err(error),
        };
    }
    Ok(match fate::conclude(&fate::proposals(vault, backup).await?) {
        Fate::Stays => None,
        Fate::Proposed { n, .. } => Some(format!("its own deletion is proposed (proposal {n})")),
        Fate::Deleting { .. } => Some("it is being deleted itself".to_owned()),
        Fate::Unclear(why) => Some(why),
    })
}
