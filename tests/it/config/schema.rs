//! The JSON Schemas that editors get.

use serde_json::Value;
use tidekeeper::config::schema;

use super::Part;

fn part() -> Value {
    schemars::schema_for!(Outer).to_value()
}

#[derive(schemars::JsonSchema)]
#[allow(dead_code)]
/// A part with a definition of its own.
struct Outer {
    /// Inside.
    inner: Part,
}

/// Calls `visit` with every object in `json` and the pointer to it.
fn each(json: &Value, pointer: &str, visit: &mut dyn FnMut(&str, &Value)) {
    match json {
        Value::Object(object) => {
            visit(pointer, json);
            object.iter().for_each(|(key, inner)| each(inner, &format!("{pointer}/{key}"), visit));
        }
        Value::Array(items) => items.iter().for_each(|inner| each(inner, pointer, visit)),
        _ => {}
    }
}

#[test]
fn all_references_lead_somewhere_and_all_objects_are_closed() {
    let kinds = || [("redis", part()), ("mongodb", part())];
    for root in [schema::main_file(kinds()), schema::schedule_file()] {
        each(&root, "", &mut |pointer, object| {
            if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
                let target = root.pointer(reference.trim_start_matches('#'));
                assert!(target.is_some(), "{pointer} leads to {reference}, which is not there");
            }
            if object["type"] == "object" && object.get("properties").is_some_and(Value::is_object) {
                assert_eq!(object["additionalProperties"], false, "{pointer} is open");
            }
        });
    }
}

#[test]
fn every_key_of_ours_is_described() {
    for root in [schema::main_file([("redis", Value::Bool(true))]), schema::schedule_file()] {
        each(&root, "", &mut |pointer, object| {
            let properties = object.get("properties").and_then(Value::as_object).into_iter().flatten();
            for (key, property) in properties.filter(|(key, _)| *key != "redis") {
                assert!(property["description"].is_string(), "{pointer}/{key} has no description");
            }
        });
    }
}

#[test]
fn kinds_stand_beside_the_name() {
    let root = schema::main_file([("redis", part())]);
    let entry = &root["$defs"]["Entry"];
    assert_eq!(entry["properties"]["redis"]["properties"]["inner"]["$ref"], "#/$defs/redis.Part");
    assert_eq!(entry["oneOf"][0]["required"][0], "redis");
    assert_eq!(root["$defs"]["redis.Part"]["required"][0], "url");
    assert_eq!(root["$defs"]["Limits"]["properties"]["spool_max"]["default"], "4GiB");
}
