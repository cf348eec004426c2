//! The HTTP API: one file per resource. It translates, it never decides.

use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use futures_util::future::LocalBoxFuture;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::problem::Problem;
use crate::app::App;
use crate::engine::Engine;
use crate::engine::serve::Options;
use crate::error::{Context, Result};
use crate::telemetry::Metrics;

pub mod ask;
pub mod backups;
pub mod events;
pub mod guard;
pub mod health;
pub mod input;
pub mod metrics;
pub mod problem;
pub mod restores;
pub mod runs;
pub mod sources;
pub mod status;
pub mod timelines;

/// What the handlers work with. Clones are the same API.
#[derive(Clone, Debug)]
pub struct Api {
    /// What is configured, and the vault.
    pub app: App,
    /// The runs.
    pub engine: Engine,
    /// What `/metrics` shows.
    pub metrics: Metrics,
    /// Cancelled when the process shuts down: then streams of events end.
    pub stop: CancellationToken,
}

/// How long answers that are under way when the engine has ended may take.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The daemon: works on what is due and asked for, and answers, until `stop`.
pub fn serve(app: App, options: Options, stop: CancellationToken) -> LocalBoxFuture<'static, Result<()>> {
    Box::pin(async move {
        let api = Api::new(app.engine(), app);
        let listener = api.listen().await?;
        let Api { app, engine, stop: closing, .. } = api.clone();
        tracing::info!(listen = %app.config.api.listen, vault = %app.config.vault, "serving");
        let answering = tokio::spawn(api.serve(listener));
        // The API outlives the engine: until the last run has ended, somebody may want to see how it goes.
        let worked = engine.serve(options, stop).await;
        closing.cancel();
        tokio::select! {
            biased;
            _ = answering => {}
            () = app.clock.sleep(LAST_WORDS) => tracing::warn!("an answer was not waited for"),
        }
        worked
    })
}

impl Api {
    /// The API of an engine and what it works with.
    pub fn new(engine: Engine, app: App) -> Self {
        Api { app, engine, metrics: Metrics::default(), stop: CancellationToken::new() }
    }

    /// Everything that can be called.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready))
            .route("/metrics", get(metrics::scrape))
            .route("/v1/status", get(status::show))
            .route("/v1/sources", get(sources::list))
            .route("/v1/backups", get(backups::list).post(backups::create))
            .route("/v1/backups/{source}/{id}", get(backups::show))
            .route("/v1/timelines", get(timelines::list))
            .route("/v1/timelines/{source}", get(timelines::show))
            .route("/v1/restores", post(restores::create))
            .route("/v1/runs", get(runs::list))
            .route("/v1/runs/{run}", get(runs::show))
            .route("/v1/runs/{run}/events", get(events::follow))
            .route("/v1/runs/{run}/cancel", post(runs::cancel))
            .fallback(Problem::no_such_path)
            .method_not_allowed_fallback(Problem::no_such_method)
            .layer(from_fn_with_state(self.clone(), guard::guard))
            .with_state(self)
    }

    /// Answers until `stop`, then lets what is being answered finish.
    ///
    /// # Errors
    /// Those of the listener.
    pub async fn serve(self, listener: TcpListener) -> Result<()> {
        let stop = self.stop.clone();
        let counting = tokio::spawn(metrics::count_runs(self.clone()));
        let serving = axum::serve(listener, self.router()).with_graceful_shutdown(stop.cancelled_owned());
        let served = serving.await.doing("serving the API");
        counting.abort();
        served
    }

    /// Listens where the configuration says; on loopback only.
    ///
    /// # Errors
    /// `Config` for another address; those of the operating system, for example for a port that is taken.
    pub async fn listen(&self) -> Result<TcpListener> {
        let listen = self.app.config.api.listen;
        guard::loopback_only(listen)?;
        let hint = "set `api.listen` to another port, or end what listens there";
        let listener = TcpListener::bind(listen).await.doing(format!("listening on {listen}"));
        listener.map_err(|error| error.hint(hint))
    }
}
