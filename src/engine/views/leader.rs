//! Who leads, as far as it can be told from here: where nobody does, no schedule runs and no log is followed.

use jiff::Timestamp;
use serde::Serialize;

use super::source::Advice;
use crate::engine::Engine;
use crate::engine::host::Fate;
use crate::engine::leader::{Generation, regard};
use crate::error::{Error, Result};
use crate::vault::decide::set_aside;

/// The process that was the last to win the lead.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LeaderView {
    /// Its generation.
    pub generation: u64,
    /// Its cluster or machine.
    pub domain: String,
    /// Its host.
    pub host: String,
    /// Its process id there.
    pub pid: u32,
    /// When it won.
    pub since: Timestamp,
    /// Whether it lives and works; absent where nobody can tell: it runs where we cannot look, and left no question open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alive: Option<bool>,
}

impl LeaderView {
    fn of(leader: Generation, fate: Fate) -> Self {
        LeaderView {
            generation: leader.generation,
            domain: leader.domain,
            host: leader.holder.host,
            pid: leader.holder.pid,
            since: leader.at,
            alive: match fate {
                Fate::Alive => Some(true),
                Fate::Gone | Fate::Stopped => Some(false),
                Fate::Unknown => None,
            },
        }
    }
}

impl Engine {
    /// Who leads, and what is wrong about that where schedules wait for it.
    pub(super) async fn leader(&self) -> Result<(Option<LeaderView>, Vec<Advice>)> {
        let mut unreadable = Vec::new();
        let read = regard(&self.0.vault, &*self.0.host).await;
        let Some(found) = set_aside(read, &mut unreadable)? else {
            return Ok((None, unreadable.iter().map(hidden).collect()));
        };
        let is_stopped = matches!(found, Some((_, Fate::Stopped)));
        let leader = found.map(|(leader, fate)| LeaderView::of(leader, fate));
        let is_needed = !self.0.timetable.lines.is_empty() || !self.0.workshop.followers().is_empty();
        let missed = nobody_leads(leader.as_ref(), is_stopped).filter(|_| is_needed);
        Ok((leader, missed.into_iter().collect()))
    }
}

/// What to say of a newest generation that cannot be read. It must never be deleted: its number would be won again, and
/// whoever led by it before would not see that somebody else does.
fn hidden(unreadable: &Error) -> Advice {
    let advice =
        "bring back the object's earlier version, and do not delete it: until it can be read nobody leads";
    Advice { what: unreadable.to_string(), advice: advice.to_owned() }
}

/// What to say where it is known that nobody leads.
fn nobody_leads(last: Option<&LeaderView>, is_stopped: bool) -> Option<Advice> {
    let last = match last {
        None => "nobody ever led this vault".to_owned(),
        Some(LeaderView { host, pid, since, .. }) if is_stopped => {
            let what = format!(
                "no daemon works, so nothing runs by itself: process {pid} of {host}, which leads since {since}, is stopped \
                 (SIGSTOP)"
            );
            return Some(Advice {
                what,
                advice: format!("let it go on: `kill -CONT {pid}`; or start another `tidekeeper serve`"),
            });
        }
        Some(LeaderView { alive: Some(false), host, pid, since, .. }) => {
            format!(
                "the last was process {pid} of {host}, which led since {since} and is gone or does not answer"
            )
        }
        Some(_) => return None,
    };
    let what = format!("no daemon leads, so nothing runs by itself: {last}");
    Some(Advice { what, advice: "start `tidekeeper serve`".to_owned() })
}
