//! `tidekeeper retention [--apply]`: what is kept and what goes, and why.

use serde_json::{Value, json};

use super::context::Context;
use super::look::{Cell, Look, Table, Tone};
use super::outcome::Outcome;
use super::perform::{self, RunArgs};
use super::{document, human};
use crate::config::SourceName;
use crate::engine::work::{Action, Order};
use crate::error::Result;
use crate::vault::place::Intent;

/// Show what retention would keep and remove, and why; with --apply, do it
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Of this source only
    pub source: Option<SourceName>,

    /// Propose and delete, as the plan says; a daemon that leads does it for us
    #[arg(long)]
    pub apply: bool,

    /// How the run is made.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Plans; with `--apply`, executes.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    if args.apply {
        return apply(args, context).await;
    }
    let app = context.app(Intent::Read).await?;
    let plans = app.plan_retention(args.source.as_ref()).await?;
    let sources: Vec<_> =
        plans.into_iter().map(|(source, plan)| json!({ "source": source, "plan": plan })).collect();
    let document = json!({ "applied": false, "sources": sources });
    let text = plans_text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

async fn apply(args: Args, context: &Context) -> Result<Outcome> {
    let app = context.app(Intent::Delete).await?;
    let order = Order::new(Action::Retention, args.source);
    let done = perform::perform(context, &app, order, &args.run).await?;
    let document = json!({ "applied": true, "sources": done.detail });
    let text = format!("{}{}\n", reports_text(&document, &context.look), done.summary);
    Ok(Outcome::done(document, text).exit(done.exit_code()))
}

fn plans_text(document: &Value, look: &Look) -> String {
    let sources = document::items(document, "/sources");
    if sources.is_empty() {
        return "no source has a schedule, so nothing is ever removed\n".to_owned();
    }
    let mut shown = String::new();
    for one in sources {
        let source = document::text(one, "/source");
        shown.push_str(&format!("{}\n", look.paint(Tone::Strong, source)));
        for wait in document::items(one, "/plan/waits").iter().filter_map(Value::as_str) {
            shown.push_str(&format!("{}: {wait}\n", look.paint(Tone::Warning, "nothing is removed now")));
        }
        shown.push_str(&plan_table(one).show(look));
        shown.push_str(&trimmed(one, "/plan/trim", "would go: no backup that is there needs it"));
        shown.push('\n');
    }
    shown + "this is a dry run; --apply does it\n"
}

/// One line on what goes of the timelines, if anything does.
fn trimmed(one: &Value, pointer: &str, words: &str) -> String {
    let number = |field: &str| document::number(one, &format!("{pointer}/{field}")).unwrap_or(0);
    match (number("segments"), number("timelines")) {
        (0, 0) => String::new(),
        (segments, timelines) => format!(
            "{}: {} segments ({}) and {} whole timelines  {words}\n",
            document::text(one, "/source"),
            human::count(segments),
            human::bytes(number("stored_bytes")),
            human::count(timelines),
        ),
    }
}

fn plan_table(one: &Value) -> Table {
    let mut table = Table::new(["BACKUP", "", "WHY"]);
    for line in document::items(one, "/plan/lines") {
        let action = document::text(line, "/action");
        let tone = if action == "remove" { Tone::Warning } else { Tone::Good };
        let reasons = document::items(line, "/reasons").iter().filter_map(Value::as_str);
        table.row([
            Cell::text(format!("{}/{}", document::text(one, "/source"), document::text(line, "/id"))),
            Cell::text(action).tone(tone),
            Cell::text(reasons.collect::<Vec<_>>().join("; ")),
        ]);
    }
    table
}

fn reports_text(document: &Value, look: &Look) -> String {
    let mut shown = String::new();
    for one in document::items(document, "/sources") {
        for (list, words) in [
            ("/report/deleted", "deleted"),
            ("/report/proposed", "goes after its grace"),
            ("/report/pending", "waits for its grace"),
            ("/report/withdrawn", "stays after all"),
        ] {
            for backup in document::items(one, list) {
                shown.push_str(&format!("{}  {words}\n", document::backup(backup, "")));
            }
        }
        shown.push_str(&trimmed(one, "/report/trimmed", "trimmed"));
        let source = document::text(one, "/source");
        if one.get("error").is_some() {
            let (why, hint) = (document::text(one, "/error/message"), document::text(one, "/error/hint"));
            shown.push_str(&format!("{source}: {}: {why}\n  {hint}\n", look.paint(Tone::Bad, "failed")));
        }
        for wait in document::items(one, "/report/waits").iter().filter_map(Value::as_str) {
            shown.push_str(&format!(
                "{source}: {}: {wait}\n",
                look.paint(Tone::Warning, "nothing is removed now")
            ));
        }
    }
    shown
}
