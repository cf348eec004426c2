//! `tidekeeper serve`: the daemon.

use futures_util::future::LocalBoxFuture;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::outcome::Outcome;
use crate::app::App;
use crate::config::units::Period;
use crate::engine::serve::Options;
use crate::error::{Error, Result};
use crate::vault::place::Intent;
use crate::vault::probe;

/// What runs until it is told to stop. The room that answers over HTTP is not ours to know; `main` hands it in.
pub type Daemon = fn(App, Options, CancellationToken) -> LocalBoxFuture<'static, Result<()>>;

/// Run the daemon: back up what is due, answer over HTTP, until SIGTERM
#[derive(clap::Args, Clone, Debug)]
pub struct Args {
    /// Become the leader although a daemon of another cluster or machine is
    #[arg(long)]
    pub take_over: bool,

    /// How long what runs may go on after SIGTERM
    #[arg(long, value_name = "TIME", default_value = "25s")]
    pub grace: Period,
}

/// Serves until SIGTERM or Ctrl-C.
pub async fn run(args: Args, context: &Context) -> Result<Outcome> {
    let stop = CancellationToken::new();
    stop_on_signals(stop.clone())?;
    let app = context.app(Intent::Delete).await?;
    // A spool that takes nothing is better found now than by the first backup.
    drop(app.spool().file()?);
    let findings = probe::probe(&app.vault.store, &context.clock, app.config.single_writer).await?;
    probe::refuse(&*app.vault.store, &findings)?;
    let options = Options { take_over: args.take_over, grace: args.grace.0 };
    (context.daemon)(app, options, stop).await?;
    Ok(Outcome::verbatim(String::new()))
}

/// The first signal ends the daemon in order, a second ends it as it is: the next one finds out what was left.
fn stop_on_signals(stop: CancellationToken) -> Result<()> {
    let listen = |kind| signal(kind).map_err(|cause| Error::io("listening for signals", cause));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if stop.is_cancelled() {
                std::process::exit(130); // 128 + SIGINT, as shells count
            }
            tracing::info!("ending; once more to leave everything as it is");
            stop.cancel();
        }
    });
    Ok(())
}
