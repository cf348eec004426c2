//! How every source fares: what the engine knows of its backups and runs, and what the vault holds of its log.

use jiff::{SignedDuration, Timestamp, Unit};

use super::{App, Log};
use crate::config::SourceName;
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
        if let Some(down) = engine.health().vault {
            let advice =
                down.hint.unwrap_or_else(|| "look at its store, and at the network to it".to_owned());
            status.problems.insert(0, Advice { what: down.message, advice });
        }
        let following = engine.following();
        let listing = self.catalog.list(None).await?;
        let led = status.leader.as_ref().is_some_and(|leader| leader.alive != Some(false));
        let asked = format!("`tidekeeper --server http://{} status`", self.config.api.listen);
        for view in &mut status.sources {
            let source = view.source.clone();
            let bounds = self.source(&source).ok().and_then(|system| system.source().timeline());
            let log = self.log_lately(&source, &listing).await?;
            let facts = Facts {
                now: self.clock.now(),
                bounds,
                log: log.as_ref(),
                following: following.get(&source),
                leader: led.then_some(&asked),
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
    /// How its follower fares, where that lives in this process.
    following: Option<&'a Following>,
    /// Where a daemon leads, as far as can be told from here: how it is asked.
    leader: Option<&'a String>,
}

impl Facts<'_> {
    fn amend(&self, view: &mut SourceView) {
        view.window = self.log.and_then(Log::newest);
        let age = view.window.as_ref().map(|window| self.now.duration_since(window.to).as_secs());
        view.rpo_s = view.rpo_s.into_iter().chain(age).min();
        let Some(bounds) = self.bounds else { return };
        view.problems.extend(self.not_followed(bounds, view));
        // A backup of what a restore left half done would begin no window.
        if view.unsettled.is_empty() {
            view.problems.extend(self.no_base(&view.source));
        }
    }

    /// What keeps the log from being stored: in the follower's own words where it lives in this process, else as far as the
    /// vault tells.
    fn not_followed(&self, bounds: Bounds, view: &SourceView) -> Option<Advice> {
        let stored = view.window.as_ref().map_or_else(
            || "nothing of it is stored yet".to_owned(),
            |window| format!("it is stored up to {}", window.to),
        );
        let (what, advice) = match (self.following, self.log, &view.window) {
            // The follower believes in its recovery only after a while; what is stored tells earlier.
            (Some(Following { since, error: Some(_) }), Some(log), _) if is_heard_since(log, *since) => {
                return None;
            }
            (Some(Following { since, error: Some(error) }), ..) => (
                format!("its log is not followed since {}: {}; {stored}", to_second(*since), error.message),
                error.hint.clone().unwrap_or_else(|| "it is tried again by itself".to_owned()),
            ),
            (Some(Following { error: None, .. }), Some(_), _) => return None,
            (Some(Following { since, error: None }), None, _) => (
                "its timeline has not begun".to_owned(),
                format!("wait a moment: its log is followed since {}", to_second(*since)),
            ),
            (None, None, _) => {
                ("its timeline has not begun: nothing of its log is stored".to_owned(), self.elsewhere())
            }
            (None, Some(_), Some(window)) => {
                let longest = SignedDuration::try_from(bounds.age).unwrap_or(SignedDuration::MAX);
                if self.now.duration_since(window.to) <= longest.saturating_mul(AGES) {
                    return None;
                }
                (
                    format!("its log was last heard of at {}: it is stored up to there", window.to),
                    self.elsewhere(),
                )
            }
            (None, Some(_), None) => return None,
        };
        Some(Advice { what, advice })
    }

    /// What to do where the follower does not live in this process.
    fn elsewhere(&self) -> String {
        match self.leader {
            Some(asked) => {
                format!(
                    "nothing was written since, or something keeps the daemon that leads, which tells what: {asked}"
                )
            }
            None => "no daemon leads, so nobody follows it: start `tidekeeper serve`".to_owned(),
        }
    }

    /// That no window goes on from here, and why. A gap is a problem until a good backup lies after it: then nothing can be
    /// done about it any more, and `tidekeeper timeline` still draws it.
    fn no_base(&self, source: &SourceName) -> Option<Advice> {
        let log = self.log.filter(|log| !is_ahead(log))?;
        if let Some(problem) = log.unreadable().filter(|_| log.end().is_none()) {
            let advice = format!(
                "`tidekeeper scrub` tells what else is damaged; `tidekeeper backup {source}` begins another window"
            );
            return Some(Advice { what: problem, advice });
        }
        let newest = log.windows.iter().map(|window| window.from).max();
        // Of several the oldest says all: nothing behind it comes back.
        let gap = log.gaps().into_iter().find(|gap| newest.is_none_or(|from| from < gap.before));
        let what = match gap {
            Some(gap) => format!(
                "nothing between {} and {} can be restored, nor anything since, as no good backup lies after it: {}",
                log.text(gap.after),
                log.text(gap.before),
                gap.why
            ),
            None if log.end().is_none() => {
                "no good backup is in the timeline that is being written, so no second since can be restored"
                    .to_owned()
            }
            None => return None,
        };
        Some(Advice { what, advice: format!("take one: `tidekeeper backup {source}`") })
    }
}

/// Whether a record is stored that was written after this moment.
fn is_heard_since(log: &Log, since: Timestamp) -> bool {
    log.reached().and_then(|stretch| log.moment(stretch.to)).is_some_and(|at| at > since)
}

/// Whether a good backup lies behind what is stored of the log that is open: it begins a window once the log is stored that far.
fn is_ahead(log: &Log) -> bool {
    let is_open = log.timelines.last().is_some_and(|newest| newest.end == Ok(None));
    let Some(reached) = log.reached().filter(|_| is_open) else { return false };
    log.bases.iter().any(|base| base.good && base.identity == reached.identity && base.position > reached.to)
}

/// As people read it.
fn to_second(at: Timestamp) -> Timestamp {
    at.round(Unit::Second).unwrap_or(at)
}
