//! What data is, told as simply as possible: documents by their ids, and what each operation does to them.

use std::collections::BTreeMap;

use mongodb::bson::{Bson, Document};

/// One operation of a writer.
#[derive(Clone, Debug)]
pub enum Act {
    Insert(String, Vec<Document>),
    Set(String, i32, String, Bson),
    Unset(String, i32, String),
    Push(String, i32, Bson),
    Replace(String, i32, Document),
    Delete(String, i32),
    Rename(String, String),
    Drop(String),
    Together(Vec<Act>),
}

impl Act {
    /// What it is in the log: one entry for each document that is inserted, and one for all else.
    pub fn parts(&self) -> Vec<Act> {
        match self {
            Act::Insert(of, documents) => {
                documents.iter().map(|one| Act::Insert(of.clone(), vec![one.clone()])).collect()
            }
            whole => vec![whole.clone()],
        }
    }
}

/// All collections of all databases, by `db.collection`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State(BTreeMap<String, BTreeMap<String, Document>>);

impl State {
    pub fn collections(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    pub fn documents(&self, of: &str) -> Vec<&Document> {
        self.0.get(of).map(|found| found.values().collect()).unwrap_or_default()
    }

    pub fn put(&mut self, of: &str, document: Document) {
        let id = id_of(&document);
        self.0.entry(of.to_owned()).or_default().insert(id, document);
    }

    pub fn apply(&mut self, act: &Act) {
        match act {
            Act::Insert(of, documents) => documents.iter().for_each(|each| self.put(of, each.clone())),
            Act::Set(of, id, field, value) => self.edit(of, *id, |found| {
                found.insert(field.clone(), value.clone());
            }),
            Act::Unset(of, id, field) => self.edit(of, *id, |found| {
                found.remove(field);
            }),
            Act::Push(of, id, value) => self.edit(of, *id, |found| {
                if !found.contains_key("list") {
                    found.insert("list", Bson::Array(Vec::new()));
                }
                found.get_array_mut("list").expect("a list").push(value.clone());
            }),
            Act::Replace(of, _, document) => self.put(of, document.clone()),
            Act::Delete(of, id) => {
                self.0.entry(of.clone()).or_default().remove(&Bson::Int32(*id).to_string());
            }
            Act::Rename(from, to) => {
                let moved = self.0.remove(from).unwrap_or_default();
                self.0.insert(to.clone(), moved);
            }
            Act::Drop(of) => drop(self.0.remove(of)),
            Act::Together(acts) => acts.iter().for_each(|act| self.apply(act)),
        }
    }

    fn edit(&mut self, of: &str, id: i32, edit: impl FnOnce(&mut Document)) {
        if let Some(found) = self.0.get_mut(of).and_then(|found| found.get_mut(&Bson::Int32(id).to_string()))
        {
            edit(found);
        }
    }

    pub fn ids(&self, of: &str) -> Vec<i32> {
        self.documents(of).iter().filter_map(|document| document.get_i32("_id").ok()).collect()
    }

    /// In words; empty collections count as absent, because a server makes collections by writing to them.
    pub fn differences(&self, found: &State) -> Vec<String> {
        let all = |state: &State| {
            let each =
                state.0.iter().flat_map(|(of, documents)| documents.iter().map(move |one| (of.clone(), one)));
            each.map(|(of, (id, document))| ((of, id.clone()), document.clone())).collect::<BTreeMap<_, _>>()
        };
        let (expected, found) = (all(self), all(found));
        let missing =
            expected.keys().filter(|key| !found.contains_key(*key)).map(|key| format!("{key:?} missing"));
        let extra =
            found.keys().filter(|key| !expected.contains_key(*key)).map(|key| format!("{key:?} extra"));
        let other = expected.iter().filter_map(|(key, document)| {
            let there = found.get(key).filter(|there| *there != document)?;
            Some(format!("{key:?} is {there} instead of {document}"))
        });
        missing.chain(extra).chain(other).collect()
    }
}

fn id_of(document: &Document) -> String {
    document.get("_id").expect("an id").to_string()
}
