//! The log of a restore as one stream of records: the backup's own `oplog.bson`, then the segments of its timeline.
//!
//! Parts overlap: each segment begins with the record that the one before ended with, or even earlier. Where two hold the
//! same record they must agree byte for byte; then it is handed out once.

use std::collections::VecDeque;

use bytes::Bytes;

use super::super::optime::OpTime;
use super::super::raw::Documents;
use super::entry::stamp;
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::Artifact;
use crate::vault::reader::{ArtifactReader, BackupReader};
use crate::vault::timeline::Segment;
use crate::vault::timeline::reader::{LogReader, SegmentReader};

/// The artifact in which a backup keeps what its own state needs of the log.
pub const OPLOG: &str = "oplog.bson";

/// Records in ascending order, each once, up to a place in the log.
#[derive(Debug)]
pub struct Records {
    task: Task,
    until: OpTime,
    parts: VecDeque<Part>,
    reading: Option<Reading>,
    documents: Documents,
    /// The record that is being put together.
    building: Option<(OpTime, Vec<Bytes>)>,
    /// The last record of this part.
    before: Option<OpTime>,
    /// Whether this part has shown the record that the one before ended with, or need not.
    is_joined: bool,
    /// The last record that was handed out.
    last: Option<(OpTime, Bytes)>,
}

#[derive(Debug)]
enum Part {
    Own(Box<BackupReader>, Box<Artifact>),
    Segment(Box<LogReader>, Box<Segment>, bool),
    Given(Bytes),
}

#[derive(Debug)]
struct Reading {
    name: String,
    from: From,
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is one of it at a time")]
enum From {
    Own(ArtifactReader),
    Segment(SegmentReader),
    Given(Option<Bytes>),
}

impl Records {
    /// What a backup keeps of the log itself, then the log that leads on from it. Nothing is read yet.
    pub fn of(backup: &BackupReader, log: Option<&LogReader>, task: &Task) -> Self {
        let own = backup.manifest.artifacts.iter().find(|artifact| artifact.name == OPLOG);
        let own = own.map(|artifact| Part::Own(Box::new(backup.clone()), Box::new(artifact.clone())));
        // The backup's own part ends with a record that the log must hold too: else it is another history.
        let follows = own.is_some();
        let segments = log.into_iter().flat_map(|log| {
            log.chain.segments.iter().enumerate().map(move |(n, segment)| {
                Part::Segment(Box::new(log.clone()), Box::new(segment.clone()), follows || n > 0)
            })
        });
        Records::new(own.into_iter().chain(segments).collect(), task)
    }

    /// Records that were read elsewhere: each part ascending, in order.
    pub fn given(parts: Vec<Bytes>, task: &Task) -> Self {
        Records::new(parts.into_iter().map(Part::Given).collect(), task)
    }

    fn new(parts: VecDeque<Part>, task: &Task) -> Self {
        Records {
            task: task.clone(),
            until: OpTime { seconds: u32::MAX, increment: u32::MAX },
            parts,
            reading: None,
            documents: Documents::default(),
            building: None,
            before: None,
            is_joined: true,
            last: None,
        }
    }

    /// Nothing after this is handed out.
    pub fn until(self, until: OpTime) -> Self {
        Records { until, ..self }
    }

    /// On whose behalf they are read.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The next record: all entries of one ts, one after the other. `None` after the last.
    ///
    /// # Errors
    /// `Damaged`, naming the part, where a record is missing or two parts disagree; those of the readers.
    pub async fn next(&mut self) -> Result<Option<(OpTime, Bytes)>> {
        while let Some((at, entries)) = self.read().await? {
            if at > self.until {
                self.parts.clear();
                self.reading = None;
                return Ok(None);
            }
            let record = match <[Bytes; 1]>::try_from(entries) {
                Ok([entry]) => entry,
                Err(entries) => Bytes::from(entries.concat()),
            };
            if self.is_new(at, &record)? {
                self.last = Some((at, record.clone()));
                return Ok(Some((at, record)));
            }
        }
        Ok(None)
    }

    /// The next record of the parts one after the other.
    async fn read(&mut self) -> Result<Option<(OpTime, Vec<Bytes>)>> {
        loop {
            while self.reading.is_some()
                && let Some(entry) = self.documents.next().map_err(|error| self.in_part(error))?
            {
                if let Some(complete) = self.gather(entry)? {
                    return Ok(Some(complete));
                }
            }
            let Some(reading) = &mut self.reading else {
                let Some(part) = self.parts.pop_front() else { return Ok(None) };
                self.begin(part).await?;
                continue;
            };
            match reading.next().await? {
                Some(block) => self.documents.push(&block),
                None => {
                    self.documents.finish().map_err(|error| self.in_part(error))?;
                    self.reading = None;
                    if let Some(complete) = self.building.take() {
                        return Ok(Some(complete));
                    }
                }
            }
        }
    }

    async fn begin(&mut self, part: Part) -> Result<()> {
        self.documents = Documents::default();
        self.before = None;
        self.is_joined = true;
        let (name, from) = match part {
            Part::Own(backup, artifact) => {
                (artifact.name.clone(), From::Own(backup.open(&artifact, &self.task).await?))
            }
            Part::Segment(log, segment, follows) => {
                self.is_joined = !follows;
                let name = format!("segment {}", segment.name);
                (name, From::Segment(log.segment(&segment, &self.task).await?))
            }
            Part::Given(bytes) => {
                self.is_joined = self.last.is_none();
                ("the log".to_owned(), From::Given(Some(bytes)))
            }
        };
        self.reading = Some(Reading { name, from });
        Ok(())
    }

    /// Adds an entry to the record that is being put together; the one before if that is complete now.
    fn gather(&mut self, entry: Bytes) -> Result<Option<(OpTime, Vec<Bytes>)>> {
        let at = stamp(&entry).ok_or_else(|| self.damaged("an entry has no timestamp `ts`".to_owned()))?;
        match &mut self.building {
            Some((same, entries)) if *same == at => {
                entries.push(entry);
                return Ok(None);
            }
            _ => {}
        }
        if let Some(before) = self.before.filter(|before| at <= *before) {
            return Err(self.damaged(format!("the entry at {at} stands after the one at {before}")));
        }
        self.before = Some(at);
        Ok(self.building.replace((at, vec![entry])))
    }

    /// Whether a record was not handed out before.
    fn is_new(&mut self, at: OpTime, record: &Bytes) -> Result<bool> {
        let Some((last, bytes)) = &self.last else { return Ok(true) };
        if at == *last {
            if bytes != record {
                return Err(
                    self.damaged(format!("its record at {at} is another than the part before it has"))
                );
            }
            self.is_joined = true;
        } else if at > *last && !self.is_joined {
            return Err(self
                .damaged(format!("the record at {last} is not in it, with which the part before it ends")));
        }
        Ok(at > *last)
    }

    fn name(&self) -> &str {
        self.reading.as_ref().map_or("the log", |reading| &reading.name)
    }

    fn damaged(&self, why: String) -> Error {
        Error::new(Kind::Damaged, format!("reading {}", self.name()), why)
    }

    fn in_part(&self, error: Error) -> Error {
        error.while_doing(format!("reading {}", self.name()))
    }
}

impl Reading {
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match &mut self.from {
            From::Own(artifact) => artifact.next().await,
            From::Segment(segment) => segment.next().await,
            From::Given(bytes) => Ok(bytes.take()),
        }
    }
}
