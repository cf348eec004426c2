//! Looks at a MongoDB for `check`: what a backup would capture, which rights are missing, and what that costs.
//!
//! Nothing here has an effect on the server. Rights are found by trying.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt, stream};
use mongodb::bson::rawdoc;

use super::client::{Link, Server};
use super::config::Settings;
use super::consistency;
use super::cursor;
use super::failure::failing;
use super::oplog::tail;
use super::optime::OpTime;
use super::survey::{Data, Survey, survey};
use crate::error::{Error, Kind, Result};
use crate::source::{Finding, Inspection, Severity};
use crate::task::Task;

/// So many databases are looked into at the same time.
const AT_ONCE: usize = 8;

/// Before this release, nobody reads many collections at one moment.
const OLDEST_TESTED: (u32, u32) = (5, 0);

/// An oplog that holds less than a day loses the timeline in an outage over night.
const WINDOW_NOTABLE_H: f64 = 24.0;

/// Looks.
pub async fn inspect(settings: &Settings, task: &Task) -> Result<Inspection> {
    task.guard(look(settings, task)).await
}

async fn look(settings: &Settings, task: &Task) -> Result<Inspection> {
    let link = Link::open(settings, &task.clock).await?;
    let server = Server::ask(&link).await?;
    let mut findings = vec![Finding::ok(format!("{} answers: {}", link.endpoint, described(&server)))];
    let (newest, of_log) = log(&link, &server, settings, task).await?;
    let mut inspection = Inspection {
        server: format!("MongoDB {}", server.version),
        endpoint: link.endpoint.clone(),
        ..Inspection::default()
    };
    match survey(&link, &server).await {
        Ok(found) => {
            findings.extend(of_server(&server));
            findings.extend(of_log);
            inspection.captures = captures(&found);
            inspection.bytes = Some(data(&found).map(|data| data.bytes).sum());
            findings.extend(readable(&link, &found).await);
            findings.extend(moment(&link, &server, &found, newest).await?);
            inspection.omits = found.omissions;
        }
        // Whatever else is missing is missing because of this.
        Err(error) if error.kind() == Kind::Denied => {
            findings.push(denied(&error, "neither a backup nor a timeline is possible"));
        }
        Err(error) => return Err(error),
    }
    inspection.findings = findings;
    Ok(inspection)
}

fn described(server: &Server) -> String {
    let role = match &server.set {
        Some(set) => format!("replica set {set} of {}", server.hosts.join(", ")),
        None if server.is_router => "a router of a sharded cluster".to_owned(),
        None => "a standalone server".to_owned(),
    };
    format!("MongoDB {}, {role}", server.version)
}

fn of_server(server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    if server.release() < OLDEST_TESTED {
        let what = format!("MongoDB {} is older than 5.0", server.version);
        findings.push(Finding::warning(what, "it is backed up without snapshot reads; nobody has tested it"));
    }
    if server.set.is_some() && server.set_id.is_none() {
        findings.push(Finding::warning(
            "the replica set's own id cannot be read",
            "its name stands for it: two sets of one name would be taken for one. Grant the role clusterMonitor",
        ));
    }
    findings
}

/// The oplog: whether it can be read, and how far it reaches back.
async fn log(
    link: &Link,
    server: &Server,
    settings: &Settings,
    task: &Task,
) -> Result<(Option<OpTime>, Vec<Finding>)> {
    let without_it = match settings.timeline {
        Some(_) => "the oplog cannot be read, so no timeline is possible",
        None => {
            "the oplog cannot be read: no restore to any second, and collections may be of different moments"
        }
    };
    let without = |what: &str| match settings.timeline {
        Some(_) => {
            Finding::error(what, "timeline: true needs an oplog: make it a replica set (of one member, say)")
        }
        None => {
            Finding::warning(what, "no restore to any second, and collections may be of different moments")
        }
    };
    if server.set.is_none() {
        let what =
            if server.is_router { "a router shows no oplog" } else { "a standalone server keeps no oplog" };
        return Ok((None, vec![without(what)]));
    }
    let asked = async {
        let newest = tail::newest(link, task).await?.map(|(at, _)| at);
        tail::open_since(link, task).await?;
        Ok((newest, tail::oldest(link, task).await?))
    };
    match asked.await {
        Ok((Some(newest), Some(oldest))) => {
            let finding = window(oldest, newest, is_whole(link).await?);
            Ok((Some(newest), vec![finding]))
        }
        Ok(_) => Ok((None, vec![without("the oplog is empty")])),
        Err(error) if Error::kind(&error) == Kind::Denied => {
            let mut finding = denied(&error, without_it);
            if settings.timeline.is_none() {
                finding.severity = Severity::Warning;
            }
            Ok((None, vec![finding]))
        }
        Err(error) => Err(error),
    }
}

/// How far back the log reaches, and what that means.
pub fn window(oldest: OpTime, newest: OpTime, is_whole: bool) -> Finding {
    let hours = f64::from(newest.seconds.saturating_sub(oldest.seconds)) / 3600.0;
    let what = format!("the oplog reaches back {hours:.1} h, to {}", oldest.moment());
    if hours >= WINDOW_NOTABLE_H || is_whole {
        return Finding::ok(what);
    }
    Finding::warning(
        what,
        "whoever follows it may be away no longer, and a dump may take no longer: make it larger, \
         db.adminCommand({ replSetResizeOplog: 1, minRetentionHours: 48 })",
    )
}

/// Whether the log still holds its very first entry, so that nothing was overwritten yet.
async fn is_whole(link: &Link) -> Result<bool> {
    let first = rawdoc! { "find": "oplog.rs", "sort": { "$natural": 1 }, "limit": 1, "singleBatch": true };
    let first =
        cursor::all(link, "local", first).await?.map_err(failing("reading the oldest entry of the oplog"))?;
    let message = first.first().and_then(|entry| entry.get_document("o").ok()?.get_str("msg").ok());
    Ok(message == Some("initiating set"))
}

fn data(found: &Survey) -> impl Iterator<Item = &Data> {
    found.collections.iter().filter_map(|one| one.data.as_ref())
}

fn captures(found: &Survey) -> Vec<String> {
    let dbs: BTreeSet<&str> = found.collections.iter().map(|one| one.namespace.db.as_str()).collect();
    let views = found.collections.iter().filter(|one| one.kind == "view").count();
    let users = found.collections.iter().any(|one| {
        one.namespace.db == "admin" && ["system.users", "system.roles"].contains(&&*one.namespace.collection)
    });
    let mut lines = vec![
        format!(
            "{} collections and {views} views of {} databases",
            found.collections.len() - views,
            dbs.len()
        ),
        "the options, the validator and all indexes of each".to_owned(),
    ];
    if users {
        lines.push("users and roles".to_owned());
    }
    lines
}

/// Tries to read one collection of each database.
async fn readable(link: &Link, found: &Survey) -> Vec<Finding> {
    let one_each: BTreeMap<&str, &Data> =
        data(found).map(|data| (data.namespace.db.as_str(), data)).collect();
    let count = one_each.len();
    let asks: Vec<_> = one_each.into_values().map(|data| read_one(link, data)).collect();
    let answers: Vec<Result<()>> = stream::iter(asks).buffer_unordered(AT_ONCE).collect().await;
    let errors = answers.into_iter().filter_map(Result::err);
    let refused: Vec<Finding> = errors.map(|error| denied(&error, "a backup fails on it")).collect();
    if refused.is_empty() { vec![Finding::ok(format!("{count} databases can be read"))] } else { refused }
}

async fn read_one(link: &Link, data: &Data) -> Result<()> {
    let find = rawdoc! {
        "find": data.namespace.collection.as_str(), "projection": { "_id": 1 }, "limit": 1, "singleBatch": true,
    };
    let read = cursor::all(link, &data.namespace.db, find).await?;
    read.map_err(failing(format!("reading {}", data.namespace))).map(drop)
}

async fn moment(
    link: &Link,
    server: &Server,
    found: &Survey,
    newest: Option<OpTime>,
) -> Result<Vec<Finding>> {
    Ok(vec![match consistency::snapshot(link, server, found, newest).await? {
        Some(_) => Finding::ok("all collections can be read at one moment (snapshot reads)"),
        None if newest.is_some() => Finding::ok(
            "no snapshot reads: the oplog that is written during a dump brings all collections to one moment",
        ),
        None => Finding::warning(
            "neither snapshot reads nor an oplog",
            "each collection is of a moment of its own; back up while nothing is written, or make it a replica set",
        ),
    }])
}

fn denied(error: &Error, cost: &str) -> Finding {
    let hint = error.hint_text().unwrap_or("`tidekeeper permissions` prints the roles that are needed");
    Finding::error(error.to_string(), format!("{cost}: {hint}"))
}
