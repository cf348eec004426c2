//! `tidekeeper init`: makes the vault.

use serde_json::json;

use super::context::Context;
use super::outcome::Outcome;
use super::{document, human};
use crate::error::Result;
use crate::vault::place::{self, Init};
use crate::vault::probe;

/// Make the vault, after a probe of what the store really does
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// Probes the store, then makes the vault; harmless where one is.
pub async fn run(_: Args, context: &Context) -> Result<Outcome> {
    let config = context.config()?;
    let store = place::open_store(&config.vault, context.clock.clone()).await?;
    let findings = probe::probe(&store, &context.clock, config.single_writer).await?;
    probe::refuse(&*store, &findings)?;
    let made = place::init(&*store, &*context.clock).await?;
    let place = config.vault.to_string();
    let (created, sentence) = match made {
        Init::Created => (true, format!("there is a new vault at {place}")),
        Init::AlreadyThere(since) => {
            (false, format!("there is a vault at {place} already, since {}", human::time(since)))
        }
    };
    let document = json!({ "vault": place, "created": created, "findings": findings });
    let findings = document::findings(document::items(&document, "/findings"), &context.look);
    Ok(Outcome::done(document, format!("{findings}{sentence}\n")))
}
