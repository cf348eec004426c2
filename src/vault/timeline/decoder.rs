//! From a segment's stored bytes, all of which are in memory and checked, to its plain bytes in blocks.

use std::collections::VecDeque;

use bytes::Bytes;

use crate::error::{Error, Kind, Result};
use crate::vault::codec::BLOCK;
use crate::vault::codec::pack::{Pause, Unpacker};
use crate::vault::codec::seal::{Identities, Opener};

/// Decrypts and unpacks.
pub struct Decoder {
    stored: VecDeque<Bytes>,
    opener: Option<Opener>,
    unpacker: Unpacker,
    packed: Bytes,
}

impl Decoder {
    /// Nothing is decoded yet. Without `identities` the bytes are in plain.
    pub fn new(stored: Vec<Bytes>, identities: Option<Identities>) -> Result<Self> {
        let unpacker = Unpacker::new().map_err(|cause| Error::new(Kind::Internal, "decompressing", cause))?;
        let opener = identities.map(Opener::new);
        Ok(Decoder { stored: stored.into(), opener, unpacker, packed: Bytes::new() })
    }

    /// The next plain bytes, about a block of them; none after the last.
    pub fn block(&mut self) -> Result<Option<Bytes>> {
        // A byte more than a block, so that the frame's checksum is read before there is no more room.
        let mut plain = Vec::with_capacity(BLOCK + 1);
        loop {
            let paused = self.unpacker.unpack(&mut self.packed, &mut plain);
            match paused.map_err(|cause| Error::new(Kind::Damaged, "decompressing", cause))? {
                Pause::Frame | Pause::Full if !plain.is_empty() => return Ok(Some(plain.into())),
                Pause::Frame | Pause::Full => {}
                Pause::Hungry if self.feed()? => {}
                Pause::Hungry if self.unpacker.is_at_boundary() => return Ok(None),
                Pause::Hungry => {
                    return Err(Error::new(Kind::Damaged, "decompressing", "the last frame is cut off"));
                }
            }
        }
    }

    /// Makes the next packed bytes ready; tells whether there are any.
    fn feed(&mut self) -> Result<bool> {
        while self.packed.is_empty() {
            let next = self.stored.pop_front();
            let Some(opener) = &mut self.opener else {
                let Some(next) = next else { return Ok(false) };
                self.packed = next;
                continue;
            };
            let ended = next.is_none();
            let mut opened = Vec::new();
            opener.open(next.unwrap_or_default(), &mut opened)?;
            self.packed = opened.into();
            if ended {
                self.opener = None;
                return Ok(!self.packed.is_empty());
            }
        }
        Ok(true)
    }
}
