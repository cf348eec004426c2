//! `tidekeeper show BACKUP`: all that is known of one backup.

use serde_json::Value;

use super::context::Context;
use super::look::{Cell, Facts, Look, Table, Tone};
use super::outcome::Outcome;
use super::{document, human};
use crate::error::Result;
use crate::vault::place::Intent;

/// Show all that is known of a backup, and whether its objects are there
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// SOURCE/ID, or SOURCE/latest
    pub backup: String,
}

/// Shows the catalog's line and the manifest.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let document = match context.remote()? {
        Some(remote) => remote.get(&format!("v1/backups/{}", args.backup), &[]).await?,
        None => {
            let app = context.app_of_vault(Intent::Read).await?;
            let backup = app.catalog.resolve(&args.backup).await?;
            app.show(&backup).await?
        }
    };
    let text = text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

fn text(document: &Value, look: &Look) -> String {
    let mut shown = facts(document, look).show(look);
    shown.push('\n');
    shown.push_str(&artifacts(document, look));
    let namespaces = document.pointer("/manifest/contents/namespaces").and_then(Value::as_object);
    if let Some(namespaces) = namespaces.filter(|namespaces| !namespaces.is_empty()) {
        let mut table = Table::new(["NAMESPACE", "ITEMS"]);
        for (name, counts) in namespaces {
            table.row([Cell::text(name), Cell::number(document::count(counts, "/items"))]);
        }
        shown.push_str(&format!("\n{}", table.show(look)));
    }
    for missing in document::items(document, "/missing").iter().filter_map(Value::as_str) {
        shown.push_str(&format!("{} {missing}\n", look.paint(Tone::Bad, "missing:")));
    }
    for omission in document::items(document, "/manifest/omissions") {
        let (what, why) = (document::text(omission, "/what"), document::text(omission, "/why"));
        shown.push_str(&format!("left out: {what}: {why}\n"));
    }
    shown
}

fn facts(document: &Value, look: &Look) -> Facts {
    let at = |pointer| document::text(document, pointer);
    let moment = |pointer| match document::time(document, pointer) {
        Some(time) => format!("{} ({})", human::time(time), human::age(time, look.now)),
        None => String::new(),
    };
    let status = at("/backup/status");
    let mut facts = Facts::default();
    facts.add("backup", document::backup(document, "/backup/backup"));
    facts.add("status", look.paint(document::tone(status), status));
    facts.add("reason", at("/backup/reason"));
    facts.add("kind", at("/manifest/kind"));
    facts.add("of", moment("/backup/at"));
    facts.add("consistency", at("/manifest/consistency/level"));
    facts.add("finished", moment("/manifest/finished_at"));
    facts.add("server", join(&[at("/manifest/origin/endpoint"), at("/manifest/origin/version")]));
    facts.add("items", document::count(document, "/manifest/contents/items"));
    facts.add("size", document::bytes(document, "/backup/plain_bytes"));
    facts.add("stored", document::bytes(document, "/backup/stored_bytes"));
    facts.add("proven", join(&[at("/backup/proven/outcome"), &moment("/backup/proven/at")]));
    facts.add("held", at("/backup/held"));
    facts.add("deletion proposed", moment("/backup/deletion_proposed"));
    let recipients = document::items(document, "/manifest/encryption/recipients");
    facts.add("encrypted to", recipients.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "));
    facts.add("run", at("/manifest/run"));
    facts.add("written by", at("/manifest/tool"));
    facts
}

fn join(parts: &[&str]) -> String {
    let parts: Vec<&str> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    parts.join(", ")
}

fn artifacts(document: &Value, look: &Look) -> String {
    let mut table = Table::new(["ARTIFACT", "SIZE", "STORED", "CODECS", "KEY"]);
    for artifact in document::items(document, "/manifest/artifacts") {
        let codecs = document::items(artifact, "/codecs").iter().filter_map(Value::as_str);
        table.row([
            Cell::text(document::text(artifact, "/name")),
            Cell::number(document::bytes(artifact, "/plain/bytes")),
            Cell::number(document::bytes(artifact, "/stored/bytes")),
            Cell::text(codecs.collect::<Vec<_>>().join(", ")),
            Cell::text(document::text(artifact, "/key")),
        ]);
    }
    table.show(look)
}
