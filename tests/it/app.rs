//! What the app wires, with a kind of source that is made up and keeps a log.

mod brook;
pub mod seed;
mod stage;
mod timelines;
mod unsettled;
