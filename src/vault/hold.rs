//! Holds: a held backup is not deleted, whoever asks.
//!
//! Operators hold for a reason and a time; restores, verifications, extracts and drills hold what they read until their
//! deadline, and a backup that uses another's data holds that one until its own manifest is there. Why a hold and a
//! deletion can never both succeed is shown at [`fate::object`].

use jiff::Timestamp;

use super::Vault;
use super::decide::{Decision, decide, read_json};
use super::fate;
use super::layout::{self, BackupRef, Marker};
use super::marks::Hold;
use super::store::{Key, list_all};
use crate::error::{Error, Kind, Result};
use crate::task::{MARGIN, Task};

/// A hold that its owner ends with [`release`](Held::release). Dropped instead, it ends at its own time, so that a
/// process that dies keeps the backup no longer than its run could have lasted.
#[derive(Debug)]
#[must_use]
pub struct Held {
    vault: Vault,
    key: Key,
    /// What is held.
    pub backup: BackupRef,
}

impl Held {
    /// Ends the hold.
    pub async fn release(self) -> Result<()> {
        self.vault.store.delete(&self.key).await
    }
}

/// Holds `backup` by an operator's word. `name` is new for each hold: the run that took it.
///
/// # Errors
/// `Usage` for a time that has passed; `Conflict` if the backup is being deleted or the name is taken; `NotFound`.
pub async fn hold(
    vault: &Vault,
    backup: &BackupRef,
    name: &str,
    by: &str,
    reason: &str,
    until: Option<Timestamp>,
) -> Result<Held> {
    let at = vault.store.now().await?;
    if until.is_some_and(|until| until <= at) {
        return Err(Error::new(Kind::Usage, format!("holding {backup}"), "the hold would end in the past")
            .hint(format!("it is {at} by the vault's clock; name a later time, or none")));
    }
    let hold =
        Hold { nonce: layout::nonce(), by: by.into(), reason: reason.into(), at, until, of_run: false };
    take(vault, backup, name, hold).await
}

/// Holds `backup` for as long as `task` may run, to `purpose` ("restore", "verify").
///
/// # Errors
/// As [`hold`]; `Denied` where the vault cannot be written to: the caller decides whether to go on without.
pub async fn hold_for(vault: &Vault, backup: &BackupRef, purpose: &str, task: &Task) -> Result<Held> {
    let at = task.guard(vault.store.now()).await?;
    let left = task.deadline.saturating_sub(task.clock.monotonic());
    let until = at.checked_add(left + MARGIN).ok();
    let hold = Hold {
        nonce: layout::nonce(),
        by: task.run.to_string(),
        reason: purpose.into(),
        at,
        until,
        of_run: true,
    };
    // One run may read the same backup twice, one after the other: each time has its own hold.
    let name = format!("{}.{}", layout::slug(&task.run), hold.nonce);
    task.guard(take(vault, backup, &name, hold)).await
}

async fn take(vault: &Vault, backup: &BackupRef, name: &str, hold: Hold) -> Result<Held> {
    let key = layout::marker(Marker::Hold, backup, name);
    match decide(&*vault.store, &*vault.clock, &key, &hold).await? {
        Decision::Ours => {}
        Decision::Theirs(other) => {
            let why = format!("{} holds it under the same name, for: {}", other.by, other.reason);
            return Err(Error::new(Kind::Conflict, format!("holding {backup}"), why));
        }
    }
    let held = Held { vault: vault.clone(), key, backup: backup.clone() };
    match fate::object(vault, backup, &format!("held by {}: {}", hold.by, hold.reason)).await {
        Ok(()) => Ok(held),
        Err(error) => {
            // A hold left behind here keeps a backup too long at worst; the error that counts is the other.
            let _ = held.release().await;
            Err(error)
        }
    }
}

/// Ends all holds that operators have on `backup`, and tells how many there were. Those of runs stay.
///
/// # Errors
/// Those of the store; nothing is ended if one of the holds cannot be read.
pub async fn unhold(vault: &Vault, backup: &BackupRef) -> Result<usize> {
    let holds = holds(vault, backup).await?;
    let mut ours = Vec::new();
    for (key, hold) in holds {
        if !hold?.of_run {
            ours.push(key);
        }
    }
    for key in &ours {
        vault.store.delete(key).await?;
    }
    Ok(ours.len())
}

/// The holds on `backup`, fresh from the store; one that cannot be read is there all the same.
pub async fn holds(vault: &Vault, backup: &BackupRef) -> Result<Vec<(Key, Result<Hold>)>> {
    let mut holds = Vec::new();
    for entry in list_all(&*vault.store, &layout::markers_of(Marker::Hold, backup)).await? {
        match read_json::<Hold>(&*vault.store, &entry.key).await {
            Ok(Some(hold)) => holds.push((entry.key, Ok(hold))),
            Ok(None) => {}
            Err(error) => holds.push((entry.key, Err(error))),
        }
    }
    Ok(holds)
}

/// Who holds `backup` at `now`, in words; none: nobody. One that cannot be read holds.
pub async fn holder(vault: &Vault, backup: &BackupRef, now: Timestamp) -> Result<Option<String>> {
    let active = |(key, hold): (Key, Result<Hold>)| match hold {
        Ok(hold) => hold.is_active(now).then(|| format!("held by {}: {}", hold.by, hold.reason)),
        Err(error) => Some(format!("the hold {key} cannot be read: {}", error.why())),
    };
    Ok(holds(vault, backup).await?.into_iter().find_map(active))
}
