//! Compares what a target holds with what a backup says it should: documents by count and digest, collections and indexes by
//! how they are defined.
//!
//! What the log changed cannot be told from the backup: there the indexes are compared, as the log left them, and the number of
//! documents, where it tells that.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};
use mongodb::error::Result as DriverResult;

use super::blueprint::{Blueprint, Shape};
use super::client::{Link, number};
use super::collections::{self, Listed, buildable};
use super::cursor;
use super::difference::Table;
use super::digest::Tally;
use super::failure::{failed, is_passing};
use super::namespace::Namespace;
use super::plan::{Wanted, names};
use super::replay;
use super::steady::{self, Patience};
use crate::error::{Error, Kind, Result};
use crate::source::Check;
use crate::task::Task;
use crate::vault::manifest::{Contents, Counts};
use crate::vault::reader::BackupReader;

/// How many collections are read back at the same time.
const AT_ONCE: usize = 4;

/// Documents in a batch; the server cuts it at 16 MiB.
const BATCH: u32 = 1000;

/// More checks that passed than this are told in one line.
const LINES_MAX: usize = 50;

/// How long counting the documents of one may take.
const COUNT_LIMIT: Patience = Patience::Again(Duration::from_secs(600));

/// Of so many collections that are not as they were, it is told which documents differ.
const TOLD: usize = 10;

/// How often a collection is read from its beginning again, when the line breaks.
const ATTEMPTS: usize = 4;

/// What is compared.
#[derive(Debug)]
pub struct Comparison<'a> {
    /// The backup, read again where documents differ.
    pub from: &'a BackupReader,
    /// The target.
    pub link: &'a Link,
    /// What the backup says of its documents.
    pub contents: &'a Contents,
    /// Its collections.
    pub wanted: &'a [Wanted<'a>],
    /// What the log did.
    pub log: &'a replay::route::Tally,
    /// The indexes that each collection should have now.
    pub indexes: &'a BTreeMap<Namespace, Vec<Document>>,
    /// Whether the target speaks of the buckets of a time series as `rawData`.
    pub raw_data: bool,
    /// On whose behalf.
    pub task: &'a Task,
}

impl Comparison<'_> {
    /// Reads back, and compares.
    pub async fn run(&self) -> Result<Vec<Check>> {
        let untouched = self.wanted.iter().filter(|one| !self.is_touched(one));
        let counted = untouched.filter_map(|one| Some((one, self.counts(one.blueprint)?)));
        let reading: Vec<_> = counted.map(|(one, expected)| self.read_and_check(one, expected)).collect();
        let mut read: Vec<_> = stream::iter(reading).buffer_unordered(AT_ONCE).try_collect().await?;
        read.sort_by(|(a, _), (b, _): &(Check, Read<'_>)| a.name.cmp(&b.name));
        for (check, read) in read.iter_mut().filter(|(check, _)| !check.passed).take(TOLD) {
            check.found = format!("{}; {}", check.found, self.tell(read).await?);
        }
        let mut checks = collapsed(read.into_iter().map(|(check, _)| check).collect());
        let changed = self.log.changed();
        let there = There::list(self.link, self.wanted, &changed, self.task).await?;
        checks.extend(self.definitions(&there).await?);
        checks.extend(self.changed(&changed, &there).await?);
        Ok(checks)
    }

    fn is_touched(&self, one: &Wanted<'_>) -> bool {
        let touched = &self.log.touched;
        touched.contains(&one.target) || touched.contains(&one.target.buckets())
    }

    fn counts(&self, blueprint: &Blueprint) -> Option<&Counts> {
        let namespaces = &self.contents.namespaces;
        let of_buckets = || namespaces.get(&blueprint.namespace.buckets().to_string());
        namespaces.get(&blueprint.namespace.to_string()).or_else(of_buckets)
    }

    async fn read_and_check<'b>(&self, one: &'b Wanted<'b>, expected: &Counts) -> Result<(Check, Read<'b>)> {
        let found = self.read(one).await?;
        Ok((documents(one, expected, &found), Read { one, items: found.items }))
    }

    /// Which documents make a difference. That nobody can tell is no reason to keep the rest back.
    async fn tell(&self, read: &Read<'_>) -> Result<String> {
        let Read { one, items } = *read;
        let Some(artifact) = &one.blueprint.documents else { return Ok("the backup holds none".to_owned()) };
        let (of, raw) = one.blueprint.lies_in(&one.target, self.raw_data);
        let table = Table { link: self.link, of: &of, raw, task: self.task };
        match table.tell(self.from, artifact, items).await {
            Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Timeout) => Err(error),
            Err(error) => Ok(format!("which documents differ cannot be told: {error}")),
            told => told,
        }
    }

    async fn read(&self, one: &Wanted<'_>) -> Result<Tally> {
        let doing = format!("reading {} back", one.target);
        let (of, raw) = one.blueprint.lies_in(&one.target, self.raw_data);
        let mut command = doc! { "find": &of.collection, "hint": { "$natural": 1 } };
        if raw {
            command.insert("rawData", true);
        }
        let command =
            RawDocumentBuf::try_from(&command).map_err(|cause| Error::new(Kind::Internal, &*doing, cause))?;
        let mut attempt = 1;
        loop {
            match self.task.guard(tally(self.link, &of.db, command.clone())).await? {
                Ok(tally) => {
                    self.task.progress.add_bytes(tally.bytes);
                    return Ok(tally);
                }
                Err(error) if is_passing(&error) && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(failed(doing, error)),
            }
        }
    }

    /// The number of documents of what the log changed; and what could not be compared at all.
    async fn changed(&self, changed: &BTreeSet<Namespace>, there: &There) -> Result<Vec<Check>> {
        let (mut checks, mut counted, mut not) = (Vec::new(), 0, Vec::new());
        for of in changed {
            let found = there.find(of);
            let told = match self.expected(of) {
                Some(expected) => self.number(of, found, expected).await?.map(|found| (expected, found)),
                None => None,
            };
            let Some((expected, found)) = told else {
                not.push(of);
                continue;
            };
            counted += 1;
            if expected != found {
                let words = |n: i64| format!("{n} documents");
                let name = format!("{of} after the log");
                checks.push(Check { name, expected: words(expected), found: words(found), passed: false });
            }
        }
        if changed.is_empty() {
            return Ok(checks);
        }
        let told = match not.is_empty() {
            true => format!("{counted} counted"),
            false => format!("{counted} counted, {} not compared: {}", not.len(), names(not)),
        };
        let expected = format!("{} collections", changed.len());
        let passed = checks.is_empty();
        checks.push(Check {
            name: "number of documents after the log".to_owned(),
            expected,
            found: told,
            passed,
        });
        Ok(checks)
    }

    /// How many documents the log left there; none: it does not tell, or the server removes some by itself.
    fn expected(&self, of: &Namespace) -> Option<i64> {
        let growth = self.log.growth.of(of);
        let indexes = self.indexes.get(of).map(Vec::as_slice).unwrap_or_default();
        if !growth.is_certain || indexes.iter().any(|index| index.contains_key("expireAfterSeconds")) {
            return None;
        }
        let base = growth.base.and_then(|base| self.wanted.iter().find(|one| one.target == base));
        let items = match base {
            None => 0,
            Some(base) if base.blueprint.shape == Shape::Plain => self.counts(base.blueprint)?.items,
            Some(_) => return None,
        };
        Some(i64::try_from(items).ok()? + growth.by)
    }

    /// How many documents an ordinary collection holds; none if the server removes some by itself, or does not tell. Its counter
    /// may be wrong after a crash: where it is not as expected, they are counted in truth.
    async fn number(&self, of: &Namespace, found: Option<&Listed>, expected: i64) -> Result<Option<i64>> {
        let Some(found) = found else { return Ok(Some(0)) };
        let removes = ["capped", "expireAfterSeconds", "timeseries"];
        if found.kind != "collection" || removes.iter().any(|option| found.options.contains_key(option)) {
            return Ok(None);
        }
        let quick = doc! { "count": &of.collection };
        let slow = doc! { "count": &of.collection, "query": { "_id": { "$gte": Bson::MinKey } } };
        let mut told = None;
        for command in [quick, slow] {
            let doing = format!("counting {of}");
            let answer = steady::document(self.link, &of.db, &doing, COUNT_LIMIT, self.task, &command);
            told = answer.await?.expect_done(&doing)?.get("n").and_then(number);
            if told == Some(expected) {
                break;
            }
        }
        Ok(told)
    }

    /// Options of what the log left alone, and all indexes.
    async fn definitions(&self, there: &There) -> Result<Vec<Check>> {
        let mut checks = Vec::new();
        for one in self.wanted.iter().filter(|one| !self.is_touched(one)) {
            checks.extend(options(one, there.find(&one.target)));
        }
        let tables = self.wanted.iter().filter(|one| one.blueprint.shape != Shape::View);
        let tables: BTreeSet<&Namespace> = tables.map(|one| &one.target).chain(self.indexes.keys()).collect();
        let none = Vec::new();
        for of in tables {
            let found = collections::indexes(self.link, of, self.task).await?;
            checks.extend(index_checks(of, self.indexes.get(of).unwrap_or(&none), &found));
        }
        let indexes: usize = self.indexes.values().map(Vec::len).sum();
        let expected = format!("{} collections and views, {indexes} indexes", self.wanted.len());
        let found = match checks.len() {
            0 => expected.clone(),
            differing => format!("{differing} of them differ"),
        };
        let passed = checks.is_empty();
        checks.push(Check { name: "definitions".to_owned(), expected, found, passed });
        Ok(checks)
    }
}

/// A collection that was read back.
struct Read<'a> {
    one: &'a Wanted<'a>,
    items: u64,
}

/// What the databases of the target hold.
struct There(BTreeMap<String, BTreeMap<String, Listed>>);

impl There {
    /// Of all databases that hold something of these.
    async fn list(
        link: &Link,
        wanted: &[Wanted<'_>],
        changed: &BTreeSet<Namespace>,
        task: &Task,
    ) -> Result<There> {
        let mut there = BTreeMap::new();
        for of in wanted.iter().map(|one| &one.target).chain(changed) {
            if !there.contains_key(&of.db) {
                there.insert(of.db.clone(), collections::list(link, &of.db, task).await?);
            }
        }
        Ok(There(there))
    }

    fn find(&self, of: &Namespace) -> Option<&Listed> {
        self.0.get(&of.db)?.get(&of.collection)
    }
}

/// The outer error is ours.
async fn tally(link: &Link, db: &str, command: RawDocumentBuf) -> Result<DriverResult<Tally>> {
    let mut tally = Tally::default();
    let read = cursor::each(link, db, command, BATCH, cursor::primary(), |document| {
        tally.add(document);
        Ok(())
    });
    Ok(read.await?.map(|()| tally))
}

/// Fewer are fine where the server removes what has expired.
fn documents(one: &Wanted<'_>, expected: &Counts, found: &Tally) -> Check {
    let words =
        |items: u64, digest: &str| format!("{items} documents, {}", digest.get(..16).unwrap_or("no digest"));
    let digest = found.digest();
    let wanted = expected.digest.as_deref();
    let is_equal = found.items == expected.items && wanted.is_none_or(|wanted| wanted == digest);
    let missing = expected.items.checked_sub(found.items).filter(|missing| *missing > 0);
    let told = words(found.items, wanted.map_or("", |_| &*digest));
    let (passed, found) = match missing {
        Some(missing) if one.blueprint.expires() => {
            (true, format!("{told}: {missing} have expired, the others were not compared"))
        }
        _ => (is_equal, told),
    };
    let expected = words(expected.items, wanted.unwrap_or_default());
    Check { name: one.target.to_string(), expected, found, passed }
}

/// All that failed, and those that passed, in one line where they are many.
fn collapsed(checks: Vec<Check>) -> Vec<Check> {
    if checks.len() <= LINES_MAX {
        return checks;
    }
    let (passed, mut checks): (Vec<_>, Vec<_>) = checks.into_iter().partition(|check| check.passed);
    let count = format!("{} collections equal by count and digest", passed.len());
    checks.push(Check { name: "documents".to_owned(), expected: count.clone(), found: count, passed: true });
    checks
}

/// That it is there, and was created alike.
fn options(one: &Wanted<'_>, found: Option<&Listed>) -> Option<Check> {
    let name = format!("definition of {}", one.target);
    let expected = normal(&one.blueprint.options, &["uuid", "autoIndexId", "recordIdsReplicated"]);
    let Some(found) = found else {
        return Some(Check { name, expected, found: "there is none".to_owned(), passed: false });
    };
    let found = normal(&found.options, &["uuid", "autoIndexId", "recordIdsReplicated"]);
    (expected != found).then_some(Check { name, expected, found, passed: false })
}

/// One check for each index that is missing, other than it was, or too much.
fn index_checks(of: &Namespace, expected: &[Document], found: &[Document]) -> Vec<Check> {
    let by_name = |specs: &[Document]| -> BTreeMap<String, String> {
        let buildable = specs.iter().filter_map(|spec| buildable(spec, false));
        buildable
            .map(|spec| {
                let name = spec.get_str("name").unwrap_or_default().to_owned();
                (name, normal(&spec, &["v", "ns", "background"]))
            })
            .collect()
    };
    let (expected, found) = (by_name(expected), by_name(found));
    let names: BTreeSet<&String> = expected.keys().chain(found.keys()).collect();
    let differing = names.into_iter().filter(|name| expected.get(*name) != found.get(*name));
    differing
        .map(|name| {
            let words = |of: &BTreeMap<String, String>| of.get(name).cloned().unwrap_or("none".to_owned());
            let (expected, found) = (words(&expected), words(&found));
            Check { name: format!("index {name} on {of}"), expected, found, passed: false }
        })
        .collect()
}

/// A definition as text: its fields by their names, because servers order them as they like; what is inside them in order,
/// because that means something. A collation's version is the server's own, and the simple one is none.
fn normal(definition: &Document, without: &[&str]) -> String {
    let mut fields: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in definition.iter().filter(|(name, _)| !without.contains(&name.as_str())) {
        let mut value = value.clone();
        if let (Bson::Document(collation), "collation") = (&mut value, name.as_str()) {
            collation.remove("version");
            if collation.get_str("locale").is_ok_and(|text| text == "simple") {
                continue;
            }
        }
        fields.insert(name, words(&value));
    }
    let fields: Vec<String> = fields.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

/// Numbers by their value: servers change the types of those in definitions.
fn words(value: &Bson) -> String {
    match value {
        Bson::Document(document) => {
            let fields: Vec<String> =
                document.iter().map(|(name, value)| format!("{name}: {}", words(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Bson::Array(values) => {
            let values: Vec<String> = values.iter().map(words).collect();
            format!("[{}]", values.join(", "))
        }
        Bson::Double(double) if double.fract() != 0.0 => value.to_string(),
        value => number(value).map_or_else(|| value.to_string(), |number| number.to_string()),
    }
}
