//! Backups as people see them: the same document in the API, the CLI and the console.

use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::App;
use crate::error::Result;
use crate::vault::catalog::{Proven, Row, inspect};
use crate::vault::fate::Fate;
use crate::vault::layout::BackupRef;

/// A line of `tidekeeper backups`, an element of `GET /v1/backups`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BackupView {
    /// `redis-main/20261121T060000Z-4k7q2m`: what other commands take.
    pub backup: String,
    /// The source it is of.
    pub source: String,
    /// Its id.
    pub id: String,
    /// The kind of the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What its manifest says it is worth; or what is known by now: `damaged`, `deleting`, `unreadable`.
    pub status: String,
    /// Whether it counts as a good one.
    pub good: bool,
    /// The moment its contents are of.
    pub at: Timestamp,
    /// When the last byte was stored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// How many items it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub items: Option<u64>,
    /// Bytes before compression.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plain_bytes: Option<u64>,
    /// Bytes in the vault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stored_bytes: Option<u64>,
    /// Whether a private key is needed to read it.
    pub encrypted: bool,
    /// Its strongest proof.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proven: Option<Proven>,
    /// Who holds it, and why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// Whether an operator said that it is good although suspect.
    pub accepted: bool,
    /// Since when its deletion is proposed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deletion_proposed: Option<Timestamp>,
    /// Why it is not `complete`, or cannot be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl BackupView {
    /// A row of the catalog as of `now`, by the store's clock or ours: only ended holds depend on it.
    pub fn of(row: &Row, now: Timestamp) -> Self {
        let summary = row.manifest.as_ref().ok();
        let moment = summary.map(|summary| summary.at.unwrap_or(summary.started_at));
        let reason = summary.and_then(|summary| summary.reason.as_deref());
        BackupView {
            backup: row.backup.to_string(),
            source: row.backup.source.to_string(),
            id: row.backup.id.to_string(),
            kind: summary.map(|summary| summary.kind.to_string()),
            status: status(row).to_owned(),
            good: row.is_good(),
            at: moment.unwrap_or_else(|| row.backup.id.time()),
            finished_at: summary.map(|summary| summary.finished_at),
            items: summary.map(|summary| summary.items),
            plain_bytes: summary.map(|summary| summary.plain_bytes),
            stored_bytes: summary.map(|summary| summary.stored_bytes),
            encrypted: summary.is_some_and(|summary| summary.encrypted),
            proven: row.marks.proven().cloned(),
            held: row.marks.held(now).map(|hold| format!("{}: {}", hold.by, hold.reason)),
            accepted: row.marks.accepted,
            deletion_proposed: match row.marks.fate {
                Fate::Proposed { since, .. } => Some(since),
                _ => None,
            },
            reason: row.problem().or(reason).map(str::to_owned),
        }
    }
}

fn status(row: &Row) -> &str {
    match (&row.manifest, &row.marks.fate) {
        (Err(_), _) | (_, Fate::Unclear(_)) => "unreadable",
        (_, Fate::Deleting { .. }) => "deleting",
        _ if row.marks.is_damaged() => "damaged",
        (Ok(summary), _) => summary.status.as_str(),
    }
}

impl App {
    /// All that is known of one backup: its line in the catalog, its manifest, what of its objects is missing. Also the answer of
    /// `GET /v1/backups/<source>/<id>`.
    ///
    /// # Errors
    /// `NotFound`, or why the manifest cannot be read.
    pub async fn show(&self, backup: &BackupRef) -> Result<Value> {
        let (manifest, missing) = inspect(&self.vault, backup).await?;
        let listing = self.catalog.list(Some(&backup.source)).await?;
        let row = listing.rows.iter().find(|row| row.backup == *backup);
        let proofs = row.map(|row| row.marks.proofs.as_slice()).unwrap_or_default();
        let view = row.map(|row| BackupView::of(row, self.clock.now()));
        Ok(json!({ "backup": view, "manifest": manifest, "missing": missing, "proofs": proofs }))
    }
}
