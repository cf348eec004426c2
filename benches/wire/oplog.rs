//! A generated oplog: entries as a real server writes them, each a function of its place, appended in runs of one second.

use std::sync::{Condvar, Mutex};
use std::time::Duration;

use mongodb::bson::spec::BinarySubtype;
use mongodb::bson::{Binary, DateTime, Document, RawBsonRef, Timestamp, doc};

use super::generate::Random;
use super::key::key;
use super::message::Out;

/// What the entries write to.
pub const DATABASE: &str = "bench";
/// The collection in it.
pub const COLLECTION: &str = "replay";

/// In each ten: five inserts, four updates of any document so far, one delete.
const GROUP: u64 = 10;
const INSERTS: u64 = 5;
const DELETES_AT: u64 = 9;

/// The log.
#[derive(Debug)]
pub struct Oplog {
    runs: Mutex<Vec<Run>>,
    grown: Condvar,
}

/// Entries of one second; the first of all is a notice, the first of each later run creates the collection.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: u64,
    count: u64,
    second: u32,
}

impl Oplog {
    /// With the entry that initiates a replica set, of now.
    pub fn new() -> Self {
        let run = Run { first: 0, count: 1, second: now() };
        Oplog { runs: Mutex::new(vec![run]), grown: Condvar::new() }
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, Vec<Run>> {
        self.runs.lock().expect("no holder panics")
    }

    /// How many entries.
    pub fn count(&self) -> u64 {
        self.runs().last().map_or(0, |run| run.first + run.count)
    }

    /// Appends a create and `operations` entries, all of one second: the times of the first and the last.
    pub fn append(&self, operations: u64) -> (Timestamp, Timestamp) {
        let mut runs = self.runs();
        let last = *runs.last().expect("the log never is empty");
        let second = now().max(last.second + 1);
        let run = Run { first: last.first + last.count, count: operations + 1, second };
        runs.push(run);
        self.grown.notify_all();
        (run.time(run.first), run.time(run.first + run.count - 1))
    }

    /// The newest entry's time.
    pub fn newest(&self) -> Timestamp {
        let run = *self.runs().last().expect("the log never is empty");
        run.time(run.first + run.count - 1)
    }

    /// Waits until there are more than `count` entries, at most this long.
    pub fn wait(&self, count: u64, limit: Duration) {
        let grows = |runs: &mut Vec<Run>| runs.last().is_none_or(|run| run.first + run.count <= count);
        drop(self.grown.wait_timeout_while(self.runs(), limit, grows));
    }

    /// The first entry at or after a key.
    pub fn lower(&self, bound: &[u8]) -> u64 {
        let runs = self.runs();
        let is_below = |run: &Run, n: u64| *key(RawBsonRef::Timestamp(run.time(n))) < *bound;
        let Some(run) = runs.iter().find(|run| !is_below(run, run.first + run.count - 1)) else {
            return runs.last().map_or(0, |run| run.first + run.count);
        };
        let (mut low, mut high) = (run.first, run.first + run.count);
        while low < high {
            let middle = low + (high - low) / 2;
            if is_below(run, middle) { low = middle + 1 } else { high = middle }
        }
        low
    }

    /// Entry `n`.
    pub fn entry(&self, n: u64) -> Document {
        let run = *self.runs().iter().rfind(|run| run.first <= n).expect("the log begins at 0");
        let mut entry = match n - run.first {
            _ if run.first == 0 => doc! { "op": "n", "ns": "", "o": { "msg": "initiating set" } },
            0 => created(),
            place => operation(place - 1),
        };
        let wall = DateTime::from_millis(i64::from(run.second) * 1000);
        entry.extend(doc! { "ts": run.time(n), "t": 1_i64, "v": 2_i64, "wall": wall });
        entry
    }

    /// Appends entry `n`.
    pub fn append_to(&self, n: u64, out: &mut Out) {
        out.put(&self.entry(n).to_vec().expect("an entry is a document"));
    }
}

impl Run {
    fn time(&self, n: u64) -> Timestamp {
        Timestamp { time: self.second, increment: (n - self.first + 1) as u32 }
    }
}

fn now() -> u32 {
    (DateTime::now().timestamp_millis() / 1000) as u32
}

fn created() -> Document {
    let id_index = doc! { "v": 2, "key": { "_id": 1 }, "name": "_id_" };
    doc! {
        "op": "c", "ns": format!("{DATABASE}.$cmd"), "ui": uuid(),
        "o": { "create": COLLECTION, "idIndex": id_index },
    }
}

/// The collection's id.
pub fn uuid() -> Binary {
    Binary { subtype: BinarySubtype::Uuid, bytes: vec![0x42; 16] }
}

fn operation(place: u64) -> Document {
    let (group, step) = (place / GROUP, place % GROUP);
    let ns = format!("{DATABASE}.{COLLECTION}");
    let mut random = Random(place);
    if step < INSERTS {
        let id = (group * INSERTS + step) as i64;
        let o = doc! { "_id": id, "n": place as i64, "name": format!("{:016x}", random.next()), "tags": ["a", "b"] };
        return doc! { "op": "i", "ns": ns, "ui": uuid(), "o": o, "o2": { "_id": id } };
    }
    if step == DELETES_AT {
        let id = (group * INSERTS + INSERTS - 1) as i64;
        return doc! { "op": "d", "ns": ns, "ui": uuid(), "o": { "_id": id } };
    }
    // Any but those that a group deletes.
    let id = (random.below(group + 1) * INSERTS + random.below(INSERTS - 1)) as i64;
    let diff = match step % 2 {
        0 => {
            doc! { "u": { "n": place as i64 }, "i": { format!("at{step}"): DateTime::from_millis(place as i64) } }
        }
        _ => doc! { "stags": { "a": true, "u0": format!("{:08x}", random.below(1 << 32)) } },
    };
    doc! { "op": "u", "ns": ns, "ui": uuid(), "o": { "$v": 2, "diff": diff }, "o2": { "_id": id } }
}
