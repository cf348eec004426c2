//! Writes a backup as the stock tools read it: the files of a mongodump, or the one stream of its archive.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::AsyncWrite;

use super::archive::{ArchiveWriter, DOCUMENT_MAX};
use super::metadata::PRELUDE;
use super::namespace::{BUCKETS, Namespace, collection_of_file, file_name, is_cut};
use super::oplog::records::OPLOG;
use crate::error::{Error, Kind, Result};
use crate::source::{Extracted, Format, Outlet, files};
use crate::task::Task;
use crate::vault::details::{DETAILS, REST};
use crate::vault::manifest::{Artifact, Manifest};
use crate::vault::reader::BackupReader;

/// The formats, the default first.
pub const FORMATS: [Format; 2] =
    [Format { name: "directory", is_stream: false }, Format { name: "mongodump-archive", is_stream: true }];

const USE_A_DIRECTORY: &str = "extract with `--format directory`";

const TIME_SERIES: &str = "timeseries";

/// How many files of metadata are read at the same time.
const METADATA_IN_FLIGHT: usize = 4;

/// Writes all of a backup.
///
/// # Errors
/// For a stream, `Unsupported` if its format cannot hold what the backup has. What left before an error is not enough to be
/// taken for a whole archive.
pub async fn extract(
    from: &BackupReader,
    format: &Format,
    to: Outlet<'_>,
    task: &Task,
) -> Result<Vec<Extracted>> {
    match (format.is_stream, to) {
        (false, Outlet::Directory(directory)) => write_files(from, directory, task).await,
        (true, Outlet::Stream(out)) => task.guard(write_archive(from, out, task)).await,
        _ => {
            let doing = format!("extracting {}", from.manifest.backup());
            Err(Error::new(Kind::Internal, doing, format!("{} does not go there", format.name)))
        }
    }
}

/// What the stock tools wrote, or would have written; not what the vault itself adds.
fn native(manifest: &Manifest) -> impl Iterator<Item = &Artifact> {
    manifest.artifacts.iter().filter(|artifact| artifact.name != DETAILS && artifact.name != REST)
}

async fn write_files(from: &BackupReader, directory: &Path, task: &Task) -> Result<Vec<Extracted>> {
    let artifacts: Vec<&Artifact> = native(&from.manifest).collect();
    files::write(from, &artifacts, directory, task).await?;
    let mut extracted: Vec<Extracted> = artifacts.iter().map(|artifact| file(artifact)).collect();
    let (flag, note) = replay(&from.manifest);
    if let Some(last) = extracted.last_mut() {
        let all = format!("`mongorestore --dir {}{flag}` restores all of it{note}", directory.display());
        last.usage = if last.usage.is_empty() { all } else { format!("{}; {all}", last.usage) };
    }
    Ok(extracted)
}

fn file(artifact: &Artifact) -> Extracted {
    const CUT: &str = "cut short: its collection's name is in its metadata, where mongorestore decodes `+` and `%` as if \
        they were escapes; where the name has them, extract with `--format mongodump-archive`";
    let stem = artifact.name.strip_suffix(".bson").and_then(|name| name.rsplit('/').next());
    let usage = if stem.is_some_and(is_cut) { CUT } else { "" };
    Extracted { path: artifact.name.clone(), bytes: artifact.plain.bytes, usage: usage.to_owned() }
}

/// What mongorestore is to be told of the oplog in the backup, and what else there is to say of it.
fn replay(manifest: &Manifest) -> (&'static str, &'static str) {
    let has_oplog = manifest.artifacts.iter().any(|artifact| artifact.name == OPLOG);
    let is_fuzzy = manifest.contents.facts.get("consistency").and_then(Value::as_str) == Some("fuzzy");
    match (has_oplog, is_fuzzy) {
        (true, true) => {
            (" --oplogReplay", "; without --oplogReplay its collections would be of different moments")
        }
        (true, false) => {
            ("", "; its oplog has only transactions that were still open: there is nothing to replay")
        }
        _ => ("", ""),
    }
}

/// Where everything is that an archive has; by database and stem.
#[derive(Debug, Default)]
struct Layout<'a> {
    collections: BTreeMap<(&'a str, &'a str), Files<'a>>,
    /// The documents of time series: the metadata is that of the series.
    buckets: BTreeMap<(&'a str, &'a str), &'a Artifact>,
    oplog: Option<&'a Artifact>,
}

/// The files of one stem.
#[derive(Clone, Copy, Debug, Default)]
struct Files<'a> {
    metadata: Option<&'a Artifact>,
    data: Option<&'a Artifact>,
}

/// The files of one database and stem.
type Located<'a> = ((&'a str, &'a str), Files<'a>);

impl<'a> Layout<'a> {
    fn of(manifest: &'a Manifest) -> Result<Self> {
        let mut layout = Layout::default();
        for artifact in native(manifest) {
            layout.take(artifact)?;
        }
        let is_bucket = |stem: &str, files: &Files| files.metadata.is_none() && stem.starts_with(BUCKETS);
        let buckets = layout.collections.extract_if(.., |(_, stem), files| is_bucket(stem, files));
        layout.buckets = buckets.filter_map(|(key, files)| Some((key, files.data?))).collect();
        Ok(layout)
    }

    fn take(&mut self, artifact: &'a Artifact) -> Result<()> {
        let name = artifact.name.as_str();
        match name.rsplit_once('/') {
            None if name == OPLOG => self.oplog = Some(artifact),
            None if name == PRELUDE => {}
            None => return Err(no_place(name)),
            Some((db, file)) => {
                if let Some(stem) = file.strip_suffix(".metadata.json") {
                    self.collections.entry((db, stem)).or_default().metadata = Some(artifact);
                } else if let Some(stem) = file.strip_suffix(".bson") {
                    self.collections.entry((db, stem)).or_default().data = Some(artifact);
                } else {
                    return Err(no_place(name));
                }
            }
        }
        Ok(())
    }

    /// Users, roles and the version of their schema first: mongorestore wants to know of them before any other collection.
    fn ordered(&self) -> Vec<Located<'a>> {
        let mut collections: Vec<_> = self.collections.iter().map(|(key, files)| (*key, *files)).collect();
        collections.sort_by_key(|(key, _)| {
            !matches!(key, ("admin", "system.users" | "system.roles" | "system.version"))
        });
        collections
    }

    /// Whether each file of documents was claimed: buckets without a series would be left out in silence.
    fn all_are_in(&self, blocks: &[(Namespace, Option<&Artifact>)]) -> Result<()> {
        let known =
            self.collections.values().filter(|files| files.data.is_some()).count() + self.buckets.len();
        if blocks.iter().filter(|(_, data)| data.is_some()).count() == known {
            return Ok(());
        }
        let why = "it has buckets of a time series whose metadata is not there";
        Err(Error::new(Kind::Damaged, "reading the backup's list of artifacts", why))
    }
}

fn no_place(name: &str) -> Error {
    let why = "an archive has no place for it";
    Error::new(Kind::Unsupported, format!("extracting {name}"), why).hint(USE_A_DIRECTORY)
}

/// What a metadata file says of its collection, as far as an archive tells it apart.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    #[serde(rename = "collectionName")]
    collection: Option<String>,
    #[serde(rename = "type")]
    kind: String,
}

/// One namespace of an archive.
struct Entry<'a> {
    namespace: Namespace,
    kind: String,
    /// As the file has it.
    metadata: String,
    /// Under which name its documents come.
    block: Namespace,
    data: Option<&'a Artifact>,
}

async fn write_archive(
    from: &BackupReader,
    out: &mut (dyn AsyncWrite + Send + Unpin),
    task: &Task,
) -> Result<Vec<Extracted>> {
    let version = server_version(&from.manifest)?;
    let layout = Layout::of(&from.manifest)?;
    task.progress.set_total(native(&from.manifest).map(|artifact| artifact.plain.bytes).sum());
    let mut archive = ArchiveWriter::begin(out, version, &from.manifest.tool).await?;
    let blocks = announce(from, &layout, &mut archive, task).await?;
    for (namespace, data) in blocks {
        let name = data.map_or_else(|| namespace.to_string(), |artifact| artifact.name.clone());
        let copied = copy(from, namespace, data, &mut archive, task).await;
        copied.map_err(|error| error.while_doing(format!("copying {name}")))?;
    }
    let (flag, note) = replay(&from.manifest);
    let usage = format!(
        "`mongorestore --archive{flag}` restores it from standard input, with `--archive=FILE` from a file{note}"
    );
    Ok(vec![Extracted { path: String::new(), bytes: archive.finish().await?, usage }])
}

/// Writes the prelude; tells in which order which documents come.
async fn announce<'a>(
    from: &'a BackupReader,
    layout: &Layout<'a>,
    archive: &mut ArchiveWriter<'_>,
    task: &Task,
) -> Result<Vec<(Namespace, Option<&'a Artifact>)>> {
    let mut blocks = Vec::new();
    let ordered = layout.ordered();
    let read = |n: usize| describe(from, layout, ordered[n], task);
    let mut entries = stream::iter(0..ordered.len()).map(read).buffered(METADATA_IN_FLIGHT);
    while let Some(entry) = entries.try_next().await? {
        archive.announce(&entry.namespace, &entry.metadata, &entry.kind).await?;
        blocks.push((entry.block, entry.data));
    }
    layout.all_are_in(&blocks)?;
    if let Some(oplog) = layout.oplog {
        let namespace = Namespace::new("", "oplog");
        archive.announce(&namespace, "", "").await?;
        blocks.push((namespace, Some(oplog)));
    }
    archive.announced().await?;
    Ok(blocks)
}

async fn describe<'a>(
    from: &BackupReader,
    layout: &Layout<'a>,
    ((db, stem), files): Located<'a>,
    task: &Task,
) -> Result<Entry<'a>> {
    let text = match files.metadata {
        Some(artifact) => read_text(from, artifact, task).await?,
        None => String::new(),
    };
    let damaged = |why: &dyn fmt::Display| {
        Error::new(Kind::Damaged, format!("understanding {db}/{stem}.metadata.json"), why)
    };
    let metadata = match text.is_empty() {
        true => Metadata::default(),
        false => serde_json::from_str(&text).map_err(|cause| damaged(&cause))?,
    };
    let collection = collection_of_file(stem, metadata.collection.as_deref())
        .ok_or_else(|| damaged(&"it does not name the collection that the file is of"))?;
    let mut entry = Entry {
        namespace: Namespace::new(db, &collection),
        kind: metadata.kind,
        metadata: text,
        block: Namespace::new(db, &collection),
        data: files.data,
    };
    if entry.kind == TIME_SERIES && entry.data.is_none() {
        entry.block.collection.insert_str(0, BUCKETS);
        entry.data = layout.buckets.get(&(db, file_name(&entry.block.collection).as_str())).copied();
    }
    Ok(entry)
}

async fn read_text(from: &BackupReader, artifact: &Artifact, task: &Task) -> Result<String> {
    let doing = || format!("reading {}", artifact.name);
    let mut text = Vec::new();
    let mut bytes = from.open(artifact, task).await?;
    while let Some(chunk) = bytes.next().await? {
        text.extend_from_slice(&chunk);
        if text.len() > DOCUMENT_MAX {
            let why = "an archive holds no more than 16 MiB of it";
            return Err(Error::new(Kind::Unsupported, doing(), why).hint(USE_A_DIRECTORY));
        }
    }
    task.progress.add_bytes(text.len() as u64);
    String::from_utf8(text).map_err(|cause| Error::new(Kind::Damaged, doing(), cause))
}

async fn copy(
    from: &BackupReader,
    namespace: Namespace,
    data: Option<&Artifact>,
    archive: &mut ArchiveWriter<'_>,
    task: &Task,
) -> Result<()> {
    archive.begin_namespace(namespace).await?;
    if let Some(artifact) = data {
        let mut bytes = from.open(artifact, task).await?;
        while let Some(chunk) = bytes.next().await? {
            archive.documents(&chunk).await?;
            task.progress.add_bytes(chunk.len() as u64);
        }
    }
    archive.end_namespace().await
}

/// The server's version, if mongorestore can read it: three numbers, and after them anything behind a `-` or `+`. By it, it
/// knows how documents of time series and of users are written.
fn server_version(manifest: &Manifest) -> Result<&str> {
    let version = manifest.contents.facts.get("server_version").and_then(Value::as_str).unwrap_or_default();
    let numbers = version.split(['-', '+']).next().unwrap_or_default();
    if numbers.split('.').count() == 3 && numbers.split('.').all(|number| number.parse::<u32>().is_ok()) {
        return Ok(version);
    }
    let why = format!("the backup says of its server's version {version:?}, and mongorestore wants X.Y.Z");
    Err(Error::new(Kind::Unsupported, "writing an archive", why).hint(USE_A_DIRECTORY))
}
