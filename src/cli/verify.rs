//! `tidekeeper verify BACKUP`: reads and checks every byte.

use serde_json::Value;

use super::context::Context;
use super::outcome::Outcome;
use super::perform::{self, RunArgs};
use super::{document, human};
use crate::app::Named;
use crate::engine::work::Action;
use crate::error::Result;
use crate::vault::place::Intent;

/// Read and check every byte of a backup
///
/// Bytes are compared with the sums in its manifest. That its counts agree with its data, the plan of a restore
/// tells: `restore --dry-run`.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// SOURCE/ID, or SOURCE/latest
    pub backup: String,

    /// How the run is made.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Verifies and leaves a proof; damage is exit code 5.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let app = context.app_of_vault(Intent::Write).await?;
    let backup = app.catalog.resolve(&args.backup).await?;
    let done = perform::perform(context, &app, Named::order(Action::Verify, backup), &args.run).await?;
    let text = text(&done.detail);
    Ok(Outcome::done(done.detail, text))
}

fn text(verification: &Value) -> String {
    let took = verification.pointer("/took_s").and_then(Value::as_f64).unwrap_or_default();
    let sealed = match verification.pointer("/inside").and_then(Value::as_bool) {
        Some(false) => "; without a private key nobody looked inside of what is encrypted",
        _ => "",
    };
    format!(
        "{} is whole: {} read and compared byte for byte in {}{sealed}\n",
        document::backup(verification, "/backup"),
        document::bytes(verification, "/bytes"),
        human::duration(std::time::Duration::from_secs_f64(took.max(0.0))),
    )
}
