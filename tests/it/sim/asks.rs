//! What people order, as the command line and the API order it.

use jiff::Timestamp;
use serde_json::json;
use tidekeeper::app::{Mark, Named, ScrubParams};
use tidekeeper::engine::request::Ask;
use tidekeeper::engine::work::{Action, Order};
use tidekeeper::vault::layout::BackupRef;

use super::system::DEADLINE;
use crate::engine::world::source;

pub fn ask(order: Order, key: &str) -> Ask {
    Ask {
        principal: "ada".to_owned(),
        route: "simulated".to_owned(),
        idempotency: Some(key.to_owned()),
        body: json!(order),
        order,
        deadline: DEADLINE,
    }
}

pub fn backup() -> Order {
    Order::new(Action::Backup, Some(source("a")))
}

pub fn restore(backup: BackupRef) -> Order {
    let params = json!({ "backup": backup, "at": null, "options": {}, "confirm": null });
    Order { action: Action::Restore, source: Some(source("a")), params }
}

pub fn verify(backup: BackupRef) -> Order {
    Named::order(Action::Verify, backup)
}

pub fn hold(backup: BackupRef, until: Option<Timestamp>) -> Order {
    Mark::hold(backup, "an audit".to_owned(), until)
}

pub fn unhold(backup: BackupRef) -> Order {
    Named::order(Action::Unhold, backup)
}

pub fn accept(backup: BackupRef) -> Order {
    Named::order(Action::Accept, backup)
}

pub fn retention() -> Order {
    Order { params: json!({ "apply": true }), ..Order::new(Action::Retention, Some(source("a"))) }
}

pub fn scrub() -> Order {
    ScrubParams::default().order()
}
