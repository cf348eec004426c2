//! Giving a backup up: its manifest is written as `abandoned`, by the same conditional create as a commit.
//!
//! Whoever creates the key first has decided. A writer that was only slow finds the key taken, and knows; what it wrote
//! is then nobody's, and scrub may take it away.

use super::Vault;
use super::decide::{Decision, decide};
use super::layout::{self, BackupRef};
use super::manifest::{Manifest, Status};
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
    run: Option<&str>,
    why: &str,
    generation: Option<u64>,
) -> Result<Decision<Manifest>> {
    let manifest = Manifest {
        reason: Some(why.to_owned()),
        started_at: backup.id.time(),
        run: run.map(str::to_owned),
        leader_generation: generation,
        ..Manifest::bare(backup, kind, Status::Abandoned, vault.clock.now())
    };
    decide(&*vault.store, &*vault.clock, &layout::manifest(backup), &manifest)
        .await
        .map_err(|error| error.while_doing(format!("abandoning backup {backup}")))
}
