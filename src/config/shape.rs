//! Holds a tree of nodes against the JSON Schema of the type it shall become: finds every problem at once.
//!
//! serde alone stops at the first error and forgets where it stood. So the walk comes first, and what passes
//! it is known to convert. The keywords are those that schemars writes for structs, enums, options, lists,
//! maps and numbers; beside them, `format` names a check of [`units`], `x-reserved` marks keys of a later
//! version.

use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use super::node::{Node, Problem, Value};
use super::{units, yaml};

/// Reads `part`, which stands at the path of keys `path`, as a `T`.
///
/// Keys that `T` does not have are problems, whether or not it says `deny_unknown_fields`. A key without a
/// value counts as absent.
pub fn read<T: DeserializeOwned + JsonSchema>(part: &Node, path: &str) -> Result<T, Vec<Problem>> {
    let (json, problems) = walk(part, path, schemars::schema_for!(T).as_value());
    if !problems.is_empty() {
        return Err(problems);
    }
    serde_json::from_value(json).map_err(|cause| vec![part.problem(path, cause.to_string())])
}

/// Holds `part` against `schema`: the problems, and what serde takes, with `null` where there is one.
pub fn walk(part: &Node, path: &str, schema: &Json) -> (Json, Vec<Problem>) {
    let mut walk = Walk { root: schema, problems: Vec::new() };
    let json = walk.value(part, schema, path);
    (json, walk.problems)
}

/// The known word nearest to `word`, if one is near enough to be what was meant.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let lower = word.to_lowercase();
    known
        .into_iter()
        .map(|candidate| (strsim::normalized_damerau_levenshtein(&lower, candidate), candidate))
        .filter(|(likeness, _)| *likeness >= 0.6)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `path.key`, or `key` at the top.
pub fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

struct Walk<'a> {
    /// Where `$ref` starts.
    root: &'a Json,
    problems: Vec<Problem>,
}

impl<'a> Walk<'a> {
    /// Checks `node` against `schema` and returns it as serde will take it.
    fn value(&mut self, node: &Node, schema: &'a Json, path: &str) -> Json {
        let schema = self.resolve(schema);
        if schema.get("x-reserved").is_some() {
            return self.problem(node, path, "reserved for a later version, not yet".to_owned());
        }
        if let Some(words) = self.words(schema) {
            return self.word(node, &words, path);
        }
        if let Some(branches) = alternatives(schema) {
            return self.alternative(node, branches, path);
        }
        let types = types(schema);
        match &node.value {
            Value::Map(_) if types.contains(&"object") => self.object(node, schema, path),
            Value::List(_) if types.contains(&"array") => self.array(node, schema, path),
            Value::Null if types.contains(&"null") => Json::Null,
            Value::Bool(yes) if types.contains(&"boolean") => Json::Bool(*yes),
            Value::Integer(number) if units_of(schema) => self.text(node, &number.to_string(), schema, path),
            Value::Integer(_) | Value::Float(_) if has_number(&types) => {
                self.number(node, &node.value, schema, path)
            }
            Value::Text(text) if types.contains(&"string") => self.text(node, text, schema, path),
            Value::Text(text) => self.written_as_text(node, text, schema, path),
            _ if types.is_empty() => plain(node),
            _ => self.wrong_type(node, schema, path),
        }
    }

    /// A number or a truth value in quotes, or from the environment, is as good as one without.
    fn written_as_text(&mut self, node: &Node, text: &str, schema: &'a Json, path: &str) -> Json {
        let types = types(schema);
        match yaml::resolve(text.trim()) {
            Value::Bool(yes) if types.contains(&"boolean") => Json::Bool(yes),
            meant @ (Value::Integer(_) | Value::Float(_)) if has_number(&types) => {
                self.number(node, &meant, schema, path)
            }
            _ if types.is_empty() => Json::String(text.to_owned()),
            _ => self.wrong_type(node, schema, path),
        }
    }

    fn wrong_type(&mut self, node: &Node, schema: &Json, path: &str) -> Json {
        let quotes = match node.value {
            Value::Bool(_) | Value::Integer(_) | Value::Float(_) if types(schema).contains(&"string") => {
                "; put it in quotes"
            }
            _ => "",
        };
        let message = format!("expected {}, found {}{quotes}", describe(schema), node.value.kind());
        self.problem(node, path, message)
    }

    fn object(&mut self, node: &Node, schema: &'a Json, path: &str) -> Json {
        let known = schema.get("properties").and_then(Json::as_object);
        let others = schema.get("additionalProperties").filter(|others| **others != Json::Bool(false));
        let mut object = Map::new();
        for (key, value) in node.entries() {
            let here = join(path, &key.text);
            let inner = known.and_then(|known| known.get(&key.text));
            match inner.or(others) {
                Some(_) if matches!(value.value, Value::Null) && inner.is_some() => {}
                Some(inner) => {
                    let inner = self.value(value, inner, &here);
                    object.insert(key.text.clone(), inner);
                }
                None => {
                    let known = known.map(|known| known.keys()).into_iter().flatten();
                    let message = unknown("key", &key.text, known.map(String::as_str));
                    self.problems.push(Problem { span: key.span.clone(), key: here, message });
                }
            }
        }
        self.required(node, schema, path);
        Json::Object(object)
    }

    /// Keys that must be there, and choices of which exactly one must be.
    fn required(&mut self, node: &Node, schema: &Json, path: &str) {
        let given = |key: &&str| node.get(key).is_some_and(|value| !matches!(value.value, Value::Null));
        for key in strings(schema.get("required")).filter(|key| !given(key)) {
            self.problem(node, &join(path, key), "missing; it is required".to_owned());
        }
        let Some(choices) = choices(schema) else { return };
        let found: Vec<&str> = choices.iter().copied().filter(given).collect();
        if found.len() != 1 {
            let found = if found.is_empty() { "none".to_owned() } else { found.join(" and ") };
            let message = format!("expected exactly one of {}, found {found}", choices.join(", "));
            self.problem(node, path, message);
        }
    }

    fn array(&mut self, node: &Node, schema: &'a Json, path: &str) -> Json {
        let items = schema.get("items").unwrap_or(&Json::Bool(true));
        let minimum = schema.get("minItems").and_then(Json::as_u64).unwrap_or(0);
        if (node.items().len() as u64) < minimum {
            self.problem(
                node,
                path,
                format!("expected at least {minimum} items, found {}", node.items().len()),
            );
        }
        let each = node.items().iter().enumerate();
        Json::Array(each.map(|(n, item)| self.value(item, items, &format!("{path}[{n}]"))).collect())
    }

    fn number(&mut self, node: &Node, meant: &Value, schema: &Json, path: &str) -> Json {
        let whole = !types(schema).contains(&"number");
        let (json, number) = match meant {
            Value::Integer(number) => (Json::from(*number), *number as f64),
            Value::Float(number) if !whole => (Json::from(*number), *number),
            _ => return self.wrong_type(node, schema, path),
        };
        let (least, most) = range(schema);
        if number < least || number > most {
            let bound = match (least.is_finite(), most.is_finite()) {
                (true, true) => format!("from {least} to {most}"),
                (true, false) => format!("of at least {least}"),
                _ => format!("of at most {most}"),
            };
            return self.problem(node, path, format!("expected a number {bound}, found {number}"));
        }
        json
    }

    fn text(&mut self, node: &Node, text: &str, schema: &Json, path: &str) -> Json {
        let format = schema.get("format").and_then(Json::as_str).unwrap_or_default();
        if let Err(message) = units::check(format, text) {
            return self.problem(node, path, message);
        }
        let least = schema.get("minLength").and_then(Json::as_u64).unwrap_or(0);
        if (text.chars().count() as u64) < least {
            return self.problem(node, path, "it must not be empty".to_owned());
        }
        Json::String(text.to_owned())
    }

    fn word(&mut self, node: &Node, words: &[&str], path: &str) -> Json {
        match &node.value {
            Value::Text(text) if words.contains(&text.as_str()) => Json::String(text.clone()),
            Value::Text(text) => self.problem(node, path, unknown("value", text, words.iter().copied())),
            other => {
                let message = format!("expected one of {}, found {}", words.join(", "), other.kind());
                self.problem(node, path, message)
            }
        }
    }

    /// The branch that fits; else the problems of the branch that fits best.
    fn alternative(&mut self, node: &Node, branches: &'a [Json], path: &str) -> Json {
        let mut best: Option<Vec<Problem>> = None;
        for branch in branches {
            let mut walk = Walk { root: self.root, problems: Vec::new() };
            let json = walk.value(node, branch, path);
            if walk.problems.is_empty() {
                return json;
            }
            let null = types(walk.resolve(branch)) == ["null"];
            if !null && best.as_ref().is_none_or(|best| walk.problems.len() < best.len()) {
                best = Some(walk.problems);
            }
        }
        self.problems.extend(best.unwrap_or_default());
        Json::Null
    }

    /// The words of an enumeration, in either of the forms that schemars writes.
    fn words(&self, schema: &'a Json) -> Option<Vec<&'a str>> {
        if schema.get("enum").is_some() {
            let words: Vec<&str> = strings(schema.get("enum")).collect();
            return (!words.is_empty()).then_some(words);
        }
        if let Some(word) = schema.get("const").and_then(Json::as_str) {
            return Some(vec![word]);
        }
        let branches = schema.get("oneOf")?.as_array()?;
        let words: Option<Vec<_>> = branches.iter().map(|branch| self.words(branch)).collect();
        Some(words?.concat())
    }

    fn resolve(&self, schema: &'a Json) -> &'a Json {
        let mut schema = schema;
        while let Some(pointer) = schema.get("$ref").and_then(Json::as_str) {
            match self.root.pointer(pointer.trim_start_matches('#')) {
                Some(target) => schema = target,
                None => break,
            }
        }
        schema
    }

    fn problem(&mut self, node: &Node, path: &str, message: String) -> Json {
        self.problems.push(node.problem(path, message));
        Json::Null
    }
}

/// "unknown key `ulr`; did you mean `url`?", or all that is known when nothing is near.
fn unknown<'a>(what: &str, word: &str, known: impl Iterator<Item = &'a str> + Clone) -> String {
    match nearest(word, known.clone()) {
        Some(near) => format!("unknown {what} `{word}`; did you mean `{near}`?"),
        None => {
            let known: Vec<&str> = known.collect();
            format!("unknown {what} `{word}`; expected one of {}", known.join(", "))
        }
    }
}

/// The branches of a value that may be of several types. A choice of keys is not one: see [`choices`].
fn alternatives(schema: &Json) -> Option<&[Json]> {
    let branches = schema.get("anyOf").or(schema.get("oneOf"))?.as_array()?;
    choices(schema).is_none().then_some(branches)
}

/// The keys of `oneOf: [{required: [a]}, {required: [b]}]`.
fn choices(schema: &Json) -> Option<Vec<&str>> {
    let only_required = |branch: &'_ Json| branch.as_object().is_some_and(|branch| branch.len() == 1);
    let branches = schema.get("oneOf")?.as_array()?;
    if !branches.iter().all(|branch| only_required(branch) && branch.get("required").is_some()) {
        return None;
    }
    Some(branches.iter().flat_map(|branch| strings(branch.get("required"))).collect())
}

fn strings(list: Option<&Json>) -> impl Iterator<Item = &str> {
    list.and_then(Json::as_array).into_iter().flatten().filter_map(Json::as_str)
}

/// What `type` permits; nothing named is everything permitted.
fn types(schema: &Json) -> Vec<&str> {
    match schema.get("type") {
        Some(Json::String(one)) => vec![one],
        several => strings(several).collect(),
    }
}

fn has_number(types: &[&str]) -> bool {
    types.contains(&"integer") || types.contains(&"number")
}

/// Whether a bare number is read as a text with a unit left out: `0`, or bytes.
fn units_of(schema: &Json) -> bool {
    let types = types(schema);
    types.contains(&"string") && types.contains(&"integer")
}

/// The bounds of a number: those that are given, else those of the integer type that will hold it.
fn range(schema: &Json) -> (f64, f64) {
    let most = match schema.get("format").and_then(Json::as_str) {
        Some("int32") => f64::from(i32::MAX),
        Some("uint32") => f64::from(u32::MAX),
        _ => f64::INFINITY,
    };
    let least = if most == f64::from(i32::MAX) { f64::from(i32::MIN) } else { f64::NEG_INFINITY };
    let given = |key| schema.get(key).and_then(Json::as_f64);
    (given("minimum").unwrap_or(least), given("maximum").unwrap_or(most))
}

/// What a schema expects, in a user's words.
fn describe(schema: &Json) -> String {
    if let Some(words) = schema.get("format").and_then(Json::as_str).and_then(units::expected) {
        return words.to_owned();
    }
    let names = types(schema).into_iter().filter(|name| *name != "null").map(|name| match name {
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "object" => "a map",
        other => other,
    });
    names.collect::<Vec<_>>().join(" or ")
}

/// A node where the schema permits everything.
fn plain(node: &Node) -> Json {
    match &node.value {
        Value::Null => Json::Null,
        Value::Bool(yes) => Json::Bool(*yes),
        Value::Integer(number) => Json::from(*number),
        Value::Float(number) => Json::from(*number),
        Value::Text(text) => Json::String(text.clone()),
        Value::List(items) => Json::Array(items.iter().map(plain).collect()),
        Value::Map(entries) => entries.iter().map(|(key, value)| (key.text.clone(), plain(value))).collect(),
    }
}
