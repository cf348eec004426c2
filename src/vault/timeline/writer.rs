//! Writes a timeline: records in, segments of bounded size and time out.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::chain::stretches;
use super::draft::{Draft, Packed};
use super::walk::Walk;
use super::{CALL_LIMIT, End, Framing, Origin, Segment, Timeline, list, object, reader};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::task::Spool;
use crate::vault::Vault;
use crate::vault::codec::pack::Packers;
use crate::vault::codec::{persist, start};
use crate::vault::decide::{Decision, decide, read_json};
use crate::vault::deletion::Fence;
use crate::vault::layout::log::{self, Position, SegmentName, TimelineId};
use crate::vault::layout::{nonce, random};

/// When a segment is closed, whatever comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// After so long: what was written since is at risk, so this bounds the RPO.
    pub age: Duration,
    /// After so many plain bytes.
    pub plain_bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds { age: Duration::from_secs(60), plain_bytes: 64 << 20 }
    }
}

/// How far a timeline reaches that is being written.
#[derive(Clone, Debug, PartialEq)]
pub struct Reach {
    /// How it began.
    pub origin: Origin,
    /// Its last durable position.
    pub to: Position,
    /// The record there, byte for byte. None while no segment is durable, or where it is encrypted and no private key is here:
    /// then the first push hands over the record at `to` itself, as the log holds it.
    pub record: Option<Bytes>,
}

/// What a new timeline begins with.
#[derive(Clone, Debug, PartialEq)]
pub struct Beginning {
    /// The log's own name for itself.
    pub identity: String,
    /// The record that the first segment begins after,
    pub record: Bytes,
    /// and its position.
    pub at: Position,
    /// Why a new timeline begins.
    pub why: String,
}

type Ask = oneshot::Sender<Result<Position>>;

/// Asks for seals, from anywhere in the process.
#[derive(Clone, Debug)]
pub struct Sealer {
    asks: mpsc::Sender<Ask>,
}

impl Sealer {
    /// Asks the follower to read up to the newest record and close its segment. Answers the position up to which the
    /// timeline is durable then.
    ///
    /// # Errors
    /// `Unready` if the follower has ended; its own error if it could not seal.
    pub async fn seal(&self) -> Result<Position> {
        let (answer, sealed) = oneshot::channel();
        let gone = || Error::new(Kind::Unready, "sealing the timeline", "its follower has ended");
        self.asks.send(answer).await.map_err(|_| gone())?;
        sealed.await.unwrap_or_else(|_| Err(gone()))
    }
}

/// Writes the timeline of one source. A value that can be dropped at any await: the next writer goes on from what is
/// durable, and overlapping segments agree.
///
/// The name of a segment holds the hash of its bytes, so creating it again after a lost reply finds it there. Until it is
/// known to be durable the packed segment is kept as it is, and the next try creates the same.
pub struct TimelineWriter<'a> {
    vault: Vault,
    source: SourceName,
    kind: String,
    fence: &'a dyn Fence,
    bounds: Bounds,
    framing: Framing,
    /// Whose pace it keeps.
    spool: Option<Spool>,
    asks: mpsc::Receiver<Ask>,
    /// Who waits for the next seal.
    waiting: Vec<Ask>,
    open: Option<Open>,
    packers: Arc<Packers>,
}

/// The timeline that is written.
struct Open {
    id: TimelineId,
    draft: Draft,
    /// Ended, and not known to be durable.
    packed: Option<Packed>,
}

impl<'a> TimelineWriter<'a> {
    /// Nothing is read or written yet. `kind` is what the segments hold; `framing` tells their records apart; the fence is
    /// asked before each object that is created.
    pub fn new(
        vault: &Vault,
        source: &SourceName,
        kind: &str,
        fence: &'a dyn Fence,
        bounds: Bounds,
        framing: Framing,
    ) -> (Self, Sealer) {
        let (asks, asked) = mpsc::channel(16);
        let writer = TimelineWriter {
            vault: vault.clone(),
            source: source.clone(),
            kind: kind.to_owned(),
            fence,
            bounds,
            framing,
            spool: None,
            asks: asked,
            waiting: Vec::new(),
            open: None,
            packers: Arc::default(),
        };
        (writer, Sealer { asks })
    }

    /// Sends segments at the pace of this spool. They go ahead of what else is sent: a restore may wait for one, and what is
    /// not sent is at risk.
    pub fn keep_pace(&mut self, spool: &Spool) {
        self.spool = Some(spool.clone());
    }

    /// The newest timeline of this source, as it lies in the vault now; `None` if there is none, or it was closed, or cannot
    /// be read. The source goes on from there if its log still holds that very record; else it begins another. What was
    /// pushed and is not durable is forgotten.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn resume(&mut self) -> Result<Option<Reach>> {
        self.reopen(|_, end| end.is_none()).await
    }

    /// The newest timeline if it was closed at a place that it does not reach: whoever closed it could not have it stored.
    /// The source may add what its log still holds up to there, and nothing beyond.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn resume_ended(&mut self) -> Result<Option<Reach>> {
        let is_short = |timeline: &Timeline, end: Option<&End>| {
            let reached = stretches(timeline).pop().map(|stretch| stretch.to);
            end.zip(reached).is_some_and(|(end, reached)| reached < end.position)
        };
        self.reopen(is_short).await
    }

    async fn reopen(
        &mut self,
        wanted: impl FnOnce(&Timeline, Option<&End>) -> bool,
    ) -> Result<Option<Reach>> {
        self.open = None;
        let Some(mut newest) = list(&self.vault, &self.source).await?.pop() else { return Ok(None) };
        let (origin, end) = match (&newest.origin, &newest.end) {
            (Ok(origin), Ok(end)) => (origin.clone(), end.clone()),
            (Err(why), _) | (_, Err(why)) => {
                tracing::warn!(source = %self.source, timeline = %newest.id, why, "it cannot be gone on with");
                return Ok(None);
            }
        };
        if !wanted(&newest, end.as_ref()) {
            return Ok(None);
        }
        let (to, record) = self.last_record(&mut newest, origin.from).await?;
        let draft = Draft::new(&self.vault, to, record.clone(), &self.packers)?;
        self.open = Some(Open { id: newest.id, draft, packed: None });
        Ok(Some(Reach { origin, to, record }))
    }

    /// The end of the last unbroken stretch, and the record there. A damaged segment counts as none: what is written next
    /// covers what it should hold, as long as the log still has that.
    async fn last_record(
        &self,
        timeline: &mut Timeline,
        origin: Position,
    ) -> Result<(Position, Option<Bytes>)> {
        loop {
            let to = stretches(timeline).pop().map_or(origin, |stretch| stretch.to);
            let Some(n) = timeline.segments.iter().position(|segment| segment.name.to == to) else {
                return Ok((to, None));
            };
            match self.read_last(&timeline.id, &timeline.segments[n]).await {
                Ok(record) => return Ok((to, Some(record))),
                Err(error) if matches!(error.kind(), Kind::Config | Kind::Denied) => return Ok((to, None)),
                Err(error) if error.kind() == Kind::Damaged => {
                    tracing::warn!(source = %self.source, %error, "going on before a damaged segment");
                    timeline.segments.remove(n);
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn read_last(&self, timeline: &TimelineId, segment: &Segment) -> Result<Bytes> {
        let mut decoder = reader::open(&self.vault, &self.source, timeline, segment).await?;
        let mut walk = Walk::new(self.framing);
        // A block a turn: others work meanwhile.
        loop {
            let block;
            (decoder, block) = start(usize::MAX, move || {
                let block = decoder.block()?;
                Ok((decoder, block))
            })
            .await?;
            match block {
                Some(block) => walk.take(&block, |_| ()),
                None => return Ok(walk.last().freeze()),
            }
        }
    }

    /// The newest timeline of this source as it lies in the vault: it tells why another begins.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn newest(&self) -> Result<Option<Timeline>> {
        Ok(list(&self.vault, &self.source).await?.pop())
    }

    /// Begins a new timeline; what was pushed before is made durable first.
    ///
    /// # Errors
    /// Those of the store and of the fence.
    pub async fn begin(&mut self, beginning: Beginning) -> Result<TimelineId> {
        if self.open.is_some() {
            self.store().await?;
        }
        let Beginning { identity, record, at, why } = beginning;
        let draft = Draft::new(&self.vault, at, Some(record), &self.packers)?;
        let previous = list(&self.vault, &self.source).await?.pop().map(|newest| newest.id);
        let now = self.vault.clock.now();
        let id = TimelineId::new(now, previous.as_ref(), random() as u32);
        let origin = Origin {
            timeline: id.clone(),
            source: self.source.clone(),
            kind: self.kind.clone(),
            identity,
            from: at,
            why,
            previous,
            writer: nonce(),
            at: now,
            leader_generation: self.fence.generation(),
            unknown: Default::default(),
        };
        self.fence.still_leading().await?;
        let key = log::origin(&self.source, &id);
        match decide(&*self.vault.store, &*self.vault.clock, &key, &origin).await? {
            Decision::Ours => {}
            Decision::Theirs(other) => {
                let why = format!("writer {} began one of this name", other.writer);
                return Err(Error::new(Kind::Conflict, format!("beginning timeline {key}"), why));
            }
        }
        self.open = Some(Open { id: id.clone(), draft, packed: None });
        Ok(id)
    }

    /// Takes the next record; closes the segment before it where that would grow too large. All that is waited for comes
    /// before the record is in: dropped, it is not.
    ///
    /// # Errors
    /// `Internal` for a position that does not grow; those of the store and of the fence.
    pub async fn push(&mut self, record: Bytes, at: Position) -> Result<()> {
        let bound = self.bounds.plain_bytes;
        let Open { draft, packed, .. } = self.opened()?;
        let proves = draft.record.is_none();
        if proves != (at == draft.to) || at < draft.to {
            let why = format!("it is of {at}, and the timeline reaches {}", draft.to);
            return Err(Error::new(Kind::Internal, "taking the next record of a log", why));
        }
        draft.pack().await?;
        if packed.is_some() || (!draft.is_empty() && draft.is_full(record.len(), bound)) {
            self.store().await?;
        }
        let now = self.vault.clock.monotonic();
        let draft = &mut self.opened()?.draft;
        if !proves {
            draft.since.get_or_insert(now);
        }
        draft.take(record, at);
        Ok(())
    }

    fn opened(&mut self) -> Result<&mut Open> {
        let none = || Error::new(Kind::Internal, "writing a timeline", "none was begun or resumed");
        self.open.as_mut().ok_or_else(none)
    }

    /// Returns when the open segment is to be closed: it is old enough, or somebody asks. The source then reads up to the
    /// newest record and calls [`seal`](Self::seal). May be dropped and called again.
    pub async fn due(&mut self) {
        if !self.waiting.is_empty() {
            return;
        }
        let clock = self.vault.clock.clone();
        let since = self.open.as_ref().and_then(|open| open.draft.since);
        let age = self.bounds.age;
        let aged = async {
            match since {
                Some(since) => clock.sleep((since + age).saturating_sub(clock.monotonic())).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(ask) = self.asks.recv() => self.waiting.push(ask),
            () = aged => {}
        }
    }

    /// Closes the open segment, durable when this returns, and answers whoever asked. `None` if it holds no record.
    ///
    /// # Errors
    /// Those of the store and of the fence; all stays as it was, and the next call tries the same.
    pub async fn seal(&mut self) -> Result<Option<SegmentName>> {
        let sealed = match self.open {
            Some(_) => self.store().await,
            None => Ok(None),
        };
        let reached = self.open.as_ref().map(|open| open.draft.from);
        for ask in self.waiting.drain(..) {
            // Who asked and does not wait any more needs no answer.
            let _ = ask.send(match (&sealed, reached) {
                (Ok(_), Some(reached)) => Ok(reached),
                (Ok(_), None) => Err(Error::new(Kind::Unready, "sealing the timeline", "none has begun yet")),
                (Err(error), _) => Err(copy(error)),
            });
        }
        sealed
    }

    /// Creates the open segment's object, and opens the next segment.
    async fn store(&mut self) -> Result<Option<SegmentName>> {
        let Open { draft, packed, .. } = self.opened()?;
        if packed.is_none() {
            if draft.is_empty() {
                return Ok(None);
            }
            *packed = Some(draft.finish().await?);
        }
        let Some(Open { id, draft, packed: Some(packed) }) = &self.open else { return Ok(None) };
        let name = SegmentName {
            from: draft.from,
            to: packed.to,
            generation: self.fence.generation().unwrap_or(0),
            sha256: packed.sha256.clone(),
            kind: self.kind.clone(),
            codecs: packed.codecs.clone(),
        };
        let next = Draft::new(&self.vault, packed.to, Some(packed.record.clone()), &self.packers)?;
        let id = id.clone();
        if let Some(spool) = &self.spool {
            spool.pace().book_ahead(packed.body.len() as u64).await;
        }
        self.fence.still_leading().await?;
        object::create(&self.vault, &log::segment(&self.source, &id, &name), &packed.body).await.map_err(
            |error| error.while_doing(format!("storing a segment of timeline {}/{id}", self.source)),
        )?;
        self.open = Some(Open { id, draft: next, packed: None });
        Ok(Some(name))
    }

    /// Whether somebody closed the timeline (a restore is about to write to the source): then the source seals what lies
    /// before `End::position`, and ends.
    ///
    /// # Errors
    /// `Damaged` if that cannot be read; those of the store.
    pub async fn closed(&self) -> Result<Option<End>> {
        let Some(open) = &self.open else { return Ok(None) };
        let key = log::end(&self.source, &open.id);
        persist(&*self.vault.clock, CALL_LIMIT, || read_json(&*self.vault.store, &key)).await
    }
}

/// The same failure, for another who waits for it.
fn copy(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.doing(), error.why()).retryable(error.is_retryable());
    match error.hint_text() {
        Some(hint) => copy.hint(hint),
        None => copy,
    }
}
