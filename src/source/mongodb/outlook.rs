//! What a log would do to a restore, looked at before the target is touched: each segment is checked on the way.

use std::collections::BTreeSet;

use super::blueprint::BUCKETS;
use super::namespace::Namespace;
use super::oplog::entry::{Entry, Op, text};
use super::oplog::transactions::Unit;
use super::optime::OpTime;
use super::plan::is_own;
use super::raw;
use super::selection::Selection;
use crate::error::Result;

/// So many split transactions are named; all are counted.
const NAMED: usize = 5;

/// What a log would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Inserts, updates and deletes that are wanted.
    pub ops: u64,
    /// Commands that are wanted.
    pub commands: u64,
    /// Transactions with something in them that is wanted.
    pub transactions: u64,
    /// Transactions that the selection splits: some of their operations are wanted, others not.
    pub split: u64,
    /// The first of those, each with the number of operations that are left out.
    pub first_split: Vec<(OpTime, usize)>,
    /// Transactions that were not committed at the cut.
    pub open: u64,
    /// Bytes of the log.
    pub bytes: u64,
    /// The last record.
    pub last: Option<OpTime>,
    /// Collections that are written to, created, renamed or dropped, by their names in the source.
    pub touched: BTreeSet<Namespace>,
    /// Those whose definition or indexes change.
    pub redefined: BTreeSet<Namespace>,
    /// Databases that are dropped as a whole, by their names in the target.
    pub dropped: BTreeSet<String>,
}

impl Outlook {
    /// Whatever the log does.
    pub fn entries(&self) -> u64 {
        self.ops + self.commands
    }

    /// Takes what happens next.
    pub fn take(&mut self, unit: &Unit, selection: &Selection) -> Result<()> {
        let (mut kept, mut left_out) = (0, 0);
        for entry in &unit.ops {
            match self.entry(entry, selection)? {
                Some(true) => kept += 1,
                Some(false) => left_out += 1,
                None => {}
            }
        }
        if unit.is_transaction && kept > 0 {
            self.transactions += 1;
            if left_out > 0 {
                self.split += 1;
                if self.first_split.len() < NAMED {
                    self.first_split.push((unit.at, left_out));
                }
            }
        }
        Ok(())
    }

    /// Whether it is wanted; none where it does nothing that anybody could want.
    fn entry(&mut self, entry: &Entry, selection: &Selection) -> Result<Option<bool>> {
        if is_own(entry.db()) {
            return Ok(None);
        }
        match entry.op {
            Op::Noop | Op::Internal => Ok(None),
            Op::Command => self.command(entry, selection).map(Some),
            Op::Insert | Op::Update | Op::Delete => {
                let Some(namespace) = Namespace::parse(&entry.ns) else { return Ok(None) };
                let wanted = selection.target(&namespace).is_some();
                if wanted {
                    self.ops += 1;
                    let series = namespace.collection.strip_prefix(BUCKETS);
                    self.touched.extend(series.map(|series| Namespace::new(&*namespace.db, series)));
                    self.touched.insert(namespace);
                }
                Ok(Some(wanted))
            }
        }
    }

    fn command(&mut self, entry: &Entry, selection: &Selection) -> Result<bool> {
        let (name, value) = entry.command()?;
        let mut namespaces = Vec::new();
        match name {
            "dropDatabase" => {
                let everything = Namespace::new(entry.db(), "x");
                let target = selection.target(&everything).map(|target| target.db);
                let wanted = target.is_some();
                self.dropped.extend(target);
                self.commands += u64::from(wanted);
                return Ok(wanted);
            }
            "renameCollection" => {
                let to = raw::field(&entry.o, "to")?;
                let ends = [Some(value), to].into_iter().flatten().filter_map(text);
                namespaces.extend(ends.filter_map(Namespace::parse));
            }
            _ => namespaces.extend(text(value).map(|collection| Namespace::new(entry.db(), collection))),
        }
        namespaces.retain(|namespace| selection.target(namespace).is_some());
        let wanted = !namespaces.is_empty();
        self.commands += u64::from(wanted);
        // What changes indexes alone changes no document.
        let is_of_indexes = matches!(
            name,
            "createIndexes"
                | "dropIndexes"
                | "deleteIndexes"
                | "startIndexBuild"
                | "commitIndexBuild"
                | "abortIndexBuild"
                | "collMod"
        );
        if !is_of_indexes {
            self.touched.extend(namespaces.iter().cloned());
        }
        self.redefined.extend(namespaces);
        Ok(wanted)
    }
}
