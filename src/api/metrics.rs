//! `/metrics`: what the process counted, and what the catalog says now.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use tokio::sync::broadcast::error::RecvError;

use super::Api;
use crate::app::App;
use crate::engine::events::What;
use crate::engine::run::End;
use crate::engine::work::Grade;
use crate::error::Result;
use crate::telemetry::{ProcessFacts, RunEnded, SourceFacts};
use crate::vault::catalog::{Listing, Row, latest};

/// How long a scrape waits for the vault. Prometheus gives up after ten seconds, and then knows nothing at all.
const PATIENCE: Duration = Duration::from_secs(5);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// `GET /metrics`
pub async fn scrape(State(api): State<Api>) -> impl IntoResponse {
    let health = api.engine.health();
    let listed = tokio::select! {
        biased;
        listed = list(&api.app) => listed.ok(),
        () = api.app.clock.sleep(PATIENCE) => None,
    };
    let facts = ProcessFacts {
        vault_up: health.is_ready() && listed.is_some(),
        leads: health.leads.is_some(),
        sources: listed.unwrap_or_default(),
    };
    ([(CONTENT_TYPE, OPEN_METRICS)], api.metrics.scrape(&facts, api.app.clock.now()))
}

async fn list(app: &App) -> Result<Vec<SourceFacts>> {
    let listing = app.catalog.list(None).await?;
    let mut sources = sources(&listing);
    for facts in &mut sources {
        let source = facts.source.parse()?;
        facts.window = app.window(&source, &listing).await?.map(|window| (window.from, window.to));
        facts.recovery_point = facts.recovery_point.max(facts.window.map(|(_, end)| end));
    }
    Ok(sources)
}

/// What a listing says of each source that has backups.
fn sources(listing: &Listing) -> Vec<SourceFacts> {
    let mut by_source: BTreeMap<&str, Vec<&Row>> = BTreeMap::new();
    for row in &listing.rows {
        by_source.entry(row.backup.source.as_str()).or_default().push(row);
    }
    by_source.into_iter().map(|(source, rows)| facts(source, &rows)).collect()
}

fn facts(source: &str, rows: &[&Row]) -> SourceFacts {
    let newest = latest(rows.iter().copied()).and_then(|row| row.manifest.as_ref().ok());
    let mut backups: BTreeMap<String, u64> = BTreeMap::new();
    for row in rows {
        let status = row.status().map_or("unreadable", |status| status.as_str());
        *backups.entry(status.to_owned()).or_default() += 1;
    }
    SourceFacts {
        source: source.to_owned(),
        recovery_point: newest.map(|summary| summary.at.unwrap_or(summary.started_at)),
        window: None,
        proven_at: rows.iter().filter_map(|row| Some(row.marks.proven()?.at)).max(),
        plain_bytes: newest.map(|summary| summary.plain_bytes),
        stored_bytes: newest.map(|summary| summary.stored_bytes),
        backups: backups.into_iter().collect(),
    }
}

/// Counts the attempts that end in this process, for as long as the engine lives.
pub async fn count_runs(api: Api) {
    let mut events = api.engine.events();
    loop {
        let event = match events.recv().await {
            Ok(event) => event,
            Err(RecvError::Lagged(missed)) => {
                tracing::warn!(
                    missed,
                    "metrics of runs are too low: events came faster than they were counted"
                );
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        if let What::Finished { outcome, status, took_s } = event.what {
            api.metrics.run_ended(RunEnded {
                action: event.action.as_str(),
                source: event.source.as_ref().map(|source| source.as_str()).unwrap_or_default(),
                outcome: outcome_of(outcome, status),
                took: Duration::from_secs_f64(took_s.max(0.0)),
            });
        }
    }
}

fn outcome_of(end: End, status: Option<Grade>) -> &'static str {
    match (end, status) {
        (End::Succeeded, Some(Grade::Partial)) => "partial",
        (End::Succeeded, Some(Grade::Suspect)) => "suspect",
        (End::Succeeded, _) => "succeeded",
        (End::Failed, _) => "failed",
        (End::Cancelled, _) => "cancelled",
        (End::Interrupted, _) => "interrupted",
        (End::Other, _) => "other",
    }
}
