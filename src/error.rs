//! The one error of the house: what was being done, what kind of failure it is, why, and what to do.
//!
//! A message reads alone, at 3 a.m., by somebody who did not write this code. `doing` is verb and
//! object ("reading the RDB from redis-main"); `why` is the cause in the words of whoever refused;
//! `hint` is the next thing to type or to look at. Whoever handles an error logs it, once; whoever
//! passes it on adds context with [`Error::while_doing`].

use std::error::Error as StdError;
use std::fmt;

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The class of a failure. Its [`code`](Kind::code) is stable: it is the `code` of an API problem, the label of
/// a metric, and it decides the exit code of the CLI.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The caller typed or sent something that cannot be meant.
    Usage,
    /// The configuration is wrong; the message carries every finding.
    Config,
    /// The thing that was named does not exist.
    NotFound,
    /// Refused for safety; the hint says which confirmation is needed.
    Refused,
    /// Somebody else holds it, or decided otherwise before us.
    Conflict,
    /// Wrong credentials or a missing right.
    Denied,
    /// Nobody answered: refused, reset, no route, DNS.
    Unreachable,
    /// The other side is there but not ready (LOADING, NOMASTERLINK, 503).
    Unready,
    /// The other side asks us to slow down.
    Throttled,
    /// A deadline passed.
    Timeout,
    /// Somebody asked for an end.
    Cancelled,
    /// Bytes are not what they should be: a hash, a CRC, a format.
    Damaged,
    /// No space, or a limit of ours (`spool_max`) reached.
    Full,
    /// The other side cannot do this (version, missing module, cluster mode).
    Unsupported,
    /// A write was sent and no answer came: it may or may not have happened.
    Undecided,
    /// The clock cannot be trusted, so nothing that depends on time is done.
    Clock,
    /// The other side answered something it should not.
    Protocol,
    /// An input or output error of this machine.
    Io,
    /// A mistake of ours.
    Internal,
}

const ALL: [Kind; 19] = [
    Kind::Usage,
    Kind::Config,
    Kind::NotFound,
    Kind::Refused,
    Kind::Conflict,
    Kind::Denied,
    Kind::Unreachable,
    Kind::Unready,
    Kind::Throttled,
    Kind::Timeout,
    Kind::Cancelled,
    Kind::Damaged,
    Kind::Full,
    Kind::Unsupported,
    Kind::Undecided,
    Kind::Clock,
    Kind::Protocol,
    Kind::Io,
    Kind::Internal,
];

impl Kind {
    /// Stable, lower-case, hyphenated: API problem `code` and metric label.
    pub fn code(self) -> &'static str {
        match self {
            Kind::Usage => "usage",
            Kind::Config => "config",
            Kind::NotFound => "not-found",
            Kind::Refused => "refused",
            Kind::Conflict => "conflict",
            Kind::Denied => "denied",
            Kind::Unreachable => "unreachable",
            Kind::Unready => "unready",
            Kind::Throttled => "throttled",
            Kind::Timeout => "timeout",
            Kind::Cancelled => "cancelled",
            Kind::Damaged => "damaged",
            Kind::Full => "full",
            Kind::Unsupported => "unsupported",
            Kind::Undecided => "undecided",
            Kind::Clock => "clock",
            Kind::Protocol => "protocol",
            Kind::Io => "io",
            Kind::Internal => "internal",
        }
    }

    /// The kind of this code, if this build knows it: an error that was kept in the vault, or came by HTTP.
    pub fn from_code(code: &str) -> Option<Kind> {
        ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// The exit code of a command that ends with this error (`docs/operations.md` has the table).
    pub fn exit_code(self) -> u8 {
        match self {
            Kind::Usage | Kind::Config => 2,
            Kind::Refused => 3,
            Kind::Damaged => 5,
            _ => 1,
        }
    }

    /// Whether the same call may succeed later without anybody changing anything.
    pub fn is_retryable(self) -> bool {
        matches!(self, Kind::Unreachable | Kind::Unready | Kind::Throttled | Kind::Timeout | Kind::Undecided)
    }
}

/// One failure. Cheap to move; see the module's words on how to fill it.
pub struct Error(Box<Inner>);

struct Inner {
    kind: Kind,
    doing: String,
    why: String,
    hint: Option<String>,
    retryable: bool,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// A failure of `kind` while `doing` (verb and object), because of `why`.
    pub fn new(kind: Kind, doing: impl Into<String>, why: impl fmt::Display) -> Self {
        Error(Box::new(Inner {
            kind,
            doing: doing.into(),
            why: why.to_string(),
            hint: None,
            retryable: kind.is_retryable(),
            source: None,
        }))
    }

    /// An input or output error; a full disk, a missing file and a missing right keep their kinds.
    pub fn io(doing: impl Into<String>, cause: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match cause.kind() {
            Io::NotFound => Kind::NotFound,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
            Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge => Kind::Full,
            Io::TimedOut => Kind::Timeout,
            Io::ConnectionRefused
            | Io::ConnectionReset
            | Io::ConnectionAborted
            | Io::HostUnreachable
            | Io::NetworkUnreachable
            | Io::NetworkDown
            | Io::NotConnected
            | Io::BrokenPipe
            | Io::UnexpectedEof => Kind::Unreachable,
            _ => Kind::Io,
        };
        Error::new(kind, doing, &cause).caused_by(cause)
    }

    /// Adds what to do about it: a command, a setting, a place to look.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// Adds what to know first, in front of the hint that is there.
    pub fn hint_first(self, first: impl fmt::Display) -> Self {
        let hint = match self.hint_text() {
            Some(hint) => format!("{first}; {hint}"),
            None => first.to_string(),
        };
        self.hint(hint)
    }

    /// Keeps the underlying error for `source()`; its text belongs in `why` already.
    pub fn caused_by(mut self, cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(cause.into());
        self
    }

    /// Overrides whether a retry can help.
    pub fn retryable(mut self, yes: bool) -> Self {
        self.0.retryable = yes;
        self
    }

    /// Puts the outer activity in front: "backing up redis-main: reading the RDB: ...".
    pub fn while_doing(mut self, outer: impl fmt::Display) -> Self {
        self.0.doing = format!("{outer}: {}", self.0.doing);
        self
    }

    /// The class of the failure.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// What was being done.
    pub fn doing(&self) -> &str {
        &self.0.doing
    }

    /// Why it failed.
    pub fn why(&self) -> &str {
        &self.0.why
    }

    /// What to do about it, where we know.
    pub fn hint_text(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.doing, self.0.why)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}] {self}", self.0.kind.code())?;
        match &self.0.hint {
            Some(hint) => write!(f, " (hint: {hint})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|cause| cause as &(dyn StdError + 'static))
    }
}

/// Turns foreign results into ours at the place where the activity is known.
pub trait Context<T> {
    /// Says what was being done when it failed.
    fn doing(self, doing: impl Into<String>) -> Result<T>;
}

impl<T> Context<T> for std::io::Result<T> {
    fn doing(self, doing: impl Into<String>) -> Result<T> {
        self.map_err(|cause| Error::io(doing, cause))
    }
}
