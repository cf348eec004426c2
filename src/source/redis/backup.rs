//! Backs up: takes the RDB of one copy, or of one copy of each shard, straight into the vault.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::cluster::{Shard, Topology};
use super::config::Settings;
use super::connection::Connection;
use super::origin::{self, Attached, Copies, Layout};
use super::rdb::{Crc, DbCounts, LargeKey, Summary, ValueType};
use super::replica::{Position, Transfer};
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::{Consistency, Contents, Counts, Level, Omission, Origin};
use crate::vault::writer::{ArtifactWriter, BackupWriter, Capture};

/// What the plain bytes of an RDB are.
pub const MEDIA_TYPE: &str = "application/vnd.redis.rdb";

/// The artifact of a Redis that is not a cluster.
pub const ARTIFACT: &str = "dump.rdb";

/// The artifact that says which shard has which slots.
pub const SLOT_MAP: &str = "cluster.json";

/// How many shards are taken at the same time: each costs a fork there and a compressor here.
const SHARDS_AT_ONCE: usize = 2;

/// How many databases are counted one by one; all further ones are counted together.
const NAMESPACES: usize = 100;

/// Under which the further ones are counted.
pub const OTHER_DATABASES: &str = "others";

/// How many of the largest keys are told.
const LARGEST: usize = 16;

/// An RDB that is in the vault.
struct Taken {
    artifact: String,
    endpoint: String,
    replica: bool,
    position: Position,
    summary: Summary,
    notes: Vec<String>,
}

/// Whose failure it is.
enum Failure {
    /// The server's: another shard may still succeed.
    Server(Error),
    /// Ours, or the vault's.
    Fatal(Error),
}

/// Backs up all of it.
pub async fn capture(settings: &Settings, task: &Task, out: &BackupWriter) -> Result<Capture> {
    task.progress.step("locate", task.clock.monotonic());
    let layout = task.guard(origin::locate(settings, &task.clock)).await?;
    let capture = match layout {
        Layout::Single(copies) => single(&copies, settings, task, out).await,
        Layout::Cluster(topology) => cluster(&topology, settings, task, out).await,
    };
    task.progress.done(task.clock.monotonic());
    capture
}

async fn single(copies: &Copies, settings: &Settings, task: &Task, out: &BackupWriter) -> Result<Capture> {
    task.progress.step("attach", task.clock.monotonic());
    let attached = task.guard(origin::attach(copies, settings, &task.clock)).await?;
    task.progress.step("transfer", task.clock.monotonic());
    task.progress.set_total(attached.transfer.length().unwrap_or_default());
    let taken = take(attached, ARTIFACT.to_owned(), task, out).await.map_err(|failure| match failure {
        Failure::Server(error) | Failure::Fatal(error) => error,
    })?;
    Ok(Capture {
        origin: Some(origin_of(&taken)),
        consistency: Some(Consistency {
            level: Level::PointInTime,
            at: created(&taken.summary),
            from: None,
            to: None,
            position: position(&taken.position),
        }),
        contents: contents(std::slice::from_ref(&taken)),
        details: details(std::slice::from_ref(&taken)),
        omissions: Vec::new(),
        log: None,
    })
}

/// Writes the RDB of an attached server as an artifact.
async fn take(attached: Attached, name: String, task: &Task, out: &BackupWriter) -> Result<Taken, Failure> {
    let Attached { mut transfer, copy, notes } = attached;
    for note in &notes {
        tracing::warn!(run = %task.run, "{note}");
    }
    let mut artifact = out.artifact(&name, MEDIA_TYPE).map_err(Failure::Fatal)?;
    let copied = task.guard(async { Ok(copy_all(&mut transfer, &mut artifact, task).await) });
    let copied = copied.await;
    copied.map_err(|error| Failure::Fatal(transfer.late(error)))??;
    let position = transfer.position.clone();
    let summary = task.guard(async { Ok(transfer.finish().await) }).await.map_err(Failure::Fatal)?;
    let summary = summary.map_err(Failure::Server)?;
    task.progress.add_items(summary.keys());
    task.guard(artifact.finish()).await.map_err(Failure::Fatal)?;
    let endpoint = copy.address.to_string();
    Ok(Taken { artifact: name, endpoint, replica: copy.replica, position, summary, notes })
}

async fn copy_all(
    transfer: &mut Transfer,
    artifact: &mut ArtifactWriter,
    task: &Task,
) -> Result<(), Failure> {
    while let Some(bytes) = transfer.next().await.map_err(Failure::Server)? {
        let count = bytes.len() as u64;
        artifact.write(bytes).await.map_err(Failure::Fatal)?;
        task.progress.add_bytes(count);
    }
    Ok(())
}

async fn cluster(
    topology: &Topology,
    settings: &Settings,
    task: &Task,
    out: &BackupWriter,
) -> Result<Capture> {
    task.progress.step("transfer", task.clock.monotonic());
    let take_one = async |shard| (shard, take_shard(shard, settings, task, out).await);
    let shards: Vec<_> = topology.shards.iter().map(take_one).collect();
    let mut results = stream::iter(shards).buffer_unordered(SHARDS_AT_ONCE);
    let (mut taken, mut omissions, mut first) = (Vec::new(), Vec::new(), None);
    while let Some((shard, result)) = results.next().await {
        match result {
            Ok(shard) => taken.push(shard),
            Err(Failure::Fatal(error)) => return Err(error),
            Err(Failure::Server(error)) => {
                omissions.push(Omission { what: format!("slots {}", slots(shard)), why: error.to_string() });
                first.get_or_insert(error);
            }
        }
    }
    drop(results);
    if let (true, Some(error)) = (taken.is_empty(), first) {
        return Err(error);
    }
    taken.sort_by(|a, b| a.artifact.cmp(&b.artifact));
    let unserved = topology.unserved().into_iter();
    omissions.extend(unserved.map(|range| omission(format!("slots {range}"), "no node serves them")));
    omissions.extend(moves(topology, settings, task).await);
    write_map(topology, &taken, task, out).await?;
    Ok(cluster_capture(&taken, omissions))
}

async fn take_shard(
    shard: &Shard,
    settings: &Settings,
    task: &Task,
    out: &BackupWriter,
) -> Result<Taken, Failure> {
    let copies = origin::copies_of(shard, settings.prefer_replica);
    let attached = task.guard(async { Ok(origin::attach(&copies, settings, &task.clock).await) });
    let attached = attached.await.map_err(Failure::Fatal)?.map_err(Failure::Server)?;
    take(attached, shard.artifact(), task, out).await
}

/// A key that moves between two shards while they are taken is in both, or in none.
async fn moves(before: &Topology, settings: &Settings, task: &Task) -> Vec<Omission> {
    let later = task.guard(later(before, settings, task)).await;
    let mut omissions: Vec<Omission> = Vec::new();
    if !before.moving.is_empty() {
        let why = "they were moving to another shard: keys of theirs may be missing, or be there twice";
        omissions.push(omission(format!("slots {:?}", before.moving), why));
    }
    match later {
        Ok(later) => omissions.extend(before.moved(&later).into_iter().map(|range| {
            omission(
                format!("slots {range}"),
                "they went to another shard meanwhile: keys may be missing, or be there twice",
            )
        })),
        Err(error) => omissions.push(omission(
            "certainty that no slot has moved".to_owned(),
            &format!("the cluster could not be asked again: {error}"),
        )),
    }
    omissions
}

async fn later(before: &Topology, settings: &Settings, task: &Task) -> Result<Topology> {
    let mut last = Error::new(Kind::Unreachable, "asking the cluster again", "no node answers");
    for shard in &before.shards {
        let asked = async {
            let mut connection =
                Connection::open(&shard.master.address, &settings.access, &task.clock).await?;
            let topology = origin::topology(&mut connection, settings).await;
            connection.close().await;
            topology
        };
        match asked.await {
            Ok(topology) => return Ok(topology),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn write_map(topology: &Topology, taken: &[Taken], task: &Task, out: &BackupWriter) -> Result<()> {
    let shards: Vec<Value> = topology
        .shards
        .iter()
        .map(|shard| {
            let taken = taken.iter().find(|taken| taken.artifact == shard.artifact());
            json!({
                "slots": shard.ranges,
                "master": { "id": shard.master.id, "address": shard.master.address.to_string() },
                "artifact": taken.map(|taken| &taken.artifact),
                "taken_from": taken.map(|taken| &taken.endpoint),
                "replid": taken.map(|taken| &taken.position.replid),
                "offset": taken.map(|taken| taken.position.offset),
            })
        })
        .collect();
    let map = json!({ "shards": shards, "cluster_nodes": topology.text });
    let mut artifact = out.artifact(SLOT_MAP, "application/json")?;
    task.guard(async {
        artifact.write(Bytes::from(format!("{map:#}\n"))).await?;
        artifact.finish().await
    })
    .await?;
    Ok(())
}

fn cluster_capture(taken: &[Taken], omissions: Vec<Omission>) -> Capture {
    let times = || taken.iter().filter_map(|taken| created(&taken.summary));
    let mut positions = BTreeMap::new();
    for shard in taken {
        let Position { replid, offset } = &shard.position;
        positions.insert(shard.artifact.clone(), format!("{replid}:{offset}"));
    }
    Capture {
        origin: taken.first().map(origin_of),
        consistency: Some(Consistency {
            level: Level::PerType,
            at: None,
            from: times().min(),
            to: times().max(),
            position: positions,
        }),
        contents: contents(taken),
        details: details(taken),
        omissions,
        log: None,
    }
}

fn slots(shard: &Shard) -> String {
    shard.ranges.iter().map(|range| range.to_string()).collect::<Vec<_>>().join(", ")
}

fn omission(what: String, why: &str) -> Omission {
    Omission { what, why: why.to_owned() }
}

fn origin_of(taken: &Taken) -> Origin {
    Origin {
        endpoint: taken.endpoint.clone(),
        version: taken.summary.server_version().map(str::to_owned),
        identity: Some(taken.position.replid.clone()),
    }
}

/// When the server began to write the RDB, to the second.
fn created(summary: &Summary) -> Option<Timestamp> {
    Timestamp::from_second(summary.aux_number("ctime")?).ok()
}

fn position(position: &Position) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("replid".to_owned(), position.replid.clone()),
        ("offset".to_owned(), position.offset.to_string()),
    ])
}

fn contents(taken: &[Taken]) -> Contents {
    Contents { facts: facts(taken), ..counted(taken.iter().map(|taken| &taken.summary)) }
}

/// The keys of RDBs by database and type, without facts.
pub fn counted<'a>(summaries: impl Iterator<Item = &'a Summary>) -> Contents {
    let mut databases: BTreeMap<u32, DbCounts> = BTreeMap::new();
    for (db, counts) in summaries.flat_map(|summary| &summary.databases) {
        databases.entry(*db).or_default().add(counts);
    }
    let mut namespaces: BTreeMap<String, Counts> = BTreeMap::new();
    for (n, (db, counts)) in databases.iter().enumerate() {
        let name = if n < NAMESPACES { format!("db{db}") } else { OTHER_DATABASES.to_owned() };
        let namespace = namespaces.entry(name).or_default();
        namespace.items += counts.keys();
        for value_type in ValueType::ALL.into_iter().filter(|value_type| counts.of(*value_type) > 0) {
            *namespace.types.entry(value_type.name().to_owned()).or_default() += counts.of(value_type);
        }
    }
    Contents { items: databases.values().map(DbCounts::keys).sum(), namespaces, facts: Map::new() }
}

/// What a pre-flight and an operator want to know; of a cluster, over all shards.
fn facts(taken: &[Taken]) -> Map<String, Value> {
    let summaries = || taken.iter().map(|taken| &taken.summary);
    let mut modules = Map::new();
    for (name, used) in summaries().flat_map(|summary| &summary.modules) {
        modules.insert(name.clone(), used.encoding.into());
    }
    let used_mem: Option<i64> = summaries().map(|summary| summary.aux_number("used-mem")).sum();
    let sums = summaries().all(|summary| summary.crc == Crc::Right);
    let facts = json!({
        "dialect": summaries().next().map(|summary| format!("{:?}", summary.dialect).to_lowercase()),
        "rdb_version": summaries().map(|summary| summary.version).max(),
        "highest_db": summaries().filter_map(|summary| summary.highest_db).max(),
        "modules": modules,
        "functions": summaries().map(|summary| summary.functions).max(),
        "expires": summaries().map(Summary::expires).sum::<u64>(),
        "used_mem": used_mem,
        "bytes": summaries().map(|summary| summary.bytes).sum::<u64>(),
        "checksum": sums,
        "taken_from": taken.iter().map(|taken| if taken.replica { "replica" } else { "master" }).collect::<Vec<_>>(),
        "notes": taken.iter().flat_map(|taken| &taken.notes).collect::<Vec<_>>(),
    });
    match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    }
}

/// What names users' data.
fn details(taken: &[Taken]) -> Map<String, Value> {
    let mut largest: Vec<&LargeKey> = taken.iter().flat_map(|taken| &taken.summary.largest).collect();
    largest.sort_by_key(|key| Reverse(key.bytes));
    let keys = largest.into_iter().take(LARGEST).map(|key| {
        json!({
            "db": key.db,
            "key": String::from_utf8_lossy(&key.key),
            "type": key.value_type.name(),
            "bytes": key.bytes,
        })
    });
    Map::from_iter([("largest_keys".to_owned(), keys.collect())])
}
