//! Decides, from what a backup holds and what a server says of itself, how the data can get in and what speaks against it.
//!
//! Pure. The stakes: a database number, a type or a sum that a Redis does not like ends it (`exit(1)` in `rdb.c`), and
//! a version that it does not know empties it.

use serde::{Deserialize, Serialize};

use super::rdb::{Crc, Dialect};
use super::server::{Databases, Product, Server};
use super::survey::{Shard, Survey};
use super::wish::{Options, WishedWay};
use crate::source::Finding;

/// How the data gets into the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// We are its master for as long as one full synchronisation takes.
    Replication,
    /// We send `RESTORE` commands.
    RestoreCommands,
}

/// What is known of the road between the target and us.
#[derive(Clone, Debug, Default)]
pub struct Road {
    /// Whether the configuration says where the target finds us.
    pub advertised: bool,
    /// The address from which we reach the target.
    pub own_address: Option<std::net::IpAddr>,
    /// Whether our listener has a certificate.
    pub tls: bool,
}

/// What a pre-flight decides.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How.
    pub way: Way,
    /// Why so.
    pub reason: String,
    /// What was looked at.
    pub findings: Vec<Finding>,
}

/// A reason not to replicate.
struct Obstacle {
    what: String,
    advice: String,
    /// Whether the RESTORE way may be taken instead without asking: it brings all that replication would.
    avoidable: bool,
}

impl Obstacle {
    fn avoidable(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Obstacle { what: what.into(), advice: advice.into(), avoidable: true }
    }

    fn hard(what: impl Into<String>, advice: impl Into<String>) -> Self {
        Obstacle { what: what.into(), advice: advice.into(), avoidable: false }
    }
}

/// Judges.
pub fn judge(survey: &Survey, server: &Server, road: &Road, options: &Options) -> Verdict {
    let obstacles = against_replication(survey, server, road);
    let (way, reason) = choose(&obstacles, options);
    let mut findings = state(server);
    findings.extend(databases(survey, server));
    match way {
        Way::Replication => {
            findings
                .extend(obstacles.into_iter().map(|obstacle| Finding::error(obstacle.what, obstacle.advice)));
            findings.extend(replication_notes(server));
            findings.extend(memory(survey, server, holds_both(server)));
        }
        Way::RestoreCommands => {
            if options.way == WishedWay::Auto && options.keys.is_none() {
                let hard = obstacles.into_iter().filter(|obstacle| !obstacle.avoidable);
                findings.extend(hard.map(|obstacle| Finding::error(obstacle.what, obstacle.advice)));
            }
            findings.extend(restore_notes(survey, server));
            if options.keys.is_none() {
                findings.extend(memory(survey, server, false));
            }
        }
    }
    findings.extend(survey.shards.iter().filter_map(sum_note));
    Verdict { way, reason, findings }
}

fn choose(obstacles: &[Obstacle], options: &Options) -> (Way, String) {
    if options.keys.is_some() {
        return (Way::RestoreCommands, "only some keys are wanted".to_owned());
    }
    match options.way {
        WishedWay::Restore => (Way::RestoreCommands, "it was asked for".to_owned()),
        WishedWay::Replication => (Way::Replication, "it was asked for".to_owned()),
        WishedWay::Auto => match obstacles.iter().find(|obstacle| obstacle.avoidable) {
            Some(obstacle) => (Way::RestoreCommands, obstacle.what.clone()),
            None => (Way::Replication, "it is the fastest, and brings everything".to_owned()),
        },
    }
}

/// What forbids any restore.
fn state(server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    let name = server.to_string();
    if server.product == Product::Redis && server.version < (5, 0, 0) {
        findings.push(Finding::error(format!("the target is {name}"), "a restore needs 5.0 or later"));
    }
    if let Some((master, up)) = &server.follows {
        let link = if *up { "up" } else { "down" };
        let advice = format!(
            "is a restore into it running (`tidekeeper runs --state running`)? Then wait for it. Else restore into its \
             master. If {master} is gone, or was an earlier restore that was interrupted: send `REPLICAOF NO ONE` to \
             the target, then plan again"
        );
        findings.push(Finding::error(format!("the target is a replica of {master} (link {link})"), advice));
    }
    if server.loading {
        findings.push(Finding::error(
            "the target is loading a dataset",
            "wait until INFO says loading:0, then plan again",
        ));
    }
    if server.failover {
        findings
            .push(Finding::error("the target is in a failover", "wait until it has ended, then plan again"));
    }
    if findings.is_empty() {
        findings.push(Finding::ok(format!("the target is {name}, and takes writes")));
    }
    if server.replicas > 0 {
        findings.push(Finding::warning(
            format!("{} replicas follow the target", server.replicas),
            "they have the old data until they get the new, by a full synchronisation or by the commands",
        ));
    }
    findings
}

fn databases(survey: &Survey, server: &Server) -> Option<Finding> {
    let highest = survey.highest_db()?;
    if server.cluster && highest > 0 {
        let what = format!("the backup uses database {highest}, a cluster has only database 0");
        return Some(Finding::error(what, "restore into a server that is not a node of a cluster"));
    }
    let raise =
        format!("set `databases {}` or more in the target's configuration, and restart it", highest + 1);
    Some(match server.databases {
        Databases::Configured(count) if u64::from(highest) >= count => Finding::error(
            format!("the backup uses database {highest}, the target has {count} databases"),
            raise,
        ),
        Databases::Probed(db, false) => {
            Finding::error(format!("the backup uses database {db}, which the target has not"), raise)
        }
        Databases::Configured(_) | Databases::Probed(_, true) => {
            Finding::ok(format!("the target has database {highest}, the highest that the backup uses"))
        }
        Databases::Unknown => Finding::warning(
            format!("the target does not say whether it has database {highest}, which the backup uses"),
            "allow `+config|get` or `+select`: a target without it ends itself when it loads the data",
        ),
    })
}

fn against_replication(survey: &Survey, server: &Server, road: &Road) -> Vec<Obstacle> {
    let mut obstacles: Vec<Obstacle> = survey.shards.iter().flat_map(|shard| format(shard, server)).collect();
    obstacles.extend(topology(survey, server));
    obstacles.extend(network(server, road));
    obstacles
}

/// Formats and modules that the target cannot load.
fn format(shard: &Shard, server: &Server) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    let summary = &shard.summary;
    if !server.loads(summary.dialect, summary.version) {
        let family = if summary.dialect == Dialect::Valkey { "VALKEY" } else { "REDIS" };
        obstacles.push(Obstacle::hard(
            format!(
                "{} has format {family} {}, the target ({server}) loads only up to {}",
                shard.artifact.name, summary.version, server.newest_rdb
            ),
            "restore into a newer server, or with the option way=restore, which brings all values of types \
             that the target knows",
        ));
    }
    if summary.pre_release_functions > 0 {
        obstacles.push(Obstacle::hard(
            "the backup has functions as only pre-releases of 7.0 wrote them",
            "restore with the option way=restore, which leaves them out",
        ));
    }
    for (module, used) in &summary.modules {
        obstacles.extend(module_obstacle(module, used.values, server));
    }
    obstacles
}

/// An unknown module type ends a Redis that meets it, so a doubt is enough.
fn module_obstacle(module_type: &str, values: u64, server: &Server) -> Option<Obstacle> {
    let what = format!("the backup has data of the module type {module_type} ({values} keys)");
    let owner = module_of(module_type);
    match (&server.modules, owner) {
        (Some(loaded), Some(owner)) if owner.iter().any(|name| loaded.contains(*name)) => None,
        (Some(loaded), owner) if owner.is_some() || loaded.is_empty() => Some(Obstacle::hard(
            format!("{what}, and the target has no module for it"),
            format!(
                "load the module{} into the target, or restore with the option way=restore, which leaves \
                 these keys out",
                owner.map(|names| format!(" {}", names[0])).unwrap_or_default()
            ),
        )),
        _ => Some(Obstacle::avoidable(
            format!("{what}, and it cannot be told whether the target has a module for it"),
            "restore with the option way=restore: the target then refuses key by key what it does not know",
        )),
    }
}

/// Which modules bring a type, for those that are widely used.
fn module_of(module_type: &str) -> Option<&'static [&'static str]> {
    Some(match module_type {
        "ReJSON-RL" => &["ReJSON", "json"],
        "TSDB-TYPE" => &["timeseries"],
        "MBbloom--" | "MBbloomCF" | "CMSk-TYPE" | "TopK-TYPE" | "TDIS-TYPE" => &["bf"],
        "bloomfltr" => &["bf"],
        "ft_index0" | "ft_invidx" | "numericdx" | "trietype0" => &["search", "searchlight", "ft"],
        "graphdata" | "graphmeta" => &["graph"],
        "vectorset" => &["vectorset"],
        _ => return None,
    })
}

fn topology(survey: &Survey, server: &Server) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    if server.cluster {
        obstacles.push(Obstacle::avoidable(
            "the target is a node of a cluster, which refuses REPLICAOF",
            "leave way=replication out",
        ));
    }
    if survey.shards.len() > 1 {
        obstacles.push(Obstacle::avoidable(
            format!("the backup has {} shards, and a server can follow one master only", survey.shards.len()),
            "leave way=replication out",
        ));
    }
    if server.replicaof == Some(false) {
        obstacles.push(Obstacle::avoidable(
            "the target has no command REPLICAOF, as hosted servers have not",
            "leave way=replication out",
        ));
    }
    if server.sentinels.is_some_and(|count| count > 0) {
        obstacles.push(Obstacle::avoidable(
            "a Sentinel watches the target, and would fail over when it becomes a replica",
            "leave way=replication out, or take the target out of the Sentinels (SENTINEL REMOVE) for the \
             time of the restore",
        ));
    }
    obstacles
}

fn network(server: &Server, road: &Road) -> Vec<Obstacle> {
    let mut obstacles = Vec::new();
    if server.tls_replication == Some(true) && !road.tls {
        obstacles.push(Obstacle::avoidable(
            "the target replicates over TLS only (tls-replication), and we have no certificate to show it",
            "give the target's configuration here `tls` with `cert_file` and `key_file`, signed by its CA",
        ));
    }
    let translated = server.sees_us_at.zip(road.own_address).filter(|(seen, own)| seen != own);
    if let Some((seen, own)) = translated.filter(|_| !road.advertised) {
        obstacles.push(Obstacle::avoidable(
            format!(
                "addresses are translated on the way (the target sees us at {seen}, we are {own}), so it \
                 cannot dial us"
            ),
            "set `advertise` of the target to an address at which it reaches us",
        ));
    }
    obstacles
}

fn replication_notes(server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !server.config_readable {
        findings.push(Finding::warning(
            "the target's configuration may not be read",
            "allow `+config|get`: without it the password that the target logs in with at us is not compared",
        ));
    }
    match (server.diskless_load.as_deref(), server.is_empty()) {
        (_, true) => {}
        (Some("swapdb"), _) => {
            findings.push(Finding::ok("the old data is kept until the new is loaded (swapdb)"))
        }
        (Some(_), _) => findings.push(Finding::warning(
            "the target empties itself before it loads (repl-diskless-load is not swapdb)",
            "if it dies while loading, its data is the dump.rdb that it has just received; the RDB has to \
             fit on its disk, too",
        )),
        (None, _) => findings.push(Finding::warning(
            "it is not known whether the target keeps its old data until the new is loaded",
            "allow `+config|get`",
        )),
    }
    findings
}

fn restore_notes(survey: &Survey, server: &Server) -> Vec<Finding> {
    let mut findings = Vec::new();
    for shard in &survey.shards {
        let dialect = shard.summary.dialect;
        let unknown = |code: &usize| !server.knows_type(dialect, *code as u8);
        let strange: u64 = (0..256).filter(unknown).map(|code| shard.type_codes[code]).sum();
        if strange > 0 {
            findings.push(Finding::warning(
                format!("{strange} keys are written in ways that the target ({server}) does not know"),
                "they will be left out, and named; restore into a newer server to have them",
            ));
        }
        let too_long =
            shard.long_values.iter().filter(|(_, length)| length + PAYLOAD_FRAME > server.bulk_max);
        let too_long = too_long.count();
        if too_long > 0 {
            findings.push(Finding::warning(
                format!("{too_long} values are longer than RESTORE takes ({} bytes)", server.bulk_max),
                "they will be left out, and named; raise `proto-max-bulk-len` of the target, or replicate",
            ));
        }
        for (module, used) in &shard.summary.modules {
            if used.values == 0 {
                findings.push(Finding::warning(
                    format!("data that the module type {module} keeps beside the keys is left out"),
                    "build it anew (a search index, for example), or replicate",
                ));
            }
        }
    }
    findings
}

/// What a `RESTORE` payload has besides the value: its type byte, the version, the sum.
pub const PAYLOAD_FRAME: u64 = 1 + 2 + 8;

/// Whether old and new data are in memory at the same time.
fn holds_both(server: &Server) -> bool {
    server.diskless_load.as_deref() == Some("swapdb")
}

/// A replica ignores `maxmemory`, and evicts or refuses once it is promoted; so what does not fit is refused before.
fn memory(survey: &Survey, server: &Server, both: bool) -> Vec<Finding> {
    let Some(new) = survey.memory() else {
        return vec![Finding::warning(
            "the backup does not say how much memory its data took",
            "see for yourself that it fits into the target",
        )];
    };
    let old = if both && !server.is_empty() { server.memory_used } else { 0 };
    let need = new + old;
    let sum = match old {
        0 => format!("{} MiB", need >> 20),
        _ => {
            format!("{} MiB (the new data beside the old, because of repl-diskless-load swapdb)", need >> 20)
        }
    };
    let limits = [(server.memory_max, "maxmemory"), (server.memory_total, "the memory of its machine")];
    let broken: Vec<Finding> = limits
        .iter()
        .filter(|(limit, _)| *limit > 0 && need > *limit)
        .map(|(limit, name)| {
            Finding::error(
                format!("the data needs {sum}, and {name} of the target is {} MiB", limit >> 20),
                "give the target more memory, or restore some of the keys (keys=PATTERN)",
            )
        })
        .collect();
    if !broken.is_empty() {
        return broken;
    }
    match limits.iter().any(|(limit, _)| *limit > 0) {
        true => vec![Finding::ok(format!("the data needs {sum}, which the target has"))],
        false => vec![Finding::warning(
            format!("the data needs {sum}, and the target does not say how much it has"),
            "see for yourself that it fits",
        )],
    }
}

fn sum_note(shard: &Shard) -> Option<Finding> {
    let unsummed = matches!(shard.summary.crc, Crc::Absent | Crc::Disabled);
    unsummed.then(|| {
        Finding::warning(
            format!("{} carries no sum of its server (rdbchecksum no)", shard.artifact.name),
            "it is as it was received: our own hashes agree",
        )
    })
}
