//! What `tidekeeper.yaml` says of a Redis: under `sources` and `targets` alike.
//!
//! ```yaml
//! redis:
//!   url: redis://redis.prod.svc:6379       # or rediss:// for TLS, or sentinel: { master: mymaster, addresses: [...] }
//!   username: backup                       # an ACL user; without it the password is that of the default user
//!   password_file: /run/secrets/redis      # or password: ${REDIS_PASSWORD}; the file is read anew for each connection
//!   tls: { ca_file: ca.pem }               # further: cert_file and key_file, server_name, insecure_skip_verify
//!   prefer_replica: true                   # back up from a replica where one is in sync
//!   listen: 0.0.0.0:0                      # where a target dials us during a restore,
//!   advertise: tidekeeper.ops.svc:7600     # and under which address it finds us
//! ```

use std::net::SocketAddr;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::address::{Address, DEFAULT_PORT};
use crate::config::SourceName;
use crate::config::node::{Node, Problem};
use crate::config::secret::{Password, Secret};
use crate::config::shape;
use crate::config::units::Listen;
use crate::error::Result;

/// The port of a Sentinel's address without one.
const SENTINEL_PORT: u16 = 26379;

/// A Redis as configured, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its name in the configuration.
    pub name: SourceName,
    /// Where it is found.
    pub place: Place,
    /// How we log in.
    pub access: Access,
    /// Whether a backup is taken from a replica where one is in sync.
    pub prefer_replica: bool,
    /// Where a target dials us during a restore; port 0 takes any.
    pub listen: SocketAddr,
    /// Under which address the target finds us; none: the address from which we reach it.
    pub advertise: Option<Address>,
}

/// Where a Redis is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// There. A node of a Redis Cluster leads to all of its shards.
    Fixed(Address),
    /// Where Sentinels say.
    Sentinel(Sentinel),
}

/// Sentinels, and what to ask them for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sentinel {
    /// The name of the master.
    pub master: String,
    /// Some of the Sentinels; the first that answers is believed.
    pub addresses: Vec<Address>,
    /// How we log in at the Sentinels.
    pub access: Access,
}

/// How we log in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// An ACL user; none: the default user.
    pub username: Option<String>,
    /// None: no `AUTH` is sent.
    pub password: Option<Password>,
    /// None: no TLS.
    pub tls: Option<Tls>,
}

/// How TLS is spoken.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// PEM certificates that sign the server's; without it the machine's own store is used.
    pub ca_file: Option<PathBuf>,
    /// Our PEM certificate: for servers with `tls-auth-clients`, and for our listener during a restore.
    pub cert_file: Option<PathBuf>,
    /// Its PEM key.
    pub key_file: Option<PathBuf>,
    /// The name in the server's certificate, if it is not the host of the address.
    pub server_name: Option<String>,
    /// Takes any certificate. Whoever sits on the wire can read and change everything.
    pub insecure_skip_verify: bool,
}

/// What is written, in the shape that the JSON Schema is made from.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Part {
    /// `redis://host:port`, or `rediss://host:port` for TLS.
    url: Option<String>,
    /// Sentinels, instead of `url`.
    sentinel: Option<SentinelPart>,
    /// An ACL user.
    username: Option<String>,
    /// The password; better `${ENV}` than in plain.
    password: Option<Secret>,
    /// A file with the password.
    password_file: Option<PathBuf>,
    /// How TLS is spoken; with `sentinel`, giving it turns TLS on.
    tls: Option<Tls>,
    /// Whether a backup is taken from a replica where one is in sync (default true).
    prefer_replica: Option<bool>,
    /// Where a target dials us during a restore (default `0.0.0.0:0`).
    listen: Option<Listen>,
    /// `host:port` under which a target finds us.
    advertise: Option<String>,
}

/// `sentinel: {...}`
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SentinelPart {
    /// The name of the master: `mymaster`.
    master: String,
    /// `host:port` of the Sentinels.
    #[schemars(length(min = 1))]
    addresses: Vec<String>,
    /// An ACL user of the Sentinels.
    username: Option<String>,
    /// The Sentinels' own password.
    password: Option<Secret>,
    /// A file with it.
    password_file: Option<PathBuf>,
}

/// Checks what is written; all problems at once.
pub fn read(name: &SourceName, node: &Node) -> Result<Settings, Vec<Problem>> {
    let part: Part = shape::read(node, "redis")?;
    let mut check = Check { problems: Vec::new() };
    let settings = check.settings(name, node, part);
    match settings {
        Some(settings) if check.problems.is_empty() => Ok(settings),
        _ => Err(check.problems),
    }
}

/// The JSON Schema.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(Part).to_value()
}

struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn settings(&mut self, name: &SourceName, node: &Node, part: Part) -> Option<Settings> {
        let (place, secure) = self.place(node, part.url.as_deref(), part.sentinel);
        let tls = self.tls(node, part.tls, secure);
        let access = self.access(node, "redis", part.username, part.password, part.password_file, tls);
        let advertise = part.advertise.and_then(|text| self.address(node, "redis", "advertise", &text, None));
        let mut place = place?;
        if let Place::Sentinel(sentinel) = &mut place {
            sentinel.access.tls = access.tls.clone();
        }
        Some(Settings {
            name: name.clone(),
            place,
            access,
            prefer_replica: part.prefer_replica.unwrap_or(true),
            listen: part.listen.map_or(SocketAddr::from(([0, 0, 0, 0], 0)), |listen| listen.0),
            advertise,
        })
    }

    /// Where it is, and whether the URL wants TLS.
    fn place(
        &mut self,
        node: &Node,
        url: Option<&str>,
        sentinel: Option<SentinelPart>,
    ) -> (Option<Place>, Option<bool>) {
        match (url, sentinel) {
            (Some(url), None) => match url_of(url) {
                Ok((address, secure)) => (Some(Place::Fixed(address)), Some(secure)),
                Err(message) => {
                    self.problem(node, "redis", "url", message);
                    (None, None)
                }
            },
            (None, Some(part)) => (self.sentinel(node.near("sentinel"), part).map(Place::Sentinel), None),
            (given, _) => {
                let found = if given.is_some() { "both" } else { "neither" };
                let message = format!("expected exactly one of url, sentinel, found {found}");
                self.problems.push(node.problem("redis", message));
                (None, None)
            }
        }
    }

    fn sentinel(&mut self, node: &Node, part: SentinelPart) -> Option<Sentinel> {
        let key = "redis.sentinel";
        let mut addresses = Vec::new();
        for (n, text) in part.addresses.iter().enumerate() {
            match Address::parse(text, Some(SENTINEL_PORT)) {
                Ok(address) => addresses.push(address),
                Err(message) => {
                    let item = node.get("addresses").and_then(|list| list.items().get(n)).unwrap_or(node);
                    self.problems.push(item.problem(format!("{key}.addresses[{n}]"), message));
                }
            }
        }
        let access = self.access(node, key, part.username, part.password, part.password_file, None);
        Some(Sentinel { master: part.master, addresses, access })
    }

    fn tls(&mut self, node: &Node, tls: Option<Tls>, secure: Option<bool>) -> Option<Tls> {
        let Some(mut tls) = tls else { return (secure == Some(true)).then(Tls::default) };
        let here = node.near("tls");
        if secure == Some(false) {
            self.problem(
                node,
                "redis",
                "tls",
                "the url says redis://, without TLS; write rediss://".to_owned(),
            );
        }
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            self.problems.push(here.problem("redis.tls", "cert_file and key_file belong together"));
        }
        for file in [&mut tls.ca_file, &mut tls.cert_file, &mut tls.key_file].into_iter().flatten() {
            *file = node.span.beside(file);
        }
        Some(tls)
    }

    fn access(
        &mut self,
        node: &Node,
        key: &str,
        username: Option<String>,
        password: Option<Secret>,
        file: Option<PathBuf>,
        tls: Option<Tls>,
    ) -> Access {
        if username.is_some() && password.is_none() && file.is_none() {
            self.problem(node, key, "username", "a user needs password or password_file".to_owned());
        }
        let password = Password::of(node, key, password, file).unwrap_or_else(|problem| {
            self.problems.push(problem);
            None
        });
        Access { username, password, tls }
    }

    fn address(
        &mut self,
        node: &Node,
        path: &str,
        key: &str,
        text: &str,
        default: Option<u16>,
    ) -> Option<Address> {
        Address::parse(text, default).map_err(|message| self.problem(node, path, key, message)).ok()
    }

    fn problem(&mut self, node: &Node, path: &str, key: &str, message: String) {
        self.problems.push(node.near(key).problem(format!("{path}.{key}"), message));
    }
}

/// Takes a URL apart; the message never repeats it, because it may hold a password.
fn url_of(url: &str) -> Result<(Address, bool), String> {
    let (secure, rest) = match (url.strip_prefix("redis://"), url.strip_prefix("rediss://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return Err("expected redis://host:port or rediss://host:port".to_owned()),
    };
    if rest.contains('@') {
        return Err("credentials do not belong here; use username and password_file".to_owned());
    }
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    if !path.is_empty() {
        return Err(format!("a backup is of all databases; leave /{path} away"));
    }
    Ok((Address::parse(authority, Some(DEFAULT_PORT))?, secure))
}
