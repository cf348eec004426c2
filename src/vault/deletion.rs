//! Deletes what retention lets go, so that no crash, pause, lost reply or second deleter can cost a backup that counts.
//!
//! One pass over a source: look (fresh listings, the clocks, the plan), finish what was decided before, withdraw the
//! proposals that the plan no longer wants, decide those whose grace has passed, propose the rest; last, let go what of its
//! timelines no backup needs. Every step is an object in the vault, and the next pass, by whichever process, goes on from there:
//!
//! ```text
//! plan -> tombstone <n>.json -> grace, by the store's clock -> plan anew -> look again -> <n>.verdict.json
//!      -> native resources -> manifest -> data -> marks -> the verdict itself, last of all
//! ```
//!
//! - From the verdict `delete` on, the catalog calls the backup sealed: nobody resolves, restores or relies on it, so
//!   nobody can meet one whose data is partly gone. The manifest goes before the data for whoever reads no verdicts.
//! - The verdict is the last object to go, so whatever a crash leaves is under a verdict that says what to do with it.
//! - Two deleters cannot take each other's pillars: each has its tombstone in the vault before it looks whether what
//!   it relies on has one. Were X deleted relying on Y, and Y relying on X, then T(X) < look(Y), which saw no T(Y),
//!   so T(X) < look(Y) < T(Y) < look(X), which saw T(X) and did not rely on X. Longer circles break the same way.
//! - A deposed leader that wakes up fails at the fence before it proposes or decides. If it was paused just behind the
//!   fence, its verdict rests on a proposal and looks that were sound, and the key has one winner.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::Vault;
use super::catalog::{Catalog, Listing, Proven, Row};
use super::decide::{Decision, decide};
use super::fate::{self, Fate};
use super::hold;
use super::layout::{self, BackupRef};
use super::manifest::Manifest;
use super::marks::{Decree, Proof, Tombstone, Verdict};
use super::retention::{self, Action, Line, Plan, Situation, Wait};
use super::store_clock::{Reading, StoreClock, Trust};
use super::timeline::trim::{Trim, Trimmed, promised};
use super::timeline::{self, Timeline};
use super::verify;
use crate::config::{Retention, SourceName};
use crate::error::{Error, Kind, Result};

mod erase;
mod pillar;
mod trim;

/// Whether this process may still delete: asked before every effect.
#[async_trait]
pub trait Fence: Send + Sync {
    /// The generation by which it leads, for the record.
    fn generation(&self) -> Option<u64>;

    /// Fails once another generation leads, or the lease was not renewed in time.
    async fn still_leading(&self) -> Result<()>;
}

/// Deletes what a backup has outside of the vault: snapshots that its manifest names.
#[async_trait]
pub trait Natives: Send + Sync {
    /// Deletes them all; repeating it is harmless.
    async fn delete(&self, manifest: &Manifest) -> Result<()>;
}

/// For sources whose backups are in the vault as a whole.
#[derive(Clone, Copy, Debug)]
pub struct NoNatives;

#[async_trait]
impl Natives for NoNatives {
    async fn delete(&self, _: &Manifest) -> Result<()> {
        Ok(())
    }
}

/// How long the backups of one source are kept.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Of which source.
    pub source: SourceName,
    /// The rules.
    pub retention: Retention,
    /// The zone in which they count hours, days, weeks.
    pub zone: TimeZone,
    /// The longest pause between two due times of its schedule.
    pub interval: Option<Duration>,
}

/// Deletes; one per process that leads.
#[derive(Clone, Copy)]
pub struct Deleter<'a> {
    /// From where.
    pub vault: &'a Vault,
    /// How it is listed.
    pub catalog: &'a Catalog,
    /// How time is read.
    pub clock: &'a StoreClock,
    /// Whether it may.
    pub fence: &'a dyn Fence,
    /// What else there is to delete.
    pub natives: &'a dyn Natives,
}

/// What a pass did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// What of the plan it executed removes. What stays is not listed: a report is kept for ever, once an hour.
    pub removals: Vec<Line>,
    /// How many backups stay.
    pub kept: usize,
    /// Why nothing was removed.
    pub waits: Vec<Wait>,
    /// Proposed now: they go when the grace has passed and the plan still says so.
    pub proposed: Vec<BackupRef>,
    /// Proposals from before whose grace has not passed.
    pub pending: Vec<BackupRef>,
    /// Proposals that were closed with `keep`.
    pub withdrawn: Vec<BackupRef>,
    /// Gone.
    pub deleted: Vec<BackupRef>,
    /// What went of its timelines.
    #[serde(skip_serializing_if = "Trimmed::is_nothing")]
    pub trimmed: Trimmed,
}

impl Report {
    /// Nothing is done yet.
    fn of(plan: &Plan) -> Self {
        let removals: Vec<Line> = plan.removals().cloned().collect();
        let kept = plan.lines.len() - removals.len();
        Report { removals, kept, waits: plan.waits.clone(), ..Report::default() }
    }
}

/// Plans for one source without touching anything: the dry run.
///
/// # Errors
/// Those of the store.
pub async fn preview(catalog: &Catalog, vault: &Vault, clock: &StoreClock, policy: &Policy) -> Result<Plan> {
    Ok(look(catalog, vault, clock, policy).await?.plan)
}

/// What a pass starts from.
struct View {
    listing: Listing,
    clock: Reading,
    plan: Plan,
    trim: Trim,
}

async fn look(catalog: &Catalog, vault: &Vault, clock: &StoreClock, policy: &Policy) -> Result<View> {
    let listing = catalog.list(None).await?;
    let timelines = timeline::list(vault, &policy.source).await?;
    // After the listings: what was listed cannot be younger than this reading.
    let newest = listing.newest_object.max(newest_segment(&timelines));
    let clock = clock.read(&*vault.store, newest).await?;
    let (dated, window) = (retention::bases(&listing, &policy.source), policy.retention.window);
    let promised = promised(&timelines, &dated, ago(clock.now, window));
    let rows = retention::rows(&listing, &policy.source, clock.now, &promised);
    let situation = Situation { clock: clock.clone(), zone: policy.zone.clone(), interval: policy.interval };
    let mut plan = retention::plan(&situation, &policy.retention, &rows);
    let mut trim = Trim::default();
    if plan.waits.is_empty() {
        // A backup under way may be of a position that lies back as far as the grace, which is longer than any run.
        let since = ago(clock.now, window.max(policy.retention.grace));
        let bases: Vec<_> = dated.into_iter().map(|(base, _)| base).collect();
        trim = timeline::trim::trim(&timelines, &bases, since);
        plan.trim = trim.sum();
    }
    Ok(View { listing, clock, plan, trim })
}

fn newest_segment(timelines: &[Timeline]) -> Option<Timestamp> {
    timelines.iter().flat_map(|timeline| &timeline.segments).map(|segment| segment.modified).max()
}

fn ago(now: Timestamp, time: Duration) -> Timestamp {
    now.checked_sub(time).unwrap_or(Timestamp::MIN)
}

impl Deleter<'_> {
    /// One pass over the source of `policy`.
    ///
    /// # Errors
    /// The first one ends the pass: nothing more is decided by a view that is known to be incomplete. What was done
    /// stays done, and the next pass goes on from there.
    pub async fn apply(&self, policy: &Policy) -> Result<Report> {
        let doing = |error: Error| error.while_doing(format!("retention of {}", policy.source));
        self.pass(policy).await.map_err(doing)
    }

    async fn pass(&self, policy: &Policy) -> Result<Report> {
        let View { listing, clock, plan, trim } = look(self.catalog, self.vault, self.clock, policy).await?;
        let mut report = Report::of(&plan);
        if let Trust::No(_) = clock.trust {
            return Ok(report);
        }
        self.finish_decided(&listing, &policy.source, &mut report).await?;
        if !plan.waits.is_empty() {
            return Ok(report);
        }
        let fates: Vec<(&Row, &Line)> = listing
            .of(&policy.source)
            .filter_map(|row| plan.line(&row.backup.id).map(|line| (row, line)))
            .collect();
        // Withdrawals first: a proposal that is off must not keep others from relying on its backup.
        for (row, line) in fates.iter().filter(|(_, line)| line.action == Action::Keep) {
            self.withdraw(row, line, clock.now, &mut report).await?;
        }
        for (row, line) in fates.iter().filter(|(_, line)| line.action == Action::Remove) {
            self.advance(policy, row, line, clock.now, &mut report).await?;
        }
        self.trim(&policy.source, &trim, &mut report.trimmed).await?;
        Ok(report)
    }

    /// Takes a removal its next step.
    async fn advance(
        &self,
        policy: &Policy,
        row: &Row,
        line: &Line,
        now: Timestamp,
        report: &mut Report,
    ) -> Result<()> {
        let backup = row.backup.clone();
        match row.marks.fate {
            Fate::Stays => {
                self.propose(&backup, line, now).await?;
                report.proposed.push(backup);
            }
            Fate::Proposed { since, .. } if now < ripe(since, policy.retention.grace) => {
                report.pending.push(backup);
            }
            Fate::Proposed { n, .. } => {
                if self.sentence(row, n, line, now).await? {
                    self.erase(&backup, n).await?;
                    report.deleted.push(backup);
                } else {
                    report.withdrawn.push(backup);
                }
            }
            // Not in the plan: the rows leave out the first, and the second makes the plan wait.
            Fate::Deleting { .. } | Fate::Unclear(_) => {}
        }
        Ok(())
    }

    async fn propose(&self, backup: &BackupRef, line: &Line, now: Timestamp) -> Result<()> {
        let n = fate::next_number(&fate::proposals(self.vault, backup).await?);
        let tombstone = Tombstone {
            nonce: layout::nonce(),
            at: now,
            reasons: line.reasons.iter().map(ToString::to_string).collect(),
            relies_on: line.relies_on.clone(),
            generation: self.fence.generation(),
        };
        self.fence.still_leading().await?;
        let key = layout::tombstone(backup, n);
        match decide(&*self.vault.store, &*self.vault.clock, &key, &tombstone).await? {
            Decision::Ours => Ok(()),
            Decision::Theirs(other) => {
                let why = format!("{} was proposed by another leader ({:?})", key, other.generation);
                Err(Error::new(Kind::Conflict, format!("proposing to delete {backup}"), why))
            }
        }
    }

    /// Closes an open proposal that the plan does not want any more.
    async fn withdraw(&self, row: &Row, line: &Line, now: Timestamp, report: &mut Report) -> Result<()> {
        let Fate::Proposed { n, .. } = row.marks.fate else { return Ok(()) };
        let verdict = Verdict::new(Decree::Keep, in_words(line), now);
        self.fence.still_leading().await?;
        match self.decide_verdict(&row.backup, n, &verdict).await? {
            Decree::Keep => report.withdrawn.push(row.backup.clone()),
            Decree::Delete => {
                let why = "another deleter decided to delete what this plan keeps";
                return Err(Error::new(Kind::Conflict, format!("keeping {}", row.backup), why));
            }
        }
        Ok(())
    }

    /// Decides proposal `n`, whose grace has passed. Tells whether the backup goes.
    async fn sentence(&self, row: &Row, n: u32, line: &Line, now: Timestamp) -> Result<bool> {
        let source = &row.backup.source;
        for id in &line.relies_on {
            pillar::check(self.vault, &BackupRef { source: source.clone(), id: id.clone() }).await?;
        }
        let verdict = match self.last_look(row, now).await? {
            Some(objection) => Verdict::new(Decree::Keep, objection, now),
            None => Verdict::new(Decree::Delete, in_words(line), now),
        };
        self.fence.still_leading().await?;
        Ok(self.decide_verdict(&row.backup, n, &verdict).await? == Decree::Delete)
    }

    /// The last look before a verdict: an objection that is in the vault by now. What comes later meets the verdict's
    /// key; see [`fate::object`] for why nothing falls in between.
    async fn last_look(&self, row: &Row, now: Timestamp) -> Result<Option<String>> {
        if let Some(holder) = hold::holder(self.vault, &row.backup, now).await? {
            return Ok(Some(holder));
        }
        let accepted = self.vault.store.stat(&layout::accepted(&row.backup)).await?.is_some();
        if accepted && !row.marks.accepted {
            return Ok(Some("an operator accepted it".to_owned()));
        }
        // A verification that ended after the listing has released its hold; what it found may change the plan.
        let newest = verify::newest_proof(self.vault, &row.backup).await?;
        let is_new = |proof: &Proof| !row.marks.proofs.contains(&Proven::of(proof));
        Ok(newest.filter(is_new).map(|proof| format!("{} looked at it meanwhile", proof.run)))
    }

    async fn decide_verdict(&self, backup: &BackupRef, n: u32, verdict: &Verdict) -> Result<Decree> {
        let key = layout::verdict(backup, n);
        match decide(&*self.vault.store, &*self.vault.clock, &key, verdict).await? {
            Decision::Ours => Ok(verdict.decree),
            Decision::Theirs(other) => Ok(other.decree),
        }
    }
}

fn in_words(line: &Line) -> String {
    let reasons: Vec<String> = line.reasons.iter().map(ToString::to_string).collect();
    reasons.join("; ")
}

fn ripe(since: Timestamp, grace: Duration) -> Timestamp {
    since.checked_add(grace).unwrap_or(Timestamp::MAX)
}
