//! The oplog: what a replica set writes down of every change, as raw documents.
//!
//! A *record* is all entries of one ts, one after the other: one entry on a server that gives each its own; some compatible
//! servers write the operations of a transaction as entries that share one. Positions of records grow strictly.

pub mod backlog;
pub mod entry;
pub mod query;
pub mod records;
pub mod tail;
pub mod transactions;
