//! Collections and indexes made, changed and taken away.

use std::sync::Mutex;

use mongodb::bson::{Bson, Document, doc};

use super::Shared;
use super::message::Request;
use super::reads::{says_yes, subject};
use super::refusal::{Refusal, Result};
use super::store::Data;

/// Fields of a command that are no option of a collection.
const NO_OPTIONS: [&str; 9] =
    ["create", "idIndex", "writeConcern", "lsid", "txnNumber", "comment", "apiVersion", "uuid", "temp"];

impl Shared {
    /// Commands that change collections; none for any other.
    pub fn change(&self, name: &str, db: &str, request: &Request) -> Result<Option<Document>> {
        const KNOWN: [&str; 9] = [
            "create",
            "drop",
            "dropDatabase",
            "createIndexes",
            "dropIndexes",
            "deleteIndexes",
            "collMod",
            "renameCollection",
            "_mergeAuthzCollections",
        ];
        if !KNOWN.contains(&name) {
            return Ok(None);
        }
        self.changed(db, &request.document()?).map(Some)
    }

    /// Does a command that a client sent or a log holds.
    pub fn changed(&self, db: &str, command: &Document) -> Result<Document> {
        let name = command.keys().next().map(String::as_str).unwrap_or_default();
        match name {
            "create" => self.create(db, command),
            "drop" => {
                let name = subject(command)?;
                self.catalog.drop(db, name)?;
                Ok(doc! { "ns": format!("{db}.{name}"), "nIndexesWas": 1 })
            }
            "dropDatabase" => {
                self.catalog.drop_database(db);
                Ok(doc! { "dropped": db })
            }
            "createIndexes" => self.create_indexes(db, command),
            "dropIndexes" | "deleteIndexes" => self.drop_indexes(db, command),
            "collMod" => self.modify(db, command),
            "renameCollection" => {
                let names = (command.get_str("renameCollection"), command.get_str("to"));
                let (Ok(from), Ok(to)) = names else { return Err(Refusal::bad("from where, and to where?")) };
                let split =
                    |ns: &'_ str| ns.split_once('.').map(|(db, name)| (db.to_owned(), name.to_owned()));
                let (Some(from), Some(to)) = (split(from), split(to)) else {
                    return Err(Refusal::bad("no namespace"));
                };
                let over =
                    says_yes(command, "dropTarget") || command.get_binary_generic("dropTarget").is_ok();
                self.catalog.rename((&from.0, &from.1), (&to.0, &to.1), over)?;
                Ok(doc! {})
            }
            // Users are none of the double's business.
            "_mergeAuthzCollections" => Ok(doc! {}),
            other => Err(Refusal::no_command(other)),
        }
    }

    fn create(&self, db: &str, command: &Document) -> Result<Document> {
        let name = subject(command)?;
        let kept = command
            .iter()
            .filter(|(field, _)| !NO_OPTIONS.contains(&field.as_str()) && !field.starts_with('$'));
        let options: Document = kept.map(|(field, value)| (field.clone(), value.clone())).collect();
        let data = if options.contains_key("viewOn") { Data::View } else { Data::Stored(Mutex::default()) };
        let made = self.catalog.create(db, name, options, data)?;
        if let (Ok(first), Some(own)) =
            (command.get_document("idIndex"), made.indexes.lock().expect("no holder panics").first_mut())
        {
            let mut first = first.clone();
            first.remove("ns");
            let mut whole = doc! { "v": 2 };
            whole.extend(first);
            *own = whole;
        }
        Ok(doc! {})
    }

    /// Both as clients say it and as logs do: a list of indexes, or one index beside the name.
    fn create_indexes(&self, db: &str, command: &Document) -> Result<Document> {
        let collection = self.catalog.made(db, subject(command)?);
        let asked: Vec<Document> = match command.get_array("indexes") {
            Ok(list) => list.iter().filter_map(Bson::as_document).cloned().collect(),
            Err(_) => {
                let mut one = command.clone();
                one.remove("createIndexes");
                vec![one]
            }
        };
        let mut indexes = collection.indexes.lock().expect("no holder panics");
        let before = indexes.len() as i32;
        for mut index in asked {
            index.remove("ns");
            let name = index.get_str("name").map_err(|_| Refusal::bad("an index without a name"))?;
            if !indexes.iter().any(|known| known.get_str("name").is_ok_and(|known| known == name)) {
                let mut whole = doc! { "v": 2 };
                whole.extend(index);
                indexes.push(whole);
            }
        }
        Ok(doc! { "numIndexesBefore": before, "numIndexesAfter": indexes.len() as i32 })
    }

    fn drop_indexes(&self, db: &str, command: &Document) -> Result<Document> {
        let collection = self.catalog.get(db, subject(command)?)?;
        let mut indexes = collection.indexes.lock().expect("no holder panics");
        let before = indexes.len() as i32;
        let names: Vec<&str> = match command.get("index") {
            Some(Bson::String(name)) => vec![name],
            Some(Bson::Array(names)) => names.iter().filter_map(Bson::as_str).collect(),
            _ => return Err(Refusal::bad("this double drops indexes by name")),
        };
        indexes.retain(|index| {
            let name = index.get_str("name").unwrap_or_default();
            name == "_id_" || !(names == ["*"] || names.contains(&name))
        });
        Ok(doc! { "nIndexesWas": before })
    }

    fn modify(&self, db: &str, command: &Document) -> Result<Document> {
        let collection = self.catalog.get(db, subject(command)?)?;
        let mut options = collection.options.lock().expect("no holder panics");
        for (field, value) in command {
            match (field.as_str(), value) {
                ("collMod", _) => {}
                ("index", Bson::Document(change)) => {
                    let mut indexes = collection.indexes.lock().expect("no holder panics");
                    let found = indexes.iter_mut().find(|index| {
                        index.get("name") == change.get("name")
                            || index.get("keyPattern") == change.get("keyPattern")
                    });
                    let index = found.ok_or_else(|| Refusal::bad("no such index"))?;
                    let values =
                        change.iter().filter(|(field, _)| !["name", "keyPattern"].contains(&field.as_str()));
                    index.extend(values.map(|(field, value)| (field.clone(), value.clone())));
                }
                (name, value) if !NO_OPTIONS.contains(&name) && !name.starts_with('$') => {
                    options.insert(name, value.clone());
                }
                _ => {}
            }
        }
        Ok(doc! {})
    }
}
