//! An operator's words about a backup: hold it, hold it no more, accept it.

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{App, Named};
use crate::engine::work::{Action, Attempt, Done, Grade, Order, Work};
use crate::error::Result;
use crate::task::Task;
use crate::vault::accept::accept;
use crate::vault::hold::{hold, unhold};
use crate::vault::layout::BackupRef;

/// What an order to hold says.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Hold {
    backup: BackupRef,
    reason: String,
    /// None: until somebody ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
}

enum Word {
    Hold(Hold),
    Unhold(Named),
    Accept(Named),
}

/// Writes or ends a mark.
pub struct Mark {
    app: App,
    order: Order,
    word: Word,
}

impl Mark {
    /// The work that `order` asks for.
    pub fn new(app: &App, order: &Order) -> Result<Self> {
        let word = match order.action {
            Action::Hold => Word::Hold(super::params(order)?),
            Action::Unhold => Word::Unhold(super::params(order)?),
            _ => Word::Accept(super::params(order)?),
        };
        Ok(Mark { app: app.clone(), order: order.clone(), word })
    }

    /// The order to hold `backup`; without `until`, until somebody ends it.
    pub fn hold(backup: BackupRef, reason: String, until: Option<Timestamp>) -> Order {
        let source = Some(backup.source.clone());
        Order { action: Action::Hold, source, params: json!(Hold { backup, reason, until }) }
    }

    async fn write(&self, attempt: &Attempt) -> Result<String> {
        let (vault, by) = (&self.app.vault, &*attempt.principal);
        match &self.word {
            Word::Hold(Hold { backup, reason, until }) => {
                // The hold outlives this work: only `unhold`, or its own end, ends it.
                let _held = hold(vault, backup, attempt.run.as_str(), by, reason, *until).await?;
                Ok(match until {
                    Some(until) => format!("{backup} is held until {until}"),
                    None => format!("{backup} is held until somebody ends that"),
                })
            }
            Word::Unhold(Named { backup }) => Ok(match unhold(vault, backup).await? {
                0 => format!("{backup} was not held by an operator"),
                ended => format!("{backup}: {ended} holds ended"),
            }),
            Word::Accept(Named { backup }) => {
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

    async fn run(&self, task: &Task, attempt: &Attempt) -> Result<Done> {
        let summary = task.guard(self.write(attempt)).await?;
        Ok(Done { status: Grade::Succeeded, summary, detail: Value::Null })
    }
}
