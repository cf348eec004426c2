//! What a walk has seen: all that a manifest and a restore's pre-flight need to know of an RDB.

use std::collections::BTreeMap;

use super::Dialect;

/// How many of the largest keys are remembered, and how much of each name.
const LARGEST: usize = 16;
const NAME_MAX: usize = 256;

/// How many aux fields are remembered, and how long each may be: enough for all that servers write, and bounded.
const AUX_FIELDS: usize = 64;
const AUX_MAX: usize = 256;

/// How many module types are told apart.
pub(super) const MODULE_TYPES: usize = 1024;

/// What an RDB holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Summary {
    /// Whose format.
    pub dialect: Dialect,
    /// Which version of it.
    pub version: u16,
    /// `redis-ver`, `ctime`, `used-mem`, `repl-id`, `repl-offset` and whatever else the server told; short ones only.
    pub aux: BTreeMap<String, String>,
    /// Per database that has keys.
    pub databases: BTreeMap<u32, DbCounts>,
    /// The highest database that is selected at all: a server with fewer `databases` dies of it.
    pub highest_db: Option<u32>,
    /// Function libraries.
    pub functions: u64,
    /// Function libraries as 7.0 RC1 and RC2 wrote them: a released server dies of them.
    pub pre_release_functions: u64,
    /// Module types by their nine letters.
    pub modules: BTreeMap<String, ModuleUse>,
    /// Whether idle times are there (`maxmemory-policy` with LRU).
    pub idle_times: bool,
    /// Whether frequencies are there (LFU).
    pub frequencies: bool,
    /// Hints on the sizes of a cluster's slots.
    pub slot_hints: u64,
    /// The keys with the longest serialized values, the longest first.
    pub largest: Vec<LargeKey>,
    /// The file's own sum.
    pub crc: Crc,
    /// The file's length.
    pub bytes: u64,
}

/// How a file ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Crc {
    /// Version 4 or older: no sum.
    #[default]
    Absent,
    /// `rdbchecksum no`: zeros instead of the sum.
    Disabled,
    /// The sum agrees.
    Right,
    /// It does not.
    Wrong {
        /// As the file says.
        stored: u64,
        /// As its bytes say.
        computed: u64,
    },
}

/// Counts of one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DbCounts {
    /// Keys with a time to live.
    pub expires: u64,
    by_type: [u64; ValueType::ALL.len()],
}

impl DbCounts {
    /// Keys in all.
    pub fn keys(&self) -> u64 {
        self.by_type.iter().sum()
    }

    /// Keys of this type.
    pub fn of(&self, value_type: ValueType) -> u64 {
        self.by_type[value_type as usize]
    }

    pub(super) fn count(&mut self, value_type: ValueType, expires: bool) {
        self.by_type[value_type as usize] += 1;
        self.expires += u64::from(expires);
    }

    /// Counts `more` in.
    pub fn add(&mut self, more: &DbCounts) {
        self.expires += more.expires;
        for (count, more) in self.by_type.iter_mut().zip(more.by_type) {
            *count += more;
        }
    }
}

/// What `TYPE` answers; every module type is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ValueType {
    String,
    List,
    Set,
    Zset,
    Hash,
    Stream,
    Module,
}

impl ValueType {
    /// All of them.
    pub const ALL: [ValueType; 7] = [
        ValueType::String,
        ValueType::List,
        ValueType::Set,
        ValueType::Zset,
        ValueType::Hash,
        ValueType::Stream,
        ValueType::Module,
    ];

    /// Redis' own word.
    pub fn name(self) -> &'static str {
        match self {
            ValueType::String => "string",
            ValueType::List => "list",
            ValueType::Set => "set",
            ValueType::Zset => "zset",
            ValueType::Hash => "hash",
            ValueType::Stream => "stream",
            ValueType::Module => "module",
        }
    }
}

/// How a module type is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ModuleUse {
    /// The newest encoding that was met; an older module cannot load it.
    pub encoding: u16,
    /// Keys; 0 if only data beside the keys was met, which needs the module all the same.
    pub values: u64,
}

/// A key with a long value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LargeKey {
    /// The database.
    pub db: u32,
    /// The key, at most its first 256 bytes.
    pub key: Vec<u8>,
    /// The type.
    pub value_type: ValueType,
    /// Serialized bytes.
    pub bytes: u64,
}

impl Summary {
    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.databases.values().map(DbCounts::keys).sum()
    }

    /// Keys with a time to live in all databases.
    pub fn expires(&self) -> u64 {
        self.databases.values().map(|counts| counts.expires).sum()
    }

    /// An aux field that is a number: `ctime` (Unix seconds), `used-mem` (bytes), `repl-offset`.
    pub fn aux_number(&self, name: &str) -> Option<i64> {
        self.aux.get(name)?.parse().ok()
    }

    /// The server's version: `7.0.15`.
    pub fn server_version(&self) -> Option<&str> {
        self.aux.get("valkey-ver").or_else(|| self.aux.get("redis-ver")).map(String::as_str)
    }

    pub(super) fn note_aux(&mut self, name: &[u8], value: &[u8]) {
        if name.len() <= AUX_MAX && value.len() <= AUX_MAX && self.aux.len() < AUX_FIELDS {
            let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
            self.aux.insert(text(name), text(value));
        }
    }

    /// Adds the counts of a stretch of keys in `db`.
    pub(super) fn note_counts(&mut self, db: u32, counts: &DbCounts) {
        if counts.keys() > 0 {
            self.databases.entry(db).or_default().add(counts);
        }
    }

    /// Notes a module type; `false` if there are more than can be.
    pub(super) fn note_module(&mut self, id: u64, values: u64) -> bool {
        let used = self.modules.entry(module_name(id)).or_default();
        used.encoding = used.encoding.max((id & 1023) as u16);
        used.values += values;
        self.modules.len() <= MODULE_TYPES
    }

    /// Notes a value's length; cheap unless it is among the largest.
    #[inline]
    pub(super) fn note_size(&mut self, db: u32, key: &[u8], value_type: ValueType, bytes: u64) {
        let smallest = self.largest.get(LARGEST - 1).map_or(0, |key| key.bytes);
        if bytes > smallest {
            let at = self.largest.partition_point(|other| other.bytes >= bytes);
            let key = key[..key.len().min(NAME_MAX)].to_vec();
            self.largest.insert(at, LargeKey { db, key, value_type, bytes });
            self.largest.truncate(LARGEST);
        }
    }
}

/// A module type's name is nine letters of six bits each above ten bits of encoding version.
fn module_name(id: u64) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    (0..9).rev().map(|n| LETTERS[(id >> (10 + 6 * n)) as usize & 63] as char).collect()
}
