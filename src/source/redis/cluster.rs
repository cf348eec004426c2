//! A Redis Cluster as one of its nodes sees it: which shards there are, and who serves them. Pure.
//!
//! `CLUSTER NODES` is the one description that every version has. A line is `<id> <ip:port@cport[,hostname]> <flags>
//! <master> <ping> <pong> <epoch> <link> <slot> ...`; a slot is a number, a range, or `[7->-id]`, `[7-<-id]` while it moves.

use serde::Serialize;

use super::address::Address;

/// How many slots every cluster has.
pub const SLOTS: u16 = 16384;

/// A stretch of slots, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Range(pub u16, pub u16);

impl std::fmt::Display for Range {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 == self.1 {
            true => write!(f, "{}", self.0),
            false => write!(f, "{}-{}", self.0, self.1),
        }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// 40 letters that name it.
    pub id: String,
    /// Where clients find it.
    pub address: Address,
    /// Whether others think that it lives.
    pub alive: bool,
}

/// The nodes that serve the same slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// Which slots, in order.
    pub ranges: Vec<Range>,
    /// Its master.
    pub master: Node,
    /// Its replicas.
    pub replicas: Vec<Node>,
}

impl Shard {
    /// The name of its artifact: `shard-0-5460.rdb`. Of many stretches the first one names it.
    pub fn artifact(&self) -> String {
        let first = self.ranges.first().map(Range::to_string).unwrap_or_default();
        match self.ranges.len() {
            0 | 1 => format!("shard-{first}.rdb"),
            more => format!("shard-{first}+{}.rdb", more - 1),
        }
    }
}

/// A whole cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// By their first slots.
    pub shards: Vec<Shard>,
    /// Slots that are on their way to another shard.
    pub moving: Vec<u16>,
    /// As the node said it.
    pub text: String,
}

impl Topology {
    /// Reads what the node at `asked` answered. An empty address means that node itself.
    pub fn read(text: &str, asked: &Address, tls: bool) -> Result<Topology, String> {
        let mut lines = Vec::new();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            lines.push(Line::read(line, asked, tls).ok_or_else(|| format!("{line:?} describes no node"))?);
        }
        let mut shards = Vec::new();
        let mut moving = Vec::new();
        for line in &lines {
            moving.extend(&line.moving);
            if line.master_id.is_none() && !line.ranges.is_empty() {
                let of_it = |other: &&Line| other.master_id.as_deref() == Some(&line.node.id);
                let replicas = lines.iter().filter(of_it).map(|other| other.node.clone()).collect();
                shards.push(Shard { ranges: line.ranges.clone(), master: line.node.clone(), replicas });
            }
        }
        shards.sort_by(|a, b| a.ranges.cmp(&b.ranges));
        moving.sort_unstable();
        moving.dedup();
        Ok(Topology { shards, moving, text: text.to_owned() })
    }

    /// A cluster has no name of its own. The least of the ids of its nodes stays the same through failovers, moved slots
    /// and added nodes; only when that one node is forgotten, the cluster is another one to us.
    pub fn least_id(&self) -> Option<&str> {
        self.text.lines().filter_map(|line| line.split_whitespace().next()).min()
    }

    /// The slots that nobody serves.
    pub fn unserved(&self) -> Vec<Range> {
        let mut ranges: Vec<Range> =
            self.shards.iter().flat_map(|shard| shard.ranges.iter().copied()).collect();
        ranges.sort_unstable();
        let mut unserved = Vec::new();
        let mut next = 0;
        for Range(first, last) in ranges {
            if first > next {
                unserved.push(Range(next, first - 1));
            }
            next = next.max(last + 1);
        }
        if next < SLOTS {
            unserved.push(Range(next, SLOTS - 1));
        }
        unserved
    }

    /// The slots that `later` says are served by another master than here.
    pub fn moved(&self, later: &Topology) -> Vec<Range> {
        let (before, after) = (self.owners(), later.owners());
        let mut moved: Vec<Range> = Vec::new();
        for slot in (0..SLOTS).filter(|slot| before[usize::from(*slot)] != after[usize::from(*slot)]) {
            match moved.last_mut() {
                Some(last) if last.1 + 1 == slot => last.1 = slot,
                _ => moved.push(Range(slot, slot)),
            }
        }
        moved
    }

    fn owners(&self) -> Vec<Option<&str>> {
        let mut owners = vec![None; usize::from(SLOTS)];
        for shard in &self.shards {
            for Range(first, last) in &shard.ranges {
                owners[usize::from(*first)..=usize::from(*last)].fill(Some(shard.master.id.as_str()));
            }
        }
        owners
    }
}

/// One line of `CLUSTER NODES`.
struct Line {
    node: Node,
    master_id: Option<String>,
    ranges: Vec<Range>,
    moving: Vec<u16>,
}

impl Line {
    fn read(line: &str, asked: &Address, tls: bool) -> Option<Line> {
        let mut words = line.split_whitespace();
        let (id, place, flags, master) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let slots: Vec<&str> = words.skip(4).collect();
        let dead = |flag: &str| matches!(flag, "fail" | "handshake" | "noaddr");
        let node = Node {
            id: id.to_owned(),
            address: address(place, asked, tls)?,
            alive: !flags.split(',').any(dead),
        };
        let settled = slots.iter().filter(|slot| !slot.starts_with('['));
        let mut ranges = settled.map(|slot| range(slot)).collect::<Option<Vec<Range>>>()?;
        ranges.sort_unstable();
        let moving = slots.iter().filter_map(|slot| slot.strip_prefix('[')?.split('-').next()?.parse().ok());
        Some(Line {
            node,
            master_id: (master != "-").then(|| master.to_owned()),
            ranges,
            moving: moving.collect(),
        })
    }
}

/// `10.0.0.7:6379@16379,node-1.redis`: with TLS the name, which is what a certificate has; else the number.
fn address(place: &str, asked: &Address, tls: bool) -> Option<Address> {
    let mut parts = place.split(',');
    let (host, port) = parts.next()?.split('@').next()?.rsplit_once(':')?;
    let name = parts.next().filter(|name| !name.is_empty() && !name.contains('='));
    let host = match (host, name) {
        (_, Some(name)) if tls => name,
        ("", Some(name)) => name,
        ("", None) => &asked.host,
        (host, _) => host.trim_matches(['[', ']']),
    };
    Some(Address::new(host, port.parse().ok()?))
}

fn range(text: &str) -> Option<Range> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = Range(first.parse().ok()?, last.parse().ok()?);
    (range.0 <= range.1 && range.1 < SLOTS).then_some(range)
}
