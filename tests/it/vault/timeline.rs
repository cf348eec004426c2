//! A log of our own, in the simplest framing: position, length, payload.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tidekeeper::config::SourceName;
use tidekeeper::error::Result;
use tidekeeper::vault::Vault;
use tidekeeper::vault::layout::BackupRef;
use tidekeeper::vault::layout::log::{self, Position, SegmentName, TimelineId};
use tidekeeper::vault::manifest::Codec;
use tidekeeper::vault::reader::BackupReader;
use tidekeeper::vault::timeline::writer::{Beginning, Bounds, Sealer, TimelineWriter};
use tidekeeper::vault::timeline::{Origin, Segment, Timeline, list};

use super::estate::{Dice, Estate, Leads, SOURCE};

mod chain;
mod crash;
mod reader;
mod scrub;
mod trim;
mod writer;

pub const LOG: &str = "log-a";

pub fn source() -> SourceName {
    SOURCE.parse().expect("a name")
}

/// The record at `at`: it compresses.
pub fn record(at: u64, len: usize) -> Bytes {
    framed(at, &vec![at as u8; len])
}

/// The record at `at`: it does not compress.
pub fn noise(at: u64, len: usize) -> Bytes {
    let mut dice = Dice(at);
    let mut payload: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| dice.next().to_le_bytes()).collect();
    payload.truncate(len);
    framed(at, &payload)
}

fn framed(at: u64, payload: &[u8]) -> Bytes {
    let head = [&at.to_le_bytes()[..], &(payload.len() as u32).to_le_bytes()].concat();
    [&head, payload].concat().into()
}

pub fn framing(bytes: &[u8]) -> Option<usize> {
    let len = 12 + u32::from_le_bytes(bytes.get(8..12)?.try_into().ok()?) as usize;
    (len <= bytes.len()).then_some(len)
}

/// Takes plain bytes apart.
pub fn records(mut bytes: &[u8]) -> Vec<(u64, Bytes)> {
    let mut records = Vec::new();
    while let Some(len) = framing(bytes) {
        let at = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        records.push((at, Bytes::copy_from_slice(&bytes[..len])));
        bytes = &bytes[len..];
    }
    assert!(bytes.is_empty(), "{} bytes are left over", bytes.len());
    records
}

pub fn writer(vault: &Vault) -> (TimelineWriter<'static>, Sealer) {
    writer_with(vault, Bounds::default())
}

pub fn writer_with(vault: &Vault, bounds: Bounds) -> (TimelineWriter<'static>, Sealer) {
    TimelineWriter::new(vault, &source(), "log", &Leads, bounds, framing)
}

pub fn beginning(at: u64) -> Beginning {
    Beginning {
        identity: LOG.to_owned(),
        record: record(at, 20),
        at: Position(at),
        why: "the first".to_owned(),
    }
}

pub async fn push(writer: &mut TimelineWriter<'_>, at: u64) {
    writer.push(record(at, 20), Position(at)).await.expect("taken");
}

/// A good backup of [`LOG`] at `at`.
pub async fn base(estate: &Estate, at: u64) -> BackupRef {
    let more = json!({"timeline": LOG, "log_position": Position(at)});
    estate.backup_of(SOURCE, "complete", more).await
}

/// What a restore from `backup` to `to` reads: each segment's records, the proof first.
pub async fn read(
    estate: &Estate,
    vault: &Vault,
    backup: &BackupRef,
    to: u64,
) -> Result<Vec<Vec<(u64, Bytes)>>> {
    let task = estate.task();
    let opened = BackupReader::open_backup(vault, backup).await?;
    let Some(log) = opened.log(Position(to), framing, &task).await? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for segment in &log.chain.segments {
        let mut reader = log.segment(segment, &task).await?;
        let mut plain = Vec::new();
        while let Some(block) = reader.next().await? {
            plain.extend_from_slice(&block);
        }
        all.push(records(&plain));
    }
    Ok(all)
}

/// The positions that a restore applies: each once, after `from`.
pub fn applied(segments: &[Vec<(u64, Bytes)>], from: u64) -> Vec<u64> {
    let mut applied = vec![from];
    for (at, _) in segments.iter().flatten() {
        if *at > applied[applied.len() - 1] {
            applied.push(*at);
        }
    }
    applied.split_off(1)
}

pub async fn timelines(estate: &Estate) -> Vec<Timeline> {
    list(&estate.vault, &source()).await.expect("a listing")
}

pub fn segment(from: u64, to: u64, modified: jiff::Timestamp) -> Segment {
    let name = SegmentName {
        from: Position(from),
        to: Position(to),
        generation: 1,
        sha256: "0".repeat(64),
        kind: "log".to_owned(),
        codecs: vec![Codec::Zstd],
    };
    Segment { name, stored_bytes: 10, modified }
}

/// A timeline that exists in thought only.
pub fn imagined(n: u32, identity: &str, from: u64, mut segments: Vec<Segment>) -> Timeline {
    let at = jiff::Timestamp::from_second(1_790_000_000 + i64::from(n)).expect("a time");
    let id = TimelineId::new(at, None, n);
    segments.sort_by_key(|segment| (segment.name.from, segment.name.to));
    let origin = Origin {
        timeline: id.clone(),
        source: source(),
        kind: "log".to_owned(),
        identity: identity.to_owned(),
        from: Position(from),
        why: format!("reason {n}"),
        previous: None,
        writer: "w".to_owned(),
        at,
        leader_generation: None,
        unknown: Default::default(),
    };
    Timeline { id, origin: Ok(origin), end: Ok(None), segments }
}

/// The same vault, encrypted to a new key; and as one sees it who has the public key only.
pub fn encrypted(estate: &Estate, dir: &tempfile::TempDir) -> (Vault, Vault) {
    let identity = age::x25519::Identity::generate();
    let file = dir.path().join("age.key");
    let text = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    std::fs::write(&file, text + "\n").expect("written");
    let vault = |identity_file| {
        let recipients = vec![identity.to_public().to_string()];
        let encryption = tidekeeper::config::Encryption { recipients, identity_file };
        Vault::new(Arc::new(estate.memory.clone()), estate.clock.clone(), Some(encryption))
    };
    (vault(Some(file)), vault(None))
}

pub async fn keys(estate: &Estate) -> Vec<String> {
    let keys = estate.keys(&log::timelines(Some(&source()))).await;
    keys.into_iter().filter(|key| !key.ends_with(".json")).collect()
}

pub const MINUTE: Duration = Duration::from_secs(60);
