//! What every command is given: where the configuration or the vault is, the clock, how results look.

use std::future::Future;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::look::Look;
use super::outcome;
use super::remote::Remote;
use super::serve::Daemon;
use crate::app::{App, KINDS};
use crate::clock::{SharedClock, SystemClock, within};
use crate::config::node::Problem;
use crate::config::{self, Config, Known};
use crate::error::{Error, Kind, Result};
use crate::vault::Vault;
use crate::vault::place::{self, Intent};

/// The configuration that is read when nothing else is named.
const DEFAULT_CONFIG: &str = "tidekeeper.yaml";

/// How long opening the vault may take: a store that is there answers within a second or two.
const OPENING: Duration = Duration::from_secs(60);

/// Arguments of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Globals {
    /// The configuration [env: TIDEKEEPER_CONFIG] [default: tidekeeper.yaml]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub config: Option<PathBuf>,

    /// Work with this vault alone: a path, or s3://BUCKET/PREFIX?region=REGION (else AWS_REGION), with
    /// &endpoint=URL&path_style=true for another server than AWS's [env: TIDEKEEPER_VAULT]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "config", help_heading = "Everywhere")]
    pub vault: Option<String>,

    /// The age private key that decrypts, instead of the configured one [env: TIDEKEEPER_IDENTITY]
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub identity: Option<PathBuf>,

    /// Ask a daemon instead of working in this process
    #[arg(long, global = true, value_name = "URL", help_heading = "Everywhere")]
    pub server: Option<String>,

    /// Print one JSON document
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub json: bool,

    /// What is logged on stderr: warn, info, debug, or directives per module [env: TIDEKEEPER_LOG]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Everywhere")]
    pub log: Option<String>,
}

/// What every command is given.
#[derive(Clone, Debug)]
pub struct Context {
    /// The arguments of every command.
    pub globals: Globals,
    /// The clock.
    pub clock: SharedClock,
    /// How results look.
    pub look: Look,
    /// What `serve` runs.
    pub daemon: Daemon,
}

/// Where the vault is known from.
enum Origin {
    Config(PathBuf),
    Vault(String),
}

impl Context {
    /// The context of this process.
    pub fn new(globals: Globals, daemon: Daemon) -> Self {
        let clock = SystemClock::shared();
        let look = Look::of_stdout(clock.now());
        Context { globals, clock, look, daemon }
    }

    /// Whether somebody is there to be asked.
    pub fn is_interactive(&self) -> bool {
        !self.globals.json && std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
    }

    /// Who asks, for the audit trail: `root@host`.
    pub fn principal(&self) -> String {
        let uid = rustix::process::getuid().as_raw();
        let user = variable("USER").or(variable("LOGNAME")).unwrap_or_else(|| format!("uid-{uid}"));
        format!("{user}@{}", rustix::system::uname().nodename().to_string_lossy())
    }

    /// What is named on the command line wins over the environment, and that over `./tidekeeper.yaml`.
    fn origin(&self) -> Result<Origin> {
        let Globals { config, vault, .. } = &self.globals;
        if let Some(file) = config {
            return Ok(Origin::Config(file.clone()));
        }
        if let Some(url) = vault {
            return Ok(Origin::Vault(url.clone()));
        }
        let doing = "looking for the configuration";
        match (variable("TIDEKEEPER_CONFIG"), variable("TIDEKEEPER_VAULT")) {
            (Some(file), None) => Ok(Origin::Config(file.into())),
            (None, Some(url)) => Ok(Origin::Vault(url)),
            (Some(_), Some(_)) => {
                Err(Error::new(Kind::Usage, doing, "TIDEKEEPER_CONFIG and TIDEKEEPER_VAULT are both set")
                    .hint("unset one of them, or name one with --config or --vault"))
            }
            (None, None) if Path::new(DEFAULT_CONFIG).exists() => Ok(Origin::Config(DEFAULT_CONFIG.into())),
            (None, None) => Err(Error::new(Kind::Usage, doing, format!("there is no {DEFAULT_CONFIG} here"))
                .hint(
                    "name one with --config FILE; many commands need only --vault s3://BUCKET/PREFIX or PATH",
                )),
        }
    }

    /// The daemon that is asked instead, if one is named.
    pub fn remote(&self) -> Result<Option<Remote<'_>>> {
        self.globals.server.as_deref().map(|url| Remote::new(self, url)).transpose()
    }

    /// The configuration; with `--vault`, one that names nothing but the vault.
    ///
    /// # Errors
    /// `Usage` with `--server`: a command that asks a daemon does not come here.
    pub fn config(&self) -> Result<Config> {
        self.configured(|file| read_config(file, config::load))
    }

    /// As [`config`](Self::config), but mistakes that are not about the vault are only warned of.
    fn config_of_vault(&self) -> Result<Config> {
        self.configured(|file| {
            let (config, wrong) = read_config(file, config::load_vault)?;
            if let Some(error) = wrong {
                let error =
                    error.hint("this goes on with the vault alone, without schedules and their deadlines; `serve` does not");
                eprint!("{}", outcome::warning(&error, &self.look));
            }
            Ok(config)
        })
    }

    fn configured(&self, read: impl FnOnce(&Path) -> Result<Config>) -> Result<Config> {
        if let Some(server) = &self.globals.server {
            let why = "a daemon does not do this for others yet";
            return Err(Error::new(Kind::Usage, format!("asking {server}"), why)
                .hint("leave --server out, and name the configuration or the vault instead"));
        }
        let mut config = match self.origin()? {
            Origin::Config(file) => read(&file)?,
            Origin::Vault(url) => Config::of_vault(place::parse(&url)?),
        };
        let identity = self.globals.identity.clone();
        if let Some(file) = identity.or_else(|| variable("TIDEKEEPER_IDENTITY").map(PathBuf::from)) {
            config.encryption.get_or_insert_default().identity_file = Some(file);
        }
        Ok(config)
    }

    /// The configuration wired to its vault, which must exist and permit `intent`.
    pub async fn app(&self, intent: Intent) -> Result<App> {
        self.open(self.config()?, intent).await
    }

    /// As [`app`](Self::app), for what needs the vault alone: at 3 a.m. a typo in a schedule is in nobody's way.
    pub async fn app_of_vault(&self, intent: Intent) -> Result<App> {
        self.open(self.config_of_vault()?, intent).await
    }

    async fn open(&self, config: Config, intent: Intent) -> Result<App> {
        let opened = async {
            let store = place::open_store(&config.vault, self.clock.clone()).await?;
            place::open(&*store, intent).await?;
            Ok(store)
        };
        let store = self.within(OPENING, &format!("opening the vault at {}", config.vault), opened).await?;
        let vault = Vault::new(store, self.clock.clone(), config.encryption.clone());
        App::new(config, vault, self.clock.clone())
    }

    /// Waits for `work`, but no longer than `limit`.
    pub async fn within<T>(
        &self,
        limit: Duration,
        doing: &str,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        let late = || {
            let why = format!("no answer within {} s", limit.as_secs());
            Err(Error::new(Kind::Timeout, doing, why).hint("look at the network between here and there"))
        };
        within(&*self.clock, limit, work, late).await
    }
}

/// Reads a configuration with all its problems, those of the sources' own parts among them.
fn read_config<T>(file: &Path, load: impl FnOnce(&Path, Known<'_>) -> Result<T>) -> Result<T> {
    let kinds: Vec<&'static str> = KINDS.iter().map(|kind| kind.name()).collect();
    let mut part = |entry: &config::Entry| -> Vec<Problem> {
        let kind = KINDS.iter().find(|kind| kind.name() == entry.kind);
        let checked = kind.map(|kind| kind.configure(&entry.name, &entry.part));
        checked.and_then(Result::err).unwrap_or_default()
    };
    load(file, Known { kinds: &kinds, env: &|name| std::env::var(name).ok(), part: &mut part })
}

/// A variable of the environment that is set to something.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}
