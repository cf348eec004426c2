//! Reads a chain of segments back: each checked as a whole against the hash in its name before its first byte is handed out.
//!
//! Two segments that follow each other both hold the record at which they meet. Their bytes must agree: else the log was
//! another one by then, and what looks like a chain is a gap.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::chain::{Broken, Chain, Stretch, chain, stretches};
use super::decoder::Decoder;
use super::walk::Junction;
use super::{Framing, Segment, Timeline, list, object};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::Vault;
use crate::vault::codec::seal::Identities;
use crate::vault::codec::start;
use crate::vault::layout::log::{self, Position, TimelineId};
use crate::vault::manifest::{Codec, Digest};
use crate::vault::reader::{BackupReader, private_keys};

/// A chain of segments, open to be read as often as wanted.
#[derive(Clone, Debug)]
pub struct LogReader {
    /// The vault it is in.
    pub vault: Vault,
    /// Of which source.
    pub source: SourceName,
    /// Along which timeline.
    pub timeline: TimelineId,
    /// After the record here,
    pub from: Position,
    /// up to the record here.
    pub to: Position,
    /// Its segments, in order.
    pub chain: Chain,
    framing: Framing,
    /// The last records of the segments that were read, by their positions.
    ends: Arc<Mutex<BTreeMap<Position, Digest>>>,
}

impl BackupReader {
    /// The log that leads from this backup to `to`; `None` if the backup is of `to` itself. `framing` tells its records apart.
    ///
    /// # Errors
    /// `NotFound` if the source keeps no timeline that this backup is a base of, or its chain breaks before `to`: the
    /// message says where, and what can be restored instead.
    pub async fn log(&self, to: Position, framing: Framing, task: &Task) -> Result<Option<LogReader>> {
        let backup = self.manifest.backup();
        let doing = || format!("looking for the log from {backup} to position {to}");
        let not_found = |why: String| Error::new(Kind::NotFound, doing(), why);
        let (Some(identity), Some(from)) = (&self.manifest.timeline, self.manifest.log_position) else {
            return Err(not_found("the backup does not say of which place in a log it is".to_owned())
                .hint("it can be restored as it is, without a moment"));
        };
        if to < from {
            let why = format!("the backup is of position {from}, which is later");
            return Err(not_found(why).hint("choose an older backup"));
        }
        // Nothing is there between the end that was sealed and what is wanted.
        let reach = self.log_end.map_or(to, |end| to.min(end.max(from)));
        if reach == from {
            return Ok(None);
        }
        let timelines = task.guard(list(&self.vault, &backup.source)).await;
        let timelines = timelines.map_err(|error| error.while_doing(doing()))?;
        match find(&timelines, identity, from, reach) {
            Ok((timeline, chain)) => Ok(Some(LogReader {
                vault: self.vault.clone(),
                source: backup.source.clone(),
                timeline: timeline.clone(),
                from,
                to,
                chain,
                framing,
                ends: Arc::default(),
            })),
            Err(why) => Err(not_found(why)
                .hint(format!("`tidekeeper timeline {}` shows what can be restored", backup.source))),
        }
    }
}

/// The newest timeline along which the log goes from `from` to `to`; or in words how far it goes.
fn find<'a>(
    timelines: &'a [Timeline],
    identity: &str,
    from: Position,
    to: Position,
) -> Result<(&'a TimelineId, Chain), String> {
    let mut broken: Option<(&TimelineId, Broken)> = None;
    for timeline in timelines.iter().rev() {
        let holds = |stretch: &Stretch| stretch.identity == identity && stretch.leads(from, stretch.to);
        if !stretches(timeline).iter().any(holds) {
            continue;
        }
        match chain(timeline, from, to) {
            Ok(chain) => return Ok((&timeline.id, chain)),
            Err(at) if broken.as_ref().is_none_or(|(_, other)| other.at < at.at) => {
                broken = Some((&timeline.id, at));
            }
            Err(_) => {}
        }
    }
    let unreadable = timelines.iter().find_map(|timeline| {
        timeline.problem().map(|problem| format!("; timeline {} cannot be read: {problem}", timeline.id))
    });
    let unreadable = unreadable.unwrap_or_default();
    Err(match broken {
        Some((timeline, Broken { at, next })) => {
            let goes_on = match next {
                Some(next) => format!("it goes on after {next}, and what lies between is missing"),
                None => "nothing after it is stored".to_owned(),
            };
            format!("timeline {timeline} is unbroken from {from} to {at} only; {goes_on}{unreadable}")
        }
        None => format!("no timeline of this log holds position {from}{unreadable}"),
    })
}

impl LogReader {
    /// The plain bytes of one segment: the record at its `from` first, then its records. At most 64 MiB and one record.
    ///
    /// # Errors
    /// `Damaged`, naming the segment, if it is missing or not what its name says, or if it does not agree with the segment
    /// before it in the chain, where that was read; `Config` or `Denied` if it is encrypted and no private key fits.
    pub async fn segment(&self, segment: &Segment, task: &Task) -> Result<SegmentReader> {
        let opened = task.guard(open(&self.vault, &self.source, &self.timeline, segment));
        let decoder = opened.await.map_err(|error| error.while_doing(reading(segment)))?;
        let before = self.record_before(segment).map(|(at, record)| (record, at == segment.name.from));
        Ok(SegmentReader {
            segment: segment.clone(),
            decoder: Some(decoder),
            junction: Junction::new(self.framing, before),
            ends: self.ends.clone(),
        })
    }

    /// The last record of the segment before `segment`, and its position, if that was read.
    fn record_before(&self, segment: &Segment) -> Option<(Position, Digest)> {
        let segments = self.chain.segments.iter();
        let at = segments.take_while(|other| *other != segment).last()?.name.to;
        let ends = self.ends.lock().expect("no holder panics");
        ends.get(&at).map(|record| (at, record.clone()))
    }
}

/// Reads a segment into memory, checks it, and makes ready to decode it.
pub(super) async fn open(
    vault: &Vault,
    source: &SourceName,
    timeline: &TimelineId,
    segment: &Segment,
) -> Result<Decoder> {
    let identities = identities(vault, segment).await?;
    let stored = object::read(vault, &log::segment(source, timeline, &segment.name), segment).await?;
    Decoder::new(stored, identities)
}

/// Checks the stored bytes of a segment against its name.
///
/// # Errors
/// `Damaged` if they are others or missing; those of the store.
pub(in crate::vault) async fn check(
    vault: &Vault,
    source: &SourceName,
    timeline: &TimelineId,
    segment: &Segment,
) -> Result<()> {
    object::read(vault, &log::segment(source, timeline, &segment.name), segment).await.map(drop)
}

async fn identities(vault: &Vault, segment: &Segment) -> Result<Option<Identities>> {
    match segment.name.codecs.contains(&Codec::Age) {
        true => private_keys(vault, "the recipients of the time").await.map(Some),
        false => Ok(None),
    }
}

fn reading(segment: &Segment) -> String {
    format!("reading segment {}", segment.name)
}

/// The plain bytes of a segment, in blocks of about 1 MiB that end anywhere.
pub struct SegmentReader {
    segment: Segment,
    /// None once it has failed or was dropped in the middle.
    decoder: Option<Decoder>,
    junction: Junction,
    ends: Arc<Mutex<BTreeMap<Position, Digest>>>,
}

impl fmt::Debug for SegmentReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SegmentReader({})", self.segment.name)
    }
}

impl SegmentReader {
    /// The next block; `None` after the last.
    ///
    /// # Errors
    /// `Damaged` if a block cannot be decoded, or the segment does not agree with the one before it: that is known with the
    /// first record where one begins as the other ends, else after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        let doing = |error: Error| error.while_doing(reading(&self.segment));
        let Some(mut decoder) = self.decoder.take() else {
            return Err(doing(Error::new(Kind::Internal, "going on", "it has ended before")));
        };
        let decoded = start(usize::MAX, move || {
            let block = decoder.block()?;
            Ok((decoder, block))
        });
        let (decoder, block) = decoded.await.map_err(doing)?;
        match &block {
            Some(block) if self.junction.take(block) => self.decoder = Some(decoder),
            Some(_) => return Err(self.gap()),
            None => {
                let last = self.junction.end().ok_or_else(|| self.gap())?;
                self.ends.lock().expect("no holder panics").insert(self.segment.name.to, last);
            }
        }
        Ok(block)
    }

    fn gap(&self) -> Error {
        let why =
            "it does not hold the record with which the segment before it ends: that is a gap in the log";
        Error::new(Kind::Damaged, reading(&self.segment), why)
            .hint("restore to a moment before this segment; a new backup begins anew")
    }
}
