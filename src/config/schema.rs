//! The JSON Schemas of both files: for editors (`tidekeeper config schema`), and for our own walk.

use schemars::JsonSchema;
use serde_json::{Map, Value as Json, json};

use super::raw;

/// Keys of `tidekeeper.yaml` that later versions will know.
const RESERVED: [&str; 4] = ["auth", "notifications", "capacity", "runbooks"];

/// Keys of a source or target that later versions will know.
const RESERVED_IN_ENTRY: [&str; 3] = ["objectives", "execution", "drill"];

/// Keys of the vault that later versions will know.
const RESERVED_IN_VAULT: [&str; 1] = ["copy_to"];

/// What a schedule can be for besides a source, and what it can say of one besides backups, in later versions.
const RESERVED_IN_SCHEDULE: [&str; 3] = ["capacity", "runbook", "drill"];

/// The schema of `tidekeeper.yaml`, with each kind's name and the schema of its part.
pub fn main_file<'a>(kinds: impl IntoIterator<Item = (&'a str, Json)>) -> Json {
    let mut root = of::<raw::File>();
    reserve(&mut root, &RESERVED);
    reserve(&mut root["$defs"]["Vault"], &RESERVED_IN_VAULT);
    let mut choices = Vec::new();
    for (kind, part) in kinds {
        let part = adopt(&mut root, kind, part);
        root["$defs"]["Entry"]["properties"][kind] = part;
        choices.push(json!({ "required": [kind] }));
    }
    let entry = &mut root["$defs"]["Entry"];
    entry["oneOf"] = Json::Array(choices);
    reserve(entry, &RESERVED_IN_ENTRY);
    close(&mut root);
    root["title"] = json!("tidekeeper.yaml");
    root
}

/// The schema of a file of `schedules/`.
pub fn schedule_file() -> Json {
    let mut root = of::<raw::Schedule>();
    reserve(&mut root, &RESERVED_IN_SCHEDULE);
    close(&mut root);
    root["title"] = json!("schedules/*.yaml");
    root
}

fn of<T: JsonSchema>() -> Json {
    schemars::schema_for!(T).to_value()
}

fn reserve(object: &mut Json, keys: &[&str]) {
    for key in keys {
        object["properties"][key] =
            json!({ "not": {}, "description": "Reserved for a later version.", "x-reserved": true });
    }
}

/// Moves a part's definitions under names of its own into the root, and returns the part, pointing there.
fn adopt(root: &mut Json, kind: &str, mut part: Json) -> Json {
    let Some(object) = part.as_object_mut() else { return part };
    object.remove("$schema");
    let definitions = match object.remove("$defs") {
        Some(Json::Object(definitions)) => definitions,
        _ => Map::new(),
    };
    for (name, mut definition) in definitions {
        point(&mut definition, kind);
        root["$defs"][format!("{kind}.{name}")] = definition;
    }
    point(&mut part, kind);
    part
}

fn point(schema: &mut Json, kind: &str) {
    each_object(schema, &mut |object| {
        if let Some(Json::String(pointer)) = object.get_mut("$ref") {
            *pointer = pointer.replacen("#/$defs/", &format!("#/$defs/{kind}."), 1);
        }
    });
}

/// Says of every object what our walk holds anyway: there are no other keys.
fn close(schema: &mut Json) {
    each_object(schema, &mut |object| {
        let is_schema = object.get("type").is_some_and(|kind| kind == "object");
        if is_schema && object.contains_key("properties") && !object.contains_key("additionalProperties") {
            object.insert("additionalProperties".to_owned(), Json::Bool(false));
        }
    });
}

fn each_object(json: &mut Json, visit: &mut dyn FnMut(&mut Map<String, Json>)) {
    match json {
        Json::Object(object) => {
            visit(object);
            object.values_mut().for_each(|inner| each_object(inner, visit));
        }
        Json::Array(items) => items.iter_mut().for_each(|inner| each_object(inner, visit)),
        _ => {}
    }
}
