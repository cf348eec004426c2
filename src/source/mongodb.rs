//! MongoDB: dumped as the stock tools lay files out, its oplog followed, restored to any second of it.

use async_trait::async_trait;
use jiff::Timestamp;
use serde_json::{Map, Value};

use self::config::Settings;
use self::optime::OpTime;
use self::restore::MongoTarget;
use self::source::MongoSource;
use crate::config::SourceName;
use crate::config::node::{Node, Problem};
use crate::error::Result;
use crate::source::{Configured, Extracted, Format, Kind, Outlet, Permission, Role, Source, Target};
use crate::task::Task;
use crate::vault::layout::log::Position;
use crate::vault::reader::BackupReader;
use crate::vault::timeline::Framing;

pub mod archive;
pub mod backup;
pub mod blueprint;
pub mod client;
pub mod collections;
pub mod compare;
pub mod config;
pub mod consistency;
pub mod cursor;
pub mod difference;
pub mod digest;
pub mod documents;
pub mod dump;
pub mod extjson;
pub mod extract;
pub mod facts;
pub mod failure;
pub mod follow;
pub mod hosts;
pub mod indexes;
pub mod inspect;
pub mod metadata;
pub mod namespace;
pub mod oplog;
pub mod optime;
pub mod perform;
pub mod permissions;
pub mod plan;
pub mod preflight;
pub mod ranges;
pub mod raw;
pub mod record;
pub mod replay;
pub mod restore;
pub mod selection;
pub mod source;
pub mod steady;
pub mod survey;
pub mod users;
pub mod wish;

/// The kind of source that MongoDB is.
#[derive(Clone, Copy, Debug)]
pub struct MongoDb;

#[async_trait]
impl Kind for MongoDb {
    fn name(&self) -> &'static str {
        "mongodb"
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

    async fn extract(
        &self,
        from: &BackupReader,
        format: &Format,
        to: Outlet<'_>,
        task: &Task,
    ) -> Result<Vec<Extracted>> {
        extract::extract(from, format, to, task).await
    }

    /// Collections that are there are in the way unless they are dropped.
    fn restore_again(&self, options: &mut Map<String, Value>) {
        options.insert("drop".to_owned(), Value::Bool(true));
        // How fast it is done changes nothing.
        options.remove("workers");
        for name in ["include", "rename"] {
            if let Some(one) = options.get_mut(name).filter(|given| given.is_string()) {
                *one = Value::Array(vec![one.take()]);
            }
        }
    }

    /// What is there under names that the backup does not have stays: of another backup, or renamed.
    fn makes_up(
        &self,
        options: &Map<String, Value>,
        before: &Map<String, Value>,
        is_same_moment: bool,
    ) -> bool {
        let is_whole = !["include", "rename"].iter().any(|name| options.contains_key(*name));
        is_whole && is_same_moment && !before.contains_key("rename")
    }

    fn framing(&self) -> Framing {
        oplog::entry::record_length
    }

    fn moment(&self, position: Position) -> Option<Timestamp> {
        Some(OpTime::from(position).moment())
    }

    fn position_at(&self, moment: Timestamp) -> Option<Position> {
        OpTime::last_of(moment).map(OpTime::position)
    }
}

impl Configured for Settings {
    fn kind(&self) -> &'static str {
        MongoDb.name()
    }

    fn source(&self) -> Box<dyn Source> {
        Box::new(MongoSource::new(self.clone()))
    }

    fn target(&self) -> Box<dyn Target> {
        Box::new(MongoTarget::new(self.clone()))
    }

    fn permissions(&self, role: Role) -> Vec<Permission> {
        permissions::permissions(self, role)
    }
}
