//! A real MongoDB-wire server on loopback, its files in a folder of its own, ended with its handle.
//!
//! `dev/setup` installs it; `TIDEKEEPER_TEST_SECANTUSD` names another one. It is a replica set of one member, unless it is
//! started with `--standalone`. Tests that need what only a mongod has ask [`mongod`] for one.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mongodb::Client;
use mongodb::bson::{Bson, Document, doc};
use tempfile::TempDir;
use tidekeeper::config::secret::Secret;
use tidekeeper::source::mongodb::config::Settings;

use super::{free_port, wait_for};

/// As `dev/lib.sh` pins it.
const VERSION: &str = "0.7.0b3";

/// How long one may take to start.
const LIMIT: Duration = Duration::from_secs(60);

/// Each search of the oplog begins at its oldest entry, so tests go faster with a short one.
const USUAL: [&str; 2] = ["--oplog-max-entries", "5000"];

/// A running server.
#[derive(Debug)]
pub struct MongoServer {
    child: Child,
    args: Vec<String>,
    options: String,
    /// Where it listens.
    pub port: u16,
    /// Its data and its log.
    pub folder: TempDir,
}

impl MongoServer {
    /// Starts one on an empty folder, with an oplog of 5,000 entries; `args` come last and win.
    pub async fn start(args: &[&str]) -> Self {
        MongoServer::start_for(args, "").await
    }

    /// The same, which clients reach with these options in their uri.
    pub async fn start_for(args: &[&str], options: &str) -> Self {
        let args: Vec<String> = USUAL.iter().chain(args).map(ToString::to_string).collect();
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (port, options) = (free_port(), options.to_owned());
        let mut server = MongoServer { child: spawn(port, &folder, &args), args, options, port, folder };
        server.ready().await;
        server
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end, and waits until it has.
    pub async fn stop(&mut self) {
        let _ = Command::new("kill").arg(self.pid().to_string()).status();
        wait_for("the server ends", LIMIT, async || matches!(self.child.try_wait(), Ok(Some(_)))).await;
    }

    /// Ends it as `kill -9` does, and starts it on the same folder and port.
    pub async fn restart(&mut self) {
        self.kill();
        self.start_again(&[]).await;
    }

    /// Starts one that has ended, on the same folder and port, with more `args`.
    pub async fn start_again(&mut self, args: &[&str]) {
        self.args.extend(args.iter().map(ToString::to_string));
        self.child = spawn(self.port, &self.folder, &self.args);
        self.ready().await;
    }

    async fn ready(&mut self) {
        let uri = format!("{}&serverSelectionTimeoutMS=1000", self.uri());
        let client = Client::with_uri_str(uri).await.expect("a uri");
        wait_for("the MongoDB-wire server answers", LIMIT, async || {
            if let Ok(Some(status)) = self.child.try_wait() {
                panic!("the server has ended ({status}): {}", self.log());
            }
            client.database("admin").run_command(doc! { "hello": 1 }).await.is_ok()
        })
        .await;
    }

    /// `mongodb://127.0.0.1:<port>/?directConnection=true`, and what else clients need.
    pub fn uri(&self) -> String {
        uri_at(self.port) + &self.options
    }

    /// What a configuration would say of it.
    pub fn settings(&self) -> Settings {
        settings_at(&self.uri())
    }

    /// A client of its own.
    pub async fn client(&self) -> Client {
        Client::with_uri_str(self.uri()).await.expect("a uri")
    }

    /// Sends one command and expects it to be obeyed.
    pub async fn command(&self, db: &str, command: Document) -> Document {
        self.client().await.database(db).run_command(command).await.expect("the server obeys")
    }

    /// Returns once it does nothing more of what a dead client had sent. This server holds a document twice when its collection
    /// is dropped and filled anew while an `insert` of before is under way (shown with two of the same 900 documents); a
    /// MongoDB does not.
    pub async fn at_rest(&self) {
        let mut quiet = 0;
        wait_for("it is at rest", LIMIT, async || {
            let reply = self.command("admin", doc! { "currentOp": 1 }).await;
            let inserts = |op: &Bson| op.as_document().and_then(|op| op.get_str("op").ok()) == Some("insert");
            let is_busy = reply.get_array("inprog").expect("a list").iter().any(inserts);
            // What has come and is not begun shows a moment later.
            quiet = if is_busy { 0 } else { quiet + 1 };
            quiet > 5
        })
        .await;
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// The process id, for signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for MongoServer {
    fn drop(&mut self) {
        self.kill();
    }
}

/// `mongodb://127.0.0.1:<port>/?directConnection=true`: of a server, or of a proxy in front of it.
pub fn uri_at(port: u16) -> String {
    format!("mongodb://127.0.0.1:{port}/?directConnection=true")
}

/// What a configuration with this uri would say, without a timeline.
pub fn settings_at(uri: &str) -> Settings {
    Settings {
        name: "mongo-main".parse().expect("a name"),
        uri: Secret::new(uri),
        username: None,
        password: None,
        timeline: None,
        prefer_secondary: true,
    }
}

/// The uri of a real mongod, a replica set, whose databases tests may change; none where nobody named one.
pub fn mongod() -> Option<String> {
    std::env::var("TIDEKEEPER_TEST_MONGODB").ok()
}

fn spawn(port: u16, folder: &TempDir, args: &[String]) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.path().join("log"));
    let log = log.expect("its log");
    Command::new(program())
        .args(["--host", "127.0.0.1", "--port", &port.to_string(), "--log-level", "WARNING"])
        .arg("--storage-path")
        .arg(folder.path().join("data"))
        .args(args)
        .current_dir(folder.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("another descriptor"))
        .stderr(log)
        .spawn()
        .expect("secantusd is missing: run dev/setup, or name one in TIDEKEEPER_TEST_SECANTUSD")
}

fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TIDEKEEPER_TEST_SECANTUSD") {
        return named.into();
    }
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    home.join(format!(".cache/tidekeeper/secantusdb-{VERSION}/bin/secantusd-py"))
}
