//! Redis and Valkey: backed up as a replica, restored as a master.

pub mod address;
pub mod backup;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod crc64;
pub mod hello;
pub mod info;
pub mod inspect;
pub mod origin;
pub mod permissions;
pub mod rdb;
pub mod replica;
pub mod reply;
pub mod sentinel;
pub mod source;
pub mod tls;
