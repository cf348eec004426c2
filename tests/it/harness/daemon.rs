//! The real daemon as a process of its own, which may be paused and killed.

use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::process::Child;

use super::cli::Cli;
use super::{free_port, wait_for};

/// Whatever a daemon does in a test takes less.
pub const LONG: Duration = Duration::from_secs(60);

/// A running `tidekeeper serve`; killed with its handle.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    log: PathBuf,
    /// Where it answers.
    pub url: String,
    client: reqwest::Client,
}

impl Daemon {
    /// Starts one with the configuration of `cli`, and waits until it is ready.
    pub async fn start(cli: &Cli) -> Self {
        Daemon::start_with(cli, &[]).await
    }

    /// The same with more variables. Again with another port if somebody took the first.
    pub async fn start_with(cli: &Cli, env: &[(&'static str, String)]) -> Self {
        for _ in 0..3 {
            let mut daemon = Daemon::spawn(cli, env);
            let told = Told(daemon.log.clone());
            let mut ended = false;
            wait_for("the daemon is ready", LONG, async || {
                ended = daemon.child.try_wait().expect("it is our child").is_some();
                ended || daemon.ready().await.is_some()
            })
            .await;
            if !ended {
                std::mem::forget(told);
                return daemon;
            }
        }
        panic!("the daemon did not start three times in a row");
    }

    /// Starts one.
    pub fn spawn(cli: &Cli, env: &[(&'static str, String)]) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let port = free_port();
        let file = format!("serve-{port}.yaml");
        let main = std::fs::read_to_string(cli.path("tidekeeper.yaml")).expect("it is there");
        cli.write(&file, &format!("{main}api: {{ listen: \"127.0.0.1:{port}\" }}\n"));
        let log = cli.path(format!("serve-{port}.log"));
        let mut command = cli.command(&["serve", "--config", &file]);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        command.stderr(File::create(&log).expect("writable")).stdout(std::process::Stdio::null());
        let child = command.spawn().expect("the binary is built");
        Daemon { child, log, url: format!("http://127.0.0.1:{port}"), client: reqwest::Client::new() }
    }

    /// Waits until `condition` holds; shows the log if that is in vain.
    pub async fn wait(&self, what: &str, condition: impl AsyncFnMut() -> bool) {
        let told = Told(self.log.clone());
        wait_for(what, LONG, condition).await;
        std::mem::forget(told);
    }

    /// What `/health/ready` says, if it is ready.
    pub async fn ready(&self) -> Option<Value> {
        let reply = self.client.get(format!("{}/health/ready", self.url)).send().await.ok()?;
        if reply.status().is_success() { reply.json().await.ok() } else { None }
    }

    /// Whether it is ready and leads.
    pub async fn leads(&self) -> bool {
        self.ready().await.is_some_and(|ready| ready["leads"] == true)
    }

    /// The answer to a GET, whatever its status is.
    pub async fn get(&self, path: &str) -> Value {
        let reply = self.client.get(format!("{}{path}", self.url)).send().await.expect("it answers");
        reply.json().await.expect("a JSON body")
    }

    /// Asks for a backup of `redis-main`; the run.
    pub async fn back_up(&self) -> String {
        self.back_up_of("redis-main").await
    }

    /// Asks for a backup of a source; the run.
    pub async fn back_up_of(&self, source: &str) -> String {
        let asked = self.client.post(format!("{}/v1/backups", self.url));
        let reply = asked.json(&json!({ "source": source })).send().await.expect("it answers");
        assert_eq!(reply.status(), reqwest::StatusCode::ACCEPTED);
        let run: Value = reply.json().await.expect("a JSON body");
        run["run"].as_str().expect("a run has an id").to_owned()
    }

    /// The run once it stands as `state` says.
    pub async fn run_is(&self, run: &str, state: &str) -> Value {
        let path = format!("/v1/runs/{run}");
        self.wait(&format!("{run} is {state}"), async || self.get(&path).await["state"] == state).await;
        self.get(&path).await
    }

    /// Ends it as `kill -9` does.
    pub async fn kill(&mut self) {
        self.child.kill().await.expect("it was running");
    }

    /// Ends it in order; its exit code.
    pub async fn end(&mut self) -> Option<i32> {
        self.signal(Signal::TERM);
        self.child.wait().await.expect("it is our child").code()
    }

    /// Stops it as Ctrl-Z does: it does nothing, and its connections stand.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("it was not waited for")
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, signal).expect("it is our child");
    }
}

/// Shows a log when it is dropped, which only a failure does.
struct Told(PathBuf);

impl Drop for Told {
    fn drop(&mut self) {
        eprintln!("{}", std::fs::read_to_string(&self.0).unwrap_or_default());
    }
}
