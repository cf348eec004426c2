//! zstd: blocks into frames, each decoded again; and frames into plain bytes.

use std::io;
use std::sync::Mutex;

use bytes::{Buf, Bytes};
use zstd::bulk::{Compressor, Decompressor};
use zstd::stream::raw::{DParameter, Decoder, InBuffer, Operation, OutBuffer};

use super::BLOCK;
use crate::error::{Error, Kind, Result};

/// Where zstd stands between speed and size: what `zstd` itself takes unless told otherwise.
const LEVEL: i32 = 3;

/// The largest window that we read, as a power of two: ours are 1 MiB, those of `zstd -19` 8 MiB. It bounds the memory that
/// a damaged or foreign frame can ask for.
const WINDOW_LOG_MAX: u32 = 23;

/// Packs blocks into frames. Its tables and its scratch are about 3 MiB: used again, not made again.
pub struct Packer {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    decoded: Vec<u8>,
}

impl Packer {
    /// A packer that has packed nothing.
    pub fn new() -> Result<Self> {
        let make = || {
            let mut compressor = Compressor::new(LEVEL)?;
            compressor.include_checksum(true)?;
            Ok((compressor, Decompressor::new()?))
        };
        let (compressor, decompressor) = make().map_err(|cause: io::Error| broken(cause))?;
        Ok(Packer { compressor, decompressor, decoded: Vec::new() })
    }

    /// Packs `plain`, at most a [`BLOCK`], into one frame, and checks it.
    pub fn pack(&mut self, plain: &[u8], frame: &mut Vec<u8>) -> Result<()> {
        frame.clear();
        frame.reserve_exact(zstd::zstd_safe::compress_bound(plain.len()));
        self.compressor.compress_to_buffer(plain, frame).map_err(broken)?;
        self.check(plain, frame)
    }

    /// Decodes `frame` and compares it with what it was made of.
    ///
    /// This is no defence against an adversary but against a fault of a compressor or of this machine's memory, which
    /// would otherwise be found by the restore that needs the bytes. Comparing the bytes themselves costs less than
    /// any hash of them, and misses nothing.
    ///
    /// # Errors
    /// `Internal`: nothing that was written with such a fault can be trusted.
    pub fn check(&mut self, plain: &[u8], frame: &[u8]) -> Result<()> {
        self.decoded.clear();
        self.decoded.reserve_exact(plain.len().max(1));
        self.decompressor.decompress_to_buffer(frame, &mut self.decoded).map_err(broken)?;
        if self.decoded != plain {
            return Err(broken("what was compressed decodes to other bytes"));
        }
        Ok(())
    }
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::new(Kind::Internal, "compressing a block", why)
        .hint("try again; if it happens again, test this machine's memory, and run the backup on another")
}

/// Idle packers.
#[derive(Default)]
pub struct Packers(Mutex<Vec<Packer>>);

impl Packers {
    /// Packs with an idle packer, or with a new one.
    pub fn pack(&self, plain: &[u8], frame: &mut Vec<u8>) -> Result<()> {
        debug_assert!(plain.len() <= BLOCK);
        let idle = self.0.lock().expect("no holder panics").pop();
        let mut packer = idle.map_or_else(Packer::new, Ok)?;
        packer.pack(plain, frame)?;
        self.0.lock().expect("no holder panics").push(packer);
        Ok(())
    }
}

/// Unpacks a stream of frames.
pub struct Unpacker {
    decoder: Decoder<'static>,
    at_boundary: bool,
}

/// Why unpacking paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// The stored bytes are used up.
    Hungry,
    /// A frame has ended, and its checksum was right.
    Frame,
    /// There is no more room.
    Full,
}

impl Unpacker {
    /// An unpacker before the first frame.
    pub fn new() -> io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG_MAX))?;
        Ok(Unpacker { decoder, at_boundary: false })
    }

    /// Decodes from `stored`, appending to `plain` up to its capacity.
    pub fn unpack(&mut self, stored: &mut Bytes, plain: &mut Vec<u8>) -> io::Result<Pause> {
        loop {
            let before = plain.len();
            let mut from = InBuffer::around(stored);
            let mut to = OutBuffer::around_pos(plain, before);
            let wanted = self.decoder.run(&mut from, &mut to)?;
            let (read, written) = (from.pos(), to.pos() - before);
            stored.advance(read);
            if read + written == 0 {
                return Ok(Pause::Hungry);
            }
            self.at_boundary = wanted == 0;
            if self.at_boundary {
                return Ok(Pause::Frame);
            }
            if plain.len() == plain.capacity() {
                return Ok(Pause::Full);
            }
        }
    }

    /// Whether all that was given were whole frames, at least one.
    pub fn is_at_boundary(&self) -> bool {
        self.at_boundary
    }
}
