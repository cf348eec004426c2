//! The indexes that stand at the end: from the backup's metadata, edited by the log, built when all documents are in.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::namespace::Namespace;
use super::oplog::entry::{boolean, integer, text};
use super::raw::{self, RawValue};
use super::replay::compose::{Composer, FALSE, TRUE, kind};
use crate::error::{Error, Kind, Result};

/// Commands of the log that change indexes. Building only takes effect when it is committed.
pub const COMMANDS: [&str; 6] =
    ["createIndexes", "commitIndexBuild", "dropIndexes", "dropIndex", "deleteIndexes", "deleteIndex"];

/// What an option of an index may become by `collMod`.
const OPTIONS: [&str; 4] = ["expireAfterSeconds", "hidden", "prepareUnique", "unique"];

/// Per collection the indexes to build and, where documents expire by the collection's own clock, after how many seconds.
/// The one on `_id` comes with its collection and is not among them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Catalogue {
    indexes: BTreeMap<Namespace, Vec<Bytes>>,
    expiry: BTreeMap<Namespace, i64>,
}

impl Catalogue {
    /// Adds an index as `listIndexes` or the log says it; it takes the place of one with the same name.
    ///
    /// # Errors
    /// `Damaged` for what is no specification.
    pub fn add(&mut self, ns: &Namespace, spec: &[u8]) -> Result<()> {
        if is_own(spec)? {
            return Ok(());
        }
        let spec = buildable(spec)?;
        let name = name_of(&spec)?;
        let indexes = self.indexes.entry(ns.clone()).or_default();
        match place(indexes, |other| name_of(other).is_ok_and(|other| other == name)) {
            Some(at) => indexes[at] = spec,
            None => indexes.push(spec),
        }
        Ok(())
    }

    /// Does what one of [`COMMANDS`] says, or the `index` part of a `collMod`. What it names may be missing: then the log is behind
    /// the data.
    ///
    /// # Errors
    /// `Damaged` for what cannot be read.
    pub fn edit(&mut self, ns: &Namespace, command: &str, o: &[u8]) -> Result<()> {
        match command {
            "createIndexes" | "commitIndexBuild" => match raw::field(o, "indexes")? {
                Some(specs) => raw::elements(specs.bytes).try_for_each(|spec| self.add(ns, spec?.1.bytes)),
                None => self.add(ns, &without(o, &[command])?),
            },
            "collMod" => match raw::field(o, "index")? {
                Some(change) => self.modify(ns, change.bytes),
                None => Ok(()),
            },
            _ => self.remove(ns, o),
        }
    }

    /// Documents of the collection expire after so many seconds; none: they do not.
    pub fn set_expiry(&mut self, ns: &Namespace, seconds: Option<i64>) {
        match seconds {
            Some(seconds) => self.expiry.insert(ns.clone(), seconds),
            None => self.expiry.remove(ns),
        };
    }

    /// The collection is gone.
    pub fn drop_collection(&mut self, ns: &Namespace) {
        self.indexes.remove(ns);
        self.expiry.remove(ns);
    }

    /// The collection has another name; one that had it is gone.
    pub fn rename(&mut self, from: &Namespace, to: &Namespace) {
        let (indexes, expiry) = (self.indexes.remove(from), self.expiry.remove(from));
        self.drop_collection(to);
        self.indexes.extend(indexes.map(|indexes| (to.clone(), indexes)));
        self.expiry.extend(expiry.map(|seconds| (to.clone(), seconds)));
    }

    /// The specifications per collection, as `createIndexes` takes them, each a raw document.
    pub fn indexes(&self) -> impl Iterator<Item = (&Namespace, &[Bytes])> {
        self.indexes.iter().filter(|(_, specs)| !specs.is_empty()).map(|(ns, specs)| (ns, &**specs))
    }

    /// Those of one collection.
    pub fn of(&self, ns: &Namespace) -> &[Bytes] {
        self.indexes.get(ns).map(|specs| &**specs).unwrap_or_default()
    }

    /// What `collMod` is to set at the very end, so that nothing expires before.
    pub fn expiries(&self) -> impl Iterator<Item = (&Namespace, i64)> {
        self.expiry.iter().map(|(ns, seconds)| (ns, *seconds))
    }

    fn remove(&mut self, ns: &Namespace, o: &[u8]) -> Result<()> {
        let Some(indexes) = self.indexes.get_mut(ns) else { return Ok(()) };
        let Some(which) = raw::field(o, "index")? else { return Ok(()) };
        match which.kind {
            kind::DOCUMENT => indexes.retain(|spec| !has_key(spec, which)),
            kind::ARRAY => {
                for name in raw::elements(which.bytes) {
                    let name = name?.1;
                    indexes.retain(|spec| !has_name(spec, name));
                }
            }
            _ if text(which) == Some("*") => indexes.clear(),
            _ => indexes.retain(|spec| !has_name(spec, which)),
        }
        Ok(())
    }

    fn modify(&mut self, ns: &Namespace, change: &[u8]) -> Result<()> {
        let Some(indexes) = self.indexes.get_mut(ns) else { return Ok(()) };
        let (name, key) = (raw::field(change, "name")?, raw::field(change, "keyPattern")?);
        let meant = |spec: &Bytes| match (name, key) {
            (Some(name), _) => has_name(spec, name),
            (None, Some(key)) => has_key(spec, key),
            (None, None) => false,
        };
        let Some(at) = place(indexes, meant) else { return Ok(()) };
        let mut spec = indexes[at].clone();
        for option in OPTIONS {
            if let Some(value) = raw::field(change, option)? {
                spec = with(&spec, option, Some(value).filter(|value| boolean(*value) != Some(false)))?;
            }
        }
        if raw::field(change, "unique")?.and_then(boolean) == Some(true) {
            spec = with(&spec, "prepareUnique", None)?;
        }
        if raw::field(change, "forceNonUnique")?.and_then(boolean) == Some(true) {
            spec = with(&spec, "unique", None)?;
        }
        indexes[at] = spec;
        Ok(())
    }
}

fn place(indexes: &[Bytes], meant: impl Fn(&Bytes) -> bool) -> Option<usize> {
    indexes.iter().position(meant)
}

fn has_name(spec: &[u8], name: RawValue<'_>) -> bool {
    raw::field(spec, "name").is_ok_and(|found| found == Some(name))
}

fn has_key(spec: &[u8], key: RawValue<'_>) -> bool {
    raw::field(spec, "key").is_ok_and(|found| found == Some(key))
}

fn name_of(spec: &[u8]) -> Result<String> {
    let name = raw::field(spec, "name")?.and_then(text);
    name.map(str::to_owned).ok_or_else(|| Error::new(Kind::Damaged, "reading an index", "it has no name"))
}

/// Whether it comes with its collection.
fn is_own(spec: &[u8]) -> Result<bool> {
    let clustered = raw::field(spec, "clustered")?.and_then(boolean) == Some(true);
    Ok(clustered || raw::field(spec, "name")?.and_then(text) == Some("_id_"))
}

/// As `createIndexes` takes it: without what only servers write, and without a version that none builds any more. Old
/// servers wrote truth values as numbers, which newer ones refuse.
fn buildable(spec: &[u8]) -> Result<Bytes> {
    let mut out = Composer::new();
    for element in raw::elements(spec) {
        let (name, value) = element?;
        match name {
            b"ns" | b"entryFormat" | b"dropDups" => {}
            b"v" if integer(value).is_some_and(|version| version < 1) => {}
            b"unique" | b"sparse" | b"background" | b"hidden" if boolean(value).is_none() => {
                out.element(name, if integer(value) == Some(0) { FALSE } else { TRUE });
            }
            _ => out.element(name, value),
        }
    }
    Ok(out.finish())
}

/// A document without some of its fields.
pub(super) fn without(document: &[u8], names: &[&str]) -> Result<Bytes> {
    let mut out = Composer::new();
    for element in raw::elements(document) {
        let (name, value) = element?;
        if !names.iter().any(|left_out| left_out.as_bytes() == name) {
            out.element(name, value);
        }
    }
    Ok(out.finish())
}

/// A document with one field changed in its place, added, or taken out.
fn with(document: &[u8], field: &str, new: Option<RawValue<'_>>) -> Result<Bytes> {
    let mut out = Composer::new();
    let mut left = new;
    for element in raw::elements(document) {
        let (name, value) = element?;
        if name != field.as_bytes() {
            out.element(name, value);
        } else if let Some(new) = left.take() {
            out.element(name, new);
        }
    }
    if let Some(new) = left {
        out.element(field.as_bytes(), new);
    }
    Ok(out.finish())
}
