//! `tidekeeper check`: does everything that is configured work, and what will not be captured?

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::context::Context;
use super::look::{Look, Tone};
use super::outcome::{Outcome, error_document};
use super::{document, human};
use crate::app::App;
use crate::error::Result;
use crate::finding::{Finding, Severity};
use crate::vault::place::Intent;
use crate::vault::probe;

/// Validate the configuration, reach every system, say what will and will not be captured
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// How long one system may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Looks at the vault and at every source and target; exits 1 if any of them does not work.
pub async fn run(_: Args, context: &Context) -> Result<Outcome> {
    let app = context.app(Intent::Write).await?;
    let (vault, sources, targets) = tokio::join!(vault(&app), sources(&app), targets(&app));
    let document = json!({ "vault": vault?, "sources": sources, "targets": targets });
    let text = text(&document, &context.look);
    let code = u8::from(has_errors(&document));
    Ok(Outcome::done(document, text).exit(code))
}

async fn vault(app: &App) -> Result<Value> {
    let config = &app.config;
    let findings = probe::probe(&app.vault.store, &app.clock, config.single_writer).await?;
    Ok(json!({ "place": config.vault.to_string(), "findings": findings }))
}

async fn sources(app: &App) -> Vec<Value> {
    let looks = app.sources().map(|(name, system)| async move {
        let task = app.task(&format!("check of {name}"), PATIENCE);
        match task.guard(system.source().inspect(&task)).await {
            Ok(inspection) => json!({ "name": name, "inspection": inspection }),
            Err(error) => json!({ "name": name, "error": error_document(&error) }),
        }
    });
    join_all(looks).await
}

async fn targets(app: &App) -> Vec<Value> {
    let looks = app.targets().map(|(name, system)| async move {
        let task = app.task(&format!("check of {name}"), PATIENCE);
        match task.guard(system.target().identity(&task)).await {
            Ok(identity) => json!({ "name": name, "identity": identity }),
            Err(error) => json!({ "name": name, "error": error_document(&error) }),
        }
    });
    join_all(looks).await
}

fn has_errors(document: &Value) -> bool {
    let systems = ["/sources", "/targets"].into_iter().flat_map(|list| document::items(document, list));
    let unreached = systems.clone().any(|system| system.get("error").is_some());
    let inner = systems.flat_map(|system| document::items(system, "/inspection/findings"));
    let mut findings = document::items(document, "/vault/findings").iter().chain(inner);
    unreached || findings.any(|finding| document::text(finding, "/severity") == "error")
}

fn text(document: &Value, look: &Look) -> String {
    let mut shown = look.paint(Tone::Strong, &format!("vault {}", document::text(document, "/vault/place")));
    shown.push('\n');
    shown.push_str(&document::findings(document::items(document, "/vault/findings"), look));
    for source in document::items(document, "/sources") {
        shown.push_str(&system("source", source, look));
    }
    for target in document::items(document, "/targets") {
        shown.push_str(&system("target", target, look));
    }
    shown
}

fn system(role: &str, document: &Value, look: &Look) -> String {
    let at = |pointer| document::text(document, pointer);
    let mut shown = format!("\n{}", look.paint(Tone::Strong, &format!("{role} {}", at("/name"))));
    match (at("/inspection/server"), at("/identity/label")) {
        ("", "") => {}
        ("", label) => shown.push_str(&format!("  {label}")),
        (server, _) => shown.push_str(&format!("  {server} at {}", at("/inspection/endpoint"))),
    }
    if let Some(bytes) = document::number(document, "/inspection/bytes") {
        shown.push_str(&format!(", {}", human::bytes(bytes)));
    }
    shown.push('\n');
    if document.get("error").is_some() {
        let unreached = Finding {
            severity: Severity::Error,
            what: at("/error/message").to_owned(),
            advice: at("/error/hint").to_owned(),
        };
        shown.push_str(&document::findings(&[json!(unreached)], look));
    }
    for line in document::items(document, "/inspection/captures").iter().filter_map(Value::as_str) {
        shown.push_str(&format!("  captures  {line}\n"));
    }
    for omission in document::items(document, "/inspection/omits") {
        let (what, why) = (document::text(omission, "/what"), document::text(omission, "/why"));
        shown.push_str(&format!("  {}  {what}: {why}\n", look.paint(Tone::Warning, "leaves out")));
    }
    shown + &document::findings(document::items(document, "/inspection/findings"), look)
}
