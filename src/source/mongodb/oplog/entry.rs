//! One entry of the oplog, taken apart without decoding what it carries.

use bytes::Bytes;
use jiff::Timestamp;

use super::super::optime::OpTime;
use super::super::raw::{self, RawValue};
use crate::error::{Error, Kind, Result};

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// `i`: `o` is the document.
    Insert,
    /// `u`: `o2` names the document, `o` is its replacement or the difference.
    Update,
    /// `d`: `o` names the document.
    Delete,
    /// `c`: the first key of `o` is the command.
    Command,
    /// `n`: nothing.
    Noop,
    /// Of the server's own storage: means nothing to another server.
    Internal,
}

impl Op {
    /// Whether it changes a document.
    pub fn is_write(self) -> bool {
        matches!(self, Op::Insert | Op::Update | Op::Delete)
    }
}

/// A session's transaction, or a write that it may retry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// The session's id, a raw document.
    pub lsid: Bytes,
    /// Which of the session's, growing.
    pub number: i64,
}

/// One entry of the oplog. All bytes are slices of `raw`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub at: OpTime,
    /// What it does.
    pub op: Op,
    /// `db.collection`, or `db.$cmd` for a command.
    pub ns: String,
    /// The operation itself, a raw document; empty where a no-op has none.
    pub o: Bytes,
    /// For an update the document's key; for some commands more of the operation.
    pub o2: Option<Bytes>,
    /// When it was written, by the clock of the server.
    pub wall: Option<Timestamp>,
    /// The session that wrote it. By itself no sign of a transaction: writes that may be retried carry it too.
    pub transaction: Option<Transaction>,
    /// The entry before it of the same transaction.
    pub previous: Option<OpTime>,
    /// `multiOpType: 1`: an `applyOps` that is many inserts at once, and no transaction.
    pub is_vector: bool,
    /// Whether an update may insert, where it says so.
    pub upsert: Option<bool>,
    /// The collection's UUID, 16 bytes.
    pub ui: Option<Bytes>,
    /// All of it.
    pub raw: Bytes,
}

/// A document without elements.
const EMPTY: &[u8] = &[5, 0, 0, 0, 0];

/// The version of entries that this build understands; entries of some compatible servers tell none.
const VERSION: i64 = 2;

impl Entry {
    /// Takes an entry apart.
    ///
    /// # Errors
    /// `Damaged` for what is none, `Unsupported` for an operation or a version that this build does not know.
    pub fn parse(raw: Bytes) -> Result<Entry> {
        Fields::of(&raw)?.entry(&raw, None)
    }

    /// Takes an operation apart that stands inside the entry at `at`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_inner(raw: Bytes, at: OpTime) -> Result<Entry> {
        Fields::of(&raw)?.entry(&raw, Some(at))
    }

    /// Cuts the first entry off what is left of a record; none: nothing is left. They are taken apart one at a time, because
    /// apart they are several times as large, and a compatible server writes a whole transaction into one record.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn next(rest: &mut Bytes) -> Result<Option<Entry>> {
        if rest.is_empty() {
            return Ok(None);
        }
        let length = rest.first_chunk::<4>().and_then(|first| raw::length_of(*first));
        let length = length.filter(|length| *length <= rest.len()).ok_or_else(|| {
            Error::new(Kind::Damaged, "reading a record of the oplog", "an entry in it is cut off")
        })?;
        Entry::parse(rest.split_to(length)).map(Some)
    }

    /// Whether it is about a time series in the words of its buckets, though under its own name: since 8.3 such an entry says
    /// `isTimeseries`.
    pub fn is_of_series(&self) -> bool {
        raw::field(&self.raw, "isTimeseries").ok().flatten().and_then(boolean) == Some(true)
    }

    /// The database that it is in.
    pub fn db(&self) -> &str {
        self.ns.split_once('.').map_or(self.ns.as_str(), |(db, _)| db)
    }

    /// The command's name and its value: the first element of `o`.
    ///
    /// # Errors
    /// `Damaged` if there is none.
    pub fn command(&self) -> Result<(&str, RawValue<'_>)> {
        let first = raw::elements(&self.o).next().transpose()?;
        first
            .and_then(|(name, value)| Some((std::str::from_utf8(name).ok()?, value)))
            .ok_or_else(|| damaged(self.at, "a command without a name"))
    }
}

/// The ts of an entry, where it has one.
pub fn stamp(entry: &[u8]) -> Option<OpTime> {
    raw::field(entry, "ts").ok().flatten().and_then(optime)
}

/// How long the record at the beginning of these bytes is: all documents whose ts is that of the first. `None` while no
/// document of another ts follows: its end is not among them.
pub fn record_length(bytes: &[u8]) -> Option<usize> {
    let document = |from: usize| {
        let rest = bytes.get(from..)?;
        let length = raw::length_of(*rest.first_chunk::<4>()?)?;
        Some((length, stamp(rest.get(..length)?)?))
    };
    let (mut length, at) = document(0)?;
    loop {
        match document(length)? {
            (more, next) if next == at => length += more,
            _ => return Some(length),
        }
    }
}

/// The elements of an entry that mean something here.
#[derive(Default)]
struct Fields<'a> {
    ts: Option<RawValue<'a>>,
    op: Option<RawValue<'a>>,
    ns: Option<RawValue<'a>>,
    o: Option<RawValue<'a>>,
    o2: Option<RawValue<'a>>,
    wall: Option<RawValue<'a>>,
    lsid: Option<RawValue<'a>>,
    number: Option<RawValue<'a>>,
    previous: Option<RawValue<'a>>,
    multi: Option<RawValue<'a>>,
    upsert: Option<RawValue<'a>>,
    b: Option<RawValue<'a>>,
    ui: Option<RawValue<'a>>,
    version: Option<RawValue<'a>>,
}

impl<'a> Fields<'a> {
    fn of(entry: &'a [u8]) -> Result<Fields<'a>> {
        let mut fields = Fields::default();
        for element in raw::elements(entry) {
            let (name, value) = element?;
            let place = match name {
                b"ts" => &mut fields.ts,
                b"op" => &mut fields.op,
                b"ns" => &mut fields.ns,
                b"o" => &mut fields.o,
                b"o2" => &mut fields.o2,
                b"wall" => &mut fields.wall,
                b"lsid" => &mut fields.lsid,
                b"txnNumber" => &mut fields.number,
                b"prevOpTime" => &mut fields.previous,
                b"multiOpType" => &mut fields.multi,
                b"upsert" => &mut fields.upsert,
                b"b" => &mut fields.b,
                b"ui" => &mut fields.ui,
                b"v" => &mut fields.version,
                _ => continue,
            };
            place.get_or_insert(value);
        }
        Ok(fields)
    }

    fn entry(&self, raw: &Bytes, outer: Option<OpTime>) -> Result<Entry> {
        let stamped = outer.or_else(|| self.ts.and_then(optime));
        let at = stamped.ok_or_else(|| {
            Error::new(Kind::Damaged, "reading an entry of the oplog", "it has no timestamp `ts`")
        })?;
        self.check_version(at)?;
        let op = self.op(at)?;
        let slice = |value: RawValue<'_>| raw.slice_ref(value.bytes);
        let document = |value: Option<RawValue<'_>>| value.filter(|value| value.kind == 0x03).map(slice);
        let o = match (document(self.o), op) {
            (Some(o), _) => o,
            (None, Op::Noop | Op::Internal) => Bytes::from_static(EMPTY),
            (None, _) => return Err(damaged(at, "an operation without `o`")),
        };
        let ns = self.ns.map_or(Some(""), text).ok_or_else(|| damaged(at, "a namespace that is no text"))?;
        let number = self.number.and_then(integer);
        Ok(Entry {
            at,
            op,
            ns: ns.to_owned(),
            o,
            o2: document(self.o2),
            wall: self.wall.filter(|wall| wall.kind == 0x09).and_then(|wall| {
                let bytes = wall.bytes.first_chunk::<8>()?;
                Timestamp::from_millisecond(i64::from_le_bytes(*bytes)).ok()
            }),
            transaction: document(self.lsid).zip(number).map(|(lsid, number)| Transaction { lsid, number }),
            previous: self.previous(),
            is_vector: self.multi.and_then(integer) == Some(1),
            upsert: self.upsert.or(self.b.filter(|_| op == Op::Update)).and_then(boolean),
            ui: self.ui.filter(|ui| ui.kind == 0x05).and_then(|ui| Some(raw.slice_ref(ui.bytes.get(5..)?))),
            raw: raw.clone(),
        })
    }

    fn check_version(&self, at: OpTime) -> Result<()> {
        let Some(version) = self.version else { return Ok(()) };
        match integer(version) {
            Some(VERSION) => Ok(()),
            other => {
                let version = other.map_or("no number".to_owned(), |version| version.to_string());
                Err(unsupported(at, format!("its version is {version}, and this build knows {VERSION}")))
            }
        }
    }

    fn op(&self, at: OpTime) -> Result<Op> {
        let op = self.op.and_then(text).ok_or_else(|| damaged(at, "an entry without `op`"))?;
        Ok(match op {
            "i" => Op::Insert,
            "u" => Op::Update,
            "d" => Op::Delete,
            "c" => Op::Command,
            "n" => Op::Noop,
            "ci" | "cu" | "cd" | "km" => Op::Internal,
            other => {
                return Err(unsupported(at, format!("this build does not know its operation {other:?}")));
            }
        })
    }

    /// The first entry of a transaction names the null opTime.
    fn previous(&self) -> Option<OpTime> {
        let previous = self.previous.filter(|previous| previous.kind == 0x03)?;
        stamp(previous.bytes).filter(|previous| *previous != OpTime::ZERO)
    }
}

fn damaged(at: OpTime, what: &str) -> Error {
    Error::new(Kind::Damaged, format!("reading the oplog entry at {at}"), format!("it is {what}"))
}

fn unsupported(at: OpTime, why: String) -> Error {
    Error::new(Kind::Unsupported, format!("reading the oplog entry at {at}"), why)
        .hint("look for a newer build of tidekeeper that knows this server's version")
}

fn optime(value: RawValue<'_>) -> Option<OpTime> {
    let bytes = value.bytes.first_chunk::<8>().filter(|_| value.kind == 0x11)?;
    let number = u64::from_le_bytes(*bytes);
    Some(OpTime { seconds: (number >> 32) as u32, increment: number as u32 })
}

/// A string's text.
pub fn text(value: RawValue<'_>) -> Option<&str> {
    let bytes = value.bytes.get(4..).filter(|_| value.kind == 0x02)?;
    std::str::from_utf8(bytes.strip_suffix(&[0])?).ok()
}

/// A whole number, of whichever type the server chose.
pub fn integer(value: RawValue<'_>) -> Option<i64> {
    match value.kind {
        0x10 => Some(i64::from(i32::from_le_bytes(*value.bytes.first_chunk()?))),
        0x12 => Some(i64::from_le_bytes(*value.bytes.first_chunk()?)),
        0x01 => {
            let double = f64::from_le_bytes(*value.bytes.first_chunk()?);
            (double.fract() == 0.0 && double.abs() < 9e15).then_some(double as i64)
        }
        _ => None,
    }
}

/// A truth value.
pub fn boolean(value: RawValue<'_>) -> Option<bool> {
    (value.kind == 0x08).then(|| value.bytes == [1])
}
