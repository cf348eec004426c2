//! The real binary, in a folder of its own with a `tidekeeper.yaml`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tidekeeper::config::S3Place;
use tokio::process::Command;

use super::s3::S3Server;

/// No command of a test takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder in which the binary is run.
#[derive(Debug)]
pub struct Cli {
    /// Its working folder.
    pub folder: TempDir,
    /// Variables that it is given.
    pub env: Vec<(&'static str, String)>,
    /// What runs it: a command and its arguments before the binary's own; mostly none.
    pub under: Vec<&'static str>,
}

/// What came of a command.
#[derive(Debug)]
pub struct Ran {
    /// The exit code.
    pub code: i32,
    /// All of stdout.
    pub stdout: String,
    /// All of stderr.
    pub stderr: String,
}

impl Ran {
    /// The one document on stdout.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|cause| panic!("{cause} in {self:?}"))
    }

    /// Passes the result on if the exit code is `code`.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.stdout, self.stderr);
        self
    }
}

impl Cli {
    /// With files, by their names.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let cli = Cli { folder, env: Vec::new(), under: Vec::new() };
        files.iter().for_each(|(name, text)| cli.write(name, text));
        cli
    }

    /// With a source `redis-main` at `url`, a directory as vault, and a schedule that is due once a year.
    pub fn of_redis(url: &str) -> Self {
        Cli::of_redis_into(url, "{ fs: { path: vault } }")
    }

    /// The same with a vault in a bucket of `server`.
    pub fn of_redis_in(url: &str, server: &S3Server, place: &S3Place) -> Self {
        Cli::of_redis_into(url, &in_bucket(server, place)).reaching(server)
    }

    /// With a source `mongo-main` and a target `mongo-scratch` at these addresses, a directory as vault, and a schedule that is
    /// due once a year. `more` is what else the source is told.
    pub fn of_mongodb(source: &str, more: &str, scratch: &str) -> Self {
        Cli::of_mongodb_into(source, more, scratch, "{ fs: { path: vault } }")
    }

    /// The same with a vault in a bucket of `server`.
    pub fn of_mongodb_in(source: &str, more: &str, server: &S3Server, place: &S3Place) -> Self {
        Cli::of_mongodb_into(source, more, source, &in_bucket(server, place)).reaching(server)
    }

    /// With what a bucket of `server` asks for.
    fn reaching(mut self, server: &S3Server) -> Self {
        self.env.extend(server.env());
        self
    }

    fn of_mongodb_into(source: &str, more: &str, scratch: &str, vault: &str) -> Self {
        let main = format!(
            "vault: {vault}\n\
             limits: {{ spool_dir: spool }}\n\
             sources:\n  - name: mongo-main\n    mongodb: {{ uri: \"{source}\"{more} }}\n\
             targets:\n  - name: mongo-scratch\n    mongodb: {{ uri: \"{scratch}\" }}\n\
             schedules: schedules/\n"
        );
        let schedule = "source: mongo-main\n\
                        backup: [{ name: yearly, cron: \"0 0 1 1 *\" }]\n\
                        retention: { keep_within: 0s, keep_last: 9 }\n";
        Cli::new(&[("tidekeeper.yaml", &main), ("schedules/mongodb.yaml", schedule)])
    }

    /// The same with a vault as the configuration says it.
    pub fn of_redis_into(url: &str, vault: &str) -> Self {
        let main = format!(
            "vault: {vault}\n\
             limits: {{ spool_dir: spool }}\n\
             sources:\n  - name: redis-main\n    redis: {{ url: \"{url}\" }}\n\
             schedules: schedules/\n"
        );
        let schedule = "source: redis-main\n\
                        backup: [{ name: yearly, cron: \"0 0 1 1 *\" }]\n\
                        retention: { keep_within: 0s, keep_last: 1 }\n";
        Cli::new(&[("tidekeeper.yaml", &main), ("schedules/redis.yaml", schedule)])
    }

    /// Writes a file into the folder.
    pub fn write(&self, name: &str, text: &str) {
        let file = self.path(name);
        std::fs::create_dir_all(file.parent().expect("inside the folder")).expect("writable");
        std::fs::write(file, text).expect("writable");
    }

    /// Adds to the configuration.
    pub fn configure(&self, text: &str) {
        let main = std::fs::read_to_string(self.path("tidekeeper.yaml")).expect("it is there");
        self.write("tidekeeper.yaml", &(main + text));
    }

    /// Changes the configuration.
    pub fn edit(&self, from: &str, to: &str) {
        let main = std::fs::read_to_string(self.path("tidekeeper.yaml")).expect("it is there");
        assert!(main.contains(from), "{from:?} is not in {main}");
        self.write("tidekeeper.yaml", &main.replace(from, to));
    }

    /// A path inside the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with these arguments, not yet started, without what it reads of the caller's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let words = self.under.iter().copied().chain([env!("CARGO_BIN_EXE_tidekeeper")]);
        let words: Vec<&str> = words.chain(args.iter().copied()).collect();
        let mut command = Command::new(words[0]);
        command.args(&words[1..]).current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        for name in ["CONFIG", "VAULT", "IDENTITY", "LOG"] {
            command.env_remove(format!("TIDEKEEPER_{name}"));
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), args).await
    }
}

/// How a configuration names this place.
fn in_bucket(server: &S3Server, place: &S3Place) -> String {
    format!(
        "{{ s3: {{ bucket: {}, prefix: {}, region: us-east-1, endpoint: \"{}\", path_style: true }} }}",
        place.bucket, place.prefix, server.endpoint
    )
}

/// Runs a prepared command to its end.
#[allow(clippy::disallowed_methods)]
pub async fn finish(mut command: Command, args: &[&str]) -> Ran {
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{args:?} hangs")).expect("the binary is built");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}
