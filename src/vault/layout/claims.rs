//! The keys of claims: who restores into which target, and what became of that.

use super::digest;
use crate::vault::store::Key;

/// `claims/`
pub const CLAIMS: &str = "claims/";

/// `claims/<target>/`; `<target>` is the [`digest`] of the target's identity, which may be any text.
pub fn claims(identity: &str) -> String {
    format!("{CLAIMS}{}/", digest(&[identity]))
}

/// `claims/<target>/<n>.json`; ten digits, so that they list in order.
pub fn claim(identity: &str, n: u64) -> Key {
    Key::new(format!("{}{n:010}.json", claims(identity)))
}

/// `claims/<target>/<n>.<note>.json`
pub fn claim_note(identity: &str, n: u64, note: ClaimNote) -> Key {
    Key::new(format!("{}{n:010}.{}.json", claims(identity), note.as_str()))
}

/// What is said of a claim after it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClaimNote {
    /// From then on its target was written to.
    Touched,
    /// What the target holds counts again.
    Settled,
    /// The target is free.
    Released,
}

impl ClaimNote {
    const ALL: [ClaimNote; 3] = [ClaimNote::Touched, ClaimNote::Settled, ClaimNote::Released];

    fn as_str(self) -> &'static str {
        match self {
            ClaimNote::Touched => "touched",
            ClaimNote::Settled => "settled",
            ClaimNote::Released => "released",
        }
    }
}

/// The `<target>` and the `<n>` of a claim's key, and which note beside the claim it is.
pub fn claim_of(key: &Key) -> Option<(&str, u64, Option<ClaimNote>)> {
    let (target, file) = key.as_str().strip_prefix(CLAIMS)?.split_once('/')?;
    let (n, rest) = file.strip_suffix(".json")?.split_at_checked(10)?;
    let note = match rest {
        "" => None,
        rest => Some(ClaimNote::ALL.into_iter().find(|note| rest.strip_prefix('.') == Some(note.as_str()))?),
    };
    Some((target, n.parse().ok()?, note))
}
