//! `tidekeeper extract BACKUP --output PATH`: the native files, for the stock tools.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::look::Look;
use super::outcome::Outcome;
use super::{document, progress};
use crate::app::Destination;
use crate::config::units::Period;
use crate::error::Result;
use crate::vault::place::Intent;

/// Write a backup's native files, for the stock tools
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// SOURCE/ID, or SOURCE/latest
    pub backup: String,

    /// The directory, made if it is not there, refused if it holds anything; for a format that is one stream a new
    /// file, or - for standard output
    #[arg(long, short, value_name = "PATH")]
    pub output: PathBuf,

    /// Which of the formats that the kind of source has
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<String>,

    /// How long it may take
    #[arg(long, value_name = "TIME", default_value = "12h")]
    pub deadline: Period,
}

impl Args {
    /// Whether what is on standard output is the backup, and nothing else.
    pub fn is_to_stdout(&self) -> bool {
        self.output.as_os_str() == "-"
    }
}

/// Extracts; needs nothing but the vault, and the private key where the backup is encrypted.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let app = context.app_of_vault(Intent::Read).await?;
    let backup = app.catalog.resolve(&args.backup).await?;
    let task =
        app.task(&format!("extract of {backup}"), Duration::max(args.deadline.0, Duration::from_secs(1)));
    let to = match args.is_to_stdout() {
        true => Destination::Stdout,
        false => Destination::Path(&args.output),
    };
    let work = app.extract(&backup, args.format.as_deref(), to, &task);
    let files = progress::shown(&context.clock, &task.progress, task.guard(work)).await?;
    let document = json!({ "backup": backup.to_string(), "output": args.output, "files": files });
    let text = text(&document, &context.look);
    if to == Destination::Stdout {
        let told = if context.globals.json { format!("{document:#}\n") } else { text };
        eprint!("{told}");
        return Ok(Outcome::verbatim(String::new()));
    }
    Ok(Outcome::done(document, text))
}

fn text(document: &Value, look: &Look) -> String {
    let mut shown = String::new();
    for file in document::items(document, "/files") {
        let parts = [document::text(document, "/output"), document::text(file, "/path")];
        let path = parts.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let path = look.paint(super::look::Tone::Strong, &path);
        shown.push_str(&format!("{path}  {}\n", document::bytes(file, "/bytes")));
        if !document::text(file, "/usage").is_empty() {
            shown.push_str(&format!("  {}\n", document::text(file, "/usage")));
        }
    }
    shown
}
