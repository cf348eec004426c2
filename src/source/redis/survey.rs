//! The whole walk of a backup before a restore: every byte is hashed and parsed before the target hears a word.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

use super::backup::counted;
use super::rdb::{Entry, Summary, Visitor, Walker};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::{Artifact, Contents, Manifest};
use crate::vault::reader::BackupReader;

/// How many long values are remembered. With more of them the floor rises, so neither this list nor a buffered value
/// grows with anything but the 65,536th part of the data.
const LONG_VALUES_MAX: usize = 1 << 16;

/// Values up to this length are buffered by the RESTORE way, which has to tell the length first.
const LONG_VALUE: u64 = 64 << 10;

/// What a walk of all RDBs of a backup has found.
#[derive(Clone, Debug, Default)]
pub struct Survey {
    /// One for each RDB: one in all, or one for each shard.
    pub shards: Vec<Shard>,
}

/// One RDB.
#[derive(Clone, Debug)]
pub struct Shard {
    /// Where it lies.
    pub artifact: Artifact,
    /// What is in it.
    pub summary: Summary,
    /// How many values are written in each way, by type byte.
    pub type_codes: [u64; 256],
    /// Which values are long.
    pub long_values: LongValues,
    /// When keys with a time to live end, by database.
    pub endings: BTreeMap<u32, Endings>,
}

/// When keys end, as seen at one moment: how many by then, and how many in each doubling of the milliseconds after it.
/// So it stays small whatever the data is, and what it tells of a later moment is right to a factor of two in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endings {
    seen_at_ms: i64,
    by_time_left: [u64; 64],
}

impl Endings {
    /// None yet, as seen at `now`.
    pub fn seen_at(now: Timestamp) -> Self {
        Endings { seen_at_ms: now.as_millisecond(), by_time_left: [0; 64] }
    }

    /// Counts a key that ends then, in milliseconds since the Unix epoch.
    pub fn note(&mut self, expire_at_ms: i64) {
        self.by_time_left[self.doubling(expire_at_ms)] += 1;
    }

    /// So many keys have ended by `now`, at most.
    pub fn by(&self, now: Timestamp) -> u64 {
        self.by_time_left[..=self.doubling(now.as_millisecond())].iter().sum()
    }

    fn doubling(&self, at_ms: i64) -> usize {
        let after = at_ms.saturating_sub(self.seen_at_ms).max(0);
        (i64::BITS - after.leading_zeros()) as usize
    }
}

/// The lengths of long values, by the position of their keys in the file, from 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LongValues {
    floor: u64,
    lengths: Vec<(u64, u64)>,
}

impl Default for LongValues {
    fn default() -> Self {
        LongValues { floor: LONG_VALUE, lengths: Vec::new() }
    }
}

impl LongValues {
    /// Takes note of the next value; positions only grow.
    pub fn note(&mut self, position: u64, length: u64) {
        if length <= self.floor {
            return;
        }
        self.lengths.push((position, length));
        while self.lengths.len() > LONG_VALUES_MAX {
            self.floor *= 2;
            self.lengths.retain(|(_, length)| *length > self.floor);
        }
    }

    /// Position and length of each value that is longer than all that are not here.
    pub fn iter(&self) -> LongValuesIter<'_> {
        self.lengths.iter().copied()
    }
}

/// Positions and lengths, in the order of the file.
pub type LongValuesIter<'a> = std::iter::Copied<std::slice::Iter<'a, (u64, u64)>>;

/// The RDBs of a backup, in the order of its shards.
pub fn rdb_artifacts(manifest: &Manifest) -> impl Iterator<Item = &Artifact> {
    manifest.artifacts.iter().filter(|artifact| artifact.name.ends_with(".rdb"))
}

/// Walks all RDBs of a backup.
///
/// # Errors
/// `Damaged` if a hash, a CRC, the structure or the manifest's counts are wrong; `Unsupported` if this build does not know
/// the format.
pub async fn survey(from: &BackupReader, task: &Task) -> Result<Survey> {
    let mut survey = Survey::default();
    task.progress.set_total(rdb_artifacts(&from.manifest).map(|artifact| artifact.plain.bytes).sum());
    for artifact in rdb_artifacts(&from.manifest) {
        let shard = task.guard(walk(from, artifact, task)).await;
        survey.shards.push(shard.map_err(|error| error.while_doing(format!("checking {}", artifact.name)))?);
    }
    let doing = || format!("checking {}", from.manifest.backup());
    if survey.shards.is_empty() {
        return Err(Error::new(Kind::Damaged, doing(), "it holds no RDB"));
    }
    match survey.miscounted(&from.manifest.contents) {
        Some(why) => Err(Error::new(Kind::Damaged, doing(), why).hint(
            "its manifest was changed, or is another backup's: choose another backup, or get the data out by \
             `tidekeeper extract`, which needs no counts",
        )),
        None => Ok(survey),
    }
}

async fn walk(from: &BackupReader, artifact: &Artifact, task: &Task) -> Result<Shard> {
    let mut walker = Walker::new();
    let mut notes = Notes::new(task.clock.now());
    let mut bytes = from.open(artifact, task).await?;
    while let Some(chunk) = bytes.next().await? {
        let taken = walker.feed(&chunk, &mut notes)?;
        task.progress.add_bytes(chunk.len() as u64);
        if taken < chunk.len() {
            let why = format!("something follows the RDB, which ends after {} bytes", walker.bytes());
            return Err(Error::new(Kind::Damaged, "reading the RDB", why));
        }
    }
    let summary = walker.finish()?;
    let Notes { type_codes, long_values, endings, .. } = notes;
    Ok(Shard { artifact: artifact.clone(), summary, type_codes, long_values, endings })
}

struct Notes {
    now: Timestamp,
    position: u64,
    type_codes: [u64; 256],
    long_values: LongValues,
    endings: BTreeMap<u32, Endings>,
}

impl Notes {
    fn new(now: Timestamp) -> Self {
        let (long_values, endings) = Default::default();
        Notes { now, position: 0, type_codes: [0; 256], long_values, endings }
    }
}

impl Visitor for Notes {
    fn entry_begin(&mut self, entry: &Entry<'_>) {
        self.type_codes[usize::from(entry.type_code)] += 1;
        if let Some(at) = entry.expire_at_ms {
            self.endings.entry(entry.db).or_insert_with(|| Endings::seen_at(self.now)).note(at);
        }
    }

    fn entry_end(&mut self, length: u64) {
        self.long_values.note(self.position, length);
        self.position += 1;
    }
}

impl Survey {
    /// The highest database that any RDB selects.
    pub fn highest_db(&self) -> Option<u32> {
        self.shards.iter().filter_map(|shard| shard.summary.highest_db).max()
    }

    /// Keys in all RDBs.
    pub fn keys(&self) -> u64 {
        self.shards.iter().map(|shard| shard.summary.keys()).sum()
    }

    /// How many keys of each database have ended by `now`, at most.
    pub fn ended(&self, now: Timestamp) -> BTreeMap<u32, u64> {
        let mut ended = BTreeMap::new();
        for (db, endings) in self.shards.iter().flat_map(|shard| &shard.endings) {
            *ended.entry(*db).or_default() += endings.by(now);
        }
        ended
    }

    /// Function libraries; every shard of a cluster has the same ones.
    pub fn functions(&self) -> u64 {
        self.shards.iter().map(|shard| shard.summary.functions).max().unwrap_or_default()
    }

    /// What the manifest counts otherwise than we do. One that counts nothing promises nothing.
    fn miscounted(&self, told: &Contents) -> Option<String> {
        if *told == Contents::default() {
            return None;
        }
        let found = counted(self.shards.iter().map(|shard| &shard.summary));
        let fact =
            |name: &str, found: u64| (told.facts.get(name).and_then(Value::as_u64).unwrap_or(found), found);
        let expires = self.shards.iter().map(|shard| shard.summary.expires()).sum();
        let counts = [
            ("keys", (told.items, found.items)),
            ("keys with a time to live", fact("expires", expires)),
            ("function libraries", fact("functions", self.functions())),
        ];
        let wrong = counts.into_iter().find(|(_, (told, found))| told != found);
        match wrong {
            Some((what, (told, found))) => {
                Some(format!("its manifest says {told} {what}, its data has {found}"))
            }
            None => (told.namespaces != found.namespaces)
                .then(|| "its manifest says other counts of its databases than its data has".to_owned()),
        }
    }

    /// What the data took in the memory of its server, as that server said; none if one did not say.
    pub fn memory(&self) -> Option<u64> {
        let of =
            |shard: &Shard| shard.summary.aux_number("used-mem").and_then(|bytes| u64::try_from(bytes).ok());
        self.shards.iter().map(of).sum()
    }
}
