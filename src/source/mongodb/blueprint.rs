//! What a backup says of its collections: read from the metadata beside their documents.

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::Document;
use serde::Deserialize;

use super::namespace::{Namespace, file_name};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::Artifact;
use crate::vault::reader::BackupReader;

/// The endings of the stock tools' files.
pub const METADATA: &str = ".metadata.json";
const DOCUMENTS: &str = ".bson";

/// No metadata is longer: a collection has at most 64 indexes, and its options fit into a document.
const LONGEST: u64 = 32 << 20;

/// How many are read at the same time.
const AT_ONCE: usize = 16;

/// A collection or view as it was.
#[derive(Clone, Debug, PartialEq)]
pub struct Blueprint {
    /// Its name.
    pub namespace: Namespace,
    /// What it is.
    pub shape: Shape,
    /// What `create` takes, as `listCollections` told it.
    pub options: Document,
    /// As `listIndexes` told them.
    pub indexes: Vec<Document>,
    /// Its documents; none of a view.
    pub documents: Option<Artifact>,
}

/// What a collection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// An ordinary one; also a time series of a server that keeps its measurements as ordinary documents.
    Plain,
    /// Its documents must stay in their order.
    Capped,
    /// A view.
    View,
    /// A time series whose documents are buckets of measurements.
    Buckets,
}

/// The text of a metadata artifact: one JSON object.
#[derive(Debug, Default, Deserialize)]
struct Metadata {
    #[serde(default)]
    options: Option<Document>,
    #[serde(default)]
    indexes: Option<Vec<Document>>,
    #[serde(default, rename = "collectionName")]
    name: String,
    #[serde(default, rename = "type")]
    kind: String,
}

impl Blueprint {
    /// The option that lets documents vanish after a while.
    pub fn expiry(&self) -> Option<&mongodb::bson::Bson> {
        self.options.get("expireAfterSeconds")
    }

    /// Whether the server may remove documents of it by itself.
    pub fn expires(&self) -> bool {
        self.expiry().is_some() || self.indexes.iter().any(|index| index.contains_key("expireAfterSeconds"))
    }

    /// Where its documents lie when it is called so: of a time series in its buckets, which from 8.3 on are its own raw form,
    /// and must be asked for as that.
    pub fn lies_in(&self, name: &Namespace, raw_data: bool) -> (Namespace, bool) {
        match (self.shape, raw_data) {
            (Shape::Buckets, false) => (name.buckets(), false),
            (Shape::Buckets, true) => (name.clone(), true),
            _ => (name.clone(), false),
        }
    }

    /// Plain bytes of its documents.
    pub fn bytes(&self) -> u64 {
        self.documents.as_ref().map_or(0, |artifact| artifact.plain.bytes)
    }
}

/// All collections of a backup, in the order of their names; those of `admin` that hold users and roles are not among them.
///
/// # Errors
/// `Damaged` if a metadata artifact is none; those of reading.
pub async fn read(from: &BackupReader, task: &Task) -> Result<Vec<Blueprint>> {
    let metadata = from.manifest.artifacts.iter().filter(|artifact| artifact.name.ends_with(METADATA));
    let reading: Vec<_> = metadata.map(|artifact| one(from, artifact, task)).collect();
    let mut all: Vec<Blueprint> = stream::iter(reading).buffer_unordered(AT_ONCE).try_collect().await?;
    all.retain(|one| !is_of_users(&one.namespace));
    all.sort_by(|a, b| a.namespace.cmp(&b.namespace));
    Ok(all)
}

/// Users, roles, and the version of both go another way than other documents.
fn is_of_users(namespace: &Namespace) -> bool {
    namespace.db == "admin"
        && matches!(&*namespace.collection, "system.users" | "system.roles" | "system.version")
}

async fn one(from: &BackupReader, artifact: &Artifact, task: &Task) -> Result<Blueprint> {
    let text = text(from, artifact, task).await?;
    understand(&artifact.name, &text, &from.manifest.artifacts)
        .map_err(|error| error.while_doing(format!("reading artifact {}", artifact.name)))
}

async fn text(from: &BackupReader, artifact: &Artifact, task: &Task) -> Result<Vec<u8>> {
    if artifact.plain.bytes > LONGEST {
        let why = format!("it has {} bytes, and {LONGEST} are the most", artifact.plain.bytes);
        return Err(Error::new(Kind::Damaged, format!("reading artifact {}", artifact.name), why));
    }
    let mut reader = from.open(artifact, task).await?;
    let mut text = Vec::new();
    while let Some(chunk) = task.guard(reader.next()).await? {
        text.extend_from_slice(&chunk);
    }
    Ok(text)
}

/// From the text of a metadata artifact, and the names of the others.
pub fn understand(name: &str, text: &[u8], artifacts: &[Artifact]) -> Result<Blueprint> {
    let damaged = |why: String| Error::new(Kind::Damaged, "understanding it", why);
    let metadata: Metadata = match text {
        [] => Metadata::default(),
        text => serde_json::from_slice(text).map_err(|cause| damaged(cause.to_string()))?,
    };
    let stem = name.strip_suffix(METADATA).unwrap_or(name);
    let Some((db, file)) = stem.rsplit_once('/') else {
        return Err(damaged("its name says no database".to_owned()));
    };
    if file_name(&metadata.name) != file {
        return Err(damaged(format!("it is of a collection called {:?}", metadata.name)));
    }
    let namespace = Namespace::new(db, metadata.name);
    let options = metadata.options.unwrap_or_default();
    let find = |file: &str| {
        let wanted = format!("{db}/{file}{DOCUMENTS}");
        artifacts.iter().find(|artifact| artifact.name == wanted).cloned()
    };
    let buckets = find(&file_name(&namespace.buckets().collection));
    let shape = match &*metadata.kind {
        "view" => Shape::View,
        _ if options.contains_key("viewOn") => Shape::View,
        "timeseries" => Shape::Buckets,
        _ if options.contains_key("timeseries") && buckets.is_some() => Shape::Buckets,
        _ if options.get_bool("capped").unwrap_or(false) => Shape::Capped,
        _ => Shape::Plain,
    };
    let documents = match shape {
        Shape::View => None,
        Shape::Buckets => buckets.or_else(|| find(file)),
        Shape::Plain | Shape::Capped => find(file),
    };
    Ok(Blueprint { namespace, shape, options, indexes: metadata.indexes.unwrap_or_default(), documents })
}
