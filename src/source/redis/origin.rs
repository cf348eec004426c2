//! Where the data is, and which copy of it a backup is taken from.
//!
//! A replica is preferred: the fork is paid there, and a Sentinel, which counts the replicas of masters only, does not
//! take us for one. Whatever speaks against a replica is noted, and the master is used.

use super::address::Address;
use super::cluster::{Node, Shard, Topology};
use super::config::{Place, Settings};
use super::connection::Connection;
use super::hello::{Hello, Mode};
use super::replica::Transfer;
use super::reply::Reply;
use super::sentinel;
use super::server::Info;
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};
use std::cmp::Reverse;

/// A replica that has not acknowledged for longer is not taken.
const LAG_MAX: u64 = 10;

/// What there is to back up.
#[derive(Debug)]
pub enum Layout {
    /// One master, with or without replicas.
    Single(Copies),
    /// A cluster.
    Cluster(Topology),
}

/// The servers that hold the same data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Copies {
    /// In the order in which they are tried.
    pub servers: Vec<Copy>,
    /// What led to this order, where an operator should know.
    pub notes: Vec<String>,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Copy {
    /// Where it is.
    pub address: Address,
    /// Whether it follows another.
    pub replica: bool,
}

/// An attached copy.
#[derive(Debug)]
pub struct Attached {
    /// The RDB that comes.
    pub transfer: Transfer,
    /// From whom.
    pub copy: Copy,
    /// What kept us from others, and what else an operator should know.
    pub notes: Vec<String>,
}

/// Finds out what there is to back up.
pub async fn locate(settings: &Settings, clock: &SharedClock) -> Result<Layout> {
    let (address, watched) = match &settings.place {
        Place::Fixed(address) => (address.clone(), None),
        Place::Sentinel(sentinel) => {
            let watched = sentinel::find(sentinel, clock).await?;
            (watched.master.clone(), Some(watched.replicas))
        }
    };
    let mut connection = Connection::open(&address, &settings.access, clock).await?;
    let hello = Hello::ask(&mut connection).await?;
    hello.expect_data(&connection)?;
    let layout = match (hello.mode, hello.replica) {
        (Mode::Cluster, _) => Layout::Cluster(topology(&mut connection, settings).await?),
        (_, true) if watched.is_some() => {
            let why = "the Sentinel names it as the master, but it is a replica: a failover is under way";
            return Err(Error::new(Kind::Unready, format!("asking {address} who it is"), why));
        }
        (_, replica) => {
            let mut copies = match settings.prefer_replica && !replica {
                true => replicas(&mut connection, watched).await?,
                false => Copies::default(),
            };
            copies.servers.push(Copy { address, replica });
            Layout::Single(copies)
        }
    };
    connection.close().await;
    Ok(layout)
}

/// The cluster as the node at the other end sees it.
pub async fn topology(connection: &mut Connection, settings: &Settings) -> Result<Topology> {
    let reply = connection.ask(&["CLUSTER", "NODES"]).await?;
    let text = reply.text().unwrap_or_default();
    Topology::read(&text, &connection.address, settings.access.tls.is_some()).map_err(|why| {
        Error::new(Kind::Protocol, format!("reading CLUSTER NODES of {}", connection.address), why)
    })
}

/// The replicas in sync: as the Sentinel says, else as the master does.
async fn replicas(connection: &mut Connection, watched: Option<Vec<Address>>) -> Result<Copies> {
    if let Some(replicas) = watched {
        return Ok(Copies { servers: replicas.into_iter().map(replica).collect(), notes: Vec::new() });
    }
    let Some(reply) = connection.try_ask(&["INFO", "replication"]).await? else {
        let note = "without the right +info no replica is found: the master was used, and paid the fork";
        return Ok(Copies { servers: Vec::new(), notes: vec![note.to_owned()] });
    };
    let found = in_sync(&Info::read(&reply.text().unwrap_or_default()));
    Ok(Copies { servers: found.into_iter().map(replica).collect(), notes: Vec::new() })
}

fn replica(address: Address) -> Copy {
    Copy { address, replica: true }
}

/// `slave0:ip=10.0.0.8,port=6379,state=online,offset=1234,lag=0`, those furthest on first. Port 0 is a backup client.
pub fn in_sync(info: &Info) -> Vec<Address> {
    let mut found = Vec::new();
    for line in (0..).map(|n| info.text(&format!("slave{n}"))).take_while(|line| !line.is_empty()) {
        let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
        let number = |name: &str| field(name).and_then(|text| text.parse::<u64>().ok());
        let port = number("port").and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0);
        let online = field("state") == Some("online") && number("lag").is_some_and(|lag| lag <= LAG_MAX);
        if let (Some(host), Some(port), true) = (field("ip"), port, online) {
            found.push((number("offset").unwrap_or_default(), Address::new(host, port)));
        }
    }
    found.sort_by_key(|(offset, _)| Reverse(*offset));
    found.into_iter().map(|(_, address)| address).collect()
}

/// The servers of a shard, in the order in which they are tried.
pub fn copies_of(shard: &Shard, prefer_replica: bool) -> Copies {
    let copy = |node: &Node, replica| Copy { address: node.address.clone(), replica };
    let alive = shard.replicas.iter().filter(|node| node.alive).map(|node| copy(node, true));
    let master = std::iter::once(copy(&shard.master, false));
    let servers = match prefer_replica {
        true => alive.chain(master).collect(),
        false => master.chain(alive).collect(),
    };
    Copies { servers, notes: Vec::new() }
}

/// Attaches to the first copy that lets us.
///
/// # Errors
/// That of the last one: the master, where replicas are preferred.
pub async fn attach(copies: &Copies, settings: &Settings, clock: &SharedClock) -> Result<Attached> {
    let mut notes = copies.notes.clone();
    let mut last = Error::new(Kind::NotFound, "looking for a server to back up", "there is none");
    for copy in &copies.servers {
        match try_attach(copy, settings, clock).await {
            Ok(transfer) => {
                if !transfer.rdb_only {
                    notes.push(format!(
                        "{} does not know `REPLCONF rdb-only` (6.2): it held all writes in memory during the transfer",
                        copy.address
                    ));
                }
                return Ok(Attached { transfer, copy: copy.clone(), notes });
            }
            Err(error) => {
                notes.push(format!("{} could not be used: {error}", copy.address));
                last = error;
            }
        }
    }
    Err(last)
}

async fn try_attach(copy: &Copy, settings: &Settings, clock: &SharedClock) -> Result<Transfer> {
    let connection = Connection::open(&copy.address, &settings.access, clock).await?;
    Transfer::begin(connection).await
}

/// Whether a right is there: by trying, since only administrators may ask for rights.
pub async fn permitted(connection: &mut Connection, words: &[&str]) -> Result<bool> {
    Ok(!matches!(connection.call(words).await?, Reply::Error(text) if text.starts_with("NOPERM")))
}
