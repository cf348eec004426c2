//! Whether a backup may go: the naive model of retention, over what is in the store at the moment of the verdict.

use std::cmp::Reverse;
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use tidekeeper::config::{Retention, Schedule, When};
use tidekeeper::vault::layout::{self, BackupRef, Marker};
use tidekeeper::vault::manifest::{Manifest, Status};
use tidekeeper::vault::marks::{Hold, Outcome, Proof};
use tidekeeper::vault::retention::{self, Situation, Worth};
use tidekeeper::vault::store_clock::{Reading, Trust};

use super::{Facts, Object};
use crate::vault::retention::model;

impl Facts {
    fn schedule_of(&self, backup: &BackupRef) -> &Schedule {
        self.schedules.iter().find(|schedule| schedule.source == backup.source).expect("each source has one")
    }

    pub(super) fn retention_of(&self, backup: &BackupRef) -> Retention {
        self.schedule_of(backup).retention.clone()
    }

    /// Why a backup stays, if it does. `at` is the moment that the verdict was made for; what others did to other backups
    /// after the pass began at `since` need not have been seen by it.
    pub(super) fn why_it_stays(&self, backup: &BackupRef, at: Timestamp, since: Duration) -> Option<String> {
        if let Some(key) = self.hold(backup, at) {
            return Some(format!("it is held by {key}"));
        }
        let schedule = self.schedule_of(backup);
        let interval = match schedule.backup[0].when {
            When::Every(interval) => Some(interval),
            When::Cron(_) => None,
        };
        let clock = Reading { now: at, trust: Trust::Yes };
        let situation = Situation { clock, zone: TimeZone::UTC, interval };
        let siblings = self.present().filter(|(other, ..)| other.source == backup.source);
        let counted = siblings.filter(|(other, ..)| *other == backup || !self.sealed.contains(other));
        let rows: Vec<_> = counted
            .map(|(other, manifest, object)| {
                let until = if other == backup { Duration::MAX } else { since };
                self.row(other, manifest, object, until)
            })
            .collect();
        let stays = model::stays(&situation, &schedule.retention, &rows);
        let newest = || rows.iter().map(|row| format!("{} {:?} {:?}", row.id, row.worth, row.proven));
        stays
            .contains(&backup.id)
            .then(|| format!("by the listing it stays: {}", newest().collect::<Vec<_>>().join(", ")))
    }

    /// A hold that somebody was told of.
    fn hold(&self, backup: &BackupRef, at: Timestamp) -> Option<&String> {
        let prefix = layout::markers_of(Marker::Hold, backup);
        let (key, _) =
            self.objects.range(prefix.clone()..).take_while(|(key, _)| key.starts_with(&prefix)).find(
                |(key, object)| {
                    let active = |hold: Hold| hold.is_active(at);
                    self.promised.contains(*key) && serde_json::from_slice(&object.body).is_ok_and(active)
                },
            )?;
        Some(key)
    }

    fn row(
        &self,
        backup: &BackupRef,
        manifest: &Manifest,
        object: &Object,
        until: Duration,
    ) -> retention::Row {
        let prefix = layout::markers_of(Marker::Proof, backup);
        let mut proofs: Vec<Proof> = self
            .under(&prefix)
            .filter(|(_, object)| object.made <= until)
            .filter_map(|(_, object)| serde_json::from_slice(&object.body).ok())
            .collect();
        proofs.sort_by_key(|proof| (proof.at, Reverse(proof.outcome)));
        let damaged = proofs.last().is_some_and(|proof| proof.outcome == Outcome::Damaged);
        let word = layout::accepted(backup).to_string();
        let accepted = match until {
            Duration::MAX => self.promised.contains(&word),
            _ => self.objects.contains_key(&word),
        };
        let worth = match manifest.status {
            Status::Abandoned => Worth::Abandoned,
            _ if damaged => Worth::Damaged,
            Status::Suspect if !accepted => Worth::Suspect,
            Status::Partial => Worth::Partial,
            _ => Worth::Good,
        };
        let proven = proofs.iter().any(|proof| proof.outcome == Outcome::Verified) && !damaged;
        retention::Row {
            id: backup.id.clone(),
            stored_at: object.at,
            worth,
            proven: proven.then_some(retention::Proof::Verified),
            held: None,
            requires: Vec::new(),
            used_by: None,
            promised: false,
            unreadable: None,
        }
    }
}
