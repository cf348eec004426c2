//! Redis and Valkey: backed up as a replica, restored as a master.

pub mod crc64;
pub mod rdb;
