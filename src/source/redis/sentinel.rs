//! Asks Sentinels where a master and its replicas are.

use super::address::Address;
use super::config::Sentinel;
use super::connection::Connection;
use super::reply::Reply;
use crate::clock::SharedClock;
use crate::error::{Error, Kind, Result};

/// What a Sentinel says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Watched {
    /// The master now.
    pub master: Address,
    /// Its replicas that are up and in touch with it.
    pub replicas: Vec<Address>,
}

/// Asks one Sentinel after the other until one knows the master.
///
/// # Errors
/// That of the last one, naming how many were asked.
pub async fn find(sentinel: &Sentinel, clock: &SharedClock) -> Result<Watched> {
    let mut last = None;
    for address in &sentinel.addresses {
        match ask(address, sentinel, clock).await {
            Ok(watched) => return Ok(watched),
            Err(error) => last = Some(error),
        }
    }
    let outer = format!("asking {} Sentinels for the master {:?}", sentinel.addresses.len(), sentinel.master);
    Err(match last {
        Some(error) => error.while_doing(outer),
        None => Error::new(Kind::Config, outer, "none is configured"),
    })
}

async fn ask(address: &Address, sentinel: &Sentinel, clock: &SharedClock) -> Result<Watched> {
    let mut connection = Connection::open(address, &sentinel.access, clock).await?;
    let reply = connection.ask(&["SENTINEL", "get-master-addr-by-name", &sentinel.master]).await?;
    let texts: Vec<String> = reply.items().iter().filter_map(Reply::text).collect();
    let master = match &texts[..] {
        [host, port] => port.parse().ok().map(|port| Address::new(host.as_str(), port)),
        _ => None,
    };
    let Some(master) = master else {
        let why = format!("it knows no master {:?}", sentinel.master);
        return Err(Error::new(Kind::NotFound, format!("asking the Sentinel at {address}"), why)
            .hint("`SENTINEL masters` lists what it knows; set sentinel.master to one of the names"));
    };
    // The older word: every version knows it.
    let listed = connection.try_ask(&["SENTINEL", "slaves", &sentinel.master]).await?;
    let replicas = listed.iter().flat_map(Reply::items).filter_map(replica).collect();
    connection.close().await;
    Ok(Watched { master, replicas })
}

/// A replica that is up, and linked to its master.
fn replica(fields: &Reply) -> Option<Address> {
    let text = |name: &str| fields.field(name).and_then(Reply::text).unwrap_or_default();
    let down = |flag: &str| flag.ends_with("_down") || flag == "disconnected";
    if text("flags").split(',').any(down) || text("master-link-status") != "ok" {
        return None;
    }
    // A phantom (a backup client that a Sentinel took for a replica) has port 0.
    let port = text("port").parse().ok().filter(|port| *port != 0)?;
    Some(Address::new(text("ip"), port))
}
