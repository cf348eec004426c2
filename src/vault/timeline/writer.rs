//! Writes a timeline: records in, segments of bounded size and time out.

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::Origin;
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::deletion::Fence;
use crate::vault::layout::log::{Position, SegmentName, TimelineId};

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
    /// The record there, byte for byte; none while no segment is durable.
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

/// Asks for seals, from anywhere in the process.
#[derive(Clone, Debug)]
pub struct Sealer {
    asks: mpsc::Sender<oneshot::Sender<Result<Position>>>,
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
pub struct TimelineWriter<'a> {
    vault: Vault,
    source: SourceName,
    kind: String,
    fence: &'a dyn Fence,
    bounds: Bounds,
    asks: mpsc::Receiver<oneshot::Sender<Result<Position>>>,
}

impl<'a> TimelineWriter<'a> {
    /// Nothing is read or written yet. `kind` is the source's; the fence is asked before each object that is created.
    pub fn new(
        vault: &Vault,
        source: &SourceName,
        kind: &str,
        fence: &'a dyn Fence,
        bounds: Bounds,
    ) -> (Self, Sealer) {
        let (asks, asked) = mpsc::channel(16);
        let writer = TimelineWriter {
            vault: vault.clone(),
            source: source.clone(),
            kind: kind.to_owned(),
            fence,
            bounds,
            asks: asked,
        };
        (writer, Sealer { asks })
    }

    /// The newest timeline of this source, as it lies in the vault now; `None` if there is none, or it was closed. The
    /// source goes on from there if its log still holds that very record; else it begins another.
    pub async fn resume(&mut self) -> Result<Option<Reach>> {
        Ok(None)
    }

    /// Begins a new timeline.
    pub async fn begin(&mut self, _beginning: Beginning) -> Result<TimelineId> {
        Err(Error::new(Kind::Internal, "beginning a timeline", "not built yet"))
    }

    /// Takes the next record; closes the segment before it where that would grow too large.
    pub async fn push(&mut self, _record: Bytes, _at: Position) -> Result<()> {
        Ok(())
    }

    /// Returns when the open segment is to be closed: it is old enough, or somebody asks. The source then reads up to the
    /// newest record and calls [`seal`](Self::seal). May be dropped and called again.
    pub async fn due(&mut self) {
        std::future::pending().await
    }

    /// Closes the open segment, durable when this returns, and answers whoever asked. `None` if it holds no record.
    pub async fn seal(&mut self) -> Result<Option<SegmentName>> {
        let _ = (&self.vault, &self.source, &self.kind, self.fence.generation(), self.bounds, &self.asks);
        Ok(None)
    }

    /// Whether somebody closed the timeline (a restore is about to write to the source): then the source seals what lies
    /// before `End::position`, and ends.
    pub async fn closed(&self) -> Result<Option<super::End>> {
        Ok(None)
    }
}
