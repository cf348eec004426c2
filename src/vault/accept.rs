//! An operator says that a suspect backup is good: it counts from now on, and later ones are measured by it.

use super::Vault;
use super::catalog;
use super::decide::{Decision, decide};
use super::fate;
use super::layout::{self, BackupRef};
use super::manifest::Status;
use super::marks::Accepted;
use crate::error::{Error, Kind, Result};

/// Accepts `backup` in the name of `by`. Accepting it again changes nothing.
///
/// # Errors
/// `Refused` if it is not suspect; `Conflict` if it is being deleted; `NotFound`.
pub async fn accept(vault: &Vault, backup: &BackupRef, by: &str) -> Result<()> {
    let manifest = catalog::read_manifest(vault, backup).await?;
    if manifest.status != Status::Suspect {
        let why =
            format!("its status is {:?}; only a suspect backup waits for a word", manifest.status.as_str());
        return Err(Error::new(Kind::Refused, format!("accepting {backup}"), why)
            .hint("`tidekeeper backups` shows which are suspect"));
    }
    let at = vault.store.now().await?;
    let word = Accepted { nonce: layout::nonce(), by: by.into(), at };
    match decide(&*vault.store, &*vault.clock, &layout::accepted(backup), &word).await? {
        Decision::Ours | Decision::Theirs(_) => {}
    }
    // The word is durable: an open proposal to delete it did not know of it.
    fate::object(vault, backup, &format!("accepted by {by}")).await
}
