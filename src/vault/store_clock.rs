//! Whether time can be trusted enough to delete by it.
//!
//! Ages are counted by the store's clock, which no other daemon's fault can move. It is believed only while three
//! witnesses agree: our wall clock, our monotonic clock, and the newest object that the store holds. Where the vault is
//! a directory the store's clock is our own, and the last two are all there is.

use std::sync::Mutex;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::store::Store;
use crate::clock::SharedClock;
use crate::error::Result;

/// The farthest that the store's clock and ours may be apart before nothing is deleted any more; also the largest step of
/// the wall clock that is not a jump. S3 itself refuses requests that are 15 min off.
pub const TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// How long the wall clock must run evenly after a jump: the default grace, so that no proposal made before a jump
/// can ripen by it.
pub const STEADY: Duration = Duration::from_secs(24 * 3600);

/// How far the newest object may lie ahead of the store's clock: both are in whole seconds, of several machines.
const ROUNDING: Duration = Duration::from_secs(5);

/// Whether time can be trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// It can.
    Yes,
    /// It cannot, because of this: no tombstone, no verdict, no deletion, nothing abandoned.
    No(String),
}

/// What the store's clock shows, and whether to believe it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The store's time.
    pub now: Timestamp,
    /// Whether anything may be deleted by it.
    pub trust: Trust,
}

/// Watches the clocks of one process; share it.
#[derive(Debug)]
pub struct StoreClock {
    clock: SharedClock,
    watch: Mutex<Watch>,
}

/// The last look at our own clocks, and the last jump that was seen.
#[derive(Clone, Copy, Debug)]
struct Watch {
    wall: Timestamp,
    monotonic: Duration,
    jumped: Option<(Duration, SignedDuration)>,
}

impl StoreClock {
    /// Begins to watch `clock`.
    pub fn new(clock: SharedClock) -> Self {
        let watch = Watch { wall: clock.now(), monotonic: clock.monotonic(), jumped: None };
        StoreClock { clock, watch: Mutex::new(watch) }
    }

    /// Reads the store's clock. `newest` is the latest creation time among all objects seen *before* this call.
    ///
    /// # Errors
    /// Those of [`Store::now`].
    pub async fn read(&self, store: &dyn Store, newest: Option<Timestamp>) -> Result<Reading> {
        let now = store.now().await?;
        // Ours last: a slow answer then makes the store look behind by no more than it took.
        let (wall, monotonic) = (self.clock.now(), self.clock.monotonic());
        let jumped = self.watch.lock().expect("no holder panics").look(wall, monotonic);
        Ok(Reading { now, trust: judge(now, wall, newest, jumped) })
    }
}

impl Watch {
    /// Looks at the clocks again; tells by how much the wall clock jumped, if that is not long enough ago.
    fn look(&mut self, wall: Timestamp, monotonic: Duration) -> Option<SignedDuration> {
        let by_wall = wall.duration_since(self.wall);
        let by_monotonic =
            SignedDuration::try_from(monotonic - self.monotonic).unwrap_or(SignedDuration::MAX);
        let jump = by_wall.saturating_sub(by_monotonic);
        if jump.unsigned_abs() > TOLERANCE {
            self.jumped = Some((monotonic, jump));
            (self.wall, self.monotonic) = (wall, monotonic);
        }
        let (at, by) = self.jumped?;
        (monotonic - at < STEADY).then_some(by)
    }
}

fn judge(
    now: Timestamp,
    wall: Timestamp,
    newest: Option<Timestamp>,
    jumped: Option<SignedDuration>,
) -> Trust {
    let apart = wall.duration_since(now).abs();
    if apart.unsigned_abs() > TOLERANCE {
        return Trust::No(format!(
            "the vault's clock shows {now} and this machine's {wall}: {apart:#} apart; \
             set the wrong one right"
        ));
    }
    if let Some(by) = jumped {
        let (way, by) = if by.is_negative() { ("back", by.abs()) } else { ("ahead", by) };
        return Trust::No(format!(
            "this machine's clock jumped {way} by {by:#}; \
             it must run evenly for 24 h before anything is deleted by it"
        ));
    }
    match newest {
        Some(newest) if newest.duration_since(now) > SignedDuration::from_secs(ROUNDING.as_secs() as i64) => {
            Trust::No(format!(
                "the newest object in the vault is of {newest}, and its clock shows {now} only"
            ))
        }
        _ => Trust::Yes,
    }
}
