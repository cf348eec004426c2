//! Restores by replication: the target follows us for as long as one full synchronisation takes, and is always let go.

use std::time::Duration;

use super::address::Address;
use super::config::Access;
use super::connection::Connection;
use super::master::{Listener, Master, Offer};
use super::server::{self, Server};
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use crate::task::Task;

/// How often the target is asked whom it follows while it does.
const WATCH: Duration = Duration::from_secs(2);

/// How long we try to let go a target that is not there any more.
const RELEASE: Duration = Duration::from_secs(10);

/// How long we wait for one that is loading: it refuses `REPLICAOF` until it has, or until it notices that the link is
/// cut. Less than the quarter of an hour after its deadline at which a run counts as lost.
const LOADING: Duration = Duration::from_secs(600);

/// A target, and what it is told.
#[derive(Clone, Debug)]
pub struct Follower {
    /// Where it is.
    pub address: Address,
    /// How we log in.
    pub access: Access,
    /// Whom it is told to follow: us, under the address at which it finds us.
    pub us: Address,
    /// The clock.
    pub clock: SharedClock,
}

/// Lets the target load what is offered. When this returns, or is dropped, the target follows us no more.
pub async fn replicate(
    follower: &Follower,
    master: &Master,
    listener: Listener,
    offer: Offer,
    task: &Task,
) -> Result<()> {
    let mut leash = Leash(Some(follower.clone()));
    let served = task
        .guard(async {
            follower.attach().await?;
            tokio::select! {
                served = master.serve(listener, offer) => served,
                lost = follower.watch() => Err(lost),
            }
        })
        .await;
    task.step("release");
    let released = follower.release().await;
    leash.0 = None;
    match (served, released) {
        (Ok(()), released) => released,
        (Err(error), Ok(())) => Err(error),
        (Err(error), Err(release)) => {
            let hint = format!("{}; {release}: {}", hint_of(&error), hint_of(&release));
            Err(error.hint(hint))
        }
    }
}

fn hint_of(error: &Error) -> &str {
    error.hint_text().unwrap_or("no advice")
}

/// Lets the target go in the background if the restore is dropped instead of ended.
struct Leash(Option<Follower>);

impl Drop for Leash {
    fn drop(&mut self) {
        let Some(follower) = self.0.take() else { return };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = follower.release().await {
                    tracing::error!(%error, hint = error.hint_text(), "a restore was dropped");
                }
            });
        }
    }
}

/// Whom a server follows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Follows {
    Nobody,
    Us,
    Another(String),
}

impl Follower {
    async fn connect(&self) -> Result<Connection> {
        Connection::open(&self.address, &self.access, &self.clock).await
    }

    async fn attach(&self) -> Result<()> {
        let port = self.us.port.to_string();
        self.connect().await?.ask(&["REPLICAOF", &self.us.host, &port]).await?;
        Ok(())
    }

    async fn follows(&self, link: &mut Connection) -> Result<Follows> {
        let server = Server::read(&server::info(link).await?);
        let us = format!("{}:{}", self.us.host, self.us.port);
        Ok(match server.follows {
            None => Follows::Nobody,
            Some((master, _)) if master == us => Follows::Us,
            Some((master, _)) => Follows::Another(master),
        })
    }

    /// Ends when somebody else decides whom the target follows: a Sentinel, an operator. A target that does not answer
    /// is no reason: it may be loading, and if it died the link to it tells.
    async fn watch(&self) -> Error {
        let doing = format!("watching {} follow us", self.address);
        loop {
            self.clock.sleep(WATCH).await;
            let Ok(mut link) = self.connect().await else { continue };
            let why = match self.follows(&mut link).await {
                Ok(Follows::Another(master)) => format!("somebody told it to follow {master}"),
                Ok(Follows::Nobody) => "somebody told it to follow nobody".to_owned(),
                Ok(Follows::Us) | Err(_) => continue,
            };
            return Error::new(Kind::Conflict, doing, why).hint(
                "find out who: a Sentinel, an operator, a person. Pause it for the time of the restore, or \
                 restore with the option way=restore",
            );
        }
    }

    /// Says `REPLICAOF NO ONE` until the target follows nobody. One that follows somebody else by now is left alone.
    async fn release(&self) -> Result<()> {
        let began = self.clock.monotonic();
        loop {
            let Err(error) = self.try_release().await else { return Ok(()) };
            let limit = match error.kind() {
                Kind::Denied => Duration::ZERO,
                Kind::Unready => LOADING,
                _ => RELEASE,
            };
            if self.clock.monotonic() - began >= limit {
                return Err(error.while_doing("letting the target go").hint(format!(
                    "if `INFO replication` of {} says role:slave and names {}, send it `REPLICAOF NO ONE`",
                    self.address, self.us
                )));
            }
            self.clock.sleep(Duration::from_millis(250)).await;
        }
    }

    async fn try_release(&self) -> Result<()> {
        let mut link = self.connect().await?;
        if self.follows(&mut link).await? == Follows::Us {
            link.ask(&["REPLICAOF", "NO", "ONE"]).await?;
        }
        match self.follows(&mut link).await? {
            Follows::Nobody => Ok(()),
            Follows::Another(master) => {
                tracing::warn!(server = %self.address, %master, "it follows somebody else, and is left so");
                Ok(())
            }
            Follows::Us => {
                let why = "it said yes to REPLICAOF NO ONE, and follows us still";
                Err(Error::new(Kind::Conflict, format!("asking {}", self.address), why))
            }
        }
    }
}
