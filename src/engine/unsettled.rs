//! Restores that began to write and have not come to their end: what their targets hold is neither what it was nor what it
//! was to be. Until such a restore is done, by whomever, or given up, no backup of that system counts as good by itself.

use std::collections::{BTreeMap, BTreeSet};

use super::claims::{self, Claim};
use super::run::{End, RunId, Try};
use super::work::Order;
use super::{Engine, ledger, recovery};
use crate::config::SourceName;
use crate::error::Result;
use crate::vault::Vault;
use crate::vault::decide::{read_json, set_aside};
use crate::vault::layout::claims::{CLAIMS, ClaimNote, claim_of};
use crate::vault::store::{Key, list_all};

/// A restore whose target was written to.
#[derive(Clone, Debug)]
pub struct Touch {
    /// Into which target.
    pub claim: Claim,
    /// What was ordered.
    pub order: Order,
    /// Whether it is still at it.
    pub under_way: bool,
    /// How it ended, if it has.
    pub ended: Option<End>,
    n: u64,
}

impl Touch {
    /// Whether what it wrote to is the system of this name, or of this identity: a system may have several names, and some
    /// get another identity when they are started again.
    pub fn is_of(&self, name: &SourceName, identity: Option<&str>) -> bool {
        self.order.source.as_ref() == Some(name) || identity == Some(self.claim.identity.as_str())
    }
}

/// Touched claims as a listing shows them, by the claim's key; and whether each is settled.
type Listed = BTreeMap<Key, bool>;

/// The restores that need not be minded: they were over before somebody looked.
#[derive(Clone, Debug, Default)]
pub struct Quiet(BTreeSet<Key>);

impl Engine {
    /// The restores that have written, and whose targets nobody can rely on. The listing of claims is all that is asked for
    /// where there are none.
    pub async fn unsettled(&self) -> Result<Vec<Touch>> {
        Ok(self.look_at_touches().await?.0)
    }

    /// What may be overlooked by a backup that begins now.
    pub async fn quiet(&self) -> Result<Quiet> {
        Ok(Quiet(self.look_at_touches().await?.1))
    }

    /// The restores that have written to anything since `quiet`, or were at it then.
    pub async fn touched_since(&self, quiet: &Quiet) -> Result<Vec<Touch>> {
        let mut touched = Vec::new();
        for key in listed(&self.0.vault).await?.into_keys().filter(|key| !quiet.0.contains(key)) {
            touched.extend(self.touch(&key).await?);
        }
        Ok(touched)
    }

    async fn look_at_touches(&self) -> Result<(Vec<Touch>, BTreeSet<Key>)> {
        let (mut unsettled, mut quiet) = (Vec::new(), BTreeSet::new());
        for (key, settled) in listed(&self.0.vault).await? {
            let open = if settled { None } else { self.touch(&key).await? };
            // One that has done its work, and could not say that it counts.
            match open.filter(|touch| touch.ended != Some(End::Succeeded)) {
                Some(touch) => unsettled.push(touch),
                None => drop(quiet.insert(key)),
            }
        }
        Ok((unsettled, quiet))
    }

    async fn touch(&self, key: &Key) -> Result<Option<Touch>> {
        let Some((_, n, _)) = claim_of(key) else { return Ok(None) };
        let reading = async {
            let Some(claim) = read_json::<Claim>(&*self.0.vault.store, key).await? else { return Ok(None) };
            let attempt = ledger::attempt(&self.0.vault, &claim.run, claim.attempt).await?;
            Ok(attempt.map(|attempt| (claim, attempt)))
        };
        let mut unreadable = Vec::new();
        let read = set_aside(reading.await, &mut unreadable)?.flatten();
        for error in unreadable {
            tracing::warn!(%error, "whether a restore came to its end cannot be told");
        }
        let Some((claim, Try { started, finished })) = read else { return Ok(None) };
        let under_way = finished.is_none() && !recovery::is_gone(self, &started).await?;
        let ended = finished.map(|finished| finished.outcome);
        Ok(Some(Touch { claim, order: started.order, under_way, ended, n }))
    }

    /// Says of all these that what their targets hold counts again; `by` is who says so.
    pub(super) async fn settle(&self, touches: impl Iterator<Item = &Touch>, by: &str) -> Result<()> {
        for touch in touches {
            let claim = (touch.claim.identity.as_str(), touch.n);
            claims::note(&self.0.vault, claim, ClaimNote::Settled, Some(by)).await?;
        }
        Ok(())
    }

    /// Gives up a restore that is over and had begun to write: what is there is to stay. Whether there was such a thing.
    pub(super) async fn give_up(&self, run: &RunId, principal: &str) -> Result<bool> {
        let touches = self.unsettled().await?;
        let of_run: Vec<&Touch> = touches.iter().filter(|touch| touch.claim.run == *run).collect();
        self.settle(of_run.iter().copied(), principal).await?;
        Ok(!of_run.is_empty())
    }
}

async fn listed(vault: &Vault) -> Result<Listed> {
    let (mut touched, mut settled, mut claims) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
    for entry in list_all(&*vault.store, CLAIMS).await? {
        let Some((target, n, note)) = claim_of(&entry.key) else { continue };
        let of = (target.to_owned(), n);
        match note {
            None => drop(claims.insert(of, entry.key)),
            Some(ClaimNote::Touched) => drop(touched.insert(of)),
            Some(ClaimNote::Settled) => drop(settled.insert(of)),
            Some(ClaimNote::Released) => {}
        }
    }
    let is_settled = |of: &(String, u64)| settled.contains(of);
    let all = touched.into_iter().map(|of| (is_settled(&of), claims.remove(&of)));
    Ok(all.filter_map(|(settled, key)| Some((key?, settled))).collect())
}
