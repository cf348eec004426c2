//! How every source fares: what the engine knows of its backups and runs, and what the vault holds of its log.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::{App, Log};
use crate::engine::Engine;
use crate::engine::followers::Following;
use crate::engine::views::source::{Advice, SourceView, StatusView};
use crate::error::Result;
use crate::vault::timeline::writer::Bounds;

/// So many times the age at which a segment is closed may pass before somebody should look: one time is as it should be, and
/// the next segment may be under way.
const AGES: i32 = 2;

impl App {
    /// How everything fares.
    pub async fn status(&self, engine: &Engine) -> Result<StatusView> {
        let mut status = engine.status().await?;
        let following = engine.following();
        let listing = self.catalog.list(None).await?;
        for view in &mut status.sources {
            let source = view.source.clone();
            let bounds = self.source(&source).ok().and_then(|system| system.source().timeline());
            let log = self.log_lately(&source, &listing).await?;
            let schedule = self.config.schedule(&source);
            let facts = Facts {
                now: self.clock.now(),
                bounds,
                log: log.as_ref(),
                promised: schedule.map(|schedule| schedule.retention.window),
                following: following.get(&source),
            };
            facts.amend(view);
        }
        Ok(status)
    }
}

/// What is known of a source's log. From here on it is pure.
struct Facts<'a> {
    now: Timestamp,
    /// Whether its log is to be followed, and how.
    bounds: Option<Bounds>,
    log: Option<&'a Log>,
    /// How far back any second should stay restorable.
    promised: Option<Duration>,
    following: Option<&'a Following>,
}

impl Facts<'_> {
    fn amend(&self, view: &mut SourceView) {
        view.window = self.log.and_then(Log::newest);
        let age = view.window.as_ref().map(|window| self.now.duration_since(window.to).as_secs());
        view.rpo_s = view.rpo_s.into_iter().chain(age).min();
        let (Some(bounds), source) = (self.bounds, &view.source) else { return };
        let mut problems = Vec::new();
        let mut say = |what: String, advice: String| problems.push(Advice { what, advice });
        if let Some(error) = self.following.and_then(|following| following.error.as_ref()) {
            let advice = error.hint.clone().unwrap_or_else(|| "it is tried again by itself".to_owned());
            say(format!("its log is not followed: {}", error.message), advice);
        }
        match (self.log, &view.window) {
            (None, _) => say(
                "its timeline has not begun: the log is not followed".to_owned(),
                "see that a daemon leads: `tidekeeper serve`; its log tells what keeps it".to_owned(),
            ),
            (Some(log), _) if log.end().is_none() => say(
                "no good backup is in the timeline that is being written, so no second since can be restored"
                    .to_owned(),
                format!("take one: `tidekeeper backup {source}`"),
            ),
            (Some(_), Some(window)) => {
                let longest = SignedDuration::try_from(bounds.age).unwrap_or(SignedDuration::MAX);
                if self.now.duration_since(window.to) > longest.saturating_mul(AGES) {
                    say(
                        format!("its log is stored up to {}, and not beyond", window.to),
                        "nothing was written since, or nobody follows it: see that a daemon leads".to_owned(),
                    );
                }
            }
            (Some(_), None) => {}
        }
        for gap in self.gaps() {
            say(
                gap,
                format!("no second of it comes back; `tidekeeper timeline {source}` shows what can be had"),
            );
        }
        view.problems.extend(problems);
    }

    /// The gaps in the span that is promised. What was never followed is no gap.
    fn gaps(&self) -> Vec<String> {
        let Some((log, promised)) = self.log.zip(self.promised) else { return Vec::new() };
        let Some(since) =
            SignedDuration::try_from(promised).ok().and_then(|promised| self.now.checked_sub(promised).ok())
        else {
            return Vec::new();
        };
        let recent = |gap: &crate::vault::timeline::chain::Gap| {
            log.moment(gap.before).is_none_or(|before| before > since)
        };
        let told = log.gaps().into_iter().filter(recent).map(|gap| {
            let (after, before) = (log.text(gap.after), log.text(gap.before));
            format!("nothing between {after} and {before} can be restored: {}", gap.why)
        });
        told.collect()
    }
}
