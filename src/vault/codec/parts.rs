//! How an object is cut into the parts of an upload. Pure.

/// The length of the first parts, in bytes.
pub const PART: u64 = 8 << 20;

/// The least that S3 takes as a part that is not the last.
pub const PART_MIN: u64 = 5 << 20;

/// The most parts that S3 takes.
pub const PARTS_MAX: u32 = 10_000;

/// The length of part `number` (from 1): 8 MiB, doubling every 250 parts, up to 640 MiB.
///
/// The first 250 parts hold 2 GiB, the first 1,750 hold 248 GiB, and 10,000 hold 5.28 TiB: more than the 5 TiB of
/// the largest object. S3 takes parts of up to 5 GiB; ours stay far smaller because a part waits in the spool
/// (five of the largest fit the default `spool_max` of 4 GiB) and is sent again as a whole when it fails.
pub fn part_len(number: u32) -> u64 {
    let doublings = (number - 1) / 250;
    (PART << doublings.min(7)).min(640 << 20)
}

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
        let len = part_len(self.number);
        (self.end - self.from >= len).then(|| self.cut(self.from + len))
    }

    /// What there is, before its time, so that a full spool empties; but not so little that 10,000 such parts would
    /// not hold a large object.
    pub fn early(&mut self) -> Option<Section> {
        let enough = PART_MIN.max(part_len(self.number) / 4);
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
