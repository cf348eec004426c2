//! One restore at a time into one target: `claims/<target>/<n>.json`, created like everything that decides.
//!
//! A claim holds until it is released, until the attempt that made it has ended, or until its deadline plus a margin has
//! passed by the store's clock, whichever comes first. Who holds it notes beside it that the target is written to from then
//! on, and at the end that what is there counts: see [`unsettled`](super::unsettled).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::run::RunId;
use crate::error::{Error, Kind, Result};
use crate::task::MARGIN;
use crate::vault::Vault;
use crate::vault::decide::{Deciding, Decision, decide, read_json};
use crate::vault::layout;
use crate::vault::layout::claims::{self as keys, ClaimNote};
use crate::vault::store::list_all;

/// `claims/<target>/<n>.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// Of this object alone.
    pub nonce: String,
    /// The target's identity.
    pub identity: String,
    /// The target, for people.
    pub label: String,
    /// Which run holds it.
    pub run: RunId,
    /// In which attempt.
    pub attempt: u32,
    /// Until when, by the store's clock.
    pub deadline: Timestamp,
    /// Since when, by the holder's clock.
    pub at: Timestamp,
}

impl Deciding for Claim {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

impl Claim {
    /// What the second one is told.
    pub fn refusal(&self) -> Error {
        let why = format!("run {} restores into it since {}", self.run, self.at);
        let hint = format!(
            "wait for it (`tidekeeper runs watch {0}`) or end it (`tidekeeper runs cancel {0}`)",
            self.run
        );
        Error::new(Kind::Conflict, format!("claiming {}", self.label), why).hint(hint)
    }

    /// What one is told that waited for another: what it was to replace is not what was looked at.
    pub fn overtook(&self) -> Error {
        let why = format!(
            "run {} claimed it at {}, after this was asked for, and may have restored into it",
            self.run, self.at
        );
        let hint =
            "nothing was touched; look at what is there now, and plan the restore anew if it is still wanted";
        Error::new(Kind::Conflict, format!("claiming {}", self.label), why).hint(hint)
    }
}

/// `claims/<target>/<n>.touched.json`, `.settled.json` and `.released.json`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Note {
    nonce: String,
    at: Timestamp,
    /// Who says so, where it is not the claim's own attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<String>,
}

impl Deciding for Note {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

/// A claim that is wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The target's identity.
    pub identity: &'a str,
    /// The target, for people.
    pub label: &'a str,
    /// For which run.
    pub run: &'a RunId,
    /// In which attempt.
    pub attempt: u32,
    /// When the run was asked for, by the asker's clock.
    pub asked_at: Timestamp,
    /// Until when, by the store's clock.
    pub deadline: Timestamp,
}

/// How a claim went.
#[derive(Clone, Debug)]
#[must_use]
pub enum Claimed {
    /// It is ours.
    Ours(Held),
    /// Somebody holds it.
    Theirs(Claim),
    /// Somebody held it after ours was asked for: sent twice, or by two people, the second restore would undo what
    /// was written since the first.
    Overtaken(Claim),
}

/// A claim that is ours.
#[derive(Clone, Debug)]
#[must_use]
pub struct Held {
    identity: String,
    n: u64,
}

/// Claims a target.
pub async fn claim(vault: &Vault, wanted: &Wanted<'_>) -> Result<Claimed> {
    let newest = newest(vault, wanted.identity).await?;
    if let Some((n, released)) = newest
        && let Some(last) = read_json::<Claim>(vault.store.as_ref(), &keys::claim(wanted.identity, n)).await?
    {
        // Our own, made by a call whose answer got lost: the same claim.
        let ours = last.run == *wanted.run && last.attempt == wanted.attempt;
        match (ours, !released && holds(vault, &last).await?) {
            (true, true) => return Ok(Claimed::Ours(Held { identity: last.identity, n })),
            (false, true) => return Ok(Claimed::Theirs(last)),
            (false, false) if last.at > wanted.asked_at => return Ok(Claimed::Overtaken(last)),
            _ => {}
        }
    }
    let n = newest.map_or(1, |(n, _)| n + 1);
    let claim = Claim {
        nonce: layout::nonce(),
        identity: wanted.identity.to_owned(),
        label: wanted.label.to_owned(),
        run: wanted.run.clone(),
        attempt: wanted.attempt,
        deadline: wanted.deadline,
        at: vault.clock.now(),
    };
    let key = keys::claim(wanted.identity, n);
    match decide(vault.store.as_ref(), vault.clock.as_ref(), &key, &claim).await? {
        Decision::Ours => Ok(Claimed::Ours(Held { identity: claim.identity, n })),
        Decision::Theirs(theirs) => Ok(Claimed::Theirs(theirs)),
    }
}

/// Who holds a target now.
pub async fn holder(vault: &Vault, identity: &str) -> Result<Option<Claim>> {
    let Some((n, false)) = newest(vault, identity).await? else { return Ok(None) };
    let claim = read_json::<Claim>(vault.store.as_ref(), &keys::claim(identity, n)).await?;
    match claim {
        Some(claim) => Ok(holds(vault, &claim).await?.then_some(claim)),
        None => Ok(None),
    }
}

/// The newest claim's number, and whether it was released.
async fn newest(vault: &Vault, identity: &str) -> Result<Option<(u64, bool)>> {
    let entries = list_all(vault.store.as_ref(), &keys::claims(identity)).await?;
    let mut newest = None;
    for (_, n, note) in entries.iter().filter_map(|entry| keys::claim_of(&entry.key)) {
        newest = newest.max(Some((n, note == Some(ClaimNote::Released))));
    }
    Ok(newest)
}

/// Says something of a claim, once: saying it again changes nothing.
pub(super) async fn note(
    vault: &Vault,
    (identity, n): (&str, u64),
    note: ClaimNote,
    by: Option<&str>,
) -> Result<()> {
    let said = Note { nonce: layout::nonce(), at: vault.clock.now(), by: by.map(str::to_owned) };
    let key = keys::claim_note(identity, n, note);
    let _ = decide(vault.store.as_ref(), vault.clock.as_ref(), &key, &said).await?;
    Ok(())
}

async fn holds(vault: &Vault, claim: &Claim) -> Result<bool> {
    let store = vault.store.as_ref();
    if store.stat(&layout::finished(&claim.run, claim.attempt)).await?.is_some() {
        return Ok(false);
    }
    Ok(store.now().await? <= claim.deadline + MARGIN)
}

impl Held {
    /// Which target is claimed.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// From now on the target is written to.
    pub async fn touch(&self, vault: &Vault) -> Result<()> {
        note(vault, (&self.identity, self.n), ClaimNote::Touched, None).await
    }

    /// What the target holds now is what it was to hold.
    pub async fn settle(&self, vault: &Vault) -> Result<()> {
        note(vault, (&self.identity, self.n), ClaimNote::Settled, None).await
    }

    /// Gives the target free; doing so twice changes nothing.
    pub async fn release(&self, vault: &Vault) -> Result<()> {
        note(vault, (&self.identity, self.n), ClaimNote::Released, None).await
    }
}
