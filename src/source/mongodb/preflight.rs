//! What speaks against a restore: asks the target, and judges what it says.

use std::collections::BTreeSet;

use mongodb::bson::{Document, doc};

use super::client::{Link, Server, number};
use super::collections;
use super::facts::Facts;
use super::failure::{code, code_of};
use super::namespace::Namespace;
use super::plan::{Reach, Spec, Wanted, names};
use super::replay::Survey;
use crate::error::Result;
use crate::source::{Finding, Identity};
use crate::task::Task;
use crate::vault::manifest::Omission;

/// So many collections in the way are counted, for people.
const COUNTED: usize = 20;

/// So many omissions of a backup have a finding each.
const OMISSIONS_SHOWN: usize = 10;

/// Roles that may do all that a restore does, by name: not every server tells their privileges.
const ROLES: [&str; 3] = ["restore", "root", "__system"];

/// What is asked for on each database.
const ACTIONS: [&str; 4] = ["insert", "createCollection", "createIndex", "dropCollection"];

/// What a target says of itself.
#[derive(Clone, Debug)]
pub struct Estate {
    /// Which server.
    pub server: Server,
    /// Which system.
    pub identity: Identity,
    /// Its collections that the restore would write to.
    pub in_the_way: BTreeSet<Namespace>,
    /// How many documents the first of them hold.
    pub counted: Vec<(Namespace, i64)>,
    /// Whether it has users or roles of its own; also if it does not tell.
    pub has_people: bool,
    /// What our user may do.
    pub rights: Rights,
    /// Bytes of its disk, and how many of them are used; none if it does not say.
    pub disk: Option<(u64, u64)>,
}

/// What `connectionStatus` tells.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rights {
    /// Whether anybody is logged in: else the server asks for no login.
    pub is_known: bool,
    /// The names of the roles.
    pub roles: BTreeSet<String>,
    /// Privileges, where they are told.
    pub privileges: Vec<Document>,
}

impl Estate {
    /// Asks it, and looks what it has in the databases that a restore reaches.
    pub async fn ask(link: &Link, name: &str, reach: &Reach, task: &Task) -> Result<Estate> {
        let server = Server::ask(link).await?;
        let mut in_the_way = BTreeSet::new();
        for db in reach.databases() {
            let listed = collections::list(link, &db, task).await?;
            let found = listed.into_keys().map(|collection| Namespace::new(&*db, collection));
            in_the_way.extend(found.filter(|found| reach.0.contains(found)));
        }
        let mut counted = Vec::new();
        for namespace in in_the_way.iter().take(COUNTED) {
            let command = doc! { "count": &namespace.collection };
            if let Ok(reply) = link.attempt(&namespace.db, command).await? {
                counted.push((namespace.clone(), reply.get("n").and_then(number).unwrap_or_default()));
            }
        }
        let identity = server.identity(link, name);
        let (rights, disk, has_people) = (rights(link).await?, disk(link).await?, has_people(link).await?);
        Ok(Estate { server, identity, in_the_way, counted, has_people, rights, disk })
    }
}

async fn rights(link: &Link) -> Result<Rights> {
    let command = doc! { "connectionStatus": 1, "showPrivileges": true };
    let Ok(reply) = link.attempt("admin", command).await? else { return Ok(Rights::default()) };
    let documents = |name: &str| -> Vec<Document> {
        let all = reply.get_document("authInfo").and_then(|info| info.get_array(name));
        let all = all.map(|all| all.iter().filter_map(|one| one.as_document().cloned()).collect());
        all.unwrap_or_default()
    };
    let roles = documents("authenticatedUserRoles");
    Ok(Rights {
        is_known: !documents("authenticatedUsers").is_empty(),
        roles: roles.iter().filter_map(|role| role.get_str("role").ok().map(str::to_owned)).collect(),
        privileges: documents("authenticatedUserPrivileges"),
    })
}

/// Not everybody may count the collections that they lie in, and not every server tells of those of all databases: if one of the
/// ways says that there are some, there are, and if none tells, there may be.
async fn has_people(link: &Link) -> Result<bool> {
    let is_some = |n: i64| n > 0;
    let users = link.attempt("admin", doc! { "usersInfo": { "forAllDBs": true } }).await?;
    let mut told = vec![match users {
        Ok(reply) => reply.get_array("users").ok().map(|users| !users.is_empty()),
        // Who does not know what users are has none.
        Err(error) => (code_of(&error) == Some(code::COMMAND_NOT_FOUND)).then_some(false),
    }];
    for name in ["system.users", "system.roles"] {
        let counted = link.attempt("admin", doc! { "count": name }).await?;
        told.push(counted.ok().and_then(|reply| reply.get("n").and_then(number)).map(is_some));
    }
    Ok(told.contains(&Some(true)) || told.iter().all(Option::is_none))
}

async fn disk(link: &Link) -> Result<Option<(u64, u64)>> {
    let Ok(stats) = link.attempt("admin", doc! { "dbStats": 1 }).await? else { return Ok(None) };
    let bytes = |name: &str| stats.get(name).and_then(number).and_then(|bytes| u64::try_from(bytes).ok());
    Ok(bytes("fsTotalSize").filter(|total| *total > 0).zip(bytes("fsUsedSize")))
}

/// What a pre-flight looks at.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// Of which moment the backup is.
    pub facts: &'a Facts,
    /// Which of its collections are wanted.
    pub wanted: &'a [Wanted<'a>],
    /// What the log does.
    pub log: &'a Survey,
    /// How.
    pub spec: &'a Spec,
    /// What the backup lacks.
    pub omissions: &'a [Omission],
}

impl Case<'_> {
    /// Judges.
    pub fn judge(&self, estate: &Estate) -> Vec<Finding> {
        let mut findings = vec![server(&estate.server), version(self.facts, &estate.server)];
        findings.push(self.in_the_way(estate));
        findings.extend(self.people(estate));
        findings.push(self.rights(&estate.rights));
        findings.push(self.disk(estate.disk));
        findings.extend(self.of_log());
        findings.extend(self.nothing());
        findings.extend(self.omissions());
        findings
    }

    fn in_the_way(&self, estate: &Estate) -> Finding {
        let found = &estate.in_the_way;
        let what = format!("the target has {}", names(found));
        match (found.is_empty(), self.spec.drop) {
            (true, _) => Finding::ok("the target has none of the collections that are restored"),
            (false, true) => Finding::warning(what, "they are dropped first"),
            (false, false) => Finding::error(
                what,
                "restore under other names (rename=from=to), or let them be dropped first (drop=true)",
            ),
        }
    }

    fn people(&self, estate: &Estate) -> Option<Finding> {
        (self.spec.users && estate.has_people).then(|| {
            Finding::warning(
                "the target has users or roles, or does not tell",
                "those of the same names are overwritten, passwords too; to leave them as they are: users=false",
            )
        })
    }

    fn rights(&self, rights: &Rights) -> Finding {
        const ADVICE: &str = "grant the role `restore`: `tidekeeper permissions` prints how";
        if !rights.is_known {
            return Finding::ok("the target asks for no login");
        }
        if rights.roles.iter().any(|role| ROLES.contains(&role.as_str())) {
            return Finding::ok("our user has a role for restores");
        }
        let roles: Vec<&str> = rights.roles.iter().map(String::as_str).collect();
        if rights.privileges.is_empty() {
            let what =
                format!("our user has the roles {}, none of which is known to be enough", roles.join(", "));
            return Finding::warning(what, ADVICE);
        }
        let databases: BTreeSet<&str> = self.wanted.iter().map(|wanted| &*wanted.target.db).collect();
        let needed = ACTIONS.iter().filter(|action| self.spec.drop || **action != "dropCollection");
        let mut wanted = needed.flat_map(|action| databases.iter().map(move |db| (*action, *db)));
        match wanted.find(|(action, db)| !allowed(&rights.privileges, action, db)) {
            Some((action, db)) => Finding::error(format!("our user may not {action} in {db}"), ADVICE),
            None => Finding::ok("our user may write to the databases that are restored"),
        }
    }

    fn disk(&self, disk: Option<(u64, u64)>) -> Finding {
        let need: u64 = self.wanted.iter().map(|wanted| wanted.blueprint.bytes()).sum();
        let need_words = format!("the documents are {} MiB before the server compresses them", need >> 20);
        match disk {
            None => Finding::warning(
                format!("{need_words}, and the target does not say how much room it has"),
                "see for yourself that it fits",
            ),
            Some((total, used)) if total.saturating_sub(used) < need => Finding::warning(
                format!(
                    "{need_words}, and the target's disk has {} MiB left",
                    total.saturating_sub(used) >> 20
                ),
                "give it more room, or restore some of the collections (include=PATTERN)",
            ),
            Some(_) => Finding::ok(format!("{need_words}; the target has that much room")),
        }
    }

    fn of_log(&self) -> Vec<Finding> {
        let Survey { tally, open, .. } = self.log;
        let mut findings = Vec::new();
        if let Some(first) = tally.split.first {
            let (count, left_out) = (tally.split.transactions, tally.split.left_out);
            findings.push(Finding::warning(
                format!("the selection splits {count} transactions, the first at {first}"),
                format!("{left_out} of their operations are outside of it, and are not restored"),
            ));
        }
        if !open.is_empty() {
            findings.push(Finding::warning(
                format!("{} transactions were not committed at that moment", open.len()),
                "nothing of them is restored, as nobody saw anything of them then",
            ));
        }
        if tally.users > 0 {
            findings.push(Finding::warning(
                format!("the log changes users and roles {} times", tally.users),
                "they are restored as the backup has them",
            ));
        }
        findings
    }

    /// A selection of nothing is a slip of the pen.
    fn nothing(&self) -> Option<Finding> {
        let is_empty =
            self.wanted.is_empty() && self.log.tally.ops + self.log.tally.commands == 0 && !self.spec.users;
        let is_selection = !self.spec.include.is_empty();
        (is_empty && is_selection).then(|| {
            let what = format!("nothing in the backup matches {}", self.spec.include.join(", "));
            Finding::error(what, "look at the names: `tidekeeper show SOURCE/ID`")
        })
    }

    fn omissions(&self) -> Vec<Finding> {
        let one = |omission: &Omission| {
            Finding::warning(format!("the backup lacks {}", omission.what), omission.why.clone())
        };
        let mut findings: Vec<Finding> = self.omissions.iter().take(OMISSIONS_SHOWN).map(one).collect();
        let more = self.omissions.len().saturating_sub(OMISSIONS_SHOWN);
        if more > 0 {
            let what = format!("the backup lacks {more} more");
            findings.push(Finding::warning(what, "`tidekeeper show SOURCE/ID` names them"));
        }
        findings
    }
}

fn server(server: &Server) -> Finding {
    let name = format!("the target is a MongoDB {}", server.version);
    match server.is_router {
        true => Finding::error(
            format!("{name}, the router of a sharded cluster"),
            "a sharded cluster cannot be restored into: name a replica set",
        ),
        false => Finding::ok(name),
    }
}

fn version(facts: &Facts, server: &Server) -> Finding {
    let Some(version) = &facts.version else {
        return Finding::warning(
            "the backup does not say of which version its source was",
            "the target must know all options of its collections and indexes",
        );
    };
    let source = Server { version: version.clone(), ..Server::default() };
    match server.release() < source.release() {
        true => Finding::warning(
            format!("the target's version is {}, older than the source's {version}", server.version),
            "options that it does not know are refused: collections by an error, indexes by an omission",
        ),
        false => Finding::ok(format!("the target is not older than the source, {version}")),
    }
}

/// Whether some privilege covers ordinary collections of this database.
fn allowed(privileges: &[Document], action: &str, db: &str) -> bool {
    privileges.iter().any(|privilege| {
        let Ok(resource) = privilege.get_document("resource") else { return false };
        let any = resource.get_bool("anyResource").unwrap_or(false);
        let of_db = resource.get_str("db").is_ok_and(|of| of.is_empty() || of == db);
        let whole = resource.get_str("collection").is_ok_and(str::is_empty);
        let has = privilege.get_array("actions").is_ok_and(|actions| {
            actions.iter().any(|has| has.as_str().is_some_and(|has| has == action || has == "anyAction"))
        });
        has && (any || of_db && whole)
    })
}
