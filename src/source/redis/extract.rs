//! Writes the plain RDB files of a backup, from which a stock redis-server starts.

use std::path::{Component, Path, PathBuf};

use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::survey::rdb_artifacts;
use crate::error::{Context, Error, Kind, Result};
use crate::source::{Extracted, Format, Outlet};
use crate::task::Task;
use crate::vault::layout;
use crate::vault::manifest::Artifact;
use crate::vault::reader::BackupReader;

/// The formats, the default first.
pub const FORMATS: [Format; 1] = [Format { name: "rdb", is_stream: false }];

/// Writes all RDBs into a directory, each whole or not at all; a file that exists is never overwritten.
pub async fn extract(from: &BackupReader, to: Outlet<'_>, task: &Task) -> Result<Vec<Extracted>> {
    let Outlet::Directory(directory) = to else {
        let doing = format!("extracting {}", from.manifest.backup());
        return Err(Error::new(Kind::Internal, doing, "RDB files go into a directory"));
    };
    let artifacts: Vec<&Artifact> = rdb_artifacts(&from.manifest).collect();
    for artifact in &artifacts {
        refuse_existing(&path_of(artifact, directory)?)?;
    }
    task.progress.set_total(artifacts.iter().map(|artifact| artifact.plain.bytes).sum());
    let mut extracted = Vec::new();
    for artifact in &artifacts {
        let path = path_of(artifact, directory)?;
        task.guard(write(from, artifact, &path, task)).await?;
        extracted.push(Extracted {
            path: artifact.name.clone(),
            bytes: artifact.plain.bytes,
            usage: usage(directory, &artifact.name, artifacts.len()),
        });
    }
    Ok(extracted)
}

fn usage(directory: &Path, name: &str, count: usize) -> String {
    let directory = directory.display();
    let start =
        format!("`redis-server --dir {directory} --dbfilename {name} --appendonly no` starts from it");
    match count {
        1 => format!("{start}; for a server in service, stop it, copy the file over its own, start it"),
        _ => format!(
            "{start}; it is one shard of a cluster: it belongs to the node that holds the shard's slots"
        ),
    }
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
    match path.symlink_metadata() {
        Ok(_) => Err(Error::new(Kind::Conflict, format!("writing {}", path.display()), "it exists already")
            .hint("nothing is overwritten: name another directory, or move the file away")),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(format!("looking at {}", path.display()), error)),
    }
}

/// Under another name first; then linked to its own, which fails where a file has appeared meanwhile.
async fn write(from: &BackupReader, artifact: &Artifact, path: &Path, task: &Task) -> Result<()> {
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
        linked => linked.doing(doing())?,
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
