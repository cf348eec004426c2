//! Is a new backup too good to be true, or too small? Pure.
//!
//! A Redis that was flushed, a cluster whose API hid half of its groups, an export that ran into the wrong namespace:
//! each gives a backup that is in perfect order, and worthless. Such a backup is stored, but as `suspect`: it does not
//! count in any retention rule until an operator accepts it.

use super::manifest::{Omission, Status};

/// A backup is measured by so many good ones before it: more than a day of them at every 6 h, so that data that comes
/// and goes with the hour (sessions, caches) is compared with its quiet hours too.
pub const PREDECESSORS: usize = 5;

/// Below a half of the *smallest* predecessor is far smaller. Sources shrink by TTLs, deletions and clean-ups; that one
/// loses half against the quietest of five is an accident, or news that deserve an operator's word.
const ITEMS_LEFT: (u64, u64) = (1, 2);

/// Bytes say less than counts (one large value comes and goes), so they must fall below a quarter, ...
const BYTES_LEFT: (u64, u64) = (1, 4);

/// ... and of no less than this: below, headers and rounding weigh more than data.
const BYTES_THAT_COUNT: u64 = 1 << 20;

/// How much a backup holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Items (keys, documents, objects).
    pub items: u64,
    /// Plain bytes of all artifacts.
    pub bytes: u64,
}

/// The status a new backup deserves, and why if it is not `complete`. `predecessors` are the good backups before it,
/// newest first, as [`baseline`](super::catalog::baseline) gives them.
pub fn judge(new: Size, omissions: &[Omission], predecessors: &[Size]) -> (Status, Option<String>) {
    if let Some(suspicion) = suspicion(new, predecessors) {
        return (Status::Suspect, Some(suspicion));
    }
    match omissions {
        [] => (Status::Complete, None),
        [only] => (Status::Partial, Some(format!("without {}: {}", only.what, only.why))),
        [first, rest @ ..] => {
            let why = format!("without {} ({}) and {} more", first.what, first.why, rest.len());
            (Status::Partial, Some(why))
        }
    }
}

fn suspicion(new: Size, predecessors: &[Size]) -> Option<String> {
    let seen = &predecessors[..predecessors.len().min(PREDECESSORS)];
    let last = seen.first()?;
    if new.items == 0 && last.items > 0 {
        return Some(format!("it is empty, and the one before had {} items", last.items));
    }
    let items = seen.iter().map(|size| size.items).min()?;
    if is_below(new.items, ITEMS_LEFT, items) {
        return Some(format!(
            "{} items, less than half of the fewest ({items}) among the {} good ones before",
            new.items,
            seen.len()
        ));
    }
    let bytes = seen.iter().map(|size| size.bytes).min()?;
    if bytes >= BYTES_THAT_COUNT && is_below(new.bytes, BYTES_LEFT, bytes) {
        return Some(format!(
            "{} bytes, less than a quarter of the fewest ({bytes}) among the {} good ones before",
            new.bytes,
            seen.len()
        ));
    }
    None
}

fn is_below(part: u64, (share, of): (u64, u64), whole: u64) -> bool {
    u128::from(part) * u128::from(of) < u128::from(whole) * u128::from(share)
}
