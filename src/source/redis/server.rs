//! What a running server says of itself: all that a pre-flight judges by.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use jiff::Timestamp;

use super::connection::Connection;
use super::master::Login;
use super::rdb::Dialect;
use super::reply::Reply;
use crate::config::secret::Secret;
use crate::error::Result;

/// `INFO`: its fields by name.
#[derive(Clone, Debug, Default)]
pub struct Info {
    fields: BTreeMap<String, String>,
    modules: Option<BTreeSet<String>>,
}

impl Info {
    /// Reads what `INFO` answered. Modules are several lines with one name, so they are kept apart; without their
    /// heading the server is too old to list them here.
    pub fn read(text: &str) -> Info {
        let mut info = Info::default();
        for line in text.lines() {
            if line == "# Modules" {
                info.modules.get_or_insert_default();
            } else if let Some(module) = line.strip_prefix("module:name=") {
                let name = module.split(',').next().unwrap_or(module);
                info.modules.get_or_insert_default().insert(name.to_owned());
            } else if let Some((name, value)) = line.split_once(':') {
                info.fields.insert(name.to_owned(), value.to_owned());
            }
        }
        info
    }

    /// A field's text; empty if it is not there.
    pub fn text(&self, name: &str) -> &str {
        self.fields.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A field that is a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }

    /// `dbN:keys=..,expires=..`
    pub fn keyspace(&self) -> BTreeMap<u32, Keyspace> {
        let dbs = self.fields.iter().filter_map(|(name, value)| {
            let db = name.strip_prefix("db")?.parse().ok()?;
            let field = |wanted: &str| {
                value.split(',').find_map(|part| part.strip_prefix(wanted)?.strip_prefix('=')?.parse().ok())
            };
            Some((db, Keyspace { keys: field("keys")?, expires: field("expires")? }))
        });
        dbs.collect()
    }
}

/// Counts of a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyspace {
    /// Keys.
    pub keys: u64,
    /// Those with a time to live.
    pub expires: u64,
}

/// Whose server it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Product {
    /// Redis, and all that pass for it.
    #[default]
    Redis,
    /// Valkey.
    Valkey,
}

/// Major, minor, patch.
pub type Version = (u32, u32, u32);

/// What a server says of itself. What it does not let us know is `None`.
#[derive(Clone, Debug, Default)]
pub struct Server {
    /// Redis or Valkey.
    pub product: Product,
    /// Its version.
    pub version: Version,
    /// What its clock shows.
    pub now: Option<Timestamp>,
    /// Of this process: another one after a restart.
    pub run_id: String,
    /// Whether it is a node of a cluster.
    pub cluster: bool,
    /// Whom it follows, if it is a replica: host and port, and whether the link is up.
    pub follows: Option<(String, bool)>,
    /// How many replicas follow it.
    pub replicas: u64,
    /// `master_replid`.
    pub replid: String,
    /// Whether it is loading a dataset.
    pub loading: bool,
    /// Whether a failover is under way.
    pub failover: bool,
    /// Per database that has keys.
    pub keyspace: BTreeMap<u32, Keyspace>,
    /// Function libraries; 0 before 7.0.
    pub libraries: u64,
    /// Bytes in use, and in use by an empty server.
    pub memory_used: u64,
    /// `maxmemory`; 0 is no limit.
    pub memory_max: u64,
    /// Of its machine.
    pub memory_total: u64,
    /// Names of loaded modules.
    pub modules: Option<BTreeSet<String>>,
    /// The newest RDB that it loads.
    pub newest_rdb: u16,
    /// How many databases it has.
    pub databases: Databases,
    /// `repl-diskless-load`
    pub diskless_load: Option<String>,
    /// Whether it dials its master with TLS.
    pub tls_replication: Option<bool>,
    /// Whether its configuration may be read, and with it what it logs in with.
    pub config_readable: bool,
    /// What it logs in with at a master.
    pub login: Option<Login>,
    /// The longest string that it takes.
    pub bulk_max: u64,
    /// How many Sentinels watch it.
    pub sentinels: Option<u64>,
    /// Whether it has a command `REPLICAOF`; hosted ones do not.
    pub replicaof: Option<bool>,
    /// From which address it sees us.
    pub sees_us_at: Option<IpAddr>,
    /// At which of its own addresses we reached it.
    pub own_address: Option<IpAddr>,
}

/// How many databases a server has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Databases {
    /// As its configuration says.
    Configured(u64),
    /// It was asked to select this one, and did or did not.
    Probed(u32, bool),
    /// It would not say.
    #[default]
    Unknown,
}

/// `proto-max-bulk-len` unless configured otherwise.
const BULK_MAX: u64 = 512 << 20;

impl Server {
    /// Asks a server all of it. `highest_db` is probed where the configuration may not be read.
    ///
    /// Only `INFO` is needed; everything else that is refused stays unknown.
    pub async fn ask(link: &mut Connection, highest_db: Option<u32>) -> Result<Server> {
        let mut server = Server::read(&info(link).await?);
        server.ask_config(link).await?;
        server.ask_databases(link, highest_db).await?;
        server.ask_addresses(link).await?;
        server.ask_newest_rdb(link).await?;
        let sentinels = link.try_ask(&["PUBSUB", "NUMSUB", "__sentinel__:hello"]).await?;
        server.sentinels = sentinels.and_then(|told| told.items().get(1)?.text()?.parse().ok());
        let known = link.try_ask(&["COMMAND", "INFO", "REPLICAOF"]).await?;
        server.replicaof = known.map(|told| matches!(told.items(), [Reply::List(_)]));
        Ok(server)
    }

    /// What `INFO` alone says.
    pub fn read(info: &Info) -> Server {
        let valkey = info.text("server_name") == "valkey";
        let version = version(info.text(if valkey { "valkey_version" } else { "redis_version" }));
        let product = if valkey { Product::Valkey } else { Product::Redis };
        let follows = (info.text("role") == "slave").then(|| {
            let address = format!("{}:{}", info.text("master_host"), info.text("master_port"));
            (address, info.text("master_link_status") == "up")
        });
        Server {
            product,
            version,
            now: info
                .text("server_time_usec")
                .parse()
                .ok()
                .and_then(|at| Timestamp::from_microsecond(at).ok()),
            run_id: info.text("run_id").to_owned(),
            cluster: info.text("cluster_enabled") == "1" || info.text("redis_mode") == "cluster",
            follows,
            replicas: info.number("connected_slaves").unwrap_or_default(),
            replid: info.text("master_replid").to_owned(),
            loading: ["loading", "async_loading"].iter().any(|field| info.text(field) == "1"),
            failover: !matches!(info.text("master_failover_state"), "" | "no-failover"),
            keyspace: info.keyspace(),
            libraries: info.number("number_of_libraries").unwrap_or_default(),
            memory_used: info.number("used_memory").unwrap_or_default(),
            memory_max: info.number("maxmemory").unwrap_or_default(),
            memory_total: info.number("total_system_memory").unwrap_or_default(),
            modules: info.modules.clone(),
            newest_rdb: newest_rdb(product, version),
            bulk_max: BULK_MAX,
            ..Server::default()
        }
    }

    async fn ask_config(&mut self, link: &mut Connection) -> Result<()> {
        let databases = config(link, "databases").await?;
        self.config_readable = databases.is_some();
        if let Some(count) = databases.and_then(|count| count.parse().ok()) {
            self.databases = Databases::Configured(count);
        }
        if !self.config_readable {
            return Ok(());
        }
        self.diskless_load = config(link, "repl-diskless-load").await?;
        self.tls_replication = config(link, "tls-replication").await?.map(|yes| yes == "yes");
        if let Some(max) = config(link, "proto-max-bulk-len").await?.and_then(|max| max.parse().ok()) {
            self.bulk_max = max;
        }
        let filled = |text: &String| !text.is_empty();
        let user = config(link, "masteruser").await?.filter(filled);
        let password = config(link, "masterauth").await?.filter(filled);
        self.login = password.map(|password| Login { user, password: Secret::new(password) });
        Ok(())
    }

    async fn ask_databases(&mut self, link: &mut Connection, highest_db: Option<u32>) -> Result<()> {
        let Some(db) = highest_db.filter(|_| self.databases == Databases::Unknown) else { return Ok(()) };
        match link.call(&["SELECT", &db.to_string()]).await? {
            Reply::Error(text) if text.contains("out of range") => {
                self.databases = Databases::Probed(db, false)
            }
            Reply::Error(_) => {}
            _ => {
                self.databases = Databases::Probed(db, true);
                link.ask(&["SELECT", "0"]).await?;
            }
        }
        Ok(())
    }

    /// `CLIENT INFO`: `id=3 addr=10.0.0.7:41212 laddr=10.0.0.9:6379 ...`
    async fn ask_addresses(&mut self, link: &mut Connection) -> Result<()> {
        let told = link.try_ask(&["CLIENT", "INFO"]).await?.and_then(|told| told.text()).unwrap_or_default();
        let address = |field: &str| {
            let value = told.split_whitespace().find_map(|part| part.strip_prefix(field))?;
            let (host, _) = value.rsplit_once(':')?;
            Some(host.trim_matches(['[', ']']).parse::<IpAddr>().ok()?.to_canonical())
        };
        (self.sees_us_at, self.own_address) = (address("addr="), address("laddr="));
        Ok(())
    }

    /// From 7.0 on `FUNCTION DUMP` ends with the version of the RDB format that the server writes, and then a CRC64:
    /// better than a table of versions, but it needs a right, and the answer has all libraries in it.
    async fn ask_newest_rdb(&mut self, link: &mut Connection) -> Result<()> {
        if self.version < (7, 0, 0) || self.libraries > 0 {
            return Ok(());
        }
        let dump = link.try_ask(&["FUNCTION", "DUMP"]).await?;
        if let Some(Reply::Bulk(dump)) = dump
            && let Some([low, high, ..]) = dump.last_chunk::<10>()
        {
            self.newest_rdb = u16::from_le_bytes([*low, *high]);
        }
        Ok(())
    }

    /// Whether it loads an RDB of this format whole.
    pub fn loads(&self, dialect: Dialect, version: u16) -> bool {
        match (dialect, self.newest_rdb) {
            // Valkey calls the formats 12 to 79 foreign and refuses them; its own go on at 80 (`rdb.h` of Valkey 9).
            (Dialect::Redis, 80..) => version <= LAST_COMMON_RDB,
            (Dialect::Redis, newest) => version <= newest,
            (Dialect::Valkey, newest) => newest >= 80 && version <= newest,
        }
    }

    /// Whether it knows values with this type byte from an RDB of that family.
    pub fn knows_type(&self, dialect: Dialect, type_code: u8) -> bool {
        let own = if self.newest_rdb >= 80 { Dialect::Valkey } else { Dialect::Redis };
        let newest = match self.newest_rdb {
            0..=6 => 13,
            7 | 8 => 14,
            9 => 15,
            10 => 19,
            11 => LAST_COMMON_TYPE,
            12 => 25,
            // Of a later version we only know that it still loads the older ones.
            _ => u8::MAX,
        };
        type_code <= newest && (type_code <= LAST_COMMON_TYPE || dialect == own)
    }

    /// The version to write at the end of a `RESTORE` payload: that of the backup, or the newest that it shares with the target.
    pub fn payload_version(&self, dialect: Dialect, version: u16) -> u16 {
        if self.loads(dialect, version) { version } else { self.newest_rdb.min(LAST_COMMON_RDB) }
    }

    /// What two masters of a cluster are together: able to do what both can, and holding what both hold.
    pub fn and(mut self, other: Server) -> Server {
        for (db, more) in other.keyspace {
            let keyspace = self.keyspace.entry(db).or_default();
            keyspace.keys += more.keys;
            keyspace.expires += more.expires;
        }
        // A limit that one of them has not is none of the whole.
        let sum = |a: u64, b: u64| if a == 0 || b == 0 { 0 } else { a + b };
        self.memory_max = sum(self.memory_max, other.memory_max);
        self.memory_total = sum(self.memory_total, other.memory_total);
        self.memory_used += other.memory_used;
        self.version = self.version.min(other.version);
        self.newest_rdb = self.newest_rdb.min(other.newest_rdb);
        self.bulk_max = self.bulk_max.min(other.bulk_max);
        self.replicas += other.replicas;
        self.now = self.now.max(other.now);
        self.libraries = self.libraries.max(other.libraries);
        self.loading |= other.loading;
        self.failover |= other.failover;
        self.follows = self.follows.or(other.follows);
        self
    }

    /// Keys in all databases.
    pub fn keys(&self) -> u64 {
        self.keyspace.values().map(|keyspace| keyspace.keys).sum()
    }

    /// Whether nothing would be lost with what it holds.
    pub fn is_empty(&self) -> bool {
        self.keys() == 0 && self.libraries == 0
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (major, minor, patch) = self.version;
        write!(f, "{:?} {major}.{minor}.{patch}", self.product)
    }
}

/// The last RDB format, and the last type byte, that mean the same in Redis and in Valkey.
const LAST_COMMON_RDB: u16 = 11;
const LAST_COMMON_TYPE: u8 = 21;

/// The newest RDB that a version loads: `RDB_VERSION` in `src/rdb.h` at the release tags of redis/redis and
/// valkey-io/valkey. A later version than the last known is trusted to load what that one did.
pub fn newest_rdb(product: Product, version: Version) -> u16 {
    match (product, version) {
        (Product::Valkey, (9.., ..)) => 80,
        (Product::Valkey, _) => 11,
        (Product::Redis, (0..=2, ..) | (3, 0..=1, _)) => 6,
        (Product::Redis, (3, ..)) => 7,
        (Product::Redis, (4, ..)) => 8,
        (Product::Redis, (5..=6, ..)) => 9,
        (Product::Redis, (7, 0..=1, _)) => 10,
        (Product::Redis, (7, 2..=3, _)) => 11,
        (Product::Redis, _) => 12,
    }
}

fn version(text: &str) -> Version {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    (next(), next(), next())
}

/// `INFO`, the one right that is always needed.
pub async fn info(link: &mut Connection) -> Result<Info> {
    let told = link.ask(&["INFO"]).await?;
    Ok(Info::read(&told.text().unwrap_or_default()))
}

async fn config(link: &mut Connection, name: &str) -> Result<Option<String>> {
    let pair = link.try_ask(&["CONFIG", "GET", name]).await?;
    Ok(pair.and_then(|pair| pair.field(name)?.text()))
}
