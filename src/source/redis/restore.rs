//! Restores a backup into a running server or cluster: plans it, checks it again, does it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::address::Address;
use super::compare;
use super::config::Settings;
use super::connection::Connection;
use super::estate::{self, Estate};
use super::feed::{Feed, read_ahead};
use super::glob::Pattern;
use super::master::{Guest, Listener, Master, Offer, Patience, hex_40};
use super::pipeline::Pipeline;
use super::pipeline::encode::{Encoder, Rules, Skipped};
use super::preflight::{self, Road, Verdict, Way};
use super::rdb::Walker;
use super::replicate::{Follower, replicate};
use super::survey::{self, Shard, Survey};
use super::tls;
use super::wish::Options;
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::source::{Action, Check, Finding, Identity, RestorePlan, Restored, Severity, Target, Wish};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::manifest::{Contents, Omission};
use crate::vault::reader::BackupReader;

/// Emptying a server is one command, and takes as long as it takes.
const EMPTYING: Duration = Duration::from_secs(600);

/// The walker gets so much at once, so that what the encoder makes of it stays small too.
const PIECE: usize = 64 << 10;

/// A Redis, a Valkey or a cluster of them that is restored into.
#[derive(Debug)]
pub struct RedisTarget {
    settings: Settings,
    patience: Patience,
    /// The last backup that was walked: a restore follows its plan at once, and needs not walk again.
    surveyed: Mutex<Option<(BackupRef, Arc<Survey>)>>,
}

/// What a plan tells its execution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Spec {
    way: Way,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    keys: Option<String>,
    replace: bool,
}

impl RedisTarget {
    /// The target that these settings name; nothing is dialled.
    pub fn new(settings: Settings) -> Self {
        RedisTarget { settings, patience: Patience::default(), surveyed: Mutex::default() }
    }

    /// The same with other limits of patience.
    pub fn with_patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    async fn survey(&self, from: &BackupReader, task: &Task) -> Result<Arc<Survey>> {
        let backup = from.manifest.backup();
        let mut memo = self.surveyed.lock().await;
        if let Some((_, survey)) = memo.as_ref().filter(|(of, _)| *of == backup) {
            return Ok(survey.clone());
        }
        task.progress.step("preflight", task.clock.monotonic());
        let survey = Arc::new(survey::survey(from, task).await?);
        *memo = Some((backup, survey.clone()));
        Ok(survey)
    }

    async fn road(&self, address: &Address) -> Result<Road> {
        let tls = self.settings.access.tls.as_ref();
        Ok(Road {
            advertised: self.settings.advertise.is_some(),
            own_address: Some(estate::own_address(address).await?),
            tls: tls.is_some_and(|tls| tls.cert_file.is_some()),
        })
    }

    async fn judge(&self, survey: &Survey, estate: &Estate, options: &Options) -> Result<Verdict> {
        let road = self.road(&estate.address).await?;
        let mut verdict = preflight::judge(survey, &estate.server, &road, options);
        let uncovered = estate.slots.uncovered();
        if uncovered > 0 {
            verdict.findings.push(preflight::error(
                format!("{uncovered} slots of the cluster are held by no master"),
                "repair the cluster first: `redis-cli --cluster fix HOST:PORT`",
            ));
        }
        Ok(verdict)
    }
}

#[async_trait]
impl Target for RedisTarget {
    /// A server is its `run_id`: the same under all of its names, and another one after a restart, when it may hold
    /// other data than the plan was made for. A cluster is the least of its nodes' ids.
    async fn identity(&self, task: &Task) -> Result<Identity> {
        Ok(task.guard(Estate::ask(&self.settings, None, &task.clock)).await?.identity)
    }

    async fn plan_restore(
        &self,
        from: &BackupReader,
        at: Option<Timestamp>,
        wish: &Wish,
        task: &Task,
    ) -> Result<RestorePlan> {
        let options = Options::read(wish)?;
        let backup = from.manifest.backup();
        // The server is asked first: one that is not there need not wait for a walk of the whole backup.
        let identity = self.identity(task).await?;
        let survey = match self.survey(from, task).await {
            Err(error) if error.kind() == Kind::Unsupported => return Ok(refused(backup, at, identity, &error)),
            survey => survey?,
        };
        let estate = task.guard(Estate::ask(&self.settings, survey.highest_db(), &task.clock)).await?;
        let verdict = task.guard(self.judge(&survey, &estate, &options)).await?;
        let mut findings = verdict.findings;
        findings.extend(other_moment(from, at));
        let keys = options.keys.as_ref().map(|keys| keys.text.clone());
        let spec = Spec { way: verdict.way, keys, replace: options.replace || options.keys.is_none() };
        Ok(RestorePlan {
            backup,
            at,
            target: estate.identity.clone(),
            actions: actions(&survey, &spec, &verdict.reason),
            findings,
            destructive: spec.destroys(&estate),
            live: live(&estate),
            spec: serde_json::to_value(&spec).unwrap_or_default(),
        })
    }

    async fn restore(&self, from: &BackupReader, plan: &RestorePlan, task: &Task) -> Result<Restored> {
        let doing = format!("restoring {} into {}", plan.backup, plan.target.label);
        let spec: Spec = serde_json::from_value(plan.spec.clone())
            .map_err(|cause| Error::new(Kind::Usage, &doing, cause).hint("plan the restore again"))?;
        let survey = self.survey(from, task).await?;
        let estate = task.guard(Estate::ask(&self.settings, survey.highest_db(), &task.clock)).await?;
        let verdict = task.guard(self.judge(&survey, &estate, &spec.options())).await?;
        still_valid(plan, &spec, &estate, &verdict).map_err(|error| error.while_doing(&doing))?;
        let restored = match spec.way {
            Way::Replication => self.by_replication(from, &survey, &estate, task).await,
            Way::RestoreCommands => self.by_commands(from, &survey, &estate, &spec, task).await,
        };
        task.progress.done(task.clock.monotonic());
        restored.map_err(|error| error.while_doing(doing))
    }

    async fn compare(&self, expected: &Contents, task: &Task) -> Result<Vec<Check>> {
        let estate = task.guard(Estate::ask(&self.settings, None, &task.clock)).await?;
        Ok(compare::compare(expected, &estate.server))
    }
}

/// Replication.
impl RedisTarget {
    async fn by_replication(
        &self,
        from: &BackupReader,
        survey: &Survey,
        estate: &Estate,
        task: &Task,
    ) -> Result<Restored> {
        let [shard] = survey.shards.as_slice() else {
            return Err(Error::new(Kind::Internal, "replicating", "a plan of several shards came this far"));
        };
        task.progress.step("transfer", task.clock.monotonic());
        task.progress.set_total(shard.artifact.plain.bytes);
        let listener = self.listen(estate).await?;
        let us = match &self.settings.advertise {
            Some(address) => address.clone(),
            None => {
                let address = listener.address()?;
                Address::new(address.ip().to_string(), address.port())
            }
        };
        let mut addresses = estate::resolve(&estate.address).await?;
        addresses.extend(estate.server.own_address);
        let follower = Follower {
            address: estate.address.clone(),
            access: self.settings.access.clone(),
            us,
            clock: task.clock.clone(),
        };
        let guest = Guest {
            label: estate.identity.label.clone(),
            addresses,
            replid: estate.server.replid.clone(),
            login: estate.server.login.clone(),
        };
        let master = Master {
            guest,
            clock: task.clock.clone(),
            progress: task.progress.clone(),
            patience: self.patience,
        };
        let feed = read_ahead(task.guard(from.open(&shard.artifact, task)).await?);
        replicate(&follower, &master, listener, offer(shard, feed), task).await?;
        Ok(Restored { items: shard.summary.keys(), bytes: shard.artifact.plain.bytes, omissions: Vec::new() })
    }

    /// Where nothing else is configured, only on the address by which we reach the target.
    async fn listen(&self, estate: &Estate) -> Result<Listener> {
        let mut address: SocketAddr = self.settings.listen;
        if address.ip().is_unspecified() && self.settings.advertise.is_none() {
            address.set_ip(estate::own_address(&estate.address).await?);
        }
        let secure = estate.server.tls_replication == Some(true);
        let tls = match self.settings.access.tls.as_ref().filter(|_| secure) {
            Some(tls) => tls::server(tls)?,
            None => None,
        };
        Listener::bind(address, tls).await
    }
}

/// With the history that the RDB belongs to, where it says so: a promoted target then names it as its former one, at
/// exactly the offset that the data is of.
fn offer(shard: &Shard, feed: Feed) -> Offer {
    let hex = |id: &&String| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let replid = shard.summary.aux.get("repl-id").filter(hex).cloned();
    let offset = shard.summary.aux_number("repl-offset").and_then(|offset| u64::try_from(offset).ok());
    let (replid, offset) = replid.zip(offset).unwrap_or_else(|| (hex_40(), 0));
    Offer { replid, offset, bytes: shard.artifact.plain.bytes, feed }
}

/// `RESTORE` commands.
impl RedisTarget {
    async fn by_commands(
        &self,
        from: &BackupReader,
        survey: &Survey,
        estate: &Estate,
        spec: &Spec,
        task: &Task,
    ) -> Result<Restored> {
        let mut control = task.guard(estate.connect(&self.settings, &task.clock)).await?;
        let lanes = task.guard(estate.connect(&self.settings, &task.clock)).await?;
        if spec.keys.is_none() && !estate.server.is_empty() {
            task.progress.step("empty", task.clock.monotonic());
            task.guard(empty(&mut control, estate)).await?;
        }
        task.progress.step("restore", task.clock.monotonic());
        task.progress.set_total(survey.shards.iter().map(|shard| shard.artifact.plain.bytes).sum());
        let lanes = lanes.into_iter().map(Connection::into_link).collect();
        let mut pipeline = Pipeline::start(lanes, &task.clock, &task.progress);
        let mut restored = Restored::default();
        let mut skipped = Skipped::default();
        for shard in &survey.shards {
            let rules = spec.rules(shard, estate, &task.clock);
            let encoder = Encoder::new(&rules, &estate.slots, &shard.long_values);
            let sending = send(from, shard, encoder, &mut pipeline, &mut control, task);
            let done = task.guard(sending).await?;
            skipped.add(done.0);
            restored.omissions.extend(done.1);
            restored.bytes += shard.artifact.plain.bytes;
        }
        let tally = task.guard(pipeline.finish()).await?;
        restored.items = tally.restored;
        restored.omissions.extend(tally.omissions());
        restored.omissions.extend(skipped.omissions());
        restored.omissions.extend(left_out(survey, spec));
        Ok(restored)
    }
}

/// Walks one RDB and sends what the encoder makes of it.
async fn send(
    from: &BackupReader,
    shard: &Shard,
    mut encoder: Encoder<'_>,
    pipeline: &mut Pipeline,
    control: &mut [Connection],
    task: &Task,
) -> Result<(Skipped, Vec<Omission>)> {
    let mut omissions = Vec::new();
    let mut walker = Walker::new();
    let mut feed = read_ahead(from.open(&shard.artifact, task).await?);
    while let Some(chunk) = feed.recv().await {
        let chunk = chunk?;
        for piece in chunk.chunks(PIECE) {
            walker.feed(piece, &mut encoder)?;
            while let Some((server, batch)) = encoder.ready.pop_front() {
                pipeline.send(server, batch).await?;
            }
            for library in encoder.functions.drain(..) {
                omissions.extend(load_function(control, &library).await?);
            }
        }
        task.progress.add_bytes(chunk.len() as u64);
    }
    walker.finish()?;
    encoder.close();
    while let Some((server, batch)) = encoder.ready.pop_front() {
        pipeline.send(server, batch).await?;
    }
    Ok((encoder.skipped, omissions))
}

async fn load_function(control: &mut [Connection], library: &[u8]) -> Result<Option<Omission>> {
    let name = library.split(|byte| *byte == b'\n').next().unwrap_or_default();
    for link in control {
        if let Some(why) = link.refused(&[b"FUNCTION", b"LOAD", b"REPLACE", library]).await? {
            let what = format!("function library {}", name.escape_ascii());
            return Ok(Some(Omission { what, why }));
        }
    }
    Ok(None)
}

async fn empty(control: &mut [Connection], estate: &Estate) -> Result<()> {
    for link in control {
        link.ask_slow(&["FLUSHALL"], EMPTYING).await?;
        if estate.server.libraries > 0 {
            link.ask_slow(&["FUNCTION", "FLUSH"], EMPTYING).await?;
        }
    }
    Ok(())
}

impl Spec {
    fn options(&self) -> Options {
        use super::wish::{Keys, WishedWay};
        let way = match self.way {
            Way::Replication => WishedWay::Replication,
            Way::RestoreCommands => WishedWay::Restore,
        };
        let keys = self.keys.as_ref().map(|text| Keys { text: text.clone(), pattern: Pattern::new(text) });
        Options { way, keys, replace: self.replace }
    }

    /// Whether something that the target holds now would be lost or changed.
    fn destroys(&self, estate: &Estate) -> bool {
        match self.keys {
            None => !estate.server.is_empty(),
            Some(_) => self.replace && estate.server.keys() > 0,
        }
    }

    fn rules(&self, shard: &Shard, estate: &Estate, clock: &SharedClock) -> Rules {
        let summary = &shard.summary;
        Rules {
            keys: self.keys.as_deref().map(Pattern::new),
            replace: self.replace,
            now_ms: clock.now().as_millisecond(),
            payload_version: estate.server.payload_version(summary.dialect, summary.version),
            bulk_max: estate.server.bulk_max,
        }
    }
}

/// Between plan and restore a server may have changed its role, been filled, or been replaced.
fn still_valid(plan: &RestorePlan, spec: &Spec, estate: &Estate, verdict: &Verdict) -> Result<()> {
    let refused = |kind, why: String| {
        Err(Error::new(kind, "checking the plan again", why).hint("nothing was touched; plan the restore again"))
    };
    if estate.identity.id != plan.target.id {
        return refused(Kind::Conflict, format!("the plan is for {}", plan.target.label));
    }
    let blocker = plan.blockers().chain(verdict.findings.iter().filter(|one| one.severity == Severity::Error));
    if let Some(Finding { what, advice, .. }) = blocker.into_iter().next() {
        return refused(Kind::Refused, format!("{what}: {advice}"));
    }
    if spec.destroys(estate) && !plan.destructive {
        let keys = estate.server.keys();
        return refused(Kind::Refused, format!("the target was empty when the plan was made, and has {keys} keys now"));
    }
    Ok(())
}

/// A plan for a backup that this build cannot read.
fn refused(backup: BackupRef, at: Option<Timestamp>, target: Identity, error: &Error) -> RestorePlan {
    let advice = error.hint_text().unwrap_or("use a newer build of this tool");
    RestorePlan {
        backup,
        at,
        target,
        actions: Vec::new(),
        findings: vec![preflight::error(error.to_string(), advice)],
        destructive: false,
        live: Vec::new(),
        spec: serde_json::Value::Null,
    }
}

/// Without a log of changes there is only the moment of the backup itself.
fn other_moment(from: &BackupReader, at: Option<Timestamp>) -> Option<Finding> {
    let own = from.manifest.consistency.as_ref().and_then(|consistency| consistency.at);
    let at = at.filter(|at| Some(*at) != own)?;
    let own = own.map_or_else(|| "an unknown moment".to_owned(), |own| own.to_string());
    Some(preflight::error(
        format!("{at} was asked for, and the backup is of {own}"),
        "a backup of a Redis restores only to its own moment: leave the time out, or choose another backup",
    ))
}

fn actions(survey: &Survey, spec: &Spec, reason: &str) -> Vec<Action> {
    let action = |verb: &str, object: String, reason: String| Action { verb: verb.to_owned(), object, reason };
    let mut actions = Vec::new();
    let load = match (&spec.keys, spec.way) {
        (Some(keys), _) => {
            let verb = if spec.replace { "replace" } else { "create" };
            let fate = if spec.replace { "keys of the same names are overwritten" } else { "keys that exist stay" };
            let object = format!("keys that match {keys}");
            return vec![action(verb, object, format!("by RESTORE commands: {reason}; {fate}, all others stay"))];
        }
        (None, Way::Replication) => {
            let why = format!("by replication: {reason}; the target follows us for one full synchronisation");
            actions.push(action("replace", "all databases and functions".to_owned(), why));
            "load"
        }
        (None, Way::RestoreCommands) => {
            let why = format!("by RESTORE commands: {reason}; the target is emptied first (FLUSHALL)");
            actions.push(action("replace", "all databases and functions".to_owned(), why));
            "restore"
        }
    };
    for shard in &survey.shards {
        for (db, counts) in &shard.summary.databases {
            let why = format!("in {}, {} of them with a time to live", shard.artifact.name, counts.expires);
            actions.push(action(load, format!("{} keys into db{db}", counts.keys()), why));
        }
    }
    if survey.functions() > 0 {
        actions.push(action(load, format!("{} function libraries", survey.functions()), "in the backup".to_owned()));
    }
    actions
}

/// What the target holds now.
fn live(estate: &Estate) -> Vec<String> {
    let server = &estate.server;
    let databases = server.keyspace.iter().map(|(db, keyspace)| {
        format!("db{db}: {} keys, {} of them with a time to live", keyspace.keys, keyspace.expires)
    });
    let libraries = (server.libraries > 0).then(|| format!("{} function libraries", server.libraries));
    let lines: Vec<String> = databases.chain(libraries).collect();
    if lines.is_empty() { vec!["the target is empty".to_owned()] } else { lines }
}

/// What the RESTORE way cannot bring, whatever the target says.
fn left_out(survey: &Survey, spec: &Spec) -> Vec<Omission> {
    if spec.keys.is_some() {
        return Vec::new();
    }
    let beside = survey.shards.iter().flat_map(|shard| &shard.summary.modules);
    let beside = beside.filter(|(_, used)| used.values == 0).map(|(module, _)| Omission {
        what: format!("what the module type {module} keeps beside the keys"),
        why: "RESTORE commands bring keys only".to_owned(),
    });
    let functions: u64 = survey.shards.iter().map(|shard| shard.summary.pre_release_functions).max().unwrap_or(0);
    let functions = (functions > 0).then(|| Omission {
        what: format!("{functions} functions"),
        why: "they are written as only pre-releases of 7.0 did".to_owned(),
    });
    beside.chain(functions).collect()
}
