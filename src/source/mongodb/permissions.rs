//! The least rights, as lines for mongosh.

use super::config::Settings;
use crate::source::{Permission, Role};

/// To read everything, the oplog too; and to see the replica set's id and the sizes.
const READ: [&str; 2] = ["backup", "clusterMonitor"];

/// To create, fill and index everything, to replay a log (updates and deletes too), to compare afterwards.
const WRITE: [&str; 3] = ["restore", "readWriteAnyDatabase", "clusterMonitor"];

/// The lines for a deployment with these settings.
pub fn permissions(settings: &Settings, role: Role) -> Vec<Permission> {
    let user = settings.username.as_deref().unwrap_or("tidekeeper");
    let user = serde_json::Value::from(user);
    let line = |what: &str, roles: &[&str]| {
        let roles: Vec<String> =
            roles.iter().map(|role| format!("{{ role: \"{role}\", db: \"admin\" }}")).collect();
        Permission {
            title: format!("MongoDB roles of {} {what}", settings.name),
            text: format!(
                "db.getSiblingDB(\"admin\").createUser({{ user: {user}, pwd: passwordPrompt(), roles: [{}] }})",
                roles.join(", ")
            ),
        }
    };
    let into = line("to be restored into", &WRITE);
    match role {
        Role::Source => vec![line("to be backed up and followed", &READ), into],
        Role::Target => vec![into],
    }
}
