//! `tidekeeper runs [show|watch|cancel]`: what ran, runs and will run.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::context::Context;
use super::look::{Cell, Facts, Look, Table, Tone};
use super::outcome::{LESS_THAN_ASKED, Outcome};
use super::{document, human};
use crate::config::SourceName;
use crate::engine::Engine;
use crate::engine::run::{RunId, State};
use crate::engine::views::{Filter, RunView};
use crate::engine::work::{Action, Status};
use crate::error::Result;
use crate::vault::place::Intent;

/// List runs, newest first; show, watch or cancel one
#[derive(clap::Args, Clone, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Of this source, or into this target
    #[arg(long)]
    source: Option<SourceName>,

    /// Of this kind only
    #[arg(long, value_parser = PossibleValuesParser::new(ACTIONS))]
    action: Option<String>,

    /// That stand so only
    #[arg(long, value_parser = PossibleValuesParser::new(STATES))]
    state: Option<String>,

    /// At most so many
    #[arg(long, default_value_t = 30)]
    limit: usize,
}

#[derive(Subcommand, Clone, Debug)]
enum Command {
    /// Show all that is known of a run
    Show {
        /// As `runs` lists it
        run: RunId,
    },
    /// Follow a run until it is over; exits as the run did
    Watch {
        /// As `runs` lists it
        run: RunId,
    },
    /// Ask for the end of a run, whichever process works on it
    Cancel {
        /// As `runs` lists it
        run: RunId,
    },
}

const ACTIONS: [&str; 8] = ["backup", "restore", "verify", "retention", "scrub", "hold", "unhold", "accept"];

const STATES: [&str; 7] =
    ["requested", "running", "waiting", "succeeded", "failed", "cancelled", "interrupted"];

/// How often a run that is watched is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Lists, shows, watches or cancels.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let intent = match args.command {
        Some(Command::Cancel { .. }) => Intent::Write,
        _ => Intent::Read,
    };
    let app = context.app(intent).await?;
    let engine = app.engine()?;
    match args.command {
        None => list(&args, &engine, context).await,
        Some(Command::Show { run }) => show(engine.run(&run).await?, context),
        Some(Command::Watch { run }) => watch(&run, &engine, context).await,
        Some(Command::Cancel { run }) => cancel(&run, &engine, context).await,
    }
}

async fn list(args: &Args, engine: &Engine, context: &Context) -> Result<Outcome> {
    // What the parser lets pass is a word that serde knows.
    let word = |word: &Option<String>| word.as_ref().map(|word| json!(word));
    let filter = Filter {
        source: args.source.clone(),
        action: word(&args.action).and_then(|word| serde_json::from_value::<Action>(word).ok()),
        state: word(&args.state).and_then(|word| serde_json::from_value::<State>(word).ok()),
        limit: args.limit,
    };
    let document = json!({ "runs": document::of(&engine.runs(&filter).await?)? });
    let text = list_text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

fn list_text(document: &Value, look: &Look) -> String {
    let runs = document::items(document, "/runs");
    if runs.is_empty() {
        return "nothing has run\n".to_owned();
    }
    let mut table = Table::new(["RUN", "WHAT", "STATE", "BEGAN", "TOOK", "SUMMARY"]);
    for run in runs {
        let at = |pointer| document::text(run, pointer);
        let summary = if at("/summary").is_empty() { at("/error/message") } else { at("/summary") };
        table.row([
            Cell::text(at("/run")),
            Cell::text(format!("{} {}", at("/action"), at("/source")).trim_end()),
            Cell::text(state(run)).tone(document::tone(state(run))),
            Cell::number(document::age(run, "/started_at", look)),
            Cell::number(took(run)),
            Cell::text(summary.lines().next().unwrap_or_default()),
        ]);
    }
    table.show(look)
}

/// How good a run that did its work was, else where it stands.
fn state(run: &Value) -> &str {
    match (document::text(run, "/state"), document::text(run, "/status")) {
        ("succeeded", status) if !status.is_empty() => status,
        (state, _) => state,
    }
}

fn took(run: &Value) -> String {
    match (document::time(run, "/started_at"), document::time(run, "/finished_at")) {
        (Some(began), Some(ended)) => human::duration(ended.duration_since(began).unsigned_abs()),
        _ => document::NOTHING.to_owned(),
    }
}

fn show(view: RunView, context: &Context) -> Result<Outcome> {
    let document = document::of(&view)?;
    let text = text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

fn text(run: &Value, look: &Look) -> String {
    let at = |pointer| document::text(run, pointer);
    let mut facts = Facts::default();
    facts.add("run", at("/run"));
    facts.add("what", format!("{} {}", at("/action"), at("/source")).trim_end());
    facts.add("state", look.paint(document::tone(state(run)), state(run)));
    facts.add("asked by", at("/principal"));
    let why = [at("/why/by"), at("/why/series"), at("/why/due"), at("/why/reason")];
    facts.add("because of", why.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", "));
    facts.add("attempts", document::count(run, "/attempts"));
    facts.add("began", at("/started_at"));
    facts.add("ended", at("/finished_at"));
    facts.add("took", took(run));
    facts.add("next attempt", at("/retry_at"));
    facts.add("deadline", at("/deadline"));
    facts.add("summary", at("/summary"));
    facts.add("error", look.paint(Tone::Bad, at("/error/message")));
    facts.add("hint", at("/error/hint"));
    let mut shown = facts.show(look);
    let steps = document::items(run, "/steps");
    if !steps.is_empty() {
        shown.push_str(&format!("\n{}", steps_table(steps).show(look)));
    }
    shown
}

fn steps_table(steps: &[Value]) -> Table {
    let mut table = Table::new(["STEP", "TOOK"]);
    for step in steps {
        let seconds = step.pointer("/took_s").and_then(Value::as_f64).filter(|seconds| *seconds >= 0.0);
        let took = seconds.map(|seconds| human::duration(Duration::from_secs_f64(seconds)));
        let took = took.unwrap_or_else(|| document::NOTHING.to_owned());
        table.row([Cell::text(document::text(step, "/name")), Cell::number(took)]);
    }
    table
}

async fn watch(run: &RunId, engine: &Engine, context: &Context) -> Result<Outcome> {
    let mut told = String::new();
    loop {
        let view = engine.run(run).await?;
        if view.state.is_over() {
            let code = exit_code(&view);
            return show(view, context).map(|outcome| outcome.exit(code));
        }
        let news = line(&document::of(&view)?);
        if news != told {
            eprintln!("{news}");
            told = news;
        }
        context.clock.sleep(LOOK_EVERY).await;
    }
}

fn line(run: &Value) -> String {
    let step = document::text(run, "/progress/step");
    let mut line = format!("{} {}", document::text(run, "/run"), document::text(run, "/state"));
    if !step.is_empty() {
        line.push_str(&format!(", {step}"));
    }
    line
}

/// What the run's own command would have exited with.
fn exit_code(view: &RunView) -> u8 {
    match (view.state, view.status) {
        (State::Succeeded, Some(Status::Partial | Status::Suspect)) => LESS_THAN_ASKED,
        (State::Succeeded, _) => 0,
        _ => {
            let kind = view.error.as_ref().and_then(|error| crate::error::Kind::from_code(&error.code));
            kind.map_or(1, crate::error::Kind::exit_code)
        }
    }
}

async fn cancel(run: &RunId, engine: &Engine, context: &Context) -> Result<Outcome> {
    engine.cancel(run, &context.principal()).await?;
    let document = json!({ "run": run, "cancel": "requested" });
    Ok(Outcome::done(
        document,
        format!("asked for the end of run {run}; `tidekeeper runs watch {run}` shows it\n"),
    ))
}
