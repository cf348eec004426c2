//! From a place to an opened vault: which store it is, whether a vault is there, and whether this build may touch it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::decide::{self, Deciding, Decision};
use super::layout;
use super::store::fs::FsStore;
use super::store::s3::S3Store;
use super::store::{Key, SharedStore, Store, list_all};
use crate::clock::{Clock, SharedClock};
use crate::config::{Place, S3Place};
use crate::error::{Error, Kind, Result};

/// Opens the store of a place. Whether it holds a vault, [`open`] tells.
pub async fn open_store(place: &Place, clock: SharedClock) -> Result<SharedStore> {
    Ok(match place {
        Place::Fs { path, single_host } => Arc::new(FsStore::connect(path, *single_host)?),
        Place::S3(place) => Arc::new(S3Store::connect(place, clock).await),
    })
}

/// Reads what `--vault` takes: `s3://bucket/prefix?region=..&endpoint=..&path_style=true&kms_key=..`,
/// `file:///path?single_host=true`, or a path.
pub fn parse(text: &str) -> Result<Place> {
    let wrong = |why: String| {
        Error::new(Kind::Usage, format!("reading the vault's place {text:?}"), why).hint(
            "a vault is a path, file:///path, or s3://bucket/prefix?region=..&endpoint=..&path_style=true",
        )
    };
    if !text.contains("://") {
        return match text {
            "" => Err(wrong("it is empty".to_owned())),
            path if is_nearly_a_url(path) => {
                Err(wrong(format!("it is nearly a URL; a directory of that name is ./{path}")))
            }
            path => Ok(Place::Fs { path: path.into(), single_host: false }),
        };
    }
    let url = reqwest::Url::parse(text).map_err(|cause| wrong(cause.to_string()))?;
    let options = options(&url).map_err(wrong)?;
    match url.scheme() {
        "file" => fs_place(&url, options).map_err(wrong),
        "s3" => s3_place(&url, options).map_err(wrong),
        other => Err(wrong(format!("{other}:// is no kind of vault"))),
    }
}

/// `s3:/b`, `s3//b`, `file:x`: mistyped, and a vault made in a directory of that name would be one that nobody finds.
fn is_nearly_a_url(path: &str) -> bool {
    let lower = path.to_lowercase();
    let mut rests = ["s3", "file"].into_iter().filter_map(|scheme| lower.strip_prefix(scheme));
    rests.any(|rest| rest.starts_with(':') || rest.starts_with("//"))
}

type Options = BTreeMap<String, String>;

fn options(url: &reqwest::Url) -> Result<Options, String> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("credentials do not belong into a URL: use the environment or a profile".to_owned());
    }
    let mut options = Options::new();
    for (name, value) in url.query_pairs() {
        if options.insert(name.to_string(), value.to_string()).is_some() {
            return Err(format!("{name} is given twice"));
        }
    }
    Ok(options)
}

fn fs_place(url: &reqwest::Url, mut options: Options) -> Result<Place, String> {
    let path: PathBuf = url.to_file_path().map_err(|()| "it names no path of this machine".to_owned())?;
    let single_host = flag(&mut options, "single_host")?;
    none_left(&options, &["single_host"])?;
    Ok(Place::Fs { path, single_host })
}

fn s3_place(url: &reqwest::Url, mut options: Options) -> Result<Place, String> {
    let place = S3Place {
        bucket: url.host_str().filter(|bucket| !bucket.is_empty()).ok_or("it names no bucket")?.to_owned(),
        prefix: url.path().trim_matches('/').to_owned(),
        region: options.remove("region"),
        endpoint: options.remove("endpoint"),
        path_style: flag(&mut options, "path_style")?,
        kms_key: options.remove("kms_key"),
        object_lock: None,
    };
    none_left(&options, &["region", "endpoint", "path_style", "kms_key"])?;
    if url.port().is_some() {
        return Err("a port belongs to the endpoint: s3://bucket/prefix?endpoint=http://host:port".to_owned());
    }
    if !place.prefix.is_empty() && (!Key::is_valid(&place.prefix) || place.prefix.contains('%')) {
        return Err(
            "a prefix consists of printable ASCII without % \\ \" * ?, and of no empty part".to_owned()
        );
    }
    Ok(Place::S3(place))
}

fn flag(options: &mut Options, name: &str) -> Result<bool, String> {
    match options.remove(name).as_deref() {
        None | Some("false") => Ok(false),
        Some("true" | "") => Ok(true),
        Some(other) => Err(format!("{name} is true or false, not {other:?}")),
    }
}

fn none_left(options: &Options, known: &[&str]) -> Result<(), String> {
    let Some(unknown) = options.keys().next() else { return Ok(()) };
    let near = known.iter().max_by(|a, b| {
        let distance = |name: &str| strsim::jaro_winkler(unknown, name);
        distance(a).total_cmp(&distance(b))
    });
    Err(format!("there is no option {unknown:?}; did you mean {:?}?", near.unwrap_or(&"")))
}

/// `format/<n>.json`: which builds may do what here. Objects are never replaced, so a later build that needs more adds one;
/// the highest demands of all count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// The oldest format whose readers understand everything here.
    pub min_reader: u32,
    /// The oldest format whose writers do no harm.
    pub min_writer: u32,
    /// The oldest format whose deletions do no harm.
    pub min_deleter: u32,
    /// When it was written, by the writer's clock.
    pub created_at: Timestamp,
    /// Of this write.
    pub nonce: String,
}

impl Deciding for Format {
    fn nonce(&self) -> &str {
        &self.nonce
    }
}

impl Format {
    fn demand(&self, intent: Intent) -> u32 {
        match intent {
            Intent::Read => self.min_reader,
            Intent::Write => self.min_writer,
            Intent::Delete => self.min_deleter,
        }
    }
}

/// What somebody opens a vault for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Intent {
    /// Listing, verifying, restoring.
    Read,
    /// Backing up; everything that adds objects.
    Write,
    /// Retention and repair.
    Delete,
}

impl Intent {
    fn verb(self) -> &'static str {
        match self {
            Intent::Read => "reading from",
            Intent::Write => "writing to",
            Intent::Delete => "deleting from",
        }
    }
}

/// What `init` found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// No vault; now there is one.
    Created,
    /// A vault, made at that time.
    AlreadyThere(Timestamp),
}

/// Makes a vault where none is; harmless where one is.
pub async fn init(store: &dyn Store, clock: &dyn Clock) -> Result<Init> {
    let format = Format {
        min_reader: layout::FORMAT,
        min_writer: layout::FORMAT,
        min_deleter: layout::FORMAT,
        created_at: clock.now(),
        nonce: layout::nonce(),
    };
    let doing = || format!("making a vault at {}", store.location());
    let decision = decide::decide(store, clock, &layout::format(layout::FORMAT), &format).await;
    match decision.map_err(|error| error.while_doing(doing()))? {
        Decision::Ours => Ok(Init::Created),
        Decision::Theirs(format) => Ok(Init::AlreadyThere(format.created_at)),
    }
}

/// Checks that a vault is at `store`, and that this build may do there what is intended.
///
/// # Errors
/// `NotFound` where no vault is: a mistyped place must not look like an estate without backups. `Unsupported` where a
/// newer build has said that this one is too old.
pub async fn open(store: &dyn Store, intent: Intent) -> Result<Format> {
    let doing = || format!("opening the vault at {}", store.location());
    let formats = formats(store).await.map_err(|error| error.while_doing(doing()))?;
    let Some((key, format)) = formats.into_iter().max_by_key(|(_, format)| format.demand(intent)) else {
        return Err(Error::new(Kind::NotFound, doing(), "no vault is there")
            .hint("is the place typed right? `tidekeeper init` makes a new vault"));
    };
    let (demand, ours) = (format.demand(intent), layout::FORMAT);
    if demand > ours {
        let verb = intent.verb();
        let why = format!("{key} wants format {demand} for {verb} it; this tidekeeper knows format {ours}");
        return Err(Error::new(Kind::Unsupported, doing(), why).hint("use a newer tidekeeper"));
    }
    Ok(format)
}

async fn formats(store: &dyn Store) -> Result<Vec<(Key, Format)>> {
    let mut formats = Vec::new();
    for entry in list_all(store, &layout::formats()).await? {
        if let Some(format) = decide::read_json::<Format>(store, &entry.key).await? {
            formats.push((entry.key, format));
        }
    }
    Ok(formats)
}
