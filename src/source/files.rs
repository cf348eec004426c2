//! Writes artifacts as files: each whole or not at all, none over another, none outside its directory.

use std::path::{Component, Path, PathBuf};

use futures_util::future::ready;
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::error::{Context, Error, Kind, Result};
use crate::task::Task;
use crate::vault::layout;
use crate::vault::manifest::Artifact;
use crate::vault::reader::BackupReader;

/// How many artifacts are written at the same time: many small ones wait for the store most of the time, and each long one
/// takes its buffers.
const IN_FLIGHT: usize = 3;

/// Writes each artifact into `directory` under its true name, and the folders that the name has.
///
/// # Errors
/// `Conflict` if a file exists already, `Damaged` if a name leads out of the directory or an artifact is not what it
/// should be; what was written by then stays.
pub async fn write(
    from: &BackupReader,
    artifacts: &[&Artifact],
    directory: &Path,
    task: &Task,
) -> Result<()> {
    for artifact in artifacts {
        refuse_existing(&path_of(artifact, directory)?)?;
    }
    task.progress.set_total(artifacts.iter().map(|artifact| artifact.plain.bytes).sum());
    let write = |n: usize| write_one(from, artifacts[n], directory, task);
    let all = stream::iter(0..artifacts.len()).map(write).buffer_unordered(IN_FLIGHT);
    task.guard(all.try_for_each(|()| ready(Ok(())))).await
}

/// A name from a manifest is not trusted with the way out of the directory.
fn path_of(artifact: &Artifact, directory: &Path) -> Result<PathBuf> {
    let name = Path::new(&artifact.name);
    if name.components().all(|part| matches!(part, Component::Normal(_))) {
        return Ok(directory.join(name));
    }
    let why = "its name does not stay inside the directory";
    Err(Error::new(Kind::Damaged, format!("extracting {:?}", artifact.name), why))
}

fn refuse_existing(path: &Path) -> Result<()> {
    const NOT_OVER: &str = "nothing is overwritten: name another directory, or move the file away; \
        where A and a are one file, extract to a disk on which they are two";
    let error = match path.symlink_metadata() {
        Ok(_) => {
            let doing = format!("writing {}", path.display());
            return Err(Error::new(Kind::Conflict, doing, "it exists already").hint(NOT_OVER));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => error,
    };
    Err(failed(format!("looking at {}", path.display()), error))
}

fn failed(doing: String, cause: std::io::Error) -> Error {
    let is_name = cause.kind() == std::io::ErrorKind::InvalidFilename;
    let error = Error::io(doing, cause);
    if is_name { error.hint("this file system cannot hold the name: extract to another") } else { error }
}

/// Under another name first; then linked to its own, which fails where a file has appeared meanwhile.
async fn write_one(from: &BackupReader, artifact: &Artifact, directory: &Path, task: &Task) -> Result<()> {
    let path = &path_of(artifact, directory)?;
    let doing = || format!("writing {}", path.display());
    let folder = path.parent().unwrap_or(Path::new("."));
    tokio::fs::create_dir_all(folder).await.doing(doing())?;
    let temporary = Temporary(folder.join(format!(".{}.partial", layout::nonce())));
    let mut file = File::create_new(&temporary.0).await.doing(doing())?;
    let mut bytes = from.open(artifact, task).await?;
    while let Some(chunk) = bytes.next().await? {
        file.write_all(&chunk).await.doing(doing())?;
        task.progress.add_bytes(chunk.len() as u64);
    }
    file.flush().await.doing(doing())?;
    file.sync_all().await.doing(doing())?;
    match tokio::fs::hard_link(&temporary.0, path).await {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => return refuse_existing(path),
        linked => linked.map_err(|error| failed(doing(), error))?,
    }
    drop(temporary);
    File::open(folder).await.doing(doing())?.sync_all().await.doing(doing())
}

/// A file that goes with its handle.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
