//! The real binary, command by command: what it prints, and its exit codes.

mod arguments;
mod human;
mod look;
mod moment;
mod restore;
mod timeline;
mod upkeep;
mod vault;
