//! Lets segments of timelines go that no backup needs which is there.

use super::Deleter;
use crate::config::SourceName;
use crate::error::Result;
use crate::vault::layout::log;
use crate::vault::timeline::trim::{Trim, Trimmed};

impl Deleter<'_> {
    /// Deletes one after the other, in the order of the plan: whatever a crash leaves of a stretch is its unbroken end. How
    /// a timeline ended goes before how it began: without its beginning nobody could say anything of it.
    pub(super) async fn trim(&self, source: &SourceName, trim: &Trim, done: &mut Trimmed) -> Result<()> {
        let store = &*self.vault.store;
        for (timeline, segment) in &trim.segments {
            self.fence.still_leading().await?;
            store.delete(&log::segment(source, timeline, &segment.name)).await?;
            done.segments += 1;
            done.stored_bytes += segment.stored_bytes;
        }
        for timeline in &trim.timelines {
            self.fence.still_leading().await?;
            store.delete(&log::end(source, timeline)).await?;
            store.delete(&log::origin(source, timeline)).await?;
            done.timelines += 1;
        }
        Ok(())
    }
}
