//! The writes of a window, folded: what becomes of each document in the end. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;

use super::super::namespace::Namespace;
use super::super::optime::OpTime;
use super::super::raw;
use super::key::canonical;
use super::route::{Change, Id, Write};
use super::update;
use crate::error::{Error, Kind, Result};

/// What becomes of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It is this, whatever it was.
    Document(Bytes),
    /// It is gone.
    Absent,
    /// What it is in the target, changed by these.
    Patched(Vec<(OpTime, Bytes)>),
}

/// One document's part of a window.
#[derive(Clone, Debug, PartialEq)]
pub struct Folded {
    /// The collection in the target.
    pub ns: Arc<Namespace>,
    /// Its `_id`, as last written.
    pub id: Id,
    /// What becomes of it.
    pub outcome: Outcome,
    /// Whether the old document must go before the new one comes: because its `_id` is the same by value only (1 and 1.0),
    /// or because a replacement cannot hold it.
    pub renewed: bool,
}

/// A window of writes. Those of one document are in the order of the log.
#[derive(Debug, Default)]
pub struct Fold {
    places: HashMap<(Arc<Namespace>, Vec<u8>), usize>,
    folded: Vec<Folded>,
}

impl Fold {
    /// Takes the next write. Up to `tolerate_until` the data may be newer than the log: what then does not fit is made good
    /// by later entries.
    ///
    /// # Errors
    /// `Damaged` for a change of a document that is gone.
    pub fn push(&mut self, write: Write, tolerate_until: OpTime) -> Result<()> {
        let place = (write.ns.clone(), canonical(write.id.value()));
        let next = self.folded.len();
        let at = *self.places.entry(place).or_insert(next);
        if at == next {
            let outcome = Outcome::Patched(Vec::new());
            self.folded.push(Folded { ns: write.ns, id: write.id.clone(), outcome, renewed: false });
        }
        self.folded[at].take(write.at, write.id, write.change, write.at <= tolerate_until)
    }

    /// What became of the documents.
    pub fn finish(self) -> Vec<Folded> {
        self.folded
    }
}

impl Folded {
    fn take(&mut self, at: OpTime, id: Id, change: Change, tolerant: bool) -> Result<()> {
        match change {
            Change::Insert(document) | Change::Replace(document) => {
                self.renewed |= id != self.id || is_awkward(&document)?;
                self.id = id;
                self.outcome = Outcome::Document(document);
            }
            Change::Remove => self.outcome = Outcome::Absent,
            Change::Patch(o) => match &mut self.outcome {
                Outcome::Patched(patches) => patches.push((at, o)),
                Outcome::Absent if tolerant => {}
                Outcome::Absent => return Err(self.missing(at)),
                Outcome::Document(document) => {
                    let document = document.clone();
                    if let Some(patched) = self.patched(at, &document, &o, tolerant)? {
                        self.renewed |= is_awkward(&patched)?;
                        self.outcome = Outcome::Document(patched);
                    }
                }
            },
        }
        Ok(())
    }

    /// Applies what was to be done to what the target holds.
    ///
    /// # Errors
    /// `Damaged` where a change does not fit, and the log is not behind the data.
    pub fn resolve(mut self, document: &[u8], tolerate_until: OpTime) -> Result<Folded> {
        let Outcome::Patched(patches) = &self.outcome else { return Ok(self) };
        let mut document = Bytes::copy_from_slice(document);
        for (at, o) in patches {
            if let Some(patched) = self.patched(*at, &document, o, *at <= tolerate_until)? {
                document = patched;
            }
        }
        self.renewed |= is_awkward(&document)?;
        self.outcome = Outcome::Document(document);
        Ok(self)
    }

    /// The target has no such document: an error, unless it went by an entry that is still to come.
    pub fn check_missing(&self, tolerate_until: OpTime) -> Result<()> {
        let Outcome::Patched(patches) = &self.outcome else { return Ok(()) };
        match patches.last() {
            Some((at, _)) if *at > tolerate_until => Err(self.missing(*at)),
            _ => Ok(()),
        }
    }

    fn patched(&self, at: OpTime, document: &[u8], o: &Bytes, tolerant: bool) -> Result<Option<Bytes>> {
        match update::applied(document, o) {
            Ok(patched) => Ok(Some(patched)),
            Err(error) if tolerant && error.kind() == Kind::Damaged => Ok(None),
            Err(error) => Err(error.while_doing(format!("replaying {at} on {}, _id {}", self.ns, self.id))),
        }
    }

    fn missing(&self, at: OpTime) -> Error {
        let doing = format!("replaying {at} on {}", self.ns);
        let why = format!("it changes the document with _id {}, which is not there", self.id);
        Error::new(Kind::Damaged, doing, why).hint(
            "the backup and the log do not fit together: somebody else writes to the target, or the backup lacks documents",
        )
    }
}

/// Whether a replacement could not say it: names that begin with `$` would be taken for operators.
fn is_awkward(document: &[u8]) -> Result<bool> {
    for element in raw::elements(document) {
        if element?.0.first() == Some(&b'$') {
            return Ok(true);
        }
    }
    Ok(false)
}
