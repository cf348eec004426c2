//! How many documents a collection has after the log, as far as the log tells. Pure.

use std::collections::BTreeMap;

use super::super::namespace::Namespace;
use super::super::optime::OpTime;
use super::route::{Act, Change, Write};

/// How one collection grew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Whose documents were there before, by its name in the target then; none: the log has made it.
    pub base: Option<Namespace>,
    /// How many more there are now, or fewer.
    pub by: i64,
    /// Whether every entry found the data as it was left by the one before: then each insert is one more.
    pub is_certain: bool,
    /// Whether it was dropped, or given another name, and not made again.
    pub is_gone: bool,
}

impl Growth {
    /// Of a collection that nothing was done to.
    pub fn none(ns: &Namespace) -> Self {
        Growth { base: Some(ns.clone()), by: 0, is_certain: true, is_gone: false }
    }

    fn made() -> Self {
        Growth { base: None, by: 0, is_certain: true, is_gone: false }
    }

    fn gone() -> Self {
        Growth { is_gone: true, ..Growth::made() }
    }
}

/// How the collections of the target grew that documents of were written, or that were made, dropped or renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Growths(BTreeMap<Namespace, Growth>);

impl Growths {
    /// How this one grew.
    pub fn of(&self, ns: &Namespace) -> Growth {
        self.0.get(ns).cloned().unwrap_or_else(|| Growth::none(ns))
    }

    /// A document is written. Up to `fuzzy_until` the data may be newer than the log: there may be what is inserted, and what is
    /// deleted may be gone.
    pub fn write(&mut self, write: &Write, fuzzy_until: OpTime) {
        if !self.0.contains_key(&*write.ns) {
            self.0.insert((*write.ns).clone(), Growth::none(&write.ns));
        }
        let Some(growth) = self.0.get_mut(&*write.ns) else { return };
        match write.change {
            Change::Insert(_) => {
                growth.by += 1;
                growth.is_gone = false;
            }
            Change::Remove => growth.by -= 1,
            Change::Replace(_) | Change::Patch(_) => {}
        }
        growth.is_certain &= growth.base.is_none() || write.at > fuzzy_until;
    }

    /// A collection is changed.
    pub fn command(&mut self, act: &Act) {
        match act {
            Act::Create(ns, _) => {
                self.0.insert(ns.clone(), Growth::made());
            }
            Act::Drop(ns) => {
                self.0.insert(ns.clone(), Growth::gone());
            }
            Act::Rename(from, to) => {
                let moved = self.of(from);
                self.0.insert(from.clone(), Growth::gone());
                self.0.insert(to.clone(), moved);
            }
            Act::Modify(..) => {}
        }
    }
}
