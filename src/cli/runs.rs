//! `tidekeeper runs [show|watch|cancel]`: what ran, runs and will run.

use std::time::Duration;

use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use serde_json::{Value, json};

use super::context::Context;
use super::look::{Cell, Facts, Look, Table, Tone};
use super::outcome::Outcome;
use super::perform::Done;
use super::remote::Remote;
use super::{document, human, progress};
use crate::config::SourceName;
use crate::engine::Engine;
use crate::engine::run::{RunId, State};
use crate::engine::views::Filter;
use crate::engine::work::Action;
use crate::error::Result;
use crate::task::Snapshot;
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

/// How long a daemon may take to note that somebody wants an end.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lists, shows, watches or cancels.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    if let Some(remote) = context.remote()? {
        return ask(args, &remote, context).await;
    }
    let intent = match args.command {
        Some(Command::Cancel { .. }) => Intent::Write,
        _ => Intent::Read,
    };
    let app = context.app_of_vault(intent).await?;
    let engine = app.engine();
    match args.command {
        None => list(&args, &engine, context).await,
        Some(Command::Show { run }) => show(document::of(&engine.run(&run).await?)?, context),
        Some(Command::Watch { run }) => watched(watch(&run, &engine, context).await?, context),
        Some(Command::Cancel { run }) => {
            engine.cancel(&run, &context.principal()).await?;
            cancelling(document::of(&engine.run(&run).await?)?)
        }
    }
}

/// The same, by a daemon.
async fn ask(args: Args, remote: &Remote<'_>, context: &Context) -> Result<Outcome> {
    match &args.command {
        None => {
            let source = args.source.as_ref().map(ToString::to_string);
            let limit = Some(args.limit.to_string());
            let query =
                [("source", source), ("action", args.action), ("state", args.state), ("limit", limit)];
            listed(remote.get("v1/runs", &query).await?, context)
        }
        Some(Command::Show { run }) => show(remote.get(&format!("v1/runs/{run}"), &[]).await?, context),
        Some(Command::Watch { run }) => watched(remote.wait(run.as_str()).await?, context),
        Some(Command::Cancel { run }) => {
            let path = format!("v1/runs/{run}/cancel");
            cancelling(remote.post(&path, &json!({}), None, PATIENCE).await?)
        }
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
    listed(json!({ "runs": document::of(&engine.runs(&filter).await?)? }), context)
}

fn listed(document: Value, context: &Context) -> Result<Outcome> {
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

fn show(document: Value, context: &Context) -> Result<Outcome> {
    let text = text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

fn text(run: &Value, look: &Look) -> String {
    let at = |pointer| document::text(run, pointer);
    let moment = |pointer| document::time(run, pointer).map(human::time).unwrap_or_default();
    let mut facts = Facts::default();
    facts.add("run", at("/run"));
    facts.add("what", format!("{} {}", at("/action"), at("/source")).trim_end());
    facts.add("state", look.paint(document::tone(state(run)), state(run)));
    facts.add("asked by", at("/principal"));
    let why = [at("/why/by"), at("/why/series"), at("/why/due"), at("/why/reason")];
    facts.add("because of", why.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(", "));
    facts.add("attempts", document::count(run, "/attempts"));
    facts.add("began", moment("/started_at"));
    facts.add("ended", moment("/finished_at"));
    facts.add("took", took(run));
    facts.add("next attempt", moment("/retry_at"));
    facts.add("deadline", moment("/deadline"));
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

/// Follows a run of this vault until it is over, and returns its view.
async fn watch(run: &RunId, engine: &Engine, context: &Context) -> Result<Value> {
    let mut told = String::new();
    loop {
        let view = engine.run(run).await?;
        let document = document::of(&view)?;
        if view.state.is_over() {
            return Ok(document);
        }
        tell(&document, &mut told);
        context.clock.sleep(LOOK_EVERY).await;
    }
}

/// Writes a line on stderr if it is another than the one `told` last.
pub(super) fn tell(run: &Value, told: &mut String) {
    let snapshot = run.get("progress").and_then(|one| serde_json::from_value::<Snapshot>(one.clone()).ok());
    let mut line = format!("{} {}", document::text(run, "/run"), document::text(run, "/state"));
    if let Some(at) = snapshot.filter(|at| !at.step.is_empty()) {
        line.push_str(&format!(", {}", progress::line(&at)));
    }
    if line != *told {
        eprintln!("{line}");
        *told = line;
    }
}

/// Shows a run that is over; exits with what its own command would have exited with.
fn watched(document: Value, context: &Context) -> Result<Outcome> {
    let code = match Done::of_view(&document) {
        Ok(done) => done.exit_code(),
        Err(error) => error.kind().exit_code(),
    };
    show(document, context).map(|outcome| outcome.exit(code))
}

fn cancelling(document: Value) -> Result<Outcome> {
    let run = document::text(&document, "/run");
    let state = document.get("state").and_then(|state| serde_json::from_value::<State>(state.clone()).ok());
    let text = match state.is_some_and(State::is_over) {
        true => format!("run {run} is given up: what is there now counts as it is\n"),
        false => format!("asked for the end of run {run}; `tidekeeper runs watch {run}` shows it\n"),
    };
    Ok(Outcome::done(document, text))
}
