//! Follows the oplog into a timeline: goes on where it ends while the record there is still in the log, and else begins
//! another that says why.

use std::time::Duration;

use bytes::Bytes;

use super::client::{Link, Server};
use super::config::Settings;
use super::oplog::tail::{Lost, Opened, Tail, first_since, newest};
use super::optime::OpTime;
use crate::error::{Error, Kind, Result};
use crate::source::Until;
use crate::task::Task;
use crate::vault::codec::TRIES;
use crate::vault::layout::log::Position;
use crate::vault::timeline::writer::{Beginning, Reach, TimelineWriter};

/// So many bytes wait for the proof that they are contiguous before they go into a segment.
const WAITING: usize = 4 << 20;

/// So long a record waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// After so long without a record it is asked whether there is none.
const QUIET: Duration = Duration::from_secs(60);

const DOING: &str = "following the oplog";

/// Follows the oplog; see [`Source::follow`](crate::source::Source::follow).
///
/// # Errors
/// `Unsupported` where there is no oplog; what the server or the vault refuse.
pub async fn follow(
    settings: &Settings,
    until: Until,
    task: &Task,
    out: &mut TimelineWriter<'_>,
) -> Result<()> {
    let start = async {
        let link = Link::open(settings, &task.clock).await?;
        let server = Server::ask(&link).await?;
        let head = newest(&link, task).await?;
        match (server.log_identity(), head) {
            (Some(identity), Some(_)) => Ok(Log { link, identity, task }),
            _ => Err(no_oplog(&server)),
        }
    };
    let log = task.guard(start).await?;
    log.complete(out).await?;
    let mut lost: Option<Lost> = None;
    loop {
        let is_second = lost.is_some();
        let tail = task.guard(log.open(lost, out)).await?;
        let mut follower = Follower::new(&log, tail);
        let error = match follower.run(until, out).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        follower.rescue(&error, out).await;
        match Lost::of(&error) {
            // One that loses its place again is not begun anew at once: whoever follows it makes a pause.
            Some(place) if !is_second => lost = Some(place.clone()),
            _ => return Err(error),
        }
        tracing::warn!(%error, hint = error.hint_text(), "a new timeline begins");
    }
}

fn no_oplog(server: &Server) -> Error {
    let (why, hint) = match server.is_router {
        true => ("a mongos keeps no oplog", "name each shard as a source of its own"),
        false => (
            "the server is no member of a replica set, and keeps no oplog",
            "make it a replica set of one: set `replication.replSetName`, restart it, and call rs.initiate(); or say \
             `timeline: false`",
        ),
    };
    Error::new(Kind::Unsupported, DOING, why).hint(hint)
}

/// The log of one replica set.
struct Log<'a> {
    link: Link,
    identity: String,
    task: &'a Task,
}

/// Where a new timeline begins.
enum Begin {
    /// At the newest record.
    Newest,
    /// As early as the log reaches, without what may be overwritten at any moment: a backup made meanwhile goes on from there.
    Earliest,
}

impl Log<'_> {
    /// Gives a timeline that a restore closed what the log still holds of it: nobody may have followed it then.
    async fn complete(&self, out: &mut TimelineWriter<'_>) -> Result<()> {
        let Some(reach) = self.task.guard(out.resume_ended()).await? else { return Ok(()) };
        let up_to = OpTime::from(reach.to);
        let completed = match self.task.guard(self.resume(reach, out)).await? {
            Ok(tail) => Follower::new(self, tail).run(Until::Newest, out).await,
            Err((_, why)) => Err(Error::new(Kind::NotFound, DOING, why)),
        };
        match completed {
            Err(error) if error.kind() == Kind::NotFound => {
                tracing::warn!(%error, "the timeline that was closed ends at {up_to}: the log holds no more of it");
                Ok(())
            }
            completed => completed,
        }
    }

    /// The log, open behind the last durable record of a timeline.
    async fn open(&self, lost: Option<Lost>, out: &mut TimelineWriter<'_>) -> Result<Tail> {
        let reach = out.resume().await?;
        let (place, why) = match (lost, reach) {
            (Some(lost), _) => (place_after(&lost), lost.to_string()),
            (None, None) => (Begin::Newest, self.why_another(out).await?),
            (None, Some(reach)) => match self.resume(reach, out).await? {
                Ok(tail) => return Ok(tail),
                Err(instead) => instead,
            },
        };
        self.begin(place, why, out).await
    }

    /// Why there is no timeline to go on with.
    async fn why_another(&self, out: &TimelineWriter<'_>) -> Result<String> {
        Ok(match out.newest().await? {
            None => "the first".to_owned(),
            Some(newest) => match (newest.problem(), &newest.end) {
                (Some(problem), _) => format!("timeline {} cannot be read: {problem}", newest.id),
                (None, Ok(Some(end))) => end.why.clone(),
                (None, _) => format!("timeline {} was not gone on with", newest.id),
            },
        })
    }

    /// Goes on where the timeline ends; or where another begins, and why.
    async fn resume(
        &self,
        reach: Reach,
        out: &mut TimelineWriter<'_>,
    ) -> Result<Result<Tail, (Begin, String)>> {
        let at = OpTime::from(reach.to);
        if reach.origin.identity != self.identity {
            let (now, before) = (&self.identity, &reach.origin.identity);
            let why = format!("another replica set: {now} instead of {before} (or another name for it)");
            return Ok(Err((Begin::Newest, why)));
        }
        let lost = match Tail::open(&self.link, at, self.task).await? {
            Opened::Here(mut tail) => {
                let there = tail.first().await?;
                match reach.record {
                    Some(record) if record != there => Lost::Replaced { at },
                    Some(_) => return Ok(Ok(tail)),
                    None => {
                        // The vault cannot tell it: the first segment begins with it.
                        out.push(there, reach.to).await?;
                        return Ok(Ok(tail));
                    }
                }
            }
            Opened::Gone { oldest: Some(oldest) } if oldest <= at => Lost::RolledBack { at },
            Opened::Gone { oldest } => Lost::RolledOver { at, oldest },
        };
        Ok(Err((place_after(&lost), lost.to_string())))
    }

    /// Begins a timeline at a record that is there: the log is open before the vault is told.
    async fn begin(&self, mut place: Begin, why: String, out: &mut TimelineWriter<'_>) -> Result<Tail> {
        for _ in 0..TRIES {
            self.task.checkpoint()?;
            let Some((head, _)) = newest(&self.link, self.task).await? else { break };
            let at = match place {
                Begin::Newest => head,
                Begin::Earliest => self.early(head).await?,
            };
            if let Opened::Here(mut tail) = Tail::open(&self.link, at, self.task).await? {
                let record = tail.first().await?;
                let identity = self.identity.clone();
                out.begin(Beginning { identity, record, at: at.position(), why }).await?;
                return Ok(tail);
            }
            place = Begin::Newest;
        }
        Err(Error::new(Kind::Unready, DOING, "the oplog is empty, or moves on faster than it can be opened"))
    }

    /// A twentieth into what the log holds.
    async fn early(&self, head: OpTime) -> Result<OpTime> {
        let oldest = first_since(&self.link, OpTime::ZERO, self.task).await?.unwrap_or(head);
        let seconds = oldest.seconds + head.seconds.saturating_sub(oldest.seconds) / 20;
        let from = OpTime { seconds, increment: 0 }.max(oldest);
        Ok(first_since(&self.link, from, self.task).await?.unwrap_or(head))
    }
}

fn place_after(lost: &Lost) -> Begin {
    match lost {
        Lost::RolledOver { .. } => Begin::Earliest,
        _ => Begin::Newest,
    }
}

/// Carries records from the log into the timeline.
struct Follower<'a> {
    log: &'a Log<'a>,
    tail: Tail,
    /// Read, and not yet proven to be all that was written.
    waiting: Vec<(OpTime, Bytes)>,
    bytes: usize,
    /// When the first of them came.
    since: Option<Duration>,
}

/// What there is to do next.
enum Event {
    Cancelled,
    Due,
    Store,
    Read(Vec<(OpTime, Bytes)>),
}

/// Whether the timeline goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    Closed,
}

impl<'a> Follower<'a> {
    fn new(log: &'a Log<'a>, tail: Tail) -> Self {
        Follower { log, tail, waiting: Vec::new(), bytes: 0, since: None }
    }

    async fn run(&mut self, until: Until, out: &mut TimelineWriter<'_>) -> Result<()> {
        let task = self.log.task;
        if until == Until::Newest {
            task.guard(self.catch_up(out)).await?;
            out.seal().await?;
            return Ok(());
        }
        loop {
            let patience = self.patience();
            let event = tokio::select! {
                biased;
                () = task.cancel.cancelled() => Event::Cancelled,
                () = out.due() => Event::Due,
                () = patience => Event::Store,
                // What is read may be a member that gets nothing any more: the primary's word counts.
                () = task.clock.sleep(QUIET) => Event::Due,
                records = self.tail.next() => Event::Read(records?),
            };
            let state = match event {
                Event::Read(records) => self.take(records, out).await?,
                Event::Store => self.store(out).await?,
                Event::Due => {
                    let state = self.catch_up(out).await?;
                    out.seal().await?;
                    state
                }
                Event::Cancelled => {
                    self.store(out).await?;
                    State::Closed
                }
            };
            if state == State::Closed {
                out.seal().await?;
                return Ok(());
            }
        }
    }

    /// Returns when what waits has waited long enough.
    fn patience(&self) -> impl Future<Output = ()> + use<> {
        let clock = self.log.task.clock.clone();
        let since = self.since;
        async move {
            match since {
                Some(since) => clock.sleep((since + PATIENCE).saturating_sub(clock.monotonic())).await,
                None => std::future::pending().await,
            }
        }
    }

    /// Reads up to what is the newest record now, and hands all of it to the timeline.
    async fn catch_up(&mut self, out: &mut TimelineWriter<'_>) -> Result<State> {
        if let Some((head, _)) = newest(&self.log.link, self.log.task).await? {
            loop {
                let records = self.tail.up_to(head).await?;
                if records.is_empty() {
                    break;
                }
                if self.take(records, out).await? == State::Closed {
                    return Ok(State::Closed);
                }
            }
        }
        self.store(out).await
    }

    async fn take(&mut self, records: Vec<(OpTime, Bytes)>, out: &mut TimelineWriter<'_>) -> Result<State> {
        self.bytes += records.iter().map(|(_, record)| record.len()).sum::<usize>();
        self.waiting.extend(records);
        self.since.get_or_insert(self.log.task.clock.monotonic());
        if self.bytes >= WAITING || self.tail.wants_proof() { self.store(out).await } else { Ok(State::Open) }
    }

    /// Hands what waits to the timeline, once it is proven. If somebody closed the timeline since, that is known now: it was
    /// closed before what does not belong to it was written.
    async fn store(&mut self, out: &mut TimelineWriter<'_>) -> Result<State> {
        self.tail.prove().await?;
        let end = out.closed().await?;
        let last = end.as_ref().map_or(Position(u64::MAX), |end| end.position);
        self.bytes = 0;
        self.since = None;
        for (at, record) in self.waiting.drain(..).filter(|(at, _)| at.position() <= last) {
            self.log.task.progress.add_items(1);
            self.log.task.progress.add_bytes(record.len() as u64);
            out.push(record, at.position()).await?;
        }
        Ok(if end.is_some() { State::Closed } else { State::Open })
    }

    /// Something failed: what was read before is not lost with the source, should that never come back.
    async fn rescue(&mut self, error: &Error, out: &mut TimelineWriter<'_>) {
        if matches!(Lost::of(error), Some(Lost::Late { .. })) {
            return;
        }
        let rescued = async {
            self.store(out).await?;
            out.seal().await.map(drop)
        };
        if let Err(failed) = rescued.await {
            tracing::debug!(%failed, "what was read last could not be stored");
        }
    }
}
