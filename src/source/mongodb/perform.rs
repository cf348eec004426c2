//! Executes a plan: drops, creates, brings documents, applies the log, builds indexes, merges users. In this order, so that
//! documents go into collections without indexes, and nothing expires before everything is there.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, TryStreamExt, stream};
use mongodb::bson::{Bson, Document, RawDocumentBuf, doc};

use super::blueprint::{Blueprint, Shape};
use super::client::{Link, number};
use super::collections::{self, Listed};
use super::documents::{Cargo, Loaded, Loader};
use super::facts::Facts;
use super::indexes::Catalogue;
use super::namespace::{Namespace, is_own};
use super::optime::OpTime;
use super::plan::{self, Reach, Spec, Wanted};
use super::preflight::Estate;
use super::raw;
use super::replay::{Replay, Survey};
use super::restore::records;
use super::selection::Selection;
use super::steady::Away;
use super::users::People;
use crate::error::{Error, Kind, Result};
use crate::source::Restored;
use crate::task::Task;
use crate::vault::manifest::Omission;
use crate::vault::reader::BackupReader;

/// How many collections are dropped or created, and how many have their indexes built, at the same time.
const AT_ONCE: usize = 4;

/// What executing a plan needs.
#[derive(Debug)]
pub struct Performance<'a> {
    /// The backup.
    pub from: &'a BackupReader,
    /// Of which moment it is.
    pub facts: &'a Facts,
    /// What is wanted.
    pub spec: &'a Spec,
    /// What its collections were.
    pub blueprints: &'a [Blueprint],
    /// What the log does.
    pub log: &'a Survey,
    /// The target.
    pub link: &'a Link,
    /// What it said of itself.
    pub estate: &'a Estate,
    /// Whether it speaks of the buckets of a time series as `rawData`.
    pub raw_data: bool,
    /// On whose behalf.
    pub task: &'a Task,
}

/// What a comparison needs to know of a restore.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The indexes that each collection has now.
    pub indexes: BTreeMap<Namespace, Vec<Document>>,
    /// The last record of the log that was applied.
    pub last: Option<OpTime>,
}

impl Performance<'_> {
    /// Does it.
    pub async fn run(&self) -> Result<(Restored, Outcome)> {
        let selection = self.spec.selection()?;
        let wanted = plan::wanted(self.blueprints, &selection);
        let version = &self.estate.server.version;
        let loader = Loader::new(self.link, version, self.from, self.task, self.spec.workers);
        self.empty().await?;
        let mut omissions = self.never_brought(&selection);
        omissions.extend(self.create(&wanted).await?);
        let mut restored = self.documents(&wanted, &loader, &mut omissions).await?;
        let mut catalogue = catalogue(&wanted)?;
        let last = self.replay(&selection, &mut catalogue).await?;
        let (indexes, failed) = self.build(&catalogue).await?;
        omissions.extend(failed);
        if self.spec.users {
            self.task.step("users");
            omissions.extend(People::of(self.from).restore(self.link, &loader, self.task).await?);
        }
        if last.is_some() {
            restored.items = self.count(&wanted).await?;
        }
        restored.changed = self.log.tally.changed().len() as u64;
        restored.omissions = omissions;
        Ok((restored, Outcome { indexes, last }))
    }

    /// Drops what stands in the way; the plan says that it may.
    async fn empty(&self) -> Result<()> {
        if self.estate.in_the_way.is_empty() {
            return Ok(());
        }
        self.task.step("drop");
        let dropping: Vec<_> =
            self.estate.in_the_way.keys().map(|one| collections::drop(self.link, one, self.task)).collect();
        stream::iter(dropping).buffer_unordered(AT_ONCE).try_collect().await
    }

    /// What belongs to the deployment that it was in.
    fn never_brought(&self, selection: &Selection) -> Vec<Omission> {
        let names = self.blueprints.iter().map(|blueprint| &blueprint.namespace);
        let own = names.filter(|namespace| is_own(&namespace.db) && selection.target(namespace).is_some());
        own.map(|namespace| Omission {
            what: namespace.to_string(),
            why: "it belongs to the deployment that it was in, and would harm another".to_owned(),
        })
        .collect()
    }

    /// Collections first: views are made of them.
    async fn create(&self, wanted: &[Wanted<'_>]) -> Result<Vec<Omission>> {
        self.task.step("create");
        let (views, tables): (Vec<_>, Vec<_>) =
            wanted.iter().partition(|one| one.blueprint.shape == Shape::View);
        let creating: Vec<_> = tables.iter().map(|one| self.create_table(one)).collect();
        stream::iter(creating).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let mut omissions = Vec::new();
        for one in views {
            match collections::create(self.link, one.blueprint, &one.target, self.task).await {
                Err(error) if matches!(error.kind(), Kind::Cancelled | Kind::Timeout) => return Err(error),
                Err(error) => {
                    omissions
                        .push(Omission { what: format!("view {}", one.target), why: error.why().to_owned() });
                }
                Ok(()) => {}
            }
        }
        Ok(omissions)
    }

    /// What a restore that was killed had sent may have made one after it was dropped.
    async fn create_table(&self, one: &Wanted<'_>) -> Result<()> {
        match collections::create(self.link, one.blueprint, &one.target, self.task).await {
            Err(error) if error.kind() == Kind::Conflict && self.spec.drop => {
                collections::drop(self.link, &one.target, self.task).await?;
                collections::create(self.link, one.blueprint, &one.target, self.task).await
            }
            created => created,
        }
    }

    async fn documents(
        &self,
        wanted: &[Wanted<'_>],
        loader: &Loader<'_>,
        omissions: &mut Vec<Omission>,
    ) -> Result<Restored> {
        self.task.step("documents");
        self.task.progress.set_total(wanted.iter().map(|one| one.blueprint.bytes()).sum());
        let without_buckets = self.without_buckets(wanted).await?;
        let (mut cargo, mut restored) = (Vec::new(), Restored::default());
        for one in wanted {
            let Some(artifact) = one.blueprint.documents.clone().filter(|artifact| artifact.plain.bytes > 0)
            else {
                continue;
            };
            if without_buckets.contains(&one.target) {
                let why = "the target keeps time series in another way than in buckets, which the backup has";
                omissions
                    .push(Omission { what: format!("measurements of {}", one.target), why: why.to_owned() });
                continue;
            }
            let (into, raw) = one.blueprint.lies_in(&one.target, self.raw_data);
            let in_order = one.blueprint.shape == Shape::Capped;
            cargo.push(Cargo { artifact, into, in_order, raw });
        }
        for (into, Loaded { documents, bytes, refused }) in loader.load(&cargo).await? {
            restored.items += documents;
            restored.bytes += bytes;
            omissions.extend(
                refused.map(|(count, why)| Omission { what: format!("{count} documents of {into}"), why }),
            );
        }
        Ok(restored)
    }

    /// Time series that the target does not know as such: they were created as something else.
    async fn without_buckets(&self, wanted: &[Wanted<'_>]) -> Result<BTreeSet<Namespace>> {
        let mut without = BTreeSet::new();
        for one in wanted.iter().filter(|one| one.blueprint.shape == Shape::Buckets) {
            let listed = self.list(&one.target.db).await?;
            if listed.get(&one.target.collection).is_some_and(|listed| listed.kind != "timeseries") {
                without.insert(one.target.clone());
            }
        }
        Ok(without)
    }

    /// Applies the log up to the cut; tells its last record.
    async fn replay(&self, selection: &Selection, catalogue: &mut Catalogue) -> Result<Option<OpTime>> {
        let Some(cut) = self.spec.cut.filter(|_| self.log.last.is_some()) else { return Ok(None) };
        self.task.step("replay");
        self.task.progress.set_total(self.log.bytes);
        let selection = selection.clone().following(&self.log.followed);
        let span = self.facts.span(&selection, cut);
        let replay = Replay { link: self.link, task: self.task, span, apply_ops: true };
        let records = records(self.from, self.facts, cut, self.task).await?;
        let replayed = replay.run(records, catalogue).await?;
        Ok(replayed.log.last)
    }

    /// Builds all indexes, and lets documents expire from then on.
    async fn build(
        &self,
        catalogue: &Catalogue,
    ) -> Result<(BTreeMap<Namespace, Vec<Document>>, Vec<Omission>)> {
        self.task.step("indexes");
        let mut collated = BTreeMap::new();
        for (namespace, _) in catalogue.indexes() {
            if !collated.contains_key(&namespace.db) {
                let listed = self.list(&namespace.db).await?;
                let with = listed.into_iter().filter(|(_, listed)| listed.options.contains_key("collation"));
                collated.insert(namespace.db.clone(), with.map(|(name, _)| name).collect::<BTreeSet<_>>());
            }
        }
        let mut building = Vec::new();
        for (namespace, specs) in specs(catalogue)? {
            let collation =
                collated.get(&namespace.db).is_some_and(|with| with.contains(&namespace.collection));
            building.push(self.build_one(namespace, specs, collation));
        }
        let built: Vec<_> = stream::iter(building).buffer_unordered(AT_ONCE).try_collect().await?;
        let (mut indexes, mut omissions) = (BTreeMap::new(), Vec::new());
        for (namespace, mut specs, failed) in built {
            specs.retain(|spec| {
                let what = collections::index_name(spec, &namespace);
                failed.iter().all(|omission| omission.what != what)
            });
            indexes.insert(namespace, specs);
            omissions.extend(failed);
        }
        for (namespace, seconds) in catalogue.expiries() {
            let after = Bson::Int64(seconds);
            omissions.extend(collections::set_expiry(self.link, namespace, &after, self.task).await?);
        }
        Ok((indexes, omissions))
    }

    async fn build_one(
        &self,
        namespace: Namespace,
        specs: Vec<Document>,
        collation: bool,
    ) -> Result<(Namespace, Vec<Document>, Vec<Omission>)> {
        let failed = collections::build(self.link, &namespace, &specs, collation, self.task).await?;
        Ok((namespace, specs, failed))
    }

    /// What a database holds. Asked again where the line breaks: hours of work do not end for a question.
    async fn list(&self, db: &str) -> Result<BTreeMap<String, Listed>> {
        let mut away = Away::new(self.task);
        loop {
            let listed = collections::list(self.link, db, self.task).await;
            let is_passing = listed.as_ref().is_err_and(Error::is_retryable);
            if !is_passing || !away.wait().await? {
                return listed;
            }
        }
    }

    /// Documents that are there after the log was applied.
    async fn count(&self, wanted: &[Wanted<'_>]) -> Result<u64> {
        let reach = Reach::new(wanted, self.log);
        let mut items = 0;
        for db in reach.databases() {
            let listed = self.list(&db).await?;
            let tables = listed.into_iter().filter(|(_, listed)| listed.kind != "view");
            for (collection, _) in tables {
                if !reach.0.contains(&Namespace::new(&*db, &*collection)) {
                    continue;
                }
                let reply = self.link.attempt(&db, doc! { "count": collection }).await?;
                let count = reply.ok().and_then(|reply| reply.get("n").and_then(number));
                items += count.and_then(|count| u64::try_from(count).ok()).unwrap_or_default();
            }
        }
        Ok(items)
    }
}

/// The indexes and the expiry that the backup says, by the names in the target.
pub fn catalogue(wanted: &[Wanted<'_>]) -> Result<Catalogue> {
    let mut catalogue = Catalogue::default();
    for Wanted { blueprint, target } in wanted {
        if blueprint.shape == Shape::View {
            catalogue.add_view(&blueprint.namespace);
            continue;
        }
        let series = blueprint.options.get_document("timeseries");
        if let Ok(meta) = series.and_then(|series| series.get_str("metaField")) {
            catalogue.set_meta(target, meta);
        }
        for index in &blueprint.indexes {
            let spec = RawDocumentBuf::try_from(index)
                .map_err(|cause| Error::new(Kind::Damaged, format!("reading an index of {target}"), cause))?;
            catalogue.add(target, spec.as_bytes())?;
        }
        catalogue.set_expiry(target, blueprint.expiry().and_then(number));
    }
    Ok(catalogue)
}

/// The specifications that a catalogue holds.
pub fn specs(catalogue: &Catalogue) -> Result<BTreeMap<Namespace, Vec<Document>>> {
    let mut all = BTreeMap::new();
    for (namespace, specs) in catalogue.indexes() {
        let specs: Result<Vec<Document>> = specs.iter().map(|spec| document(spec)).collect();
        all.insert(namespace.clone(), specs?);
    }
    Ok(all)
}

fn document(spec: &[u8]) -> Result<Document> {
    Document::try_from(raw::document(spec)?)
        .map_err(|cause| Error::new(Kind::Damaged, "reading an index", cause))
}
