//! How an object is cut into the parts of an upload. Pure.

use crate::vault::store::part_size;

/// The least that S3 takes as a part that is not the last.
pub const PART_MIN: u64 = 5 << 20;

/// The most parts that S3 takes.
pub const PARTS_MAX: u32 = 10_000;

/// A part: where in the spool file it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Section {
    /// From 1.
    pub number: u32,
    /// Where it begins.
    pub from: u64,
    /// Where the next begins.
    pub to: u64,
}

/// Cuts a growing object into sections.
#[derive(Debug)]
pub struct Cutter {
    number: u32,
    from: u64,
    end: u64,
}

impl Default for Cutter {
    fn default() -> Self {
        Cutter { number: 1, from: 0, end: 0 }
    }
}

impl Cutter {
    /// How long the object is now.
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Whether anything was cut off yet.
    pub fn is_whole(&self) -> bool {
        self.number == 1
    }

    /// The object has grown.
    pub fn grow(&mut self, bytes: u64) {
        self.end += bytes;
    }

    /// The next section of full length, if there is one.
    pub fn full(&mut self) -> Option<Section> {
        let len = part_size(self.number);
        (self.end - self.from >= len).then(|| self.cut(self.from + len))
    }

    /// What there is, before its time, so that a full spool empties: where several artifacts fill it with the beginnings
    /// of parts, or where one part is larger than it (4 GiB of spool: objects of more than 4 TiB). But not so
    /// little that 10,000 parts would soon be used up.
    pub fn early(&mut self) -> Option<Section> {
        let enough = PART_MIN.max(part_size(self.number) / 4);
        (self.end - self.from >= enough).then(|| self.cut(self.end))
    }

    /// The last section.
    pub fn rest(&mut self) -> Option<Section> {
        (self.end > self.from).then(|| self.cut(self.end))
    }

    fn cut(&mut self, to: u64) -> Section {
        let section = Section { number: self.number, from: self.from, to };
        self.number += 1;
        self.from = to;
        section
    }
}
