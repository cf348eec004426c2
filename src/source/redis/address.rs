//! Where a server is: `host:port`.

use std::fmt;
use std::str::FromStr;

/// The port of `redis://` without one.
pub const DEFAULT_PORT: u16 = 6379;

/// A host, by name or number, and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// A name, an IPv4 or an IPv6 address (without brackets).
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Address {
    /// The address `host:port`.
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Address { host: host.into(), port }
    }

    /// Reads `host`, `host:port` or `[v6]:port`; without a port it is `default`.
    pub fn parse(text: &str, default: Option<u16>) -> Result<Self, String> {
        let wrong = || format!("{text:?} is not an address; expected for example redis.prod.svc:6379");
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or_else(wrong)?;
                (host, after.strip_prefix(':').or((after.is_empty()).then_some("")).ok_or_else(wrong)?)
            }
            None => text.split_once(':').unwrap_or((text, "")),
        };
        let port = match port {
            "" => default.ok_or_else(|| format!("{text:?} has no port"))?,
            port => port.parse().map_err(|_| wrong())?,
        };
        let odd = |letter: char| letter.is_whitespace() || "@/?#[]".contains(letter);
        if host.is_empty() || host.contains(odd) || (!text.starts_with('[') && host.contains(':')) {
            return Err(wrong());
        }
        Ok(Address::new(host, port))
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Address::parse(text, None)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}
