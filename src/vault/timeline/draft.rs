//! A segment while it is made: records gather into blocks, and the blocks are held packed, in memory.

use std::collections::VecDeque;
use std::mem::take;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::codec::pack::Packers;
use crate::vault::codec::seal::Sealer;
use crate::vault::codec::{BLOCK, Hasher, start};
use crate::vault::layout::log::Position;
use crate::vault::manifest::Codec;
use crate::vault::store::SMALL_OBJECT_MAX;

/// Left free of [`SMALL_OBJECT_MAX`] for what zstd and age add to bytes that do not compress: less than 1 %, and age's header.
const MARGIN: u64 = 256 << 10;

/// A segment that takes records.
pub struct Draft {
    /// The record here is the proof that it begins with.
    pub from: Position,
    /// Its last record, or the proof.
    pub to: Position,
    /// The bytes of the record at `to`; none while the proof is not known.
    pub record: Option<Bytes>,
    /// When the first record after the proof came, by the monotonic clock.
    pub since: Option<Duration>,
    plain_bytes: u64,
    /// Records that fill no block yet.
    open: Vec<u8>,
    /// Whole blocks that are not packed yet.
    blocks: VecDeque<Bytes>,
    stored: Vec<u8>,
    hasher: Hasher,
    sealer: Option<Sealer>,
    packers: Arc<Packers>,
}

/// A segment's stored bytes, and what its name must say of them.
pub struct Packed {
    pub to: Position,
    pub record: Bytes,
    pub sha256: String,
    pub codecs: Vec<Codec>,
    pub body: Bytes,
}

impl Draft {
    /// A segment after the record at `from`.
    pub fn new(vault: &Vault, from: Position, proof: Option<Bytes>, packers: &Arc<Packers>) -> Result<Self> {
        let recipients = vault.encryption.as_ref().map(|encryption| &*encryption.recipients);
        let recipients = recipients.filter(|recipients| !recipients.is_empty());
        let mut draft = Draft {
            from,
            to: from,
            record: None,
            since: None,
            plain_bytes: 0,
            open: Vec::new(),
            blocks: VecDeque::new(),
            stored: Vec::new(),
            hasher: Hasher::default(),
            sealer: recipients.map(Sealer::new).transpose()?,
            packers: packers.clone(),
        };
        if let Some(proof) = proof {
            draft.take(proof, from);
        }
        Ok(draft)
    }

    /// Whether it holds no record besides its proof.
    pub fn is_empty(&self) -> bool {
        self.to == self.from
    }

    /// Whether another record of so many bytes would make it longer than `bound` plain bytes, or longer than one create takes.
    pub fn is_full(&self, record: usize, bound: u64) -> bool {
        let record = record as u64;
        let unpacked = self.open.len() + self.blocks.iter().map(Bytes::len).sum::<usize>();
        let stored = (self.stored.len() + unpacked) as u64;
        self.plain_bytes + record > bound || stored + record + MARGIN > SMALL_OBJECT_MAX
    }

    /// Takes a record. What it fills is packed later, so that nothing is half done if that is not waited for.
    pub fn take(&mut self, record: Bytes, at: Position) {
        self.plain_bytes += record.len() as u64;
        let mut rest = &*record;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(BLOCK - self.open.len()));
            self.open.extend_from_slice(head);
            rest = tail;
            if self.open.len() == BLOCK {
                self.blocks.push_back(take(&mut self.open).into());
            }
        }
        (self.to, self.record) = (at, Some(record));
    }

    /// Packs the blocks that are whole.
    pub async fn pack(&mut self) -> Result<()> {
        while let Some(block) = self.blocks.front().cloned() {
            let packers = self.packers.clone();
            let packed = start(block.len(), move || {
                let mut frame = Vec::new();
                packers.pack(&block, &mut frame)?;
                Ok(frame)
            });
            let frame = packed.await?;
            // From here to the end of the turn nothing waits: a block is in once, or not at all.
            let before = self.stored.len();
            match &mut self.sealer {
                Some(sealer) => sealer.seal(&frame, &mut self.stored)?,
                None => self.stored.extend_from_slice(&frame),
            }
            self.hasher.update(&self.stored[before..]);
            self.blocks.pop_front();
        }
        Ok(())
    }

    /// Ends it: all is packed, and takes no more.
    pub async fn finish(&mut self) -> Result<Packed> {
        if !self.open.is_empty() {
            self.blocks.push_back(take(&mut self.open).into());
        }
        self.pack().await?;
        let Some(record) = self.record.clone() else {
            return Err(Error::new(Kind::Internal, "closing a segment", "it has no record"));
        };
        let mut codecs = vec![Codec::Zstd];
        if let Some(sealer) = self.sealer.take() {
            let before = self.stored.len();
            sealer.finish(&mut self.stored)?;
            self.hasher.update(&self.stored[before..]);
            codecs.push(Codec::Age);
        }
        let sha256 = take(&mut self.hasher).finish().sha256;
        Ok(Packed { to: self.to, record, sha256, codecs, body: take(&mut self.stored).into() })
    }
}
