//! Does an order in this process: the same claim, work and finish as in a daemon, with its progress shown.

use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::context::Context;
use super::outcome::{LESS_THAN_ASKED, error_of};
use super::progress;
use crate::app::App;
use crate::config::units::Period;
use crate::engine::perform::{Reason, Stop};
use crate::engine::request::Ask;
use crate::engine::run::{End, Finished, Record, RunId};
use crate::engine::work::{Order, Status};
use crate::error::{Error, Kind, Result};
use crate::task::Progress;

/// How long a run may take when neither the command line nor a schedule says.
const AN_HOUR: Duration = Duration::from_secs(3_600);

/// Arguments of commands that start a run.
#[derive(Args, Clone, Debug, Default)]
pub struct RunArgs {
    /// How long it may take, such as 30m or 2h [default: the schedule's deadline, or 1h]
    #[arg(long, value_name = "TIME")]
    pub deadline: Option<Period>,

    /// Asking again with the same key is asking once
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

/// Does `order` and returns how the run ended.
///
/// # Errors
/// Those of the run: an interrupted or failed one is an error here.
pub async fn perform(context: &Context, app: &App, order: Order, args: &RunArgs) -> Result<Finished> {
    let deadline = args.deadline.map(|period| period.0).unwrap_or_else(|| deadline_of(app, &order));
    let ask = Ask {
        principal: context.principal(),
        route: format!("tidekeeper {}", order.action),
        idempotency: args.idempotency_key.clone(),
        order,
        deadline,
    };
    let engine = app.engine()?;
    let (stop, progress) = (Stop::default(), Progress::default());
    let signals = stop_on_signals(stop.clone())?;
    let (run, record) = progress::shown(&context.clock, &progress, async {
        let done = engine.run_once(&ask, &stop, &progress).await;
        signals.abort();
        done
    })
    .await?;
    judge(&run, record)
}

fn deadline_of(app: &App, order: &Order) -> Duration {
    let schedule = order.source.as_ref().and_then(|source| app.config.schedule(source));
    let deadlines = schedule.into_iter().flat_map(|schedule| &schedule.backup).map(|series| series.deadline);
    deadlines.max().unwrap_or(AN_HOUR)
}

/// A first Ctrl-C ends the run in order, which takes a moment; a second ends the process.
fn stop_on_signals(stop: Stop) -> Result<tokio::task::JoinHandle<()>> {
    let listen = |kind| signal(kind).map_err(|cause| Error::io("listening for signals", cause));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        eprintln!("ending the run; once more to leave it as it is");
        stop.stop(Reason::Asked);
        either(&mut interrupt, &mut terminate).await;
        std::process::exit(130); // 128 + SIGINT, as shells count
    }))
}

async fn either(one: &mut Signal, other: &mut Signal) {
    tokio::select! {
        _ = one.recv() => {}
        _ = other.recv() => {}
    }
}

/// A run's end as a result: only one that did its work is good.
pub fn judge(run: &RunId, record: Record) -> Result<Finished> {
    let doing = format!("run {run}");
    let Some(finished) = record.tries.into_iter().next_back().and_then(|last| last.finished) else {
        return Err(Error::new(Kind::Cancelled, doing, "somebody asked for its end before it began"));
    };
    match (finished.outcome, &finished.error) {
        (End::Succeeded, _) => Ok(finished),
        (_, Some(problem)) => Err(error_of(&json!(problem), &doing)),
        (End::Cancelled, None) => Err(Error::new(Kind::Cancelled, doing, "somebody asked for its end")),
        (_, None) => Err(Error::new(Kind::Internal, doing, "its process ended before it did")
            .hint(format!("`tidekeeper runs show {run}` tells how far it came"))),
    }
}

/// The exit code of a run that did its work.
pub fn exit_code(finished: &Finished) -> u8 {
    match finished.status {
        Some(Status::Partial | Status::Suspect) => LESS_THAN_ASKED,
        _ => 0,
    }
}
