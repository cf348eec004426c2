//! Reads manifests and marks, and says exactly what is wrong with one that cannot be read.

use std::fmt::Display;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::details::Rest;
use crate::vault::layout::{self, BackupRef, FORMAT};
use crate::vault::manifest::{Artifact, Manifest};
use crate::vault::reader::BackupReader;
use crate::vault::store::{Entry, Key, list_all};

/// Reads the manifest of `backup`, fresh from the store, and checks that it speaks of that backup.
///
/// # Errors
/// `NotFound` if there is no such backup; `Unsupported` if a newer build wrote it; `Damaged`.
pub async fn read_manifest(vault: &Vault, backup: &BackupRef) -> Result<Manifest> {
    let key = layout::manifest(backup);
    match vault.store.get(&key).await? {
        Some(bytes) => parse_manifest(vault, &key, &bytes),
        None => Err(not_there(backup, "there is no such backup")),
    }
}

/// The manifest of `backup`, and what of the objects that it names is missing: empty means restorable.
///
/// # Errors
/// Those of [`read_manifest`] and [`missing_objects`].
pub async fn inspect(vault: &Vault, backup: &BackupRef) -> Result<(Manifest, Vec<String>)> {
    let own = list_all(&*vault.store, &layout::data_of(backup)).await?;
    let manifest = read_manifest(vault, backup).await?;
    let missing = missing_among(vault, &manifest, &own).await?;
    Ok((manifest, missing))
}

/// The refusal of a backup that does not exist, or not any more.
pub fn not_there(backup: &BackupRef, why: impl Display) -> Error {
    Error::new(Kind::NotFound, format!("looking for {}", layout::manifest(backup)), why)
        .hint(format!("`tidekeeper backups {}` lists what there is", backup.source))
}

/// What of the objects that `manifest` names is not there, or not with its size. Empty means restorable.
///
/// # Errors
/// Those of the store: an answer that did not come is not 'missing'.
pub async fn missing_objects(vault: &Vault, manifest: &Manifest) -> Result<Vec<String>> {
    let own = list_all(&*vault.store, &layout::data_of(&manifest.backup())).await?;
    missing_among(vault, manifest, &own).await
}

/// Every object that `manifest` names: its artifacts, and those of the list that was too long for it.
///
/// # Errors
/// `Damaged` if that list is missing or cannot be read; those of the store.
pub async fn named_objects(vault: &Vault, manifest: &Manifest) -> Result<Vec<Artifact>> {
    let mut named = manifest.artifacts.clone();
    if Rest::artifact(manifest).is_some() {
        named.extend(BackupReader::resolve(vault, manifest.clone()).await?.manifest.artifacts);
    }
    Ok(named)
}

/// As [`missing_objects`], where `own` is the listing of the backup's own data, taken *before* the manifest was read:
/// a deletion takes the manifest first, so whoever then still finds the manifest had data in the listing.
pub async fn missing_among(vault: &Vault, manifest: &Manifest, own: &[Entry]) -> Result<Vec<String>> {
    let named = match named_objects(vault, manifest).await {
        Ok(named) => named,
        Err(error) if error.kind() == Kind::Damaged => return Ok(vec![error.to_string()]),
        Err(error) => return Err(error),
    };
    let mut missing = Vec::new();
    for artifact in &named {
        let listed = own.binary_search_by(|entry| entry.key.as_str().cmp(&artifact.key)).ok();
        let size = match listed {
            Some(at) => Some(own[at].size),
            // Data of another backup that this one uses; or a key that is none.
            None if Key::is_valid(&artifact.key) => {
                vault.store.stat(&Key::new(&artifact.key)).await?.map(|entry| entry.size)
            }
            None => None,
        };
        match size {
            Some(size) if size == artifact.stored.bytes => {}
            Some(size) => missing.push(format!(
                "{} has {size} bytes where the manifest says {}",
                artifact.key, artifact.stored.bytes
            )),
            None => missing.push(format!("{} is not there", artifact.key)),
        }
    }
    Ok(missing)
}

#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

pub(super) fn parse_manifest(vault: &Vault, key: &Key, bytes: &[u8]) -> Result<Manifest> {
    let manifest = match parse::<Manifest>(vault, key, bytes) {
        Ok(manifest) if manifest.format <= FORMAT => manifest,
        // A newer format may have other fields, so its number is asked for alone before anything is called damage.
        outcome => match serde_json::from_slice::<FormatOnly>(bytes) {
            Ok(FormatOnly { format }) if format > FORMAT => return Err(too_new(key, format)),
            _ => outcome?,
        },
    };
    if layout::manifest(&manifest.backup()) != *key {
        let why = format!("it is the manifest of {}", manifest.backup());
        return Err(Error::new(Kind::Damaged, format!("reading {key}"), why)
            .hint("somebody copied or moved it; `tidekeeper scrub` tells what else is wrong"));
    }
    Ok(manifest)
}

fn too_new(key: &Key, format: u32) -> Error {
    let why = format!("it has format {format}, and this build reads up to {FORMAT}");
    Error::new(Kind::Unsupported, format!("reading {key}"), why)
        .hint("use a newer tidekeeper; until then this backup is kept as it is")
}

pub(super) fn parse<T: DeserializeOwned>(vault: &Vault, key: &Key, bytes: &[u8]) -> Result<T> {
    serde_json::from_slice(bytes).map_err(|cause| {
        let doing = format!("reading {key} in {}", vault.store.location());
        Error::new(Kind::Damaged, doing, &cause)
            .caused_by(cause)
            .hint("`tidekeeper scrub` tells what else is damaged")
    })
}
