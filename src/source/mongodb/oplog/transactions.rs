//! Puts transactions together: records in, whole units out, each where it takes effect.
//!
//! A transaction of a replica set is an `applyOps` of its own session. A small one is a single entry. A large one is a
//! chain of them, all but the last marked `partialTxn`, each naming the one before. A prepared one ends with `prepare`, and
//! takes effect at the `commitTransaction` that follows; `abortTransaction` ends it without.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::super::optime::OpTime;
use super::super::raw;
use super::entry::{Entry, Op, Transaction, boolean};
use crate::error::{Error, Kind, Result};

/// What takes effect at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Where: for a transaction, at its commit.
    pub at: OpTime,
    /// Its operations, in order, each with the unit's place. None of them is an `applyOps`, and none is of no effect.
    pub ops: Vec<Entry>,
    /// Whether all of them take effect, or none.
    pub is_transaction: bool,
}

/// A transaction that has neither been committed nor aborted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Which.
    pub transaction: Transaction,
    /// Its first entry here.
    pub since: OpTime,
    /// Whether it was prepared.
    pub is_prepared: bool,
}

/// So many bytes of unfinished transactions are kept in memory at most.
const BUFFER: usize = 256 << 20;

/// So many commits are remembered, to know one that comes twice.
const REMEMBERED: usize = 1024;

type Key = (Bytes, i64);

/// Puts transactions together.
#[derive(Debug, Default)]
pub struct Assembler {
    known_from: OpTime,
    pending: BTreeMap<Key, Pending>,
    bytes: usize,
    committed: VecDeque<Key>,
}

#[derive(Debug)]
struct Pending {
    since: OpTime,
    last: OpTime,
    /// Copies: a slice would keep the whole block alive that it was read with.
    entries: Vec<Bytes>,
    is_prepared: bool,
    /// Whether it began before the log did.
    is_headless: bool,
}

impl Assembler {
    /// What is committed at or before `known_from` is in the data already: there the log may begin in the middle of it.
    pub fn new(known_from: OpTime) -> Self {
        Assembler { known_from, ..Assembler::default() }
    }

    /// Takes the entries of the next record, and gives what takes effect with it, in order.
    ///
    /// # Errors
    /// `NotFound` for a commit whose operations are not in the log, `Full` if more is unfinished than memory is for, `Damaged`
    /// for an `applyOps` without operations.
    pub fn take(&mut self, record: Vec<Entry>) -> Result<Vec<Unit>> {
        let mut units: Vec<Unit> = Vec::new();
        let mut session: Option<Transaction> = None;
        for entry in record {
            // Entries of one place and one session are one transaction, written down one by one.
            let same = entry.transaction.is_some() && session == entry.transaction;
            session = entry.transaction.clone();
            let Some(unit) = self.entry(entry)? else { continue };
            match units.last_mut().filter(|_| same) {
                Some(last) => {
                    last.ops.extend(unit.ops);
                    last.is_transaction = true;
                }
                None => units.push(unit),
            }
        }
        Ok(units)
    }

    /// What has begun and not ended: none of it took effect.
    pub fn open(&self) -> Vec<Open> {
        let open = self.pending.iter().map(|((lsid, number), pending)| Open {
            transaction: Transaction { lsid: lsid.clone(), number: *number },
            since: pending.since,
            is_prepared: pending.is_prepared,
        });
        open.collect()
    }

    fn entry(&mut self, entry: Entry) -> Result<Option<Unit>> {
        let at = entry.at;
        if matches!(entry.op, Op::Noop | Op::Internal) {
            return Ok(None);
        }
        if entry.op != Op::Command {
            return Ok(Some(Unit { at, ops: vec![entry], is_transaction: false }));
        }
        match (entry.command()?.0, &entry.transaction) {
            ("applyOps", Some(session)) if !entry.is_vector => {
                let key = (session.lsid.clone(), session.number);
                self.part(key, entry)
            }
            ("applyOps", _) => {
                let is_transaction = !entry.is_vector;
                Ok(Some(Unit { at, ops: operations(&entry, at)?, is_transaction }))
            }
            ("commitTransaction", Some(session)) => {
                let key = (session.lsid.clone(), session.number);
                self.commit(key, at)
            }
            ("abortTransaction", Some(session)) => {
                self.remove(&(session.lsid.clone(), session.number));
                Ok(None)
            }
            _ => Ok(Some(Unit { at, ops: vec![entry], is_transaction: false })),
        }
    }

    /// One `applyOps` of a transaction: all of it, or a part.
    fn part(&mut self, key: Key, entry: Entry) -> Result<Option<Unit>> {
        let is_partial = flag(&entry, "partialTxn")?;
        let is_prepared = flag(&entry, "prepare")?;
        let at = entry.at;
        if entry.previous.is_none() {
            // It begins here; whatever began under the same name was given up.
            self.remove(&key);
            if !is_partial && !is_prepared {
                return Ok(Some(Unit { at, ops: operations(&entry, at)?, is_transaction: true }));
            }
        }
        self.bytes += entry.raw.len();
        if self.bytes > BUFFER {
            let why = format!("more than {BUFFER} bytes of transactions are unfinished at {at}");
            return Err(Error::new(Kind::Full, "putting transactions together", why));
        }
        let pending = self.pending.entry(key.clone()).or_insert_with(|| Pending {
            since: at,
            last: OpTime::ZERO,
            entries: Vec::new(),
            is_prepared: false,
            is_headless: false,
        });
        pending.is_headless |= entry.previous.is_some_and(|previous| previous != pending.last);
        pending.last = at;
        pending.is_prepared |= is_prepared;
        pending.entries.push(Bytes::copy_from_slice(&entry.raw));
        if is_partial || is_prepared { Ok(None) } else { self.commit(key, at) }
    }

    fn commit(&mut self, key: Key, at: OpTime) -> Result<Option<Unit>> {
        let found = self.remove(&key).filter(|pending| !pending.is_headless);
        let Some(pending) = found else {
            if at <= self.known_from || self.committed.contains(&key) {
                return Ok(None);
            }
            let doing = format!("putting transaction {} of session {} together", key.1, session(&key.0));
            let why = format!("it was committed at {at}, and where it began is not in the log");
            return Err(Error::new(Kind::NotFound, doing, why)
                .hint("a backup that was begun later than this transaction holds it"));
        };
        let mut ops = Vec::new();
        for part in pending.entries {
            ops.extend(operations(&Entry::parse(part)?, at)?);
        }
        if pending.is_prepared {
            self.committed.push_back(key);
            if self.committed.len() > REMEMBERED {
                self.committed.pop_front();
            }
        }
        Ok(Some(Unit { at, ops, is_transaction: true }))
    }

    fn remove(&mut self, key: &Key) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        self.bytes -= pending.entries.iter().map(Bytes::len).sum::<usize>();
        Some(pending)
    }
}

/// How deep one `applyOps` may stand in another.
const DEPTH: usize = 8;

/// The operations of an `applyOps`, those of one inside it among them.
fn operations(entry: &Entry, at: OpTime) -> Result<Vec<Entry>> {
    let mut ops = Vec::new();
    open(entry, at, DEPTH, &mut ops)?;
    Ok(ops)
}

fn open(entry: &Entry, at: OpTime, depth: usize, ops: &mut Vec<Entry>) -> Result<()> {
    let wrong = |why: &str| Error::new(Kind::Damaged, format!("opening the applyOps at {}", entry.at), why);
    let list = raw::field(&entry.o, "applyOps")?.filter(|list| list.kind == 0x04);
    let list = list.ok_or_else(|| wrong("it has no list of operations"))?;
    for element in raw::elements(list.bytes) {
        let (_, value) = element?;
        if value.kind != 0x03 {
            return Err(wrong("an operation in it is no document"));
        }
        let inner = Entry::parse_inner(entry.raw.slice_ref(value.bytes), at)?;
        match inner.op {
            Op::Noop | Op::Internal => {}
            Op::Command if inner.command()?.0 == "applyOps" => match depth {
                0 => return Err(wrong("they stand too deep in one another")),
                _ => open(&inner, at, depth - 1, ops)?,
            },
            _ => ops.push(inner),
        }
    }
    Ok(())
}

fn flag(entry: &Entry, name: &str) -> Result<bool> {
    Ok(raw::field(&entry.o, name)?.and_then(boolean).unwrap_or(false))
}

/// A session as people look for it: the UUID in its id.
fn session(lsid: &[u8]) -> String {
    let id = raw::field(lsid, "id").ok().flatten().and_then(|id| id.bytes.get(5..));
    hex::encode(id.unwrap_or(lsid))
}
