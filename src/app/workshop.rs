//! From an order to the work that does it.

use std::sync::Arc;

use super::App;
use super::backup::Backup;
use super::follow::{Follow, Seal};
use super::marks::Mark;
use super::restore::Restore;
use super::upkeep::{Retain, Scrub};
use super::verify::Verify;
use crate::engine::followers::Follower;
use crate::engine::work::{Action, Order, Work, Workshop};
use crate::error::{Error, Kind, Result};

impl Workshop for App {
    fn make(&self, order: &Order) -> Result<Box<dyn Work>> {
        let refuse = |kind, why| Err(Error::new(kind, format!("reading the order to {order}"), why));
        match (order.action, &order.source) {
            (Action::Backup, Some(source)) => Ok(Box::new(Backup::new(self, order, source)?)),
            (Action::Backup, None) => refuse(Kind::Usage, "it names no source"),
            (Action::Restore, _) => Ok(Box::new(Restore::new(self, order)?)),
            (Action::Verify, _) => Ok(Box::new(Verify::new(self, order)?)),
            (Action::Hold | Action::Unhold | Action::Accept, _) => Ok(Box::new(Mark::new(self, order)?)),
            (Action::Retention, _) => Ok(Box::new(Retain::new(self, order))),
            (Action::Seal, Some(source)) => Ok(Box::new(Seal::new(self, order, source)?)),
            (Action::Seal, None) => refuse(Kind::Usage, "it names no source"),
            (Action::Scrub, _) => Ok(Box::new(Scrub::new(self, order)?)),
            (Action::Drill | Action::Other, _) => {
                refuse(Kind::Unsupported, "this build does not know that action")
            }
        }
    }

    fn again(&self, order: &Order) -> Option<String> {
        self.restore_again(order)
    }

    fn followers(&self) -> Vec<Arc<dyn Follower>> {
        Follow::all(self)
    }
}
