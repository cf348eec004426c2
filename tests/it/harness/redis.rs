//! A real redis-server on loopback, its files in a folder of its own, ended with its handle.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use super::{free_port, wait_for};

/// A running redis-server.
#[derive(Debug)]
pub struct RedisServer {
    child: Child,
    /// Where it listens.
    pub port: u16,
    /// Its working folder.
    pub folder: TempDir,
}

impl RedisServer {
    /// Starts one with no persistence, `DEBUG` allowed, and no delay before a diskless sync; `args` come last and win.
    pub async fn start(args: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self::start_in(folder, args).await
    }

    /// Starts one in a folder that exists: with a `dump.rdb` in it, it loads that.
    pub async fn start_in(folder: TempDir, args: &[&str]) -> Self {
        let mut command = Command::new("redis-server");
        command
            .args(["--bind", "127.0.0.1", "--save", "", "--enable-debug-command", "local"])
            .args(["--repl-diskless-sync-delay", "0"]);
        Self::spawn(command, folder, args).await
    }

    /// Starts a Sentinel that watches the master at `master` under the name `mymaster`.
    pub async fn start_sentinel(master: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("sentinel.conf");
        let watch = format!("bind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {master} 1\n");
        std::fs::write(&file, watch).expect("it is written");
        let mut command = Command::new("redis-server");
        command.arg(file).arg("--sentinel");
        Self::spawn(command, folder, &[]).await
    }

    async fn spawn(mut command: Command, folder: TempDir, args: &[&str]) -> Self {
        let port = free_port();
        let child = command
            .args(["--port", &port.to_string()])
            .arg("--dir")
            .arg(folder.path())
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is missing: run dev/setup, or `apt-get install redis-server`");
        let server = RedisServer { child, port, folder };
        wait_for("redis-server answers", Duration::from_secs(20), async || {
            server.try_connect().await.is_ok()
        })
        .await;
        server
    }

    /// `redis://127.0.0.1:<port>`
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// A client's connection.
    pub async fn connect(&self) -> redis::aio::MultiplexedConnection {
        self.try_connect().await.expect("the server answers")
    }

    async fn try_connect(&self) -> redis::RedisResult<redis::aio::MultiplexedConnection> {
        // The default of half a second is less than a busy machine may take.
        let patient = redis::AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(30)));
        redis::Client::open(self.url())?.get_multiplexed_async_connection_with_config(&patient).await
    }

    /// `DEBUG DIGEST` over all databases: the judge of a restore. Waits while the server loads.
    pub async fn digest(&self) -> String {
        let mut connection = self.connect().await;
        wait_for("redis-server has loaded its file", Duration::from_secs(60), async || {
            let pong = redis::cmd("PING").query_async::<()>(&mut connection).await;
            // Any other refusal (MISCONF, say) comes from a server that has loaded.
            !pong.is_err_and(|error| error.code() == Some("LOADING"))
        })
        .await;
        redis::cmd("DEBUG").arg("DIGEST").query_async(&mut connection).await.expect("DEBUG is allowed")
    }

    /// The process id, for signals.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as `kill -9` does: from now on nobody answers there.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        self.stop();
    }
}
