//! `tidekeeper config schema`: what may stand in the files, for editors and for whoever wonders.

use clap::{Subcommand, ValueEnum};

use super::context::Context;
use super::outcome::Outcome;
use crate::app::KINDS;
use crate::config::schema;
use crate::error::Result;

/// Tell what the configuration may say
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Print the JSON Schema of tidekeeper.yaml or of schedules/*.yaml
    Schema {
        /// Of which file
        #[arg(value_enum, default_value_t = File::Tidekeeper)]
        file: File,
    },
}

/// The files that are configured with.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum File {
    Tidekeeper,
    Schedule,
}

/// Prints a schema.
pub async fn run(args: Args, _: &Context) -> Result<Outcome> {
    let Command::Schema { file } = args.command;
    let document = match file {
        File::Tidekeeper => schema::main_file(KINDS.iter().map(|kind| (kind.name(), kind.schema()))),
        File::Schedule => schema::schedule_file(),
    };
    let text = format!("{document:#}\n");
    Ok(Outcome::done(document, text))
}
