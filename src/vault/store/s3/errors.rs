//! What S3 and the SDK say when something fails, in our kinds and with what to do about it.
//!
//! Codes: <https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html>.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use jiff::Timestamp;

use crate::error::{Error, Kind};

/// What a call may have done when its answer is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing, or nothing that a repetition would not do again.
    None,
    /// It may have created an object.
    Creates,
}

impl Effect {
    /// The kind of a failure after which nobody knows whether the call acted.
    fn lost(self, harmless: Kind) -> Kind {
        match self {
            Effect::None => harmless,
            Effect::Creates => Kind::Undecided,
        }
    }
}

/// The error of a call to which no answer came within `limit`.
pub(super) fn unanswered(doing: &str, effect: Effect, limit: Duration) -> Error {
    Error::new(effect.lost(Kind::Timeout), doing, format!("no answer within {} s", limit.as_secs()))
        .hint("is the endpoint reachable from here, and the network not too slow?")
}

/// The server's code for a refusal; HEAD requests have none.
pub(super) fn code<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> Option<&str> {
    error.as_service_error().and_then(|refusal| refusal.code())
}

/// The HTTP status, if an answer came.
pub(super) fn status<E>(error: &SdkError<E, HttpResponse>) -> Option<u16> {
    error.raw_response().map(|response| response.status().as_u16())
}

/// Whether a conditional create was refused because the key exists.
pub(super) fn is_taken<E>(error: &SdkError<E, HttpResponse>) -> bool {
    status(error) == Some(412)
}

/// The server's clock, if it answered that the object is not there.
pub(super) fn date<E>(error: &SdkError<E, HttpResponse>) -> Option<Timestamp> {
    let response = error.raw_response().filter(|response| response.status().as_u16() == 404)?;
    jiff::fmt::rfc2822::parse(response.headers().get("date")?).ok().map(|date| date.timestamp())
}

/// Our error for a failed call.
pub(super) fn failed<E>(doing: &str, error: SdkError<E, HttpResponse>, effect: Effect) -> Error
where
    E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
{
    let Some(refusal) = error.as_service_error() else { return unserved(doing, error, effect) };
    let status = status(&error).unwrap_or(0);
    let verdict = judge(refusal.code().unwrap_or(""), status, effect);
    let why = match (refusal.code(), refusal.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        (None, _) => format!("the store answered with status {status}"),
    };
    let ours = Error::new(verdict.kind, doing, why).caused_by(error);
    let ours = if verdict.hint.is_empty() { ours } else { ours.hint(verdict.hint) };
    if verdict.again { ours.retryable(true) } else { ours }
}

/// The error of a call that the server did not refuse: it was not reached, or not understood.
fn unserved<E>(doing: &str, error: SdkError<E, HttpResponse>, effect: Effect) -> Error
where
    E: StdError + Send + Sync + 'static,
{
    let layers: Vec<String> = causes(&error).map(ToString::to_string).collect();
    let lower = layers.join(": ").to_lowercase();
    let (kind, hint) = match &error {
        SdkError::ConstructionFailure(_) | SdkError::DispatchFailure(_) if lower.contains("credential") => (
            Kind::Denied,
            "no AWS credentials were found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the pod a role",
        ),
        _ if lower.contains("region must be set") => (Kind::Config, NO_REGION),
        SdkError::ConstructionFailure(_) => (Kind::Internal, ""),
        SdkError::DispatchFailure(_) if never_sent(&error, &lower) => {
            (Kind::Unreachable, "is the endpoint right, and reachable from here?")
        }
        SdkError::TimeoutError(_) => (effect.lost(Kind::Timeout), ""),
        _ => (effect.lost(Kind::Unreachable), ""),
    };
    // The innermost layer says what happened, the others how the SDK is built.
    let why = layers.last().cloned().unwrap_or_default();
    let ours = Error::new(kind, doing, why).caused_by(error);
    if hint.is_empty() { ours } else { ours.hint(hint) }
}

/// Whether the failure came before a connection stood, so that the call surely did nothing.
fn never_sent(error: &(dyn StdError + 'static), text: &str) -> bool {
    let refused = causes(error).filter_map(|cause| cause.downcast_ref::<io::Error>()).any(|cause| {
        use io::ErrorKind as Io;
        matches!(cause.kind(), Io::ConnectionRefused | Io::HostUnreachable | Io::NetworkUnreachable)
    });
    refused || text.contains("dns error") || text.contains("connect timeout")
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

struct Verdict {
    kind: Kind,
    hint: &'static str,
    /// Retryable though its kind is not.
    again: bool,
}

const NO_REGION: &str = "set AWS_REGION, or `vault.s3.region`, or ?region=REGION behind the vault's URL";
const OTHER_REGION: &str =
    "the bucket is in another region: set `vault.s3.region`, or ?region=REGION behind the vault's URL";
const BUCKET: &str = "check `vault.s3.bucket`; Tidekeeper does not make buckets";
const RIGHTS: &str =
    "`tidekeeper permissions` prints the policy that is needed; a KMS key has a policy of its own";
const PATIENCE: &str =
    "try again later, or ask less at once: fewer `limits.concurrent_runs`, some `jitter` in the schedules";
const KEYS: &str = "check the access key and its secret, and that a session has not expired";

/// What a refusal means: by its code, and by its status where the code says nothing to us.
fn judge(code: &str, status: u16, effect: Effect) -> Verdict {
    let (kind, hint) = match code {
        "ConditionalRequestConflict" | "OperationAborted" => (Kind::Undecided, ""),
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "KMS.DisabledException" => {
            (Kind::Denied, RIGHTS)
        }
        "InvalidAccessKeyId"
        | "XAdminUserNotFound"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired" => (Kind::Denied, KEYS),
        "RequestTimeTooSkewed" | "RequestExpired" => (Kind::Clock, "set this machine's clock: NTP, chrony"),
        "NoSuchBucket" => (Kind::NotFound, BUCKET),
        "NoSuchKey" | "NoSuchUpload" | "NotFound" => (Kind::NotFound, ""),
        "InvalidObjectState" => {
            (Kind::Unsupported, "it was archived: restore it from Glacier, and see `tidekeeper check`")
        }
        "SlowDown"
        | "SlowDownRead"
        | "SlowDownWrite"
        | "Throttling"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "TooManyRequests"
        | "RequestThrottled" => (Kind::Throttled, PATIENCE),
        "RequestTimeout" => (Kind::Timeout, ""),
        "PermanentRedirect" | "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" => {
            (Kind::Config, OTHER_REGION)
        }
        "InvalidBucketName" => (Kind::Config, BUCKET),
        "QuotaExceeded" | "StorageFull" | "XMinioStorageFull" | "InsufficientStorage" => {
            (Kind::Full, "make room, or let old backups go: `tidekeeper retention --apply`")
        }
        "BadDigest" | "XAmzContentChecksumMismatch" | "InvalidDigest" => {
            return Verdict { kind: Kind::Damaged, hint: "bytes changed on their way", again: true };
        }
        "NotImplemented" | "MethodNotAllowed" => (Kind::Unsupported, ""),
        _ => by_status(status, effect),
    };
    Verdict { kind, hint, again: false }
}

fn by_status(status: u16, effect: Effect) -> (Kind, &'static str) {
    match status {
        401 | 403 => (Kind::Denied, RIGHTS),
        404 => (Kind::NotFound, ""),
        408 => (Kind::Timeout, ""),
        409 => (Kind::Undecided, ""),
        429 | 503 => (Kind::Throttled, PATIENCE),
        501 => (Kind::Unsupported, ""),
        507 => (Kind::Full, ""),
        // The server failed in the middle: it may have acted.
        500..=599 => (effect.lost(Kind::Unready), ""),
        _ => (Kind::Protocol, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_becomes_the_kind_that_says_what_to_do() {
        let kind = |code, status| judge(code, status, Effect::Creates).kind;
        assert_eq!(kind("AccessDenied", 403), Kind::Denied);
        assert_eq!(kind("SignatureDoesNotMatch", 403), Kind::Denied);
        assert_eq!(kind("", 403), Kind::Denied);
        assert_eq!(kind("NoSuchBucket", 404), Kind::NotFound);
        assert_eq!(kind("SlowDown", 503), Kind::Throttled);
        assert_eq!(kind("ServiceUnavailable", 503), Kind::Throttled);
        assert_eq!(kind("ConditionalRequestConflict", 409), Kind::Undecided);
        assert_eq!(kind("RequestTimeTooSkewed", 403), Kind::Clock);
        assert_eq!(kind("PermanentRedirect", 301), Kind::Config);
        assert_eq!(kind("QuotaExceeded", 403), Kind::Full);
        assert_eq!(kind("NotImplemented", 501), Kind::Unsupported);
        assert_eq!(kind("InvalidArgument", 400), Kind::Protocol);
    }

    #[test]
    fn a_server_that_fails_may_have_created() {
        assert_eq!(judge("InternalError", 500, Effect::Creates).kind, Kind::Undecided);
        assert_eq!(judge("InternalError", 500, Effect::None).kind, Kind::Unready);
    }

    #[test]
    fn bytes_that_changed_on_their_way_are_sent_again() {
        assert!(judge("BadDigest", 400, Effect::None).again);
        assert!(!judge("AccessDenied", 403, Effect::None).again);
    }
}
