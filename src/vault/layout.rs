//! Where everything lies in a vault, and the ids that keys are made of.
//!
//! Pure: text in, text out. Who else looks at a key's text: the stores, for whether it belongs to a backup and for
//! what they keep beside the vault, and scrub, for what lies where nothing should.

use std::cell::Cell;
use std::fmt;
use std::ops::Range;
use std::str::FromStr;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::store::Key;
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};

pub mod claims;
pub mod log;

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

/// The inverse of [`compact_time`]. Every key in a listing goes through here, so it reads digits and nothing else.
pub fn parse_compact_time(text: &str) -> Option<Timestamp> {
    let text: &[u8; 16] = text.as_bytes().try_into().ok()?;
    if (text[8], text[15]) != (b'T', b'Z') {
        return None;
    }
    let number = |range: Range<usize>| {
        let digit = |sum: i16, byte: &u8| byte.is_ascii_digit().then(|| 10 * sum + i16::from(byte - b'0'));
        text[range].iter().try_fold(0, digit)
    };
    let two = |at: usize| number(at..at + 2)?.try_into().ok();
    let civil = DateTime::new(number(0..4)?, two(4)?, two(6)?, two(9)?, two(11)?, two(13)?, 0).ok()?;
    Some(civil.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// The lowest `5 * digits` bits of `number` in our alphabet.
pub fn base32(number: u64, digits: u32) -> String {
    (0..digits).rev().map(|digit| ALPHABET[(number >> (5 * digit)) as usize & 31] as char).collect()
}

/// `text` as a part of a key: every character that a key part cannot hold becomes a hyphen.
pub fn slug(text: &str) -> String {
    let safe = |letter: char| if letter.is_ascii_alphanumeric() { letter } else { '-' };
    text.chars().map(safe).take(60).collect()
}

thread_local! {
    /// Where this thread's random numbers come from, if not from the operating system.
    static SEEDED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Makes the random numbers of this thread repeat: for simulations, each of which lives on one thread.
pub fn seed_random(seed: u64) {
    SEEDED.set(Some(seed));
}

/// A random number from the operating system: nonces, the tails of ids.
pub fn random() -> u64 {
    let Some(seed) = SEEDED.get() else {
        return getrandom::u64().expect("the operating system gives random bytes");
    };
    SEEDED.set(Some(seed.wrapping_add(1)));
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &seed.to_be_bytes());
    u64::from_be_bytes(*digest.as_ref().first_chunk::<8>().expect("SHA-256 has 32 bytes"))
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

/// The rooms of small objects, each of which is created at one go. All else is `data/`.
const SMALL: [&str; 12] = [
    "format",
    "manifests",
    "proofs",
    "holds",
    "accepted",
    "tombstones",
    "requests",
    "claims",
    "switches",
    "runs",
    "leaders",
    "probes",
];

/// Whether an upload of this key ends within moments: that of a small object, or of a segment of a timeline.
pub fn is_passing(key: &Key) -> bool {
    let is_small = |(room, _): (&str, &str)| SMALL.contains(&room);
    key.as_str().split_once('/').is_some_and(is_small) || log::log_key(key).is_some()
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

/// `20261121T060000Z-9d1x4m7qk2ab`: one execution of anything. The time is when it was due or asked for; the tail says
/// of what, so that whoever derives it from the same facts gets the same id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// 60 bits: as many as a nonce has, and short enough to be typed.
const DIGEST_LETTERS: usize = 12;

impl RunId {
    /// The run that is due or was asked for at `time`; `tail` is a [`digest`].
    pub fn new(time: Timestamp, tail: &str) -> Self {
        RunId(format!("{}-{tail}", compact_time(time)))
    }

    /// The time in the id, to the second.
    pub fn time(&self) -> Timestamp {
        parse_compact_time(&self.0[..16]).expect("checked when the id was made")
    }

    /// The tail: for a run that was requested, the request's key.
    pub fn tail(&self) -> &str {
        &self.0[17..]
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RunId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shape = text.is_ascii()
            && text.len() == 17 + DIGEST_LETTERS
            && text.as_bytes()[16] == b'-'
            && parse_compact_time(&text[..16]).is_some()
            && text[17..].bytes().all(|b| ALPHABET.contains(&b));
        if shape {
            return Ok(RunId(text.to_owned()));
        }
        Err(Error::new(Kind::Usage, format!("reading the run id {text:?}"), "it is not an id")
            .hint("run ids look like 20261121T060000Z-9d1x4m7qk2ab; `tidekeeper runs` lists them"))
    }
}

impl TryFrom<String> for RunId {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> String {
        id.0
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 12 letters of the SHA-256 over `parts`, each preceded by its length so that no two lists of parts look alike.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let bytes = hash.finish();
    let first = bytes.as_ref().first_chunk::<8>().expect("SHA-256 has 32 bytes");
    base32(u64::from_be_bytes(*first) >> 4, DIGEST_LETTERS as u32)
}

/// `runs/`
pub const RUNS: &str = "runs/";

/// `runs/<yyyy-mm-dd>/` of the day in UTC that `time` is in.
pub fn runs_of_day(time: Timestamp) -> String {
    format!("runs/{}/", time.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d"))
}

/// Sorts after every run of its day that is older than `time`, and before all others: where a listing may begin.
pub fn runs_since(time: Timestamp) -> Key {
    Key::new(format!("{}{}", runs_of_day(time), compact_time(time)))
}

/// `runs/<yyyy-mm-dd>/<run>/`
pub fn run(run: &RunId) -> String {
    format!("{}{run}/", runs_of_day(run.time()))
}

/// `runs/<yyyy-mm-dd>/<run>/<attempt>.started.json`
pub fn started(of: &RunId, attempt: u32) -> Key {
    Key::new(format!("{}{attempt}.started.json", run(of)))
}

/// `runs/<yyyy-mm-dd>/<run>/<attempt>.finished.json`
pub fn finished(of: &RunId, attempt: u32) -> Key {
    Key::new(format!("{}{attempt}.finished.json", run(of)))
}

/// Which end of an attempt a key under `runs/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `<attempt>.started.json`
    Started,
    /// `<attempt>.finished.json`
    Finished,
}

/// The run, the attempt and which end of it a key under `runs/` is.
pub fn attempt_of(key: &Key) -> Option<(RunId, u32, Mark)> {
    let mut parts = key.as_str().strip_prefix(RUNS)?.splitn(3, '/');
    let (_day, run, file) = (parts.next()?, parts.next()?, parts.next()?);
    let (attempt, mark) = match file.split_once('.')? {
        (attempt, "started.json") => (attempt, Mark::Started),
        (attempt, "finished.json") => (attempt, Mark::Finished),
        _ => return None,
    };
    Some((run.parse().ok()?, attempt.parse().ok()?, mark))
}

/// Sorts after the manifests of a source's backups that are older than `time`, and before all others.
pub fn manifests_since(source: &SourceName, time: Timestamp) -> Key {
    Key::new(format!("{}{}", manifests(Some(source)), compact_time(time)))
}

/// `requests/`
pub const REQUESTS: &str = "requests/";

/// `requests/<key>.json`
pub fn request(key: &str) -> Key {
    Key::new(format!("requests/{key}.json"))
}

/// `requests/<key>/`: what was said about a request, or about any run whose [`RunId::tail`] is `key`.
pub fn request_notes(key: &str) -> String {
    format!("requests/{key}/")
}

/// `requests/<key>/cancel.json`
pub fn cancel(key: &str) -> Key {
    Key::new(format!("requests/{key}/cancel.json"))
}

/// The `<key>` of `requests/<key>.json`; `None` for the notes beside it.
pub fn key_of_request(key: &Key) -> Option<&str> {
    let rest = key.as_str().strip_prefix(REQUESTS)?.strip_suffix(".json")?;
    (!rest.contains('/')).then_some(rest)
}

/// `leaders/`
pub const LEADERS: &str = "leaders/";

/// `leaders/<n>.json`; ten digits, so that a listing after one's own key shows only what came later.
pub fn leader(generation: u64) -> Key {
    Key::new(format!("leaders/{generation:010}.json"))
}

/// `leaders/<n>/<nonce>.asked.json`: somebody asks generation `n` whether it lives. Sorts after `leaders/<n>.json`.
pub fn leader_asked(generation: u64, nonce: &str) -> Key {
    Key::new(format!("leaders/{generation:010}/{nonce}.asked.json"))
}

/// `leaders/<n>/<nonce>.answered.json`: it does.
pub fn leader_answered(generation: u64, nonce: &str) -> Key {
    Key::new(format!("leaders/{generation:010}/{nonce}.answered.json"))
}

/// What a key under `leaders/` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderKey<'a> {
    /// A generation.
    Generation(u64),
    /// A question to a generation, with its nonce.
    Asked(u64, &'a str),
    /// The answer.
    Answered(u64, &'a str),
}

/// Takes a key under `leaders/` apart.
pub fn leader_key(key: &Key) -> Option<LeaderKey<'_>> {
    let rest = key.as_str().strip_prefix(LEADERS)?;
    if let Some((generation, file)) = rest.split_once('/') {
        let generation = generation.parse().ok()?;
        return match file.split_once('.')? {
            (nonce, "asked.json") => Some(LeaderKey::Asked(generation, nonce)),
            (nonce, "answered.json") => Some(LeaderKey::Answered(generation, nonce)),
            _ => None,
        };
    }
    rest.strip_suffix(".json")?.parse().ok().map(LeaderKey::Generation)
}

/// `switches/`
pub const SWITCHES: &str = "switches/";

/// `switches/<name>/<time>.json`
pub fn switch(name: &str, time: Timestamp) -> Key {
    Key::new(format!("switches/{name}/{}.json", compact_time(time)))
}

/// `switches/<name>/`
pub fn switches(name: &str) -> String {
    format!("switches/{name}/")
}

/// The name and the time of a switch's key.
pub fn switch_of(key: &Key) -> Option<(&str, Timestamp)> {
    let (name, file) = key.as_str().strip_prefix(SWITCHES)?.split_once('/')?;
    Some((name, parse_compact_time(file.strip_suffix(".json")?)?))
}
