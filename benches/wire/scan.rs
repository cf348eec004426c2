//! Reading a collection in order, from where the last batch ended.

use std::collections::VecDeque;
use std::ops::Bound::{Excluded, Included};
use std::sync::Arc;

use bytes::Bytes;
use mongodb::bson::{RawDocument, RawDocumentBuf};

use super::filter::Filter;
use super::key::after;
use super::message::{DOCUMENT_MAX, Index, Out};
use super::oplog::Oplog;
use super::store::{Collection, Data};

/// A batch ends before it is longer.
const BATCH_MAX: usize = 16 << 20;

/// How many stored documents are looked up at once.
const CHUNK: usize = 1_000;

/// Documents still to be read.
#[derive(Debug)]
pub struct Scan {
    place: Place,
    filter: Filter,
    /// Read, but not handed out.
    ready: VecDeque<Bytes>,
    /// The fields that are wanted; none: all.
    pub fields: Option<Vec<String>>,
    /// From the last to the first.
    pub is_reversed: bool,
    /// How many may still come.
    pub limit: u64,
}

#[derive(Debug)]
enum Place {
    /// Places that can be counted: generated documents, the log.
    Counted { collection: Arc<Collection>, next: u64, end: u64, may_grow: bool },
    /// Keys of stored documents; what was read leaves the filter's range.
    Keyed(Arc<Collection>),
    /// Nothing but what is ready.
    List,
}

impl Scan {
    /// Reads what the filter wants.
    pub fn new(collection: Arc<Collection>, filter: Filter) -> Self {
        let mut ready = VecDeque::new();
        let place = match &collection.data {
            Data::Generated(rows) => {
                let (next, end) = (rows.lower(&filter.range.start), rows.lower(&filter.range.end));
                Place::Counted { collection, next, end, may_grow: false }
            }
            Data::Oplog(log) => {
                let (next, end) = (log.lower(&filter.range.start), log.lower(&filter.range.end));
                Place::Counted { collection, next, end, may_grow: false }
            }
            Data::Stored(rows) => match &filter.among {
                Some(keys) => {
                    let rows = rows.lock().expect("no holder panics");
                    let mut keys: Vec<_> =
                        keys.iter().filter(|key| filter.range.contains(&key.to_vec())).collect();
                    keys.sort();
                    keys.dedup();
                    ready.extend(keys.into_iter().filter_map(|key| rows.get(key).cloned()));
                    Place::List
                }
                None => Place::Keyed(collection),
            },
            Data::View => Place::List,
        };
        Scan { place, filter, ready, fields: None, is_reversed: false, limit: u64::MAX }
    }

    /// Reads these.
    pub fn list(documents: impl IntoIterator<Item = Bytes>) -> Self {
        let ready = documents.into_iter().collect();
        Scan {
            place: Place::List,
            filter: Filter::all(),
            ready,
            fields: None,
            is_reversed: false,
            limit: u64::MAX,
        }
    }

    /// Never ends by itself: what the log gains is read too.
    pub fn tail(&mut self) {
        if let Place::Counted { may_grow, .. } = &mut self.place {
            *may_grow = true;
        }
    }

    /// Waits for the log to gain an entry, if it has none to give.
    pub fn wait(&self, limit: std::time::Duration) {
        if let (Some(log), Place::Counted { next, .. }) = (self.log(), &self.place) {
            log.wait(*next, limit);
        }
    }

    fn log(&self) -> Option<&Oplog> {
        match &self.place {
            Place::Counted { collection, may_grow: true, .. } => match &collection.data {
                Data::Oplog(log) => Some(log),
                _ => None,
            },
            _ => None,
        }
    }

    /// How many documents, where that is known without reading them.
    pub fn known_count(&self) -> Option<u64> {
        match &self.place {
            Place::Counted { next, end, .. } if self.filter.is_range() => Some(end.saturating_sub(*next)),
            _ => None,
        }
    }

    /// Skips so many, without reading those that can be counted.
    pub fn skip(&mut self, count: u64) {
        match &mut self.place {
            Place::Counted { next, end, .. } if self.filter.is_range() => *next = (*next + count).min(*end),
            _ => {
                let mut ignored = Out::default();
                for _ in 0..count {
                    if !self.next_into(&mut ignored) {
                        break;
                    }
                    ignored.truncate(0);
                }
            }
        }
    }

    /// Appends the next document; whether there was one.
    pub fn next_into(&mut self, out: &mut Out) -> bool {
        let at = out.len();
        while self.limit > 0 && self.any_into(out) {
            let found = RawDocument::from_bytes(out.since(at));
            if !self.filter.is_range() && !found.is_ok_and(|found| self.filter.wants(found)) {
                out.truncate(at);
                continue;
            }
            if let Some(fields) = &self.fields {
                let kept = projected(out.since(at), fields);
                out.truncate(at);
                out.put(kept.as_bytes());
            }
            self.limit -= 1;
            return true;
        }
        false
    }

    fn any_into(&mut self, out: &mut Out) -> bool {
        if self.ready.is_empty() {
            self.look_up();
        }
        let ready = if self.is_reversed { self.ready.pop_back() } else { self.ready.pop_front() };
        if let Some(document) = ready {
            out.put(&document);
            return true;
        }
        let grown = self.log().map(Oplog::count);
        let Place::Counted { collection, next, end, .. } = &mut self.place else { return false };
        *end = grown.unwrap_or(*end);
        if next >= end {
            return false;
        }
        let n = if self.is_reversed { *end - 1 } else { *next };
        if self.is_reversed {
            *end -= 1
        } else {
            *next += 1
        }
        match &collection.data {
            Data::Generated(rows) => rows.append(n, out),
            Data::Oplog(log) => log.append_to(n, out),
            Data::Stored(_) | Data::View => return false,
        }
        true
    }

    /// Gets the next stored documents ready, in the order of their keys.
    fn look_up(&mut self) {
        let Place::Keyed(collection) = &self.place else { return };
        let Data::Stored(rows) = &collection.data else { return };
        let range = &mut self.filter.range;
        if range.start >= range.end {
            return;
        }
        let rows = rows.lock().expect("no holder panics");
        let found = rows.range::<[u8], _>((Included(range.start.as_slice()), Excluded(range.end.as_slice())));
        if self.is_reversed {
            for (key, row) in found.rev().take(CHUNK) {
                self.ready.push_front(row.clone());
                range.end = key.to_vec();
            }
        } else {
            for (key, row) in found.take(CHUNK) {
                self.ready.push_back(row.clone());
                range.start = after(key);
            }
        }
    }

    /// Appends an array's elements; whether there may be more.
    pub fn batch_into(&mut self, out: &mut Out, most: u64) -> bool {
        let (start, mut index) = (out.len(), Index::new());
        for _ in 0..most {
            let mark = out.len();
            out.put(&[3]);
            out.put(index.digits());
            out.put(&[0]);
            let at = out.len();
            if !self.next_into(out) {
                out.truncate(mark);
                return self.log().is_some();
            }
            if out.len() - start > BATCH_MAX && mark > start {
                let held = Bytes::copy_from_slice(out.since(at));
                out.truncate(mark);
                if self.is_reversed {
                    self.ready.push_back(held)
                } else {
                    self.ready.push_front(held)
                }
                self.limit = self.limit.saturating_add(1);
                return true;
            }
            index.advance();
        }
        debug_assert!(out.len() - start <= BATCH_MAX + DOCUMENT_MAX, "a batch is bounded");
        self.limit > 0
    }
}

fn projected(document: &[u8], fields: &[String]) -> RawDocumentBuf {
    let mut kept = RawDocumentBuf::new();
    for (name, value) in RawDocument::from_bytes(document).into_iter().flatten().flatten() {
        if fields.iter().any(|field| field == name.as_str()) {
            kept.append(name, value);
        }
    }
    kept
}
