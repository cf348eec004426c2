//! What the vault's deleter and scrub ask of the engine: do we still lead, and who may be writing?

use async_trait::async_trait;

use super::leader;
use super::ledger;
use crate::error::Result;
use crate::vault::Vault;
use crate::vault::deletion;
use crate::vault::layout::BackupRef;
use crate::vault::scrub::{Liveness, Writers};

#[async_trait]
impl deletion::Fence for leader::Fence {
    fn generation(&self) -> Option<u64> {
        leader::Fence::generation(self)
    }

    async fn still_leading(&self) -> Result<()> {
        self.check().await
    }
}

/// Knows writers by their claims: an attempt at a backup is claimed, with the backup's id, before its first byte.
#[derive(Clone, Debug)]
pub struct OpenAttempts {
    vault: Vault,
}

impl OpenAttempts {
    /// The open attempts in `vault`.
    pub fn new(vault: &Vault) -> Self {
        OpenAttempts { vault: vault.clone() }
    }
}

#[async_trait]
impl Writers for OpenAttempts {
    async fn liveness(&self, backup: &BackupRef) -> Result<Liveness> {
        // Of all days: a run's day is that of its due time, which a long wait can separate from its backup's.
        let open = ledger::open(&self.vault, None).await?;
        let named = open.attempts.iter().any(|started| started.backup().as_ref() == Some(backup));
        Ok(match named {
            // One whose process is gone counts as alive until recovery has closed it.
            true => Liveness::Alive,
            false if open.unreadable.is_empty() => {
                Liveness::Dead("no attempt that is under way names it".to_owned())
            }
            false => Liveness::Unknown,
        })
    }
}
