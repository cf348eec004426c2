//! Restores a backup into a running server or cluster: plans it, checks it again, does it.

use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::Mutex;

use super::address::Address;
use super::commands::Restorer;
use super::compare;
use super::config::Settings;
use super::estate::{self, Estate};
use super::feed::{Feed, read_ahead};
use super::master::{Guest, Listener, Master, Offer, Patience, hex_40};
use super::plan::{self, Spec};
use super::preflight::{self, Road, Verdict, Way};
use super::replicate::{Follower, replicate};
use super::survey::{self, Shard, Survey};
use super::tls;
use super::wish::Options;
use crate::error::{Error, Kind, Result};
use crate::source::{Check, Finding, Identity, RestorePlan, Restored, Target, Wish, moment_in_words};
use crate::task::Task;
use crate::vault::layout::BackupRef;
use crate::vault::reader::BackupReader;

/// A Redis, a Valkey or a cluster of them that is restored into.
#[derive(Debug)]
pub struct RedisTarget {
    settings: Settings,
    patience: Patience,
    /// The last backup that was walked: a restore follows its plan at once, and needs not walk again.
    surveyed: Mutex<Option<(BackupRef, Arc<Survey>)>>,
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
            verdict.findings.push(Finding::error(
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
        let survey = match self.survey(from, task).await {
            Err(error) if error.kind() == Kind::Unsupported => {
                return Ok(plan::refused(backup, at, self.identity(task).await?, &error));
            }
            survey => survey?,
        };
        let estate = task.guard(Estate::ask(&self.settings, survey.highest_db(), &task.clock)).await?;
        let verdict = task.guard(self.judge(&survey, &estate, &options)).await?;
        let mut findings = verdict.findings;
        findings.extend(plan::other_moment(&from.manifest, at));
        let keys = options.keys.as_ref().map(|keys| keys.text.clone());
        let spec = Spec { way: verdict.way, keys, replace: options.replace || options.keys.is_none() };
        Ok(RestorePlan {
            backup,
            at,
            as_of: moment_in_words(&from.manifest),
            target: estate.identity.clone(),
            actions: plan::actions(&survey, &spec, &verdict.reason),
            findings,
            at_stake: spec.at_stake(&estate),
            live: plan::live(&estate),
            spec: serde_json::to_value(&spec).unwrap_or_default(),
        })
    }

    async fn restore(&self, from: &BackupReader, plan: &RestorePlan, task: &Task) -> Result<Restored> {
        let doing = format!("restoring {} into {}", plan.backup, plan.target.label);
        let (spec, survey, estate) = self.look_again(from, plan, task).await.map_err(|error| {
            error.hint_first("the target was not touched; plan the restore again").while_doing(&doing)
        })?;
        let restored = match spec.way {
            Way::Replication => self.by_replication(from, &survey, &estate, task).await,
            Way::RestoreCommands => {
                let control = task.guard(estate.connect(&self.settings, &task.clock)).await?;
                let lanes = task.guard(estate.connect(&self.settings, &task.clock)).await?;
                let survey = &survey;
                Restorer { from, survey, estate: &estate, spec: &spec, task }.run(control, lanes).await
            }
        };
        restored.map_err(|error| {
            error
                .hint_first(
                    "the target was being written: it may hold part or all of the backup; restore again",
                )
                .while_doing(doing)
        })
    }

    async fn compare(&self, from: &BackupReader, task: &Task) -> Result<Vec<Check>> {
        let expected = from.contents(task).await?;
        let survey = self.survey(from, task).await?;
        let Estate { server, .. } = task.guard(Estate::ask(&self.settings, None, &task.clock)).await?;
        // By a clock that is ahead of ours, more has ended.
        let now = server.now.into_iter().fold(task.clock.now(), Timestamp::max);
        Ok(compare::compare(&expected, &survey.ended(now), &server))
    }
}

impl RedisTarget {
    /// Whether a plan still holds, and what executing it needs.
    async fn look_again(
        &self,
        from: &BackupReader,
        plan: &RestorePlan,
        task: &Task,
    ) -> Result<(Spec, Arc<Survey>, Estate)> {
        plan::executable(plan)?;
        let spec: Spec = serde_json::from_value(plan.spec.clone())
            .map_err(|cause| Error::new(Kind::Usage, "reading the plan", cause))?;
        let survey = self.survey(from, task).await?;
        let estate = task.guard(Estate::ask(&self.settings, survey.highest_db(), &task.clock)).await?;
        let verdict = task.guard(self.judge(&survey, &estate, &spec.options())).await?;
        plan::still_valid(plan, &spec, &estate, &verdict)?;
        Ok((spec, survey, estate))
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
        task.step("transfer");
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
        let (items, bytes) = (shard.summary.keys(), shard.artifact.plain.bytes);
        Ok(Restored { items, bytes, ..Restored::default() })
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
