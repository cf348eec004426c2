//! The RDB format, walked while it streams: opcodes and lengths, never values.
//!
//! Source of the format: `src/rdb.h` and `src/rdb.c` of Redis (versions 1 to 12) and of Valkey (version 80). The
//! [`Walker`] is a push parser: it takes chunks cut anywhere, hands each value on as the very bytes it is made of, and
//! holds no more than one key and one token at a time. It believes nothing: a length is followed, never allocated.

mod grammar;
mod lzf;
mod summary;
mod token;
mod walker;

pub use self::summary::{Crc, DbCounts, LargeKey, ModuleUse, Summary, ValueType};
pub use self::walker::Walker;

/// The newest format of Redis that is understood.
pub const NEWEST_REDIS: u16 = 12;

/// The newest format of Valkey that is understood.
pub const NEWEST_VALKEY: u16 = 80;

/// Whose format it is; type codes above 21 mean different things in the two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// `REDIS0012`
    #[default]
    Redis,
    /// `VALKEY080`
    Valkey,
}

/// A key, and what stands before its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The database.
    pub db: u32,
    /// The key in plain, whatever way it was written.
    pub key: &'a [u8],
    /// How the value is written: the first byte of a `DUMP` payload.
    pub type_code: u8,
    /// Milliseconds since the Unix epoch.
    pub expire_at_ms: Option<i64>,
    /// What the eviction policy knows of it.
    pub use_of: Option<Use>,
}

/// How a key was used, as far as the server's `maxmemory-policy` notes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// Seconds since the last use: `RESTORE ... IDLETIME`.
    Idle(u64),
    /// The logarithmic counter: `RESTORE ... FREQ`.
    Frequency(u8),
}

/// Who is told what is met. The type byte, the pieces between [`entry_begin`](Self::entry_begin) and
/// [`entry_end`](Self::entry_end), the version and a CRC64 make what `RESTORE` takes.
pub trait Visitor {
    /// A key begins.
    fn entry_begin(&mut self, entry: &Entry<'_>) {
        let _ = entry;
    }

    /// The next bytes of its value, as in the file.
    fn value_bytes(&mut self, bytes: &[u8]) {
        let _ = bytes;
    }

    /// The value has ended, after `len` bytes.
    fn entry_end(&mut self, len: u64) {
        let _ = len;
    }

    /// The source of a function library, for `FUNCTION LOAD`.
    fn function(&mut self, library: &[u8]) {
        let _ = library;
    }
}

/// Nobody listens: only the [`Summary`] is wanted.
impl Visitor for () {}
