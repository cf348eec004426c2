//! Reads and writes `runs/`: claims, finishes, and which attempts are open.

use jiff::Timestamp;

use super::run::{Finished, Record, RunId, Started, Try};
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::decide::{Decision, decide, read_json, set_aside};
use crate::vault::layout::{self, Mark};
use crate::vault::store::{Key, list_all};

/// All that the vault knows of a run: one listing, and one read for each object in it.
pub async fn read(vault: &Vault, run: &RunId) -> Result<Record> {
    let store = vault.store.as_ref();
    let mut record = Record::default();
    for entry in list_all(store, &layout::run(run)).await? {
        if let Some((_, number, Mark::Started)) = layout::attempt_of(&entry.key) {
            let found = attempt(vault, run, number).await?;
            record.tries.push(found.ok_or_else(|| vanished(&entry.key))?);
        }
    }
    record.tries.sort_by_key(|attempt| attempt.started.attempt);
    if record.finished().is_none_or(|finished| finished.retry_at.is_some()) {
        record.cancelled = store.stat(&layout::cancel(run.tail())).await?.is_some();
    }
    Ok(record)
}

/// One attempt's beginning and end; `None` if it was never claimed.
pub async fn attempt(vault: &Vault, run: &RunId, number: u32) -> Result<Option<Try>> {
    let store = vault.store.as_ref();
    let Some(started) = read_json(store, &layout::started(run, number)).await? else { return Ok(None) };
    Ok(Some(Try { started, finished: read_json(store, &layout::finished(run, number)).await? }))
}

fn vanished(key: &Key) -> Error {
    Error::new(Kind::Conflict, format!("reading {key}"), "it was listed and is gone").retryable(true)
}

/// Claims an attempt: whoever creates its `started` object has it.
pub async fn claim(vault: &Vault, started: &Started) -> Result<Decision<Started>> {
    let key = layout::started(&started.run, started.attempt);
    decide(vault.store.as_ref(), vault.clock.as_ref(), &key, started).await
}

/// Ends an attempt. Whoever writes the end first has decided it; what counts is returned.
pub async fn finish(vault: &Vault, finished: Finished) -> Result<Finished> {
    let key = layout::finished(&finished.run, finished.attempt);
    match decide(vault.store.as_ref(), vault.clock.as_ref(), &key, &finished).await? {
        Decision::Ours => Ok(finished),
        Decision::Theirs(theirs) => Ok(theirs),
    }
}

/// A run as a listing shows it: how many attempts began, and whether the newest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The run.
    pub run: RunId,
    /// The newest attempt's number.
    pub attempt: u32,
    /// Whether it is still open.
    pub open: bool,
}

/// Visits the traces of all runs whose id is not older than `since` (of all runs, if none), in order. Holds one page of
/// keys at a time.
pub async fn scan(vault: &Vault, since: Option<Timestamp>, mut visit: impl FnMut(Trace)) -> Result<()> {
    let mut after = since.map(layout::runs_since);
    let mut current: Option<Trace> = None;
    loop {
        let page = vault.store.list(layout::RUNS, after.as_ref()).await?;
        for (run, attempt, mark) in page.entries.iter().filter_map(|entry| layout::attempt_of(&entry.key)) {
            let trace = match current.take() {
                Some(trace) if trace.run == run => trace,
                ended => {
                    ended.into_iter().for_each(&mut visit);
                    Trace { run, attempt: 0, open: false }
                }
            };
            current = Some(trace.with(attempt, mark));
        }
        match page.entries.last() {
            Some(last) if page.more => after = Some(last.key.clone()),
            _ => break,
        }
    }
    current.into_iter().for_each(visit);
    Ok(())
}

impl Trace {
    /// Takes one key in. Of an attempt, `finished` lists before `started`.
    fn with(mut self, attempt: u32, mark: Mark) -> Self {
        match (attempt.cmp(&self.attempt), mark) {
            (std::cmp::Ordering::Greater, mark) => {
                self.attempt = attempt;
                self.open = mark == Mark::Started;
            }
            (std::cmp::Ordering::Equal, Mark::Finished) => self.open = false,
            _ => {}
        }
        self
    }
}

/// The attempts that have no end.
#[derive(Debug, Default)]
pub struct Open {
    /// Their claims.
    pub attempts: Vec<Started>,
    /// Claims that cannot be read: what they occupy, nobody knows.
    pub unreadable: Vec<Error>,
}

/// The open attempts of all runs not older than `since` (of all runs, if none).
pub async fn open(vault: &Vault, since: Option<Timestamp>) -> Result<Open> {
    let mut traces = Vec::new();
    scan(vault, since, |trace| {
        if trace.open {
            traces.push(trace);
        }
    })
    .await?;
    let mut open = Open::default();
    for trace in traces {
        // It may have ended since it was listed.
        let read = attempt(vault, &trace.run, trace.attempt).await;
        let found = set_aside(read, &mut open.unreadable)?.flatten();
        open.attempts.extend(found.filter(|found| found.finished.is_none()).map(|found| found.started));
    }
    Ok(open)
}
