//! Reads every byte of a backup and says what it found, as a proof that stays with the backup.

use jiff::Timestamp;
use serde::Serialize;

use super::Vault;
use super::catalog::missing_objects;
use super::decide::{Decision, decide, read_json};
use super::hold;
use super::layout::{self, BackupRef, Marker};
use super::manifest::Artifact;
use super::marks::{Checked, Outcome, Proof};
use super::reader::BackupReader;
use super::store::{Entry, list_all};
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Verification {
    /// Which backup.
    pub backup: BackupRef,
    /// `Verified` or `Damaged`.
    pub outcome: Outcome,
    /// One line per artifact.
    pub checks: Vec<Checked>,
    /// Bytes that agree: plain ones; of what no private key was there for, stored ones.
    pub bytes: u64,
    /// Whether all could be looked into; else the stored bytes alone of some were checked.
    pub inside: bool,
    /// How long it took, in seconds.
    pub took_s: f64,
}

/// Reads all of `reader`'s backup, under a hold, and records what was found as a proof.
///
/// # Errors
/// Whatever kept it from looking (the store does not answer): then nothing is recorded, since an answer that did not
/// come is not damage. Damage is no error here; it is the outcome. Without a private key the stored bytes alone are
/// checked, and the proof says so; what was found damaged before is then refused, since that may lie inside.
pub async fn verify(reader: &BackupReader, task: &Task) -> Result<Verification> {
    let vault = &reader.vault;
    let held = hold::hold_for(vault, &reader.manifest.backup(), "verify", task).await?;
    let found = check(reader, task).await;
    let recorded = match &found {
        Ok(found) => record(vault, found, task).await,
        Err(_) => Ok(()),
    };
    // A hold that could not be released ends by itself; that is no reason to deny what was found.
    if let Err(error) = held.release().await {
        tracing::warn!(%error, "a hold stays until its own end");
    }
    recorded?;
    found
}

/// Reads all of `reader`'s backup and tells what it found; writes nothing, so it works on a vault that is read-only. The
/// step, and how many bytes there are in all, are the caller's to tell: it may read many backups.
///
/// # Errors
/// As [`verify`].
pub async fn check(reader: &BackupReader, task: &Task) -> Result<Verification> {
    let manifest = &reader.manifest;
    let began = task.clock.monotonic();
    let sealed = |artifact: &Artifact| !reader.can_open(artifact);
    let inside = !manifest.artifacts.iter().any(sealed);
    if !inside {
        task.guard(ensure_not_damaged(&reader.vault, &manifest.backup())).await.map_err(|error| {
            error.hint(
                "only a look inside can tell otherwise: set `encryption.identity_file`, and verify again",
            )
        })?;
    }
    let mut checks = Vec::new();
    for missing in task.guard(missing_objects(&reader.vault, manifest)).await? {
        checks.push(checked("objects", "all there, with their sizes", missing, false));
    }
    let mut bytes = 0;
    for artifact in &manifest.artifacts {
        let (check, read) = check_artifact(reader, artifact, task).await?;
        bytes += read;
        checks.push(check);
    }
    let outcome = match checks.iter().all(|check| check.passed) {
        true => Outcome::Verified,
        false => Outcome::Damaged,
    };
    Ok(Verification {
        backup: manifest.backup(),
        outcome,
        checks,
        bytes,
        inside,
        took_s: (task.clock.monotonic() - began).as_secs_f64(),
    })
}

/// Reads one artifact to its end; damage is a failed check, anything else an error. Tells how many bytes agree.
async fn check_artifact(reader: &BackupReader, artifact: &Artifact, task: &Task) -> Result<(Checked, u64)> {
    let expected = format!("{} stored bytes, sha256 {}", artifact.stored.bytes, artifact.stored.sha256);
    let (check, bytes) = match task.guard(reader.verify(artifact, task)).await {
        Ok(verified) => (checked(&artifact.name, &expected, verified.to_string(), true), verified.bytes()),
        Err(error) if matches!(error.kind(), Kind::Damaged | Kind::NotFound) => {
            (checked(&artifact.name, &expected, error.to_string(), false), 0)
        }
        Err(error) => return Err(error),
    };
    task.progress.add_items(1);
    Ok((check, bytes))
}

fn checked(name: &str, expected: &str, found: String, passed: bool) -> Checked {
    Checked { name: name.to_owned(), expected: expected.to_owned(), found, passed }
}

async fn record(vault: &Vault, found: &Verification, task: &Task) -> Result<()> {
    let proof = Proof {
        nonce: layout::nonce(),
        outcome: found.outcome,
        at: task.guard(vault.store.now()).await?,
        run: task.run.to_string(),
        checks: found.checks.clone(),
        took_s: found.took_s,
    };
    task.guard(prove(vault, &found.backup, &proof)).await
}

/// Records a proof of `backup`. A run that found the same before has recorded it already; one that finds something
/// else now (the disk rots while it looks) adds a second proof.
///
/// # Errors
/// Those of [`decide`].
pub async fn prove(vault: &Vault, backup: &BackupRef, proof: &Proof) -> Result<()> {
    let (store, clock) = (&*vault.store, &*vault.clock);
    let first = layout::marker(Marker::Proof, backup, &proof.run);
    match decide(store, clock, &first, proof).await? {
        Decision::Theirs(other) if other.outcome != proof.outcome => {}
        Decision::Ours | Decision::Theirs(_) => return Ok(()),
    }
    let second = layout::marker(Marker::Proof, backup, &format!("{}.{}", proof.run, proof.nonce));
    match decide(store, clock, &second, proof).await? {
        Decision::Ours | Decision::Theirs(_) => Ok(()),
    }
}

/// The newest proof of `backup`, fresh from the store.
///
/// # Errors
/// `Damaged` if one cannot be read: it may be the one that says so.
pub async fn newest_proof(vault: &Vault, backup: &BackupRef) -> Result<Option<Proof>> {
    let mut newest: Option<Proof> = None;
    let entries: Vec<Entry> = list_all(&*vault.store, &layout::markers_of(Marker::Proof, backup)).await?;
    for entry in entries {
        let Some(proof) = read_json::<Proof>(&*vault.store, &entry.key).await? else { continue };
        let order = |proof: &Proof| -> (Timestamp, std::cmp::Reverse<Outcome>) {
            (proof.at, std::cmp::Reverse(proof.outcome))
        };
        if newest.as_ref().is_none_or(|newest| order(newest) < order(&proof)) {
            newest = Some(proof);
        }
    }
    Ok(newest)
}

/// Refuses a backup that was found damaged and not found whole since: for restores, before the target is touched.
///
/// # Errors
/// `Damaged`, with the run that found it; those of the store.
pub async fn ensure_not_damaged(vault: &Vault, backup: &BackupRef) -> Result<()> {
    let Some(proof) = newest_proof(vault, backup).await? else { return Ok(()) };
    if proof.outcome != Outcome::Damaged {
        return Ok(());
    }
    let failed = proof.checks.iter().find(|check| !check.passed);
    let detail = failed.map(|check| format!(": {}: {}", check.name, check.found)).unwrap_or_default();
    let why = format!("run {} found it damaged at {}{detail}", proof.run, proof.at);
    Err(Error::new(Kind::Damaged, format!("using {backup}"), why)
        .hint(format!("choose another backup, or look again: `tidekeeper verify {backup}`")))
}
