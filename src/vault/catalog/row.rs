//! One line of the catalog: what a manifest says in short, and what is said of the backup since.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use crate::vault::fate::{self, Fate, Proposals};
use crate::vault::layout::BackupRef;
use crate::vault::layout::log::Position;
use crate::vault::manifest::{Level, Manifest, Status};
use crate::vault::marks::{Hold, Outcome, Proof};
use crate::vault::suspect::Size;

/// A backup that exists.
#[derive(Clone, Debug)]
pub struct Row {
    /// Which.
    pub backup: BackupRef,
    /// When its manifest was created, by the store's clock.
    pub stored_at: Timestamp,
    /// What the manifest says, or why it cannot be read.
    pub manifest: std::result::Result<Arc<Summary>, String>,
    /// What is said of it since.
    pub marks: Marks,
}

impl Row {
    /// Its status; none while the manifest cannot be read.
    pub fn status(&self) -> Option<&Status> {
        self.manifest.as_ref().ok().map(|summary| &summary.status)
    }

    /// Whether it counts: `complete`, or suspect and accepted; not found damaged, not being deleted.
    pub fn is_good(&self) -> bool {
        let counts = match self.status() {
            Some(Status::Complete) => true,
            Some(Status::Suspect) => self.marks.accepted,
            _ => false,
        };
        counts && self.is_sound()
    }

    /// Whether something can be restored from it: good, or `partial`.
    pub fn is_usable(&self) -> bool {
        self.is_good() || (self.status() == Some(&Status::Partial) && self.is_sound())
    }

    fn is_sound(&self) -> bool {
        !self.marks.is_damaged() && !self.marks.fate.is_sealed()
    }

    /// Everything about it that could not be read.
    pub fn problem(&self) -> Option<&str> {
        let fate = match &self.marks.fate {
            Fate::Unclear(why) => Some(why.as_str()),
            _ => None,
        };
        let manifest = self.manifest.as_ref().err().map(String::as_str);
        manifest.or(fate).or(self.marks.problems.first().map(String::as_str))
    }
}

/// What is said of a backup after it was made.
#[derive(Clone, Debug, Default)]
pub struct Marks {
    /// Oldest first.
    pub proofs: Vec<Proven>,
    /// Active or not: that is a matter of time.
    pub holds: Vec<Arc<Hold>>,
    /// Whether an operator said that it is good although suspect.
    pub accepted: bool,
    /// Whether it stays.
    pub fate: Fate,
    /// Marks that cannot be read.
    pub problems: Vec<String>,
}

impl Marks {
    pub(super) fn conclude(mut self, proposals: &Proposals) -> Self {
        // Of two at the same moment the worse one is the later: doubt is cheaper than a bad restore.
        self.proofs.sort_by_key(|proof| (proof.at, std::cmp::Reverse(proof.outcome)));
        self.fate = fate::conclude(proposals);
        self
    }

    /// Whether the newest proof says that bytes are missing or wrong.
    pub fn is_damaged(&self) -> bool {
        self.proofs.last().is_some_and(|proof| proof.outcome == Outcome::Damaged)
    }

    /// The strongest of its proofs, unless the newest says that it is damaged.
    pub fn proven(&self) -> Option<&Proven> {
        if self.is_damaged() {
            return None;
        }
        let good = self.proofs.iter().filter(|proof| proof.outcome != Outcome::Damaged);
        good.max_by_key(|proof| (proof.outcome, proof.at))
    }

    /// The first hold that is active at `now`.
    pub fn held(&self, now: Timestamp) -> Option<&Hold> {
        self.holds.iter().find(|hold| hold.is_active(now)).map(|hold| &**hold)
    }
}

/// A proof in short.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proven {
    /// What was found.
    pub outcome: Outcome,
    /// When.
    pub at: Timestamp,
    /// The run that looked.
    pub run: Box<str>,
}

impl Proven {
    pub(in crate::vault) fn of(proof: &Proof) -> Self {
        Proven { outcome: proof.outcome, at: proof.at, run: proof.run.as_str().into() }
    }
}

/// A manifest in short: what lists, retention and the next backup's judgement need. 10,000 of them take about 4 MiB.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// The kind of the source.
    pub kind: Box<str>,
    /// What it is worth, by its writer.
    pub status: Status,
    /// Why it is not `complete`.
    pub reason: Option<Box<str>>,
    /// When the run began.
    pub started_at: Timestamp,
    /// When the last byte was stored.
    pub finished_at: Timestamp,
    /// The moment its contents belong to, or the last of a span.
    pub at: Option<Timestamp>,
    /// How exactly.
    pub level: Option<Level>,
    /// Items in all.
    pub items: u64,
    /// Plain bytes of all artifacts.
    pub plain_bytes: u64,
    /// Stored bytes of all artifacts.
    pub stored_bytes: u64,
    /// How many artifacts.
    pub artifacts: u32,
    /// How many things are missing.
    pub omissions: u32,
    /// Whether it needs a private key.
    pub encrypted: bool,
    /// Backups whose data it uses.
    pub requires: Box<[BackupRef]>,
    /// The log that goes on from it, by its own name,
    pub timeline: Option<Box<str>>,
    /// and where in it.
    pub log_position: Option<Position>,
}

impl Summary {
    /// Shortens a manifest.
    pub fn of(manifest: &Manifest) -> Self {
        let consistency = manifest.consistency.as_ref();
        let sum =
            |bytes: fn(&crate::vault::manifest::Artifact) -> u64| manifest.artifacts.iter().map(bytes).sum();
        Summary {
            kind: manifest.kind.as_str().into(),
            status: manifest.status.clone(),
            reason: manifest.reason.as_deref().map(Into::into),
            started_at: manifest.started_at,
            finished_at: manifest.finished_at,
            at: consistency.and_then(|consistency| consistency.at.or(consistency.to)),
            level: consistency.map(|consistency| consistency.level),
            items: manifest.contents.items,
            plain_bytes: sum(|artifact| artifact.plain.bytes),
            stored_bytes: sum(|artifact| artifact.stored.bytes),
            artifacts: manifest.artifacts.len() as u32,
            omissions: manifest.omissions.len() as u32,
            encrypted: manifest.encryption.is_some(),
            requires: manifest.requires.as_slice().into(),
            timeline: manifest.timeline.as_deref().map(Into::into),
            log_position: manifest.log_position,
        }
    }

    /// How much it holds, for the judgement of the next.
    pub fn size(&self) -> Size {
        Size { items: self.items, bytes: self.plain_bytes }
    }
}
