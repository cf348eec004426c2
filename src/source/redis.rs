//! Redis and Valkey: backed up as a replica, restored as a master.

pub mod address;
pub mod config;
pub mod connection;
pub mod crc64;
pub mod rdb;
pub mod reply;
pub mod tls;
