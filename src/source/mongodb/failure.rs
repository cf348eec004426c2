//! From the driver's errors to ours: which class, in the server's own words, and what to do.

use mongodb::error::{Error as DriverError, ErrorKind, WriteFailure};

use crate::error::{Error, Kind};

/// Codes of the server's `error_codes.yml` that something depends on here.
pub mod code {
    /// No other code fits: also of an `applyOps` in which some were refused.
    pub const UNKNOWN_ERROR: i32 = 8;
    /// A right is missing.
    pub const UNAUTHORIZED: i32 = 13;
    /// Wrong user or password.
    pub const AUTHENTICATION_FAILED: i32 = 18;
    /// There is no such collection or database.
    pub const NAMESPACE_NOT_FOUND: i32 = 26;
    /// A cursor is gone: killed, timed out, or its server restarted.
    pub const CURSOR_NOT_FOUND: i32 = 43;
    /// There is one already.
    pub const NAMESPACE_EXISTS: i32 = 48;
    /// `maxTimeMS` has passed.
    pub const MAX_TIME_EXPIRED: i32 = 50;
    /// The server does not know the command.
    pub const COMMAND_NOT_FOUND: i32 = 59;
    /// A read concern that this server or collection does not grant.
    pub const INVALID_OPTIONS: i32 = 72;
    /// A tailable cursor's place in a capped collection was overwritten.
    pub const CAPPED_POSITION_LOST: i32 = 136;
    /// The collection was dropped or renamed under a cursor.
    pub const QUERY_PLAN_KILLED: i32 = 175;
    /// An update of a log has no document.
    pub const UPDATE_OPERATION_FAILED: i32 = 218;
    /// The history that a snapshot read needs is gone.
    pub const SNAPSHOT_TOO_OLD: i32 = 239;
    /// A snapshot read cannot be had now: the collection's catalogue changed after its moment.
    pub const SNAPSHOT_UNAVAILABLE: i32 = 246;
    /// An operation was killed.
    pub const INTERRUPTED: i32 = 11601;
    /// A unique index has this key.
    pub const DUPLICATE_KEY: i32 = 11000;
}

/// Not now, but soon: stepdown, election, recovery, shutdown, a broken link between the servers (the driver's own lists of
/// what may be read again).
pub const PASSING: [i32; 14] = [6, 7, 89, 91, 134, 189, 262, 9001, 10058, 10107, 11600, 11602, 13435, 13436];

/// The server's code for a failed command or write, if it is one.
pub fn code_of(error: &DriverError) -> Option<i32> {
    match &*error.kind {
        ErrorKind::Command(command) => Some(command.code),
        ErrorKind::Write(WriteFailure::WriteError(write)) => Some(write.code),
        ErrorKind::Write(WriteFailure::WriteConcernError(concern)) => Some(concern.code),
        _ => None,
    }
}

/// Whether the same read may succeed later, from where it was: the server changed its role, or the line broke.
pub fn is_passing(error: &DriverError) -> bool {
    let kind = matches!(
        &*error.kind,
        ErrorKind::Io(_) | ErrorKind::ConnectionPoolCleared { .. } | ErrorKind::ServerSelection { .. }
    );
    kind || code_of(error).is_some_and(|code| {
        PASSING.contains(&code) || matches!(code, code::CURSOR_NOT_FOUND | code::INTERRUPTED)
    })
}

/// The driver's error as ours, with what was being done.
pub fn failed(doing: impl Into<String>, error: DriverError) -> Error {
    let (kind, hint) = class(&error);
    let why = words(&error);
    let mapped = Error::new(kind, doing, why).caused_by(error);
    match hint {
        Some(hint) => mapped.hint(hint),
        None => mapped,
    }
}

/// For use in `map_err`.
pub fn failing(doing: impl Into<String>) -> impl FnOnce(DriverError) -> Error {
    move |error| failed(doing, error)
}

fn class(error: &DriverError) -> (Kind, Option<&'static str>) {
    const RIGHTS: &str = "`tidekeeper permissions` prints the roles that are needed";
    const LOGIN: &str = "look at the user, the password and `authSource` of its `uri`";
    const PLACE: &str =
        "look at the hosts, the replica set's name and TLS in its `uri`, and at the network between";
    let (kind, hint) = match &*error.kind {
        ErrorKind::Authentication { .. } => (Kind::Denied, Some(LOGIN)),
        ErrorKind::Command(command) => of_code(command.code),
        ErrorKind::Write(_) => code_of(error).map_or((Kind::Protocol, None), of_code),
        ErrorKind::ServerSelection { message, .. } if message.contains("uthentication failed") => {
            (Kind::Denied, Some(LOGIN))
        }
        ErrorKind::ServerSelection { .. } | ErrorKind::DnsResolve { .. } | ErrorKind::Io(_) => {
            (Kind::Unreachable, Some(PLACE))
        }
        ErrorKind::ConnectionPoolCleared { .. } => (Kind::Unreachable, None),
        ErrorKind::InvalidArgument { .. } | ErrorKind::InvalidTlsConfig { .. } => (Kind::Config, None),
        ErrorKind::IncompatibleServer { .. } | ErrorKind::SessionsNotSupported => (Kind::Unsupported, None),
        ErrorKind::InvalidResponse { .. } | ErrorKind::Bson(_) => (Kind::Protocol, None),
        _ => (Kind::Protocol, None),
    };
    (kind, hint.or((kind == Kind::Denied).then_some(RIGHTS)))
}

fn of_code(code: i32) -> (Kind, Option<&'static str>) {
    let kind = match code {
        code::UNAUTHORIZED | code::AUTHENTICATION_FAILED => Kind::Denied,
        code::NAMESPACE_NOT_FOUND => Kind::NotFound,
        code::NAMESPACE_EXISTS => Kind::Conflict,
        code::MAX_TIME_EXPIRED => Kind::Timeout,
        code::COMMAND_NOT_FOUND | code::INVALID_OPTIONS => Kind::Unsupported,
        code::CURSOR_NOT_FOUND | code::INTERRUPTED => Kind::Unready,
        code if PASSING.contains(&code) => Kind::Unready,
        _ => Kind::Protocol,
    };
    (kind, None)
}

/// The server's message without the driver's wrapping.
pub fn words(error: &DriverError) -> String {
    match &*error.kind {
        ErrorKind::Io(cause) => cause.to_string(),
        ErrorKind::Command(command) => {
            format!("{} (code {}, {})", command.message, command.code, command.code_name)
        }
        ErrorKind::Write(WriteFailure::WriteError(write)) => {
            format!("{} (code {})", write.message, write.code)
        }
        _ => error.to_string(),
    }
}
