//! The least rights, as ACL lines to paste. `AUTH` and `HELLO` need none (`CMD_NO_AUTH` in `acl.c`).

use super::config::{Place, Settings};
use crate::source::{Permission, Role};

/// To replicate: this is a backup.
const REPLICATE: &str = "+psync +replconf +ping";

/// To find a replica and the shards, and to see settings that matter: what is missing without, `check` says.
const LOOK: &str = "+info +cluster|nodes +config|get +pubsub|numsub";

/// To ask Sentinels.
const SENTINEL: &str = "+sentinel|get-master-addr-by-name +sentinel|slaves";

/// To be followed, to look before and after, and for the way by `RESTORE` commands.
const RESTORE: &str = "+info +config|get +client|info +command|info +pubsub|numsub +cluster|nodes +select \
                       +replicaof +restore +flushall +function|dump +function|flush +function|load";

/// The lines for a Redis with these settings.
pub fn permissions(settings: &Settings, role: Role) -> Vec<Permission> {
    let user = settings.access.username.as_deref().unwrap_or("tidekeeper");
    let of = |what: &str| format!("Redis ACL of {} {what}", settings.name);
    let line = |user: &str, keys: &str, rights: &str| {
        format!("ACL SETUSER {user} on >PASSWORD {keys} resetchannels -@all {rights}")
    };
    let mut permissions = Vec::new();
    if role == Role::Source {
        permissions.push(Permission {
            title: of("to be backed up, the least"),
            text: line(user, "resetkeys", REPLICATE),
        });
        permissions.push(Permission {
            title: of("to be backed up from a replica or as a cluster, and to be checked"),
            text: line(user, "resetkeys", &format!("{REPLICATE} {LOOK}")),
        });
    }
    permissions.push(Permission { title: of("to be restored into"), text: line(user, "~*", RESTORE) });
    if let Place::Sentinel(sentinel) = &settings.place {
        let user = sentinel.access.username.as_deref().unwrap_or("tidekeeper");
        let title = format!("Redis ACL of the Sentinels of {}", settings.name);
        permissions.push(Permission { title, text: line(user, "resetkeys", SENTINEL) });
    }
    permissions
}
