//! Redis and Valkey: backed up as a replica, restored as a master.

pub mod address;
pub mod commands;
pub mod compare;
pub mod config;
pub mod connection;
pub mod crc64;
pub mod estate;
pub mod extract;
pub mod feed;
pub mod glob;
pub mod master;
pub mod pipeline;
pub mod plan;
pub mod preflight;
pub mod rdb;
pub mod replicate;
pub mod reply;
pub mod restore;
pub mod sentinel;
pub mod server;
pub mod survey;
pub mod tls;
pub mod wish;
