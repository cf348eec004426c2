//! Redis and Valkey: backed up as a replica, restored as a master.

use async_trait::async_trait;
use serde_json::{Map, Value};

use self::config::Settings;
use self::restore::RedisTarget;
use self::source::RedisSource;
use crate::config::SourceName;
use crate::config::node::{Node, Problem};
use crate::error::Result;
use crate::source::{Configured, Extracted, Format, Kind, Outlet, Permission, Role, Source, Target};
use crate::task::Task;
use crate::vault::reader::BackupReader;

pub mod address;
pub mod backup;
pub mod cluster;
pub mod commands;
pub mod compare;
pub mod config;
pub mod connection;
pub mod crc64;
pub mod estate;
pub mod extract;
pub mod feed;
pub mod glob;
pub mod hello;
pub mod inspect;
pub mod master;
pub mod origin;
pub mod permissions;
pub mod pipeline;
pub mod plan;
pub mod preflight;
pub mod rdb;
pub mod replica;
pub mod replicate;
pub mod reply;
pub mod restore;
pub mod sentinel;
pub mod server;
pub mod source;
pub mod survey;
pub mod tls;
pub mod wish;

/// The kind of source that Redis is.
#[derive(Clone, Copy, Debug)]
pub struct Redis;

#[async_trait]
impl Kind for Redis {
    fn name(&self) -> &'static str {
        "redis"
    }

    fn schema(&self) -> Value {
        config::schema()
    }

    fn configure(&self, name: &SourceName, part: &Node) -> Result<Box<dyn Configured>, Vec<Problem>> {
        Ok(Box::new(config::read(name, part)?))
    }

    fn formats(&self) -> &'static [Format] {
        &extract::FORMATS
    }

    /// Some of the keys that are wanted may be there already.
    fn restore_again(&self, options: &mut Map<String, Value>) {
        if options.contains_key("keys") {
            options.insert("replace".to_owned(), Value::Bool(true));
        }
    }

    fn makes_up(&self, options: &Map<String, Value>, _: &Map<String, Value>, _: bool) -> bool {
        !options.contains_key("keys")
    }

    async fn extract(
        &self,
        from: &BackupReader,
        _: &Format,
        to: Outlet<'_>,
        task: &Task,
    ) -> Result<Vec<Extracted>> {
        extract::extract(from, to, task).await
    }
}

impl Configured for Settings {
    fn kind(&self) -> &'static str {
        Redis.name()
    }

    fn source(&self) -> Box<dyn Source> {
        Box::new(RedisSource::new(self.clone()))
    }

    fn target(&self) -> Box<dyn Target> {
        Box::new(RedisTarget::new(self.clone()))
    }

    fn permissions(&self, role: Role) -> Vec<Permission> {
        permissions::permissions(self, role)
    }
}
