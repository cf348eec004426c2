//! What is true in a simulation: a naive model that sees every effect on the store at the moment it happens, and what the
//! processes do beside the store. It knows no protocol, only what must never be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use tidekeeper::clock::{Clock, TestClock};
use tidekeeper::config::Schedule;
use tidekeeper::engine::run::{Finished, RunId, Started};
use tidekeeper::engine::work::{Action, Attempt};
use tidekeeper::error::{Error, Kind};
use tidekeeper::task::MARGIN;
use tidekeeper::task::Task;
use tidekeeper::vault::layout::{self, BackupRef, Marker};
use tidekeeper::vault::manifest::{Manifest, Status};
use tidekeeper::vault::store::Key;

use super::gate::Gate;

mod rest;
mod retention;
mod rules;

/// The clocks of a simulation.
#[derive(Clone, Debug)]
pub struct Clocks {
    /// True time: no jump moves it.
    pub time: Arc<TestClock>,
    /// The store's.
    pub store: Arc<TestClock>,
    /// Those of the machines.
    pub machines: [Arc<TestClock>; 2],
}

impl Clocks {
    /// By how much a clock is off.
    fn off(&self, clock: &TestClock) -> SignedDuration {
        clock.now().duration_since(self.time.now())
    }

    /// By how much a machine's clock and the store's are off.
    fn offs(&self, machine: usize) -> (SignedDuration, SignedDuration) {
        (self.off(&self.machines[machine]), self.off(&self.store))
    }
}

/// The truth, as everybody in a simulation tells it.
pub struct Truth {
    facts: Mutex<Facts>,
}

impl fmt::Debug for Truth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the truth")
    }
}

/// What is known.
struct Facts {
    clocks: Clocks,
    schedules: Vec<Schedule>,
    /// What is in the store.
    objects: BTreeMap<String, Object>,
    /// Every key that was ever created.
    ever: BTreeSet<String>,
    /// Every manifest that was ever created.
    manifests: BTreeMap<BackupRef, Manifest>,
    attempts: BTreeMap<(RunId, u32), Started>,
    finished: BTreeMap<(RunId, u32), Finished>,
    /// Which attempt may commit a backup.
    slots: BTreeMap<BackupRef, (RunId, u32)>,
    /// Attempts whose work runs.
    working: BTreeMap<(RunId, u32), Working>,
    readers: BTreeMap<u64, Reader>,
    loaders: BTreeMap<u64, Loader>,
    next: u64,
    /// Backups with the verdict `delete`.
    sealed: BTreeSet<BackupRef>,
    /// Holds and acceptances of which an operator was told that they are there.
    promised: BTreeSet<String>,
    /// What was captured, by the writer's nonce and the artifact's name.
    plain: BTreeMap<(String, String), Bytes>,
    /// Backups whose bytes rotted.
    spoiled: BTreeSet<BackupRef>,
    /// When each generation began.
    leaders: BTreeMap<u64, Duration>,
    /// Runs that somebody was promised.
    accepted: BTreeSet<RunId>,
    processes: BTreeMap<String, Arc<Gate>>,
    /// The offsets of each process's clocks when it was born.
    born: BTreeMap<String, (SignedDuration, SignedDuration)>,
    last_jump: Option<Duration>,
    /// Since when nothing befalls anybody.
    calm: Option<Duration>,
    trace: Vec<Line>,
    wrong: Option<String>,
}

/// An object of the store.
#[derive(Clone, Debug)]
struct Object {
    body: Bytes,
    /// By the store's clock.
    at: Timestamp,
    /// In true time.
    made: Duration,
}

/// An attempt whose work runs.
struct Working {
    by: Arc<Gate>,
    action: Action,
    generation: Option<u64>,
    deadline: Timestamp,
    since: Duration,
    offs: (SignedDuration, SignedDuration),
}

/// Somebody who reads a backup under a hold.
struct Reader {
    by: Arc<Gate>,
    backup: BackupRef,
    until: Timestamp,
}

/// Somebody who writes to a target.
struct Loader {
    by: Arc<Gate>,
    target: String,
    run: String,
    until: Duration,
}

/// An effect, for people.
struct Line {
    at: Duration,
    by: Arc<str>,
    what: &'static str,
    key: String,
}

/// Takes a fact back when it is dropped.
pub struct Until<'a>(&'a Truth, Box<dyn Fn(&mut Facts) + Send + Sync>);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        (self.1)(&mut self.0.facts());
    }
}

impl Truth {
    pub fn new(clocks: &Clocks, schedules: &[Schedule]) -> Arc<Self> {
        let facts = Facts {
            clocks: clocks.clone(),
            schedules: schedules.to_vec(),
            objects: BTreeMap::new(),
            ever: BTreeSet::new(),
            manifests: BTreeMap::new(),
            attempts: BTreeMap::new(),
            finished: BTreeMap::new(),
            slots: BTreeMap::new(),
            working: BTreeMap::new(),
            readers: BTreeMap::new(),
            loaders: BTreeMap::new(),
            next: 0,
            sealed: BTreeSet::new(),
            promised: BTreeSet::new(),
            plain: BTreeMap::new(),
            spoiled: BTreeSet::new(),
            leaders: BTreeMap::new(),
            accepted: BTreeSet::new(),
            processes: BTreeMap::new(),
            born: BTreeMap::new(),
            last_jump: None,
            calm: None,
            trace: Vec::new(),
            wrong: None,
        };
        Arc::new(Truth { facts: Mutex::new(facts) })
    }

    fn facts(&self) -> MutexGuard<'_, Facts> {
        self.facts.lock().unwrap()
    }

    /// The first thing that was wrong.
    pub fn wrong(&self) -> Option<String> {
        self.facts().wrong.clone()
    }

    /// Says that something is wrong.
    pub fn complain(&self, what: impl Into<String>) {
        self.facts().complain(what);
    }

    /// Every effect, for people; nothing where all went well, since nobody reads it then.
    pub fn trace(&self) -> Vec<String> {
        let facts = self.facts();
        facts.trace.iter().map(ToString::to_string).collect()
    }

    /// Something that no store call shows.
    pub fn remark(&self, by: &str, what: String) {
        self.facts().note(by, "is said:", &what);
    }

    /// A process begins.
    pub fn is_born(&self, gate: &Arc<Gate>) {
        let mut facts = self.facts();
        let offs = facts.clocks.offs(gate.machine);
        facts.processes.insert(gate.id.clone(), gate.clone());
        facts.born.insert(gate.id.clone(), offs);
    }

    /// From now on nothing befalls anybody.
    pub fn calms(&self) {
        let mut facts = self.facts();
        facts.calm = Some(facts.clocks.time.monotonic());
        facts.note("the weather", "calms", "");
    }

    /// A clock jumps now.
    pub fn jumps(&self) {
        let mut facts = self.facts();
        facts.last_jump = Some(facts.clocks.time.monotonic());
        facts.note("the clock", "jumps", "");
    }

    pub fn created(&self, by: &Gate, key: &Key, body: Bytes) {
        let mut facts = self.facts();
        facts.note(&by.id, "creates", key.as_str());
        let (at, made) = (facts.clocks.store.now(), facts.clocks.time.monotonic());
        facts.objects.insert(key.to_string(), Object { body: body.clone(), at, made });
        if !facts.ever.insert(key.to_string()) && !facts.is_of_the_deleted(key) {
            facts.complain(format!("{key} was written twice"));
        }
        facts.judge_creation(by, key, &body);
    }

    pub fn deleted(&self, by: &Gate, key: &Key) {
        let mut facts = self.facts();
        if facts.objects.contains_key(key.as_str()) {
            facts.note(&by.id, "deletes", key.as_str());
            facts.judge_deletion(by, key);
            facts.objects.remove(key.as_str());
        }
    }

    /// Somebody ends an upload that is not known to be its own.
    pub fn aborted(&self, by: &Gate, key: &Key) {
        let mut facts = self.facts();
        facts.note(&by.id, "aborts", key.as_str());
        facts.judge_cleaning(by, key);
    }

    /// An object is replaced, which no store of ours can do.
    pub fn replaced(&self, by: &Gate, key: &Key, body: Bytes) {
        let mut facts = self.facts();
        facts.note(&by.id, "overwrites", key.as_str());
        if facts.objects.get(key.as_str()).is_some_and(|object| object.body != body) {
            facts.complain(format!("{} overwrote {key}", by.id));
        }
    }

    /// The work of an attempt begins; it ends when what is returned is dropped.
    pub fn works(&self, attempt: &Attempt, action: Action, by: &Arc<Gate>) -> Until<'_> {
        let id = (attempt.run.clone(), attempt.number);
        let mut facts = self.facts();
        let working = Working {
            by: by.clone(),
            action,
            generation: attempt.fence.generation(),
            deadline: attempt.deadline,
            since: facts.clocks.time.monotonic(),
            offs: facts.clocks.offs(by.machine),
        };
        facts.judge_work(&id, &working);
        facts.working.insert(id.clone(), working);
        Until(self, Box::new(move |facts| drop(facts.working.remove(&id))))
    }

    /// A backup is read under a hold.
    pub fn reads(&self, backup: &BackupRef, task: &Task, by: &Arc<Gate>) -> Until<'_> {
        let mut facts = self.facts();
        let left = task.deadline.saturating_sub(task.clock.monotonic());
        let until = facts.clocks.store.now() + left + MARGIN;
        let n = facts.next();
        facts.readers.insert(n, Reader { by: by.clone(), backup: backup.clone(), until });
        if facts.sealed.contains(backup) {
            facts.complain(format!("{} reads {backup}, which is being deleted", by.id));
        }
        Until(self, Box::new(move |facts| drop(facts.readers.remove(&n))))
    }

    /// A target is written to.
    pub fn loads(&self, target: &str, task: &Task, by: &Arc<Gate>) -> Until<'_> {
        let mut facts = self.facts();
        let until = facts.clocks.time.monotonic() + task.deadline.saturating_sub(task.clock.monotonic());
        let loader = Loader { by: by.clone(), target: target.to_owned(), run: task.run.to_string(), until };
        facts.judge_loading(&loader);
        let n = facts.next();
        facts.loaders.insert(n, loader);
        Until(self, Box::new(move |facts| drop(facts.loaders.remove(&n))))
    }

    /// These bytes are to come back under this name.
    pub fn captured(&self, writer: &str, name: &str, plain: Bytes) {
        self.facts().plain.insert((writer.to_owned(), name.to_owned()), plain);
    }

    /// This came back.
    pub fn restored(&self, manifest: &Manifest, name: &str, read: Result<&[u8], &Error>) {
        let mut facts = self.facts();
        let backup = manifest.backup();
        match read {
            Ok(plain) if !facts.is_as_captured(manifest, name, plain) => {
                facts.complain(format!("{backup} came back with other bytes"));
            }
            Err(error)
                if matches!(error.kind(), Kind::Damaged | Kind::NotFound)
                    && !facts.spoiled.contains(&backup) =>
            {
                facts.complain(format!("{backup} vanished while it was held and read: {error}"));
            }
            _ => {}
        }
    }

    /// Whether a process decides what goes.
    pub fn plans(&self, by: &Gate) -> bool {
        self.facts().plans(by)
    }

    /// Bytes of this backup rot.
    pub fn spoils(&self, backup: &BackupRef) {
        let mut facts = self.facts();
        facts.note("time", "spoils", &backup.to_string());
        facts.spoiled.insert(backup.clone());
    }

    /// Somebody was told that this run will be.
    pub fn promised_run(&self, run: &RunId) {
        self.facts().accepted.insert(run.clone());
    }

    /// The backups with a manifest that is not `abandoned`, oldest first.
    pub fn backups(&self) -> Vec<BackupRef> {
        let facts = self.facts();
        let there = facts.present().filter(|(_, manifest, _)| manifest.status != Status::Abandoned);
        there.map(|(backup, ..)| backup.clone()).collect()
    }

    /// The manifests of all backups that are there and wait for a word.
    pub fn suspects(&self) -> Vec<BackupRef> {
        let facts = self.facts();
        let there = facts.present().filter(|(_, manifest, _)| manifest.status == Status::Suspect);
        there.map(|(backup, ..)| backup.clone()).collect()
    }

    /// The backups whose deletion is proposed and not decided, oldest first.
    pub fn proposed(&self) -> Vec<BackupRef> {
        let facts = self.facts();
        let is_open = |backup: &BackupRef| {
            let of = layout::markers_of(Marker::Tombstone, backup);
            let (verdicts, proposals): (Vec<_>, Vec<_>) =
                facts.under(&of).partition(|(key, _)| key.ends_with(".verdict.json"));
            proposals.len() > verdicts.len()
        };
        facts.present().map(|(backup, ..)| backup.clone()).filter(is_open).collect()
    }

    /// A key of data of this backup.
    pub fn data_of(&self, backup: &BackupRef) -> Option<Key> {
        let facts = self.facts();
        facts.manifests.get(backup)?.artifacts.first().map(|artifact| Key::new(&artifact.key))
    }

    /// When the newest object was created, by the store's clock.
    pub fn newest(&self) -> Timestamp {
        let facts = self.facts();
        facts.objects.values().map(|object| object.at).max().unwrap_or(Timestamp::MIN)
    }

    /// Runs that were begun and have no end.
    pub fn open_runs(&self) -> Vec<RunId> {
        let facts = self.facts();
        let open = facts.attempts.keys().filter(|id| !facts.finished.contains_key(id));
        open.map(|(run, _)| run.clone()).collect()
    }

    /// Until when attempts without an end may stay so: who cannot see that a process is gone waits as long.
    pub fn open_until(&self) -> Timestamp {
        let facts = self.facts();
        let open = facts.attempts.iter().filter(|(id, _)| !facts.finished.contains_key(id));
        open.map(|(_, started)| started.deadline + MARGIN).max().unwrap_or(Timestamp::MIN)
    }

    /// What is counted from the model.
    pub fn count(&self) -> [(&'static str, u64); 8] {
        let facts = self.facts();
        let runs: BTreeSet<&RunId> = facts.attempts.keys().map(|(run, _)| run).collect();
        let of = |status| facts.manifests.values().filter(|manifest| manifest.status == status).count();
        let marks = |room: &str| facts.ever.iter().filter(|key| key.starts_with(room)).count();
        let again = facts.attempts.keys().filter(|(_, number)| *number > 1).count();
        [
            ("runs", runs.len() as u64),
            ("attempts after the first", again as u64),
            ("leader changes", facts.leaders.len().saturating_sub(1) as u64),
            ("backups complete", of(Status::Complete) as u64),
            ("backups abandoned", of(Status::Abandoned) as u64),
            ("holds", marks("holds/") as u64),
            ("proposals and verdicts", marks("tombstones/") as u64),
            ("backups deleted", facts.sealed.len() as u64),
        ]
    }
}

impl Facts {
    fn complain(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.note("the oracle", "says", &what);
        self.wrong.get_or_insert(what);
    }

    fn note(&mut self, by: &str, what: &'static str, key: &str) {
        // Questions to leaders and their answers say nothing to anybody.
        if key.starts_with("leaders/") && key.ends_with("ed.json") {
            return;
        }
        let at = self.clocks.time.monotonic();
        self.trace.push(Line { at, by: by.into(), what, key: key.to_owned() });
    }

    fn next(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// The objects under a prefix.
    fn under<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a String, &'a Object)> + 'a {
        self.objects.range(prefix.to_owned()..).take_while(move |(key, _)| key.starts_with(prefix))
    }

    /// The backups whose manifest is there.
    fn present(&self) -> impl Iterator<Item = (&BackupRef, &Manifest, &Object)> {
        let object = |backup| self.objects.get(layout::manifest(backup).as_str());
        self.manifests.iter().filter_map(move |(backup, manifest)| Some((backup, manifest, object(backup)?)))
    }

    fn is_as_captured(&self, manifest: &Manifest, name: &str, plain: &[u8]) -> bool {
        let captured = self.plain.get(&(manifest.writer.clone(), name.to_owned()));
        captured.is_some_and(|captured| *captured == plain)
    }

    /// Whether a key speaks of the deletion of a backup that is gone: a deleter that was paused may still write it, and
    /// nobody reads it.
    fn is_of_the_deleted(&self, key: &Key) -> bool {
        let of = layout::backup_of_marker(Marker::Tombstone, key);
        of.is_some_and(|(backup, _)| self.sealed.contains(&backup))
    }

    /// Whether a process decides what goes.
    pub fn plans(&self, by: &Gate) -> bool {
        self.working.values().any(|working| working.action == Action::Retention && working.by.id == by.id)
    }

    /// Whether the work of an attempt runs, in a process that lives, in its time.
    fn is_at_work(&self, working: &Working) -> bool {
        !working.by.is_dead() && self.clocks.store.now() <= working.deadline + MARGIN
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, name) = (self.at.as_secs(), self.by.split('-').next().unwrap_or_default());
        let (h, m, s) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        write!(f, "{h:3}:{m:02}:{s:02} {name} {} {}", self.what, self.key)
    }
}
