//! A Redis as a source.

use async_trait::async_trait;
use serde_json::Value;

use super::config::Settings;
use super::{backup, inspect};
use crate::error::Result;
use crate::source::{BackupPlan, Inspection, Slice, Source};
use crate::task::Task;
use crate::vault::writer::{BackupWriter, Capture};

/// A Redis that is backed up.
#[derive(Clone, Debug)]
pub struct RedisSource {
    settings: Settings,
}

impl RedisSource {
    /// The source that these settings name; nothing is dialled.
    pub fn new(settings: Settings) -> Self {
        RedisSource { settings }
    }
}

#[async_trait]
impl Source for RedisSource {
    async fn inspect(&self, task: &Task) -> Result<Inspection> {
        inspect::inspect(&self.settings, task).await
    }

    /// One slice, also of a cluster: its shards are taken side by side, and its slot map is of all of them.
    async fn plan_backup(&self, _: &Task) -> Result<BackupPlan> {
        Ok(BackupPlan { slices: vec![Slice { n: 0, spec: Value::Null }] })
    }

    async fn backup(&self, _: &Slice, task: &Task, out: &BackupWriter) -> Result<Capture> {
        backup::capture(&self.settings, task, out).await
    }
}
