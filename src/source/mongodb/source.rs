//! A MongoDB as a source.

use async_trait::async_trait;

use super::config::Settings;
use super::follow::follow;
use crate::error::{Error, Kind, Result};
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
    async fn inspect(&self, _: &Task) -> Result<Inspection> {
        Err(Error::new(Kind::Internal, "inspecting", "not built yet"))
    }

    async fn plan_backup(&self, _: &Task) -> Result<BackupPlan> {
        Ok(BackupPlan { slices: vec![Slice { n: 0, spec: serde_json::Value::Null }] })
    }

    async fn backup(&self, _: &Slice, _: &Task, _: &BackupWriter) -> Result<Capture> {
        Err(Error::new(Kind::Internal, "backing up", "not built yet"))
    }

    fn timeline(&self) -> Option<Bounds> {
        self.settings.timeline
    }

    async fn follow(&self, until: Until, task: &Task, out: &mut TimelineWriter<'_>) -> Result<()> {
        follow(&self.settings, until, task, out).await
    }
}
