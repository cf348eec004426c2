//! Restores a backup into a running deployment: plans it, checks it again, does it.

use async_trait::async_trait;
use jiff::Timestamp;

use super::client::{Link, Server};
use super::config::Settings;
use crate::error::{Error, Kind, Result};
use crate::source::{Check, Identity, RestorePlan, Restored, Target, Wish};
use crate::task::Task;
use crate::vault::reader::BackupReader;

/// A MongoDB that is restored into.
#[derive(Debug)]
pub struct MongoTarget {
    settings: Settings,
}

impl MongoTarget {
    /// The target that these settings name; nothing is dialled.
    pub fn new(settings: Settings) -> Self {
        MongoTarget { settings }
    }
}

#[async_trait]
impl Target for MongoTarget {
    async fn identity(&self, task: &Task) -> Result<Identity> {
        let asked = async {
            let link = Link::open(&self.settings, &task.clock).await?;
            let server = Server::ask(&link).await?;
            Ok(server.identity(&link, self.settings.name.as_str()))
        };
        task.guard(asked).await
    }

    async fn plan_restore(
        &self,
        _: &BackupReader,
        _: Option<Timestamp>,
        _: &Wish,
        _: &Task,
    ) -> Result<RestorePlan> {
        Err(Error::new(Kind::Internal, "planning", "not built yet"))
    }

    async fn restore(&self, _: &BackupReader, _: &RestorePlan, _: &Task) -> Result<Restored> {
        Err(Error::new(Kind::Internal, "restoring", "not built yet"))
    }

    async fn compare(&self, _: &BackupReader, _: &Task) -> Result<Vec<Check>> {
        Err(Error::new(Kind::Internal, "comparing", "not built yet"))
    }
}
