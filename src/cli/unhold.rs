//! `tidekeeper unhold BACKUP`: ends the holds of operators.

use super::context::Context;
use super::hold::mark;
use super::outcome::Outcome;
use crate::app::Named;
use crate::engine::work::Action;
use crate::error::Result;
use crate::vault::place::Intent;

/// End the holds that operators put on a backup
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// SOURCE/ID, or SOURCE/latest
    pub backup: String,
}

/// Ends the holds of operators; those of runs end with their runs.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let app = context.app_of_vault(Intent::Write).await?;
    let backup = app.catalog.resolve(&args.backup).await?;
    mark(context, &app, Named::order(Action::Unhold, backup)).await
}
