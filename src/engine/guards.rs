//! What the vault's deleter and scrub ask of the engine: do we still lead, and who may be writing?

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;

use super::leader;
use super::ledger::{self, Open};
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
#[derive(Debug)]
pub struct OpenAttempts {
    vault: Vault,
    /// The last look at all runs, and when it was.
    look: Mutex<Option<(Timestamp, Open)>>,
}

/// A backup's id is of the moment of its claim. A look that came so much later has seen the claim if it is still open,
/// and one that was closed is never opened again: what that look says of the backup holds.
const SETTLED: SignedDuration = SignedDuration::from_hours(1);

impl OpenAttempts {
    /// The open attempts in `vault`.
    pub fn new(vault: &Vault) -> Self {
        OpenAttempts { vault: vault.clone(), look: Mutex::default() }
    }
}

#[async_trait]
impl Writers for OpenAttempts {
    async fn liveness(&self, backup: &BackupRef) -> Result<Liveness> {
        let mut look = self.look.lock().await;
        let open = match look.take() {
            Some((at, open)) if backup.id.time() < at - SETTLED => &look.insert((at, open)).1,
            _ => {
                let now = self.vault.clock.now();
                // Of all days: a run's day is that of its due time, which a long wait can separate from its backup's.
                &look.insert((now, ledger::open(&self.vault, None).await?)).1
            }
        };
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
