//! Holding what is being read, where the vault lets us.

use super::App;
use crate::error::{Kind, Result};
use crate::task::Task;
use crate::vault::hold::{self, Held};
use crate::vault::layout::BackupRef;

/// A hold, or none where the vault is read-only to us.
#[must_use]
pub struct Holding(Option<Held>);

impl Holding {
    /// Ends the hold. If that fails it ends by itself, at the task's deadline.
    pub async fn release(self) {
        if let Some(held) = self.0
            && let Err(error) = held.release().await
        {
            tracing::warn!(%error, "a hold stays until its own end");
        }
    }
}

/// Holds `backup` to `purpose`. With a vault that cannot be written to it goes on without: at 3 a.m. a restore from a
/// read-only bucket must work, and reading what is deleted meanwhile fails by its hash, not silently.
pub async fn hold_if_writable(app: &App, backup: &BackupRef, purpose: &str, task: &Task) -> Result<Holding> {
    match hold::hold_for(&app.vault, backup, purpose, task).await {
        Ok(held) => Ok(Holding(Some(held))),
        Err(error) if error.kind() == Kind::Denied => {
            tracing::warn!(%backup, %error, "going on without a hold: the vault cannot be written to");
            Ok(Holding(None))
        }
        Err(error) => Err(error),
    }
}
