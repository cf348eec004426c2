//! Whether the time can be trusted. Pure.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::clock::Clock;
use crate::error::{Error, Kind, Result};

/// How far two clocks may be apart: more than any drift or slow answer, less than anything that matters here.
const APART: SignedDuration = SignedDuration::from_mins(5);

/// For how long a jump of the wall clock is remembered: whoever set it may not be done.
const SETTLE: Duration = Duration::from_secs(15 * 60);

/// Remembers how the wall clock ran beside the monotonic one.
#[derive(Debug)]
pub struct Steady {
    /// What the wall clock showed when the monotonic one showed zero.
    zero: Timestamp,
    /// The monotonic time of the last jump.
    jumped: Option<Duration>,
}

impl Steady {
    /// What the clock shows now is the measure of what follows.
    pub fn new(clock: &dyn Clock) -> Self {
        Steady { zero: zero(clock.now(), clock.monotonic()), jumped: None }
    }

    /// Passes while the wall clock neither jumped lately nor disagrees with the store's.
    ///
    /// # Errors
    /// `Clock`.
    pub fn check(&mut self, wall: Timestamp, monotonic: Duration, store: Timestamp) -> Result<()> {
        let now_zero = zero(wall, monotonic);
        if now_zero.duration_since(self.zero).abs() > APART {
            self.jumped = Some(monotonic);
            self.zero = now_zero;
        }
        let apart = wall.duration_since(store);
        if apart.abs() > APART {
            return Err(untrusted(format!("it is {apart:#} away from the store's clock")));
        }
        match self.jumped {
            Some(at) if monotonic.saturating_sub(at) < SETTLE => {
                Err(untrusted("the wall clock was set within the last 15 minutes".to_owned()))
            }
            _ => Ok(()),
        }
    }
}

fn zero(wall: Timestamp, monotonic: Duration) -> Timestamp {
    wall.checked_sub(monotonic).unwrap_or(Timestamp::MIN)
}

fn untrusted(why: String) -> Error {
    Error::new(Kind::Clock, "trusting the clock", why).hint("let NTP or chrony set this machine's clock")
}
