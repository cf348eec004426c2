//! Writes the plain RDB files of a backup, from which a stock redis-server starts.

use std::path::Path;

use super::survey::rdb_artifacts;
use crate::error::{Error, Kind, Result};
use crate::source::{Extracted, Format, Outlet, files};
use crate::task::Task;
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
    files::write(from, &artifacts, directory, task).await?;
    let extracted = artifacts.iter().map(|artifact| Extracted {
        path: artifact.name.clone(),
        bytes: artifact.plain.bytes,
        usage: usage(directory, &artifact.name, artifacts.len()),
    });
    Ok(extracted.collect())
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
