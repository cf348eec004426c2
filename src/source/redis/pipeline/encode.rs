//! Turns what the walker meets into `RESTORE` commands, in batches for each server.
//!
//! The payload of `RESTORE` is what `DUMP` answers: the type byte and the value as in the RDB, the version of the
//! format (two bytes, little-endian) and a CRC64 (eight) over all before it (`cluster.c`, `createDumpPayload`). A
//! bulk string begins with its length, so a value is buffered unless a survey has told its length before.

use std::collections::VecDeque;
use std::io::Write;

use super::slots::SlotMap;
use crate::source::redis::crc64::Crc64;
use crate::source::redis::glob::Pattern;
use crate::source::redis::preflight::PAYLOAD_FRAME;
use crate::source::redis::rdb::{Entry, Use, Visitor};
use crate::source::redis::survey::{LongValues, LongValuesIter};

/// A batch goes out when it has so many bytes: enough for few system calls, and small beside the memory of a process.
const BATCH: usize = 64 << 10;

/// What is restored, and how.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Only keys that match.
    pub keys: Option<Pattern>,
    /// Overwrite keys that exist.
    pub replace: bool,
    /// Keys that expire up to this moment (milliseconds since the Unix epoch) are left out, as a server would.
    pub now_ms: i64,
    /// The version at the end of each payload.
    pub payload_version: u16,
    /// The longest payload that the target takes.
    pub bulk_max: u64,
}

/// Bytes to send to one server, and the commands that end in them.
#[derive(Debug, Default)]
pub struct Batch {
    /// The database they are for.
    pub db: u32,
    /// The bytes.
    pub wire: Vec<u8>,
    /// One key for each command that ends in this batch, in order: each has one answer.
    pub keys: Names,
}

/// Names in a row.
#[derive(Clone, Debug, Default)]
pub struct Names {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

/// How much of a name is kept for a message.
const NAME_MAX: usize = 256;

impl Names {
    /// Adds a name, or its beginning.
    pub fn push(&mut self, name: &[u8]) {
        self.bytes.extend_from_slice(&name[..name.len().min(NAME_MAX)]);
        self.ends.push(self.bytes.len() as u32);
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The `n`th.
    pub fn get(&self, n: usize) -> &[u8] {
        let from = if n == 0 { 0 } else { self.ends[n - 1] as usize };
        &self.bytes[from..self.ends[n] as usize]
    }
}

/// What was left out, and why it is no failure of the target.
#[derive(Clone, Debug, Default)]
pub struct Skipped {
    /// Keys whose time had come.
    pub expired: u64,
    /// Keys that nobody asked for.
    pub unwanted: u64,
    /// Values longer than the target takes.
    pub too_long: u64,
    /// The first of those.
    pub too_long_keys: Vec<String>,
}

/// The visitor that makes commands.
#[derive(Debug)]
pub struct Encoder<'a> {
    rules: &'a Rules,
    slots: &'a SlotMap,
    long_values: std::iter::Peekable<LongValuesIter<'a>>,
    position: u64,
    open: Vec<Batch>,
    /// Full batches, each with the number of its server.
    pub ready: VecDeque<(usize, Batch)>,
    /// Function libraries that were met.
    pub functions: Vec<Vec<u8>>,
    /// What was left out.
    pub skipped: Skipped,
    state: State,
    key: Vec<u8>,
    /// The head of the command under way, up to its payload's length.
    head: Vec<u8>,
    /// What follows the payload.
    tail: Vec<u8>,
    /// A buffered payload.
    payload: Vec<u8>,
    sum: Crc64,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Skip,
    Buffer { server: usize, db: u32 },
    Stream { server: usize },
}

impl<'a> Encoder<'a> {
    /// An encoder for one RDB, whose long values a survey has found.
    pub fn new(rules: &'a Rules, slots: &'a SlotMap, long_values: &'a LongValues) -> Self {
        Encoder {
            rules,
            slots,
            long_values: long_values.iter().peekable(),
            position: 0,
            open: (0..slots.servers()).map(|_| Batch::default()).collect(),
            ready: VecDeque::new(),
            functions: Vec::new(),
            skipped: Skipped::default(),
            state: State::Skip,
            key: Vec::new(),
            head: Vec::new(),
            tail: Vec::new(),
            payload: Vec::new(),
            sum: Crc64::new(),
        }
    }

    /// Makes what is left ready, at the end of the RDB.
    pub fn close(&mut self) {
        for server in 0..self.open.len() {
            self.cut(server);
        }
    }

    fn cut(&mut self, server: usize) {
        let batch = &mut self.open[server];
        if !batch.wire.is_empty() {
            let next =
                Batch { db: batch.db, wire: Vec::with_capacity(BATCH + BATCH / 4), ..Batch::default() };
            self.ready.push_back((server, std::mem::replace(batch, next)));
        }
    }

    /// The length of the value that begins now, if it is long.
    fn long_value(&mut self) -> Option<u64> {
        let position = self.position;
        self.position += 1;
        self.long_values.next_if(|(long, _)| *long == position).map(|(_, length)| length)
    }

    fn wanted(&mut self, entry: &Entry<'_>, payload: Option<u64>) -> bool {
        let rules = self.rules;
        if rules.keys.as_ref().is_some_and(|keys| !keys.matches(entry.key)) {
            self.skipped.unwanted += 1;
        } else if entry.expire_at_ms.is_some_and(|at| at <= rules.now_ms) {
            self.skipped.expired += 1;
        } else if payload.is_some_and(|length| length > rules.bulk_max) {
            self.skipped.too_long += 1;
            if self.skipped.too_long_keys.len() < super::EXAMPLES {
                self.skipped.too_long_keys.push(super::readable(entry.key));
            }
        } else {
            return true;
        }
        false
    }

    /// `RESTORE key ttl payload [REPLACE] [ABSTTL] [IDLETIME seconds | FREQ frequency]`
    fn prepare(&mut self, entry: &Entry<'_>) {
        let mut words = 4;
        self.tail.clear();
        self.tail.extend_from_slice(b"\r\n");
        let mut option = |words: usize, text: &[u8]| {
            self.tail.extend_from_slice(text);
            words
        };
        if self.rules.replace {
            words += option(1, b"$7\r\nREPLACE\r\n");
        }
        if entry.expire_at_ms.is_some() {
            words += option(1, b"$6\r\nABSTTL\r\n");
        }
        match entry.use_of {
            Some(Use::Idle(seconds)) => {
                words += option(2, b"$8\r\nIDLETIME\r\n");
                number(&mut self.tail, seconds as i64);
            }
            Some(Use::Frequency(frequency)) => {
                words += option(2, b"$4\r\nFREQ\r\n");
                number(&mut self.tail, i64::from(frequency));
            }
            None => {}
        }
        self.head.clear();
        let head = &mut self.head;
        let _ = write!(head, "*{words}\r\n$7\r\nRESTORE\r\n${}\r\n", entry.key.len());
        head.extend_from_slice(entry.key);
        head.extend_from_slice(b"\r\n");
        number(head, entry.expire_at_ms.unwrap_or(0));
    }

    fn begin_payload(&mut self, server: usize, db: u32, length: u64) {
        if self.open[server].db != db {
            self.cut(server);
            self.open[server].db = db;
        }
        let wire = &mut self.open[server].wire;
        wire.extend_from_slice(&self.head);
        let _ = write!(wire, "${length}\r\n");
    }

    fn end_command(&mut self, server: usize) {
        let batch = &mut self.open[server];
        batch.wire.extend_from_slice(&self.tail);
        batch.keys.push(&self.key);
        if batch.wire.len() >= BATCH {
            self.cut(server);
        }
    }
}

impl Visitor for Encoder<'_> {
    fn entry_begin(&mut self, entry: &Entry<'_>) {
        let payload = self.long_value().map(|length| length + PAYLOAD_FRAME);
        if !self.wanted(entry, payload) {
            self.state = State::Skip;
            return;
        }
        self.prepare(entry);
        self.key.clear();
        self.key.extend_from_slice(&entry.key[..entry.key.len().min(NAME_MAX)]);
        let server = self.slots.server_of(entry.key);
        self.sum = Crc64::new();
        self.state = match payload {
            Some(length) => {
                self.begin_payload(server, entry.db, length);
                State::Stream { server }
            }
            None => {
                self.payload.clear();
                State::Buffer { server, db: entry.db }
            }
        };
        self.value_bytes(&[entry.type_code]);
    }

    fn value_bytes(&mut self, bytes: &[u8]) {
        match self.state {
            State::Skip => {}
            State::Buffer { .. } => self.payload.extend_from_slice(bytes),
            State::Stream { server } => {
                self.sum.update(bytes);
                self.open[server].wire.extend_from_slice(bytes);
                if self.open[server].wire.len() >= BATCH {
                    self.cut(server);
                }
            }
        }
    }

    fn entry_end(&mut self, _: u64) {
        let version = self.rules.payload_version.to_le_bytes();
        match self.state {
            State::Skip => {}
            State::Buffer { server, db } => {
                self.payload.extend_from_slice(&version);
                let sum = Crc64::of(&self.payload).to_le_bytes();
                self.begin_payload(server, db, (self.payload.len() + sum.len()) as u64);
                let wire = &mut self.open[server].wire;
                wire.extend_from_slice(&self.payload);
                wire.extend_from_slice(&sum);
                self.end_command(server);
            }
            State::Stream { server } => {
                self.sum.update(&version);
                let wire = &mut self.open[server].wire;
                wire.extend_from_slice(&version);
                wire.extend_from_slice(&self.sum.value().to_le_bytes());
                self.end_command(server);
            }
        }
    }

    fn function(&mut self, library: &[u8]) {
        if self.rules.keys.is_none() {
            self.functions.push(library.to_vec());
        }
    }
}

/// A number as a bulk string.
fn number(to: &mut Vec<u8>, number: i64) {
    let mut digits = [0; 20];
    let mut space = digits.as_mut_slice();
    let _ = write!(space, "{number}");
    let left = space.len();
    let digits = &digits[..digits.len() - left];
    let _ = write!(to, "${}\r\n", digits.len());
    to.extend_from_slice(digits);
    to.extend_from_slice(b"\r\n");
}
