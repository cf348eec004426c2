//! Commands that are sent again when the line broke or the server changed its role: those that mean the same the second time.

use std::time::Duration;

use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::error::Error as DriverError;

use super::client::{CALL_LIMIT, Link};
use super::failure::{PASSING, failed, is_passing};
use crate::clock::within;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// How long a server may be away: an election takes seconds, a restart a minute or two.
const AWAY_LIMIT: Duration = Duration::from_secs(300);

/// The pause before the second attempt; each next one is twice as long.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// What keeps a server from answering a write that most members must have.
const MOST: &str = "look whether most members of the replica set are up and follow";

/// A command's answer: the server's reply, or its refusal; and whether it was sent more than once, so that what it asks for
/// may have been done before.
#[derive(Debug)]
pub struct Answer {
    /// What the server said last.
    pub reply: std::result::Result<Document, DriverError>,
    /// Whether an earlier attempt may have had an effect.
    pub again: bool,
}

impl Answer {
    /// The reply, or the refusal as ours.
    pub fn expect_done(self, doing: &str) -> Result<Document> {
        self.reply.map_err(|error| failed(doing, error))
    }
}

/// How long one attempt may take, and what silence means.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// It may be sent again: what is done late does no harm.
    Again(Duration),
    /// It may still be done after whatever would be sent next, so nothing more is sent.
    Once(Duration),
}

/// Sends a command until it was answered by a server that can. `command` is made anew for each attempt.
///
/// # Errors
/// `Timeout` if none was answered; those of the task.
pub async fn send(
    link: &Link,
    db: &str,
    doing: &str,
    patience: Patience,
    task: &Task,
    command: impl Fn() -> Result<RawDocumentBuf>,
) -> Result<Answer> {
    let (Patience::Again(limit) | Patience::Once(limit)) = patience;
    let mut away = Away::new(task);
    let mut again = false;
    loop {
        let database = link.database(db);
        let sent = database.run_raw_command(command()?);
        let sent = async { Some(sent.await.map_err(|error| link.explain(error))) };
        let attempt = async { Ok(Some(within(&*task.clock, limit, sent, || None).await)) };
        let last = match task.guard(attempt).await?.flatten() {
            None => {
                let silence =
                    Error::new(Kind::Timeout, doing, format!("no answer within {limit:?}")).hint(MOST);
                if matches!(patience, Patience::Once(_)) {
                    return Err(silence);
                }
                silence
            }
            Some(Err(error)) if is_passing(&error) => failed(doing, error),
            Some(reply) => match unmet(doing, &reply) {
                None => return Ok(Answer { reply, again }),
                Some((why, true)) => why,
                Some((why, false)) => return Err(why),
            },
        };
        if !away.wait().await? {
            return Err(last);
        }
        again = true;
    }
}

/// The same with a small command that is answered soon.
pub async fn command(link: &Link, db: &str, doing: &str, task: &Task, command: &Document) -> Result<Answer> {
    document(link, db, doing, Patience::Again(CALL_LIMIT), task, command).await
}

/// The same with a small command.
pub async fn document(
    link: &Link,
    db: &str,
    doing: &str,
    patience: Patience,
    task: &Task,
    command: &Document,
) -> Result<Answer> {
    send(link, db, doing, patience, task, || {
        RawDocumentBuf::try_from(command).map_err(|cause| Error::new(Kind::Internal, doing, cause))
    })
    .await
}

/// How long a server has been away.
#[derive(Debug)]
pub struct Away<'a> {
    task: &'a Task,
    since: Duration,
    pause: Duration,
}

impl<'a> Away<'a> {
    /// Counted from now on.
    pub fn new(task: &'a Task) -> Self {
        Away { task, since: task.clock.monotonic(), pause: PAUSE }
    }

    /// Waits before the next attempt; false: it has been long enough.
    ///
    /// # Errors
    /// The task has ended.
    pub async fn wait(&mut self) -> Result<bool> {
        if self.task.clock.monotonic().saturating_sub(self.since) > AWAY_LIMIT {
            return Ok(false);
        }
        let pause = async {
            let _: () = self.task.clock.sleep(self.pause).await;
            Ok(())
        };
        self.task.guard(pause).await?;
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        Ok(true)
    }
}

/// A write concern that was not met is told beside what was done; and whether it may be met the next time: the primary changed.
fn unmet(doing: &str, reply: &std::result::Result<Document, DriverError>) -> Option<(Error, bool)> {
    let told: Document = match reply {
        Ok(reply) => reply.get_document("writeConcernError").ok()?.clone(),
        Err(error) => {
            Document::try_from(error.server_response()?.get_document("writeConcernError").ok()?).ok()?
        }
    };
    let why = told.get_str("errmsg").unwrap_or("most members do not have it");
    let passes = told.get_i32("code").is_ok_and(|code| PASSING.contains(&code));
    Some((Error::new(Kind::Unready, doing, why).hint(MOST), passes))
}
