//! From what people type to a backup.

use super::{Catalog, Row};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::vault::layout::{self, BackupId, BackupRef};
use crate::vault::manifest::Status;
use crate::vault::store::list_all;
use crate::vault::suspect::{PREDECESSORS, Size};

/// The newest good one of a source's `rows`, which come newest first.
pub fn latest<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Option<&'a Row> {
    rows.into_iter().find(|row| row.is_good())
}

/// What the next backup of a source is measured by: the newest good ones of its `rows`, which come newest first, but
/// none from before the last one that an operator accepted.
pub fn baseline<'a>(rows: impl IntoIterator<Item = &'a Row>) -> Vec<Size> {
    let mut sizes = Vec::new();
    for row in rows.into_iter().filter(|row| row.is_good()) {
        let Ok(summary) = &row.manifest else { continue };
        sizes.push(summary.size());
        if summary.status == Status::Suspect || sizes.len() == PREDECESSORS {
            break;
        }
    }
    sizes
}

impl Catalog {
    /// Finds the backup that `text` names: `SOURCE/ID`, or `SOURCE/latest` for the newest good one.
    ///
    /// # Errors
    /// `Usage` for text of another shape, `NotFound` with the nearest that exists.
    pub async fn resolve(&self, text: &str) -> Result<BackupRef> {
        let doing = format!("looking for backup {text:?}");
        let Some((source, id)) = text.split_once('/') else {
            return Err(Error::new(Kind::Usage, doing, "a backup is named SOURCE/ID")
                .hint(format!("try {text}/latest, or `tidekeeper backups {text}`")));
        };
        let source: SourceName = source.parse()?;
        if id == "latest" {
            return self.resolve_latest(source, doing).await;
        }
        let ids = self.ids(&source).await?;
        match id.parse::<BackupId>() {
            Ok(id) if ids.binary_search(&id).is_ok() => Ok(BackupRef { source, id }),
            _ if ids.is_empty() => Err(self.no_backups(&source, doing).await),
            _ => {
                let near = ids.iter().rev().min_by_key(|known| strsim::levenshtein(known.as_str(), id));
                let near = near.map(BackupId::as_str).unwrap_or_default();
                Err(Error::new(Kind::NotFound, doing, format!("{source} has no backup {id}"))
                    .hint(format!("the nearest is {source}/{near}; `tidekeeper backups {source}` lists all")))
            }
        }
    }

    async fn resolve_latest(&self, source: SourceName, doing: String) -> Result<BackupRef> {
        let listing = self.list(Some(&source)).await?;
        if let Some(row) = latest(&listing.rows) {
            return Ok(row.backup.clone());
        }
        let Some(newest) = listing.rows.first() else { return Err(self.no_backups(&source, doing).await) };
        let state = match (&newest.manifest, newest.marks.is_damaged()) {
            (Err(_), _) => "unreadable",
            (_, true) => "damaged",
            (Ok(summary), _) => summary.status.as_str(),
        };
        let why = format!("none of the {} backups of {source} is complete", listing.rows.len());
        Err(Error::new(Kind::NotFound, doing, why).hint(format!(
            "the newest is {} ({state}): name it in full to use it all the same",
            newest.backup
        )))
    }

    /// The error for a source without backups; it names the nearest that has some.
    async fn no_backups(&self, source: &SourceName, doing: String) -> Error {
        let error = Error::new(Kind::NotFound, doing, format!("{source} has no backup in this vault"));
        let Ok(entries) = list_all(&*self.vault.store, &layout::manifests(None)).await else { return error };
        let sources = entries.iter().filter_map(|entry| layout::backup_of_manifest(&entry.key));
        let near = sources
            .map(|backup| backup.source)
            .min_by_key(|known| strsim::levenshtein(known.as_str(), source.as_str()));
        match near {
            Some(near) => error.hint(format!("did you mean {near}? `tidekeeper backups` lists all sources")),
            None => error.hint("the vault holds no backups at all; is it the right one?"),
        }
    }
}
