//! `tidekeeper permissions`: the least rights that this configuration needs, ready to paste.

use serde_json::{Value, json};

use super::context::Context;
use super::document;
use super::look::{Look, Tone};
use super::outcome::Outcome;
use crate::app::permissions;
use crate::error::Result;

/// Print the least rights that this configuration needs, ready to paste
#[derive(clap::Args, Clone, Debug)]
pub struct Args {}

/// Prints the rights; reaches nothing.
pub async fn run(_: Args, context: &Context) -> Result<Outcome> {
    let config = context.config()?;
    let document = json!({ "permissions": permissions(&config)? });
    let text = text(&document, &context.look);
    Ok(Outcome::done(document, text))
}

fn text(document: &Value, look: &Look) -> String {
    let rights = document::items(document, "/permissions").iter().map(|right| {
        let title = look.paint(Tone::Strong, &format!("# {}", document::text(right, "/title")));
        format!("{title}\n{}\n", document::text(right, "/text").trim_end())
    });
    rights.collect::<Vec<_>>().join("\n")
}
