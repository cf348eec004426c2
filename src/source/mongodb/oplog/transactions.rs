//! Puts transactions together: records in, whole units out, each where it takes effect.
//!
//! A transaction of a replica set is an `applyOps` of its own session. A small one is a single entry. A large one is a
//! chain of them, all but the last marked `partialTxn`, each naming the one before. A prepared one ends with `prepare`, and
//! takes effect at the `commitTransaction` that follows; `abortTransaction` ends it without.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use super::super::optime::OpTime;
use super::super::raw;
use super::backlog::{Backlog, Reading};
use super::entry::{Entry, Op, Transaction, boolean};
use crate::error::{Error, Kind, Result};
use crate::task::Spool;

/// What takes effect at once, or a part of it: a large transaction comes in several, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Where: for a transaction, at its commit.
    pub at: OpTime,
    /// Its operations, in order, each with the unit's place. None of them is an `applyOps`, and none is of no effect.
    pub ops: Vec<Entry>,
    /// Whether all of them take effect, or none.
    pub is_transaction: bool,
    /// Whether this is all, or the last part of it.
    pub ends: bool,
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

/// So many bytes of unfinished transactions are kept in memory; what is more waits in the spool. Most transactions are far
/// smaller, and it is an eighth of what a restore may take.
pub const MEMORY: usize = 16 << 20;

/// So many operations are handed out at once: each takes some hundred bytes beside its own.
const OPS: usize = 1_000;

/// So many commits are remembered, to know one that comes twice.
const REMEMBERED: usize = 1024;

type Key = (Bytes, i64);

/// Puts transactions together.
#[derive(Debug)]
pub struct Assembler {
    known_from: OpTime,
    spool: Spool,
    memory: usize,
    pending: BTreeMap<Key, Pending>,
    /// Of what is pending, in memory.
    held: usize,
    committed: VecDeque<Key>,
    /// What takes effect with the last record.
    ready: VecDeque<Ready>,
}

#[derive(Debug)]
struct Pending {
    since: OpTime,
    last: OpTime,
    backlog: Backlog,
    is_prepared: bool,
    /// Whether it began before the log did.
    is_headless: bool,
}

/// Takes effect at once.
#[derive(Debug)]
struct Ready {
    at: OpTime,
    is_transaction: bool,
    parts: VecDeque<Part>,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "nearly all are the large one")]
enum Part {
    Op(Entry),
    /// Writes of one transaction, one after the other, as they stand in the record.
    Listed(Bytes),
    Opened(Operations),
    Waiting(Reading),
}

impl Assembler {
    /// What is committed at or before `known_from` is in the data already: there the log may begin in the middle of it. What
    /// is too much for memory waits in the spool.
    pub fn new(known_from: OpTime, spool: &Spool) -> Self {
        Assembler::with_memory(known_from, spool, MEMORY)
    }

    /// As [`new`](Self::new), with another bound than [`MEMORY`].
    pub fn with_memory(known_from: OpTime, spool: &Spool, memory: usize) -> Self {
        Assembler {
            known_from,
            spool: spool.clone(),
            memory,
            pending: BTreeMap::new(),
            held: 0,
            committed: VecDeque::new(),
            ready: VecDeque::new(),
        }
    }

    /// Takes the next record; [`next`](Self::next) gives what takes effect with it.
    ///
    /// # Errors
    /// `NotFound` for a commit whose operations are not in the log, `Full` if the spool has no room for what is unfinished,
    /// `Damaged` for what holds no entries, and for an `applyOps` without operations.
    pub async fn take(&mut self, record: Bytes) -> Result<()> {
        let mut session: Option<Transaction> = None;
        // Where the writes begin that stand last in what is ready.
        let mut listed: Option<usize> = None;
        let mut rest = record.clone();
        while let Some(entry) = Entry::next(&mut rest)? {
            let (begin, end) = (record.len() - rest.len() - entry.raw.len(), record.len() - rest.len());
            // Entries of one place and one session are one transaction, written down one by one.
            let same = entry.transaction.is_some() && session == entry.transaction;
            session = entry.transaction.clone();
            let at = entry.at;
            match self.ready.back_mut().filter(|_| same) {
                Some(last) if entry.op.is_write() => {
                    if listed.is_some() {
                        last.parts.pop_back();
                    }
                    let from = *listed.get_or_insert(begin);
                    last.parts.push_back(Part::Listed(record.slice(from..end)));
                    last.is_transaction = true;
                }
                _ => {
                    listed = None;
                    self.other(entry, same)?;
                }
            }
            self.spill(at).await?;
        }
        Ok(())
    }

    /// One that is no further write of the transaction before it.
    fn other(&mut self, entry: Entry, same: bool) -> Result<()> {
        let Some(ready) = self.entry(entry)? else { return Ok(()) };
        match self.ready.back_mut().filter(|_| same) {
            Some(last) => {
                last.parts.extend(ready.parts);
                last.is_transaction = true;
            }
            None => self.ready.push_back(ready),
        }
        Ok(())
    }

    /// The next that takes effect with what was taken, in order; `None` if there is no more.
    ///
    /// # Errors
    /// `Damaged` for operations that cannot be read; those of the spool.
    pub async fn next(&mut self) -> Result<Option<Unit>> {
        let Some(ready) = self.ready.front_mut() else { return Ok(None) };
        let (at, is_transaction) = (ready.at, ready.is_transaction);
        let mut ops = Vec::new();
        while ops.len() < OPS {
            match ready.next().await? {
                Some(op) => ops.push(op),
                None => {
                    self.ready.pop_front();
                    return Ok(Some(Unit { at, ops, is_transaction, ends: true }));
                }
            }
        }
        Ok(Some(Unit { at, ops, is_transaction, ends: false }))
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

    fn entry(&mut self, entry: Entry) -> Result<Option<Ready>> {
        let at = entry.at;
        if matches!(entry.op, Op::Noop | Op::Internal) {
            return Ok(None);
        }
        if entry.op != Op::Command {
            return Ok(Some(Ready::new(at, Part::Op(entry), false)));
        }
        match (entry.command()?.0, &entry.transaction) {
            ("applyOps", Some(session)) if !entry.is_vector => {
                let key = (session.lsid.clone(), session.number);
                self.part(key, entry)
            }
            ("applyOps", _) => {
                let opened = Part::Opened(Operations::of(&entry, at)?);
                Ok(Some(Ready::new(at, opened, !entry.is_vector)))
            }
            ("commitTransaction", Some(session)) => {
                let key = (session.lsid.clone(), session.number);
                self.commit(key, at)
            }
            ("abortTransaction", Some(session)) => {
                self.remove(&(session.lsid.clone(), session.number));
                Ok(None)
            }
            _ => Ok(Some(Ready::new(at, Part::Op(entry), false))),
        }
    }

    /// One `applyOps` of a transaction: all of it, or a part.
    fn part(&mut self, key: Key, entry: Entry) -> Result<Option<Ready>> {
        let is_partial = flag(&entry, "partialTxn")?;
        let is_prepared = flag(&entry, "prepare")?;
        let at = entry.at;
        if entry.previous.is_none() {
            // It begins here; whatever began under the same name was given up.
            self.remove(&key);
            if !is_partial && !is_prepared {
                let opened = Part::Opened(Operations::of(&entry, at)?);
                return Ok(Some(Ready::new(at, opened, true)));
            }
        }
        let pending = self.pending.entry(key.clone()).or_insert_with(|| Pending {
            since: at,
            last: OpTime::ZERO,
            backlog: Backlog::default(),
            is_prepared: false,
            is_headless: false,
        });
        pending.is_headless |= entry.previous.is_some_and(|previous| previous != pending.last);
        pending.last = at;
        pending.is_prepared |= is_prepared;
        pending.backlog.push(&entry.raw);
        self.held += entry.raw.len();
        if is_partial || is_prepared { Ok(None) } else { self.commit(key, at) }
    }

    fn commit(&mut self, key: Key, at: OpTime) -> Result<Option<Ready>> {
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
        if pending.is_prepared {
            self.committed.push_back(key);
            if self.committed.len() > REMEMBERED {
                self.committed.pop_front();
            }
        }
        Ok(Some(Ready::new(at, Part::Waiting(pending.backlog.read()), true)))
    }

    fn remove(&mut self, key: &Key) -> Option<Pending> {
        let pending = self.pending.remove(key)?;
        self.held -= pending.backlog.held();
        Some(pending)
    }

    /// Keeps memory bounded: the largest go first, so that few have files.
    async fn spill(&mut self, at: OpTime) -> Result<()> {
        while self.held > self.memory
            && let Some(largest) = self.pending.values_mut().max_by_key(|pending| pending.backlog.held())
        {
            self.held -= largest.backlog.held();
            largest.backlog.spill(&self.spool).await.map_err(|error| {
                let error = match error.kind() {
                    Kind::Full => error.hint_first("a transaction waits in the spool until its end is read"),
                    _ => error,
                };
                error.while_doing(format!("keeping what is not committed at {at}"))
            })?;
        }
        Ok(())
    }
}

impl Ready {
    fn new(at: OpTime, part: Part, is_transaction: bool) -> Self {
        Ready { at, is_transaction, parts: VecDeque::from([part]) }
    }

    async fn next(&mut self) -> Result<Option<Entry>> {
        loop {
            match self.parts.front_mut() {
                None => return Ok(None),
                Some(Part::Op(_)) => {
                    if let Some(Part::Op(entry)) = self.parts.pop_front() {
                        return Ok(Some(entry));
                    }
                }
                Some(Part::Listed(rest)) => match Entry::next(rest)? {
                    Some(entry) => return Ok(Some(entry)),
                    None => drop(self.parts.pop_front()),
                },
                Some(Part::Opened(operations)) => match operations.next()? {
                    Some(entry) => return Ok(Some(entry)),
                    None => drop(self.parts.pop_front()),
                },
                Some(Part::Waiting(reading)) => match reading.next().await? {
                    Some(raw) => {
                        let operations = Operations::of(&Entry::parse(raw)?, self.at)?;
                        self.parts.push_front(Part::Opened(operations));
                    }
                    None => drop(self.parts.pop_front()),
                },
            }
        }
    }
}

/// How deep one `applyOps` may stand in another.
const DEPTH: usize = 8;

/// The operations of an `applyOps`, those of one inside it among them.
#[derive(Debug)]
struct Operations {
    /// Where they take effect.
    at: OpTime,
    /// Where the entry stands.
    entry: OpTime,
    /// What is left of the lists, the innermost last.
    lists: Vec<Bytes>,
}

impl Operations {
    fn of(entry: &Entry, at: OpTime) -> Result<Operations> {
        let mut operations = Operations { at, entry: entry.at, lists: Vec::new() };
        operations.open(entry)?;
        Ok(operations)
    }

    fn open(&mut self, entry: &Entry) -> Result<()> {
        let list = raw::field(&entry.o, "applyOps")?.filter(|list| list.kind == 0x04);
        let list = list.ok_or_else(|| self.wrong("it has no list of operations"))?;
        let rest = raw::elements(list.bytes).rest();
        self.lists.push(entry.o.slice_ref(rest));
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Entry>> {
        while let Some(list) = self.lists.last_mut() {
            let mut elements = raw::elements_of(list);
            let Some(element) = elements.next() else {
                self.lists.pop();
                continue;
            };
            let (_, value) = element?;
            let (kind, document) = (value.kind, list.slice_ref(value.bytes));
            *list = list.slice_ref(elements.rest());
            if kind != 0x03 {
                return Err(self.wrong("an operation in it is no document"));
            }
            let inner = Entry::parse_inner(document, self.at)?;
            match inner.op {
                Op::Noop | Op::Internal => {}
                Op::Command if inner.command()?.0 == "applyOps" => {
                    if self.lists.len() > DEPTH {
                        return Err(self.wrong("they stand too deep in one another"));
                    }
                    self.open(&inner)?;
                }
                _ => return Ok(Some(inner)),
            }
        }
        Ok(None)
    }

    fn wrong(&self, why: &str) -> Error {
        Error::new(Kind::Damaged, format!("opening the applyOps at {}", self.entry), why)
    }
}

fn flag(entry: &Entry, name: &str) -> Result<bool> {
    Ok(raw::field(&entry.o, name)?.and_then(boolean).unwrap_or(false))
}

/// A session as people look for it: the UUID in its id.
fn session(lsid: &[u8]) -> String {
    let id = raw::field(lsid, "id").ok().flatten().and_then(|id| id.bytes.get(5..));
    hex::encode(id.unwrap_or(lsid))
}
