//! `tidekeeper hold BACKUP --reason R`: whatever retention says, it stays.

use jiff::Timestamp;

use super::context::Context;
use super::outcome::Outcome;
use super::perform::{self, RunArgs};
use crate::app::{App, Mark};
use crate::config::units::Period;
use crate::engine::work::Order;
use crate::error::{Error, Kind, Result};
use crate::vault::place::Intent;

/// Pin a backup: whatever retention says, it stays
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// SOURCE/ID, or SOURCE/latest
    pub backup: String,

    /// Why, for those who wonder later
    #[arg(long)]
    pub reason: String,

    /// Until when: a time such as 2026-12-31T00:00:00Z, or a duration from now such as 30d
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
}

/// Holds a backup.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let until = args.until.as_deref().map(|text| moment(text, context.clock.now())).transpose()?;
    let app = context.app_of_vault(Intent::Write).await?;
    let backup = app.catalog.resolve(&args.backup).await?;
    mark(context, &app, Mark::hold(backup, args.reason, until)).await
}

/// Writes or ends a mark and says so.
pub(super) async fn mark(context: &Context, app: &App, order: Order) -> Result<Outcome> {
    let done = perform::perform(context, app, order, &RunArgs::default()).await?;
    let document = serde_json::json!({ "run": done.run, "summary": done.summary });
    Ok(Outcome::done(document, format!("{}\n", done.summary)))
}

/// A time, or a duration from now.
fn moment(text: &str, now: Timestamp) -> Result<Timestamp> {
    if let Ok(time) = text.parse() {
        return Ok(time);
    }
    let wrong = |why: String| {
        Error::new(Kind::Usage, format!("reading the time {text:?}"), why)
            .hint("write 2026-12-31T00:00:00Z, or a duration from now such as 30d")
    };
    let period: Period = text.parse().map_err(|_| wrong("it is neither a time nor a duration".to_owned()))?;
    now.checked_add(period.0).map_err(|cause| wrong(cause.to_string()))
}
