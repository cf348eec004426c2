//! `<collection>.metadata.json` and `prelude.json`, as mongodump writes them.

use super::client::Server;
use super::extjson;
use super::survey::Collection;
use crate::error::Result;

/// What a JSON artifact's plain bytes are.
pub const MEDIA_TYPE: &str = "application/json";

/// The artifact that says of which server all the others are.
pub const PRELUDE: &str = "prelude.json";

/// Whose formats these are: what other readers of a dump take for its writer's version.
const TOOL_VERSION: &str = "100.18.0";

/// One line of canonical Extended JSON: options, indexes, UUID, name and type, all as the server says.
pub fn text(collection: &Collection) -> Result<String> {
    let mut json = "{".to_owned();
    if !collection.options.is_empty() {
        json.push_str("\"options\":");
        extjson::document(collection.options.as_bytes(), &mut json)?;
        json.push(',');
    }
    json.push_str("\"indexes\":[");
    for (n, index) in collection.indexes.iter().enumerate() {
        if n > 0 {
            json.push(',');
        }
        extjson::document(index.as_bytes(), &mut json)?;
    }
    json.push(']');
    if let Some(uuid) = &collection.uuid {
        json.push_str(&format!(",\"uuid\":\"{}\"", hex::encode(uuid)));
    }
    json.push_str(",\"collectionName\":");
    extjson::text(collection.namespace.collection.as_bytes(), &mut json);
    if !collection.kind.is_empty() {
        json.push_str(",\"type\":");
        extjson::text(collection.kind.as_bytes(), &mut json);
    }
    json.push('}');
    Ok(json)
}

/// The text of `prelude.json`.
pub fn prelude(server: &Server) -> String {
    let mut json = "{\"ServerVersion\":".to_owned();
    extjson::text(server.version.as_bytes(), &mut json);
    json.push_str(&format!(",\"ToolVersion\":\"{TOOL_VERSION}\"}}"));
    json
}
