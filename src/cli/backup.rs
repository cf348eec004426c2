//! `tidekeeper backup SOURCE`: makes a backup now.

use serde_json::{Value, json};

use super::context::Context;
use super::look::Look;
use super::outcome::Outcome;
use super::perform::{self, RunArgs};
use super::{document, human};
use crate::config::SourceName;
use crate::engine::work::{Action, Order};
use crate::error::Result;
use crate::vault::place::Intent;

/// Make a backup now
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Which source, by its name in the configuration
    pub source: SourceName,

    /// How the run is made.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Makes a backup and prints its manifest; exits 4 if it is partial or suspect.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let done = match context.remote()? {
        Some(remote) => remote.perform("v1/backups", &json!({ "source": args.source }), &args.run).await?,
        None => {
            let app = context.app(Intent::Write).await?;
            app.source(&args.source)?;
            let order = Order::new(Action::Backup, Some(args.source));
            perform::perform(context, &app, order, &args.run).await?
        }
    };
    let (code, text) = (done.exit_code(), text(&done.detail, &context.look));
    Ok(Outcome::done(done.detail, text).exit(code))
}

fn text(manifest: &Value, look: &Look) -> String {
    let at = |pointer| document::text(manifest, pointer);
    let sum = |pointer| -> u64 {
        document::items(manifest, "/artifacts").iter().filter_map(|one| document::number(one, pointer)).sum()
    };
    let status = look.paint(document::tone(at("/status")), at("/status"));
    let mut shown = format!("{}/{}  {status}", at("/source"), at("/id"));
    if !at("/reason").is_empty() {
        shown.push_str(&format!(": {}", at("/reason")));
    }
    let took = match (document::time(manifest, "/started_at"), document::time(manifest, "/finished_at")) {
        (Some(began), Some(ended)) => human::duration(ended.duration_since(began).unsigned_abs()),
        _ => document::NOTHING.to_owned(),
    };
    let items = document::count(manifest, "/contents/items");
    let (plain, stored) = (human::bytes(sum("/plain/bytes")), human::bytes(sum("/stored/bytes")));
    shown.push_str(&format!("\n{items} items, {plain}, {stored} stored, in {took}\n"));
    for omission in document::items(manifest, "/omissions") {
        let (what, why) = (document::text(omission, "/what"), document::text(omission, "/why"));
        shown.push_str(&format!("left out: {what}: {why}\n"));
    }
    shown
}
