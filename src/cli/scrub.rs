//! `tidekeeper scrub [--repair]`: damage, leftovers, and what nobody understands.

use serde_json::{Value, json};

use super::context::Context;
use super::look::{Cell, Look, Table, Tone};
use super::outcome::{DAMAGE, Outcome};
use super::perform::{self, RunArgs};
use super::{document, human, progress};
use crate::app::ScrubParams;
use crate::error::Result;
use crate::vault::place::Intent;

/// Search the vault for damage and leftovers; with --repair, clean up what is safe to
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Repair what can be repaired; a daemon that leads does it for us
    #[arg(long)]
    pub repair: bool,

    /// Read every byte of every backup
    #[arg(long)]
    pub deep: bool,

    /// How the run is made.
    #[command(flatten)]
    pub run: RunArgs,
}

/// How long a scrub may take: reading everything can take a night.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(24 * 3_600);

/// The findings that are damage: the others are leftovers.
const DAMAGES: [&str; 7] = [
    "unreadable_manifest",
    "missing",
    "damaged",
    "found_damaged",
    "unreadable_timeline",
    "broken_timeline",
    "damaged_segment",
];

/// Looks through the vault; damage is exit code 5.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let params = ScrubParams { deep: args.deep };
    let document = if args.repair {
        let app = context.app(Intent::Delete).await?;
        perform::perform(context, &app, params.order(), &args.run).await?.detail
    } else {
        let app = context.app_of_vault(Intent::Read).await?;
        let task = app.task("scrub", args.run.deadline.map_or(PATIENCE, |period| period.0));
        let lines = progress::shown(&context.clock, &task.progress, app.scrub(args.deep, &task)).await?;
        json!({ "findings": lines, "repairs": [] })
    };
    let is_damage = |line: &Value| DAMAGES.contains(&document::text(line, "/finding"));
    let damaged = document::items(&document, "/findings").iter().any(is_damage);
    let failed = document::items(&document, "/repairs").iter().any(|repair| failure(repair).is_some());
    let text = text(&document, &args, &context.look);
    let code = if damaged { DAMAGE } else { u8::from(failed) };
    Ok(Outcome::done(document, text).exit(code))
}

fn text(document: &Value, args: &Args, look: &Look) -> String {
    let findings = document::items(document, "/findings");
    if findings.is_empty() {
        let how_far = if args.deep { "" } else { ", by names and sizes; `--deep` reads the bytes" };
        return format!("nothing is damaged, and nothing is left over{how_far}\n");
    }
    let mut table = Table::new(["FINDING", "WHERE", "WHAT", "THEN"]);
    for line in findings {
        let finding = document::text(line, "/finding");
        let tone = if DAMAGES.contains(&finding) { Tone::Bad } else { Tone::Warning };
        table.row([
            Cell::text(finding.replace('_', " ")).tone(tone),
            Cell::text(place(line)),
            Cell::text(what(line)),
            Cell::text(then(line)).tone(Tone::Dim),
        ]);
    }
    let mut shown = table.show(look);
    if args.repair {
        let repairs = document::items(document, "/repairs");
        let failures: Vec<&str> = repairs.iter().filter_map(failure).collect();
        shown.push_str(&format!("{} repairs, {} failed\n", repairs.len(), failures.len()));
        failures.iter().for_each(|why| shown.push_str(&format!("  failed: {why}\n")));
    } else if findings.iter().any(|line| !document::text(line, "/repair").is_empty()) {
        shown.push_str("this is a dry run; --repair does what is in the last column\n");
    }
    shown
}

fn place(line: &Value) -> String {
    match line.get("backup") {
        Some(_) => document::backup(line, "/backup"),
        None => document::text(line, "/key").to_owned(),
    }
}

fn what(line: &Value) -> String {
    let objects = document::number(line, "/objects")
        .map(|objects| format!("{} objects, {}", human::count(objects), document::bytes(line, "/bytes")));
    let words = ["/artifact", "/what", "/why"].map(|pointer| document::text(line, pointer));
    let words = words.into_iter().filter(|word| !word.is_empty()).map(str::to_owned);
    objects.into_iter().chain(words).collect::<Vec<_>>().join(": ")
}

fn then(line: &Value) -> String {
    match (document::text(line, "/repair"), document::text(line, "/advice")) {
        ("", advice) => advice.to_owned(),
        (repair, _) => repair.to_owned(),
    }
}

/// Why a repair failed, if it did.
fn failure(repair: &Value) -> Option<&str> {
    repair.pointer("/repaired/failed").and_then(Value::as_str)
}
