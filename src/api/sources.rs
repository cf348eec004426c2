//! `/v1/sources`: what is configured. No addresses, no credentials: whoever may read this may still not reach those.

use axum::Json;
use axum::extract::State;
use serde::Serialize;

use super::Api;
use crate::app::App;
use crate::config::{Schedule, Series, SourceName, When};

/// The answer.
#[derive(Clone, Debug, Serialize)]
pub struct Sources {
    /// What is protected, by name.
    pub sources: Vec<Source>,
    /// Where restores may go besides, by name.
    pub targets: Vec<Target>,
}

/// A source.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    /// Its name.
    pub source: SourceName,
    /// Its kind.
    pub kind: &'static str,
    /// When it is backed up, and how long that is kept; none without a schedule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Plan>,
}

/// A target that is no source.
#[derive(Clone, Debug, Serialize)]
pub struct Target {
    /// Its name.
    pub target: SourceName,
    /// Its kind.
    pub kind: &'static str,
}

/// A schedule in short.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The zone of its times.
    pub time_zone: String,
    /// Each series by its name: `0 */6 * * *`, or `every 5s`.
    pub backup: Vec<(String, String)>,
    /// Whether the configuration suspends it.
    pub suspend: bool,
}

/// `GET /v1/sources`
pub async fn list(State(api): State<Api>) -> Json<Sources> {
    let App { config, .. } = &api.app;
    let sources = api.app.sources().map(|(name, system)| Source {
        source: name.clone(),
        kind: system.kind(),
        schedule: config.schedule(name).map(plan),
    });
    let targets =
        api.app.targets().map(|(name, system)| Target { target: name.clone(), kind: system.kind() });
    Json(Sources { sources: sources.collect(), targets: targets.collect() })
}

fn plan(schedule: &Schedule) -> Plan {
    let backup = schedule.backup.iter().map(|series| (series.name.clone(), rhythm(series))).collect();
    Plan { time_zone: schedule.time_zone.to_string(), backup, suspend: schedule.suspend }
}

fn rhythm(series: &Series) -> String {
    match &series.when {
        When::Cron(fields) => fields.to_string(),
        When::Every(span) => format!("every {} s", span.as_secs()),
    }
}
