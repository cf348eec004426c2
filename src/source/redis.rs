//! Redis and Valkey: backed up as a replica, restored as a master.

pub mod crc64;
pub mod glob;
pub mod master;
pub mod pipeline;
pub mod preflight;
pub mod rdb;
pub mod server;
pub mod survey;
pub mod wish;
