//! Whether the backups that look good are: what is listed are manifests, and the data behind one may be gone.

use super::source::Advice;
use crate::engine::Engine;
use crate::error::{Kind, Result};
use crate::vault::catalog::{Row, inspect};

/// How many backups of a source are looked at before one is whole. More in a row have lost data only where all have; then
/// that must be told, and not be looked for any longer.
const LOOKED_AT: usize = 8;

/// The newest good backups of a source, looked at.
#[derive(Debug, Default)]
pub(super) struct Whole<'a> {
    /// The newest whose objects are all there.
    pub newest: Option<&'a Row>,
    /// What those that are newer have lost.
    pub lost: Vec<Advice>,
}

impl Whole<'_> {
    /// What to say where none was found.
    pub(super) fn none(&self) -> String {
        match self.lost.len() {
            0 => "there is no good backup".to_owned(),
            looked_at => format!("none of the newest {looked_at} backups that look good is whole"),
        }
    }
}

impl Engine {
    /// Looks for the newest good backup among `rows`, which come newest first, of which no object is missing.
    pub(super) async fn newest_whole<'a>(
        &self,
        rows: impl Iterator<Item = &'a Row> + Send,
    ) -> Result<Whole<'a>> {
        let mut whole = Whole::default();
        for row in rows.filter(|row| row.is_good()).take(LOOKED_AT) {
            match inspect(&self.0.vault, &row.backup).await {
                Ok((_, missing)) => match missing.first() {
                    None => {
                        whole.newest = Some(row);
                        break;
                    }
                    Some(first) => whole.lost.push(lost(row, first, missing.len() - 1)),
                },
                // Deleted since it was listed.
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) if matches!(error.kind(), Kind::Damaged | Kind::Unsupported) => {
                    whole.lost.push(lost(row, error.why(), 0));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(whole)
    }
}

fn lost(row: &Row, first: &str, others: usize) -> Advice {
    let (backup, source) = (&row.backup, &row.backup.source);
    let more = if others == 0 { String::new() } else { format!(" (and {others} more)") };
    Advice {
        what: format!("backup {backup} cannot be restored: {first}{more}"),
        advice: format!("`tidekeeper verify {backup}` records it; then `tidekeeper backup {source}`"),
    }
}
