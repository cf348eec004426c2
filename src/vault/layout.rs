//! Where everything lies in a vault (DESIGN section 3), and the ids that keys are made of.
//!
//! Pure: text in, text out. Nothing else composes or takes apart a key.

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::store::Key;
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};

/// The format this build writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// `20261121T060000Z-4k7q2m`: sorts by time, unique without coordination.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BackupId(String);

/// Letters and digits without those that people confuse (no i, l, o, u).
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl BackupId {
    /// The id of a backup that starts `now`, but later than `newest`: a clock that was set back must
    /// not let a new backup sort before an old one. `random` is 30 bits that make it unique.
    pub fn new(now: Timestamp, newest: Option<&BackupId>, random: u32) -> Self {
        let floor = newest.map(|id| id.time().as_second() + 1).unwrap_or(i64::MIN);
        let second = now.as_second().max(floor);
        let time = Timestamp::from_second(second).expect("a second of our era");
        BackupId(format!("{}-{}", compact_time(time), base32(u64::from(random), 6)))
    }

    /// The time in the id, to the second.
    pub fn time(&self) -> Timestamp {
        parse_compact_time(&self.0[..16]).expect("checked when the id was parsed")
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BackupId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shape = text.is_ascii()
            && text.len() == 23
            && text.as_bytes()[16] == b'-'
            && parse_compact_time(&text[..16]).is_some()
            && text[17..].bytes().all(|b| ALPHABET.contains(&b));
        if shape {
            return Ok(BackupId(text.to_owned()));
        }
        Err(Error::new(Kind::Usage, format!("reading the backup id {text:?}"), "it is not an id")
            .hint("ids look like 20261121T060000Z-4k7q2m; `tidekeeper backups` lists them"))
    }
}

impl TryFrom<String> for BackupId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<BackupId> for String {
    fn from(id: BackupId) -> String {
        id.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A backup of a source: `redis-main/20261121T060000Z-4k7q2m`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackupRef {
    /// The source it is of.
    pub source: SourceName,
    /// Its id.
    pub id: BackupId,
}

impl fmt::Display for BackupRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.id)
    }
}

/// `20261121T060000Z`.
pub fn compact_time(time: Timestamp) -> String {
    time.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The inverse of [`compact_time`].
pub fn parse_compact_time(text: &str) -> Option<Timestamp> {
    if text.len() != 16 || !text.is_ascii() {
        return None;
    }
    let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", text).ok()?;
    let time = civil.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (compact_time(time) == text).then_some(time)
}

/// The lowest `5 * digits` bits of `number` in our alphabet.
pub fn base32(number: u64, digits: u32) -> String {
    (0..digits).rev().map(|digit| ALPHABET[(number >> (5 * digit)) as usize & 31] as char).collect()
}

/// A random number from the operating system: nonces, the tails of ids.
pub fn random() -> u64 {
    getrandom::u64().expect("the operating system gives random bytes")
}

/// 60 random bits as 12 letters: names a process or an attempt, recognises our own objects.
pub fn nonce() -> String {
    base32(random(), 12)
}

/// `format/<n>.json`
pub fn format(n: u32) -> Key {
    Key::new(format!("format/{n}.json"))
}

/// `format/`
pub fn formats() -> String {
    "format/".to_owned()
}

/// `probes/<nonce>/<name>.json`: what `check` writes and deletes again to see how a store behaves.
pub fn probe(nonce: &str, name: &str) -> Key {
    Key::new(format!("{}{name}.json", probes(nonce)))
}

/// `probes/<nonce>/`
pub fn probes(nonce: &str) -> String {
    format!("probes/{nonce}/")
}

/// `manifests/` or `manifests/<source>/`
pub fn manifests(source: Option<&SourceName>) -> String {
    prefix("manifests", source)
}

/// `manifests/<source>/<id>.json`
pub fn manifest(of: &BackupRef) -> Key {
    Key::new(format!("manifests/{}/{}.json", of.source, of.id))
}

/// The backup whose manifest has this key.
pub fn backup_of_manifest(key: &Key) -> Option<BackupRef> {
    let rest = key.as_str().strip_prefix("manifests/")?.strip_suffix(".json")?;
    backup_ref(rest)
}

/// `data/` or `data/<source>/`
pub fn data(source: Option<&SourceName>) -> String {
    prefix("data", source)
}

/// `data/<source>/<id>/`
pub fn data_of(of: &BackupRef) -> String {
    format!("data/{}/{}/", of.source, of.id)
}

/// `data/<source>/<id>/<attempt>/<artifact>`; `artifact` is an escaped name with its endings.
pub fn artifact(of: &BackupRef, attempt: &str, artifact: &str) -> Key {
    Key::new(format!("data/{}/{}/{attempt}/{artifact}", of.source, of.id))
}

/// The backup under whose data prefix this key lies.
pub fn backup_of_data(key: &Key) -> Option<BackupRef> {
    let rest = key.as_str().strip_prefix("data/")?;
    let mut parts = rest.splitn(3, '/');
    let (source, id, _) = (parts.next()?, parts.next()?, parts.next()?);
    Some(BackupRef { source: source.parse().ok()?, id: id.parse().ok()? })
}

/// `<room>/<source>/<id>/<name>.json` of the rooms that say something of a backup: proofs, holds, tombstones.
pub fn marker(room: Marker, of: &BackupRef, name: &str) -> Key {
    Key::new(format!("{}/{}/{}/{name}.json", room.as_str(), of.source, of.id))
}

/// `<room>/<source>/<id>/`
pub fn markers_of(room: Marker, of: &BackupRef) -> String {
    format!("{}/{}/{}/", room.as_str(), of.source, of.id)
}

/// `<room>/` or `<room>/<source>/`
pub fn markers(room: Marker, source: Option<&SourceName>) -> String {
    prefix(room.as_str(), source)
}

/// The backup that a marker speaks of, and the marker's name without `.json`.
pub fn backup_of_marker(room: Marker, key: &Key) -> Option<(BackupRef, &str)> {
    let rest = key.as_str().strip_prefix(room.as_str())?.strip_prefix('/')?;
    let (backup, name) = rest.strip_suffix(".json")?.rsplit_once('/')?;
    Some((backup_ref(backup)?, name))
}

/// `accepted/<source>/<id>.json`
pub fn accepted(of: &BackupRef) -> Key {
    Key::new(format!("accepted/{}/{}.json", of.source, of.id))
}

/// `accepted/` or `accepted/<source>/`
pub fn accepted_in(source: Option<&SourceName>) -> String {
    prefix("accepted", source)
}

/// The backup that was accepted by this key.
pub fn backup_of_accepted(key: &Key) -> Option<BackupRef> {
    backup_ref(key.as_str().strip_prefix("accepted/")?.strip_suffix(".json")?)
}

/// `tombstones/<source>/<id>/<n>.json`: the n-th proposal to delete it, from 1.
pub fn tombstone(of: &BackupRef, n: u32) -> Key {
    marker(Marker::Tombstone, of, &n.to_string())
}

/// `tombstones/<source>/<id>/<n>.verdict.json`: what became of that proposal.
pub fn verdict(of: &BackupRef, n: u32) -> Key {
    marker(Marker::Tombstone, of, &format!("{n}.verdict"))
}

/// Which proposal the name of an object in `tombstones/` speaks of, and whether it is its verdict.
pub fn proposal_of(name: &str) -> Option<(u32, bool)> {
    match name.strip_suffix(".verdict") {
        Some(n) => Some((n.parse().ok()?, true)),
        None => Some((name.parse().ok()?, false)),
    }
}

/// The rooms with several objects for one backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Marker {
    /// `proofs/`: restored and checked, or found damaged.
    Proof,
    /// `holds/`: pinned.
    Hold,
    /// `tombstones/`: deletion proposed, then decided.
    Tombstone,
}

impl Marker {
    /// The room's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Marker::Proof => "proofs",
            Marker::Hold => "holds",
            Marker::Tombstone => "tombstones",
        }
    }
}

fn backup_ref(text: &str) -> Option<BackupRef> {
    let (source, id) = text.split_once('/')?;
    Some(BackupRef { source: source.parse().ok()?, id: id.parse().ok()? })
}

fn prefix(room: &str, source: Option<&SourceName>) -> String {
    match source {
        Some(source) => format!("{room}/{source}/"),
        None => format!("{room}/"),
    }
}
