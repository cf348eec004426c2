//! Every byte of a backup is read and checked, and what was found is written down.

use async_trait::async_trait;
use serde_json::json;

use super::{App, Named};
use crate::engine::work::{Attempt, Done, Grade, Order, Work};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::manifest::Artifact;
use crate::vault::marks::Outcome;
use crate::vault::reader::BackupReader;
use crate::vault::verify::verify;

/// Verifies one backup.
pub struct Verify {
    app: App,
    order: Order,
    backup: BackupRef,
}

impl Verify {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order) -> Result<Self> {
        let Named { backup } = super::params(order)?;
        Ok(Verify { app: app.clone(), order: order.clone(), backup })
    }
}

#[async_trait]
impl Work for Verify {
    fn order(&self) -> &Order {
        &self.order
    }

    async fn run(&self, task: &Task, _attempt: &Attempt) -> Result<Done> {
        task.step("verify");
        let reader = task.guard(BackupReader::open_backup(&self.app.vault, &self.backup)).await?;
        let artifacts = &reader.manifest.artifacts;
        // Where no key is at hand, only what is stored is read.
        let bytes = |artifact: &Artifact| match reader.can_open(artifact) {
            true => artifact.plain.bytes,
            false => artifact.stored.bytes,
        };
        task.progress.set_total(artifacts.iter().map(bytes).sum());
        let found = verify(&reader, task).await?;
        if found.outcome == Outcome::Damaged {
            let bad: Vec<_> =
                found.checks.iter().filter(|check| !check.passed).map(|check| check.found.as_str()).collect();
            return Err(Error::new(Kind::Damaged, format!("verifying {}", self.backup), bad.join("; "))
                .hint("it is not restored from any more; `tidekeeper backups` shows which others are good"));
        }
        let sealed = if found.inside { "" } else { ", as stored: no private key to look inside" };
        let summary =
            format!("{} is whole: {} bytes read in {:.1} s{sealed}", self.backup, found.bytes, found.took_s);
        Ok(Done { status: Grade::Succeeded, summary, detail: json!(found) })
    }
}
