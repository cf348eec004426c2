//! What a process tells about itself: logs on stderr, and metrics for Prometheus.
//!
//! Metrics are named `tidekeeper_<what>_<unit>`. What is not known is absent, never zero: a gauge that shows 0 for a source
//! nobody could reach would silence the alarm that should go off.

use std::fmt;
use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Pretty,
    /// One JSON object a line, for collectors.
    Json,
}

impl LogFormat {
    /// For people on a terminal, JSON otherwise.
    pub fn of_stderr() -> Self {
        if std::io::stderr().is_terminal() { LogFormat::Pretty } else { LogFormat::Json }
    }
}

/// Writes logs from now on into `writer` (stderr, or whatever keeps progress bars in order there); `filter` is a level
/// (`info`) or directives (`info,tidekeeper::vault=debug`). Only the first call of a process counts.
///
/// # Errors
/// What is wrong with `filter`.
pub fn start_logs<W>(format: LogFormat, filter: &str, writer: W) -> Result<(), String>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    // The scheduler's own start and end are no news to anybody who operates this.
    let whole = format!("tokio_cron_scheduler=warn,{filter}");
    let filter = EnvFilter::try_new(whole).map_err(|why| format!("{filter:?} is no log filter: {why}"))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    let _ = match format {
        LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).try_init(),
        LogFormat::Pretty => logs.with_target(false).with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    Ok(())
}

/// What is known of a source at the moment of a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SourceFacts {
    /// Its name.
    pub source: String,
    /// The newest moment to which it can be restored.
    pub recovery_point: Option<Timestamp>,
    /// The newest span to any second of which it can be restored: its first moment and its last.
    pub window: Option<(Timestamp, Timestamp)>,
    /// When a backup of it was last proved.
    pub proven_at: Option<Timestamp>,
    /// Bytes of its newest good backup, before compression.
    pub plain_bytes: Option<u64>,
    /// Bytes of its newest good backup, as stored.
    pub stored_bytes: Option<u64>,
    /// How many backups of each status.
    pub backups: Vec<(String, u64)>,
}

/// What is known of the process at the moment of a scrape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProcessFacts {
    /// Whether the vault can be worked with.
    pub vault_up: bool,
    /// Whether this process leads.
    pub leads: bool,
    /// Each source; none at all if the vault did not answer.
    pub sources: Vec<SourceFacts>,
}

/// A run that ended.
#[derive(Clone, Copy, Debug)]
pub struct RunEnded<'a> {
    /// `backup`, `restore`.
    pub action: &'a str,
    /// Of which source; empty for what is about none.
    pub source: &'a str,
    /// `succeeded`, `failed`, `cancelled`, `interrupted`; or `partial`, `suspect`.
    pub outcome: &'a str,
    /// From the attempt's begin to its end.
    pub took: Duration,
}

type Labels = Vec<(&'static str, String)>;
type Seconds = Gauge<f64, AtomicU64>;
type Bytes = Gauge<u64, AtomicU64>;

/// The process's metrics. Clones are the same metrics.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    /// Held while the gauges are set and written, so that two scrapes do not mix.
    registry: Mutex<Registry>,
    runs: Family<Labels, Counter>,
    durations: Family<Labels, Histogram, fn() -> Histogram>,
    requests: Family<Labels, Counter>,
    recovery_point: Family<Labels, Seconds>,
    recovery_point_age: Family<Labels, Seconds>,
    window_start: Family<Labels, Seconds>,
    window_end: Family<Labels, Seconds>,
    window_lag: Family<Labels, Seconds>,
    proven: Family<Labels, Seconds>,
    plain_bytes: Family<Labels, Bytes>,
    stored_bytes: Family<Labels, Bytes>,
    backups: Family<Labels, Bytes>,
    vault_up: Gauge,
    leads: Gauge,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let inner = Inner {
            registry: Mutex::default(),
            runs: Family::default(),
            durations: Family::new_with_constructor(durations),
            requests: Family::default(),
            recovery_point: Family::default(),
            recovery_point_age: Family::default(),
            window_start: Family::default(),
            window_end: Family::default(),
            window_lag: Family::default(),
            proven: Family::default(),
            plain_bytes: Family::default(),
            stored_bytes: Family::default(),
            backups: Family::default(),
            vault_up: Gauge::default(),
            leads: Gauge::default(),
        };
        inner.register(&mut inner.registry.lock().expect("nobody else knows it yet"));
        Metrics(Arc::new(inner))
    }
}

/// From a tenth of a second (a small backup) to three hours (a terabyte), each bucket three times the one before.
fn durations() -> Histogram {
    Histogram::new([0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0])
}

impl Inner {
    fn register(&self, registry: &mut Registry) {
        let ours = registry.sub_registry_with_prefix("tidekeeper");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]);
        ours.register("build", "Which build this is", build);
        ours.register("runs", "Attempts that ended, by action, source and outcome", self.runs.clone());
        let text = "How long attempts took, by action";
        ours.register_with_unit("run_duration", text, Unit::Seconds, self.durations.clone());
        ours.register("http_requests", "Answered requests, by method and status", self.requests.clone());
        let text = "The newest moment to which a source can be restored, as Unix time";
        ours.register_with_unit("recovery_point_timestamp", text, Unit::Seconds, self.recovery_point.clone());
        let text = "The age of that moment: the RPO now; absent while there is none";
        ours.register_with_unit("recovery_point_age", text, Unit::Seconds, self.recovery_point_age.clone());
        self.register_windows(ours);
        let text = "When a backup of a source was last proved, as Unix time";
        ours.register_with_unit("proof_timestamp", text, Unit::Seconds, self.proven.clone());
        let text = "The newest good backup of a source, before compression";
        ours.register_with_unit("backup_plain", text, Unit::Bytes, self.plain_bytes.clone());
        let text = "The newest good backup of a source, as stored";
        ours.register_with_unit("backup_stored", text, Unit::Bytes, self.stored_bytes.clone());
        ours.register("backups", "Backups in the vault, by source and status", self.backups.clone());
        ours.register("vault_up", "1 while the vault can be worked with, else 0", self.vault_up.clone());
        ours.register("leader", "1 while this process leads, else 0", self.leads.clone());
    }

    fn register_windows(&self, ours: &mut Registry) {
        let text = "The first second of the newest span to any second of which a source can be restored, as Unix time";
        ours.register_with_unit("window_start_timestamp", text, Unit::Seconds, self.window_start.clone());
        let text = "The last second of that span, as Unix time";
        ours.register_with_unit("window_end_timestamp", text, Unit::Seconds, self.window_end.clone());
        let text = "The age of that last second; absent while there is no such span";
        ours.register_with_unit("window_lag", text, Unit::Seconds, self.window_lag.clone());
    }

    fn set(&self, facts: &ProcessFacts, now: Timestamp) {
        self.vault_up.set(i64::from(facts.vault_up));
        self.leads.set(i64::from(facts.leads));
        for family in [&self.recovery_point, &self.recovery_point_age, &self.proven] {
            family.clear();
        }
        for family in [&self.plain_bytes, &self.stored_bytes, &self.backups] {
            family.clear();
        }
        for family in [&self.window_start, &self.window_end, &self.window_lag] {
            family.clear();
        }
        for facts in &facts.sources {
            self.set_source(facts, now);
        }
    }

    fn set_source(&self, facts: &SourceFacts, now: Timestamp) {
        let labels = vec![("source", facts.source.clone())];
        if let Some(at) = facts.recovery_point {
            self.recovery_point.get_or_create(&labels).set(unix(at));
            self.recovery_point_age.get_or_create(&labels).set(now.duration_since(at).as_secs_f64());
        }
        if let Some((start, end)) = facts.window {
            self.window_start.get_or_create(&labels).set(unix(start));
            self.window_end.get_or_create(&labels).set(unix(end));
            self.window_lag.get_or_create(&labels).set(now.duration_since(end).as_secs_f64());
        }
        if let Some(at) = facts.proven_at {
            self.proven.get_or_create(&labels).set(unix(at));
        }
        if let Some(bytes) = facts.plain_bytes {
            self.plain_bytes.get_or_create(&labels).set(bytes);
        }
        if let Some(bytes) = facts.stored_bytes {
            self.stored_bytes.get_or_create(&labels).set(bytes);
        }
        for (status, count) in &facts.backups {
            let labels = vec![("source", facts.source.clone()), ("status", status.clone())];
            self.backups.get_or_create(&labels).set(*count);
        }
    }
}

fn unix(time: Timestamp) -> f64 {
    time.as_millisecond() as f64 / 1_000.0
}

impl Metrics {
    /// Counts an attempt that ended.
    pub fn run_ended(&self, run: RunEnded<'_>) {
        let labels = vec![
            ("action", run.action.to_owned()),
            ("source", run.source.to_owned()),
            ("outcome", run.outcome.to_owned()),
        ];
        self.0.runs.get_or_create(&labels).inc();
        let labels = vec![("action", run.action.to_owned())];
        self.0.durations.get_or_create(&labels).observe(run.took.as_secs_f64());
    }

    /// Counts an answered HTTP request. Without its path: there are as many of those as callers invent.
    pub fn request_answered(&self, method: &str, status: u16) {
        let labels = vec![("method", method.to_owned()), ("status", status.to_string())];
        self.0.requests.get_or_create(&labels).inc();
    }

    /// Everything in OpenMetrics text format, with what is known `now`.
    pub fn scrape(&self, facts: &ProcessFacts, now: Timestamp) -> String {
        let registry = self.0.registry.lock().expect("no holder panics");
        self.0.set(facts, now);
        let mut text = String::new();
        encode(&mut text, &registry).expect("writing into a String cannot fail");
        text
    }
}
