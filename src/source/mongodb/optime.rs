//! A place in the oplog: seconds since the epoch, and an increment that tells apart what was written in one second.

use std::fmt;

use jiff::Timestamp;
use mongodb::bson;
use serde::{Deserialize, Serialize};

use crate::vault::layout::log::Position;

/// A BSON timestamp as the oplog uses it: unique to each entry of a replica set, growing in the order of the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct OpTime {
    /// Seconds since the epoch.
    pub seconds: u32,
    /// Counts from 1 within the second.
    pub increment: u32,
}

impl OpTime {
    /// Before everything.
    pub const ZERO: OpTime = OpTime { seconds: 0, increment: 0 };

    /// The last that an entry of this second can have.
    pub fn last_of(moment: Timestamp) -> Option<OpTime> {
        let seconds = u32::try_from(moment.as_second()).ok()?;
        Some(OpTime { seconds, increment: u32::MAX })
    }

    /// Its second, as a moment.
    pub fn moment(self) -> Timestamp {
        Timestamp::from_second(i64::from(self.seconds)).expect("32 bits of seconds are in our era")
    }

    /// For people: a cut that takes a whole second is that second, any other is an entry of the log.
    pub fn in_words(self) -> String {
        match self.increment {
            u32::MAX => self.moment().to_string(),
            _ => self.to_string(),
        }
    }

    /// The same as the moment that data is of.
    pub fn moment_in_words(self) -> String {
        match self.increment {
            u32::MAX => self.moment().to_string(),
            _ => format!("{} ({self} in the log)", self.moment()),
        }
    }

    /// As a timeline's position.
    pub fn position(self) -> Position {
        Position(u64::from(self.seconds) << 32 | u64::from(self.increment))
    }
}

impl From<Position> for OpTime {
    fn from(position: Position) -> Self {
        OpTime { seconds: (position.0 >> 32) as u32, increment: position.0 as u32 }
    }
}

impl From<bson::Timestamp> for OpTime {
    fn from(stamp: bson::Timestamp) -> Self {
        OpTime { seconds: stamp.time, increment: stamp.increment }
    }
}

impl From<OpTime> for bson::Timestamp {
    fn from(at: OpTime) -> Self {
        bson::Timestamp { time: at.seconds, increment: at.increment }
    }
}

/// `1764301234:5`, as the server's own tools print it.
impl fmt::Display for OpTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.seconds, self.increment)
    }
}
