//! Decides what each entry of the log means for the target: left out, renamed, an edit of the indexes, a write or a command. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::super::indexes::{self, Catalogue};
use super::super::namespace::{BUCKETS, Namespace, is_own};
use super::super::oplog::entry::{Entry, Op, integer, text};
use super::super::oplog::transactions::Unit;
use super::super::optime::OpTime;
use super::super::raw::{self, RawValue};
use super::super::selection::{Clash, Selection};
use super::compose::Composer;
use super::growth::Growths;
use super::update::{self, Form};
use crate::error::{Error, Kind, Result};

/// A collection of the server's own in which a mongod keeps the views of a database.
const VIEWS: &str = "system.views";

/// One thing to do to the target.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// To one document; those of different documents may be done in any order.
    Write(Write),
    /// To collections: all before it is done before, all after it after.
    Command(Command),
}

/// A change of one document.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    /// Where it stands in the log.
    pub at: OpTime,
    /// The collection in the target.
    pub ns: Arc<Namespace>,
    /// The document's `_id`.
    pub id: Id,
    /// What becomes of it.
    pub change: Change,
}

/// The value of an `_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Id {
    /// Its type.
    pub kind: u8,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Id {
    /// As an element's value.
    pub fn value(&self) -> RawValue<'_> {
        RawValue { kind: self.kind, bytes: &self.bytes }
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&raw::shown(self.value()))
    }
}

/// What becomes of a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// It is inserted.
    Insert(Bytes),
    /// It is replaced.
    Replace(Bytes),
    /// It is changed as the `o` of an update says.
    Patch(Bytes),
    /// It is deleted.
    Remove,
}

impl Change {
    /// Whether there is a document afterwards, even if there was none.
    pub fn makes_documents(&self) -> bool {
        matches!(self, Change::Insert(_) | Change::Replace(_))
    }

    fn size(&self) -> usize {
        match self {
            Change::Insert(bytes) | Change::Replace(bytes) | Change::Patch(bytes) => bytes.len(),
            Change::Remove => 0,
        }
    }
}

impl Write {
    /// About how many bytes it takes.
    pub fn size(&self) -> usize {
        128 + self.id.bytes.len() + self.change.size()
    }
}

/// A change of a collection.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// Where it stands in the log.
    pub at: OpTime,
    /// What it does.
    pub act: Act,
}

/// What a command does. Documents are whole commands for the collection's database.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Makes a collection or a view; one of that name that is there goes first.
    Create(Namespace, Bytes),
    /// Drops a collection or a view.
    Drop(Namespace),
    /// Gives a collection another name, in place of one that has it.
    Rename(Namespace, Namespace),
    /// Changes a collection's options.
    Modify(Namespace, Bytes),
}

/// What was counted on the way.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tally {
    /// Writes of documents.
    pub ops: u64,
    /// Commands, those on indexes included.
    pub commands: u64,
    /// Transactions of more than one operation.
    pub transactions: u64,
    /// Transactions of which the selection takes a part only.
    pub split: Split,
    /// Changes of users and roles, which the log cannot bring back.
    pub users: u64,
    /// Collections of the target that something was done to.
    pub touched: BTreeSet<Namespace>,
    /// How many documents those have now.
    pub growth: Growths,
}

impl Tally {
    /// Collections of the target that something was done to: a time series by its own name.
    pub fn changed(&self) -> BTreeSet<Namespace> {
        self.touched.iter().map(Namespace::series).collect()
    }
}

/// Transactions that are applied in part, because the rest is not selected.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// How many.
    pub transactions: u64,
    /// How many of their operations were left out.
    pub left_out: u64,
    /// Where the first of them was committed.
    pub first: Option<OpTime>,
}

/// Routes one log.
#[derive(Debug)]
pub struct Router<'a> {
    selection: &'a Selection,
    catalogue: &'a mut Catalogue,
    /// Up to here the data may be newer than the log.
    fuzzy_until: OpTime,
    targets: HashMap<String, Option<Arc<Namespace>>>,
    sources: HashMap<Arc<Namespace>, Namespace>,
    /// Of the unit under way: how many operations are meant, and how many are not.
    taken: u64,
    left_out: u64,
    /// Collections of the source that the log has made: all that they hold is in it, whatever the data says.
    made: HashSet<Namespace>,
    /// The counts so far.
    pub tally: Tally,
    /// See [`Survey::followed`](super::Survey::followed).
    pub followed: BTreeMap<Namespace, Namespace>,
}

/// What an operation turned out to be.
enum Taken {
    /// Something that another server has no use for.
    Nothing,
    /// Not selected.
    LeftOut,
    Steps(Vec<Step>),
}

impl<'a> Router<'a> {
    /// For one log; the catalogue is of the target's names.
    pub fn new(selection: &'a Selection, catalogue: &'a mut Catalogue, fuzzy_until: OpTime) -> Self {
        Router {
            selection,
            catalogue,
            fuzzy_until,
            targets: HashMap::new(),
            sources: HashMap::new(),
            taken: 0,
            left_out: 0,
            made: HashSet::new(),
            tally: Tally::default(),
            followed: BTreeMap::new(),
        }
    }

    /// The steps of the next unit, or of the next part of one.
    ///
    /// # Errors
    /// `Unsupported` for an operation that cannot be replayed, naming it; `Refused` where the selection cannot be had.
    pub fn route(&mut self, unit: &Unit) -> Result<Vec<Step>> {
        let mut steps = Vec::with_capacity(unit.ops.len());
        for entry in &unit.ops {
            match self
                .entry(entry, unit.at)
                .map_err(|error| error.while_doing(format!("replaying {}", unit.at)))?
            {
                Taken::Nothing => {}
                Taken::LeftOut => self.left_out += 1,
                Taken::Steps(more) => {
                    self.taken += 1;
                    steps.extend(more);
                }
            }
        }
        if unit.ends {
            self.count(unit);
        }
        Ok(steps)
    }

    fn count(&mut self, unit: &Unit) {
        let (taken, left_out) = (std::mem::take(&mut self.taken), std::mem::take(&mut self.left_out));
        if unit.is_transaction && taken > 0 {
            self.tally.transactions += 1;
            if left_out > 0 {
                self.tally.split.transactions += 1;
                self.tally.split.left_out += left_out;
                self.tally.split.first.get_or_insert(unit.at);
            }
        }
    }

    fn entry(&mut self, entry: &Entry, at: OpTime) -> Result<Taken> {
        match entry.op {
            Op::Noop | Op::Internal => return Ok(Taken::Nothing),
            Op::Command => return self.command(entry, at),
            Op::Insert | Op::Update | Op::Delete => {}
        }
        let Some(source) = Namespace::parse(&entry.ns) else { return Err(damaged("it names no collection")) };
        if source.db == "admin" && matches!(&*source.collection, "system.users" | "system.roles") {
            self.tally.users += 1;
            return Ok(Taken::Nothing);
        }
        if source.collection == VIEWS && !is_own(&source.db) {
            return self.view(entry, &source.db, at);
        }
        if is_system(&source) {
            return Ok(Taken::Nothing);
        }
        let Some(ns) = self.target(&entry.ns, &source)? else { return Ok(Taken::LeftOut) };
        self.tally.ops += 1;
        let change = match entry.op {
            Op::Insert => Change::Insert(entry.o.clone()),
            Op::Delete => Change::Remove,
            _ if update::form(&entry.o)? == Form::Whole => Change::Replace(entry.o.clone()),
            _ => Change::Patch(entry.o.clone()),
        };
        let named = entry.o2.as_ref().filter(|_| entry.op == Op::Update).unwrap_or(&entry.o);
        let id = raw::field(named, "_id")?.ok_or_else(|| damaged("its document has no _id"))?;
        let id = Id { kind: id.kind, bytes: named.slice_ref(id.bytes) };
        let write = Write { at, ns, id, change };
        self.tally.growth.write(&write, self.fuzzy_until);
        Ok(Taken::Steps(vec![Step::Write(write)]))
    }

    /// A mongod writes views down as documents of `system.views`.
    fn view(&mut self, entry: &Entry, db: &str, at: OpTime) -> Result<Taken> {
        let named = entry.o2.as_ref().filter(|_| entry.op == Op::Update).unwrap_or(&entry.o);
        let id = raw::field(named, "_id")?.and_then(text).unwrap_or_default();
        let view = id.strip_prefix(db).and_then(|rest| rest.strip_prefix('.'));
        let view = Namespace::new(db, view.ok_or_else(|| damaged("the view it changes has no name"))?);
        let on = raw::field(&entry.o, "viewOn")?.and_then(text);
        // The view of a time series comes and goes with it.
        if on.is_some_and(|on| on.starts_with(BUCKETS)) {
            return Ok(Taken::Nothing);
        }
        let Some(target) = self.target(&view.to_string(), &view)? else { return Ok(Taken::LeftOut) };
        let act = match (entry.op, update::form(&entry.o)?) {
            (Op::Delete, _) => {
                self.catalogue.remove_view(&view);
                Act::Drop((*target).clone())
            }
            (Op::Insert, _) => {
                self.catalogue.add_view(&view);
                Act::Create((*target).clone(), self.create(&view, &target, &entry.o)?)
            }
            (_, Form::Whole) => {
                let mut out = Composer::new();
                out.text(b"collMod", &target.collection);
                self.view_options(&mut out, &view, &entry.o)?;
                Act::Modify((*target).clone(), out.finish())
            }
            _ => return Err(unsupported("it changes a part of a view's definition")),
        };
        Ok(self.act(at, act))
    }

    fn command(&mut self, entry: &Entry, at: OpTime) -> Result<Taken> {
        let (name, value) = entry.command()?;
        match name {
            "startIndexBuild" | "abortIndexBuild" | "setMultikeyMetadata" | "dropIdent" | "dbCheck" => {
                return Ok(Taken::Nothing);
            }
            // The log has the drop of each of its collections before this.
            "dropDatabase" => return Ok(Taken::Nothing),
            "renameCollection" => return self.rename(entry, at),
            _ => {}
        }
        let source = text(value).map(|collection| Namespace::new(entry.db(), collection));
        let known = matches!(name, "create" | "drop" | "collMod" | "convertToCapped");
        let source = match source {
            Some(source) if known || indexes::COMMANDS.contains(&name) => source,
            _ if is_own(entry.db()) => return Ok(Taken::Nothing),
            _ => return Err(unsupported(&format!("this build does not know its command {name}"))),
        };
        if source.collection == VIEWS && name == "drop" && !is_own(&source.db) {
            return self.drop_views(&source.db, at);
        }
        if is_system(&source) || source.collection == VIEWS {
            return Ok(Taken::Nothing);
        }
        if name == "create" {
            self.made.insert(source.clone());
        }
        let target = self.target(&source.to_string(), &source)?;
        if name == "drop" {
            self.made.remove(&source);
        }
        match target {
            Some(target) => self.change(name, entry, &source, &target, at),
            None => Ok(Taken::LeftOut),
        }
    }

    /// Every collection of the source that the log said something of, wanted or not: a time series by its own name.
    pub fn names(&self) -> BTreeSet<Namespace> {
        let names = self.targets.keys().filter_map(|full| Namespace::parse(full));
        names.map(|name| name.series()).collect()
    }

    /// A command that changes one collection.
    fn change(
        &mut self,
        name: &str,
        entry: &Entry,
        source: &Namespace,
        target: &Namespace,
        at: OpTime,
    ) -> Result<Taken> {
        // A time series is created and dropped by its own name, which takes its buckets along.
        let owner = target.series();
        if indexes::COMMANDS.contains(&name) {
            self.tally.commands += 1;
            self.tally.touched.insert(owner);
            self.catalogue.edit(target, entry.is_of_series(), name, &entry.o)?;
            return Ok(Taken::Steps(Vec::new()));
        }
        let act = match name {
            "create" => {
                self.catalogue.drop_collection(&owner);
                self.describe(source, &owner, &entry.o)?;
                let create = self.create(source, &owner, &entry.o)?;
                Act::Create(owner, create)
            }
            "drop" => {
                self.catalogue.drop_collection(&owner);
                self.catalogue.remove_view(source);
                Act::Drop(owner)
            }
            "convertToCapped" => {
                let convert = renamed(&entry.o, name, &owner.collection, &[])?;
                Act::Modify(owner, convert)
            }
            _ => {
                self.catalogue.edit(target, entry.is_of_series(), name, &entry.o)?;
                self.expiry(&owner, &entry.o)?;
                let options = renamed(&entry.o, name, &owner.collection, &["index", "expireAfterSeconds"])?;
                if raw::elements(&options).count() == 1 {
                    self.tally.commands += 1;
                    return Ok(Taken::Steps(Vec::new()));
                }
                Act::Modify(owner, options)
            }
        };
        Ok(self.act(at, act))
    }

    fn rename(&mut self, entry: &Entry, at: OpTime) -> Result<Taken> {
        let side = |name: &str| {
            let full = raw::field(&entry.o, name)?.and_then(text).and_then(Namespace::parse);
            full.ok_or_else(|| damaged("its names cannot be read"))
        };
        let (from, to) = (side("renameCollection")?, side("to")?);
        if is_system(&from) && is_system(&to) {
            return Ok(Taken::Nothing);
        }
        let source = self.target(&from.to_string(), &from)?;
        let is_whole = self.made.remove(&from);
        match is_whole {
            true => self.made.insert(to.clone()),
            false => self.made.remove(&to),
        };
        let act = match (source, self.target(&to.to_string(), &to)?) {
            (None, None) => return Ok(Taken::LeftOut),
            (None, Some(target)) if is_whole => {
                let meanwhile = Namespace::new(&*target.db, &*from.collection);
                self.followed.insert(from, meanwhile);
                return Ok(Taken::LeftOut);
            }
            (None, Some(_)) => {
                let why = format!("{from} became {to}, which is wanted, but what it held before is not");
                return Err(Error::new(Kind::Refused, "selecting what is restored", why)
                    .hint(format!("add --include {from}, or restore without --include")));
            }
            (Some(source), None) => {
                self.catalogue.drop_collection(&source);
                Act::Drop((*source).clone())
            }
            // Nobody knows under which of the names the data was read, unless none of it is needed: what is read of a collection
            // that the log makes goes when it is made, and what is read of the other one when this one takes its place.
            (Some(_), Some(_)) if at <= self.fuzzy_until && !is_whole => {
                let why = format!("{from} was renamed to {to} while the backup was read");
                return Err(Error::new(Kind::Unsupported, "bringing the backup to one moment", why)
                    .hint("restore from another backup"));
            }
            (Some(source), Some(target)) => {
                self.catalogue.rename(&source, &target);
                Act::Rename((*source).clone(), (*target).clone())
            }
        };
        Ok(self.act(at, act))
    }

    /// A mongod drops a database's views by dropping the collection that holds them.
    fn drop_views(&mut self, db: &str, at: OpTime) -> Result<Taken> {
        let mut steps = Vec::new();
        for view in self.catalogue.take_views(db) {
            if let Some(target) = self.target(&view.to_string(), &view)? {
                steps.push(self.step(at, Act::Drop((*target).clone())));
            }
        }
        Ok(if steps.is_empty() { Taken::Nothing } else { Taken::Steps(steps) })
    }

    fn act(&mut self, at: OpTime, act: Act) -> Taken {
        Taken::Steps(vec![self.step(at, act)])
    }

    fn step(&mut self, at: OpTime, act: Act) -> Step {
        self.tally.growth.command(&act);
        self.tally.commands += 1;
        match &act {
            Act::Create(ns, _) | Act::Drop(ns) | Act::Modify(ns, _) => {
                self.tally.touched.insert(ns.clone());
            }
            Act::Rename(from, to) => self.tally.touched.extend([from.clone(), to.clone()]),
        }
        Step::Command(Command { at, act })
    }

    /// The collection in the target. Two that would become one are found here, if the plan did not know both.
    fn target(&mut self, full: &str, source: &Namespace) -> Result<Option<Arc<Namespace>>> {
        if self.selection.is_followed(source) && !self.made.contains(source) {
            return Ok(None);
        }
        if let Some(known) = self.targets.get(full) {
            return Ok(known.clone());
        }
        let target = self.selection.target(source).map(Arc::new);
        if let Some(target) = &target {
            let first = self.sources.entry(target.clone()).or_insert_with(|| source.clone());
            if first != source {
                let clash = Clash { sources: [first.clone(), source.clone()], target: (**target).clone() };
                return Err(Error::new(Kind::Refused, "selecting what is restored", clash)
                    .hint("give one of them another name by --rename, or leave it out"));
            }
            self.tally.touched.insert((**target).clone());
        }
        self.targets.insert(full.to_owned(), target.clone());
        Ok(target)
    }

    /// What the catalogue must know of a collection that is made.
    fn describe(&mut self, source: &Namespace, owner: &Namespace, o: &[u8]) -> Result<()> {
        if raw::field(o, "viewOn")?.is_some() {
            self.catalogue.add_view(source);
        }
        if let Some(series) = raw::field(o, "timeseries")?
            && let Some(meta) = raw::field(series.bytes, "metaField")?.and_then(text)
        {
            self.catalogue.set_meta(owner, meta);
        }
        self.expiry(owner, o)
    }

    /// Documents must not expire while later entries still change them.
    fn expiry(&mut self, ns: &Namespace, o: &[u8]) -> Result<()> {
        if let Some(value) = raw::field(o, "expireAfterSeconds")? {
            self.catalogue.set_expiry(ns, integer(value));
        }
        Ok(())
    }

    /// The `create` command for what an entry says was created, or for a view's document.
    fn create(&mut self, source: &Namespace, target: &Namespace, o: &[u8]) -> Result<Bytes> {
        let mut out = Composer::new();
        out.text(b"create", &target.collection);
        if raw::field(o, "viewOn")?.is_some() {
            self.view_options(&mut out, source, o)?;
            return Ok(out.finish());
        }
        let buckets = source.collection.starts_with(BUCKETS);
        for element in raw::elements(o) {
            let (name, value) = element?;
            match name {
                b"create" | b"idIndex" | b"autoIndexId" | b"temp" | b"uuid" | b"recordIdsReplicated" => {}
                b"expireAfterSeconds" => {}
                // A time series makes these for its buckets by itself.
                b"validator" | b"validationLevel" | b"validationAction" | b"clusteredIndex" if buckets => {}
                _ => out.element(name, value),
            }
        }
        Ok(out.finish())
    }

    fn view_options(&mut self, out: &mut Composer, view: &Namespace, o: &[u8]) -> Result<()> {
        for element in raw::elements(o) {
            let (name, value) = element?;
            match (name, text(value)) {
                (b"viewOn", Some(on)) => {
                    let on = Namespace::new(&*view.db, on);
                    let target = self.selection.target(&on).unwrap_or(on);
                    out.text(b"viewOn", &target.collection);
                }
                (b"pipeline" | b"viewPipeline", _) => out.element(b"pipeline", value),
                (b"collation", _) => out.element(name, value),
                _ => {}
            }
        }
        Ok(())
    }
}

/// A command for the collection of another name, without some of its fields.
fn renamed(o: &[u8], command: &str, collection: &str, left_out: &[&str]) -> Result<Bytes> {
    let mut out = Composer::new();
    out.text(command.as_bytes(), collection);
    for element in raw::elements(o).skip(1) {
        let (name, value) = element?;
        if !left_out.iter().any(|left_out| left_out.as_bytes() == name) {
            out.element(name, value);
        }
    }
    Ok(out.finish())
}

/// Collections of a server's own.
fn is_system(ns: &Namespace) -> bool {
    let kept = ns.collection == "system.js" || ns.collection.starts_with(BUCKETS);
    is_own(&ns.db) || (ns.collection.starts_with("system.") && !kept)
}

fn damaged(why: &str) -> Error {
    Error::new(Kind::Damaged, "reading an entry of the log", why)
}

fn unsupported(why: &str) -> Error {
    Error::new(Kind::Unsupported, "replaying the log", why)
        .hint("restore to a moment before it, or look for a tidekeeper that knows this server's version")
}
