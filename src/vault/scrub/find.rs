//! Looks through the rooms of a vault, page by page: memory holds the catalog's rows and a few backups' keys.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{Stream, StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;

use super::{Finding, Line, Liveness, Scrub};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::catalog::{self, Listing, Row, missing_among, named_objects, read_manifest};
use crate::vault::fate::Fate;
use crate::vault::layout::{self, BackupRef};
use crate::vault::manifest::{Artifact, Manifest, Status};
use crate::vault::reader::BackupReader;
use crate::vault::store::{Entry, OpenUpload};
use crate::vault::verify;

/// How many backups are compared with their data at the same time.
const IN_FLIGHT: usize = 16;

/// What a small object was staged as is left over once it is so old: to create it takes moments.
const STAGED: SignedDuration = SignedDuration::from_hours(1);

const WHOSE: &str = "whether its writer lives cannot be told: no run names it; look at `tidekeeper runs`";

/// The data of one backup, in key order.
type Group = (BackupRef, Vec<Entry>);

impl Scrub<'_> {
    /// Looks, and changes nothing. The lines are in a fixed order.
    ///
    /// # Errors
    /// Those of the store: an answer that did not come is no finding.
    pub async fn inspect(&self, task: &Task) -> Result<Vec<Line>> {
        let listing = task.guard(self.catalog.list(None)).await?;
        let mut lines = marks(&listing);
        lines.extend(task.guard(self.data(&listing)).await?);
        lines.extend(self.timelines(task).await?);
        lines.extend(task.guard(self.uploads(&listing)).await?);
        if self.deep {
            let whole: Vec<&Row> = listing.rows.iter().filter(|row| is_whole(row)).collect();
            let summaries = whole.iter().filter_map(|row| row.manifest.as_ref().ok());
            task.progress.set_total(summaries.map(|summary| summary.plain_bytes).sum());
            for row in whole {
                lines.extend(self.bytes(row, task).await?);
            }
        }
        lines.sort();
        Ok(lines)
    }

    /// Compares what is in `data/` with the manifests, in both directions.
    async fn data(&self, listing: &Listing) -> Result<Vec<Line>> {
        let settled = settled(listing);
        let listed: BTreeSet<&BackupRef> = listing.rows.iter().map(|row| &row.backup).collect();
        let (mut without_data, mut strange) = (&listed - &settled, Vec::new());
        let mut lines = Vec::new();
        {
            let groups = groups(self.data_entries(), &mut strange);
            let compared = groups.map_ok(|(backup, own)| {
                let (is_listed, is_settled) = (listed.contains(&backup), settled.contains(&backup));
                async move {
                    if is_settled {
                        return Ok((backup, Vec::new()));
                    }
                    self.compare(&backup, is_listed, &own).await.map(|found| (backup, found))
                }
            });
            let mut compared = std::pin::pin!(compared.try_buffer_unordered(IN_FLIGHT));
            while let Some((backup, found)) = compared.try_next().await? {
                without_data.remove(&backup);
                lines.extend(found);
            }
        }
        // One after the other: a manifest without any data is the exception.
        for backup in without_data {
            lines.extend(self.compare(backup, true, &[]).await?);
        }
        lines.extend(strange.into_iter().map(strange_key));
        Ok(lines)
    }

    fn data_entries(&self) -> impl Stream<Item = Result<Entry>> + Send + use<> {
        catalog::entries(self.vault.store.clone(), layout::data(None))
    }

    /// Compares the data of one backup with its manifest. `own` was listed before: what the manifest says is read now.
    async fn compare(&self, backup: &BackupRef, is_listed: bool, own: &[Entry]) -> Result<Vec<Line>> {
        match read_manifest(self.vault, backup).await {
            Ok(manifest) if manifest.status == Status::Abandoned => self.abandoned(backup, own).await,
            Ok(manifest) => self.committed(&manifest, own).await,
            Err(error) => match error.kind() {
                // Listed, and no manifest by now: it was deleted while we looked.
                Kind::NotFound if is_listed => Ok(Vec::new()),
                Kind::NotFound => self.uncommitted(backup, own).await,
                Kind::Damaged | Kind::Unsupported => Ok(vec![unreadable(backup, &error)]),
                _ => Err(error),
            },
        }
    }

    async fn uncommitted(&self, backup: &BackupRef, own: &[Entry]) -> Result<Vec<Line>> {
        let finding = || {
            let (objects, bytes) = sum(own);
            Finding::Uncommitted { backup: backup.clone(), objects, bytes }
        };
        let repair = "creates its manifest as `abandoned`, then deletes the data";
        Ok(self.unless_alive(backup, finding, repair).await?.into_iter().collect())
    }

    async fn abandoned(&self, backup: &BackupRef, own: &[Entry]) -> Result<Vec<Line>> {
        if own.is_empty() {
            return Ok(Vec::new());
        }
        let finding = || {
            let (objects, bytes) = sum(own);
            Finding::AbandonedData { backup: backup.clone(), objects, bytes }
        };
        Ok(self.unless_alive(backup, finding, "deletes the data").await?.into_iter().collect())
    }

    async fn committed(&self, manifest: &Manifest, own: &[Entry]) -> Result<Vec<Line>> {
        let backup = manifest.backup();
        let mut lines = Vec::new();
        for what in missing_among(self.vault, manifest, own).await? {
            let advice = format!(
                "choose another backup; `tidekeeper verify {backup}` records that this one is damaged"
            );
            lines.push(Line::for_people(Finding::Missing { backup: backup.clone(), what }, advice));
        }
        if !lines.is_empty() {
            // What is not all there may be known by names that nobody can read: then nothing is called lost.
            return Ok(lines);
        }
        let named = named_objects(self.vault, manifest).await?;
        for (attempt, (objects, bytes)) in lost_attempts(&backup, &named, own) {
            let finding = || Finding::LostAttempt { backup: backup.clone(), attempt, objects, bytes };
            lines.extend(self.unless_alive(&backup, finding, "deletes the data").await?);
        }
        Ok(lines)
    }

    /// The line for something that a living writer may own.
    async fn unless_alive(
        &self,
        backup: &BackupRef,
        finding: impl FnOnce() -> Finding,
        repair: &str,
    ) -> Result<Option<Line>> {
        Ok(match self.writers.liveness(backup).await? {
            Liveness::Alive => None,
            Liveness::Dead(_) => Some(Line::repairable(finding(), repair)),
            Liveness::Unknown => Some(Line::for_people(finding(), WHOSE)),
        })
    }

    async fn uploads(&self, listing: &Listing) -> Result<Vec<Line>> {
        let settled = settled(listing);
        let mut lines = Vec::new();
        for upload in self.vault.store.open_uploads("").await? {
            match layout::backup_of_data(&upload.key) {
                Some(backup) if settled.contains(&backup) => {}
                Some(backup) => {
                    let finding = || open_upload(&upload);
                    lines.extend(
                        self.unless_alive(&backup, finding, "ends the upload and frees its parts").await?,
                    );
                }
                None if !layout::is_passing(&upload.key) => {
                    lines.push(Line::for_people(open_upload(&upload), "nothing here writes such keys"));
                }
                None if self.age(&upload).await? < STAGED => {}
                None => lines.push(Line::repairable(open_upload(&upload), "frees what was staged")),
            }
        }
        Ok(lines)
    }

    async fn age(&self, upload: &OpenUpload) -> Result<SignedDuration> {
        Ok(self.vault.store.now().await?.duration_since(upload.started))
    }

    /// Reads all bytes of one backup.
    async fn bytes(&self, row: &Row, task: &Task) -> Result<Vec<Line>> {
        let unchecked = |error: &Error| {
            let finding = Finding::Unchecked { backup: row.backup.clone(), why: error.to_string() };
            Line::for_people(finding, error.hint_text().unwrap_or("look again later"))
        };
        let checked = async {
            let manifest = read_manifest(self.vault, &row.backup).await?;
            verify::check(&BackupReader::resolve(self.vault, manifest).await?, task).await
        };
        let found = match checked.await {
            Ok(found) => found,
            Err(error) if error.kind() == Kind::NotFound => return Ok(Vec::new()),
            Err(error) if error.kind() == Kind::Cancelled => return Err(error),
            Err(error) => return Ok(vec![unchecked(&error)]),
        };
        let mut failed = found.checks.into_iter().filter(|check| !check.passed).peekable();
        if failed.peek().is_none() {
            return Ok(Vec::new());
        }
        let manifest = layout::manifest(&row.backup);
        if task.guard(self.vault.store.stat(&manifest)).await?.is_none() {
            // It was deleted while we read it.
            return Ok(Vec::new());
        }
        let advice = format!("`tidekeeper verify {}` records it; choose another backup", row.backup);
        let line = |check: crate::vault::marks::Checked| {
            let (backup, artifact) = (row.backup.clone(), check.name);
            Line::for_people(Finding::Damaged { backup, artifact, why: check.found }, advice.clone())
        };
        Ok(failed.map(line).collect())
    }
}

/// What the catalog's listing alone shows.
fn marks(listing: &Listing) -> Vec<Line> {
    let mut lines = Vec::new();
    for row in &listing.rows {
        lines.extend(marks_of(&row.backup, &row.marks));
        lines.extend(found_damaged(row));
    }
    for (backup, marks) in &listing.strays {
        lines.push(match marks.fate {
            Fate::Deleting { n } => unfinished(backup, n),
            _ => Line::repairable(Finding::StrayMarks { backup: backup.clone() }, "deletes them"),
        });
    }
    lines.extend(listing.strange.iter().map(|key| strange_key(key.to_string())));
    lines
}

fn marks_of(backup: &BackupRef, marks: &catalog::Marks) -> Vec<Line> {
    let mut lines = Vec::new();
    let unclear = match &marks.fate {
        Fate::Deleting { n } => {
            lines.push(unfinished(backup, *n));
            None
        }
        Fate::Unclear(why) => Some(why),
        _ => None,
    };
    for why in marks.problems.iter().chain(unclear) {
        let finding = Finding::UnreadableMark { backup: backup.clone(), why: why.clone() };
        lines.push(Line::for_people(finding, "deletion of this source waits; bring back an earlier version"));
    }
    lines
}

fn found_damaged(row: &Row) -> Option<Line> {
    let proof = row.marks.proofs.last().filter(|_| row.marks.is_damaged() && is_whole(row))?;
    let why = format!("run {} found it damaged at {}", proof.run, proof.at);
    let advice = format!("choose another backup; `tidekeeper verify {}` looks again", row.backup);
    Some(Line::for_people(Finding::FoundDamaged { backup: row.backup.clone(), why }, advice))
}

/// Those of which a decided deletion says all there is to say.
fn settled(listing: &Listing) -> BTreeSet<&BackupRef> {
    let rows = listing.rows.iter().map(|row| (&row.backup, &row.marks));
    let is_settled = |(_, marks): &(&BackupRef, &catalog::Marks)| matches!(marks.fate, Fate::Deleting { .. });
    rows.chain(&listing.strays).filter(is_settled).map(|(backup, _)| backup).collect()
}

/// Whether its bytes should all be there.
fn is_whole(row: &Row) -> bool {
    let holds_data = row.status().is_some_and(|status| *status != Status::Abandoned);
    holds_data && !row.marks.fate.is_sealed()
}

/// Cuts a listing of `data/` into backups: their keys follow each other. Keys of another shape go to `strange`.
fn groups<'a>(
    entries: impl Stream<Item = Result<Entry>> + Send + 'a,
    strange: &'a mut Vec<String>,
) -> impl Stream<Item = Result<Group>> + Send + 'a {
    let state = (Box::pin(entries.fuse()), None::<Group>, strange);
    stream::try_unfold(state, |(mut entries, mut open, strange)| async move {
        while let Some(entry) = entries.try_next().await? {
            let Some(backup) = layout::backup_of_data(&entry.key) else {
                strange.push(entry.key.to_string());
                continue;
            };
            match &mut open {
                Some((current, own)) if *current == backup => own.push(entry),
                _ => {
                    if let Some(done) = open.replace((backup, vec![entry])) {
                        return Ok(Some((done, (entries, open, strange))));
                    }
                }
            }
        }
        Ok(open.take().map(|last| (last, (entries, None, strange))))
    })
}

/// Attempts that wrote data of which the manifest names nothing, with their objects and bytes.
/// `plan.json` and `slices/` belong to the backup itself.
fn lost_attempts(backup: &BackupRef, named: &[Artifact], own: &[Entry]) -> BTreeMap<String, (u64, u64)> {
    let prefix = layout::data_of(backup);
    let attempt_of = |key: &str| {
        let (attempt, _) = key.strip_prefix(&prefix)?.split_once('/')?;
        (attempt != "slices").then(|| attempt.to_owned())
    };
    let named: BTreeSet<String> = named.iter().filter_map(|artifact| attempt_of(&artifact.key)).collect();
    let mut lost: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for entry in own {
        if let Some(attempt) = attempt_of(entry.key.as_str()).filter(|attempt| !named.contains(attempt)) {
            let (objects, bytes) = lost.entry(attempt).or_default();
            *objects += 1;
            *bytes += entry.size;
        }
    }
    lost
}

fn sum(entries: &[Entry]) -> (u64, u64) {
    (entries.len() as u64, entries.iter().map(|entry| entry.size).sum())
}

fn unfinished(backup: &BackupRef, n: u32) -> Line {
    Line::repairable(Finding::UnfinishedDeletion { backup: backup.clone(), n }, "finishes the deletion")
}

fn unreadable(backup: &BackupRef, error: &Error) -> Line {
    let finding = Finding::UnreadableManifest { backup: backup.clone(), why: error.to_string() };
    Line::for_people(
        finding,
        "bring back the object's earlier version, if the store keeps versions; \
         nothing of this source is deleted meanwhile",
    )
}

pub(super) fn strange_key(key: String) -> Line {
    Line::for_people(Finding::StrangeKey { key }, "nothing here wrote it; move it out of the vault")
}

fn open_upload(upload: &OpenUpload) -> Finding {
    Finding::OpenUpload { key: upload.key.to_string(), upload: upload.id.clone(), started: upload.started }
}
