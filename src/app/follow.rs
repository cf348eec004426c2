//! The logs of sources, followed into their timelines while this process leads, and sealed when somebody asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::App;
use crate::clock::within;
use crate::config::SourceName;
use crate::engine::claims::{self, Claim};
use crate::engine::followers::Follower;
use crate::engine::leader::Fence;
use crate::engine::work::{Attempt, Done, Grade, Order, Work};
use crate::error::{Error, Kind, Result};
use crate::source::Until;
use crate::task::Task;
use crate::vault::layout::log::Position;
use crate::vault::timeline;
use crate::vault::timeline::writer::{Sealer, TimelineWriter};

/// How often a source whose timeline was closed is looked at while a restore claims it.
const CLAIMED_EVERY: Duration = Duration::from_secs(5);

/// How long somebody waits until the log is stored up to now, for whom that is a courtesy.
const SEALING: Duration = Duration::from_secs(30);

/// The followers that live in this process, by what asks them for a seal. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Sealers(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    count: u64,
    sealers: BTreeMap<SourceName, (u64, Sealer)>,
}

impl Sealers {
    /// That of a source, if its follower lives in this process.
    pub fn of(&self, source: &SourceName) -> Option<Sealer> {
        let known = self.0.lock().expect("no holder panics");
        known.sealers.get(source).map(|(_, sealer)| sealer.clone())
    }

    fn list(&self, source: &SourceName, sealer: Sealer) -> Listed {
        let mut known = self.0.lock().expect("no holder panics");
        known.count += 1;
        let n = known.count;
        known.sealers.insert(source.clone(), (n, sealer));
        Listed { sealers: self.clone(), source: source.clone(), n }
    }
}

/// Takes a follower off the list when it ends, unless another has taken its place.
struct Listed {
    sealers: Sealers,
    source: SourceName,
    n: u64,
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut known = self.sealers.0.lock().expect("no holder panics");
        if known.sealers.get(&self.source).is_some_and(|(n, _)| *n == self.n) {
            known.sealers.remove(&self.source);
        }
    }
}

/// Follows the log of one source.
pub struct Follow {
    app: App,
    source: SourceName,
}

impl Follow {
    /// A follower for each source that keeps a timeline.
    pub fn all(app: &App) -> Vec<Arc<dyn Follower>> {
        let wanted = app.sources().filter(|(_, system)| system.source().timeline().is_some());
        let follow = |source: &SourceName| Follow { app: app.clone(), source: source.clone() };
        wanted.map(|(source, _)| Arc::new(follow(source)) as Arc<dyn Follower>).collect()
    }

    /// What a restore writes belongs to no timeline: after a closed one no other begins before it has ended.
    async fn wait_for_restores(&self, task: &Task) -> Result<()> {
        let mut told = false;
        while let Some(claim) = closed_for(&self.app, &self.source, task).await? {
            if !told {
                tracing::info!(source = %self.source, run = %claim.run, "following waits for a restore");
            }
            told = true;
            let slept = async {
                task.clock.sleep(CLAIMED_EVERY).await;
                Ok(())
            };
            task.guard(slept).await?;
        }
        Ok(())
    }
}

#[async_trait]
impl Follower for Follow {
    fn source(&self) -> &SourceName {
        &self.source
    }

    async fn follow(&self, task: &Task, fence: &Fence) -> Result<()> {
        self.wait_for_restores(task).await?;
        let (mut out, sealer) = writer(&self.app, &self.source, fence)?;
        let _listed = self.app.sealers.list(&self.source, sealer);
        self.app.source(&self.source)?.source().follow(Until::Cancelled, task, &mut out).await
    }
}

impl App {
    /// Stores the log of a source up to now, if it is followed in this process; another that follows it seals in time.
    pub(super) async fn seal_here(&self, source: &SourceName, task: &Task) {
        if let Some(Err(error)) = self.sealed_here(source, task).await {
            tracing::warn!(%source, %error, "the log is not stored up to now");
        }
    }

    /// Stores the log of a source up to now, by whoever follows it.
    ///
    /// # Errors
    /// Why it is not stored.
    pub(super) async fn seal_anywhere(
        &self,
        source: &SourceName,
        task: &Task,
        attempt: &Attempt,
    ) -> Result<()> {
        match self.sealed_here(source, task).await {
            Some(sealed) => sealed,
            None => {
                task.step("seal");
                task.guard(self.seal(source, attempt.engine())).await
            }
        }
    }

    async fn sealed_here(&self, source: &SourceName, task: &Task) -> Option<Result<()>> {
        let sealer = self.sealers.of(source)?;
        task.step("seal");
        let late = || Err(Error::new(Kind::Timeout, "sealing the timeline", "it took too long"));
        Some(within(&*task.clock, SEALING, task.guard(sealer.seal()), late).await.map(drop))
    }
}

/// A writer of the timeline of a source, as its configuration bounds it.
fn writer<'a>(app: &App, source: &SourceName, fence: &'a Fence) -> Result<(TimelineWriter<'a>, Sealer)> {
    let system = app.source(source)?;
    let Some(bounds) = system.source().timeline() else {
        let doing = format!("following the log of {source}");
        return Err(Error::new(Kind::Unsupported, doing, "its configuration asks for no timeline"));
    };
    let kind = app.kind(system.kind()).ok_or_else(|| {
        let doing = format!("following the log of {source}");
        Error::new(Kind::Unsupported, doing, format!("this build reads no logs of kind {}", system.kind()))
    })?;
    let (mut out, sealer) =
        TimelineWriter::new(&app.vault, source, kind.name(), fence, bounds, kind.framing());
    out.keep_pace(app.spool());
    Ok((out, sealer))
}

/// The restore that a source's newest timeline was closed for, while it lasts.
async fn closed_for(app: &App, source: &SourceName, task: &Task) -> Result<Option<Claim>> {
    let timelines = task.guard(timeline::list(&app.vault, source)).await?;
    if timelines.last().is_none_or(|newest| newest.end == Ok(None)) {
        return Ok(None);
    }
    let identity = task.guard(app.source(source)?.target().identity(task)).await?;
    task.guard(claims::holder(&app.vault, &identity.id)).await
}

/// Stores what was written of a source's log since its last segment.
pub struct Seal {
    app: App,
    order: Order,
    source: SourceName,
}

impl Seal {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order, source: &SourceName) -> Result<Self> {
        app.source(source)?;
        Ok(Seal { app: app.clone(), order: order.clone(), source: source.clone() })
    }

    /// By the follower of this process; where there is none, by following up to now, here.
    async fn seal(&self, task: &Task, fence: &Fence) -> Result<Position> {
        if let Some(sealer) = self.app.sealers.of(&self.source) {
            match task.guard(sealer.seal()).await {
                Err(error) if error.kind() == Kind::Unready => tracing::debug!(%error, "sealing without it"),
                sealed => return sealed,
            }
        }
        if let Some(claim) = closed_for(&self.app, &self.source, task).await? {
            return Err(claim.refusal());
        }
        let (mut out, _) = writer(&self.app, &self.source, fence)?;
        self.app.source(&self.source)?.source().follow(Until::Newest, task, &mut out).await?;
        match task.guard(out.resume()).await? {
            Some(reach) => Ok(reach.to),
            None => Err(Error::new(Kind::Conflict, self.doing(), "its timeline was closed meanwhile")),
        }
    }

    fn doing(&self) -> String {
        format!("sealing the timeline of {}", self.source)
    }
}

#[async_trait]
impl Work for Seal {
    fn order(&self) -> &Order {
        &self.order
    }

    fn needs_leader(&self) -> bool {
        true
    }

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        task.step("seal");
        let sealed = self.seal(task, &attempt.fence).await;
        let position = sealed.map_err(|error| error.while_doing(self.doing()))?;
        let kind = self.app.kind(self.app.source(&self.source)?.kind());
        let moment = kind.and_then(|kind| kind.moment(position));
        let up_to = moment.map_or_else(|| format!("position {position}"), |moment| moment.to_string());
        Ok(Done {
            status: Grade::Succeeded,
            summary: format!("the log of {} is stored up to {up_to}", self.source),
            detail: json!({ "position": position, "moment": moment }),
        })
    }
}
