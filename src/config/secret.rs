//! Text that is never shown.

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;

use super::node::{Node, Problem};
use crate::error::{Context, Error, Kind, Result};

/// The longest file that is taken for a secret, in bytes.
const FILE_MAX: u64 = 64 << 10;

/// A password, a token, a key. `Debug` does not show it, and it can be neither displayed nor serialised.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps what must not be shown.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// Reads a file such as a mounted Kubernetes Secret; the line ends at its end are not part of it.
    pub fn from_file(path: &Path) -> Result<Self> {
        let doing = || format!("reading the secret in {}", path.display());
        let length = std::fs::metadata(path).doing(doing())?.len();
        if length > FILE_MAX {
            let why = format!("it has {length} bytes, more than the {FILE_MAX} of any secret");
            return Err(
                Error::new(Kind::Config, doing(), why).hint("name a file that holds the secret alone")
            );
        }
        let text = std::fs::read_to_string(path).doing(doing())?;
        match text.trim_end_matches(['\r', '\n']) {
            "" => Err(Error::new(Kind::Config, doing(), "the file is empty").hint(
                "write the secret into it; where it is mounted, is the key of the Kubernetes Secret right?",
            )),
            secret => Ok(Secret::new(secret)),
        }
    }

    /// The text, for the one place that sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// Where a password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// The configuration.
    Given(Secret),
    /// This file, read whenever somebody logs in, so that a rotated Secret needs no restart.
    File(PathBuf),
}

impl Password {
    /// What the keys `password` and `password_file` of `node` say, which is called `path`; only one of them may.
    pub fn of(
        node: &Node,
        path: &str,
        password: Option<Secret>,
        file: Option<PathBuf>,
    ) -> Result<Option<Self>, Problem> {
        match (password, file) {
            (Some(_), Some(_)) => {
                let message = "password is given too; keep one of the two";
                Err(node.near("password_file").problem(format!("{path}.password_file"), message))
            }
            (Some(secret), None) => Ok(Some(Password::Given(secret))),
            (None, Some(file)) => Ok(Some(Password::File(node.span.beside(&file)))),
            (None, None) => Ok(None),
        }
    }

    /// The password now.
    pub fn read(&self) -> Result<Secret> {
        match self {
            Password::Given(secret) => Ok(secret.clone()),
            Password::File(path) => Secret::from_file(path),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl JsonSchema for Secret {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Secret".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "password", "writeOnly": true })
    }
}
