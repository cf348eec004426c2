//! Carries out the verdict `delete`: idempotent, and in an order that a crash cannot spoil.

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Deleter, Report};
use crate::config::SourceName;
use crate::error::{Kind, Result};
use crate::vault::catalog::{Listing, read_manifest};
use crate::vault::fate::Fate;
use crate::vault::layout::{self, BackupRef, Marker};
use crate::vault::store::{Key, Store};

/// How many objects are deleted at the same time.
const IN_FLIGHT: usize = 16;

impl Deleter<'_> {
    /// Finishes every deletion of `source` that was decided and not carried out to its end.
    pub(super) async fn finish_decided(
        &self,
        listing: &Listing,
        source: &SourceName,
        report: &mut Report,
    ) -> Result<()> {
        let rows = listing.of(source).map(|row| (&row.backup, &row.marks.fate));
        let strays = listing.strays.iter().map(|(backup, marks)| (backup, &marks.fate));
        let decided = rows.chain(strays.filter(|(backup, _)| backup.source == *source));
        for (backup, fate) in decided {
            if let Fate::Deleting { n } = *fate {
                self.erase(backup, n).await?;
                report.deleted.push(backup.clone());
            }
        }
        Ok(())
    }

    /// Deletes everything of `backup`, whose proposal `n` was decided `delete`. The manifest goes before the data, and
    /// the verdict last: whatever is left after a crash is under a verdict that says what to do with it.
    pub(in crate::vault) async fn erase(&self, backup: &BackupRef, n: u32) -> Result<()> {
        let store = &*self.vault.store;
        self.fence.still_leading().await?;
        match read_manifest(self.vault, backup).await {
            Ok(manifest) => {
                // The manifest is what names them, so they go while it is there.
                self.natives.delete(&manifest).await?;
                store.delete(&layout::manifest(backup)).await?;
            }
            Err(error) if error.kind() == Kind::NotFound => {}
            Err(error) => return Err(error),
        }
        self.clear_data(backup).await?;
        for room in [Marker::Proof, Marker::Hold] {
            self.clear(&layout::markers_of(room, backup), None).await?;
        }
        store.delete(&layout::accepted(backup)).await?;
        let verdict = layout::verdict(backup, n);
        self.clear(&layout::markers_of(Marker::Tombstone, backup), Some(&verdict)).await?;
        store.delete(&verdict).await
    }

    /// Deletes the data of `backup`, uploads that were begun first. Only ever called when its manifest said `abandoned`,
    /// or is gone by a verdict.
    pub(in crate::vault) async fn clear_data(&self, backup: &BackupRef) -> Result<()> {
        let data = layout::data_of(backup);
        for upload in self.vault.store.open_uploads(&data).await? {
            self.fence.still_leading().await?;
            self.vault.store.abort_upload(&upload).await?;
        }
        self.clear(&data, None).await
    }

    /// Deletes everything under `prefix` but `spare`, page by page.
    pub(in crate::vault) async fn clear(&self, prefix: &str, spare: Option<&Key>) -> Result<()> {
        let store: &dyn Store = &*self.vault.store;
        let mut after: Option<Key> = None;
        loop {
            let page = store.list(prefix, after.as_ref()).await?;
            let Some(last) = page.entries.last() else { return Ok(()) };
            after = Some(last.key.clone());
            self.fence.still_leading().await?;
            let keys = page.entries.into_iter().map(|entry| entry.key).filter(|key| Some(key) != spare);
            let keys: Vec<Key> = keys.collect();
            let deletions = stream::iter(keys).map(|key| async move { store.delete(&key).await });
            deletions.buffer_unordered(IN_FLIGHT).try_collect::<()>().await?;
            if !page.more {
                return Ok(());
            }
        }
    }
}
