//! `tidekeeper backups [SOURCE]`: which backups there are.

use serde_json::{Value, json};

use super::context::Context;
use super::document;
use super::look::{Cell, Look, Table, Tone};
use super::outcome::Outcome;
use crate::app::BackupView;
use crate::config::SourceName;
use crate::error::Result;
use crate::vault::place::Intent;

/// List the backups, newest first
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Of this source only
    pub source: Option<SourceName>,

    /// Also those that were given up and hold nothing
    #[arg(long)]
    pub all: bool,
}

/// Lists the catalog.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let app = context.app(Intent::Read).await?;
    let listing = app.catalog.list(args.source.as_ref()).await?;
    let now = context.clock.now();
    let views = listing.rows.iter().map(|row| BackupView::of(row, now));
    let wanted: Vec<_> = views.filter(|view| args.all || view.status != "abandoned").collect();
    let document = json!({ "backups": wanted });
    let text = text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

fn text(document: &Value, look: &Look) -> String {
    let backups = document::items(document, "/backups");
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
