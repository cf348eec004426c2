//! Commands of the log, sent to the target as such.

use mongodb::bson::doc;

use super::super::failure::{code, code_of, failed, failing};
use super::super::namespace::Namespace;
use super::super::optime::OpTime;
use super::route::{Act, Command};
use super::shapes::{Shapes, encoded};
use super::wire::Wire;
use crate::error::{Kind, Result};

/// Does what one command of the log did.
///
/// # Errors
/// The server's refusal. Up to `tolerate_until` a collection may be gone already.
pub async fn apply(
    wire: &Wire<'_>,
    command: Command,
    shapes: &mut Shapes,
    tolerate_until: OpTime,
) -> Result<()> {
    let at = command.at;
    let outcome = match &command.act {
        Act::Create(ns, create) => {
            drop_collection(wire, ns).await?;
            create_collection(wire, ns, create).await
        }
        Act::Drop(ns) => drop_collection(wire, ns).await,
        Act::Rename(from, to) => rename(wire, from, to).await,
        Act::Modify(ns, modify) => match wire.command(&ns.db, modify, "collMod").await {
            Err(error) if at <= tolerate_until && error.kind() == Kind::NotFound => Ok(()),
            sent => sent.map(drop),
        },
    };
    for ns in touched(&command.act) {
        shapes.forget(ns);
    }
    outcome.map_err(|error| error.while_doing(format!("replaying {at}")))
}

fn touched(act: &Act) -> Vec<&str> {
    match act {
        Act::Create(ns, _) | Act::Drop(ns) | Act::Modify(ns, _) => vec![&ns.db],
        Act::Rename(from, to) => vec![&from.db, &to.db],
    }
}

/// What is gone already was dropped by the attempt whose answer was lost.
async fn drop_collection(wire: &Wire<'_>, ns: &Namespace) -> Result<()> {
    let command = encoded(&doc! { "drop": &ns.collection })?;
    match wire.attempt(&ns.db, &command, "drop").await?.reply {
        Err(error) if code_of(&error) != Some(code::NAMESPACE_NOT_FOUND) => {
            Err(failed(format!("dropping {ns}"), error))
        }
        _ => Ok(()),
    }
}

/// One that is there, though it was dropped, was created by the attempt whose answer was lost.
async fn create_collection(wire: &Wire<'_>, ns: &Namespace, create: &[u8]) -> Result<()> {
    let answer = wire.attempt(&ns.db, create, "create").await?;
    match answer.reply {
        Err(error) if answer.again && code_of(&error) == Some(code::NAMESPACE_EXISTS) => Ok(()),
        reply => reply.map(drop).map_err(failing(format!("creating {ns}"))),
    }
}

/// A rename whose answer was lost finds its source gone, and its target there.
async fn rename(wire: &Wire<'_>, from: &Namespace, to: &Namespace) -> Result<()> {
    let command = doc! { "renameCollection": from.to_string(), "to": to.to_string(), "dropTarget": true };
    let answer = wire.attempt("admin", &encoded(&command)?, "renameCollection").await?;
    match answer.reply {
        Err(error) if answer.again && code_of(&error) == Some(code::NAMESPACE_NOT_FOUND) => Ok(()),
        reply => reply.map(drop).map_err(failing(format!("renaming {from} to {to}"))),
    }
}
