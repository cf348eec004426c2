//! `tidekeeper timeline SOURCE`: from when to when it can be restored, and what lies in between.

use serde_json::Value;

use super::context::Context;
use super::look::{Cell, Look, Table, Tone};
use super::outcome::Outcome;
use super::{document, human};
use crate::config::SourceName;
use crate::error::Result;
use crate::vault::place::Intent;

/// Show to which seconds a source can be restored, and where its log has gaps
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Which source
    pub source: SourceName,
}

/// Shows the windows, the stretches and the gaps.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let document = match context.remote()? {
        Some(remote) => remote.get(&format!("v1/timelines/{}", args.source), &[]).await?,
        None => {
            let app = context.app_of_vault(Intent::Read).await?;
            document::of(&app.timeline(&args.source).await?)?
        }
    };
    let text = text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

/// How wide the drawing is.
const WIDTH: usize = 72;

fn text(document: &Value, look: &Look) -> String {
    let mut shown = format!("{}\n", look.paint(Tone::Strong, document::text(document, "/summary")));
    shown.push_str(&facts(document));
    if let Some(bar) = bar(document) {
        shown.push_str(&format!("\n{bar}\n"));
    }
    shown.push_str(&format!("\n{}", table(document).show(look)));
    for problem in document::items(document, "/timelines") {
        if !document::text(problem, "/problem").is_empty() {
            let (name, why) = (document::text(problem, "/timeline"), document::text(problem, "/problem"));
            let mark = look.paint(Tone::Bad, "unreadable:");
            shown.push_str(&format!("\n{mark} timeline {name}: {why}\n"));
        }
    }
    shown
}

/// Size and lag, in a line.
fn facts(document: &Value) -> String {
    let mut facts = vec![
        format!("{} segments", document::count(document, "/segments")),
        format!("{} stored", document::bytes(document, "/stored_bytes")),
    ];
    match document::number(document, "/lag_s") {
        Some(lag) => {
            let lag = human::duration(std::time::Duration::from_secs(lag));
            facts.push(format!("the last record is {lag} old"));
        }
        None => facts.push("no timeline is open".to_owned()),
    }
    format!("{}\n", facts.join(", "))
}

/// The whole span in one line: `#` can be restored, `-` is stored but no backup goes before it, a dot is a gap.
fn bar(document: &Value) -> Option<String> {
    let seconds = |span: &Value, pointer| document::time(span, pointer).map(|time| time.as_second());
    let stretches = document::items(document, "/stretches");
    let begin = stretches.iter().filter_map(|span| seconds(span, "/from")).min()?;
    let end = stretches.iter().filter_map(|span| seconds(span, "/to")).max()?;
    if end <= begin {
        return None;
    }
    let cell = |second: i64| {
        ((second - begin) * (WIDTH as i64 - 1) / (end - begin)).clamp(0, WIDTH as i64 - 1) as usize
    };
    let mut bar = vec!['.'; WIDTH];
    for (pointer, mark) in [("/stretches", '-'), ("/windows", '#')] {
        for span in document::items(document, pointer) {
            let (Some(from), Some(to)) = (seconds(span, "/from"), seconds(span, "/to")) else { continue };
            bar[cell(from)..=cell(to)].fill(mark);
        }
    }
    // A gap is shown however short it is beside the whole.
    for gap in document::items(document, "/gaps") {
        if let Some(after) = seconds(gap, "/after") {
            bar[cell(after)] = '.';
        }
    }
    let scale = "# can be restored   - stored, but no backup goes before it   . gap";
    Some(format!("[{}]\n {scale}", bar.into_iter().collect::<String>()))
}

/// Stretches, windows and gaps in the order of the log; positions where the kind of source tells no times.
fn table(document: &Value) -> Table {
    let mut table = Table::new(["FROM", "TO", "LENGTH", "WHAT", ""]);
    let mut rows: Vec<(&str, &Value)> = Vec::new();
    for (what, pointer) in [("window", "/windows"), ("stretch", "/stretches"), ("gap", "/gaps")] {
        rows.extend(document::items(document, pointer).iter().map(|row| (what, row)));
    }
    rows.sort_by_key(|(what, row)| (edge(row, ["/from", "/after"], "_position"), *what == "window"));
    for (what, row) in rows {
        let (from, to) = (edge(row, ["/from", "/after"], ""), edge(row, ["/to", "/before"], ""));
        let tone = match what {
            "window" => Tone::Good,
            "gap" => Tone::Bad,
            _ => Tone::Plain,
        };
        table.row([
            Cell::text(from),
            Cell::text(to),
            Cell::number(length(row)),
            Cell::text(what).tone(tone),
            Cell::text(note(what, row)).tone(Tone::Dim),
        ]);
    }
    table
}

/// The text at the first of two pointers that has one; the position where it tells no time.
fn edge(row: &Value, pointers: [&str; 2], suffix: &str) -> String {
    let text = |suffix: &str| {
        let found = pointers.iter().map(|pointer| document::text(row, &format!("{pointer}{suffix}")));
        found.into_iter().find(|text| !text.is_empty()).unwrap_or_default().to_owned()
    };
    match text(suffix) {
        none if none.is_empty() => text("_position"),
        found => found,
    }
}

fn length(row: &Value) -> String {
    let time = |pointers: [&str; 2]| pointers.into_iter().find_map(|pointer| document::time(row, pointer));
    match (time(["/from", "/after"]), time(["/to", "/before"])) {
        (Some(from), Some(to)) => human::duration(to.duration_since(from).unsigned_abs()),
        _ => document::NOTHING.to_owned(),
    }
}

fn note(what: &str, row: &Value) -> String {
    match what {
        "window" => {
            let is_one = document::text(row, "/from_position") == document::text(row, "/to_position");
            let alone = if is_one { ", and nothing after it" } else { "" };
            format!("base {}{alone}", document::text(row, "/base"))
        }
        "gap" => document::text(row, "/why").to_owned(),
        _ => format!(
            "{} segments, {}",
            document::count(row, "/segments"),
            document::bytes(row, "/stored_bytes")
        ),
    }
}
