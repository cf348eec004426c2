//! `tidekeeper accept BACKUP`: a suspect backup is good after all.

use super::context::Context;
use super::hold::mark;
use super::outcome::Outcome;
use crate::app::Named;
use crate::engine::work::Action;
use crate::error::Result;
use crate::vault::place::Intent;

/// Declare a suspect backup good: later ones are measured by it
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// SOURCE/ID: an operator who accepts names exactly what was looked at
    pub backup: String,
}

/// Accepts a suspect backup.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let app = context.app_of_vault(Intent::Write).await?;
    let backup = app.catalog.resolve(&args.backup).await?;
    mark(context, &app, Named::order(Action::Accept, backup)).await
}
