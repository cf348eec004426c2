//! `tidekeeper status`: how every source fares, and what to do.

use serde_json::{Value, json};

use super::context::Context;
use super::look::{Cell, Look, Table, Tone};
use super::outcome::Outcome;
use super::{document, human};
use crate::engine::views::source::StatusView;
use crate::error::Result;
use crate::vault::place::Intent;

/// Tell per source: the last backup, how much would be lost now, when it was proven, what is wrong
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// Prints the status; exits 0 also when something is wrong, as what was asked for was done.
pub async fn run(_: Args, context: &Context) -> Result<Outcome> {
    let document = match context.remote()? {
        Some(remote) => remote.get("v1/status", &[]).await?,
        None => {
            let app = context.app(Intent::Read).await?;
            let StatusView { leader, sources, problems } = app.status(&app.engine()).await?;
            let vault = app.config.vault.to_string();
            json!({ "vault": vault, "leader": leader, "sources": sources, "problems": problems })
        }
    };
    let text = text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

fn text(document: &Value, look: &Look) -> String {
    let sources = document::items(document, "/sources");
    let mut shown = match sources.is_empty() {
        true => "no source is configured; `tidekeeper backups` lists what is in the vault\n".to_owned(),
        false => table(sources, look).show(look),
    };
    let with_names = sources.iter().map(|source| (document::text(source, "/source"), source));
    for (name, one) in [("vault", document)].into_iter().chain(with_names) {
        for problem in document::items(one, "/problems") {
            let name = look.paint(Tone::Bad, name);
            let (what, advice) = (document::text(problem, "/what"), document::text(problem, "/advice"));
            shown.push_str(&format!("\n{name}: {what}\n  {advice}\n"));
        }
    }
    shown
}

/// How long the span is to any second of which can be restored.
fn window(source: &Value) -> String {
    match (document::time(source, "/window/from"), document::time(source, "/window/to")) {
        (Some(from), Some(to)) => human::duration(to.duration_since(from).unsigned_abs()),
        _ => document::NOTHING.to_owned(),
    }
}

fn table(sources: &[Value], look: &Look) -> Table {
    let mut table =
        Table::new(["SOURCE", "LAST BACKUP", "STATUS", "WINDOW", "RPO", "PROVEN", "NEXT DUE", "RUNNING"]);
    for source in sources {
        let status = document::text(source, "/last_backup/status");
        let rpo = document::number(source, "/rpo_s").map(std::time::Duration::from_secs);
        table.row([
            Cell::text(document::text(source, "/source")).tone(Tone::Strong),
            Cell::number(document::age(source, "/last_backup/at", look)),
            Cell::text(document::text_or_dash(source, "/last_backup/status")).tone(document::tone(status)),
            Cell::number(window(source)),
            Cell::number(rpo.map_or_else(|| document::NOTHING.to_owned(), human::duration)),
            Cell::number(document::age(source, "/proven/at", look)),
            Cell::number(document::age(source, "/next_due", look)),
            Cell::number(document::items(source, "/running").len().to_string()),
        ]);
    }
    table
}
