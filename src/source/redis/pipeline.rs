//! Restores by pipelined `RESTORE` commands: into a cluster, past a firewall, or some keys only.
//!
//! Each server has a lane: a writer that sends batches, and a reader that counts answers at the same time, so neither
//! side waits for the other. What is on its way is bounded by the number of batches; nothing waits for a round trip but
//! the change of a database, because a `SELECT` that failed would send keys into the wrong one.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use self::encode::{Batch, Names};
use self::replies::{Replies, Reply};
use crate::clock::SharedClock;
use crate::error::{Context, Error, Kind, Result};
use crate::task::Progress;
use crate::vault::manifest::Omission;

pub mod encode;
pub mod replies;
pub mod slots;

/// How many failing keys are named for each reason.
pub const EXAMPLES: usize = 5;

/// How many reasons are told apart.
const REASONS: usize = 32;

/// Batches that are made but not sent, and batches that are sent but not answered: with 64 KiB each, 2.5 MiB.
const QUEUED: usize = 8;
const UNANSWERED: usize = 32;

/// A server that takes nothing and answers nothing for so long is given up. One value of 512 MiB takes seconds.
const SILENCE: Duration = Duration::from_secs(60);

/// How long a target that takes nothing more may take to say why.
const LAST_WORDS: Duration = Duration::from_secs(1);

const DOING: &str = "sending RESTORE commands";

/// What became of the commands.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Keys that are in the target now.
    pub restored: u64,
    /// What was refused, by reason.
    pub refused: BTreeMap<String, Refused>,
}

/// Keys that were refused for one reason.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many.
    pub count: u64,
    /// The first of them.
    pub keys: Vec<String>,
}

impl Tally {
    fn refuse(&mut self, error: &str, key: &[u8]) {
        let reason = match self.refused.contains_key(error) || self.refused.len() < REASONS {
            true => error,
            false => "other reasons",
        };
        let refused = self.refused.entry(reason.to_owned()).or_default();
        refused.count += 1;
        if refused.keys.len() < EXAMPLES {
            refused.keys.push(readable(key));
        }
    }

    fn add(&mut self, other: Tally) {
        self.restored += other.restored;
        for (reason, more) in other.refused {
            let refused = self.refused.entry(reason).or_default();
            refused.count += more.count;
            refused.keys.extend(more.keys);
            refused.keys.truncate(EXAMPLES);
        }
    }

    /// What did not come back.
    pub fn omissions(&self) -> Vec<Omission> {
        let refused = self.refused.iter().map(|(reason, refused)| Omission {
            what: count_and_names(refused.count, &refused.keys),
            why: explain(reason),
        });
        refused.collect()
    }
}

/// So many keys, of which these are the first.
pub fn count_and_names(count: u64, keys: &[String]) -> String {
    let more = if count > keys.len() as u64 { ", .." } else { "" };
    format!("{count} keys ({}{more})", keys.join(", "))
}

fn explain(reason: &str) -> String {
    let advice = match reason.split(' ').next().unwrap_or_default() {
        "BUSYKEY" => "the target has them already; replace=true overwrites them",
        "OOM" => "the target's maxmemory is reached",
        "MOVED" | "ASK" => "their slot was moved to another server meanwhile; restore these keys again",
        _ if reason.contains("Bad data format") => {
            "the target does not know this kind of value, or its module is missing"
        }
        _ => return reason.to_owned(),
    };
    format!("{reason}: {advice}")
}

/// A key as text, with what cannot be shown escaped.
pub fn readable(key: &[u8]) -> String {
    key.escape_ascii().to_string()
}

/// Lanes to all servers.
pub struct Pipeline {
    lanes: Vec<mpsc::Sender<Batch>>,
    running: JoinSet<Result<Tally>>,
}

impl Pipeline {
    /// Starts a lane for each link, which has logged in and has database 0 selected.
    pub fn start<L>(links: Vec<L>, clock: &SharedClock, progress: &Progress) -> Self
    where
        L: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut pipeline = Pipeline { lanes: Vec::new(), running: JoinSet::new() };
        for link in links {
            let (lane, batches) = mpsc::channel(QUEUED);
            pipeline.lanes.push(lane);
            pipeline.running.spawn(run(link, batches, clock.clone(), progress.clone()));
        }
        pipeline
    }

    /// Hands a batch to the lane of its server; waits while that lane is full.
    pub async fn send(&mut self, server: usize, batch: Batch) -> Result<()> {
        if self.lanes[server].send(batch).await.is_ok() {
            return Ok(());
        }
        let ended = self.running.join_next().await;
        match ended {
            Some(Ok(Err(error))) => Err(error),
            _ => Err(Error::new(Kind::Internal, DOING, "a lane has ended by itself")),
        }
    }

    /// Waits for all answers.
    pub async fn finish(mut self) -> Result<Tally> {
        self.lanes.clear();
        let mut tally = Tally::default();
        while let Some(ended) = self.running.join_next().await {
            let lane = ended.map_err(|panic| Error::new(Kind::Internal, DOING, panic))?;
            tally.add(lane?);
        }
        Ok(tally)
    }
}

/// What the reader is to expect next.
enum Awaited {
    /// One answer for each of these.
    Keys(Names),
    /// The answer to `SELECT`, for which the writer waits.
    Selected(oneshot::Sender<()>),
}

async fn run<L: AsyncRead + AsyncWrite + Unpin>(
    link: L,
    batches: mpsc::Receiver<Batch>,
    clock: SharedClock,
    progress: Progress,
) -> Result<Tally> {
    let (input, output) = tokio::io::split(link);
    let (announce, awaited) = mpsc::channel(UNANSWERED);
    let writing = async {
        let written = write(output, batches, announce, &clock).await;
        if written.is_err() {
            // The answer that says why the target took no more may still be on its way to the reader.
            clock.sleep(LAST_WORDS).await;
        }
        written
    };
    let reading = read(input, Expecting::new(awaited), &clock, &progress);
    let ((), tally) = tokio::try_join!(writing, reading)?;
    Ok(tally)
}

async fn write<W: AsyncWrite + Unpin>(
    mut output: W,
    mut batches: mpsc::Receiver<Batch>,
    announce: mpsc::Sender<Awaited>,
    clock: &SharedClock,
) -> Result<()> {
    let mut db = 0;
    while let Some(batch) = batches.recv().await {
        if batch.db != db {
            let (told, selected) = oneshot::channel();
            announced(announce.send(Awaited::Selected(told)).await.is_ok()).await;
            patient(clock, output.write_all(select(batch.db).as_bytes())).await?;
            announced(selected.await.is_ok()).await;
            db = batch.db;
        }
        if !batch.keys.is_empty() {
            announced(announce.send(Awaited::Keys(batch.keys)).await.is_ok()).await;
        }
        patient(clock, output.write_all(&batch.wire)).await?;
    }
    patient(clock, output.flush()).await
}

/// Waits for ever if the reader has ended: then the reader's error ends both.
async fn announced(heard: bool) {
    if !heard {
        std::future::pending::<()>().await;
    }
}

async fn patient(clock: &SharedClock, work: impl Future<Output = std::io::Result<()>>) -> Result<()> {
    tokio::select! {
        done = work => done.doing(DOING),
        () = clock.sleep(SILENCE) => Err(silent("taken")),
    }
}

async fn read<R: AsyncRead + Unpin>(
    mut input: R,
    mut expecting: Expecting,
    clock: &SharedClock,
    progress: &Progress,
) -> Result<Tally> {
    let mut tally = Tally::default();
    let mut replies = Replies::default();
    let mut buffer = vec![0; 64 << 10];
    while expecting.more().await {
        let count = tokio::select! {
            count = input.read(&mut buffer) => count.doing(DOING)?,
            () = clock.sleep(SILENCE) => return Err(silent("answered")),
        };
        if count == 0 {
            return Err(Error::new(Kind::Unreachable, DOING, "the target closed the connection")
                .retryable(false)
                .hint("look into the target's log; what was restored so far is in it"));
        }
        let before = tally.restored;
        replies.take(&buffer[..count], |reply| expecting.take(reply, &mut tally))?;
        progress.add_items(tally.restored - before);
    }
    Ok(tally)
}

/// The commands that have no answer yet, in order.
struct Expecting {
    awaited: mpsc::Receiver<Awaited>,
    current: VecDeque<Awaited>,
    /// How many keys of the first have their answer.
    answered: usize,
}

impl Expecting {
    fn new(awaited: mpsc::Receiver<Awaited>) -> Self {
        Expecting { awaited, current: VecDeque::new(), answered: 0 }
    }

    /// Waits until there is something to expect; `false` when there never will be.
    async fn more(&mut self) -> bool {
        if self.current.is_empty() {
            self.current.extend(self.awaited.recv().await);
        }
        !self.current.is_empty()
    }

    fn take(&mut self, reply: Reply<'_>, tally: &mut Tally) -> Result<()> {
        match reply {
            Reply::Ok(mut count) => {
                while count > 0 {
                    count -= self.fine(count, tally)?;
                }
                Ok(())
            }
            Reply::Error(error) => self.refused(error, tally),
        }
    }

    /// Takes up to `count` good answers, and says how many it took.
    fn fine(&mut self, count: u64, tally: &mut Tally) -> Result<u64> {
        match self.front()? {
            Awaited::Keys(keys) => {
                let left = keys.len() - self.answered;
                let now = left.min(count as usize);
                tally.restored += now as u64;
                self.advance(now, now == left);
                Ok(now as u64)
            }
            Awaited::Selected(_) => {
                if let Some(Awaited::Selected(told)) = self.current.pop_front() {
                    let _ = told.send(());
                }
                Ok(1)
            }
        }
    }

    fn refused(&mut self, error: &str, tally: &mut Tally) -> Result<()> {
        if let Some(kind) = hopeless(error) {
            return Err(Error::new(kind, DOING, error).hint("what was restored so far is in the target"));
        }
        let answered = self.answered;
        match self.front()? {
            Awaited::Keys(keys) => {
                tally.refuse(reason(error), keys.get(answered));
                let last = answered + 1 == keys.len();
                self.advance(1, last);
                Ok(())
            }
            Awaited::Selected(_) => {
                Err(Error::new(Kind::Unsupported, "selecting a database of the target", error)
                    .hint("has it as many `databases` as the backup uses?"))
            }
        }
    }

    fn front(&mut self) -> Result<&Awaited> {
        if self.current.is_empty() {
            self.current.extend(self.awaited.try_recv().ok());
        }
        self.current.front().ok_or_else(|| {
            Error::new(Kind::Protocol, DOING, "the target gave more answers than there were commands")
        })
    }

    fn advance(&mut self, by: usize, ended: bool) {
        self.answered += by;
        if ended {
            self.current.pop_front();
            self.answered = 0;
        }
    }
}

/// The part of an error that is the same for all keys: `MOVED 1234 host:port` names a slot.
fn reason(error: &str) -> &str {
    match error.split_once(' ') {
        Some((code @ ("MOVED" | "ASK"), _)) => code,
        _ => error,
    }
}

/// An answer that every later command would get as well.
fn hopeless(error: &str) -> Option<Kind> {
    match error.split(' ').next()? {
        "NOAUTH" | "NOPERM" => Some(Kind::Denied),
        "READONLY" | "MISCONF" | "MASTERDOWN" | "CLUSTERDOWN" => Some(Kind::Unsupported),
        "LOADING" => Some(Kind::Unready),
        _ => None,
    }
}

fn select(db: u32) -> String {
    let db = db.to_string();
    format!("*2\r\n$6\r\nSELECT\r\n${}\r\n{db}\r\n", db.len())
}

fn silent(what: &str) -> Error {
    Error::new(Kind::Timeout, DOING, format!("the target has {what} nothing for {SILENCE:?}"))
        .hint("look into the target's log; what was restored so far is in it")
}
