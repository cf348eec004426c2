//! Giving a backup up: its manifest is written as `abandoned`, by the same conditional create as a commit.
//!
//! Whoever creates the key first has decided. A writer that was only slow finds the key taken, and knows; what it wrote
//! is then nobody's, and scrub may take it away.

use super::Vault;
use super::decide::{Decision, decide};
use super::layout::{self, BackupRef, FORMAT};
use super::manifest::{Contents, Manifest, Status};
use crate::error::Result;

/// Gives `backup` up because of `why`. `Theirs` is the manifest of whoever decided before: mostly a commit that came
/// just in time, so its status is the outcome of the run.
///
/// # Errors
/// Those of [`decide`].
pub async fn abandon(
    vault: &Vault,
    backup: &BackupRef,
    kind: &str,
    why: &str,
    generation: Option<u64>,
) -> Result<Decision<Manifest>> {
    let manifest = Manifest {
        format: FORMAT,
        id: backup.id.clone(),
        source: backup.source.clone(),
        kind: kind.to_owned(),
        status: Status::Abandoned,
        reason: Some(why.to_owned()),
        started_at: backup.id.time(),
        finished_at: vault.clock.now(),
        tool: concat!("tidekeeper ", env!("CARGO_PKG_VERSION")).to_owned(),
        writer: layout::nonce(),
        run: None,
        origin: None,
        consistency: None,
        artifacts: Vec::new(),
        contents: Contents::default(),
        omissions: Vec::new(),
        requires: Vec::new(),
        encryption: None,
        timeline: None,
        leader_generation: generation,
        previous: None,
        signature: None,
        unknown: serde_json::Map::new(),
    };
    decide(&*vault.store, &*vault.clock, &layout::manifest(backup), &manifest).await
}
