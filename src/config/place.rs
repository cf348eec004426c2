//! Where a vault can be, and how that is written on a command line.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::shape::nearest;
use crate::error::{Error, Kind, Result};

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

/// What may stand behind `?` in an S3 URL.
const PARAMETERS: [&str; 3] = ["region", "endpoint", "path_style"];

/// `s3://bucket/prefix`, `s3://bucket/prefix?endpoint=http://127.0.0.1:7070&path_style=true`, or a directory.
impl FromStr for Place {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if let Some(rest) = text.strip_prefix("s3://") {
            return s3(rest).map_err(|why| wrong(text, &why)).map(Place::S3);
        }
        let path = text.strip_prefix("file://").unwrap_or(text);
        match (path, path.split_once("://")) {
            ("", _) => Err(wrong(text, "it is empty")),
            (_, Some((scheme, _))) => {
                Err(wrong(text, &format!("there is no kind of vault called `{scheme}`")))
            }
            _ => Ok(Place::Fs { path: path.into(), single_host: false }),
        }
    }
}

fn wrong(text: &str, why: &str) -> Error {
    Error::new(Kind::Usage, format!("reading the vault's place {text:?}"), why)
        .hint("write s3://BUCKET/PREFIX or the path of a directory")
}

fn s3(rest: &str) -> Result<S3Place, String> {
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err("the bucket's name is missing".to_owned());
    }
    let mut place = S3Place {
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        ..S3Place::default()
    };
    for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
        match parameter.split_once('=').unwrap_or((parameter, "true")) {
            ("region", value) => place.region = Some(value.to_owned()),
            ("endpoint", value) => place.endpoint = Some(value.to_owned()),
            ("path_style", value) => place.path_style = value == "true",
            (other, _) => {
                let near = nearest(other, PARAMETERS).unwrap_or("region, endpoint or path_style");
                return Err(format!("unknown parameter `{other}`; did you mean {near}?"));
            }
        }
    }
    Ok(place)
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
