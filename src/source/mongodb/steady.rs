//! Commands that are sent again when the line broke or the server changed its role: those that mean the same the second time.

use std::time::Duration;

use mongodb::bson::{Document, RawDocumentBuf};
use mongodb::error::Error as DriverError;

use super::client::Link;
use super::failure::{failed, is_passing};
use crate::clock::within;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// An election takes seconds, a restart of a server a minute or two.
pub const PAUSES: [Duration; 9] = {
    let mut pauses = [Duration::from_millis(500); 9];
    let mut n = 1;
    while n < pauses.len() {
        let doubled = pauses[n - 1].saturating_mul(2);
        pauses[n] = if doubled.as_secs() > 30 { Duration::from_secs(30) } else { doubled };
        n += 1;
    }
    pauses
};

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

/// Sends a command until it was answered by a server that can. `command` is made anew for each attempt.
///
/// # Errors
/// `Timeout` if no attempt was answered within `limit`; those of the task.
pub async fn send(
    link: &Link,
    db: &str,
    doing: &str,
    limit: Duration,
    task: &Task,
    command: impl Fn() -> Result<RawDocumentBuf>,
) -> Result<Answer> {
    let mut pauses = PAUSES.iter();
    let mut again = false;
    loop {
        let database = link.database(db);
        let sent = database.run_raw_command(command()?);
        let attempt =
            async { Ok(Some(within(&*task.clock, limit, async { Some(sent.await) }, || None).await)) };
        let last = match task.guard(attempt).await?.flatten() {
            Some(Err(error)) if is_passing(&error) => Err(error),
            Some(reply) => return Ok(Answer { reply, again }),
            None => Ok(()),
        };
        let Some(pause) = pauses.next() else {
            return Err(match last {
                Err(error) => failed(doing, error),
                Ok(()) => {
                    Error::new(Kind::Timeout, doing, format!("no answer within {limit:?}, again and again"))
                }
            });
        };
        again = true;
        task.guard(async {
            let _: () = task.clock.sleep(*pause).await;
            Ok(())
        })
        .await?;
    }
}

/// The same with a small command.
pub async fn command(link: &Link, db: &str, doing: &str, task: &Task, command: &Document) -> Result<Answer> {
    send(link, db, doing, super::client::CALL_LIMIT, task, || {
        RawDocumentBuf::try_from(command).map_err(|cause| Error::new(Kind::Internal, doing, cause))
    })
    .await
}
