//! Repairs what a scrub found. Every finding is looked at again first: it may be hours old.

use serde::Serialize;

use super::{Finding, Line, Liveness, Scrub};
use crate::error::{Error, Kind, Result};
use crate::vault::abandon::abandon;
use crate::vault::catalog::{Listing, named_objects, read_manifest};
use crate::vault::decide::Decision;
use crate::vault::deletion::Deleter;
use crate::vault::fate::{self, Fate};
use crate::vault::layout::{self, BackupRef, Marker};
use crate::vault::manifest::Status;
use crate::vault::store::Key;
use crate::vault::store_clock::Trust;

/// What became of one finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repair {
    /// Which.
    #[serde(flatten)]
    pub finding: Finding,
    /// What was done.
    pub repaired: Repaired,
}

/// What a repair did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Repaired {
    /// It is repaired.
    Done,
    /// It is not as it was found, or needs a person: nothing was touched.
    Left(String),
    /// It failed, perhaps in the middle; repairing again goes on from there.
    Failed(String),
}

impl Scrub<'_> {
    /// Repairs what of `lines` can be repaired, one after the other, as `deleter` may.
    ///
    /// # Errors
    /// `Clock` while time cannot be trusted, the fence's error if this process does not lead (any more), and those of
    /// the first listing. What fails on one finding is in its line.
    pub async fn repair(&self, lines: &[Line], deleter: &Deleter<'_>) -> Result<Vec<Repair>> {
        let listing = self.catalog.list(None).await?;
        let clock = deleter.clock.read(&*self.vault.store, listing.newest_object).await?;
        if let Trust::No(why) = clock.trust {
            return Err(Error::new(Kind::Clock, "repairing the vault", why));
        }
        let mut repairs = Vec::new();
        for line in lines.iter().filter(|line| line.repair.is_some()) {
            deleter.fence.still_leading().await?;
            let repaired = match self.repair_one(&line.finding, &listing, deleter).await {
                Ok(repaired) => repaired,
                Err(error) => Repaired::Failed(error.to_string()),
            };
            repairs.push(Repair { finding: line.finding.clone(), repaired });
        }
        Ok(repairs)
    }

    async fn repair_one(
        &self,
        finding: &Finding,
        listing: &Listing,
        deleter: &Deleter<'_>,
    ) -> Result<Repaired> {
        match finding {
            Finding::Uncommitted { backup, .. } => self.give_up(backup, listing, deleter).await,
            Finding::AbandonedData { backup, .. } => self.clear_abandoned(backup, deleter).await,
            Finding::LostAttempt { backup, attempt, .. } => {
                self.clear_attempt(backup, attempt, deleter).await
            }
            Finding::OpenUpload { key, upload, .. } => self.end_upload(key, upload).await,
            Finding::UnfinishedDeletion { backup, .. } => finish(deleter, backup).await,
            Finding::StrayMarks { backup } => self.clear_marks(backup, deleter).await,
            _ => left("it needs a person"),
        }
    }

    /// Data without a manifest: first decide that there will be none, then delete.
    async fn give_up(
        &self,
        backup: &BackupRef,
        listing: &Listing,
        deleter: &Deleter<'_>,
    ) -> Result<Repaired> {
        let why = match self.writers.liveness(backup).await? {
            Liveness::Dead(why) => why,
            _ => return left("its writer may be alive"),
        };
        if let Fate::Deleting { .. } = fate::conclude(&fate::proposals(self.vault, backup).await?) {
            return finish(deleter, backup).await;
        }
        let kind = listing.of(&backup.source).find_map(|row| row.manifest.as_ref().ok());
        let kind = kind.map_or("unknown", |summary| &*summary.kind);
        let why = format!("found by scrub without a manifest: {why}");
        match abandon(self.vault, backup, kind, None, &why, deleter.fence.generation()).await? {
            Decision::Theirs(manifest) if manifest.status != Status::Abandoned => {
                left(format!("it was committed meanwhile as {:?}", manifest.status.as_str()))
            }
            Decision::Ours | Decision::Theirs(_) => {
                deleter.clear_data(backup).await?;
                Ok(Repaired::Done)
            }
        }
    }

    async fn clear_abandoned(&self, backup: &BackupRef, deleter: &Deleter<'_>) -> Result<Repaired> {
        if !self.is_dead(backup).await? {
            return left("its writer may be alive");
        }
        if read_manifest(self.vault, backup).await?.status != Status::Abandoned {
            return left("it is not abandoned");
        }
        deleter.clear_data(backup).await?;
        Ok(Repaired::Done)
    }

    async fn clear_attempt(
        &self,
        backup: &BackupRef,
        attempt: &str,
        deleter: &Deleter<'_>,
    ) -> Result<Repaired> {
        if !self.is_dead(backup).await? {
            return left("its writer may be alive");
        }
        let prefix = format!("{}{attempt}/", layout::data_of(backup));
        let manifest = read_manifest(self.vault, backup).await?;
        let named = named_objects(self.vault, &manifest).await?;
        if named.iter().any(|artifact| artifact.key.starts_with(&prefix)) {
            return left("the manifest names it");
        }
        deleter.clear(&prefix, None).await?;
        Ok(Repaired::Done)
    }

    async fn end_upload(&self, key: &str, upload: &str) -> Result<Repaired> {
        let key = Key::new(key);
        match layout::backup_of_data(&key) {
            Some(backup) if self.is_dead(&backup).await? => {}
            // It was found because it is too old for anybody to be at it.
            None if layout::is_passing(&key) => {}
            _ => return left("its writer may be alive"),
        }
        let open = self.vault.store.open_uploads(key.as_str()).await?;
        match open.iter().find(|open| open.id == upload && open.key == key) {
            Some(open) => self.vault.store.abort_upload(open).await?,
            None => return left("it has ended meanwhile"),
        }
        Ok(Repaired::Done)
    }

    async fn clear_marks(&self, backup: &BackupRef, deleter: &Deleter<'_>) -> Result<Repaired> {
        if self.writers.liveness(backup).await? == Liveness::Alive {
            return left("its writer is alive");
        }
        if self.vault.store.stat(&layout::manifest(backup)).await?.is_some() {
            return left("the backup exists");
        }
        if let Fate::Deleting { .. } = fate::conclude(&fate::proposals(self.vault, backup).await?) {
            return finish(deleter, backup).await;
        }
        for room in [Marker::Proof, Marker::Hold, Marker::Tombstone] {
            deleter.clear(&layout::markers_of(room, backup), None).await?;
        }
        self.vault.store.delete(&layout::accepted(backup)).await?;
        Ok(Repaired::Done)
    }

    async fn is_dead(&self, backup: &BackupRef) -> Result<bool> {
        Ok(matches!(self.writers.liveness(backup).await?, Liveness::Dead(_)))
    }
}

async fn finish(deleter: &Deleter<'_>, backup: &BackupRef) -> Result<Repaired> {
    match fate::conclude(&fate::proposals(deleter.vault, backup).await?) {
        Fate::Deleting { n } => {
            deleter.erase(backup, n).await?;
            Ok(Repaired::Done)
        }
        _ => left("it has ended meanwhile"),
    }
}

fn left(why: impl Into<String>) -> Result<Repaired> {
    Ok(Repaired::Left(why.into()))
}
