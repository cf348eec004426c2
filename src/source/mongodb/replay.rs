//! Applies a log to a target: whole units, filtered and renamed, many operations in each command.
//!
//! Reading and deciding ([`route`]) go ahead of applying by one window. A window ends before a command of the log. Inside
//! one, writes of different documents are independent, because no unique index stands until the end: they go in parallel
//! lanes. How a window is applied is for the target to say: by `applyOps` where it grants that ([`apply_ops`]), else by
//! bulk writes ([`bulk`]). Each says what documents are to be, so what is sent twice does the same twice.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytes::Bytes;
use tokio::sync::mpsc;

use self::bulk::Bulk;
use self::route::{Change, Command, Router, Step, Tally, Write};
use self::shapes::{Shape, Shapes};
use self::wire::Wire;
use super::client::Link;
use super::indexes::Catalogue;
use super::namespace::Namespace;
use super::oplog::records::Records;
use super::oplog::transactions::{Assembler, Open};
use super::optime::OpTime;
use super::selection::Selection;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

pub mod apply_ops;
pub mod bulk;
pub mod commands;
pub mod compose;
pub mod diff;
pub mod fold;
pub mod growth;
pub mod key;
pub mod modifiers;
pub mod route;
pub mod shapes;
pub mod update;
pub mod wire;

/// A window is applied when it has so many writes, ...
const WRITES_MAX: usize = 10_000;

/// ... or so many bytes. Three of them are in memory at a time: gathered, waiting, and being applied.
const BYTES_MAX: usize = 4 << 20;

/// Which part of a log is meant, and what of it.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Which namespaces, and what they are called in the target.
    pub selection: &'a Selection,
    /// What took effect here or before is in the data already.
    pub apply_from: OpTime,
    /// Nothing after this.
    pub until: OpTime,
    /// Up to here the data may be newer than the log: of a fuzzy dump, the place at which it is exact.
    pub tolerate_until: OpTime,
}

/// What a log holds, as far as it is meant.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Survey {
    /// What would be done, or was.
    pub tally: Tally,
    /// Every collection of the source that it says something of, selected or not.
    pub names: BTreeSet<Namespace>,
    /// Collections that are not selected and become one that is: all that they hold is in the log. By their names in the source;
    /// what they are called in the target meanwhile.
    pub followed: BTreeMap<Namespace, Namespace>,
    /// Transactions that were not committed up to the end: nothing of them is done.
    pub open: Vec<Open>,
    /// The last record that was read.
    pub last: Option<OpTime>,
    /// How many bytes of it were read.
    pub bytes: u64,
}

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replayed {
    /// All that the log holds, which was done.
    pub log: Survey,
    /// How many commands the target was sent.
    pub round_trips: u64,
    /// Whether it was by `applyOps`.
    pub by_apply_ops: bool,
}

/// One replay.
#[derive(Debug)]
pub struct Replay<'a> {
    /// The target.
    pub link: &'a Link,
    /// The restore.
    pub task: &'a Task,
    /// What of the log.
    pub span: Span<'a>,
    /// Whether to ask for `applyOps`; false: by bulk writes in any case.
    pub apply_ops: bool,
}

impl Replay<'_> {
    /// Applies the log, and edits the catalogue of indexes, whose names are the target's. Indexes are not touched themselves.
    ///
    /// # Errors
    /// Those of the log, and of the target. What was done stays done: start anew from the documents.
    pub async fn run(&self, records: Records, catalogue: &mut Catalogue) -> Result<Replayed> {
        self.task.guard(self.work(records, catalogue)).await
    }

    async fn work(&self, records: Records, catalogue: &mut Catalogue) -> Result<Replayed> {
        let wire = Wire::new(self.link, self.task);
        let mut applier = Applier {
            wire: &wire,
            bulk: Bulk::new(&wire, self.span.tolerate_until),
            shapes: Shapes::default(),
            by_apply_ops: self.apply_ops && apply_ops::is_granted(&wire).await?,
            tolerate_until: self.span.tolerate_until,
        };
        let (send, mut windows) = mpsc::channel(1);
        let reading = read(self.span, records, catalogue, Some(send));
        let applying = async {
            while let Some(window) = windows.recv().await {
                applier.apply(window, self.task).await?;
            }
            Ok(())
        };
        let (log, ()) = tokio::try_join!(reading, applying)?;
        if !log.followed.is_empty() {
            return Err(Error::new(Kind::Internal, "replaying the log", "nobody has surveyed it before"));
        }
        Ok(Replayed { log, round_trips: wire.trips(), by_apply_ops: applier.by_apply_ops })
    }
}

/// Reads the log without doing anything: every part of it is there and whole, and this is what it would do.
///
/// # Errors
/// Whatever a replay would fail with on account of the log or the selection.
pub async fn survey(span: Span<'_>, records: Records, catalogue: &mut Catalogue) -> Result<Survey> {
    read(span, records, catalogue, None).await
}

async fn read(
    span: Span<'_>,
    records: Records,
    catalogue: &mut Catalogue,
    windows: Option<mpsc::Sender<Window>>,
) -> Result<Survey> {
    let mut records = records.until(span.until);
    let mut assembler = Assembler::new(span.apply_from, &records.task().spool);
    let mut router = Router::new(span.selection, catalogue, span.tolerate_until);
    let mut window = Window::default();
    let (mut last, mut bytes) = (None, 0);
    while let Some((at, record)) = records.next().await? {
        last = Some(at);
        bytes += record.len() as u64;
        window.passed += record.len();
        assembler.take(record).await?;
        while let Some(unit) = assembler.next().await? {
            if unit.at <= span.apply_from {
                continue;
            }
            for step in router.route(&unit)? {
                window.take(step, span.selection.is_everything());
                if window.is_full() {
                    send(&windows, &mut window).await?;
                }
            }
        }
    }
    send(&windows, &mut window).await?;
    let (names, open) = (router.names(), assembler.open());
    Ok(Survey { tally: router.tally, names, followed: router.followed, open, last, bytes })
}

async fn send(windows: &Option<mpsc::Sender<Window>>, window: &mut Window) -> Result<()> {
    let full = std::mem::take(window);
    let Some(windows) = windows else { return Ok(()) };
    // Nobody receives only if applying has failed, and then that error is told.
    let gone = |_| Error::new(Kind::Internal, "replaying the log", "nobody applies it any more");
    windows.send(full).await.map_err(gone)
}

/// Writes that go together, and the command that follows them.
#[derive(Debug, Default)]
struct Window {
    writes: Vec<Write>,
    command: Option<Command>,
    bytes: usize,
    /// So many bytes of the log were read for it.
    passed: usize,
}

impl Window {
    /// Where few entries are wanted, each of them would keep the block alive that it was read with.
    fn take(&mut self, step: Step, is_dense: bool) {
        match step {
            Step::Command(command) => self.command = Some(command),
            Step::Write(write) => {
                self.bytes += write.size();
                self.writes.push(if is_dense { write } else { write.detached() });
            }
        }
    }

    fn is_full(&self) -> bool {
        self.command.is_some() || self.writes.len() >= WRITES_MAX || self.bytes >= BYTES_MAX
    }
}

/// Applies windows one after the other.
struct Applier<'a> {
    wire: &'a Wire<'a>,
    bulk: Bulk<'a>,
    shapes: Shapes,
    by_apply_ops: bool,
    tolerate_until: OpTime,
}

impl Applier<'_> {
    async fn apply(&mut self, window: Window, task: &Task) -> Result<()> {
        task.checkpoint()?;
        let count = window.writes.len() as u64 + u64::from(window.command.is_some());
        if !window.writes.is_empty() {
            self.write(window.writes).await?;
        }
        if let Some(command) = window.command {
            commands::apply(self.wire, command, &mut self.shapes, self.tolerate_until).await?;
        }
        task.progress.add_items(count);
        task.progress.add_bytes(window.passed as u64);
        Ok(())
    }

    async fn write(&mut self, mut writes: Vec<Write>) -> Result<()> {
        let mut shapes = HashMap::new();
        for write in &writes {
            if !shapes.contains_key(&write.ns) {
                shapes.insert(write.ns.clone(), self.shapes.of(self.wire, &write.ns).await?);
            }
            if shapes.get(&write.ns) == Some(&Shape::Missing) && write.change.makes_documents() {
                self.shapes.make(self.wire, &write.ns).await?;
                shapes.insert(write.ns.clone(), Shape::Plain);
            }
        }
        // In a collection that is not there nothing is deleted, and what was changed in it while the data was read went with it.
        writes.retain(|write| {
            let is_harmless = match write.change {
                Change::Patch(_) => write.at <= self.tolerate_until,
                _ => true,
            };
            shapes.get(&write.ns) != Some(&Shape::Missing) || !is_harmless
        });
        if self.by_apply_ops && apply_ops::understands(&writes)? {
            if apply_ops::apply(self.wire, &writes, &shapes, self.tolerate_until).await? {
                return Ok(());
            }
            self.by_apply_ops = false;
        }
        self.bulk.apply(writes, &shapes).await
    }
}

impl Write {
    /// With bytes of its own.
    fn detached(mut self) -> Write {
        self.id.bytes = Bytes::copy_from_slice(&self.id.bytes);
        if let Change::Insert(bytes) | Change::Replace(bytes) | Change::Patch(bytes) = &mut self.change {
            *bytes = Bytes::copy_from_slice(bytes);
        }
        self
    }
}
