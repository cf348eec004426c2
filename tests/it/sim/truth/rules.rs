//! What must be true of each effect at the moment it happens.

use std::time::Duration;

use bytes::Bytes;
use jiff::SignedDuration;
use serde::de::DeserializeOwned;
use tidekeeper::clock::Clock;
use tidekeeper::engine::run::{End, Finished, RunId, Started};
use tidekeeper::engine::work::Action;
use tidekeeper::task::MARGIN;
use tidekeeper::vault::codec::Hasher;
use tidekeeper::vault::layout::{self, BackupRef, LeaderKey, Mark, Marker};
use tidekeeper::vault::manifest::{Manifest, Status};
use tidekeeper::vault::marks::{Decree, Tombstone, Verdict};
use tidekeeper::vault::store::Key;
use tidekeeper::vault::store_clock::{STEADY, TOLERANCE};

use super::super::gate::Gate;
use super::{Facts, Loader, Working};

/// For how long a leader may believe its last look, and a little more.
const LAST_LOOK: Duration = Duration::from_secs(10);

fn parse<T: DeserializeOwned>(key: &Key, body: &Bytes) -> T {
    serde_json::from_slice(body).unwrap_or_else(|error| panic!("{key}: {error}"))
}

impl Working {
    fn deletes(&self) -> bool {
        matches!(self.action, Action::Retention | Action::Scrub)
    }
}

impl Facts {
    pub(super) fn judge_creation(&mut self, by: &Gate, key: &Key, body: &Bytes) {
        if let Some(backup) = layout::backup_of_manifest(key) {
            let manifest: Manifest = parse(key, body);
            self.judge_manifest(by, &backup, &manifest);
            self.manifests.insert(backup, manifest);
        } else if let Some((run, number, mark)) = layout::attempt_of(key) {
            match mark {
                Mark::Started => self.judge_start(parse(key, body)),
                Mark::Finished => self.judge_finish(by, (run, number), parse(key, body)),
            }
        } else if let Some((backup, name)) = layout::backup_of_marker(Marker::Tombstone, key) {
            match layout::proposal_of(name) {
                Some((_, false)) => {
                    let tombstone: Tombstone = parse(key, body);
                    self.judge_deleter(by, key, tombstone.generation);
                }
                Some((n, true)) => self.judge_verdict(by, key, &backup, n, &parse(key, body)),
                None => self.complain(format!("{key} is no key of ours")),
            }
        } else if let Some(LeaderKey::Generation(n)) = layout::leader_key(key) {
            let now = self.clocks.time.monotonic();
            self.leaders.insert(n, now);
        }
    }

    /// A backup exists from here on: all of it is there. One that is given up has no writer.
    fn judge_manifest(&mut self, by: &Gate, backup: &BackupRef, manifest: &Manifest) {
        if manifest.status == Status::Abandoned {
            self.judge_writer(by, backup, "gave up");
            return;
        }
        for artifact in &manifest.artifacts {
            let stored = self.objects.get(&artifact.key).map(|object| Hasher::of(&object.body));
            if stored.as_ref() != Some(&artifact.stored) {
                self.complain(format!("{backup} was committed before its data was there ({})", artifact.key));
                return;
            }
        }
    }

    /// Nobody but its writer ends what a living writer writes.
    fn judge_writer(&mut self, by: &Gate, backup: &BackupRef, did: &str) {
        let Some(id) = self.slots.get(backup) else { return };
        if let Some(working) = self.working.get(id).filter(|working| self.is_at_work(working)) {
            let writer = &working.by.id;
            self.complain(format!("{} {did} {backup} while {writer} was writing it", by.id));
        }
    }

    /// An attempt follows only on one that failed and said so.
    fn judge_start(&mut self, started: Started) {
        let (run, number) = (started.run.clone(), started.attempt);
        if number > 1 {
            match self.finished.get(&(run.clone(), number - 1)) {
                None => {
                    self.complain(format!("attempt {number} of run {run} began before the end of the last"))
                }
                Some(last) if last.retry_at.is_none() => {
                    self.complain(format!("run {run} was over and was started again"));
                }
                Some(_) => {}
            }
        }
        if let Some(backup) = started.backup()
            && let Some((other, _)) = self.slots.insert(backup.clone(), (run.clone(), number))
        {
            self.complain(format!("{backup} is promised to run {other} and to run {run}"));
        }
        self.attempts.insert((run, number), started);
    }

    /// What is written of an attempt's end agrees with what is there.
    fn judge_finish(&mut self, by: &Gate, id: (RunId, u32), finished: Finished) {
        let (run, number) = &id;
        if let Some(working) = self.working.get(&id).filter(|working| self.is_at_work(working)) {
            let worker = &working.by.id;
            self.complain(format!(
                "{} ended attempt {number} of run {run} while {worker} was at work",
                by.id
            ));
        }
        let succeeded = |other: &Finished| other.outcome == End::Succeeded;
        if succeeded(&finished) && self.finished.iter().any(|((of, _), end)| of == run && succeeded(end)) {
            self.complain(format!("run {run} succeeded twice"));
        }
        let conflict = finished.error.as_ref().filter(|error| error.code == "conflict");
        let own = |message: &str| message.contains(&format!("run {run} restores into it"));
        match conflict {
            Some(error) if succeeded(&finished) || own(&error.message) => {
                let said = error.message.clone();
                self.complain(format!("run {run} took its own object for another's: {said}"));
            }
            _ => {}
        }
        self.judge_outcome(&id, &finished);
        self.finished.insert(id, finished);
    }

    fn judge_outcome(&mut self, id: &(RunId, u32), finished: &Finished) {
        let Some(started) = self.attempts.get(id).cloned() else {
            return self.complain(format!("run {} ended and was never begun", id.0));
        };
        let succeeded = finished.outcome == End::Succeeded;
        if let Some(backup) = started.backup() {
            let status = self.manifests.get(&backup).map(|manifest| manifest.status.clone());
            let exists = status.as_ref().is_some_and(|status| *status != Status::Abandoned);
            if exists != succeeded || status.is_none() {
                self.complain(format!("run {} {:?}, and {backup} is {status:?}", id.0, finished.outcome));
            }
        }
        if succeeded && matches!(started.order.action, Action::Hold | Action::Accept) {
            self.judge_promise(&started);
        }
    }

    /// An operator is told that a backup is held, or accepted: from here on that counts.
    fn judge_promise(&mut self, started: &Started) {
        let order = &started.order;
        let Ok(backup) = serde_json::from_value::<BackupRef>(order.params["backup"].clone()) else { return };
        let key = match order.action {
            Action::Hold => layout::marker(Marker::Hold, &backup, started.run.as_str()),
            _ => layout::accepted(&backup),
        };
        let there = self.objects.contains_key(key.as_str());
        if there && self.sealed.contains(&backup) && order.action == Action::Hold {
            self.complain(format!("an operator was told that {backup} is held, and it is being deleted"));
        }
        self.promised.insert(key.to_string());
    }

    /// Only who leads deletes, and only by clocks that can be trusted.
    fn judge_deleter(&mut self, by: &Gate, key: &Key, generation: Option<u64>) {
        let Some(generation) = generation else {
            return self.complain(format!("{} wrote {key} and does not lead", by.id));
        };
        let began = by.began(key.as_str());
        if let Some(&deposed) = self.leaders.get(&(generation + 1))
            && began > deposed + LAST_LOOK
            && by.stalled() < deposed
        {
            self.complain(format!("{} wrote {key} as generation {generation}, long deposed", by.id));
        }
        let Some(working) = self.working.values().find(|working| working.deletes() && working.by.id == by.id)
        else {
            return;
        };
        let offs = self.clocks.offs(by.machine);
        let born = self.born.get(&by.id).copied().unwrap_or(offs);
        let recent = self.last_jump.is_some_and(|jump| self.clocks.time.monotonic() < jump + STEADY);
        let far = |a: SignedDuration, b: SignedDuration| (a - b).abs().unsigned_abs() > TOLERANCE;
        if working.offs == offs && (far(offs.0, offs.1) || (recent && far(offs.0, born.0))) {
            self.complain(format!("{} wrote {key} by a clock that is off by {:#}", by.id, offs.0));
        }
    }

    /// `delete` is said of what may go, after the grace.
    fn judge_verdict(&mut self, by: &Gate, key: &Key, backup: &BackupRef, n: u32, verdict: &Verdict) {
        // Said again of what is gone, by a deleter that was slow, it changes nothing.
        if verdict.decree == Decree::Keep || self.sealed.contains(backup) {
            return;
        }
        let working = self.working.values().find(|working| working.deletes() && working.by.id == by.id);
        let (generation, since) =
            working.map_or((None, None), |working| (working.generation, Some(working.since)));
        self.judge_deleter(by, key, generation);
        let now = self.clocks.store.now();
        let grace = self.retention_of(backup).grace;
        match self.objects.get(layout::tombstone(backup, n).as_str()) {
            Some(tombstone) if now >= tombstone.at + grace => {}
            Some(_) => self.complain(format!("{backup} was to be deleted before its grace had passed")),
            None => self.complain(format!("{backup} was to be deleted without a proposal")),
        }
        if let Some(reader) = self
            .readers
            .values()
            .find(|reader| reader.backup == *backup && !reader.by.is_dead() && now < reader.until)
        {
            let by = &reader.by.id;
            self.complain(format!("{backup} was to be deleted while {by} held it and read"));
        }
        if let Some(why) = self.why_it_stays(backup, verdict.at, since.unwrap_or_default()) {
            self.complain(format!("{backup} was to be deleted, though {why}"));
        }
        self.sealed.insert(backup.clone());
    }

    pub(super) fn judge_deletion(&mut self, by: &Gate, key: &Key) {
        if let Some(backup) = layout::backup_of_manifest(key) {
            if !self.sealed.contains(&backup) {
                self.complain(format!("{} deleted {backup} without a verdict", by.id));
            }
        } else if let Some(backup) = layout::backup_of_data(key) {
            self.judge_cleaning(by, key);
            let lost = match self.manifests.get(&backup) {
                _ if self.sealed.contains(&backup) => true,
                None => false,
                Some(manifest) if manifest.status == Status::Abandoned => true,
                Some(manifest) => manifest.artifacts.iter().all(|artifact| artifact.key != key.as_str()),
            };
            if !lost {
                self.complain(format!("{} deleted {key}, and no manifest says that it may go", by.id));
            }
        }
    }

    /// What a living writer writes is not cleaned away.
    pub(super) fn judge_cleaning(&mut self, by: &Gate, key: &Key) {
        if let Some(backup) = layout::backup_of_data(key) {
            self.judge_writer(by, &backup, "cleaned away data of");
        }
    }

    /// Of one run, one attempt works.
    pub(super) fn judge_work(&mut self, id: &(RunId, u32), new: &Working) {
        let other = self.working.iter().find(|((run, _), working)| *run == id.0 && self.is_at_work(working));
        if let Some((_, other)) = other {
            let (one, two) = (&other.by.id, &new.by.id);
            self.complain(format!("run {} is worked on by {one} and by {two}", id.0));
        }
        if self.finished.contains_key(id) {
            self.complain(format!("run {}: work began after the attempt's end", id.0));
        }
    }

    /// One restore at a time into one target.
    pub(super) fn judge_loading(&mut self, new: &Loader) {
        let now = self.clocks.time.monotonic();
        let jumped = self.last_jump.is_some_and(|jump| now < jump + Duration::from_secs(3_600));
        let other = self
            .loaders
            .values()
            .find(|other| other.target == new.target && !other.by.is_dead() && now < other.until + MARGIN);
        if let Some(other) = other.filter(|_| !jumped) {
            let run = other.run.clone();
            self.complain(format!("runs {run} and {} load into {} at the same time", new.run, new.target));
        }
    }
}
