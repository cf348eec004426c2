//! `tidekeeper.yaml` and `schedules/*.yaml`.

mod golden;
mod good;
mod schema;
mod shape;
mod text;
mod units;
mod vault;

use std::path::Path;

use schemars::JsonSchema;
use serde::Deserialize;
use tidekeeper::config::secret::Secret;
use tidekeeper::config::{self, Config, Known};
use tidekeeper::error::Error;

/// Two kinds of sources, so that these tests know no real one.
const KINDS: [&str; 2] = ["redis", "mongodb"];

/// The part of either kind.
#[derive(Debug, Deserialize, JsonSchema)]
#[allow(dead_code)]
struct Part {
    url: String,
    #[serde(default)]
    password: Option<Secret>,
}

fn load(file: &Path) -> Result<Config, Error> {
    with_known(|known| config::load(file, known))
}

fn with_known<T>(load: impl FnOnce(Known<'_>) -> T) -> T {
    let env = |name: &str| match name {
        "BUCKET" => Some("bucket".to_owned()),
        "THREE" => Some("3".to_owned()),
        "PASSWORD" => Some("hunter2".to_owned()),
        _ => None,
    };
    let mut part = |entry: &config::Entry| {
        config::shape::read::<Part>(&entry.part, &entry.kind).map(drop).err().unwrap_or_default()
    };
    load(Known { kinds: &KINDS, env: &env, part: &mut part })
}
