//! The API over real HTTP: a daemon in this process, a real Redis behind it, a vault in a folder.

mod backups;
mod guard;
mod health;
mod metrics;
mod problem;
mod restores;
mod runs;
mod sources;
mod timelines;

use std::time::Duration;

use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tidekeeper::app::App;
use tidekeeper::clock::SystemClock;
use tidekeeper::config::{self, Known};
use tidekeeper::engine::serve::Options;
use tidekeeper::vault::{Vault, place};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::harness::redis::RedisServer;
use crate::harness::{free_port, wait_for};

const LONG: Duration = Duration::from_secs(30);

/// A daemon, and what it protects. Ends with its handle.
struct Daemon {
    url: String,
    client: Client,
    redis: RedisServer,
    folder: TempDir,
    _stop: DropGuard,
}

impl Daemon {
    async fn start() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let redis = RedisServer::start(&[]).await;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let port = free_port();
        let app = app(&folder, &redis, port).await;
        let stop = CancellationToken::new();
        let options = Options { take_over: false, grace: Duration::from_secs(1) };
        let token = stop.clone();
        // As `tidekeeper serve` runs it: in a runtime of its own, on the thread that made it.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
            runtime.block_on(tidekeeper::api::serve(app, options, token)).map_err(std::io::Error::other)
        });
        let url = format!("http://127.0.0.1:{port}");
        let daemon = Daemon { url, client: Client::new(), redis, folder, _stop: stop.drop_guard() };
        wait_for("the daemon is ready", LONG, async || daemon.is_ready().await).await;
        daemon
    }

    async fn is_ready(&self) -> bool {
        self.call(Method::GET, "/health/ready")
            .send()
            .await
            .is_ok_and(|reply| reply.status() == StatusCode::OK)
    }

    fn call(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    async fn get(&self, path: &str) -> Value {
        json_of(self.call(Method::GET, path).send().await.expect("an answer"), StatusCode::OK).await
    }

    async fn post(&self, path: &str, body: Value) -> Response {
        self.call(Method::POST, path).json(&body).send().await.expect("an answer")
    }

    /// Starts a backup and waits for its end; the run.
    async fn back_up(&self) -> Value {
        let accepted = self.post("/v1/backups", json!({ "source": "redis-main" })).await;
        self.end_of(&json_of(accepted, StatusCode::ACCEPTED).await).await
    }

    /// The run once it is over.
    async fn end_of(&self, run: &Value) -> Value {
        let path = format!("/v1/runs/{}", run["run"].as_str().expect("a run has an id"));
        let over = ["succeeded", "failed", "cancelled", "interrupted"];
        let is_over = |run: &Value| over.contains(&run["state"].as_str().unwrap_or_default());
        wait_for("the run is over", LONG, async || is_over(&self.get(&path).await)).await;
        self.get(&path).await
    }
}

async fn app(folder: &TempDir, redis: &RedisServer, port: u16) -> App {
    let file = folder.path().join("tidekeeper.yaml");
    let text = format!(
        "vault: {{ fs: {{ path: vault }} }}\nlimits: {{ spool_dir: spool }}\n\
         sources:\n  - name: redis-main\n    redis: {{ url: \"{}\" }}\n\
         schedules: schedules/\napi: {{ listen: \"127.0.0.1:{port}\" }}\n",
        redis.url()
    );
    let schedule = "source: redis-main\nbackup:\n  - { name: yearly, cron: \"0 0 1 1 *\", missed: skip }\n";
    std::fs::create_dir(folder.path().join("schedules")).expect("a folder");
    std::fs::write(folder.path().join("schedules/redis.yaml"), schedule).expect("a schedule");
    std::fs::write(&file, text).expect("a configuration");
    let known = Known { kinds: &["redis"], env: &|_| None, part: &mut |_| Vec::new() };
    let config = config::load(&file, known).expect("a good configuration");
    let clock = SystemClock::shared();
    let store = place::open_store(&config.vault, clock.clone()).await.expect("a store");
    place::init(&*store, &*clock).await.expect("a vault");
    App::new(config, Vault::new(store, clock.clone(), None), clock).expect("an app")
}

/// The JSON of an answer with this status.
#[track_caller]
fn json_of(reply: Response, status: StatusCode) -> impl Future<Output = Value> {
    let place = std::panic::Location::caller();
    async move {
        let found = reply.status();
        let text = reply.text().await.expect("a body");
        assert_eq!(found, status, "at {place}: {text}");
        serde_json::from_str(&text).expect("a JSON body")
    }
}

/// The problem of an answer: its shape is checked, then it is given back.
async fn problem_of(reply: Response, status: StatusCode, code: &str) -> Value {
    let kind = reply.headers()["content-type"].to_str().expect("text").to_owned();
    let problem = json_of(reply, status).await;
    assert_eq!(kind, "application/problem+json");
    assert_eq!(problem["code"], code, "{problem}");
    assert_eq!(problem["type"], format!("urn:tidekeeper:problem:{code}"));
    assert_eq!(problem["status"], status.as_u16());
    assert!(problem["detail"].is_string() && problem["title"].is_string(), "{problem}");
    problem
}
