//! What an update makes of a document: a replacement, `$set` and `$unset`, or a log's `$v: 2` diff.

use bytes::Bytes;
use mongodb::bson::{Bson, Document, RawDocument};

use super::reads::{bytes, number, says_yes};
use super::refusal::{Refusal, Result};

/// The document after a change.
pub fn updated(document: &Bytes, change: &RawDocument) -> Result<Bytes> {
    let first = change.iter().next().and_then(std::result::Result::ok);
    let is_operators = first.is_some_and(|(name, _)| name.as_str().starts_with('$'));
    let old = RawDocument::from_bytes(document).map_err(Refusal::malformed)?;
    if !is_operators {
        return replaced(old, change);
    }
    let mut new = Document::try_from(old).map_err(Refusal::malformed)?;
    let change = Document::try_from(change).map_err(Refusal::malformed)?;
    if number(&change, "$v") == Some(2) {
        let diff = change.get_document("diff").map_err(Refusal::malformed)?;
        patch_document(&mut new, diff)?;
        return bytes(&new);
    }
    for (operator, fields) in change.iter().filter(|(operator, _)| *operator != "$v") {
        let fields =
            fields.as_document().ok_or_else(|| Refusal::bad(format!("{operator} wants a document")))?;
        for (path, value) in fields {
            match operator.as_str() {
                "$set" | "$setOnInsert" => set(&mut new, path, value.clone())?,
                "$unset" => unset(&mut new, path),
                other => return Err(Refusal::bad(format!("this double knows no {other}"))),
            }
        }
    }
    bytes(&new)
}

/// A replacement keeps the `_id` that it does not name.
fn replaced(old: &RawDocument, change: &RawDocument) -> Result<Bytes> {
    let has_id = change.get("_id").map_err(Refusal::malformed)?.is_some();
    match old.get("_id").map_err(Refusal::malformed)? {
        Some(id) if !has_id => {
            let mut whole = mongodb::bson::RawDocumentBuf::new();
            whole.append(mongodb::bson::cstr!("_id"), id);
            for (name, value) in change.iter().flatten() {
                whole.append(name, value);
            }
            Ok(Bytes::copy_from_slice(whole.as_bytes()))
        }
        _ => Ok(Bytes::copy_from_slice(change.as_bytes())),
    }
}

fn set(document: &mut Document, path: &str, value: Bson) -> Result<()> {
    let Some((first, rest)) = path.split_once('.') else {
        document.insert(path, value);
        return Ok(());
    };
    match document.entry(first.to_owned()).or_insert_with(|| Bson::Document(Document::new())) {
        Bson::Document(inner) => set(inner, rest, value),
        Bson::Array(array) => set_in_array(array, rest, value),
        _ => Err(Refusal::bad(format!("cannot create a field in {first}"))),
    }
}

fn set_in_array(array: &mut Vec<Bson>, path: &str, value: Bson) -> Result<()> {
    let (index, rest) = path.split_once('.').map_or((path, None), |(index, rest)| (index, Some(rest)));
    let index: usize = index.parse().map_err(|_| Refusal::bad(format!("no index of an array: {index}")))?;
    if index >= array.len() {
        array.resize(index + 1, Bson::Null);
    }
    match (rest, &mut array[index]) {
        (None, place) => *place = value,
        (Some(rest), Bson::Document(inner)) => set(inner, rest, value)?,
        (Some(rest), Bson::Array(inner)) => set_in_array(inner, rest, value)?,
        (Some(_), _) => return Err(Refusal::bad(format!("cannot create a field in element {index}"))),
    }
    Ok(())
}

fn unset(document: &mut Document, path: &str) {
    match path.split_once('.') {
        None => drop(document.remove(path)),
        Some((first, rest)) => {
            if let Some(Bson::Document(inner)) = document.get_mut(first) {
                unset(inner, rest);
            }
        }
    }
}

/// Deletes, updates and inner diffs leave fields where they are; inserts go to the end.
fn patch_document(document: &mut Document, diff: &Document) -> Result<()> {
    for (section, fields) in diff {
        match (section.as_str(), fields) {
            ("d", Bson::Document(fields)) => fields.keys().for_each(|field| drop(document.remove(field))),
            ("u", Bson::Document(fields)) => document.extend(fields.clone()),
            ("i", Bson::Document(fields)) => {
                for (field, value) in fields {
                    document.remove(field);
                    document.insert(field.clone(), value.clone());
                }
            }
            (section, Bson::Document(inner)) if section.starts_with('s') => {
                let field = &section[1..];
                let place = document.get_mut(field).ok_or_else(|| missing(field))?;
                patch(place, inner)?;
            }
            (other, _) => return Err(Refusal::bad(format!("unknown section {other} in a diff"))),
        }
    }
    Ok(())
}

fn patch(place: &mut Bson, diff: &Document) -> Result<()> {
    match place {
        Bson::Array(array) if says_yes(diff, "a") => patch_array(array, diff),
        Bson::Document(document) => patch_document(document, diff),
        _ => Err(Refusal::bad("a diff of an array or document meets something else")),
    }
}

fn patch_array(array: &mut Vec<Bson>, diff: &Document) -> Result<()> {
    for (section, value) in diff {
        if section == "l" {
            array.resize(number(diff, "l").unwrap_or(0).max(0) as usize, Bson::Null);
            continue;
        }
        let (Some(kind), Ok(index)) =
            (section.chars().next(), section.get(1..).unwrap_or_default().parse::<usize>())
        else {
            if section == "a" {
                continue;
            }
            return Err(Refusal::bad(format!("unknown section {section} in the diff of an array")));
        };
        if index >= array.len() {
            array.resize(index + 1, Bson::Null);
        }
        match (kind, value) {
            ('u', value) => array[index] = value.clone(),
            ('s', Bson::Document(inner)) => patch(&mut array[index], inner)?,
            _ => return Err(Refusal::bad(format!("unknown section {section} in the diff of an array"))),
        }
    }
    Ok(())
}

fn missing(field: &str) -> Refusal {
    Refusal::bad(format!("a diff of {field}, which the document does not have"))
}
