//! Looks through the timelines: what cannot be read, what is missing, and, deep, what is not what its name says. Nothing of
//! a timeline is repaired: what a segment held is in no other place.

use super::{Finding, Line, Scrub};
use crate::config::SourceName;
use crate::error::{Kind, Result};
use crate::task::Task;
use crate::vault::layout::log;
use crate::vault::timeline::chain::stretches;
use crate::vault::timeline::reader::check;
use crate::vault::timeline::{Timeline, survey};

const RESTORE: &str =
    "no moment in it can be restored; restore to one before or after it, or from the second copy";

impl Scrub<'_> {
    /// Compares the timelines of all sources with what makes them whole.
    pub(super) async fn timelines(&self, task: &Task) -> Result<Vec<Line>> {
        let found = task.guard(survey(self.vault, None)).await?;
        let mut lines: Vec<Line> =
            found.strange.iter().map(|key| super::find::strange_key(key.to_string())).collect();
        for (source, timelines) in &found.timelines {
            lines.extend(timelines.iter().flat_map(|timeline| look(source, timeline)));
            if self.deep {
                for timeline in timelines {
                    lines.extend(self.segments(source, timeline, task).await?);
                }
            }
        }
        Ok(lines)
    }

    /// Reads all bytes of one timeline.
    async fn segments(&self, source: &SourceName, timeline: &Timeline, task: &Task) -> Result<Vec<Line>> {
        let mut lines = Vec::new();
        for segment in timeline.segments.iter().filter(|segment| segment.stored_bytes > 0) {
            let key = log::segment(source, &timeline.id, &segment.name);
            match task.guard(check(self.vault, source, &timeline.id, segment)).await {
                Ok(()) => {}
                // Trimmed while we read the others.
                Err(error)
                    if error.kind() == Kind::Damaged && self.vault.store.stat(&key).await?.is_none() => {}
                Err(error) if error.kind() == Kind::Damaged => {
                    let finding =
                        Finding::DamagedSegment { key: key.to_string(), why: error.why().to_owned() };
                    lines.push(Line::for_people(finding, RESTORE));
                }
                Err(error) => return Err(error),
            }
            task.progress.add_bytes(segment.stored_bytes);
        }
        Ok(lines)
    }
}

/// What the listing of one timeline shows.
fn look(source: &SourceName, timeline: &Timeline) -> Vec<Line> {
    let key = log::timeline(source, &timeline.id);
    if let Some(problem) = timeline.problem() {
        let finding = Finding::UnreadableTimeline { key, why: problem.to_owned() };
        let advice = "bring back the object's earlier version, if the store keeps versions, or move all of the timeline out \
                      of the vault; nothing of this source's timelines is deleted meanwhile";
        return vec![Line::for_people(finding, advice)];
    }
    let empty = timeline.segments.iter().filter(|segment| segment.stored_bytes == 0).map(|segment| {
        let key = log::segment(source, &timeline.id, &segment.name).to_string();
        Line::for_people(Finding::DamagedSegment { key, why: "it is empty".to_owned() }, RESTORE)
    });
    let stretches = stretches(timeline);
    let gaps = stretches.windows(2).map(|pair| {
        let why = format!("segments between {} and {} are missing", pair[0].to, pair[1].from);
        Line::for_people(Finding::BrokenTimeline { key: key.clone(), why }, RESTORE)
    });
    empty.chain(gaps).collect()
}
