//! What `tidekeeper.yaml` says of a MongoDB: under `sources` and `targets` alike.
//!
//! ```yaml
//! mongodb:
//!   uri: mongodb://db-0.prod.svc:27017,db-1.prod.svc:27017/?replicaSet=rs0    # or mongodb+srv://; TLS is an option of it
//!   username: backup                       # instead of in the uri
//!   password_file: /run/secrets/mongodb    # or password: ${MONGODB_PASSWORD}; the file is read anew for each client
//!   timeline: true                         # follow the oplog, so that any second can be restored
//!   segment_every: 60s                     # so much is lost at most with the source: the RPO
//!   segment_max: 64MiB                     # or a segment is closed when it is so large
//!   prefer_secondary: true                 # read from a secondary where there is one
//! ```

use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::SourceName;
use crate::config::node::{Node, Problem};
use crate::config::secret::{Password, Secret};
use crate::config::shape;
use crate::config::units::{Period, Size};
use crate::vault::timeline::writer::Bounds;

/// A MongoDB as configured, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration.
    pub name: SourceName,
    /// Where it is and how it is spoken to; may hold a password.
    pub uri: Secret,
    /// Who logs in, where the uri does not say.
    pub username: Option<String>,
    /// Where the password is, where the uri does not hold it.
    pub password: Option<Password>,
    /// How its log is followed; none: it is not.
    pub timeline: Option<Bounds>,
    /// Whether a backup reads from a secondary where there is one.
    pub prefer_secondary: bool,
}

/// What is written, in the shape that the JSON Schema is made from.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// `mongodb://host:port,host:port/?replicaSet=NAME` or `mongodb+srv://name`; options as the drivers take them.
    uri: Secret,
    /// A user; else the uri may say it.
    #[serde(default)]
    username: Option<String>,
    /// The password; better `${ENV}` than in plain.
    #[serde(default)]
    password: Option<Secret>,
    /// A file with the password.
    #[serde(default)]
    password_file: Option<PathBuf>,
    /// Whether the oplog is followed, so that any second can be restored (default false).
    #[serde(default)]
    timeline: bool,
    /// How old a segment of the timeline may become before it is stored (default 60s).
    #[serde(default)]
    segment_every: Option<Period>,
    /// How large one may become (default 64MiB, before compression).
    #[serde(default)]
    segment_max: Option<Size>,
    /// Whether a backup reads from a secondary where there is one (default true).
    #[serde(default)]
    prefer_secondary: Option<bool>,
}

/// A segment that closes more often than this is mostly overhead.
const SHORTEST: Duration = Duration::from_secs(1);

/// A segment is held in memory, packed, until it is stored.
const LARGEST: u64 = 64 << 20;

/// Checks what is written; all problems at once.
pub fn read(name: &SourceName, node: &Node) -> Result<Settings, Vec<Problem>> {
    let part: Part = shape::read(node, "mongodb")?;
    let mut check = Check { node, problems: Vec::new() };
    check.uri(part.uri.expose());
    let bounds = check.bounds(part.segment_every, part.segment_max, part.timeline);
    let password = check.password(&part);
    if !check.problems.is_empty() {
        return Err(check.problems);
    }
    Ok(Settings {
        name: name.clone(),
        uri: part.uri,
        username: part.username,
        password,
        timeline: part.timeline.then_some(bounds),
        prefer_secondary: part.prefer_secondary.unwrap_or(true),
    })
}

/// The JSON Schema.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Part).to_value()
}

struct Check<'a> {
    node: &'a Node,
    problems: Vec<Problem>,
}

impl Check<'_> {
    /// No message repeats it, because it may hold a password. What it says in detail the driver reads when it connects.
    fn uri(&mut self, uri: &str) {
        let rest = uri.strip_prefix("mongodb://").or_else(|| uri.strip_prefix("mongodb+srv://"));
        let Some(rest) = rest else {
            return self.problem("uri", "expected mongodb://host:port or mongodb+srv://name");
        };
        let (place, options) = rest.split_once('?').unwrap_or((rest, ""));
        let hosts = place.split('/').next().unwrap_or_default();
        if hosts.rsplit('@').next().unwrap_or_default().is_empty() {
            self.problem("uri", "it names no host");
        }
        if place.split_once('/').is_some_and(|(_, db)| !db.is_empty()) && !options.contains("authSource") {
            self.problem(
                "uri",
                "a backup is of all databases; leave the one after the / away, or write authSource=",
            );
        }
    }

    fn bounds(&mut self, every: Option<Period>, max: Option<Size>, timeline: bool) -> Bounds {
        let mut bounds = Bounds::default();
        for (key, given) in [("segment_every", every.is_some()), ("segment_max", max.is_some())] {
            if given && !timeline {
                self.problem(key, "segments are only of a timeline: write timeline: true");
            }
        }
        if let Some(Period(every)) = every {
            if every < SHORTEST {
                self.problem("segment_every", "expected at least 1s");
            }
            bounds.age = every;
        }
        if let Some(Size(max)) = max {
            if max == 0 || max > LARGEST {
                self.problem("segment_max", "expected at most 64MiB, and more than nothing");
            }
            bounds.plain_bytes = max;
        }
        bounds
    }

    fn password(&mut self, part: &Part) -> Option<Password> {
        let in_uri =
            part.uri.expose().split_once("://").is_some_and(|(_, rest)| {
                rest.split('/').next().is_some_and(|authority| authority.contains('@'))
            });
        let given = part.password.is_some() || part.password_file.is_some();
        if in_uri && (given || part.username.is_some()) {
            self.problem("username", "the uri has a user too; keep one of the two");
        }
        if part.username.is_some() != given && !in_uri {
            let key = if given { "password" } else { "username" };
            self.problem(key, "username and password (or password_file) belong together");
        }
        let (password, file) = (part.password.clone(), part.password_file.clone());
        Password::of(self.node, "mongodb", password, file).unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        })
    }

    fn problem(&mut self, key: &str, message: &str) {
        self.problems.push(self.node.near(key).problem(format!("mongodb.{key}"), message));
    }
}
