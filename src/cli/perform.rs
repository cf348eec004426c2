//! Does an order in this process: the same claim, work and finish as in a daemon, with its progress shown.

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::context::Context;
use super::outcome::{LESS_THAN_ASKED, error_of};
use super::{document, progress};
use crate::app::App;
use crate::config::units::Period;
use crate::engine::perform::{Reason, Stop};
use crate::engine::request::Ask;
use crate::engine::views::RunView;
use crate::engine::work::{Grade, Order};
use crate::error::{Error, Kind, Result};
use crate::task::Progress;

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

/// A run that did its work.
#[derive(Clone, Debug, PartialEq)]
pub struct Done {
    /// Its id.
    pub run: String,
    /// How good what was done is.
    pub status: Option<Grade>,
    /// One line.
    pub summary: String,
    /// The document that the work answers with.
    pub detail: Value,
}

impl Done {
    /// 0, or 4 where less than asked for was done.
    pub fn exit_code(&self) -> u8 {
        match self.status {
            Some(Grade::Partial | Grade::Suspect | Grade::Other) => LESS_THAN_ASKED,
            _ => 0,
        }
    }

    /// From a run as people see it, which is over.
    ///
    /// # Errors
    /// Those of the run: an interrupted, cancelled or failed one is an error here.
    pub fn of_view(view: &Value) -> Result<Self> {
        let at = |pointer| document::text(view, pointer);
        let doing = format!("run {}", at("/run"));
        match (at("/state"), view.get("error")) {
            ("succeeded", _) => Ok(Done {
                run: at("/run").to_owned(),
                status: view.get("status").and_then(|status| serde_json::from_value(status.clone()).ok()),
                summary: at("/summary").to_owned(),
                detail: view.get("detail").cloned().unwrap_or_default(),
            }),
            (_, Some(problem)) => Err(error_of(problem, &doing)),
            ("cancelled", None) => Err(Error::new(Kind::Cancelled, doing, "somebody asked for its end")),
            (_, None) => Err(Error::new(Kind::Internal, doing, "its process ended before it did")
                .hint(format!("`tidekeeper runs show {}` tells how far it came", at("/run")))),
        }
    }
}

/// Does `order` in this process and returns how the run ended.
///
/// # Errors
/// Those of the run: an interrupted or failed one is an error here.
pub async fn perform(context: &Context, app: &App, order: Order, args: &RunArgs) -> Result<Done> {
    let deadline = args.deadline.map(|period| period.0).unwrap_or_else(|| app.deadline(&order));
    let ask = Ask {
        principal: context.principal(),
        route: format!("tidekeeper {}", order.action),
        idempotency: args.idempotency_key.clone(),
        body: json!(order),
        order,
        deadline,
    };
    let engine = app.engine();
    let (stop, progress) = (Stop::default(), Progress::default());
    let signals = stop_on_signals(stop.clone())?;
    let (run, record) = progress::shown(&context.clock, &progress, async {
        let done = engine.run_once(&ask, &stop, &progress).await;
        signals.abort();
        done
    })
    .await?;
    match RunView::of(&record, context.clock.now()) {
        Some(view) => Done::of_view(&document::of(&view)?),
        None => Err(Error::new(
            Kind::Cancelled,
            format!("run {run}"),
            "somebody asked for its end before it began",
        )),
    }
}

/// A first Ctrl-C ends in order, which takes a moment: our own work, or the waiting for somebody's. What came of it is
/// said at the end, by whoever knows. A second ends the process.
fn stop_on_signals(stop: Stop) -> Result<tokio::task::JoinHandle<()>> {
    let listen = |kind| signal(kind).map_err(|cause| Error::io("listening for signals", cause));
    let (mut interrupt, mut terminate) = (listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?);
    Ok(tokio::spawn(async move {
        either(&mut interrupt, &mut terminate).await;
        eprintln!("stopping; once more to stop at once");
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
