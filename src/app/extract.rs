//! A backup's native files, for the stock tools. Needs the vault only: the source may be gone.

use std::path::Path;

use super::holding::hold_if_writable;
use super::{App, kind};
use crate::error::{Context, Error, Kind, Result};
use crate::source::{Extracted, Outlet};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::reader::BackupReader;

impl App {
    /// Writes the native files of `backup` into `directory`, which is made, or is empty; holds the backup
    /// meanwhile.
    ///
    /// # Errors
    /// `Refused` if the directory holds anything, `Usage` for a format that the backup's kind does not have.
    pub async fn extract(
        &self,
        backup: &BackupRef,
        format: Option<&str>,
        directory: &Path,
        task: &Task,
    ) -> Result<Vec<Extracted>> {
        let reader = task.guard(BackupReader::open_backup(&self.vault, backup)).await?;
        let doing = || format!("extracting {backup}");
        let name = &reader.manifest.kind;
        let kind = kind(name).ok_or_else(|| {
            Error::new(Kind::Unsupported, doing(), format!("this build knows no sources of kind {name}"))
                .hint("use a newer tidekeeper")
        })?;
        let formats = kind.formats();
        let wanted = format.unwrap_or(formats[0].name);
        let Some(format) = formats.iter().find(|format| format.name == wanted) else {
            let names: Vec<_> = formats.iter().map(|format| format.name).collect();
            return Err(Error::new(Kind::Usage, doing(), format!("{name} has no format {wanted:?}"))
                .hint(format!("its formats: {}", names.join(", "))));
        };
        make_empty(directory)?;
        let held = hold_if_writable(self, backup, "extract", task).await?;
        let extracted = kind.extract(&reader, format, Outlet::Directory(directory), task).await;
        held.release().await;
        extracted.map_err(|error| error.while_doing(doing()))
    }
}

/// Makes the directory, or checks that nothing in it could be overwritten.
fn make_empty(directory: &Path) -> Result<()> {
    let doing = || format!("writing into {}", directory.display());
    std::fs::create_dir_all(directory).doing(doing())?;
    if std::fs::read_dir(directory).doing(doing())?.next().is_none() {
        return Ok(());
    }
    Err(Error::new(Kind::Refused, doing(), "the directory is not empty").hint("name a new one with --output"))
}
