//! A MongoDB as a source.

use async_trait::async_trait;

use super::config::Settings;
use super::follow::follow;
use super::{backup, inspect};
use crate::error::Result;
use crate::source::{BackupPlan, Inspection, Slice, Source, Until};
use crate::task::Task;
use crate::vault::timeline::writer::{Bounds, TimelineWriter};
use crate::vault::writer::{BackupWriter, Capture};

/// A MongoDB that is backed up.
#[derive(Clone, Debug)]
pub struct MongoSource {
    settings: Settings,
}

impl MongoSource {
    /// The source that these settings name; nothing is dialled.
    pub fn new(settings: Settings) -> Self {
        MongoSource { settings }
    }
}

#[async_trait]
impl Source for MongoSource {
    async fn inspect(&self, task: &Task) -> Result<Inspection> {
        inspect::inspect(&self.settings, task).await
    }

    async fn plan_backup(&self, _: &Task) -> Result<BackupPlan> {
        Ok(BackupPlan { slices: vec![Slice { n: 0, spec: serde_json::Value::Null }] })
    }

    async fn backup(&self, _: &Slice, task: &Task, out: &BackupWriter) -> Result<Capture> {
        backup::capture(&self.settings, task, out).await
    }

    fn timeline(&self) -> Option<Bounds> {
        self.settings.timeline
    }

    async fn follow(&self, until: Until, task: &Task, out: &mut TimelineWriter<'_>) -> Result<()> {
        follow(&self.settings, until, task, out).await
    }
}
