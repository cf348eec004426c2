//! The files as users type them (see `docs/examples`): what the JSON Schema is made from.
//!
//! Everything here is only well-formed; [`check`](super::check) turns it into what may be acted on.

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::{CronText, Listen, Period, Size, Zone};
use super::{Missed, SourceName};

/// `tidekeeper.yaml`: where things are. `sources` and `targets` are read from the tree itself.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "the sections are read one by one; this type is their common schema")]
pub struct File {
    /// Where backups live.
    vault: Vault,
    /// Encrypts all data to age recipients.
    #[serde(default)]
    encryption: Option<Encryption>,
    /// What the process may use of its machine.
    #[serde(default)]
    limits: Limits,
    /// What is protected.
    #[serde(default)]
    sources: Vec<Entry>,
    /// Where a restore may go besides its own source.
    #[serde(default)]
    targets: Vec<Entry>,
    /// What happens when: a folder of files, or one file.
    #[serde(default)]
    schedules: Option<PathBuf>,
    /// The HTTP API.
    #[serde(default)]
    api: Api,
}

/// A source or a target: a name, and one part named after its kind.
#[derive(Deserialize, JsonSchema)]
#[allow(dead_code, reason = "read from the tree itself, with its part")]
pub struct Entry {
    /// Unique over sources and targets.
    name: SourceName,
}

/// Where backups live.
#[derive(Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{ "required": ["fs"] }, { "required": ["s3"] }]))]
pub struct Vault {
    /// A directory.
    #[serde(default)]
    pub fs: Option<Fs>,
    /// A prefix in an S3 bucket.
    #[serde(default)]
    pub s3: Option<S3>,
    /// Only one process ever writes: a store that lets two racing creators win is then only warned about.
    #[serde(default)]
    pub single_writer: bool,
}

/// A directory.
#[derive(Deserialize, JsonSchema)]
pub struct Fs {
    /// The vault's root; a relative path starts at this file.
    pub path: PathBuf,
    /// Needed on a network mount: only this host writes there.
    #[serde(default)]
    pub single_host: bool,
}

/// A prefix in an S3 bucket.
#[derive(Deserialize, JsonSchema)]
pub struct S3 {
    /// The bucket's name.
    #[schemars(length(min = 1))]
    pub bucket: String,
    /// The vault's root inside the bucket.
    #[serde(default)]
    pub prefix: String,
    /// The region; else the environment says it.
    #[serde(default)]
    pub region: Option<String>,
    /// Another endpoint than AWS's own, as a URL.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Name the bucket in the path instead of the host.
    #[serde(default)]
    pub path_style: bool,
    /// Encrypt with SSE-KMS, this key and bucket keys.
    #[serde(default)]
    pub kms_key: Option<String>,
    /// Lock manifests and data against deletion.
    #[serde(default)]
    pub object_lock: Option<ObjectLock>,
}

/// S3 Object Lock, asked for each object.
#[derive(Deserialize, JsonSchema)]
pub struct ObjectLock {
    /// Who may shorten it.
    pub mode: LockMode,
    /// For how long after its creation an object cannot be deleted.
    pub keep: Period,
}

/// Who may shorten a lock.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LockMode {
    /// Whoever has the right to.
    Governance,
    /// Nobody.
    Compliance,
}

/// age encryption of all data.
#[derive(Deserialize, JsonSchema)]
pub struct Encryption {
    /// Public keys (`age1...`); each can decrypt alone.
    #[schemars(length(min = 1))]
    pub recipients: Vec<String>,
    /// One recipient is enough: its loss is the loss of all backups.
    #[serde(default)]
    pub single_recipient: bool,
    /// The private keys; only where restores and verifications run.
    #[serde(default)]
    pub identity_file: Option<PathBuf>,
}

/// What the process may use of its machine.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Where what is not yet uploaded waits; the machine's temporary folder if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spool_dir: Option<PathBuf>,
    /// How many bytes may wait there, over all runs.
    pub spool_max: Size,
    /// Bytes a second into the vault, segments of timelines before backups; 0 is unlimited.
    pub upload_rate: Size,
    /// How many runs at the same time.
    #[schemars(range(min = 1, max = 64))]
    pub concurrent_runs: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { spool_dir: None, spool_max: Size(4 << 30), upload_rate: Size(0), concurrent_runs: 2 }
    }
}

/// The HTTP API.
#[derive(Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Api {
    /// Where it listens.
    pub listen: Listen,
}

/// One file of `schedules/`: what happens when, for one source.
#[derive(Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [
    { "required": ["source"] }, { "required": ["capacity"] }, { "required": ["runbook"] }
]))]
pub struct Schedule {
    /// The source it is for.
    #[serde(default)]
    pub source: Option<SourceName>,
    /// The zone of `cron`, and of the retention's hours, days, weeks, months and years.
    #[serde(default)]
    pub time_zone: Zone,
    /// When it is backed up.
    #[serde(default)]
    pub backup: Vec<Series>,
    /// How long its backups are kept.
    #[serde(default)]
    pub retention: Retention,
    /// Nothing of this schedule is due while this is true.
    #[serde(default)]
    pub suspend: bool,
}

/// A series of due times.
#[derive(Deserialize, JsonSchema)]
#[schemars(extend("oneOf" = [{ "required": ["cron"] }, { "required": ["every"] }]))]
pub struct Series {
    /// Part of the ids of its runs: another name is another series.
    pub name: SourceName,
    /// Due at these local times.
    #[serde(default)]
    pub cron: Option<CronText>,
    /// Due at multiples of this since the Unix epoch.
    #[serde(default)]
    pub every: Option<Period>,
    /// A run starts up to this much later.
    #[serde(default)]
    pub jitter: Period,
    /// How long a run may take, from its start.
    #[serde(default = "an_hour")]
    pub deadline: Period,
    /// What happens to due times that passed while no daemon ran.
    #[serde(default)]
    pub missed: Missed,
}

fn an_hour() -> Period {
    Period(Duration::from_secs(3_600))
}

/// How long backups are kept. A backup stays if any of the rules wants it.
#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Retention {
    /// All that are younger.
    pub keep_within: Period,
    /// So many of the newest.
    pub keep_last: u32,
    /// The newest of each of so many hours that have one.
    pub hourly: u32,
    /// The newest of each of so many days that have one.
    pub daily: u32,
    /// The newest of each of so many ISO weeks that have one.
    pub weekly: u32,
    /// The newest of each of so many months that have one.
    pub monthly: u32,
    /// The newest of each of so many years that have one.
    pub yearly: u32,
    /// So far back any second stays restorable, where the source keeps a timeline; `keep_within` if not given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Period>,
    /// Between the proposal and the verdict of a deletion; longer than any run's deadline.
    pub grace: Period,
}

impl Default for Retention {
    fn default() -> Self {
        let rules = super::Retention::default();
        Retention {
            keep_within: Period(rules.keep_within),
            keep_last: rules.keep_last,
            hourly: rules.hourly,
            daily: rules.daily,
            weekly: rules.weekly,
            monthly: rules.monthly,
            yearly: rules.yearly,
            window: None,
            grace: Period(rules.grace),
        }
    }
}
