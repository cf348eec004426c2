//! One client of a deployment: connected, bounded in time, speaking raw documents.

use std::time::Duration;

use mongodb::bson::{Bson, Document, doc};
use mongodb::error::{Error as DriverError, ErrorKind};
use mongodb::options::{ClientOptions, Credential, ReadPreference, SelectionCriteria};
use mongodb::{Client, Database};

use super::config::Settings;
use super::failure::{code, code_of, failed, failing};
use super::hosts::Hosts;
use crate::clock::{SharedClock, aloud, within};
use crate::error::{Error, Kind, Result};
use crate::source::Identity;

/// How long one small command may take.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);

/// How long a server is looked for before nobody answers.
const SELECTION_LIMIT: Duration = Duration::from_secs(15);

/// How many connections to each server at most: readers of ranges, a tail, and a few commands.
const POOL: u32 = 24;

/// A deployment, as one client sees it. Clones are the same client.
#[derive(Clone, Debug)]
pub struct Link {
    client: Client,
    clock: SharedClock,
    hosts: Hosts,
    /// Its hosts, without credentials.
    pub endpoint: String,
    reads: SelectionCriteria,
}

impl Link {
    /// Reads the uri and the password anew, and connects lazily: the first command tells whether anybody answers.
    ///
    /// # Errors
    /// `Config` for a uri that cannot be meant, `Unreachable` if a name in it has no address.
    pub async fn open(settings: &Settings, clock: &SharedClock) -> Result<Link> {
        let doing = || format!("reading the uri of {}", settings.name);
        let parse = async { ClientOptions::parse(settings.uri.expose()).await.map_err(failing(doing())) };
        let late = || Err(Error::new(Kind::Timeout, doing(), "its name server does not answer"));
        let mut options = within(&**clock, CALL_LIMIT, parse, late).await?;
        if let (Some(username), Some(password)) = (&settings.username, &settings.password) {
            let credential = options.credential.get_or_insert_with(Credential::default);
            credential.username = Some(username.clone());
            credential.password = Some(password.read()?.expose().to_owned());
        }
        options.app_name = Some("tidekeeper".to_owned());
        options.server_selection_timeout.get_or_insert(SELECTION_LIMIT);
        options.max_pool_size.get_or_insert(POOL);
        let hosts: Vec<String> = options.hosts.iter().map(ToString::to_string).collect();
        let preference = match settings.prefer_secondary {
            true => ReadPreference::SecondaryPreferred { options: None },
            false => ReadPreference::Primary,
        };
        let heard = Hosts::listen(&mut options, SELECTION_LIMIT);
        let client = Client::with_options(options).map_err(failing(doing()))?;
        Ok(Link {
            client,
            clock: clock.clone(),
            hosts: heard,
            endpoint: hosts.join(","),
            reads: SelectionCriteria::ReadPreference(preference),
        })
    }

    /// Where data is read: a secondary where one is preferred and there.
    pub fn reads(&self) -> SelectionCriteria {
        self.reads.clone()
    }

    /// What is wrong with each host; none while one of them serves.
    pub fn away(&self) -> Option<String> {
        self.hosts.away()
    }

    /// The clock that its calls are bounded by.
    pub fn clock(&self) -> &SharedClock {
        &self.clock
    }

    /// A database; what it fails with, [`explain`](Self::explain) puts into words.
    pub fn database(&self, name: &str) -> Database {
        self.client.database(name)
    }

    /// The driver's error, with what is wrong with each host where none will do, and with whom the line broke.
    pub fn explain(&self, error: DriverError) -> DriverError {
        match &*error.kind {
            ErrorKind::Io(cause) => {
                let why = format!("{cause} (from {})", self.endpoint);
                DriverError::from(std::io::Error::new(cause.kind(), why))
            }
            _ => self.hosts.explain(error),
        }
    }

    /// Sends a small command to the primary.
    ///
    /// # Errors
    /// `Timeout` after 30 s; else the server's refusal.
    pub async fn command(&self, db: &str, command: Document) -> Result<Document> {
        let doing = self.doing(&command);
        self.attempt(db, command).await?.map_err(failing(doing))
    }

    /// Sends a small command whose refusal means something to the caller.
    ///
    /// # Errors
    /// `Timeout` after 30 s. Who waits longer than a while is told why.
    pub async fn attempt(&self, db: &str, command: Document) -> Result<Result<Document, DriverError>> {
        let doing = self.doing(&command);
        let database = self.database(db);
        let sent = database.run_command(command);
        let sent = async { Ok(sent.await.map_err(|error| self.hosts.explain(error))) };
        let tell = || {
            let why = self.hosts.why();
            tracing::warn!(server = %self.endpoint, why, "waiting for the server");
        };
        let sent = aloud(&*self.clock, sent, tell);
        let late = || Err(Error::new(Kind::Timeout, doing, format!("no answer within {CALL_LIMIT:?}")));
        within(&*self.clock, CALL_LIMIT, sent, late).await
    }

    /// Only the first word of a command: what follows may be somebody's data.
    fn doing(&self, command: &Document) -> String {
        let name = command.keys().next().map(String::as_str).unwrap_or_default();
        format!("asking {} for {name}", self.endpoint)
    }
}

/// What a deployment says of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Server {
    /// `8.0.4`.
    pub version: String,
    /// The replica set's name; none for a standalone server or a mongos.
    pub set: Option<String>,
    /// The replica set's own id, where it tells; it survives every change of members and names.
    pub set_id: Option<String>,
    /// Whether it is a router of a sharded cluster.
    pub is_router: bool,
    /// The largest document, in bytes.
    pub max_document: u64,
    /// The largest message, in bytes.
    pub max_message: u64,
    /// Its hosts as it knows them, sorted.
    pub hosts: Vec<String>,
}

impl Server {
    /// Asks it.
    pub async fn ask(link: &Link) -> Result<Server> {
        let hello = link.command("admin", doc! { "hello": 1 }).await?;
        let build = link.command("admin", doc! { "buildInfo": 1 }).await?;
        let limit = |key: &str, usual: u64| {
            hello.get(key).and_then(number).and_then(|given| u64::try_from(given).ok()).unwrap_or(usual)
        };
        let mut hosts: Vec<String> = hello
            .get_array("hosts")
            .map(|hosts| hosts.iter().filter_map(|host| host.as_str().map(str::to_owned)).collect())
            .unwrap_or_default();
        hosts.sort();
        let set = hello.get_str("setName").ok().map(str::to_owned);
        Ok(Server {
            version: build.get_str("version").unwrap_or("unknown").to_owned(),
            set_id: match set {
                Some(_) => set_id(link, hosts.len()).await?,
                None => None,
            },
            set,
            is_router: hello.get_str("msg").is_ok_and(|msg| msg == "isdbgrid"),
            max_document: limit("maxBsonObjectSize", 16 << 20),
            max_message: limit("maxMessageSizeBytes", 48_000_000),
            hosts,
        })
    }

    /// Major and minor version; what cannot be read counts as the oldest.
    pub fn release(&self) -> (u32, u32) {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or(0));
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
    }

    /// Which log its timeline is of: the replica set's id, else its name.
    pub fn log_identity(&self) -> Option<String> {
        self.set_id.clone().or_else(|| self.set.clone())
    }

    /// Which deployment it is, for claims and plans.
    pub fn identity(&self, link: &Link, name: &str) -> Identity {
        let own = self.log_identity().unwrap_or_else(|| match self.hosts.as_slice() {
            [] => link.endpoint.clone(),
            hosts => hosts.join(","),
        });
        Identity {
            id: format!("mongodb:{own}"),
            label: format!("{name} at {} (MongoDB {})", link.endpoint, self.version),
        }
    }
}

/// `replSetGetConfig` needs a right that a backup's user may lack, and not every compatible server has it. A log that has one
/// member only is known by its own collection's id too, which no restart changes.
async fn set_id(link: &Link, members: usize) -> Result<Option<String>> {
    let doing = "asking for the replica set's configuration";
    match link.attempt("admin", doc! { "replSetGetConfig": 1 }).await? {
        Ok(reply) => {
            let settings = reply.get_document("config").and_then(|config| config.get_document("settings"));
            let id = settings.and_then(|settings| settings.get_object_id("replicaSetId"));
            Ok(id.ok().map(|id| id.to_hex()))
        }
        Err(error) if matches!(code_of(&error), Some(code::UNAUTHORIZED | code::COMMAND_NOT_FOUND)) => {
            if members == 1 {
                oplog_id(link).await
            } else {
                Ok(None)
            }
        }
        Err(error) => Err(failed(doing, error)),
    }
}

async fn oplog_id(link: &Link) -> Result<Option<String>> {
    let command = doc! { "listCollections": 1, "filter": { "name": "oplog.rs" } };
    let Ok(reply) = link.attempt("local", command).await? else { return Ok(None) };
    let uuid = || {
        let first =
            reply.get_document("cursor").ok()?.get_array("firstBatch").ok()?.first()?.as_document()?;
        match first.get_document("info").ok()?.get("uuid")? {
            Bson::Binary(uuid) => Some(hex::encode(&uuid.bytes)),
            _ => None,
        }
    };
    Ok(uuid())
}

/// A number of whichever type the server chose.
pub fn number(value: &Bson) -> Option<i64> {
    match value {
        Bson::Int32(number) => Some(i64::from(*number)),
        Bson::Int64(number) => Some(*number),
        Bson::Double(number) => Some(*number as i64),
        _ => None,
    }
}
