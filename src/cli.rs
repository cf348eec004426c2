//! What people type. A command is one file: its arguments, and how it makes a document of what the rooms
//! below answer. Commands translate; they never decide.

use clap::{Parser, Subcommand};

use self::context::{Context, Globals, variable};
use self::outcome::Outcome;
use self::serve::Daemon;
use crate::error::{Error, Kind, Result};
use crate::telemetry::{LogFormat, start_logs};

pub mod accept;
pub mod backup;
pub mod backups;
pub mod check;
pub mod completions;
pub mod config;
pub mod context;
pub mod document;
pub mod extract;
pub mod hold;
pub mod human;
pub mod init;
pub mod look;
pub mod outcome;
pub mod perform;
pub mod permissions;
pub mod progress;
pub mod remote;
pub mod restore;
pub mod retention;
pub mod runs;
pub mod scrub;
pub mod serve;
pub mod show;
pub mod status;
pub mod timeline;
pub mod unhold;
pub mod verify;

/// Backs up what lives in a Kubernetes cluster on AWS, and proves that it comes back
#[derive(Parser, Debug)]
#[command(name = "tidekeeper", version, propagate_version = true, max_term_width = 110)]
#[command(
    after_help = "Exit codes: 0 done; 1 failed; 2 wrong usage or configuration; 3 refused for safety; \
                        4 done, but partial or suspect; 5 damage found"
)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    Init(init::Args),
    Check(check::Args),
    Permissions(permissions::Args),
    Serve(serve::Args),
    Status(status::Args),
    Backup(backup::Args),
    Backups(backups::Args),
    Timeline(timeline::Args),
    Show(show::Args),
    Verify(verify::Args),
    Extract(extract::Args),
    Restore(restore::Args),
    Hold(hold::Args),
    Unhold(unhold::Args),
    Accept(accept::Args),
    Retention(retention::Args),
    Scrub(scrub::Args),
    Runs(runs::Args),
    Config(config::Args),
    Completions(completions::Args),
}

impl Command {
    /// What is logged unless somebody says. A daemon's log is its diary; a command's result is on stdout.
    fn usual_log(&self) -> &'static str {
        if matches!(self, Command::Serve(_)) { "info" } else { "warn" }
    }

    /// Whether what it puts out is data, in which nothing of ours may stand.
    fn puts_out_data(&self) -> bool {
        matches!(self, Command::Extract(args) if args.is_to_stdout())
    }

    async fn run(self, context: &Context) -> Result<Outcome> {
        match self {
            Command::Init(args) => init::run(args, context).await,
            Command::Check(args) => check::run(args, context).await,
            Command::Permissions(args) => permissions::run(args, context).await,
            Command::Serve(args) => serve::run(args, context).await,
            Command::Status(args) => status::run(args, context).await,
            Command::Backup(args) => backup::run(args, context).await,
            Command::Backups(args) => backups::run(args, context).await,
            Command::Timeline(args) => timeline::run(args, context).await,
            Command::Show(args) => show::run(args, context).await,
            Command::Verify(args) => verify::run(args, context).await,
            Command::Extract(args) => extract::run(args, context).await,
            Command::Restore(args) => restore::run(args, context).await,
            Command::Hold(args) => hold::run(args, context).await,
            Command::Unhold(args) => unhold::run(args, context).await,
            Command::Accept(args) => accept::run(args, context).await,
            Command::Retention(args) => retention::run(args, context).await,
            Command::Scrub(args) => scrub::run(args, context).await,
            Command::Runs(args) => runs::run(args, context).await,
            Command::Config(args) => config::run(args, context).await,
            Command::Completions(args) => completions::run(args, context).await,
        }
    }
}

/// Reads the arguments of this process, runs its command and tells the exit code. `daemon` is what `serve`
/// runs.
pub fn main(daemon: Daemon) -> u8 {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return misused(&error),
    };
    let context = Context::new(cli.globals, daemon);
    let stdout_is_data = cli.command.puts_out_data();
    let ended = start(&context, cli.command.usual_log()).and_then(|runtime| {
        let ended = runtime.block_on(cli.command.run(&context));
        // What a command left behind (a look at a system that did not answer) is not waited for.
        runtime.shutdown_background();
        ended
    });
    outcome::print(&ended, context.globals.json, stdout_is_data, &context.look)
}

/// Prints help where it was asked for; else what is wrong with the arguments, for machines too.
fn misused(error: &clap::Error) -> u8 {
    let is_there = |words: &[&str]| std::env::args_os().any(|given| words.iter().any(|word| given == *word));
    let document = (error.use_stderr() && is_there(&["--json"])).then(|| {
        let text = error.to_string();
        let why = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        let error = Error::new(Kind::Usage, "reading the arguments", why).hint("see `tidekeeper --help`");
        outcome::error_document(&error)
    });
    match document {
        // Whoever reads the data must not read of the mistake as if it were some.
        Some(document) if is_there(&["extract"]) && is_there(&["-", "-o-", "--output=-"]) => {
            eprintln!("{document:#}");
        }
        document => {
            let _ = error.print();
            if let Some(document) = document {
                println!("{document:#}");
            }
        }
    }
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// Threads that may wait for a disk or compute at the same time. Few are busy, many only change places: ten thousand
/// manifests are read a quarter faster than by the usual 512, and each thread costs memory of its own.
const BLOCKING_THREADS: usize = 16;

fn start(context: &Context, usual_log: &str) -> Result<tokio::runtime::Runtime> {
    let log = context.globals.log.clone().or_else(|| variable("TIDEKEEPER_LOG"));
    let log = log.unwrap_or_else(|| usual_log.to_owned());
    start_logs(LogFormat::of_stderr(), &log, std::io::stderr)
        .map_err(|why| Error::new(Kind::Usage, "starting the logs", why))?;
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|cause| Error::io("starting the runtime", cause))
}
