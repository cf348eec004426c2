//! What speaks against a restore: asks the target, and judges what it says.

use std::collections::{BTreeMap, BTreeSet};

use mongodb::bson::{Document, doc};

use super::client::{Link, Server, number};
use super::collections::{self, Listed};
use super::facts::Facts;
use super::failure::{code, code_of};
use super::namespace::{Namespace, is_own};
use super::plan::{Reach, Spec, Wanted, names};
use super::replay::Survey;
use super::selection::{Idle, Selection, What};
use crate::config::shape::nearest;
use crate::error::{Kind, Result};
use crate::source::{Finding, Identity};
use crate::task::Task;
use crate::vault::manifest::Omission;
use crate::words::{bytes, counted};

/// So many collections in the way are counted, for people.
const COUNTED: usize = 20;

/// So many omissions of a backup have a finding each.
const OMISSIONS_SHOWN: usize = 10;

/// So few bytes have room wherever a server runs.
const FITS_ANYWHERE: u64 = 64 << 20;

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
    pub in_the_way: BTreeMap<Namespace, Listed>,
    /// How many documents the first of them hold; a view holds none itself.
    pub counted: Vec<(Namespace, Option<u64>)>,
    /// Its collections that stay although all under such names is to be replaced: the source had none of these names.
    pub staying: BTreeSet<Namespace>,
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

/// What a restore that drops what is in the way is thought to take besides.
#[derive(Clone, Copy, Debug)]
pub struct Beyond<'a> {
    /// How it is wanted.
    pub spec: &'a Spec,
    /// Of what.
    pub selection: &'a Selection,
}

impl Beyond<'_> {
    /// All databases, where all of them are to be as they were; else the restore's own are enough to look at.
    async fn databases(&self, link: &Link) -> Result<BTreeSet<String>> {
        match self.spec.drop && self.spec.include.is_empty() {
            true => Ok(collections::databases(link).await?.into_iter().collect()),
            false => Ok(BTreeSet::new()),
        }
    }

    fn takes(&self, found: &Namespace) -> bool {
        self.spec.drop && found.db != "admin" && !is_own(&found.db) && self.selection.reaches(found)
    }
}

impl Estate {
    /// Asks it, and looks what it has in the databases that a restore reaches, and beyond.
    pub async fn ask(
        link: &Link,
        name: &str,
        reach: &Reach,
        beyond: &Beyond<'_>,
        task: &Task,
    ) -> Result<Estate> {
        let server = Server::ask(link).await?;
        let (mut in_the_way, mut staying) = (BTreeMap::new(), BTreeSet::new());
        let reached = reach.databases();
        for db in &reached | &beyond.databases(link).await? {
            let listed = match collections::list(link, &db, task).await {
                Err(error) if error.kind() == Kind::Denied && !reached.contains(&db) => continue,
                listed => listed?,
            };
            for (collection, listed) in listed {
                let found = Namespace::new(&*db, collection);
                if reach.0.contains(&found) {
                    in_the_way.insert(found, listed);
                } else if beyond.takes(&found) {
                    staying.insert(found);
                }
            }
        }
        let counted = count(link, in_the_way.iter().take(COUNTED)).await?;
        let identity = server.identity(link, name);
        let (rights, disk, has_people) = (rights(link).await?, disk(link).await?, has_people(link).await?);
        Ok(Estate { server, identity, in_the_way, counted, staying, has_people, rights, disk })
    }
}

/// How many documents these hold, where that is told.
async fn count(
    link: &Link,
    of: impl Iterator<Item = (&Namespace, &Listed)>,
) -> Result<Vec<(Namespace, Option<u64>)>> {
    let mut counted = Vec::new();
    for (namespace, listed) in of {
        if listed.kind == "view" {
            counted.push((namespace.clone(), None));
            continue;
        }
        let command = doc! { "count": &namespace.collection };
        if let Ok(reply) = link.attempt(&namespace.db, command).await? {
            let count = reply.get("n").and_then(number).and_then(|count| u64::try_from(count).ok());
            counted.push((namespace.clone(), Some(count.unwrap_or_default())));
        }
    }
    Ok(counted)
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
    /// Every collection that the backup has, or that the log says something of.
    pub names: &'a BTreeSet<&'a Namespace>,
    /// Which of them were asked for, and under which names.
    pub selection: &'a Selection,
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
        findings.extend(self.selected());
        findings.push(self.in_the_way(estate));
        findings.extend(staying(&estate.staying));
        findings.extend(self.people(estate));
        findings.push(self.rights(&estate.rights));
        findings.push(self.disk(estate.disk));
        findings.extend(self.of_log());
        findings.extend(self.omissions());
        findings
    }

    fn in_the_way(&self, estate: &Estate) -> Finding {
        let found = &estate.in_the_way;
        let what = format!("the target has {}", names(found.keys()));
        let (it_is, them) = if found.len() == 1 { ("it is", "it") } else { ("they are", "them") };
        match (found.is_empty(), self.spec.drop) {
            (true, _) => Finding::ok("the target has none of the collections that are restored"),
            (false, true) => Finding::warning(what, format!("{it_is} dropped first")),
            (false, false) => Finding::refused(
                what,
                format!(
                    "restore under other names (--rename FROM=TO), or let {them} be dropped first (--drop)"
                ),
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
        if need == 0 {
            return Finding::ok("what is brought from the backup has no documents");
        }
        let tables = self.wanted.iter().filter(|wanted| wanted.blueprint.documents.is_some()).count();
        let tables = counted(tables as u64, "collection");
        let need_words =
            format!("the documents of {tables} are {} before the server compresses them", bytes(need));
        match disk {
            None if need < FITS_ANYWHERE => Finding::ok(need_words),
            None => Finding::warning(
                format!("{need_words}, and the target does not say how much room it has"),
                "see for yourself that it fits",
            ),
            Some((total, used)) if total.saturating_sub(used) < need => Finding::warning(
                format!("{need_words}, and the target's disk has {} left", bytes(total.saturating_sub(used))),
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
                format!("the selection splits {}, the first at {first}", counted(count, "transaction")),
                format!("not restored, because outside of it: {}", counted(left_out, "operation")),
            ));
        }
        if !open.is_empty() {
            findings.push(Finding::warning(
                format!("not committed at that moment: {}", counted(open.len() as u64, "transaction")),
                "nothing of that is restored, as nobody saw anything of it then",
            ));
        }
        if tally.users > 0 {
            findings.push(Finding::warning(
                format!("the log has {} of users or roles", counted(tally.users, "change")),
                "they are restored as the backup has them",
            ));
        }
        findings
    }

    /// What was typed and cannot be had: before anything is written, all at once.
    fn selected(&self) -> Vec<Finding> {
        let names = || self.names.iter().copied();
        let mut findings: Vec<Finding> =
            self.selection.idle(names()).into_iter().map(|idle| self.idle(&idle)).collect();
        let is_empty = self.wanted.is_empty() && self.log.tally.changed().is_empty() && !self.spec.users;
        if findings.is_empty() && is_empty {
            findings.push(match self.spec.include.join(", ") {
                all if all.is_empty() => Finding::warning(
                    "the backup has no collections, so nothing is restored",
                    "see that it is the right one: `tidekeeper backups` lists all",
                ),
                include => Finding::error(
                    format!("nothing that can be restored matches {include}"),
                    "databases of the server's own are not restored into another",
                ),
            });
        }
        findings.extend(
            self.selection
                .clash(names())
                .map(|clash| Finding::error(clash.to_string(), "rename one of them too, or leave it out")),
        );
        findings.extend(self.selection.too_long(names()).into_iter().map(|target| {
            Finding::error(format!("no server takes a name as long as {target}"), "choose a shorter one")
        }));
        findings
    }

    fn idle(&self, Idle { what, name }: &Idle) -> Finding {
        let option = match what {
            What::RenameOfLeftOut => {
                let advice = format!("add --include {name}, or leave the renaming out");
                return Finding::error(
                    format!("{name} is to be renamed, and --include leaves it out"),
                    advice,
                );
            }
            What::Include => "include",
            What::Rename => "rename",
        };
        let log = if self.log.last.is_some() { ", nor in the log up to that moment" } else { "" };
        let there = self.names.iter().copied().filter(|there| !is_own(&there.db));
        let known: BTreeSet<String> = match name.contains('.') {
            true => there.clone().map(ToString::to_string).collect(),
            false => there.clone().map(|there| there.db.clone()).collect(),
        };
        let near = nearest(name, known.iter().map(String::as_str));
        let near = near.map(|near| format!("did you mean {near}? ")).unwrap_or_default();
        let all = match self.names.is_empty() {
            true => "there is nothing".to_owned(),
            false => format!("there are {}", names(there)),
        };
        Finding::error(format!("--{option} {name}: there is no such name in the backup{log}"), near + &all)
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

/// A restore takes away only what it brings anew.
fn staying(staying: &BTreeSet<Namespace>) -> Option<Finding> {
    let first = staying.first()?;
    let count = counted(staying.len() as u64, "collection");
    let what =
        format!("the target has {count} that the source did not have at that moment: {}", names(staying));
    let drop = format!("db.getSiblingDB({:?}).getCollection({:?}).drop()", first.db, first.collection);
    Some(Finding::warning(what, format!("not dropped; to be rid of such a one, in mongosh: {drop}")))
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
