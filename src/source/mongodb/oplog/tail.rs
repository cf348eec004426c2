//! Follows the oplog: every record once, in order, none missing, and a clear word when that cannot be had.
//!
//! A cursor is opened at the last record that was handed out, and must begin with that very record, byte for byte: so neither
//! a change of servers nor a restart can lose anything in silence. Two things are the compatible servers' alone, which
//! their entries tell by having no term `t`: what is written while a tailable cursor opens may be missing in it, so the log is
//! read once more by a plain query after that, and both are merged; and a cursor whose place was overwritten goes on
//! without a word, so [`Tail::prove`] looks whether the oldest entry is older than what was read.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use mongodb::bson::{Timestamp, doc};
use mongodb::error::Error as DriverError;
use mongodb::options::CursorType;
use mongodb::raw_batch_cursor::RawBatchCursor;

use super::super::client::{CALL_LIMIT, Link};
use super::super::cursor::primary;
use super::super::failure::{code, code_of, failed, is_passing};
use super::super::optime::OpTime;
use super::super::raw;
use super::entry::stamp;
use super::query::{documents, oldest_at, record_at};
use crate::clock::within;
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::codec::{TRIES, pause};

pub use super::query::{first_since, newest, oldest, open_since};

/// How long the server holds an answer back until something is written.
const AWAIT: Duration = Duration::from_secs(1);

/// Entries in one answer at most; the server also cuts at 16 MiB.
const BATCH: u32 = 1000;

/// So many seconds of the log may still be incomplete in a plain query of a compatible server.
const SETTLE: u32 = 2;

/// So many records of a server that goes on in silence are read between two proofs.
const UNPROVEN: usize = 1000;

const DOING: &str = "following the oplog";

/// A place in the log that is no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The record was overwritten: the log begins later, if it holds anything.
    RolledOver {
        /// It stood here.
        at: OpTime,
        /// The log begins here now.
        oldest: Option<OpTime>,
    },
    /// No record stands there any more, though the log is older.
    RolledBack {
        /// It stood here.
        at: OpTime,
    },
    /// Another record stands there.
    Replaced {
        /// Here.
        at: OpTime,
    },
    /// An entry came that belongs before what had been read.
    Late {
        /// It belongs here,
        at: OpTime,
        /// and the log was read up to here.
        after: OpTime,
    },
}

impl Lost {
    /// What an error tells of a lost place, if that is what it is.
    pub fn of(error: &Error) -> Option<&Lost> {
        std::error::Error::source(error)?.downcast_ref()
    }

    /// As an error.
    pub fn error(self) -> Error {
        let hint = match self {
            Lost::RolledOver { .. } => {
                "the oplog holds less than the time nobody read it: make it larger (`replSetResizeOplog`)"
            }
            _ => {
                "what was read up to here is no prefix of the log any more: a new backup begins a new window"
            }
        };
        Error::new(Kind::NotFound, DOING, &self).hint(hint).caused_by(self)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Lost::RolledOver { at, oldest: Some(oldest) } => {
                write!(f, "the record at {at} is gone: the oplog has rolled over, it begins at {oldest}")
            }
            Lost::RolledOver { at, oldest: None } => {
                write!(f, "the record at {at} is gone: the oplog is empty")
            }
            Lost::RolledBack { at } => {
                write!(f, "no record stands at {at} any more: the log was rolled back")
            }
            Lost::Replaced { at } => write!(f, "another record stands at {at}: the log was rolled back"),
            Lost::Late { at, after } => write!(f, "an entry at {at} came after {after} had been read"),
        }
    }
}

impl std::error::Error for Lost {}

/// What came of opening a log at a place.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "it is taken apart at once")]
pub enum Opened {
    /// The record is there.
    Here(Tail),
    /// It is not.
    Gone {
        /// The log begins here, if there is one.
        oldest: Option<OpTime>,
    },
}

/// A place in the log that moves on.
pub struct Tail {
    link: Link,
    task: Task,
    /// Whether entries carry a term: then a cursor of this server keeps what it promises.
    is_native: bool,
    /// What [`next`](Self::next) hands out next.
    ready: Vec<(OpTime, Bytes)>,
    /// The last record that went into `ready`.
    last: (OpTime, Bytes),
    /// Records that may not be complete yet.
    held: BTreeMap<OpTime, Group>,
    cursors: Cursors,
    /// Whether the record at `last` has come from the cursors that are open now, and what of it.
    proof: Proof,
    /// Whether only the primary is read: a secondary did not have what it should.
    at_primary: bool,
    /// Failures without an answer in between.
    failures: u32,
    /// Up to here [`prove`](Self::prove) has looked.
    proven: OpTime,
    /// Records since then.
    unproven: usize,
}

impl fmt::Debug for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tail").field("last", &self.last.0).field("held", &self.held.len()).finish()
    }
}

/// The entries of one ts.
struct Group {
    entries: BytesMut,
    from_sweep: bool,
}

/// What is being read.
enum Cursors {
    /// Nothing: the next step opens the log at `last`.
    Closed,
    /// The plain query that fills up what the tailable cursor beside it may have missed.
    Sweeping { sweep: Box<RawBatchCursor>, tail: Box<RawBatchCursor> },
    /// The tailable cursor, as far as the plain query went.
    Settling { tail: Box<RawBatchCursor>, swept: OpTime },
    /// The tailable cursor alone.
    Live { tail: Box<RawBatchCursor> },
}

enum Proof {
    Missing(BytesMut),
    Given,
}

/// What a step has to wait for, or ends with.
enum Trouble {
    /// The driver's error.
    Driver(DriverError),
    /// No answer in time, or a cursor that ended: another may do better.
    Again(Error),
    /// The record is not where it should be: on this server.
    Doubt,
    /// An end.
    Ours(Error),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Trouble::Ours(error)
    }
}

impl From<DriverError> for Trouble {
    fn from(error: DriverError) -> Self {
        Trouble::Driver(error)
    }
}

impl Tail {
    /// Opens the log at a record, which is the first that [`next`](Self::next) hands out.
    ///
    /// # Errors
    /// Those of the server. That the record is gone is none.
    pub async fn open(link: &Link, from: OpTime, task: &Task) -> Result<Opened> {
        let mut record = record_at(link, task, from, "majority", link.reads()).await?;
        let at_primary = record.is_empty();
        if at_primary {
            record = record_at(link, task, from, "majority", primary()).await?;
        }
        if record.is_empty() {
            return Ok(Opened::Gone { oldest: oldest(link, task).await? });
        }
        let is_native = raw::field(&record[0], "t")?.is_some();
        let record = Bytes::from(record.concat());
        Ok(Opened::Here(Tail {
            link: link.clone(),
            task: task.clone(),
            is_native,
            ready: vec![(from, record.clone())],
            last: (from, record),
            held: BTreeMap::new(),
            cursors: Cursors::Closed,
            proof: Proof::Missing(BytesMut::new()),
            at_primary,
            failures: 0,
            proven: from,
            unproven: 0,
        }))
    }

    /// Waits for at least one further record, and hands out all that are there. May be dropped at any await and called
    /// again: nothing is lost.
    ///
    /// # Errors
    /// One that [`Lost::of`] knows, if the place is lost; else what does not pass by trying again.
    pub async fn next(&mut self) -> Result<Vec<(OpTime, Bytes)>> {
        while self.ready.is_empty() {
            self.advance().await?;
        }
        Ok(std::mem::take(&mut self.ready))
    }

    /// The record at which it was opened, alone.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn first(&mut self) -> Result<Bytes> {
        self.next().await?;
        Ok(self.last.1.clone())
    }

    /// All records up to the one that is the newest now; empty where all were handed out.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn to_newest(&mut self) -> Result<Vec<(OpTime, Bytes)>> {
        let Some((newest, _)) = newest(&self.link, &self.task).await? else { return Ok(Vec::new()) };
        self.up_to(newest).await
    }

    /// At least all records up to a place, as far as one batch; an empty answer says that all were handed out.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn up_to(&mut self, until: OpTime) -> Result<Vec<(OpTime, Bytes)>> {
        let mut since = self.task.clock.monotonic();
        while self.ready.is_empty() && self.last.0 < until {
            self.advance().await?;
            if self.task.clock.monotonic().saturating_sub(since) > CALL_LIMIT && self.ready.is_empty() {
                self.leave_straggler(until)?;
                since = self.task.clock.monotonic();
            }
        }
        Ok(std::mem::take(&mut self.ready))
    }

    /// A member that answers, and does not give what there is, gets nothing from the primary any more.
    fn leave_straggler(&mut self, until: OpTime) -> Result<()> {
        if self.at_primary {
            let why = format!("the primary has a record at {until}, and gave none in {CALL_LIMIT:?}");
            return Err(Error::new(Kind::Unready, DOING, why).retryable(true));
        }
        tracing::warn!(at = %self.last.0, %until, "a member lags behind: the oplog is read from the primary");
        (self.at_primary, self.cursors) = (true, Cursors::Closed);
        Ok(())
    }

    /// Whether so much was read since the last proof that the next is due.
    pub fn wants_proof(&self) -> bool {
        !self.is_native && self.unproven >= UNPROVEN
    }

    /// Makes sure that nothing was overwritten between being written and being read, up to the last record that was
    /// handed out: a server of the stock make says so itself, another may go on in silence.
    ///
    /// # Errors
    /// One that [`Lost::of`] knows, if the log begins after what was proven before.
    pub async fn prove(&mut self) -> Result<()> {
        let read = self.last.0;
        if self.is_native || read == self.proven {
            return Ok(());
        }
        let oldest = oldest(&self.link, &self.task).await?;
        if oldest.is_none_or(|oldest| oldest > self.proven) {
            return Err(Lost::RolledOver { at: self.proven, oldest }.error());
        }
        self.proven = read;
        self.unproven = 0;
        Ok(())
    }

    /// One answer of the server, or one try to get it.
    async fn advance(&mut self) -> Result<()> {
        let trouble = match self.step().await {
            Ok(()) => return Ok(()),
            Err(trouble) => trouble,
        };
        self.cursors = Cursors::Closed;
        let error = match trouble {
            Trouble::Ours(error) => return Err(error),
            Trouble::Driver(error) if is_passing(&error) || is_lost_cursor(&error) => failed(DOING, error),
            Trouble::Driver(error) => return Err(failed(DOING, error)),
            Trouble::Again(error) => error,
            Trouble::Doubt => match self.verdict().await {
                Ok(behind) => behind,
                Err(error) if error.is_retryable() => error,
                Err(error) => return Err(error),
            },
        };
        self.failures += 1;
        if self.failures >= TRIES {
            self.failures = 0;
            return Err(error);
        }
        tracing::debug!(%error, failures = self.failures, "opening the oplog again");
        self.task.clock.sleep(pause(self.failures)).await;
        Ok(())
    }

    async fn step(&mut self) -> Result<(), Trouble> {
        if matches!(self.cursors, Cursors::Closed) {
            self.reopen().await?;
        }
        let (cursor, from_sweep) = match &mut self.cursors {
            Cursors::Sweeping { sweep, .. } => (sweep, true),
            Cursors::Settling { tail, .. } | Cursors::Live { tail } => (tail, false),
            Cursors::Closed => return Ok(()),
        };
        let link = &self.link;
        let batch = async { Ok(cursor.next().await.transpose().map_err(|error| link.explain(error))?) };
        let late = || Err(Trouble::Again(no_answer()));
        let batch = within(&*self.task.clock, CALL_LIMIT, batch, late).await?;
        let Some(batch) = batch else { return self.ended() };
        let entries = documents(&batch)?;
        for entry in &entries {
            self.accept(entry, from_sweep)?;
        }
        self.hand_out(entries.is_empty())?;
        self.failures = 0;
        Ok(())
    }

    /// Opens cursors at the last record, with nothing in hand of what older ones gave.
    async fn reopen(&mut self) -> Result<(), Trouble> {
        self.held.clear();
        self.proof = Proof::Missing(BytesMut::new());
        let find = doc! {
            "find": "oplog.rs", "filter": { "ts": { "$gte": Timestamp::from(self.last.0) } }, "batchSize": BATCH,
            "readConcern": { "level": "majority" },
        };
        let reads = if self.at_primary { primary() } else { self.link.reads() };
        let mut tailing = find.clone();
        tailing.extend(doc! { "tailable": true, "awaitData": true });
        let db = self.link.database("local");
        let open = async {
            let opening = db.run_cursor_command(tailing).selection_criteria(reads.clone());
            let tail = opening.cursor_type(CursorType::TailableAwait).max_time(AWAIT).batch_size(BATCH);
            let tail = Box::new(tail.batch().await?);
            if self.is_native {
                return Ok(Cursors::Live { tail });
            }
            let sweep = db.run_cursor_command(find).selection_criteria(reads).batch_size(BATCH);
            Ok(Cursors::Sweeping { sweep: Box::new(sweep.batch().await?), tail })
        };
        let open = async { open.await.map_err(|error| Trouble::Driver(self.link.explain(error))) };
        let late = || Err(Trouble::Again(no_answer()));
        self.cursors = within(&*self.task.clock, CALL_LIMIT, open, late).await?;
        Ok(())
    }

    /// Takes one entry from a cursor.
    fn accept(&mut self, entry: &[u8], from_sweep: bool) -> Result<(), Trouble> {
        let at = stamp(entry).ok_or_else(|| {
            Error::new(Kind::Protocol, DOING, "the server sent an entry without a timestamp `ts`")
        })?;
        let is_settling = matches!(self.cursors, Cursors::Settling { .. });
        if is_settling {
            let known = self.held.get(&at).is_some_and(|group| group.from_sweep);
            if known || at <= self.last.0 {
                return Ok(());
            }
        } else if let Proof::Missing(proof) = &mut self.proof {
            if at == self.last.0 {
                proof.extend_from_slice(entry);
                return Ok(());
            }
            self.check_proof()?;
        }
        let newest = self.held.last_key_value().map_or(self.last.0, |(at, _)| *at);
        if at <= self.last.0 || (at < newest && !is_settling) {
            return Err(Lost::Late { at, after: newest }.error().into());
        }
        let group = self.held.entry(at).or_insert_with(|| Group { entries: BytesMut::new(), from_sweep });
        group.entries.extend_from_slice(entry);
        Ok(())
    }

    /// Whether what came of the last record is that very record.
    fn check_proof(&mut self) -> Result<(), Trouble> {
        match &self.proof {
            Proof::Missing(proof) if *proof != self.last.1 => Err(Trouble::Doubt),
            _ => {
                self.proof = Proof::Given;
                Ok(())
            }
        }
    }

    /// A cursor has no more to give: a plain one is through, a tailable one has died.
    fn ended(&mut self) -> Result<(), Trouble> {
        match std::mem::replace(&mut self.cursors, Cursors::Closed) {
            Cursors::Sweeping { tail, .. } => {
                self.check_proof()?;
                let swept = self.held.last_key_value().map_or(self.last.0, |(at, _)| *at);
                self.cursors = Cursors::Settling { tail, swept };
                Ok(())
            }
            _ => {
                self.check_proof()?;
                Err(Trouble::Again(Error::new(Kind::Unready, DOING, "the server ended the cursor")))
            }
        }
    }

    /// Moves records that are complete to where they are handed out. `idle`: the server had nothing more to give.
    fn hand_out(&mut self, idle: bool) -> Result<(), Trouble> {
        let newest = self.held.last_key_value().map(|(at, _)| *at);
        // All before this is complete.
        let complete = match &mut self.cursors {
            Cursors::Closed => return Ok(()),
            Cursors::Sweeping { .. } => newest
                .map(|newest| OpTime { seconds: newest.seconds.saturating_sub(SETTLE), increment: 0 })
                .unwrap_or_default(),
            Cursors::Settling { swept, .. } if !idle && newest.is_none_or(|newest| newest <= *swept) => {
                return Ok(());
            }
            Cursors::Settling { .. } | Cursors::Live { .. } if idle => {
                OpTime { seconds: u32::MAX, increment: u32::MAX }
            }
            Cursors::Settling { .. } | Cursors::Live { .. } => newest.unwrap_or_default(),
        };
        if idle && matches!(self.cursors, Cursors::Live { .. }) {
            self.check_proof()?;
        }
        let rest = self.held.split_off(&complete);
        for (at, group) in std::mem::replace(&mut self.held, rest) {
            let record = group.entries.freeze();
            self.last = (at, record.clone());
            self.ready.push((at, record));
            self.unproven += 1;
        }
        if let Cursors::Settling { .. } = self.cursors
            && let Cursors::Settling { tail, .. } = std::mem::replace(&mut self.cursors, Cursors::Closed)
        {
            self.cursors = Cursors::Live { tail };
        }
        Ok(())
    }

    /// The last record was not where it was read. The primary has all that a majority ever had: its word counts.
    ///
    /// # Errors
    /// The loss; or that the primary cannot be asked. `Ok`: it is there, and the server that was read is behind.
    async fn verdict(&mut self) -> Result<Error> {
        let at = self.last.0;
        let there = record_at(&self.link, &self.task, at, "local", primary()).await?;
        if there.concat() == self.last.1 {
            self.at_primary = true;
            return Ok(Error::new(Kind::Unready, DOING, format!("a server lacks the record at {at}")));
        }
        if !there.is_empty() {
            return Err(Lost::Replaced { at }.error());
        }
        Err(match oldest_at(&self.link, &self.task, primary()).await? {
            Some(oldest) if oldest <= at => Lost::RolledBack { at }.error(),
            oldest => Lost::RolledOver { at, oldest }.error(),
        })
    }
}

/// The cursor's own end, from which a new one may go on.
fn is_lost_cursor(error: &DriverError) -> bool {
    matches!(code_of(error), Some(code::CAPPED_POSITION_LOST | code::QUERY_PLAN_KILLED))
}

fn no_answer() -> Error {
    Error::new(Kind::Timeout, DOING, format!("no answer within {CALL_LIMIT:?}"))
}
