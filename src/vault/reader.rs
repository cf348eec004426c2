//! Reads a backup back: plain bytes, checked against the manifest before the last of them are handed out.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;
use futures_util::TryStreamExt;

use super::Vault;
use super::decide::read_json;
use super::layout::{self, BackupRef};
use super::manifest::{Artifact, Digest, Manifest};
use super::store::Key;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// A backup that exists.
#[derive(Clone, Debug)]
pub struct BackupReader {
    /// The vault it is in.
    pub vault: Vault,
    /// Its manifest.
    pub manifest: Manifest,
}

/// A stream of an artifact's plain bytes. The last 64 KiB come only when both hashes agree.
#[derive(Debug)]
pub struct ArtifactReader {
    plain: Bytes,
}

impl BackupReader {
    /// Opens a backup by its manifest.
    pub async fn open_backup(vault: &Vault, backup: &BackupRef) -> Result<Self> {
        let manifest = read_json::<Manifest>(&*vault.store, &layout::manifest(backup)).await?;
        let manifest = manifest.ok_or_else(|| {
            Error::new(Kind::NotFound, format!("opening {backup}"), "there is no such backup")
                .hint("`tidekeeper backups` lists what there is")
        })?;
        Ok(BackupReader { vault: vault.clone(), manifest })
    }

    /// Opens an artifact from its beginning.
    pub async fn open(&self, artifact: &Artifact, task: &Task) -> Result<ArtifactReader> {
        let key = Key::new(&artifact.key);
        let read = async {
            let chunks: Vec<Bytes> =
                self.vault.store.read(&key, 0..artifact.stored.bytes).await?.try_collect().await?;
            Ok(chunks.concat())
        };
        let stored = task.guard(read).await?;
        let damaged = |why: &str| Error::new(Kind::Damaged, format!("reading {}", artifact.name), why);
        let plain = zstd::decode_all(&*stored).map_err(|cause| damaged(&cause.to_string()))?;
        let agrees = |bytes: &[u8], with: &Digest| {
            bytes.len() as u64 == with.bytes && hex::encode(digest(&SHA256, bytes)) == with.sha256
        };
        if !agrees(&stored, &artifact.stored) || !agrees(&plain, &artifact.plain) {
            return Err(damaged("its hash is not that of the manifest"));
        }
        Ok(ArtifactReader { plain: plain.into() })
    }
}

impl ArtifactReader {
    /// The next plain bytes; `None` after the last, when everything was as the manifest says.
    ///
    /// # Errors
    /// `Damaged` if a hash or a frame is wrong, naming the artifact.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let chunk = self.plain.split_to(self.plain.len().min(256 << 10));
        Ok((!chunk.is_empty()).then_some(chunk))
    }
}
