//! A backup's native files, for the stock tools. Needs the vault only: the source may be gone.

use std::os::fd::AsFd;
use std::path::Path;

use tokio::fs::{File, OpenOptions};
use tokio::io::AsyncWriteExt;

use super::App;
use super::holding::hold_if_writable;
use crate::error::{Context, Error, Kind, Result};
use crate::source::{self, Extracted, Format, Outlet};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::reader::BackupReader;

/// Where what is extracted goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination<'a> {
    /// A directory, which is made, or is empty; for a format that is a stream a file, which is made.
    Path(&'a Path),
    /// Standard output: for a format that is a stream.
    Stdout,
}

impl App {
    /// Writes the native files of `backup`; holds the backup meanwhile.
    ///
    /// # Errors
    /// `Refused` if there is anything in the way, `Usage` for a format that the backup's kind does not have, or that does
    /// not go where it should.
    pub async fn extract(
        &self,
        backup: &BackupRef,
        format: Option<&str>,
        to: Destination<'_>,
        task: &Task,
    ) -> Result<Vec<Extracted>> {
        let reader = task.guard(BackupReader::open_backup(&self.vault, backup)).await?;
        let doing = || format!("extracting {backup}");
        let name = &reader.manifest.kind;
        let kind = self.kind(name).ok_or_else(|| {
            Error::new(Kind::Unsupported, doing(), format!("this build knows no sources of kind {name}"))
                .hint("use a newer tidekeeper")
        })?;
        let format = choose(kind, format, to).map_err(|error| error.while_doing(doing()))?;
        if let Destination::Path(path) = to
            && !format.is_stream
        {
            make_empty(path)?;
        }
        let held = hold_if_writable(self, backup, "extract", task).await?;
        let extracted = write(kind, &reader, format, to, task).await;
        held.release().await;
        extracted.map_err(|error| error.while_doing(doing()))
    }
}

/// The format that is wanted, if the kind has it and it can go there.
fn choose(
    kind: &'static dyn source::Kind,
    wanted: Option<&str>,
    to: Destination<'_>,
) -> Result<&'static Format> {
    let (name, formats) = (kind.name(), kind.formats());
    let wanted = wanted.unwrap_or(formats[0].name);
    let doing = "choosing a format";
    let Some(format) = formats.iter().find(|format| format.name == wanted) else {
        let names: Vec<_> = formats.iter().map(|format| format.name).collect();
        return Err(Error::new(Kind::Usage, doing, format!("{name} has no format {wanted:?}"))
            .hint(format!("its formats: {}", names.join(", "))));
    };
    if to == Destination::Stdout && !format.is_stream {
        let streams: Vec<_> =
            formats.iter().filter(|format| format.is_stream).map(|format| format.name).collect();
        let error =
            Error::new(Kind::Usage, doing, format!("{wanted} is files in a directory, not one stream"));
        return Err(match streams.as_slice() {
            [] => error.hint("name a directory with --output"),
            streams => {
                error.hint(format!("name a directory with --output, or a stream: {}", streams.join(", ")))
            }
        });
    }
    Ok(format)
}

async fn write(
    kind: &dyn source::Kind,
    reader: &BackupReader,
    format: &Format,
    to: Destination<'_>,
    task: &Task,
) -> Result<Vec<Extracted>> {
    match to {
        Destination::Path(path) if format.is_stream => {
            let mut file = create(path).await?;
            let written = stream(kind, reader, format, &mut file, task).await;
            if written.is_err() {
                // Half of it looks like all of it.
                let _ = tokio::fs::remove_file(path).await;
            }
            let written = written?;
            file.sync_all().await.doing(format!("writing {}", path.display()))?;
            Ok(written)
        }
        Destination::Path(path) => kind.extract(reader, format, Outlet::Directory(path), task).await,
        Destination::Stdout => stream(kind, reader, format, &mut stdout()?, task).await,
    }
}

async fn stream(
    kind: &dyn source::Kind,
    reader: &BackupReader,
    format: &Format,
    to: &mut (dyn tokio::io::AsyncWrite + Send + Unpin),
    task: &Task,
) -> Result<Vec<Extracted>> {
    let mut extracted = kind.extract(reader, format, Outlet::Stream(&mut *to), task).await?;
    to.flush().await.doing("writing what was extracted")?;
    // There is no directory that it would be in.
    extracted.iter_mut().for_each(|stream| stream.path.clear());
    Ok(extracted)
}

fn stdout() -> Result<File> {
    let own = std::io::stdout().as_fd().try_clone_to_owned().doing("opening standard output")?;
    Ok(File::from_std(own.into()))
}

async fn create(path: &Path) -> Result<File> {
    let doing = || format!("writing {}", path.display());
    match OpenOptions::new().write(true).create_new(true).open(path).await {
        Err(cause) if cause.kind() == std::io::ErrorKind::AlreadyExists => {
            Err(Error::new(Kind::Refused, doing(), "it is there already")
                .hint("name a new one with --output"))
        }
        opened => opened.doing(doing()),
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
