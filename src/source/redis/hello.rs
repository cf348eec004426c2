//! Who a server is, as far as it says so to everybody who is logged in.
//!
//! `HELLO` (6.0) needs no right at all (`CMD_NO_AUTH` in `acl.c`): so a node of a cluster, whose RDB is only a part, is
//! never taken for the whole, whatever the user may do.

use super::connection::Connection;
use super::reply::Reply;
use super::server::Info;
use crate::error::{Error, Kind, Result};

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// `redis 7.0.15`, `valkey 8.0.1`; what it did not tell is missing.
    pub server: String,
    /// How it runs.
    pub mode: Mode,
    /// Whether it follows a master.
    pub replica: bool,
    /// Names of its loaded modules.
    pub modules: Vec<String>,
}

/// How a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// On its own, or as a master or replica of another.
    Standalone,
    /// As a node of a Redis Cluster.
    Cluster,
    /// As a Sentinel: holds no data.
    Sentinel,
}

impl Hello {
    /// Asks. An older server, which has no `HELLO`, is asked for `INFO`.
    ///
    /// # Errors
    /// `Denied` where neither is allowed: then nothing tells a part of a cluster from a whole Redis.
    pub async fn ask(connection: &mut Connection) -> Result<Hello> {
        match connection.call(&["HELLO", "2"]).await? {
            Reply::Error(text) if is_unknown(&text) => Hello::ask_info(connection).await,
            Reply::Error(text) => Err(connection.refusal("HELLO", &text)),
            reply => Ok(Hello::read(&reply)),
        }
    }

    fn read(reply: &Reply) -> Hello {
        let text = |name: &str| reply.field(name).and_then(Reply::text).unwrap_or_default();
        let modules = reply.field("modules").map(Reply::items).unwrap_or_default();
        Hello {
            server: format!("{} {}", text("server"), text("version")),
            mode: mode(&text("mode")),
            replica: text("role") == "replica",
            modules: modules.iter().filter_map(|module| module.field("name")?.text()).collect(),
        }
    }

    async fn ask_info(connection: &mut Connection) -> Result<Hello> {
        let reply = connection.ask(&["INFO", "server"]).await?;
        let mut info = Info::read(&reply.text().unwrap_or_default());
        let server = format!("redis {}", info.text("redis_version"));
        let mode = mode(info.text("redis_mode"));
        let reply = connection.ask(&["INFO", "replication"]).await?;
        info = Info::read(&reply.text().unwrap_or_default());
        Ok(Hello { server, mode, replica: info.text("role") == "slave", modules: Vec::new() })
    }

    /// Fails for a server that has no data of its own.
    pub fn expect_data(&self, connection: &Connection) -> Result<()> {
        if self.mode != Mode::Sentinel {
            return Ok(());
        }
        let doing = format!("asking {} who it is", connection.address);
        Err(Error::new(Kind::Config, doing, "it is a Sentinel, not a Redis with data")
            .hint("name it under sentinel: { master: NAME, addresses: [...] } instead of url"))
    }
}

fn is_unknown(text: &str) -> bool {
    text.to_lowercase().contains("unknown command")
}

fn mode(text: &str) -> Mode {
    match text {
        "cluster" => Mode::Cluster,
        "sentinel" => Mode::Sentinel,
        _ => Mode::Standalone,
    }
}
