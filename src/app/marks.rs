//! An operator's words about a backup: hold it, hold it no more, accept it.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::App;
use crate::engine::work::{Action, Attempt, Order, Outcome, Status, Work};
use crate::error::Result;
use crate::task::Task;
use crate::vault::accept::accept;
use crate::vault::hold::{hold, unhold};
use crate::vault::layout::BackupRef;

/// What an order to hold, unhold or accept says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkParams {
    /// Which backup.
    pub backup: BackupRef,
    /// For a hold: why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// For a hold: until when; none: until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

impl MarkParams {
    /// The order to do `action` with these.
    pub fn order(self, action: Action) -> Order {
        Order { action, source: Some(self.backup.source.clone()), params: json!(self) }
    }
}

/// Writes or ends a mark.
pub struct Mark {
    app: App,
    order: Order,
    params: MarkParams,
}

impl Mark {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order) -> Result<Self> {
        Ok(Mark { app: app.clone(), order: order.clone(), params: super::params(order)? })
    }

    async fn write(&self, attempt: &Attempt) -> Result<String> {
        let (vault, backup, by) = (&self.app.vault, &self.params.backup, &*attempt.principal);
        match self.order.action {
            Action::Hold => {
                let reason = self.params.reason.as_deref().unwrap_or("no reason given");
                let name = attempt.run.to_string();
                // The hold outlives this work: only `unhold`, or its own end, ends it.
                let _held = hold(vault, backup, &name, by, reason, self.params.until).await?;
                Ok(match self.params.until {
                    Some(until) => format!("{backup} is held until {until}"),
                    None => format!("{backup} is held until somebody ends that"),
                })
            }
            Action::Unhold => Ok(match unhold(vault, backup).await? {
                0 => format!("{backup} was not held by an operator"),
                ended => format!("{backup}: {ended} holds ended"),
            }),
            _ => {
                accept(vault, backup, by).await?;
                Ok(format!("{backup} is accepted: it counts as good, and later ones are measured by it"))
            }
        }
    }
}

#[async_trait]
impl Work for Mark {
    fn order(&self) -> &Order {
        &self.order
    }

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Outcome> {
        let summary = task.guard(self.write(attempt)).await?;
        Ok(Outcome { status: Status::Succeeded, summary, detail: Value::Null })
    }
}
