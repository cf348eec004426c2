//! The daemon of a process: a value with a `tick`. All that it remembers it could read again.
//!
//! A tick is a second, and mostly does nothing: leaders, switches and requests are looked at every few seconds, each due
//! time costs one look at its run, and nothing ever lists the whole vault but the one search for open attempts when a
//! process begins to lead. Only the leader starts runs; every process accepts requests and answers questions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use tokio::task::JoinSet;

use super::due::{Due, History, candidates, due};
use super::followers::Followers;
use super::leader::{self, Fence, Leadership, Standing};
use super::perform::{Job, Performed, RECENT, Reason, Stop};
use super::request::{self, Request};
use super::run::{End, Failure, Next, Record, RunId, Started, Why};
use super::switches::{self, CONFIGURATION, Position, Switch};
use super::work::{Action, Grade};
use super::{Engine, ledger, recovery};
use crate::config::SourceName;
use crate::error::{Error, Kind, Result};
use crate::task::Progress;
use crate::vault::decide::set_aside;
use crate::vault::{Vault, probe};

/// Who orders what a schedule asks for.
pub const SCHEDULER: &str = "schedule";

/// What is done every so often.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Chore {
    Leaders,
    /// Looking whether the vault can still be written to: mostly nothing else would find out before something is due.
    Writing,
    Switches,
    Requests,
    /// Closing what dead processes left.
    Recovery,
    /// Looking which sources other processes occupy, before something is started.
    Others,
    /// Forgetting requests whose runs ended long ago.
    Forget,
}

impl Chore {
    /// A vault in S3 pays per call: together these are some 30,000 listings and 3,000 small writes a day, 17 cents.
    fn every(self) -> Duration {
        Duration::from_secs(match self {
            Chore::Leaders => leader::LOOK_EVERY.as_secs(),
            Chore::Switches | Chore::Writing => 30,
            Chore::Requests | Chore::Others => 5,
            Chore::Recovery => 60,
            Chore::Forget => 3_600,
        })
    }
}

/// How often it is tried whether a vault takes objects again.
const AGAIN_EVERY: Duration = Duration::from_secs(5);

/// How often a run that somebody holds is looked at again.
const HELD_EVERY: Duration = Duration::from_secs(10);

/// A tick that takes longer has met a store that does not answer; the next begins anew.
const TICK_LIMIT: Duration = Duration::from_secs(60);

/// How many requests are read at the same time.
const IN_FLIGHT: usize = 16;

/// Drives an engine. Dropped, it is a crash: what it worked on ends at its next await.
#[derive(Debug)]
pub struct Daemon {
    engine: Engine,
    leadership: Leadership,
    /// The generation that the memory below is of.
    generation: Option<u64>,
    history: History,
    looked: BTreeMap<RunId, Duration>,
    switches: BTreeMap<String, Switch>,
    /// By their keys; `None` for those that need nothing (any more).
    requests: BTreeMap<String, Option<Request>>,
    /// Open attempts of other processes.
    others: Vec<Started>,
    /// Whether all runs were searched for open attempts, not only recent ones.
    searched: bool,
    search: JoinSet<Result<Vec<Error>>>,
    /// What was warned of: objects that cannot be read.
    unreadable: BTreeSet<String>,
    chores: BTreeMap<Chore, Duration>,
    /// Why the vault cannot be written to.
    unwritable: Option<Failure>,
    jobs: JoinSet<(RunId, Result<Performed>)>,
    followers: Followers,
}

impl Daemon {
    /// Nothing is read or started yet. `take_over` deposes the leader of another cluster or machine, once.
    pub fn new(engine: &Engine, take_over: bool) -> Self {
        let core = &engine.0;
        core.driven.store(true, Ordering::SeqCst);
        Daemon {
            engine: engine.clone(),
            leadership: Leadership::new(core.vault.clone(), core.host.clone(), take_over),
            generation: None,
            history: History::default(),
            looked: BTreeMap::new(),
            switches: BTreeMap::new(),
            requests: BTreeMap::new(),
            others: Vec::new(),
            searched: false,
            search: JoinSet::new(),
            unreadable: BTreeSet::new(),
            chores: BTreeMap::new(),
            unwritable: None,
            jobs: JoinSet::new(),
            followers: Followers::new(engine),
        }
    }

    /// Does what is to be done now, and starts what is due. Never fails: what went wrong is in the engine's health, and
    /// the next tick tries again. May be dropped at any await.
    pub async fn tick(&mut self) {
        let engine = self.engine.clone();
        let done = engine.within(TICK_LIMIT, "looking at the vault", self.work()).await;
        if let Err(error) = &done {
            tracing::warn!(%error, hint = error.hint_text(), "the daemon waits for the vault");
        }
        let (leads, reads) = self.standing();
        engine.note_health(|health| {
            health.vault = done.as_ref().err().map(Failure::from).or_else(|| self.unwritable.clone());
            health.leads = leads;
            health.reads = reads;
        });
    }

    fn standing(&self) -> (Option<u64>, Option<String>) {
        match self.leadership.standing() {
            Standing::Leads(generation) if self.leadership.fence().is_some() => (Some(*generation), None),
            Standing::Reads(leader) => (None, Some(leader.domain.clone())),
            _ => (None, None),
        }
    }

    /// The engine that it drives.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// How many runs it works on.
    pub fn running(&self) -> usize {
        self.jobs.len()
    }

    async fn work(&mut self) -> Result<()> {
        self.reap();
        if self.engine.0.news.swap(false, Ordering::SeqCst) {
            self.chores.remove(&Chore::Requests);
        }
        if self.is_due(Chore::Leaders) {
            self.leadership.look().await?;
            // Ready as soon as the vault has answered: the first search for open attempts may take longer.
            self.engine.note_health(|health| health.reached = true);
            self.did(Chore::Leaders);
        }
        if self.is_due(Chore::Writing) {
            self.try_writing().await;
            self.did(Chore::Writing);
        }
        let Some(fence) = self.leadership.fence() else {
            self.followers.abandon();
            return Ok(());
        };
        self.take_office(fence.generation());
        self.followers.tend(&fence);
        if self.is_due(Chore::Switches) {
            self.look_at_switches(&fence).await?;
            self.did(Chore::Switches);
        }
        if self.is_due(Chore::Recovery) {
            self.recover(&fence).await?;
            self.did(Chore::Recovery);
        }
        if self.is_due(Chore::Requests) {
            self.look_at_requests().await?;
            self.did(Chore::Requests);
        }
        self.start(&fence).await?;
        if self.is_due(Chore::Forget) {
            self.forget_requests(&fence).await?;
            self.did(Chore::Forget);
        }
        Ok(())
    }

    /// Whether the vault takes objects. What needs none of that goes on though it does not.
    async fn try_writing(&mut self) {
        let tried = probe::writes(&self.engine.0.vault).await;
        if let Err(error) = &tried
            && self.unwritable.is_none()
        {
            tracing::warn!(%error, hint = error.hint_text(), "the vault cannot be written to");
        }
        self.unwritable = tried.as_ref().err().map(Failure::from);
    }

    fn is_due(&self, chore: Chore) -> bool {
        let now = self.engine.clock().monotonic();
        let every = match chore {
            Chore::Writing if self.unwritable.is_some() => AGAIN_EVERY,
            _ => chore.every(),
        };
        self.chores.get(&chore).is_none_or(|done| now.saturating_sub(*done) >= every)
    }

    fn did(&mut self, chore: Chore) {
        self.chores.insert(chore, self.engine.clock().monotonic());
    }

    /// A new generation begins with nothing remembered: others may have led in between.
    fn take_office(&mut self, generation: Option<u64>) {
        if self.generation == generation {
            return;
        }
        tracing::info!(generation, "this process leads");
        self.followers.abandon();
        self.generation = generation;
        self.history = History::default();
        self.looked.clear();
        self.requests.clear();
        self.searched = false;
        self.search = JoinSet::new();
        self.chores.retain(|chore, _| *chore == Chore::Leaders);
    }

    /// Takes in what the runs came to.
    fn reap(&mut self) {
        while let Some(ended) = self.jobs.try_join_next() {
            match ended {
                Ok((run, Ok(Performed::Over))) => {
                    self.history.runs.remove(&run);
                }
                Ok((run, Ok(Performed::Later(at)))) => {
                    self.history.runs.insert(run, Next::Later(at));
                }
                Ok((_, Ok(Performed::Elsewhere))) => {}
                Ok((run, Err(error))) => {
                    let hint = error.hint_text();
                    tracing::warn!(%run, %error, hint, "a run could not be claimed or ended");
                }
                Err(error) => tracing::error!(%error, "a run ended without a word"),
            }
        }
    }

    async fn look_at_switches(&mut self, fence: &Fence) -> Result<()> {
        let engine = self.engine.clone();
        let vault = &engine.0.vault;
        let mut unreadable = Vec::new();
        self.switches = switches::read_all(vault, &self.switches, &mut unreadable).await?;
        self.warn_of(unreadable);
        for (name, series) in self.unwatched() {
            fence.check().await?;
            let switch = switches::flip(vault, &name, Position::Watched, CONFIGURATION, &series).await?;
            self.switches.insert(name, switch);
        }
        let sources: Vec<SourceName> = engine.0.timetable.sources().into_iter().cloned().collect();
        for source in sources {
            self.follow_configuration(&source, fence).await?;
        }
        self.history.note_switches(&engine.0.timetable, &self.switches);
        Ok(())
    }

    /// The switches that new series need, and the series' full names.
    fn unwatched(&self) -> Vec<(String, String)> {
        let lines = self.engine.0.timetable.lines.iter();
        let named = lines.map(|line| (line.switch(), line.to_string()));
        named.filter(|(name, _)| !self.switches.contains_key(name)).collect()
    }

    fn switch(&self, source: &SourceName) -> Option<&Switch> {
        self.switches.get(&switches::of_schedule(source))
    }

    /// `suspend` in the configuration is a switch like any other, so that taking it out does not fire either.
    async fn follow_configuration(&mut self, source: &SourceName, fence: &Fence) -> Result<()> {
        let wanted = self.engine.0.timetable.suspended.contains(source);
        let switch = self.switch(source);
        let suspended = switch.filter(|switch| switch.position == Position::Suspended);
        let position = match (wanted, suspended) {
            (true, None) => Position::Suspended,
            (false, Some(switch)) if switch.principal == CONFIGURATION => Position::Resumed,
            _ => return Ok(()),
        };
        fence.check().await?;
        let name = switches::of_schedule(source);
        let vault = &self.engine.0.vault;
        let switch = switches::flip(vault, &name, position, CONFIGURATION, "suspend in the schedule").await?;
        self.switches.insert(name, switch);
        Ok(())
    }

    async fn recover(&mut self, fence: &Fence) -> Result<()> {
        let since = self.engine.clock().now() - RECENT;
        let recovered = recovery::recover(&self.engine, Some(since), fence).await;
        let recovered = recovered.map(|unreadable| self.warn_of(unreadable));
        self.search_all(fence);
        self.unless_clock(recovered)
    }

    /// Searches all runs once, beside the ticks: to list those of years takes longer than a tick may.
    fn search_all(&mut self, fence: &Fence) {
        match self.search.try_join_next() {
            Some(Ok(Ok(unreadable))) => {
                self.searched = true;
                self.warn_of(unreadable);
            }
            Some(Ok(Err(error))) => {
                tracing::warn!(%error, hint = error.hint_text(), "the search for open attempts begins anew");
            }
            Some(Err(error)) => tracing::error!(%error, "the search for open attempts ended without a word"),
            None => {}
        }
        if !self.searched && self.search.is_empty() {
            let (engine, fence) = (self.engine.clone(), fence.clone());
            self.search.spawn(async move { recovery::recover(&engine, None, &fence).await });
        }
    }

    /// Warns once of each object that is left alone because it cannot be read.
    fn warn_of(&mut self, unreadable: Vec<Error>) {
        for error in unreadable {
            if self.unreadable.insert(error.to_string()) {
                tracing::warn!(%error, hint = error.hint_text(), "left alone: it cannot be read");
            }
        }
    }

    /// A clock that cannot be trusted stops only what depends on the time; backups go on.
    fn unless_clock(&self, done: Result<()>) -> Result<()> {
        let clock = done.as_ref().err().filter(|error| error.kind() == Kind::Clock).map(Failure::from);
        let stopped = clock.is_some();
        self.engine.note_health(|health| health.clock = clock);
        if stopped { Ok(()) } else { done }
    }

    async fn look_at_requests(&mut self) -> Result<()> {
        let vault = &self.engine.0.vault;
        let listed: BTreeSet<String> = request::keys(vault).await?.into_iter().map(|(key, _)| key).collect();
        self.requests.retain(|key, _| listed.contains(key));
        let new: Vec<String> = listed.into_iter().filter(|key| !self.requests.contains_key(key)).collect();
        let read = stream::iter(new.into_iter().map(|key| read_request(vault, key)));
        let read: Vec<_> = read.buffered(IN_FLIGHT).collect().await;
        let mut unreadable = Vec::new();
        for (key, read) in read {
            let found = set_aside(read, &mut unreadable)?.flatten();
            // What a process does itself, nobody else takes up.
            self.requests.insert(key, found.filter(|request| !request.local));
        }
        self.warn_of(unreadable);
        Ok(())
    }

    /// Starts what may start, as far as there is room for it.
    async fn start(&mut self, fence: &Fence) -> Result<()> {
        self.learn().await?;
        let limit = self.engine.0.limits.concurrent_runs.max(1);
        let mut room = limit.saturating_sub(self.jobs.len());
        let is_brief = |request: &Request| request.order.action.is_brief();
        if room == 0 && !self.requests.values().flatten().any(is_brief) {
            return Ok(());
        }
        // What others occupied a while ago may be why nothing is startable: then it is looked at again.
        if self.others.is_empty() && self.startable(fence).is_empty() {
            return Ok(());
        }
        if self.is_due(Chore::Others) {
            self.look_at_others().await?;
            self.did(Chore::Others);
        }
        for job in self.startable(fence) {
            if job.order.action.is_brief() {
                self.spawn(job);
            } else if room > 0 {
                room -= 1;
                self.spawn(job);
            }
        }
        Ok(())
    }

    /// Looks up the runs that might be started, where it is not known how they stand.
    async fn learn(&mut self) -> Result<()> {
        let now = self.engine.clock().now();
        let due = candidates(now, &self.engine.0.timetable, &self.history);
        let requested = self.requests.values().flatten().map(|request| request.run.clone());
        let runs: BTreeSet<RunId> = due.into_iter().map(|due| due.run).chain(requested).collect();
        self.history.runs.retain(|run, _| runs.contains(run));
        self.looked.retain(|run, _| runs.contains(run));
        let mut unreadable = Vec::new();
        for run in runs {
            if self.is_unknown(&run, now) {
                let read = ledger::read(&self.engine.0.vault, &run).await;
                match set_aside(read, &mut unreadable)? {
                    Some(record) => self.note(run, &record, now),
                    // It was begun, and nobody can tell how it stands.
                    None => self.leave(run),
                }
            }
        }
        self.warn_of(unreadable);
        Ok(())
    }

    /// Somebody has this run: it is looked at again after a while.
    fn leave(&mut self, run: RunId) {
        self.looked.insert(run.clone(), self.engine.clock().monotonic());
        self.history.runs.insert(run, Next::Held);
    }

    fn is_unknown(&self, run: &RunId, now: Timestamp) -> bool {
        match self.history.runs.get(run) {
            None => true,
            Some(Next::Later(at)) => now >= *at,
            Some(Next::Held) => {
                let looked = self.looked.get(run).copied().unwrap_or_default();
                let long_ago = self.engine.clock().monotonic().saturating_sub(looked) >= HELD_EVERY;
                long_ago && !self.engine.active().contains_key(run)
            }
            Some(Next::Start(_) | Next::Over) => false,
        }
    }

    fn note(&mut self, run: RunId, record: &Record, now: Timestamp) {
        let next = record.next(now);
        if next == Next::Over
            && let Some(request) = self.requests.get_mut(run.tail())
        {
            *request = None;
        }
        if let Some((source, at)) = good_backup(record) {
            let newest = self.history.backed_up.entry(source).or_insert(at);
            *newest = at.max(*newest);
        }
        self.looked.insert(run.clone(), self.engine.clock().monotonic());
        self.history.runs.insert(run, next);
    }

    /// Which sources other processes occupy.
    async fn look_at_others(&mut self) -> Result<()> {
        let me = &self.engine.0.host.me().process;
        let since = self.engine.clock().now() - RECENT;
        let mut others = Vec::new();
        let open = ledger::open(&self.engine.0.vault, Some(since)).await?;
        for started in open.attempts {
            // One that is gone does not stand in anybody's way; recovery closes it.
            if started.holder.process != *me && !recovery::is_gone(&self.engine, &started).await? {
                others.push(started);
            }
        }
        self.others = others;
        self.warn_of(open.unreadable);
        Ok(())
    }

    fn busy(&self) -> BTreeSet<SourceName> {
        let active = self.engine.active();
        let ours = active.values().map(|active| &active.order);
        let orders = ours.chain(self.others.iter().map(|started| &started.order));
        orders.filter_map(|order| order.occupied().cloned()).collect()
    }

    /// What may start now: requests first, oldest first, because somebody waits for them.
    fn startable(&mut self, fence: &Fence) -> Vec<Job> {
        let mut busy = self.busy();
        let mut pending: Vec<&Request> = self.requests.values().flatten().collect();
        pending.sort_by_key(|request| &request.run);
        let mut jobs = Vec::new();
        for request in pending {
            let startable = matches!(self.history.runs.get(&request.run), Some(Next::Start(_)));
            if startable && request.order.occupied().is_none_or(|source| busy.insert(source.clone())) {
                jobs.push(Job::requested(request, fence.clone()));
            }
        }
        self.history.busy = busy;
        let due = due(self.engine.clock().now(), &self.engine.0.timetable, &self.history);
        jobs.extend(due.into_iter().map(|due| scheduled(due, fence)));
        jobs
    }

    fn spawn(&mut self, job: Job) {
        let (engine, run) = (self.engine.clone(), job.run.clone());
        tracing::info!(%run, order = %job.order, why = %job.why, "starting");
        self.leave(run.clone());
        self.jobs.spawn(async move {
            let performed = engine.perform(job, Stop::default(), Progress::default()).await;
            engine.0.wake.notify_one();
            (run, performed)
        });
    }

    async fn forget_requests(&mut self, fence: &Fence) -> Result<()> {
        let trusted = self.engine.trust_clock().await;
        if self.engine.health().clock.is_some() || trusted.is_err() {
            return self.unless_clock(trusted);
        }
        let vault = &self.engine.0.vault;
        let now = vault.store.now().await?;
        let mut unreadable = Vec::new();
        for (key, made) in request::keys(vault).await? {
            if now.duration_since(made) < request::REMEMBERED {
                continue;
            }
            let found = set_aside(request::read(vault, &key).await, &mut unreadable)?.flatten();
            let Some(request) = found else { continue };
            let record = set_aside(ledger::read(vault, &request.run).await, &mut unreadable)?;
            if record.is_some_and(|record| is_forgettable(&request, &record, now)) {
                fence.check().await?;
                request::forget(vault, &key).await?;
            }
        }
        self.warn_of(unreadable);
        Ok(())
    }

    /// Starts nothing more, lets what runs finish for most of `grace`, then asks it to end and waits for the rest.
    /// Followers are asked at once: they store what they have.
    pub async fn shutdown(mut self, grace: Duration) {
        self.engine.0.closing.store(true, Ordering::SeqCst);
        self.followers.end();
        let last_words = (grace / 4).min(Duration::from_secs(30));
        if !self.drained(grace - last_words).await {
            self.engine.stop_all(Reason::Shutdown);
            if !self.drained(last_words).await {
                tracing::warn!(left = self.jobs.len(), "runs are left open; whoever comes next closes them");
            }
        }
    }

    async fn drained(&mut self, limit: Duration) -> bool {
        let clock = self.engine.clock().clone();
        tokio::select! {
            biased;
            () = async {
                while self.jobs.join_next().await.is_some() {}
                self.followers.ended().await;
            } => true,
            () = clock.sleep(limit) => false,
        }
    }
}

async fn read_request(vault: &Vault, key: String) -> (String, Result<Option<Request>>) {
    let request = request::read(vault, &key).await;
    (key, request)
}

fn scheduled(due: Due, fence: &Fence) -> Job {
    Job {
        run: due.run,
        order: due.order,
        principal: SCHEDULER.to_owned(),
        why: Why::Schedule { series: due.series, due: due.due_at, reason: due.reason },
        asked_at: due.due_at,
        deadline: due.deadline,
        fence: fence.clone(),
    }
}

/// The source and the end of a scheduled backup that is good enough for older ones to go.
fn good_backup(record: &Record) -> Option<(SourceName, Timestamp)> {
    let (started, finished) = (&record.last()?.started, record.finished()?);
    let scheduled = matches!(started.why, Why::Schedule { .. }) && started.order.action == Action::Backup;
    let doubtful = matches!(finished.status, Some(Grade::Suspect | Grade::Other));
    let good = finished.outcome == End::Succeeded && !doubtful;
    (scheduled && good).then(|| Some((started.order.source.clone()?, finished.finished_at)))?
}

/// A request is forgotten a week after its run ended; one that its own process never began, a week after it was made.
fn is_forgettable(request: &Request, record: &Record, now: Timestamp) -> bool {
    let ended = match record.finished() {
        Some(finished) if record.state(now).is_over() => finished.finished_at,
        None if request.local && record.tries.is_empty() => request.at,
        None if record.cancelled && record.tries.is_empty() => request.at,
        _ => return false,
    };
    now.duration_since(ended) >= request::REMEMBERED
}
