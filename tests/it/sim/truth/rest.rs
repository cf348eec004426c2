//! What must be true when all is quiet: no faults any more, time has passed, scrub has repaired.

use std::collections::BTreeSet;

use tidekeeper::clock::Clock;
use tidekeeper::config::When;
use tidekeeper::engine::due::Timetable;
use tidekeeper::engine::run::{End, RunId};
use tidekeeper::vault::layout::{self, BackupRef, Marker};
use tidekeeper::vault::manifest::{Manifest, Status};
use tidekeeper::vault::store::Key;

use super::{Facts, Object, Truth};

impl Truth {
    /// Looks at everything once more.
    pub fn judge_rest(&self) {
        let mut facts = self.facts();
        let wrong: Vec<String> = [
            facts.open_runs(),
            facts.broken_promises(),
            facts.missed(),
            facts.unreadable(),
            facts.orphans(),
            facts.strays(),
        ]
        .into_iter()
        .flatten()
        .collect();
        wrong.into_iter().for_each(|what| facts.complain(what));
    }
}

impl Facts {
    /// Runs that are not over.
    fn open_runs(&self) -> Vec<String> {
        let runs: BTreeSet<&RunId> = self.attempts.keys().map(|(run, _)| run).collect();
        let open = runs.into_iter().filter(|run| !self.is_over(run));
        open.map(|run| format!("run {run} has no end")).collect()
    }

    fn is_over(&self, run: &RunId) -> bool {
        let last = self.attempts.range((run.clone(), 0)..=(run.clone(), u32::MAX)).next_back();
        let Some((id, started)) = last else { return self.is_cancelled(run) };
        let Some(finished) = self.finished.get(id) else { return false };
        finished.retry_at.is_none() || self.is_cancelled(run) || self.clocks.store.now() >= started.deadline
            // What its own process began, no other goes on with.
            || started.is_local()
    }

    fn is_cancelled(&self, run: &RunId) -> bool {
        self.objects.contains_key(layout::cancel(run.tail()).as_str())
    }

    /// Runs that somebody was promised, and that are not over.
    fn broken_promises(&self) -> Vec<String> {
        let broken = self.accepted.iter().filter(|run| !self.is_over(run));
        broken.map(|run| format!("run {run} was promised and did not come to an end")).collect()
    }

    /// The newest due time of each schedule was served, once nothing befell anybody any more.
    fn missed(&self) -> Vec<String> {
        let table = Timetable::new(&self.schedules);
        let mut missed = Vec::new();
        for line in &table.lines {
            let When::Every(every) = line.series.when else { continue };
            let now = self.clocks.store.now().as_second();
            let due = now - now.rem_euclid(every.as_secs() as i64);
            let run = line.run(jiff::Timestamp::from_second(due).expect("a time of our era"));
            // A clock that was an hour ahead began it in its own time, and that may have failed.
            let early = |object: &Object| self.calm.is_some_and(|calm| object.made < calm);
            if self.objects.get(layout::started(&run, 1).as_str()).is_some_and(early) {
                continue;
            }
            let ends = self.finished.range((run.clone(), 0)..=(run.clone(), u32::MAX));
            if !ends.into_iter().any(|(_, end)| end.outcome == End::Succeeded) {
                missed.push(format!("{line}, due {} s ago, was not done", now - due));
            }
        }
        missed
    }

    /// Backups that do not come back as they were captured.
    fn unreadable(&self) -> Vec<String> {
        let whole = |(backup, manifest, _): &(&BackupRef, &Manifest, _)| {
            !self.spoiled.contains(backup)
                && !self.sealed.contains(backup)
                && manifest.status != Status::Abandoned
        };
        let broken = |manifest: &Manifest| {
            let bad = manifest.artifacts.iter().find(|artifact| {
                let stored = self.objects.get(&artifact.key);
                let plain = stored.and_then(|stored| zstd::decode_all(&*stored.body).ok());
                !plain.is_some_and(|plain| self.is_as_captured(manifest, &artifact.name, &plain))
            });
            bad.map(|artifact| format!("{} cannot be read: {}", manifest.backup(), artifact.key))
        };
        self.present().filter(whole).filter_map(|(_, manifest, _)| broken(manifest)).collect()
    }

    /// Data that no manifest names.
    fn orphans(&self) -> Vec<String> {
        let named: BTreeSet<&str> = self
            .present()
            .flat_map(|(_, manifest, _)| manifest.artifacts.iter().map(|artifact| artifact.key.as_str()))
            .collect();
        let data = self.under("data/").map(|(key, _)| key);
        data.filter(|key| !named.contains(key.as_str())).map(|key| format!("{key} is nobody's")).collect()
    }

    /// Marks of backups that are not there.
    fn strays(&self) -> Vec<String> {
        let there: BTreeSet<&BackupRef> = self.present().map(|(backup, ..)| backup).collect();
        let mut strays = Vec::new();
        for room in [Marker::Hold, Marker::Proof, Marker::Tombstone] {
            for (key, _) in self.under(&format!("{}/", room.as_str())) {
                let marker = Key::new(key);
                let of = layout::backup_of_marker(room, &marker);
                if of.is_none_or(|(backup, _)| !there.contains(&backup)) {
                    strays.push(format!("{key} is of no backup"));
                }
            }
        }
        strays
    }
}
