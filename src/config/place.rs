//! Where a vault can be.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A place that can hold a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A directory.
    Fs {
        /// The vault's root.
        path: PathBuf,
        /// Needed where `path` is on a network mount: only this host writes there.
        single_host: bool,
    },
    /// A prefix in an S3 bucket.
    S3(S3Place),
}

/// A prefix in an S3 bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Place {
    /// The bucket's name.
    pub bucket: String,
    /// The vault's root inside it, without slashes at its ends; may be empty.
    pub prefix: String,
    /// The region; else the environment says it.
    pub region: Option<String>,
    /// Another endpoint than AWS's own.
    pub endpoint: Option<String>,
    /// Whether the bucket is named in the path.
    pub path_style: bool,
    /// SSE-KMS with this key and bucket keys.
    pub kms_key: Option<String>,
    /// Object Lock, per object, on manifests and data, for so long.
    pub object_lock: Option<ObjectLock>,
}

/// Object Lock as asked for each object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ObjectLock {
    /// `compliance` (nobody can shorten it) instead of `governance`.
    pub compliance: bool,
    /// For how long after its creation an object cannot be deleted.
    pub keep: Duration,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Fs { path, .. } => path.display().fmt(f),
            Place::S3(place) if place.prefix.is_empty() => write!(f, "s3://{}", place.bucket),
            Place::S3(place) => write!(f, "s3://{}/{}", place.bucket, place.prefix),
        }
    }
}
