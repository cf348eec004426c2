//! Which server of a cluster holds a key.

use crate::source::redis::address::Address;
use crate::source::redis::cluster::{Range, Topology};

/// How many slots a cluster has.
pub const SLOTS: usize = 16_384;

/// The servers, and which slot is whose.
#[derive(Clone, Debug)]
pub struct SlotMap {
    nodes: Vec<Address>,
    owner: Vec<u16>,
}

const NOBODY: u16 = u16::MAX;

impl SlotMap {
    /// One server that has everything.
    pub fn single(address: Address) -> Self {
        SlotMap { nodes: vec![address], owner: vec![0; SLOTS] }
    }

    /// From ranges of slots (both ends included) and who holds them.
    pub fn new(ranges: impl IntoIterator<Item = (u16, u16, Address)>) -> Self {
        let mut map = SlotMap { nodes: Vec::new(), owner: vec![NOBODY; SLOTS] };
        for (first, last, node) in ranges {
            let known = map.nodes.iter().position(|other| *other == node);
            let index = known.unwrap_or_else(|| {
                map.nodes.push(node);
                map.nodes.len() - 1
            });
            let slots = usize::from(first)..(usize::from(last) + 1).min(SLOTS);
            map.owner.get_mut(slots).into_iter().flatten().for_each(|owner| *owner = index as u16);
        }
        map
    }

    /// The masters of a cluster, under the addresses by which a backup finds them, too.
    pub fn of(topology: &Topology) -> Self {
        SlotMap::new(topology.shards.iter().flat_map(|shard| {
            shard.ranges.iter().map(|Range(first, last)| (*first, *last, shard.master.address.clone()))
        }))
    }

    /// How many servers there are.
    pub fn servers(&self) -> usize {
        self.nodes.len()
    }

    /// The servers, by number.
    pub fn nodes(&self) -> &[Address] {
        &self.nodes
    }

    /// The number of the server that holds a key; the first where nobody does.
    pub fn server_of(&self, key: &[u8]) -> usize {
        if self.nodes.len() == 1 {
            return 0;
        }
        match self.owner[slot(key)] {
            NOBODY => 0,
            owner => usize::from(owner),
        }
    }

    /// How many slots nobody holds.
    pub fn uncovered(&self) -> usize {
        self.owner.iter().filter(|owner| **owner == NOBODY).count()
    }
}

/// The slot of a key: CRC16 of what stands in its first `{..}`, if that is not empty, else of all of it.
pub fn slot(key: &[u8]) -> usize {
    let tagged = key.iter().position(|byte| *byte == b'{').and_then(|open| {
        let rest = &key[open + 1..];
        let close = rest.iter().position(|byte| *byte == b'}')?;
        (close > 0).then(|| &rest[..close])
    });
    usize::from(crc16(tagged.unwrap_or(key))) % SLOTS
}

/// CRC-16/XMODEM: polynomial 0x1021, from 0. The check value of `123456789` is 0x31c3.
pub fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |sum, byte| sum << 8 ^ CRC16[usize::from((sum >> 8) as u8 ^ byte)])
}

static CRC16: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut sum = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            sum = if sum & 0x8000 != 0 { sum << 1 ^ 0x1021 } else { sum << 1 };
            bit += 1;
        }
        table[byte] = sum;
        byte += 1;
    }
    table
};
