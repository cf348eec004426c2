//! What tests of backups share: backups made of a server, and what is in them.

use std::ops::Deref;

use mongodb::bson::{Document, RawDocumentBuf, doc};
use mongodb::{Client, Collection};
use tidekeeper::error::Result;
use tidekeeper::source::mongodb::backup;
use tidekeeper::source::mongodb::config::Settings;
use tidekeeper::source::mongodb::raw::Documents;
use tidekeeper::vault::layout::{BackupId, BackupRef, random};
use tidekeeper::vault::manifest::Status;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::writer::{BackupWriter, Capture};

use crate::harness::bench::Bench;

/// Makes backups, and looks into them.
pub struct Stage(Bench);

impl Deref for Stage {
    type Target = Bench;

    fn deref(&self) -> &Bench {
        &self.0
    }
}

impl Stage {
    pub fn new() -> Self {
        Stage(Bench::new())
    }

    pub fn with_spool(spool_max: u64) -> Self {
        Stage(Bench::with_spool(spool_max))
    }

    /// A backup as the engine makes one, read in ranges of about so many bytes.
    pub async fn back_up(&self, settings: &Settings, range: u64) -> Result<(Capture, BackupReader)> {
        let id = BackupId::new(self.clock.now(), None, random() as u32);
        let backup = BackupRef { source: settings.name.clone(), id };
        let writer = BackupWriter::new(&self.vault, backup.clone(), "mongodb", &self.task, self.clock.now());
        let capture = backup::capture_by(settings, range, &self.task, &writer).await?;
        writer.commit(capture.clone(), Status::Complete, None).await?;
        Ok((capture, BackupReader::open_backup(&self.vault, &backup).await?))
    }

    /// The plain bytes of an artifact.
    pub async fn bytes(&self, backup: &BackupReader, artifact: &str) -> Vec<u8> {
        let artifact = backup.artifact(artifact).expect("it is in the backup");
        let mut reader = backup.open(artifact, &self.task).await.expect("it opens");
        let mut bytes = Vec::new();
        while let Some(chunk) = reader.next().await.expect("it is read") {
            bytes.extend_from_slice(&chunk);
        }
        bytes
    }

    /// The documents of an artifact.
    pub async fn documents(&self, backup: &BackupReader, artifact: &str) -> Vec<RawDocumentBuf> {
        let mut documents = Documents::default();
        documents.push(&self.bytes(backup, artifact).await);
        let mut found = Vec::new();
        while let Some(document) = documents.next().expect("they are documents") {
            found.push(RawDocumentBuf::from_bytes(document.to_vec()).expect("a document"));
        }
        documents.finish().expect("nothing is cut off");
        found
    }
}

/// All documents of a collection, as bytes, sorted.
pub async fn held(client: &Client, db: &str, collection: &str) -> Vec<Vec<u8>> {
    let mut cursor =
        client.database(db).collection::<RawDocumentBuf>(collection).find(doc! {}).await.expect("it is read");
    let mut found = Vec::new();
    while cursor.advance().await.expect("it is read") {
        found.push(cursor.current().as_bytes().to_vec());
    }
    found.sort();
    found
}

/// As many documents as wanted, each of about so many bytes.
pub fn numbered(ids: std::ops::Range<i32>, bytes: usize) -> Vec<Document> {
    ids.map(|n| doc! { "_id": n, "n": n * 7, "text": "x".repeat(bytes) }).collect()
}

/// Puts [`numbered`] documents into a collection.
pub async fn fill(collection: &Collection<Document>, ids: std::ops::Range<i32>, bytes: usize) {
    collection.insert_many(numbered(ids, bytes)).await.expect("they are inserted");
}
