//! The servers that a target consists of: one, or the masters of a cluster.

use std::net::{IpAddr, UdpSocket};

use super::address::Address;
use super::config::{Place, Settings};
use super::connection::Connection;
use super::origin;
use super::pipeline::slots::SlotMap;
use super::sentinel;
use super::server::{self, Server};
use crate::clock::SharedClock;
use crate::error::{Context, Error, Kind, Result};
use crate::source::Identity;

/// A target as it is now.
#[derive(Debug)]
pub struct Estate {
    /// Where it was asked.
    pub address: Address,
    /// Which target it is.
    pub identity: Identity,
    /// What it says of itself; for a cluster, what all its masters say.
    pub server: Server,
    /// Its masters, and which key is whose.
    pub slots: SlotMap,
}

impl Estate {
    /// Asks a target; `highest_db` is the highest database that it is to have.
    pub async fn ask(settings: &Settings, highest_db: Option<u32>, clock: &SharedClock) -> Result<Estate> {
        let address = master(settings, clock).await?;
        let mut link = Connection::open(&address, &settings.access, clock).await?;
        let first = Server::ask(&mut link, highest_db).await?;
        if !first.cluster {
            let id = format!("redis:{}", first.run_id);
            let label = format!("{} at {address} ({first})", settings.name);
            let slots = SlotMap::single(address.clone());
            return Ok(Estate { address, identity: Identity { id, label }, server: first, slots });
        }
        let topology = origin::topology(&mut link, settings).await?;
        let least = topology.least_id().ok_or_else(|| no_masters(&address))?;
        let (slots, id) = (SlotMap::of(&topology), format!("redis-cluster:{least}"));
        let mut masters = Vec::new();
        for node in slots.nodes() {
            let mut link = Connection::open(node, &settings.access, clock).await?;
            masters.push(Server::ask(&mut link, None).await?);
        }
        let server = masters.into_iter().reduce(Server::and).ok_or_else(|| no_masters(&address))?;
        let label = format!("{}, a cluster of {} masters ({server})", settings.name, slots.servers());
        Ok(Estate { address, identity: Identity { id, label }, server, slots })
    }

    /// Opens a connection to each master, and makes sure that the one that is there is the one that was asked: a name
    /// may lead to several servers.
    pub async fn connect(&self, settings: &Settings, clock: &SharedClock) -> Result<Vec<Connection>> {
        let mut links = Vec::new();
        for node in self.slots.nodes() {
            let mut link = Connection::open(node, &settings.access, clock).await?;
            if !self.server.cluster {
                let found = server::info(&mut link).await?;
                if found.text("run_id") != self.server.run_id {
                    let why = "another server answers there than a moment ago";
                    return Err(Error::new(Kind::Conflict, format!("connecting to {node}"), why).hint(
                        "give the target the address of one server, not of a service that spreads over some",
                    ));
                }
            }
            links.push(link);
        }
        Ok(links)
    }
}

async fn master(settings: &Settings, clock: &SharedClock) -> Result<Address> {
    match &settings.place {
        Place::Fixed(address) => Ok(address.clone()),
        Place::Sentinel(sentinel) => Ok(sentinel::find(sentinel, clock).await?.master),
    }
}

fn no_masters(address: &Address) -> Error {
    Error::new(Kind::Unready, format!("asking {address} for the masters of its cluster"), "it knows none")
}

/// The address from which packets to a host go out; nothing is sent.
pub async fn own_address(to: &Address) -> Result<IpAddr> {
    let doing = || format!("finding our address towards {to}");
    let peer = resolve(to).await?.into_iter().next();
    let peer = peer.ok_or_else(|| Error::new(Kind::Unreachable, doing(), "its name has no address"))?;
    let any: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
    let socket = UdpSocket::bind((any, 0)).doing(doing())?;
    socket.connect((peer, to.port)).doing(doing())?;
    Ok(socket.local_addr().doing(doing())?.ip().to_canonical())
}

/// The addresses of a host.
pub async fn resolve(host: &Address) -> Result<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((host.host.as_str(), host.port)).await;
    let found = found.doing(format!("looking up {}", host.host))?;
    Ok(found.map(|address| address.ip().to_canonical()).collect())
}
