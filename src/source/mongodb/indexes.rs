//! The indexes that stand at the end: from the backup's metadata, edited by the log, built when all documents are in.

use std::collections::{BTreeMap, BTreeSet};

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
    /// Of time series, the field that tells who measured.
    meta: BTreeMap<Namespace, String>,
    /// Which views there are, by their names in the source.
    views: BTreeSet<Namespace>,
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
        let spec = modern(spec)?;
        let name = name_of(&spec)?;
        let indexes = self.indexes.entry(ns.clone()).or_default();
        match place(indexes, |other| name_of(other).is_ok_and(|other| other == name)) {
            Some(at) => indexes[at] = spec,
            None => indexes.push(spec),
        }
        Ok(())
    }

    /// Does what one of [`COMMANDS`] says, or the `index` part of a `collMod`. What it names may be missing: then the log is behind
    /// the data. Of a time series (`is_series`: one that has no other name for its buckets) the log says what its buckets have;
    /// its indexes are known by its own name, and in its own words.
    ///
    /// # Errors
    /// `Damaged` for what cannot be read.
    pub fn edit(&mut self, ns: &Namespace, is_series: bool, command: &str, o: &[u8]) -> Result<()> {
        let owner = ns.series();
        let told = |catalogue: &Catalogue, spec: &[u8]| match is_series || ns != &owner {
            true => catalogue.told(&owner, spec),
            false => Ok(Bytes::copy_from_slice(spec)),
        };
        match command {
            "createIndexes" | "commitIndexBuild" => match raw::field(o, "indexes")? {
                Some(specs) => raw::elements(specs.bytes)
                    .try_for_each(|spec| self.add(&owner, &told(self, spec?.1.bytes)?)),
                None => self.add(&owner, &told(self, &without(o, &[command])?)?),
            },
            "collMod" => match raw::field(o, "index")? {
                Some(change) => self.modify(&owner, change.bytes),
                None => Ok(()),
            },
            _ => self.remove(&owner, o),
        }
    }

    /// An index of buckets in the words of their time series.
    fn told(&self, series: &Namespace, spec: &[u8]) -> Result<Bytes> {
        // Where what the buckets have would not tell, the server has written down what was asked for.
        if let Some(original) = raw::field(spec, "originalSpec")? {
            return Ok(Bytes::copy_from_slice(original.bytes));
        }
        let Some(key) = raw::field(spec, "key")? else { return Ok(Bytes::copy_from_slice(spec)) };
        let key = key_of_series(key.bytes, self.meta.get(series))?;
        with(spec, "key", Some(RawValue { kind: kind::DOCUMENT, bytes: &key }))
    }

    /// The field of a time series that tells who measured.
    pub fn set_meta(&mut self, ns: &Namespace, field: &str) {
        self.meta.insert(ns.clone(), field.to_owned());
    }

    /// There is such a view; its name is the source's.
    pub fn add_view(&mut self, source: &Namespace) {
        self.views.insert(source.clone());
    }

    /// There is no such view any more.
    pub fn remove_view(&mut self, source: &Namespace) {
        self.views.remove(source);
    }

    /// Takes away all views of a database of the source, and tells which they were.
    pub fn take_views(&mut self, db: &str) -> BTreeSet<Namespace> {
        self.views.extract_if(.., |view| view.db == db).collect()
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
        self.meta.remove(ns);
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

/// The key of a time series that a key of its buckets comes from: these have the lowest and the highest value of a field, and
/// the field that tells who measured has another name in them.
fn key_of_series(key: &[u8], meta: Option<&String>) -> Result<Bytes> {
    let mut out = Composer::new();
    let mut bounded: Option<&[u8]> = None;
    for element in raw::elements(key) {
        let (name, value) = element?;
        let bound = name.strip_prefix(b"control.min.").or_else(|| name.strip_prefix(b"control.max."));
        match (bound, name.strip_prefix(b"meta"), meta) {
            (Some(field), ..) if bounded == Some(field) => {}
            (Some(field), ..) => out.element(field, value),
            (None, Some(rest), Some(meta)) if rest.is_empty() || rest[0] == b'.' => {
                out.element(&[meta.as_bytes(), rest].concat(), value);
            }
            _ => out.element(name, value),
        }
        bounded = bound;
    }
    Ok(out.finish())
}

/// Whether it comes with its collection.
fn is_own(spec: &[u8]) -> Result<bool> {
    let clustered = raw::field(spec, "clustered")?.and_then(boolean) == Some(true);
    Ok(clustered || raw::field(spec, "name")?.and_then(text) == Some("_id_"))
}

/// As servers of today take it: without what only servers write, and without a version that none builds any more. Old
/// servers wrote truth values as numbers, which newer ones refuse.
fn modern(spec: &[u8]) -> Result<Bytes> {
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
