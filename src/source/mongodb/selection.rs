//! Which namespaces a restore takes, and what they are called in the target.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::namespace::{BUCKETS, Namespace};
use crate::error::{Error, Kind, Result};

/// A database's name is shorter than this many bytes.
const DB_MAX: usize = 64;

/// `db.collection` has at most so many bytes.
const NAMESPACE_MAX: usize = 255;

/// Which namespaces are wanted, and under which names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Any of them; none: everything.
    include: Vec<Pattern>,
    databases: BTreeMap<String, String>,
    collections: BTreeMap<Namespace, Namespace>,
    /// Not wanted themselves, but what becomes of them; see [`following`](Self::following).
    followed: BTreeMap<Namespace, Namespace>,
}

/// `db`, `db.*`, `db.coll`; a `*` stands for anything, inside names too.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Pattern {
    db: String,
    collection: String,
}

/// A name that was typed and means nothing that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// What it was typed for.
    pub what: What,
    /// As it was typed: a database, `db.collection`, or a pattern.
    pub name: String,
}

/// What an idle name was typed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// `--include`.
    Include,
    /// `--rename`.
    Rename,
    /// `--rename` of something that is there, and that `--include` leaves out.
    RenameOfLeftOut,
}

/// Two collections that would become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Both of them.
    pub sources: [Namespace; 2],
    /// What both would be called.
    pub target: Namespace,
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [one, other] = &self.sources;
        write!(f, "{one} and {other} would both become {}", self.target)
    }
}

impl Selection {
    /// From `--include` and `--rename` as they were typed.
    ///
    /// # Errors
    /// `Usage` naming the one that cannot be meant.
    pub fn parse(include: &[String], rename: &[String]) -> Result<Selection> {
        let include = include.iter().map(|text| pattern(text)).collect::<Result<_>>()?;
        let mut selection = Selection { include, ..Selection::default() };
        let mut targets = BTreeSet::new();
        for text in rename {
            let to = selection.add_rename(text)?;
            if !targets.insert(to.to_owned()) {
                return Err(mistyped("rename", text, format!("two sources would become {to}")));
            }
        }
        Ok(selection)
    }

    /// Whether nothing is left out and nothing renamed.
    pub fn is_everything(&self) -> bool {
        self.include.is_empty() && self.databases.is_empty() && self.collections.is_empty()
    }

    /// With these collections too, by their names in the source, and what they are called in the target: the log makes them, and
    /// lets them become some that are wanted.
    pub fn following(mut self, followed: &BTreeMap<Namespace, Namespace>) -> Selection {
        self.followed.clone_from(followed);
        self
    }

    /// Whether it is taken only because of what becomes of it.
    pub fn is_followed(&self, source: &Namespace) -> bool {
        self.followed.contains_key(source)
    }

    /// What a collection is called in the target; none: it is not wanted.
    pub fn target(&self, source: &Namespace) -> Option<Namespace> {
        let (prefix, name) = match source.collection.strip_prefix(BUCKETS) {
            Some(series) => (BUCKETS, Namespace::new(&*source.db, series)),
            None => ("", source.clone()),
        };
        let wanted = self.include.is_empty() || self.include.iter().any(|pattern| pattern.takes(&name));
        if !wanted {
            return self.followed.get(source).cloned();
        }
        let mut target = match (self.collections.get(&name), self.databases.get(&name.db)) {
            (Some(to), _) => to.clone(),
            (None, Some(db)) => Namespace::new(&**db, name.collection),
            (None, None) => name,
        };
        target.collection.insert_str(0, prefix);
        Some(target)
    }

    /// The first two of these that would become one collection.
    pub fn clash<'a>(&self, sources: impl IntoIterator<Item = &'a Namespace>) -> Option<Clash> {
        let mut taken: BTreeMap<Namespace, &Namespace> = BTreeMap::new();
        for source in sources {
            let Some(target) = self.target(source) else { continue };
            match taken.insert(target.clone(), source) {
                Some(other) if other != source => {
                    return Some(Clash { sources: [other.clone(), source.clone()], target });
                }
                _ => {}
            }
        }
        None
    }

    /// Whether a collection of the target has a name that one of the source could have been brought to: whoever wants all of
    /// what this selects may think that it goes, if the source has none that comes there.
    pub fn reaches(&self, target: &Namespace) -> bool {
        let dbs = self.databases.iter().filter(|(_, to)| **to == target.db);
        let dbs = dbs.map(|(from, _)| Namespace::new(&**from, &*target.collection));
        let collections = self.collections.iter().filter(|(_, to)| *to == target);
        let mut sources = dbs.chain(collections.map(|(from, _)| from.clone())).chain([target.clone()]);
        sources.any(|source| self.target(&source).as_ref() == Some(target))
    }

    /// Which of the names that were typed mean none of these: a typing error would else restore less than was wanted, without a
    /// word.
    pub fn idle<'a>(&self, sources: impl Iterator<Item = &'a Namespace> + Clone) -> Vec<Idle> {
        let is_there = |means: &dyn Fn(&Namespace) -> bool| sources.clone().any(means);
        let patterns = self.include.iter().filter(|pattern| !is_there(&|source| pattern.takes(source)));
        let patterns = patterns.map(|pattern| Idle { what: What::Include, name: pattern.text() });
        // What is left out is renamed to nothing, too.
        let renamed = |name: String, means: &dyn Fn(&Namespace) -> bool| {
            let is_taken = is_there(&|source| means(source) && self.target(source).is_some());
            let what = if is_there(means) { What::RenameOfLeftOut } else { What::Rename };
            (!is_taken).then_some(Idle { what, name })
        };
        let dbs = self.databases.keys().filter_map(|db| renamed(db.clone(), &|source| source.db == *db));
        let collections = self.collections.keys();
        let collections = collections.filter_map(|from| renamed(from.to_string(), &|source| source == from));
        patterns.chain(dbs).chain(collections).collect()
    }

    /// Those of these whose names in the target would be longer than a server takes.
    pub fn too_long<'a>(&self, sources: impl Iterator<Item = &'a Namespace>) -> Vec<Namespace> {
        let targets = sources.filter_map(|source| self.target(source).filter(|target| target != source));
        targets.filter(|target| target.to_string().len() > NAMESPACE_MAX).collect()
    }

    fn add_rename<'a>(&mut self, text: &'a str) -> Result<&'a str> {
        let wrong = |why: &str| mistyped("rename", text, why);
        let (from, to) = text.split_once('=').ok_or_else(|| wrong("expected FROM=TO"))?;
        if to.contains('=') {
            return Err(wrong("it has more than one `=`: a name with one in it cannot be renamed"));
        }
        if from.is_empty() {
            return Err(wrong("a name is empty"));
        }
        if from == to {
            return Err(wrong("both sides are the same"));
        }
        if from.contains('*') || to.contains('*') {
            return Err(wrong("a `*` is for --include; a rename is of one database or one collection"));
        }
        let twice = match (from.contains('.'), to.contains('.')) {
            (false, false) => {
                check_db(to).map_err(wrong)?;
                self.databases.insert(from.to_owned(), to.to_owned()).is_some()
            }
            (true, true) => {
                let names = Namespace::parse(from).zip(Namespace::parse(to));
                let (from, to) = names.ok_or_else(|| wrong("a name is empty"))?;
                check_db(&to.db).map_err(wrong)?;
                if to.collection.starts_with("system.") || from.collection.starts_with("system.") {
                    return Err(wrong("a system collection keeps its name"));
                }
                check_collection(&to).map_err(wrong)?;
                self.collections.insert(from, to).is_some()
            }
            _ => return Err(wrong("a database becomes a database, a collection (db.name) a collection")),
        };
        if twice {
            return Err(wrong(&format!("{from} is renamed twice")));
        }
        Ok(to)
    }
}

impl Pattern {
    fn takes(&self, ns: &Namespace) -> bool {
        matches(self.db.as_bytes(), ns.db.as_bytes())
            && matches(self.collection.as_bytes(), ns.collection.as_bytes())
    }

    fn text(&self) -> String {
        match &*self.collection {
            "*" => self.db.clone(),
            collection => format!("{}.{collection}", self.db),
        }
    }
}

fn pattern(text: &str) -> Result<Pattern> {
    let (db, collection) = text.split_once('.').unwrap_or((text, "*"));
    if db.is_empty() || collection.is_empty() {
        return Err(mistyped(
            "include",
            text,
            "expected a database, db.collection, or either with `*` in it",
        ));
    }
    Ok(Pattern { db: db.to_owned(), collection: collection.to_owned() })
}

fn check_db(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("a name is empty"),
        "local" | "config" | "admin" => Err("nothing can be restored into a database of the server's own"),
        _ if name.len() >= DB_MAX => Err("a database's name is shorter than 64 bytes"),
        _ if name.contains(['/', '\\', ' ', '"', '$', '\0']) => {
            Err("the name of a database has none of / \\ \" $ and no space")
        }
        _ => Ok(()),
    }
}

/// What a server refuses, which would be told only once the restore has begun.
fn check_collection(name: &Namespace) -> Result<(), &'static str> {
    match &*name.collection {
        _ if name.to_string().len() > NAMESPACE_MAX => Err("db.collection has at most 255 bytes"),
        collection if collection.starts_with('.') => {
            Err("the name of a collection does not begin with a dot")
        }
        collection if collection.contains(['$', '\0']) => Err("the name of a collection has no $ in it"),
        _ => Ok(()),
    }
}

fn mistyped(option: &str, text: &str, why: impl fmt::Display) -> Error {
    Error::new(Kind::Usage, format!("reading --{option} {text:?}"), why)
}

/// Whether a name matches, `*` for any run of bytes: on a mismatch the last `*` takes one byte more.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut p, mut n) = (0, 0);
    let mut last: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some(b'*') => {
                last = Some((p, n));
                p += 1;
            }
            Some(byte) if *byte == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, taken)) = last else { return false };
                last = Some((star, taken + 1));
                p = star + 1;
                n = taken + 1;
            }
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}
