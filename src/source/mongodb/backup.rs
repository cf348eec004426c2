//! Backs up: a survey, all collections, and as much of the oplog as it takes to bring them to one moment.
//!
//! `E` is the place in the log at which the backup is exact once its own `oplog.bson` is applied; a timeline goes on from there.
//! With a snapshot, all collections are of `T` = `E`, and `oplog.bson` holds what transactions had written that were in
//! progress at `T`. Without, collections are of any moments between the newest entry before the first was read and `E`, the
//! newest after the last was.

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::client::{Link, Server};
use super::config::Settings;
use super::consistency;
use super::dump::{self, Dumped, Plan};
use super::metadata::{self, PRELUDE};
use super::oplog::tail;
use super::optime::OpTime;
use super::ranges::{Concern, RANGE};
use super::record::{self, Extent, Recorded};
use super::survey::{Collection, Survey, survey};
use crate::clock::aloud;
use crate::error::{Error, Kind, Result};
use crate::task::Task;
use crate::vault::manifest::{Consistency, Contents, Counts, Level, Omission, Origin};
use crate::vault::writer::{BackupWriter, Capture, LogPoint};

/// So many small artifacts are stored at the same time.
const METADATA_AT_ONCE: usize = 4;

/// So often a survey is repeated because somebody changed a collection while the moment was chosen.
const SURVEYS: usize = 3;

/// What is known of the log before anything is read.
#[derive(Clone, Copy, Debug)]
struct Start {
    /// The newest entry before the first collection was looked at.
    newest: OpTime,
    /// What is written down begins here: with the oldest transaction in progress, or with `newest`.
    from: OpTime,
}

/// What is read, and at which moment.
struct Chosen {
    survey: Survey,
    log: Option<Start>,
    snapshot: Option<OpTime>,
}

impl Chosen {
    /// What is dumped holds all up to here.
    fn apply_from(&self, log: Start) -> OpTime {
        self.snapshot.unwrap_or(log.newest)
    }
}

/// Backs up all of it.
pub async fn capture(settings: &Settings, task: &Task, out: &BackupWriter) -> Result<Capture> {
    capture_by(settings, RANGE, task, out).await
}

/// As [`capture`], with ranges of about so many bytes.
pub async fn capture_by(settings: &Settings, range: u64, task: &Task, out: &BackupWriter) -> Result<Capture> {
    task.step("survey");
    let link = Link::open(settings, &task.clock).await?;
    let began = task.clock.now();
    let tell = || {
        if let Some(why) = link.away() {
            task.step(&format!("wait: {why}"));
        }
    };
    let (server, chosen) = task.guard(aloud(&*task.clock, choose(&link, task), tell)).await?;
    task.step("dump");
    task.progress
        .set_total(chosen.survey.collections.iter().filter_map(|one| Some(one.data.as_ref()?.bytes)).sum());
    let (dumped, recorded, exact_at) = task.guard(read(&link, &chosen, range, task, out)).await?;
    task.step("metadata");
    task.guard(describe(&server, &chosen.survey.collections, out)).await?;
    task.progress.done(task.clock.monotonic());
    let taken = Taken { link: &link, server: &server, chosen: &chosen, dumped, recorded, exact_at };
    taken.capture(began, task.clock.now())
}

/// Looks at the log first, then at what there is, then chooses a moment: what happens in between is in the log.
async fn choose(link: &Link, task: &Task) -> Result<(Server, Chosen)> {
    let server = Server::ask(link).await?;
    let (log, refused) = log(link, &server, task).await?;
    let mut found = survey(link, &server).await?;
    let mut snapshot = None;
    // A server that reads at no moment need not be asked for the newest one.
    if consistency::snapshot(link, &server, &found, log.map(|log| log.newest)).await?.is_some() {
        (found, snapshot) = settle(link, &server, found, log.is_some(), task).await?;
    }
    found.omissions.extend(refused);
    Ok((server, Chosen { survey: found, log, snapshot }))
}

/// What there was at a moment; none if somebody changes collections all the time.
async fn settle(
    link: &Link,
    server: &Server,
    mut found: Survey,
    has_log: bool,
    task: &Task,
) -> Result<(Survey, Option<OpTime>)> {
    for _ in 0..SURVEYS {
        let newest = match has_log {
            true => tail::newest(link, task).await?.map(|(at, _)| at),
            false => None,
        };
        let Some(at) = consistency::snapshot(link, server, &found, newest).await? else {
            return Ok((found, None));
        };
        // What was created, dropped or changed between the survey and the moment would be in neither.
        let again = survey(link, server).await?;
        if again.collections == found.collections {
            return Ok((found, Some(at)));
        }
        found = again;
    }
    Ok((found, None))
}

/// Where the log stands. A standalone server keeps none, and a router shows none.
async fn log(link: &Link, server: &Server, task: &Task) -> Result<(Option<Start>, Option<Omission>)> {
    if server.set.is_none() {
        return Ok((None, None));
    }
    let asked = async {
        let Some((newest, _)) = tail::newest(link, task).await? else { return Ok(None) };
        let open_since = tail::open_since(link, task).await?;
        Ok(Some(Start { newest, from: record::begin(link, newest, open_since, task).await? }))
    };
    match asked.await {
        Ok(log) => Ok((log, None)),
        Err(error) if Error::kind(&error) == Kind::Denied => {
            let why = format!(
                "{}: collections may be of different moments; grant the user the role backup on admin",
                error.why()
            );
            Ok((None, Some(Omission { what: "the oplog".to_owned(), why })))
        }
        Err(error) => Err(error),
    }
}

/// Reads the collections, and beside them the log.
async fn read(
    link: &Link,
    chosen: &Chosen,
    range: u64,
    task: &Task,
    out: &BackupWriter,
) -> Result<(Dumped, Recorded, Option<OpTime>)> {
    let fallback = match (chosen.log, chosen.snapshot) {
        (Some(log), snapshot) => Concern::After(snapshot.unwrap_or(log.newest)),
        (None, Some(_)) => Concern::Majority,
        (None, None) => Concern::Local,
    };
    let plan = Plan {
        collections: chosen.survey.collections.clone(),
        concern: chosen.snapshot.map_or(fallback, Concern::Snapshot),
        fallback,
        range,
    };
    let (extent, wanted) = watch::channel(match (chosen.log, chosen.snapshot) {
        (None, _) => Extent::Nothing,
        (Some(log), Some(at)) if log.from == at => Extent::Nothing,
        (Some(_), Some(at)) => Extent::Until(at),
        (Some(_), None) => Extent::Open,
    });
    let recording = async {
        match chosen.log {
            Some(log) => record::record(link, log.from, chosen.apply_from(log), wanted, task, out).await,
            None => Ok(Recorded::default()),
        }
    };
    let dumping = async {
        // Dropped at the end: then nobody wants more of the log.
        let extent = extent;
        let dumped = dump::dump(link, plan, &extent, task, out).await?;
        let exact_at = match (chosen.log, chosen.snapshot) {
            (None, _) => None,
            (Some(_), Some(at)) if dumped.is_exact => Some(at),
            (Some(log), _) => Some(tail::newest(link, task).await?.map_or(log.newest, |(at, _)| at)),
        };
        if let (false, Some(exact_at)) = (dumped.is_exact, exact_at) {
            extent.send_replace(Extent::Until(exact_at));
        }
        Ok::<_, Error>((dumped, exact_at))
    };
    let ((dumped, exact_at), recorded) = tokio::try_join!(dumping, recording)?;
    // What came while the newest record was asked for may be written down too.
    let exact_at = exact_at.max(recorded.last);
    Ok((dumped, recorded, exact_at))
}

/// Writes what is beside the documents.
async fn describe(server: &Server, collections: &[Collection], out: &BackupWriter) -> Result<()> {
    let store = async |name: String, text: String| {
        let mut artifact = out.artifact(&name, metadata::MEDIA_TYPE)?;
        artifact.write(Bytes::from(text)).await?;
        artifact.finish().await.map(drop)
    };
    let mut texts = vec![(PRELUDE.to_owned(), metadata::prelude(server))];
    for collection in collections {
        let name = format!("{}.metadata.json", collection.namespace.file_stem());
        texts.push((name, metadata::text(collection)?));
    }
    let stored: Vec<_> = texts.into_iter().map(|(name, text)| store(name, text)).collect();
    stream::iter(stored).buffer_unordered(METADATA_AT_ONCE).try_collect::<Vec<()>>().await?;
    Ok(())
}

/// All that is known at the end.
struct Taken<'a> {
    link: &'a Link,
    server: &'a Server,
    chosen: &'a Chosen,
    dumped: Dumped,
    recorded: Recorded,
    exact_at: Option<OpTime>,
}

impl Taken<'_> {
    fn capture(self, began: Timestamp, ended: Timestamp) -> Result<Capture> {
        let omissions = self.omissions()?;
        let identity = self.server.log_identity();
        let log = identity.clone().zip(self.exact_at);
        Ok(Capture {
            origin: Some(Origin {
                endpoint: self.link.endpoint.clone(),
                version: Some(self.server.version.clone()),
                identity,
            }),
            consistency: Some(self.consistency(began, ended)),
            contents: self.contents(),
            details: Map::new(),
            omissions,
            log: log.map(|(identity, at)| LogPoint { identity, position: at.position() }),
        })
    }

    /// # Errors
    /// If a collection was renamed while others were read: its documents may be in under either name, or in part, and the log
    /// tells only that it has another name now.
    fn omissions(&self) -> Result<Vec<Omission>> {
        let mut omissions = self.chosen.survey.omissions.clone();
        if self.chosen.log.is_none() {
            let why = "it was dropped, renamed or made anew while it was read, and there is no oplog to tell";
            let cut = self.dumped.cut.iter();
            omissions
                .extend(cut.map(|namespace| Omission { what: namespace.to_string(), why: why.to_owned() }));
        }
        match self.recorded.renamed.first().filter(|_| !self.dumped.is_exact) {
            None => Ok(omissions),
            Some(namespace) => {
                let why = format!("{namespace} was renamed while collections were read");
                Err(Error::new(Kind::Conflict, "dumping", why)
                    .hint("the next try reads it under its new name")
                    .retryable(true))
            }
        }
    }

    fn snapshot(&self) -> Option<OpTime> {
        self.chosen.snapshot.filter(|_| self.dumped.is_exact)
    }

    /// What the data holds already: replay begins behind it.
    fn apply_from(&self) -> Option<OpTime> {
        Some(self.chosen.apply_from(self.chosen.log?))
    }

    fn consistency(&self, began: Timestamp, ended: Timestamp) -> Consistency {
        let (level, at, from, to) = match (self.snapshot(), self.apply_from(), self.exact_at) {
            (Some(at), _, _) => (Level::PointInTime, Some(at.moment()), None, None),
            (None, Some(from), Some(to)) => (Level::LogBounded, None, Some(from.moment()), Some(to.moment())),
            _ => (Level::PerType, None, Some(began), Some(ended)),
        };
        let optime = self.exact_at.or(self.snapshot());
        let position = optime.map(|at| ("optime".to_owned(), at.to_string()));
        Consistency { level, at, from, to, position: position.into_iter().collect() }
    }

    fn contents(&self) -> Contents {
        let tallies = &self.dumped.tallies;
        let counted = tallies.iter().map(|(namespace, tally)| {
            let digest = Some(tally.digest());
            (namespace.to_string(), Counts { items: tally.items, digest, ..Counts::default() })
        });
        let text = |at: Option<OpTime>| at.map(|at| at.to_string());
        let facts = json!({
            "consistency": if self.snapshot().is_some() { "snapshot" } else { "fuzzy" },
            "apply_from": text(self.apply_from()),
            "exact_at": text(self.exact_at),
            "oplog_from": text(self.recorded.from),
            "server_version": self.server.version,
            "collections": self.chosen.survey.collections.len(),
            "bytes": tallies.values().map(|tally| tally.bytes).sum::<u64>(),
            "note": self.chosen.log.is_none().then_some("no oplog: nothing can be restored but the backup itself"),
        });
        Contents {
            items: tallies.values().map(|tally| tally.items).sum(),
            namespaces: counted.collect(),
            facts: match facts {
                Value::Object(facts) => facts,
                _ => Map::new(),
            },
        }
    }
}
