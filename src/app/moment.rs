//! From `restore SOURCE --at T` to a backup, and the log that leads from it to that moment.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};
use serde_json::json;

use super::App;
use super::log::{Log, Place};
use crate::clock::aloud;
use crate::config::SourceName;
use crate::engine::Engine;
use crate::engine::request::Ask;
use crate::engine::run::End;
use crate::engine::work::{Action, Order};
use crate::error::{Error, Kind, Result};
use crate::vault::catalog::Row;
use crate::vault::layout::BackupRef;
use crate::vault::layout::log::Position;

/// How a moment is had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    /// From this backup.
    pub backup: BackupRef,
    /// The log holds nothing of that moment, or before, beyond this: known where it was sealed after that moment, and had
    /// nothing newer.
    pub up_to: Option<Position>,
    /// What the moment may lack, where that could not be found out.
    pub may_lack: Option<String>,
}

impl Point {
    /// The moment of the backup itself.
    pub fn of(backup: BackupRef) -> Self {
        Point { backup, up_to: None, may_lack: None }
    }

    /// The beginning of a second, as far as it is stored.
    fn within(backup: BackupRef, end: Position, why: &str) -> Self {
        let may_lack = format!("what was written later in that second: {why}");
        Point { backup, up_to: Some(end), may_lack: Some(may_lack) }
    }
}

/// How long a seal may take that a restore waits for: a daemon that does not answer is succeeded within it.
const SEALING: Duration = Duration::from_secs(75);

/// How often a log is sealed for one question. While the second that is asked for lasts, more may be written in it.
const SEALS: u32 = 3;

/// Who orders the seal that a restore needs.
const RESTORE: &str = "restore";

impl App {
    /// How `source` is had as it was at `at`, which is not in the future. What was written lately is sealed for it.
    ///
    /// # Errors
    /// `NotFound`, with what can be had instead; `Usage` for a part of a second of a log.
    pub async fn point(&self, source: &SourceName, at: Timestamp, engine: &Engine) -> Result<Point> {
        let along = self.log(source).await?.and_then(|log| Some((log.kind.position_at(at)?, log)));
        let Some((wanted, log)) = along else {
            return self.backup_of(source, at).await;
        };
        if let Some(error) = part_of_a_second(at) {
            return Err(error);
        }
        let refused = match log.place(wanted) {
            Place::In(backup) => return Ok(Point::of(backup)),
            Place::End(backup, end) => return Ok(Point { up_to: Some(end), ..Point::of(backup) }),
            Place::After => match self.point_after(source, at, wanted, log, engine).await? {
                Ok(point) => return Ok(point),
                Err(refused) => refused,
            },
            place => log.refusal(at, &place),
        };
        // What a backup itself holds can be had even where no log leads to it.
        self.backup_of(source, at).await.map_err(|_| refused)
    }

    /// A moment after the end of what is stored: what was written since is, if there is anything.
    async fn point_after(
        &self,
        source: &SourceName,
        at: Timestamp,
        wanted: Position,
        mut log: Log,
        engine: &Engine,
    ) -> Result<Result<Point, Error>> {
        for _ in 0..SEALS {
            let began = self.clock.now();
            if let Err(error) = self.seal(source, engine).await {
                let sealing = format!(
                    "what was written since its last segment is not stored, and could not be: {error}"
                );
                // The last second that the window names is to be had, also when the source is gone for good.
                let last = log.end().filter(|(_, end)| is_second_of(log.moment(*end), at));
                return Ok(match last {
                    Some((backup, end)) => Ok(Point::within(backup, end, &sealing)),
                    None => Err(log.refusal(at, &Place::After).hint_first(format!(
                        "{sealing}; ask for an earlier moment, or again when it can be"
                    ))),
                });
            }
            log = match self.log(source).await? {
                Some(log) => log,
                None => break,
            };
            match log.place(wanted) {
                Place::In(backup) => return Ok(Ok(Point::of(backup))),
                Place::After if began.as_second() <= at.as_second() => {
                    self.clock.sleep(Duration::from_secs(1)).await;
                }
                Place::After => {
                    let end = log.end().map(|(backup, end)| Point { up_to: Some(end), ..Point::of(backup) });
                    return Ok(end.ok_or_else(|| log.refusal(at, &Place::After)));
                }
                place => return Ok(Err(log.refusal(at, &place))),
            }
        }
        Ok(Err(log.refusal(at, &Place::After)))
    }

    /// Has the log of a source stored up to now, by whoever follows it.
    pub(super) async fn seal(&self, source: &SourceName, engine: &Engine) -> Result<()> {
        self.source(source)?;
        let order = Order::new(Action::Seal, Some(source.clone()));
        let doing = order.to_string();
        let ask = Ask {
            principal: RESTORE.to_owned(),
            route: format!("{RESTORE} --at"),
            idempotency: None,
            body: json!(order),
            order,
            deadline: SEALING,
        };
        let tell =
            || tracing::warn!(%source, "waiting until its log is stored up to now, by the daemon that leads");
        let (_, record) = aloud(&*self.clock, Box::pin(engine.have_done(&ask, SEALING)), tell).await?;
        match record.finished() {
            Some(finished) if finished.outcome == End::Succeeded => Ok(()),
            finished => Err(match finished.and_then(|finished| finished.error.as_ref()) {
                Some(failure) => {
                    let kind = Kind::from_code(&failure.code).unwrap_or(Kind::Internal);
                    Error::new(kind, doing, &failure.message)
                }
                None => Error::new(Kind::Cancelled, doing, "somebody asked for its end"),
            }),
        }
    }

    /// The good backup of exactly the moment `at`: any other moment needs a timeline.
    async fn backup_of(&self, source: &SourceName, at: Timestamp) -> Result<Point> {
        let listing = self.catalog.list(Some(source)).await?;
        let moment = |row: &Row| row.manifest.as_ref().ok().and_then(|summary| summary.at);
        let mut good = listing.of(source).filter(|row| row.is_good());
        let before = good.find(|row| moment(row).is_some_and(|of| of <= at));
        if let Some(row) = before.filter(|row| moment(row) == Some(at)) {
            let up_to = row.manifest.as_ref().ok().and_then(|summary| summary.log_position);
            let backup = row.backup.clone();
            return Ok(match up_to {
                Some(end) => Point::within(backup, end, "no log leads on from the backup of it"),
                None => Point::of(backup),
            });
        }
        let nearest =
            before.map(|row| format!("the nearest moment before it: `tidekeeper restore {}`", row.backup));
        let error = self.no_timeline(source, format!("looking for {source} as it was at {at}")).await?;
        Err(nearest.into_iter().fold(error, |error, nearest| error.hint_first(nearest)))
    }

    /// Why there is no timeline of `source`; who is known to nobody is told with the nearest name.
    pub(super) async fn no_timeline(&self, source: &SourceName, doing: String) -> Result<Error> {
        let listing = self.catalog.list(Some(source)).await?;
        let system = self.source(source).ok();
        if system.is_none() && listing.rows.is_empty() {
            let unknown = self.catalog.resolve(&format!("{source}/latest")).await;
            return Ok(unknown
                .err()
                .unwrap_or_else(|| Error::new(Kind::NotFound, doing, "it was only just made")));
        }
        let newest = listing.of(source).find_map(|row| row.manifest.as_ref().ok());
        let kind = system.map(|system| system.kind()).or(newest.map(|newest| &*newest.kind));
        let tells =
            |name: &str| self.kind(name).is_some_and(|kind| kind.position_at(self.clock.now()).is_some());
        let without_log = kind.filter(|kind| !tells(kind));
        let wanted = system.map(|system| system.source().timeline().is_some());
        let backups = format!("`tidekeeper backups {source}` lists what can be had");
        let (why, hint) = match (without_log, newest.is_some_and(|newest| newest.timeline.is_none()), wanted) {
            (Some(kind), ..) => (format!("a {kind} is restored to the moments of its backups only"), backups),
            (None, true, _) => (
                "its newest backup has no place in a log, because its server keeps none, or lets us not read it".to_owned(),
                format!("`tidekeeper check` says which; {backups}"),
            ),
            (None, false, Some(false)) => (
                "it is not switched on".to_owned(),
                format!("`timeline: true` in its configuration lets the daemon follow its log; {backups}"),
            ),
            (None, false, Some(true)) => (
                "the vault holds none".to_owned(),
                "the daemon that leads begins one within a minute: `tidekeeper serve`; `tidekeeper status` tells why not"
                    .to_owned(),
            ),
            (None, false, None) => ("the vault holds none".to_owned(), backups),
        };
        Ok(Error::new(Kind::NotFound, doing, format!("{source} has no timeline: {why}")).hint(hint))
    }

    /// That `at` is not to be had before it comes, and what is.
    pub(super) async fn not_yet(&self, source: &SourceName, at: Timestamp) -> Result<Error> {
        let now = self.clock.now().round(Unit::Second).unwrap_or(at);
        let why = format!("`at` is in the future: {at} was asked for, and it is {now} now");
        let error = Error::new(Kind::Usage, "reading what to restore", why);
        let log = self.log(source).await?;
        Ok(log.into_iter().fold(error, |error, log| error.hint(log.summary())))
    }
}

/// Whether a moment is in the second that `at` is.
fn is_second_of(moment: Option<Timestamp>, at: Timestamp) -> bool {
    moment.is_some_and(|moment| moment.as_second() == at.as_second())
}

/// A log tells in which second something was written, and no more: half of one cannot be had.
fn part_of_a_second(at: Timestamp) -> Option<Error> {
    let whole = Timestamp::from_second(at.as_second()).ok().filter(|whole| *whole != at)?;
    let before = whole - SignedDuration::from_secs(1);
    let why = format!("{at} is a part of a second, and a log is restored to the end of one");
    let hint = format!("{whole} is with all that was written in that second, {before} without any of it");
    Some(Error::new(Kind::Usage, "reading what to restore", why).hint(hint))
}
