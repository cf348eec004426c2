//! A source into the vault.

use async_trait::async_trait;
use serde_json::json;

use super::App;
use crate::config::SourceName;
use crate::engine::Engine;
use crate::engine::run::End;
use crate::engine::unsettled::{Quiet, Touch};
use crate::engine::work::{Attempt, Done, Grade, Order, Work};
use crate::error::{Error, Kind, Result};
use crate::source::Configured;
use crate::task::Task;
use crate::vault::catalog::baseline;
use crate::vault::manifest::{Manifest, Status};
use crate::vault::suspect::{Size, judge};
use crate::vault::writer::{BackupWriter, Capture};

/// Backs up one source.
pub struct Backup {
    app: App,
    order: Order,
    source: SourceName,
    kind: &'static str,
}

impl Backup {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order, source: &SourceName) -> Result<Self> {
        let kind = app.source(source)?.kind();
        Ok(Backup { app: app.clone(), order: order.clone(), source: source.clone(), kind })
    }

    /// Captures slice after slice; a slice that fails fails the backup.
    async fn capture(&self, system: &dyn Configured, task: &Task, out: &BackupWriter) -> Result<Capture> {
        let source = system.source();
        task.step("connect");
        let plan = source.plan_backup(task).await?;
        let mut whole: Option<Capture> = None;
        for slice in &plan.slices {
            let capture = source.backup(slice, task, out).await?;
            match &mut whole {
                Some(whole) => whole.absorb(capture),
                None => whole = Some(capture),
            }
        }
        Ok(whole.unwrap_or_default())
    }

    /// What the capture is worth beside the good backups before it, and beside what restores have done to its source.
    async fn judge(
        &self,
        capture: &Capture,
        bytes: u64,
        disturbed: Option<String>,
        task: &Task,
    ) -> Result<(Status, Option<String>)> {
        if disturbed.is_some() {
            return Ok((Status::Suspect, disturbed));
        }
        let listing = task.guard(self.app.catalog.list(Some(&self.source))).await?;
        let predecessors = baseline(listing.of(&self.source));
        let size = Size { items: capture.contents.items, bytes };
        Ok(judge(size, &capture.omissions, &predecessors))
    }

    /// The restore that has written to the source meanwhile, or did before and never came to its end: then what was captured
    /// is neither what the source was nor what it was to be.
    async fn disturbed(&self, quiet: &Quiet, engine: &Engine, task: &Task) -> Result<Option<String>> {
        let touches = task.guard(engine.touched_since(quiet)).await?;
        if touches.is_empty() {
            return Ok(None);
        }
        let identity = self.app.source(&self.source)?.target().identity(task).await;
        // Which system this is cannot be had, so that any of them may be it.
        let any = identity.is_err();
        let identity = identity.ok().map(|identity| identity.id);
        let is_of = |touch: &&Touch| any || touch.is_of(&self.source, identity.as_deref());
        Ok(touches.iter().find(is_of).map(|touch| {
            let run = &touch.claim.run;
            match touch.ended {
                Some(End::Succeeded) => format!("run {run} restored into the source meanwhile"),
                _ => format!(
                    "run {run} began to restore into the source, and did not come to its end before this"
                ),
            }
        }))
    }

    async fn capture_and_commit(&self, out: BackupWriter, engine: &Engine, task: &Task) -> Result<Manifest> {
        let quiet = task.guard(engine.quiet()).await?;
        let capture = self.capture(self.app.source(&self.source)?, task, &out).await?;
        task.step("commit");
        let disturbed = self.disturbed(&quiet, engine, task).await?;
        let (status, reason) = self.judge(&capture, out.plain_bytes(), disturbed, task).await?;
        out.commit(capture, status, reason).await
    }
}

#[async_trait]
impl Work for Backup {
    fn order(&self) -> &Order {
        &self.order
    }

    fn kind(&self) -> &str {
        self.kind
    }

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        let doing = format!("backing up {}", self.source);
        let Some(backup) = attempt.backup.clone() else {
            return Err(Error::new(Kind::Internal, doing, "the attempt has no backup id"));
        };
        let out = BackupWriter::new(&self.app.vault, backup, self.kind, task, self.app.clock.now())
            .led_by(attempt.fence.generation());
        let committed = self.capture_and_commit(out, attempt.engine(), task).await;
        let manifest = committed.map_err(|error| error.while_doing(doing))?;
        // So that the window reaches beyond the backup at once.
        self.app.seal_here(&self.source, task).await;
        Ok(done(&manifest))
    }
}

fn done(manifest: &Manifest) -> Done {
    let stored: u64 = manifest.artifacts.iter().map(|artifact| artifact.stored.bytes).sum();
    let reason = manifest.reason.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    Done {
        status: Grade::of(manifest),
        summary: format!(
            "{} {}{reason} ({} items, {stored} bytes stored)",
            manifest.backup(),
            manifest.status.as_str(),
            manifest.contents.items
        ),
        detail: json!(manifest),
    }
}
