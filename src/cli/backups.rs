//! `tidekeeper backups [SOURCE]`: which backups there are.

use serde::Serialize;
use serde_json::Value;

use super::context::Context;
use super::document;
use super::look::{Cell, Look, Table, Tone};
use super::outcome::Outcome;
use super::remote::Remote;
use crate::app::BackupView;
use crate::config::SourceName;
use crate::error::Result;
use crate::vault::place::Intent;

/// List the backups, newest first
///
/// As their manifests tell: that their data is there, `status` and `show` look for some of them, `scrub` for all.
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Of this source only
    pub source: Option<SourceName>,

    /// Also those that were given up and hold nothing
    #[arg(long)]
    pub all: bool,
}

/// How many backups are asked for at a time: as many as a daemon gives.
const PAGE: usize = 1_000;

/// Lists the catalog.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let backups = match context.remote()? {
        Some(remote) => ask(&args, &remote).await?,
        None => {
            let views = list(&args, context).await?;
            if context.globals.json {
                // Of ten thousand, a tree of values takes as long to make as they take to read.
                return document::written(&Backups { backups: views }).map(Outcome::verbatim);
            }
            views.iter().map(document::of).collect::<Result<_>>()?
        }
    };
    let text = if context.globals.json { String::new() } else { text(&backups, &context.look) };
    Ok(Outcome::done(document::list("backups", backups), text))
}

/// The document.
#[derive(Serialize)]
struct Backups {
    backups: Vec<BackupView>,
}

async fn list(args: &Args, context: &Context) -> Result<Vec<BackupView>> {
    let app = context.app_of_vault(Intent::Read).await?;
    let listing = app.catalog.list(args.source.as_ref()).await?;
    let now = context.clock.now();
    let views = listing.rows.iter().map(|row| BackupView::of(row, now));
    Ok(views.filter(|view| args.all || view.status != "abandoned").collect())
}

/// A daemon answers page by page.
async fn ask(args: &Args, remote: &Remote<'_>) -> Result<Vec<Value>> {
    let mut backups = Vec::new();
    let mut after = None;
    loop {
        let source = args.source.as_ref().map(ToString::to_string);
        let query = [("source", source), ("limit", Some(PAGE.to_string())), ("after", after)];
        let page = remote.get("v1/backups", &query).await?;
        backups.extend_from_slice(document::items(&page, "/backups"));
        match document::text(&page, "/next") {
            "" => break,
            next => after = Some(next.to_owned()),
        }
    }
    backups.retain(|backup| args.all || document::text(backup, "/status") != "abandoned");
    Ok(backups)
}

fn text(backups: &[Value], look: &Look) -> String {
    if backups.is_empty() {
        return "there are no backups\n".to_owned();
    }
    let mut table = Table::new(["BACKUP", "STATUS", "MADE", "ITEMS", "SIZE", "STORED", "PROVEN", "NOTE"]);
    for backup in backups {
        let status = document::text(backup, "/status");
        table.row([
            Cell::text(document::backup(backup, "/backup")),
            Cell::text(status).tone(document::tone(status)),
            Cell::number(document::age(backup, "/at", look)),
            Cell::number(document::count(backup, "/items")),
            Cell::number(document::bytes(backup, "/plain_bytes")),
            Cell::number(document::bytes(backup, "/stored_bytes")),
            Cell::text(document::text_or_dash(backup, "/proven/outcome")),
            Cell::text(note(backup)).tone(Tone::Dim),
        ]);
    }
    table.show(look)
}

/// What else there is to know, in a word each.
fn note(backup: &Value) -> String {
    let mut notes = Vec::new();
    if document::is(backup, "/accepted") {
        notes.push("accepted".to_owned());
    }
    if !document::text(backup, "/held").is_empty() {
        notes.push(format!("held by {}", document::text(backup, "/held")));
    }
    if document::time(backup, "/deletion_proposed").is_some() {
        notes.push("deletion proposed".to_owned());
    }
    if !document::text(backup, "/reason").is_empty() {
        notes.push(document::text(backup, "/reason").to_owned());
    }
    notes.join("; ")
}
