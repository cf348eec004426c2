//! S3 servers: one of each kind for the whole test binary, ended when it ends, however it ends.
//!
//! All know one pair of keys. Tests take a prefix of their own, so they do not see each other.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_s3::config::{Credentials, SharedCredentialsProvider};
use tidekeeper::clock::{SharedClock, SystemClock};
use tidekeeper::config::S3Place;
use tidekeeper::vault::layout;
use tidekeeper::vault::store::SharedStore;
use tidekeeper::vault::store::s3::S3Store;

use super::free_port;

pub mod gate;
pub mod in_process;
pub mod proxy;

const ACCESS_KEY: &str = "tidekeeper-test";
const SECRET_KEY: &str = "tidekeeper-test-secret";
const BUCKET: &str = "vaults";

/// A running S3 server with a bucket.
#[derive(Clone, Debug)]
pub struct S3Server {
    /// `http://127.0.0.1:<port>`
    pub endpoint: String,
    /// A key with all rights.
    pub access_key: String,
    /// Its secret.
    pub secret_key: String,
    /// A bucket that is there.
    pub bucket: String,
}

impl S3Server {
    fn at(port: u16) -> Self {
        S3Server {
            endpoint: format!("http://127.0.0.1:{port}"),
            access_key: ACCESS_KEY.to_owned(),
            secret_key: SECRET_KEY.to_owned(),
            bucket: BUCKET.to_owned(),
        }
    }

    /// A place of its own for one test.
    pub fn place(&self) -> S3Place {
        S3Place {
            bucket: self.bucket.clone(),
            prefix: format!("test-{}", layout::nonce()),
            region: Some("us-east-1".to_owned()),
            endpoint: Some(self.endpoint.clone()),
            path_style: true,
            ..S3Place::default()
        }
    }

    /// The same as a `--vault` argument, for the binary; see [`env`](Self::env).
    pub fn url(&self) -> String {
        let place = self.place();
        let (bucket, prefix, endpoint) = (place.bucket, place.prefix, &self.endpoint);
        format!("s3://{bucket}/{prefix}?endpoint={endpoint}&region=us-east-1&path_style=true")
    }

    /// The environment in which the binary finds the keys.
    pub fn env(&self) -> [(&'static str, String); 2] {
        [("AWS_ACCESS_KEY_ID", self.access_key.clone()), ("AWS_SECRET_ACCESS_KEY", self.secret_key.clone())]
    }

    /// An opened place of its own for one test.
    pub fn store(&self) -> SharedStore {
        self.store_at(&self.place(), SystemClock::shared())
    }

    /// An opened place, by a chosen clock. The keys are handed over: tests share one process and its environment.
    pub fn store_at(&self, place: &S3Place, clock: SharedClock) -> SharedStore {
        Arc::new(S3Store::with_config(place, &config(&self.access_key, &self.secret_key), clock))
    }
}

/// What the crate's own configuration would be with these keys in the environment.
pub fn config(access_key: &str, secret_key: &str) -> SdkConfig {
    use aws_config::retry::RetryConfig;
    use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
    let keys = Credentials::new(access_key, secret_key, None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .credentials_provider(SharedCredentialsProvider::new(keys))
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        .build()
}

/// versitygw: a real server, and the only one of the three that decides every race.
pub async fn versitygw() -> S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    let start = || {
        let program = match std::env::var_os("TIDEKEEPER_VERSITYGW") {
            Some(program) => program.into(),
            None => cache().join("bin/versitygw-v1.8.0/versitygw"),
        };
        must_exist(&program);
        serve(|folder, port| {
            std::fs::create_dir(folder.join(BUCKET)).expect("the bucket is a folder");
            let mut command = vec!["env".to_owned()];
            command.push(format!("ROOT_ACCESS_KEY={ACCESS_KEY}"));
            command.push(format!("ROOT_SECRET_KEY={SECRET_KEY}"));
            command.push(program.display().to_string());
            command.extend(["--quiet", "--port"].map(str::to_owned));
            command.push(format!("127.0.0.1:{port}"));
            command.push("posix".to_owned());
            command.push(folder.display().to_string());
            command
        })
    };
    SERVER.get_or_init(start).clone()
}

/// moto's server: another reading of S3's manual. It lets several racing completes win.
pub async fn moto() -> S3Server {
    static SERVER: OnceLock<S3Server> = OnceLock::new();
    let start = || {
        let program = cache().join("venv/bin/moto_server");
        must_exist(&program);
        serve(|_, port| {
            vec![
                program.display().to_string(),
                "-H".into(),
                "127.0.0.1".into(),
                "-p".into(),
                port.to_string(),
            ]
        })
    };
    let server = SERVER.get_or_init(start).clone();
    make_bucket(&server).await;
    server
}

async fn make_bucket(server: &S3Server) {
    let config = aws_sdk_s3::config::Builder::from(&config(&server.access_key, &server.secret_key))
        .endpoint_url(&server.endpoint)
        .force_path_style(true)
        .build();
    let made = aws_sdk_s3::Client::from_conf(config).create_bucket().bucket(&server.bucket).send().await;
    made.expect("moto makes buckets, also twice");
}

/// Where dev/setup puts what it installs.
fn cache() -> PathBuf {
    PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/tidekeeper")
}

fn must_exist(program: &std::path::Path) {
    assert!(program.exists(), "{} is missing: run dev/setup", program.display());
}

/// Starts a server in a folder of its own; again with another port if somebody took the first.
fn serve(command: impl Fn(&std::path::Path, u16) -> Vec<String>) -> S3Server {
    for _ in 0..3 {
        let port = free_port();
        let folder = scratch();
        let end = guard(&folder, &command(&folder, port));
        if answers(port, Duration::from_secs(30)) {
            keep(end);
            return S3Server::at(port);
        }
    }
    panic!("the S3 server did not start three times in a row");
}

#[allow(clippy::disallowed_methods)]
fn answers(port: u16, within: Duration) -> bool {
    let began = Instant::now();
    while began.elapsed() < within {
        if TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    false
}

fn scratch() -> PathBuf {
    tempfile::Builder::new().prefix("tidekeeper-s3-").tempdir().expect("a temporary folder").keep()
}

/// Runs `command` until this process ends, then removes `folder`: the shell waits for the end of a pipe that only we hold,
/// so it also sees an end by a signal. (A signal on the parent's death would come when the test's thread ends.)
#[allow(clippy::zombie_processes)] // It outlives us on purpose.
fn guard(folder: &std::path::Path, command: &[String]) -> ChildStdin {
    let script = r#"folder=$1; shift; "$@" & cat >/dev/null; kill $!; wait; rm -rf "$folder""#;
    let mut child = Command::new("sh")
        .args(["-c", script, "guard"])
        .arg(folder)
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a shell");
    child.stdin.take().expect("its input is a pipe")
}

fn keep(end: ChildStdin) {
    static KEPT: Mutex<Vec<ChildStdin>> = Mutex::new(Vec::new());
    KEPT.lock().expect("no holder panics").push(end);
}
