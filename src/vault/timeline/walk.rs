//! Walks over the records of a segment as its plain bytes come.

use bytes::{Buf, BytesMut};

use super::Framing;
use crate::vault::codec::Hasher;
use crate::vault::manifest::Digest;

/// Takes plain bytes, and tells the records in them.
pub struct Walk {
    framing: Framing,
    open: BytesMut,
}

impl Walk {
    /// Before the first byte.
    pub fn new(framing: Framing) -> Self {
        Walk { framing, open: BytesMut::new() }
    }

    /// Takes the next bytes, and calls `see` with each record that something follows.
    pub fn take(&mut self, bytes: &[u8], mut see: impl FnMut(&[u8])) {
        self.open.extend_from_slice(bytes);
        while let Some(len) = (self.framing)(&self.open).filter(|len| (1..self.open.len()).contains(len)) {
            see(&self.open[..len]);
            self.open.advance(len);
        }
    }

    /// The last record: it ends with the segment.
    pub fn last(self) -> BytesMut {
        self.open
    }
}

/// Compares the record at which two segments meet, which both hold.
pub struct Junction {
    /// The last record of the segment before, and whether this one must begin with it; none: this is the first that is read.
    before: Option<(Digest, bool)>,
    found: bool,
    disagrees: bool,
    walk: Option<Walk>,
}

impl Junction {
    /// The records of the next segment are to come, one of which should be `before`.
    pub fn new(framing: Framing, before: Option<(Digest, bool)>) -> Self {
        let found = before.is_none();
        Junction { before, found, disagrees: false, walk: Some(Walk::new(framing)) }
    }

    /// Looks at the next plain bytes; false once it is known that the segments do not agree.
    pub fn take(&mut self, bytes: &[u8]) -> bool {
        let Some(mut walk) = self.walk.take() else { return false };
        walk.take(bytes, |record| self.see(record));
        self.walk = Some(walk);
        !self.disagrees
    }

    fn see(&mut self, record: &[u8]) {
        let Some((before, is_first)) = self.before.as_ref().filter(|_| !self.found) else { return };
        self.found = is(record, before);
        self.disagrees |= *is_first && !self.found;
    }

    /// After the last byte: the last record; none if the record of the segment before is not among the records.
    pub fn end(&mut self) -> Option<Digest> {
        let last = self.walk.take()?.last();
        self.see(&last);
        (self.found && !self.disagrees).then(|| Hasher::of(&last))
    }
}

fn is(record: &[u8], expected: &Digest) -> bool {
    record.len() as u64 == expected.bytes && Hasher::of(record) == *expected
}
