//! Users and roles: merged by the server itself out of two collections that exist only meanwhile, as the stock tools do it.
//!
//! Their passwords are hashes: `createUser` takes none, so there is no other way.

use std::time::Duration;

use mongodb::bson::{Document, doc};
use tokio_util::sync::CancellationToken;

use super::client::Link;
use super::collections;
use super::documents::{Cargo, Loader};
use super::failure::{code, code_of, failed};
use super::namespace::Namespace;
use super::steady;
use crate::error::{Error, Result};
use crate::task::Task;
use crate::vault::manifest::{Artifact, Omission};
use crate::vault::reader::BackupReader;

const USERS: &str = "admin/system.users.bson";
const ROLES: &str = "admin/system.roles.bson";

/// Where they are meanwhile.
const USERS_MEANWHILE: &str = "tidekeeper_users";
const ROLES_MEANWHILE: &str = "tidekeeper_roles";

/// How long taking them away may last after the end of everything else: less than a run is given for that.
const LAST_LIMIT: Duration = Duration::from_secs(20);

const LEFT_BEHIND: &str =
    "drop admin.tidekeeper_users and admin.tidekeeper_roles, where they are: hashes of passwords lie in them";

/// The artifacts of a backup that hold users and roles; none if it has neither.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct People {
    /// The users.
    pub users: Option<Artifact>,
    /// The roles that somebody defined.
    pub roles: Option<Artifact>,
}

impl People {
    /// Of this backup.
    pub fn of(from: &BackupReader) -> People {
        let find = |name: &str| {
            let mut artifacts = from.manifest.artifacts.iter();
            artifacts.find(|artifact| artifact.name == name && artifact.plain.bytes > 0).cloned()
        };
        People { users: find(USERS), roles: find(ROLES) }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.users.is_none() && self.roles.is_none()
    }

    /// Merges them into those that the target has: same names are overwritten, others stay.
    pub async fn restore(&self, link: &Link, loader: &Loader<'_>, task: &Task) -> Result<Option<Omission>> {
        if let Some(why) = refused(link, task).await? {
            return Ok(Some(omission(why)));
        }
        let merged = self.merge(link, loader, task).await;
        // Hashes of passwords lie in them: whatever came of it, they go, even if somebody asked for an end.
        let deadline = task.clock.monotonic() + LAST_LIMIT;
        let last = Task { cancel: CancellationToken::new(), deadline, ..task.clone() };
        let (users, roles) = (meanwhile(USERS_MEANWHILE), meanwhile(ROLES_MEANWHILE));
        let (users, roles) =
            tokio::join!(collections::drop(link, &users, &last), collections::drop(link, &roles, &last),);
        let left = |error: Error| error.hint_first(LEFT_BEHIND);
        match (merged, users.and(roles)) {
            (Ok(merged), gone) => gone.map_err(left).map(|()| merged.map(omission)),
            (Err(error), Ok(())) => Err(error),
            (Err(error), Err(_)) => Err(left(error)),
        }
    }

    /// The server's words if it refuses.
    async fn merge(&self, link: &Link, loader: &Loader<'_>, task: &Task) -> Result<Option<String>> {
        let parts = [
            (&self.users, USERS_MEANWHILE, "tempUsersCollection"),
            (&self.roles, ROLES_MEANWHILE, "tempRolesCollection"),
        ];
        let mut merge = doc! { "_mergeAuthzCollections": 1, "db": "", "drop": false };
        for (artifact, name, key) in parts {
            let Some(artifact) = artifact.clone() else { continue };
            let into = meanwhile(name);
            collections::drop(link, &into, task).await?;
            merge.insert(key, into.to_string());
            loader.load(&[Cargo { artifact, into, in_order: false, raw: false }]).await?;
        }
        merge.insert("writeConcern", doc! { "w": "majority" });
        let merged = steady::command(link, "admin", "merging users and roles", task, &merge).await?;
        Ok(merged.reply.err().map(|error| failed("merging users and roles", error).why().to_owned()))
    }
}

/// Asked for nothing, a server that could do it complains of that, and another one that it may not or does not know how.
async fn refused(link: &Link, task: &Task) -> Result<Option<String>> {
    let probe: Document = doc! { "_mergeAuthzCollections": 1, "db": "", "drop": false };
    let answer = steady::command(link, "admin", "asking whether users can be restored", task, &probe).await?;
    Ok(match answer.reply {
        Err(error) => match code_of(&error) {
            Some(code::COMMAND_NOT_FOUND) => {
                Some("the target has no way to take them (_mergeAuthzCollections)".to_owned())
            }
            Some(code::UNAUTHORIZED) => Some(failed("asking", error).why().to_owned()),
            _ => None,
        },
        Ok(_) => None,
    })
}

fn meanwhile(name: &str) -> Namespace {
    Namespace::new("admin", name)
}

fn omission(why: String) -> Omission {
    Omission { what: "users and roles".to_owned(), why }
}
