//! The real binary, in a folder of its own with a `tidekeeper.yaml`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

/// No command of a test takes longer, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A folder in which the binary is run.
#[derive(Debug)]
pub struct Cli {
    /// Its working folder.
    pub folder: TempDir,
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
        let cli = Cli { folder: tempfile::tempdir().expect("a temporary folder") };
        files.iter().for_each(|(name, text)| cli.write(name, text));
        cli
    }

    /// With a source `redis-main` at `url`, a directory as vault, and a schedule that is due once a year.
    pub fn of_redis(url: &str) -> Self {
        let main = format!(
            "vault: {{ fs: {{ path: vault }} }}\n\
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

    /// A path inside the folder.
    pub fn path(&self, name: impl AsRef<Path>) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The binary with these arguments, not yet started, without what it reads of the caller's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidekeeper"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null()).kill_on_drop(true);
        for name in ["CONFIG", "VAULT", "IDENTITY", "LOG"] {
            command.env_remove(format!("TIDEKEEPER_{name}"));
        }
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, args: &[&str]) -> Ran {
        finish(self.command(args), args).await
    }
}

/// Runs a prepared command to its end.
#[allow(clippy::disallowed_methods)]
pub async fn finish(mut command: Command, args: &[&str]) -> Ran {
    let ended = tokio::time::timeout(LIMIT, command.output()).await;
    let output = ended.unwrap_or_else(|_| panic!("{args:?} hangs")).expect("the binary is built");
    let text = |bytes| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: output.status.code().unwrap_or(-1), stdout: text(output.stdout), stderr: text(output.stderr) }
}
