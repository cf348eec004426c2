//! `tidekeeper completions SHELL`: a script for the shell.

use clap::CommandFactory;
use clap_complete::Shell;

use super::Cli;
use super::context::Context;
use super::outcome::Outcome;
use crate::error::Result;

/// Print a script that completes commands and options in a shell
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// For which shell
    pub shell: Shell,
}

/// Prints the script.
pub async fn run(args: Args, _: &Context) -> Result<Outcome> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidekeeper", &mut script);
    Ok(Outcome::verbatim(String::from_utf8_lossy(&script).into_owned()))
}
