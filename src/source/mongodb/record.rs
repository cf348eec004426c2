//! Writes down the oplog while collections are read: what it takes to bring them all to one moment.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use tokio::sync::watch;

use super::client::Link;
use super::namespace::Namespace;
use super::oplog::entry::text;
use super::oplog::records::OPLOG;
use super::oplog::tail::{self, Lost, Opened, Tail};
use super::optime::OpTime;
use super::raw;
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::writer::{ArtifactWriter, BackupWriter};

/// What the plain bytes of a `.bson` artifact are.
pub const MEDIA_TYPE: &str = "application/bson";

/// After so many records at the latest it is looked whether the log still reaches back to where they were read.
const PROVE_EVERY: u64 = 1000;

/// How much of the log is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// None of it, so far.
    Nothing,
    /// Up to this record, so far.
    Until(OpTime),
    /// All that is written.
    Open,
}

/// What was written down.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// The first record in `oplog.bson`; none: there is no such artifact.
    pub from: Option<OpTime>,
    /// The last one.
    pub last: Option<OpTime>,
    /// Collections that were renamed in the meantime, by their old names: but for those that were created in it too, of
    /// which the log tells everything.
    pub renamed: BTreeSet<Namespace>,
    created: BTreeSet<Namespace>,
}

impl Recorded {
    fn note(&mut self, named: Option<Named>) {
        match named {
            Some(Named::Created(namespace)) => drop(self.created.insert(namespace)),
            Some(Named::Renamed(namespace)) => {
                let is_known = self.created.remove(&namespace);
                self.renamed.extend((!is_known).then_some(namespace));
            }
            None => {}
        }
    }
}

struct Recorder<'a> {
    link: &'a Link,
    task: &'a Task,
    out: &'a BackupWriter,
    from: OpTime,
    dumped_from: OpTime,
    tail: Option<Tail>,
    artifact: Option<ArtifactWriter>,
    pending: VecDeque<(OpTime, Bytes)>,
    unproven: u64,
    recorded: Recorded,
}

/// Writes the log into its artifact, from the record at `from` on, as far as is wanted; ends when nobody can want more. What
/// is dumped holds all up to `dumped_from`.
///
/// # Errors
/// If the log has lost its place: it holds less than the dump takes.
pub async fn record(
    link: &Link,
    from: OpTime,
    dumped_from: OpTime,
    mut extent: watch::Receiver<Extent>,
    task: &Task,
    out: &BackupWriter,
) -> Result<Recorded> {
    let mut recorder = Recorder {
        link,
        task,
        out,
        from,
        dumped_from,
        tail: None,
        artifact: None,
        pending: VecDeque::new(),
        unproven: 0,
        recorded: Recorded::default(),
    };
    loop {
        let wanted = *extent.borrow_and_update();
        let is_final = extent.has_changed().is_err();
        let enough = match wanted {
            Extent::Nothing => true,
            Extent::Until(until) => recorder.is_behind(until),
            Extent::Open => is_final,
        };
        if enough && is_final {
            return recorder.finish().await;
        }
        if enough {
            // The error says that nobody wants more: that is found out above.
            let _ = extent.changed().await;
            continue;
        }
        tokio::select! {
            biased;
            Ok(()) = extent.changed() => {}
            fetched = recorder.fetch(wanted) => {
                fetched?;
                recorder.write(wanted).await?;
            }
        }
    }
}

impl Recorder<'_> {
    /// Whether all up to this record is written.
    fn is_behind(&self, until: OpTime) -> bool {
        self.recorded.last >= Some(until) || self.pending.front().is_some_and(|(at, _)| *at > until)
    }

    /// Makes sure that there is a record to write. May be dropped at any await.
    async fn fetch(&mut self, wanted: Extent) -> Result<()> {
        if !self.pending.is_empty() {
            return Ok(());
        }
        let tail = match &mut self.tail {
            Some(tail) => tail,
            None => match Tail::open(self.link, self.from, self.task).await? {
                Opened::Here(tail) => self.tail.insert(tail),
                Opened::Gone { oldest } => return Err(too_short(self.from, oldest)),
            },
        };
        let read = match wanted {
            Extent::Until(until) => tail.up_to(until).await,
            _ => tail.next().await,
        };
        self.pending = read.map_err(explained)?.into();
        Ok(())
    }

    async fn write(&mut self, wanted: Extent) -> Result<()> {
        while let Some((at, record)) = self.pending.pop_front() {
            if matches!(wanted, Extent::Until(until) if at > until) {
                self.pending.push_front((at, record));
                break;
            }
            self.note(at, &record)?;
            let artifact = match &mut self.artifact {
                Some(artifact) => artifact,
                None => self.artifact.insert(self.out.artifact(OPLOG, MEDIA_TYPE)?),
            };
            artifact.write(record).await?;
            self.unproven += 1;
        }
        if self.unproven >= PROVE_EVERY { self.prove().await } else { Ok(()) }
    }

    fn note(&mut self, at: OpTime, record: &[u8]) -> Result<()> {
        self.recorded.from.get_or_insert(at);
        self.recorded.last = Some(at);
        let mut rest = if at > self.dumped_from { record } else { &[] };
        while let Some((entry, after)) = split_first(rest) {
            self.recorded.note(named(entry)?);
            rest = after;
        }
        Ok(())
    }

    async fn prove(&mut self) -> Result<()> {
        self.unproven = 0;
        match &mut self.tail {
            Some(tail) => tail.prove().await.map_err(explained),
            None => Ok(()),
        }
    }

    async fn finish(mut self) -> Result<Recorded> {
        self.prove().await?;
        if let Some(artifact) = self.artifact {
            artifact.finish().await?;
        }
        Ok(self.recorded)
    }
}

/// The record from which on the log is wanted: one that is there, and before which none is missing.
///
/// # Errors
/// If the log begins later.
pub async fn begin(link: &Link, newest: OpTime, open_since: Option<OpTime>, task: &Task) -> Result<OpTime> {
    let Some(wanted) = open_since.filter(|open| *open < newest) else { return Ok(newest) };
    let oldest = tail::oldest(link, task).await?;
    if oldest.is_none_or(|oldest| oldest > wanted) {
        return Err(too_short(wanted, oldest));
    }
    Ok(tail::first_since(link, wanted, task).await?.unwrap_or(newest))
}

/// What an entry of the log does to the name of a collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// It is new.
    Created(Namespace),
    /// It was this one.
    Renamed(Namespace),
}

/// What an entry of the log does to the name of a collection; none: nothing that matters here.
pub fn named(entry: &[u8]) -> Result<Option<Named>> {
    let is_command = raw::field(entry, "op")?.is_some_and(|op| text(op) == Some("c"));
    let Some(command) = raw::field(entry, "o")?.filter(|o| is_command && o.kind == 0x03) else {
        return Ok(None);
    };
    if let Some(from) = raw::field(command.bytes, "renameCollection")? {
        return Ok(text(from).and_then(Namespace::parse).map(Named::Renamed));
    }
    let Some(name) = raw::field(command.bytes, "create")? else { return Ok(None) };
    let db = raw::field(entry, "ns")?.and_then(text).and_then(|ns| ns.strip_suffix(".$cmd"));
    Ok(db.zip(text(name)).map(|(db, name)| Named::Created(Namespace::new(db, name))))
}

/// A record may be several documents, one after the other.
fn split_first(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = raw::length_of(*bytes.first_chunk()?)?;
    bytes.split_at_checked(length)
}

fn too_short(wanted: OpTime, oldest: Option<OpTime>) -> Error {
    explained(Lost::RolledOver { at: wanted, oldest }.error())
}

/// A loss ends the backup, and another try would end alike.
fn explained(error: Error) -> Error {
    if Lost::of(&error).is_none() {
        return error;
    }
    let hint = "the oplog must hold all that is written while the backup runs: make it larger (`replSetResizeOplog`), \
                or back up when less is written";
    let why = error.why().to_owned();
    Error::new(Kind::NotFound, "recording the oplog during the dump", why).hint(hint).caused_by(error)
}
