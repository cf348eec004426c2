//! Looks at a Redis for `check`: what a backup would capture, which rights are missing, and what that costs.
//!
//! Nothing here has an effect on the server. Rights are found by trying, since only administrators may ask for them.

use futures_util::{StreamExt, stream};

use super::address::Address;
use super::cluster::{Shard, Topology};
use super::config::{Place, Settings};
use super::connection::{Connection, MASTERLESS};
use super::hello::{Hello, Mode};
use super::origin;
use super::reply::{self, Reply};
use super::sentinel;
use super::server::Info;
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::source::{Finding, Inspection};
use crate::task::Task;
use crate::vault::manifest::Omission;

/// How many nodes of a cluster are asked at the same time.
const NODES_AT_ONCE: usize = 8;

/// The default `repl-diskless-sync-delay` is 5 s; from so many on it is worth a word.
const DELAY_NOTABLE: u64 = 30;

/// Looks.
pub async fn inspect(settings: &Settings, task: &Task) -> Result<Inspection> {
    task.guard(async {
        let (address, mut findings) = find(settings, &task.clock).await?;
        let mut node = look(&address, settings, &task.clock).await?;
        findings.append(&mut node.findings);
        let mut inspection = Inspection {
            server: node.hello.server.clone(),
            endpoint: address.to_string(),
            captures: captures(node.hello.mode),
            omits: omits(),
            findings,
            bytes: node.bytes,
        };
        match node.topology {
            Some(topology) => shards(&topology, settings, &task.clock, &mut inspection).await,
            None => inspection.findings.extend(origin_of(settings, &node)),
        }
        Ok(inspection)
    })
    .await
}

/// What a look at one server has found.
struct Node {
    hello: Hello,
    /// Nothing without the right +info.
    info: Option<Info>,
    topology: Option<Topology>,
    bytes: Option<u64>,
    /// Whether a Sentinel watches it; unknown without a right.
    watched: Option<bool>,
    findings: Vec<Finding>,
}

async fn find(settings: &Settings, clock: &SharedClock) -> Result<(Address, Vec<Finding>)> {
    match &settings.place {
        Place::Fixed(address) => Ok((address.clone(), Vec::new())),
        Place::Sentinel(sentinel) => {
            let watched = sentinel::find(sentinel, clock).await?;
            let what = format!(
                "the Sentinels name {} as the master of {}, with {} replicas in touch with it",
                watched.master,
                sentinel.master,
                watched.replicas.len()
            );
            Ok((watched.master, vec![Finding::ok(what)]))
        }
    }
}

async fn look(address: &Address, settings: &Settings, clock: &SharedClock) -> Result<Node> {
    let mut connection = Connection::open(address, &settings.access, clock).await?;
    let hello = Hello::ask(&mut connection).await?;
    hello.expect_data(&connection)?;
    let mut findings = vec![Finding::ok(format!("{address} answers: {}", described(&hello)))];
    findings.extend(replication_rights(&mut connection).await?);
    let info = info(&mut connection, &mut findings).await?;
    let watched = watched(&mut connection).await?;
    let topology = match hello.mode {
        Mode::Cluster => match origin::topology(&mut connection, settings).await {
            Ok(topology) => Some(topology),
            Err(error) => {
                let advice = "without it no shard but this one is found, and a backup fails";
                findings.push(Finding::error(error.to_string(), advice));
                Some(Topology::default())
            }
        },
        _ => None,
    };
    findings.extend(settings_of_server(&mut connection).await?);
    connection.close().await;
    if let Some(info) = &info {
        findings.extend(state(info));
    }
    let bytes = info.as_ref().and_then(|info| info.number("used_memory"));
    Ok(Node { hello, info, topology, bytes, watched, findings })
}

fn described(hello: &Hello) -> String {
    let role = if hello.replica { "a replica" } else { "a master" };
    match hello.mode {
        Mode::Cluster => format!("{}, {role} in a cluster", hello.server),
        _ => format!("{}, {role}", hello.server),
    }
}

/// Tries what a backup needs. A `PSYNC` in one packet behind a `PING` is refused, because the answer to the `PING` is
/// still pending (`syncCommand` in `replication.c`); but only after the rights were looked at.
async fn replication_rights(connection: &mut Connection) -> Result<Vec<Finding>> {
    let mut missing = Vec::new();
    if !origin::permitted(connection, &["REPLCONF", "capa", "eof"]).await? {
        missing.push("+replconf");
    }
    let both = [reply::command(&["PING"]), reply::command(&["PSYNC", "?", "-1"])].concat();
    connection.send("PING and PSYNC", &both).await?;
    let ping = connection.reply("PING", super::replica::SILENCE).await?;
    let psync = connection.reply("PSYNC", super::replica::SILENCE).await?;
    if is_refused(&ping) {
        missing.push("+ping");
    }
    if is_refused(&psync) {
        missing.push("+psync");
    }
    if !missing.is_empty() {
        let what = format!("the user lacks {}", missing.join(" "));
        let advice = format!("no backup is possible. Run `ACL SETUSER USER {}`", missing.join(" "));
        return Ok(vec![Finding::error(what, advice)]);
    }
    Ok(vec![match psync {
        Reply::Error(text) if text.contains("unknown command") => Finding::error(
            "this server has no PSYNC",
            "no backup is possible. Hosted servers hide it: use the provider's own snapshots",
        ),
        Reply::Error(text) if text.starts_with("NOMASTERLINK") => {
            Finding::error(text, format!("no backup is possible: {MASTERLESS}"))
        }
        Reply::Error(text) if text.starts_with("LOADING") => {
            Finding::error(text, "no backup is possible until that has passed")
        }
        _ => Finding::ok("the user may replicate"),
    }])
}

fn is_refused(reply: &Reply) -> bool {
    matches!(reply, Reply::Error(text) if text.starts_with("NOPERM"))
}

async fn info(connection: &mut Connection, findings: &mut Vec<Finding>) -> Result<Option<Info>> {
    let Some(reply) = connection.try_ask(&["INFO"]).await? else {
        let advice = "no replica is found to back up from, so the master pays the fork; and its memory is not looked \
                      at. Run `ACL SETUSER USER +info`";
        findings.push(Finding::warning("the user lacks +info", advice));
        return Ok(None);
    };
    Ok(Some(Info::read(&reply.text().unwrap_or_default())))
}

/// Sentinels subscribe to a channel of the masters they watch.
async fn watched(connection: &mut Connection) -> Result<Option<bool>> {
    let reply = connection.try_ask(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]).await?;
    Ok(reply.map(|reply| matches!(reply.items().get(1), Some(Reply::Integer(1..)))))
}

async fn settings_of_server(connection: &mut Connection) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let Some(diskless) = setting(connection, "repl-diskless-sync").await? else {
        let advice = "its replication settings are not looked at. Run `ACL SETUSER USER +config|get`";
        return Ok(vec![Finding::warning("the user lacks +config|get", advice)]);
    };
    if diskless == "no" {
        let advice = "each backup writes a whole RDB to the server's `dir` and replaces its dump.rdb: see that there is \
                      room for two, or set repl-diskless-sync yes";
        findings.push(Finding::warning("repl-diskless-sync is no", advice));
    }
    let delay =
        setting(connection, "repl-diskless-sync-delay").await?.and_then(|text| text.parse::<u64>().ok());
    if let Some(delay) = delay.filter(|delay| diskless == "yes" && *delay > 0) {
        let what = format!("repl-diskless-sync-delay is {delay}: the first byte comes after so many seconds");
        findings.push(match delay >= DELAY_NOTABLE {
            true => Finding::warning(what, "each backup takes so much longer"),
            false => Finding::ok(what),
        });
    }
    if setting(connection, "rdbchecksum").await?.as_deref() == Some("no") {
        let advice =
            "what the server's disk or memory breaks is not seen; set rdbchecksum yes and restart it";
        findings.push(Finding::warning("rdbchecksum is no", advice));
    }
    Ok(findings)
}

async fn setting(connection: &mut Connection, name: &str) -> Result<Option<String>> {
    let reply = connection.try_ask(&["CONFIG", "GET", name]).await?;
    Ok(reply.and_then(|pair| pair.items().get(1)?.text()))
}

/// What `INFO` says that matters to a backup.
fn state(info: &Info) -> Vec<Finding> {
    let mut findings = Vec::new();
    let used = info.number("used_memory").unwrap_or_default();
    let total = info.number("total_system_memory").unwrap_or_default();
    if total > 0 && used > total / 2 {
        let advice = "while a backup's fork lives, every page that is written is copied: under heavy writes it may run \
                      out of memory. Back up from a replica, or give it more";
        findings.push(Finding::warning(
            format!("it uses {used} of {total} bytes of its machine's memory"),
            advice,
        ));
    }
    if info.text("loading") == "1" {
        findings.push(Finding::error("it is loading its data", "a backup waits until it has"));
    }
    if info.text("rdb_last_bgsave_status") == "err" {
        findings.push(Finding::warning(
            "its last BGSAVE failed",
            "look into its log: disk full, or no memory for a fork?",
        ));
    }
    findings
}

/// From whom a backup would be taken, and what that means.
fn origin_of(settings: &Settings, node: &Node) -> Vec<Finding> {
    let replicas = node.info.as_ref().map(origin::in_sync).unwrap_or_default();
    if node.hello.replica {
        return vec![Finding::ok("a backup is taken from this replica")];
    }
    if settings.prefer_replica && !replicas.is_empty() {
        return vec![Finding::ok(format!("a backup is taken from the replica {}", replicas[0]))];
    }
    let mut findings = vec![Finding::ok("a backup is taken from the master, which pays the fork")];
    if node.watched == Some(true) || matches!(settings.place, Place::Sentinel(_)) {
        findings.push(Finding::warning(
            "Sentinels watch this master",
            "while a backup runs they take us for a replica (port 0) and remember it until `SENTINEL RESET`: back up \
             from a replica (prefer_replica: true)",
        ));
    }
    findings
}

async fn shards(topology: &Topology, settings: &Settings, clock: &SharedClock, inspection: &mut Inspection) {
    let looks: Vec<_> = topology.shards.iter().map(|shard| reach(shard, settings, clock)).collect();
    let looks: Vec<_> = stream::iter(looks).buffered(NODES_AT_ONCE).collect().await;
    let sizes = looks.iter().map(|look| look.as_ref().ok().and_then(|(_, bytes)| *bytes));
    inspection.bytes = sizes.sum();
    for (shard, look) in topology.shards.iter().zip(looks) {
        let name = shard.artifact();
        inspection.findings.push(match look {
            Ok((address, _)) => Finding::ok(format!("{name}: taken from {address}")),
            Err(error) => {
                Finding::error(format!("{name}: {error}"), "a backup is partial: these slots are not in it")
            }
        });
    }
    for range in topology.unserved() {
        let advice = "repair the cluster: `redis-cli --cluster fix HOST:PORT`";
        inspection.findings.push(Finding::error(format!("slots {range} are served by no node"), advice));
    }
    if !topology.moving.is_empty() {
        let what = format!("{} slots are moving between shards", topology.moving.len());
        inspection
            .findings
            .push(Finding::warning(what, "a backup now is partial: keys of theirs may be missing"));
    }
}

/// The first server of a shard that answers, and how much it holds.
async fn reach(shard: &Shard, settings: &Settings, clock: &SharedClock) -> Result<(Address, Option<u64>)> {
    let mut last = Error::new(Kind::NotFound, "looking for a server", "the shard has none");
    for copy in origin::copies_of(shard, settings.prefer_replica).servers {
        let looked = async {
            let mut connection = Connection::open(&copy.address, &settings.access, clock).await?;
            if !origin::permitted(&mut connection, &["REPLCONF", "capa", "eof"]).await? {
                let doing = format!("trying REPLCONF at {}", copy.address);
                return Err(Error::new(Kind::Denied, doing, "the user lacks +replconf")
                    .hint("`tidekeeper permissions` prints the rights that are needed"));
            }
            let memory = connection.try_ask(&["INFO", "memory"]).await?.and_then(|reply| reply.text());
            connection.close().await;
            Ok(memory.and_then(|text| Info::read(&text).number("used_memory")))
        };
        match looked.await {
            Ok(bytes) => return Ok((copy.address, bytes)),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn captures(mode: Mode) -> Vec<String> {
    let mut captures = vec![
        "all keys of all databases with their times to live, and function libraries".to_owned(),
        "what modules write into an RDB".to_owned(),
    ];
    if mode == Mode::Cluster {
        captures
            .push("one RDB per shard, and the map of slots; there is no instant across shards".to_owned());
    }
    captures
}

fn omits() -> Vec<Omission> {
    let omission =
        |what: &str| Omission { what: what.to_owned(), why: "it is not part of an RDB".to_owned() };
    ["ACL users", "CONFIG settings", "scripts of SCRIPT LOAD", "the configuration of Sentinels and clusters"]
        .map(omission)
        .to_vec()
}
