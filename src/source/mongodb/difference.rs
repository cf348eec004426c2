//! Tells documents that should be there from those that are: by their `_id`, a batch at a time, so that memory does not grow
//! with them.

use std::collections::HashMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::pin::pin;

use futures_util::TryStreamExt;
use mongodb::bson::{RawDocumentBuf, doc};
use mongodb::error::Result as DriverResult;

use super::client::Link;
use super::cursor;
use super::documents::batches;
use super::failure::{failed, is_passing};
use super::namespace::Namespace;
use super::raw::{self, RawValue};
use super::replay::compose::{Composer, TRUE, kind};
use super::replay::key::canonical;
use super::steady::Away;
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::Artifact;
use crate::vault::reader::BackupReader;

/// So many `_id` of each sort are named.
const NAMED: usize = 5;

/// Documents in a batch of what is read; the server cuts it at 16 MiB.
const BATCH: u32 = 1000;

/// Of a larger artifact nobody waits for it to be told which documents differ: it is read again for that, and so are they.
const TOLD_MAX: u64 = 1 << 30;

/// Bits that remember which `_id` a backup has: 8 MiB. Where they are crowded, fewer of those that it has not are named.
const BITS: usize = 1 << 26;

/// Documents of one sort: how many, and the first of their `_id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// How many.
    pub count: u64,
    ids: Vec<String>,
}

impl Named {
    fn add(&mut self, id: RawValue<'_>) {
        self.count += 1;
        if self.ids.len() < NAMED {
            self.ids.push(raw::shown(id));
        }
    }

    fn merge(&mut self, other: Named) {
        self.count += other.count;
        self.ids.extend(other.ids);
        self.ids.truncate(NAMED);
    }
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Named { count, ids } = self;
        match ids.len() as u64 {
            0 => write!(f, "{count}"),
            named if named < *count => write!(f, "{count} (_id {} and others)", ids.join(", ")),
            _ => write!(f, "{count} (_id {})", ids.join(", ")),
        }
    }
}

/// How a collection differs from the documents that it should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Under their `_id` is nothing.
    pub missing: Named,
    /// Under their `_id` is something else.
    pub other: Named,
    /// Nobody expects their `_id`.
    pub extra: Named,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sorts = [
            (&self.missing, "missing", "taken away since, or refused"),
            (&self.other, "different", "changed since"),
            (&self.extra, "extra", "added since"),
        ];
        let found = sorts.into_iter().filter(|(named, ..)| named.count > 0);
        let words: Vec<String> =
            found.map(|(named, sort, cause)| format!("{sort}: {named}, {cause}")).collect();
        match words.as_slice() {
            [] => f.write_str("none differs any more: somebody writes to the target"),
            words => write!(
                f,
                "{}; see that nobody else writes to the target, and restore again with drop=true",
                words.join("; ")
            ),
        }
    }
}

/// Where a collection's documents are.
#[derive(Clone, Copy, Debug)]
pub struct Table<'a> {
    /// At this server,
    pub link: &'a Link,
    /// in this collection.
    pub of: &'a Namespace,
    /// Whether the server must be told that they are wanted as they lie: buckets, from 8.3 on.
    pub raw: bool,
    /// On whose behalf.
    pub task: &'a Task,
}

impl Table<'_> {
    /// Whether it has these documents, as they are.
    ///
    /// # Errors
    /// The driver's, if the server is away for too long.
    pub async fn lacks(&self, expected: &[&[u8]]) -> Result<Difference> {
        let mut away = Away::new(self.task);
        loop {
            match self.task.guard(self.look(expected)).await? {
                Ok(difference) => return Ok(difference),
                Err(error) if is_passing(&error) && away.wait().await? => {}
                Err(error) => {
                    return Err(failed(format!("looking which documents {} has", self.of), error));
                }
            }
        }
    }

    async fn look(&self, expected: &[&[u8]]) -> Result<DriverResult<Difference>> {
        let mut left: HashMap<Vec<u8>, Vec<&[u8]>> = HashMap::new();
        for (id, document) in ids(expected) {
            left.entry(canonical(id?)).or_default().push(document);
        }
        let mut difference = Difference::default();
        let reading = self.each(self.find_these(expected)?, |id, document| {
            let wanted = left.remove(&canonical(id));
            if wanted.is_some_and(|wanted| !wanted.contains(&document)) {
                difference.other.add(id);
            }
        });
        if let Err(error) = reading.await? {
            return Ok(Err(error));
        }
        for (id, _) in ids(expected) {
            let id = id?;
            if left.remove(&canonical(id)).is_some() {
                difference.missing.add(id);
            }
        }
        Ok(Ok(difference))
    }

    /// All that it and an artifact differ in, as words; `found` is how many documents it holds.
    ///
    /// # Errors
    /// Those of reading either.
    pub async fn tell(&self, from: &BackupReader, artifact: &Artifact, found: u64) -> Result<String> {
        if found == 0 {
            return Ok("all are missing: restore again with drop=true".to_owned());
        }
        if artifact.plain.bytes > TOLD_MAX {
            return Ok("they are too many to tell which; restore again with drop=true".to_owned());
        }
        let (mut difference, mut known, mut expected) = (Difference::default(), Known::default(), 0);
        let mut batches = pin!(batches(from.open(artifact, self.task).await?, self.task));
        while let Some(batch) = batches.try_next().await? {
            let documents: Vec<&[u8]> = batch.documents.iter().map(|document| &**document).collect();
            ids(&documents).try_for_each(|(id, _)| id.map(|id| known.add(id)))?;
            expected += documents.len() as u64;
            let Difference { missing, other, .. } = self.lacks(&documents).await?;
            difference.missing.merge(missing);
            difference.other.merge(other);
        }
        let extra = (found + difference.missing.count).saturating_sub(expected);
        if extra > 0 {
            let mut find = doc! { "find": &self.of.collection, "projection": { "_id": 1 } };
            if self.raw {
                find.insert("rawData", true);
            }
            let all = RawDocumentBuf::try_from(&find);
            let all = all.map_err(|cause| Error::new(Kind::Internal, "asking for documents", cause))?;
            let reading = self.each(all, |id, _| {
                if !known.may_have(id) {
                    difference.extra.add(id);
                }
            });
            // Those that are not named are counted all the same.
            drop(self.task.guard(reading).await?);
            difference.extra.count = extra;
        }
        Ok(difference.to_string())
    }

    /// The command that reads these documents back.
    fn find_these(&self, documents: &[&[u8]]) -> Result<RawDocumentBuf> {
        let mut command = Composer::new();
        command.text(b"find", &self.of.collection);
        if self.raw {
            command.element(b"rawData", TRUE);
        }
        for (kind, name) in [(kind::DOCUMENT, "filter"), (kind::DOCUMENT, "_id"), (kind::ARRAY, "$in")] {
            command.open(kind, name.as_bytes());
        }
        for (n, (id, _)) in ids(documents).enumerate() {
            command.element(n.to_string().as_bytes(), id?);
        }
        (0..3).for_each(|_| command.close());
        RawDocumentBuf::from_bytes(command.finish().to_vec())
            .map_err(|cause| Error::new(Kind::Internal, "asking for documents", cause))
    }

    async fn each(
        &self,
        command: RawDocumentBuf,
        mut take: impl FnMut(RawValue<'_>, &[u8]),
    ) -> Result<DriverResult<()>> {
        cursor::each(self.link, &self.of.db, command, BATCH, cursor::primary(), |document| {
            if let Some(id) = raw::field(document, "_id")? {
                take(id, document);
            }
            Ok(())
        })
        .await
    }
}

/// Each document that has one, with its `_id`.
fn ids<'a>(documents: &[&'a [u8]]) -> impl Iterator<Item = (Result<RawValue<'a>>, &'a [u8])> {
    documents.iter().filter_map(|document| Some((raw::field(document, "_id").transpose()?, *document)))
}

/// Which `_id` may have come. One that is not known has not.
struct Known(Vec<u64>);

impl Default for Known {
    fn default() -> Self {
        Known(vec![0; BITS / 64])
    }
}

impl Known {
    fn place(id: RawValue<'_>) -> (usize, u64) {
        let mut hasher = DefaultHasher::new();
        canonical(id).hash(&mut hasher);
        let bit = hasher.finish() as usize % BITS;
        (bit / 64, 1 << (bit % 64))
    }

    fn add(&mut self, id: RawValue<'_>) {
        let (word, bit) = Known::place(id);
        self.0[word] |= bit;
    }

    fn may_have(&self, id: RawValue<'_>) -> bool {
        let (word, bit) = Known::place(id);
        self.0[word] & bit != 0
    }
}
