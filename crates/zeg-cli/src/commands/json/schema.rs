//! JSON schemas of the documents, derived from the types that are written.

use schemars::{JsonSchema, Schema, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{SCHEMA_VERSION, failure::ErrorDocument};

/// Returns the path of a command and the schema of its document.
///
/// - `T`: type of the result
/// - `command`: path of the command, such as `data doctor`
pub(crate) fn schema_of<T: JsonSchema>(command: &'static str) -> (&'static str, Schema) {
    (command, document::<T>(&json!({ "const": command })))
}

/// Returns the schema of the document of a command that failed.
pub(crate) fn error_schema() -> Schema {
    document::<ErrorDocument>(&json!({ "type": "string" }))
}

/// Returns the schema of a document: that of the result, with the fields that every document has before its own.
fn document<T: JsonSchema>(command: &Value) -> Schema {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let mut schema = settings.into_generator().into_root_schema_for::<T>();
    let mut properties: Map<String, Value> = Map::new();
    properties.insert(
        "schema_version".to_owned(),
        json!({
            "description": "Version of the form of all documents.",
            "const": SCHEMA_VERSION,
        }),
    );
    let mut named = command.clone();
    named["description"] = "Path of the command.".into();
    properties.insert("command".to_owned(), named);
    let own = |key: &str| schema.get(key).cloned();
    if let Some(Value::Object(own)) = own("properties") {
        properties.extend(own);
    }
    let mut required = vec![Value::from("schema_version"), Value::from("command")];
    if let Some(Value::Array(own)) = own("required") {
        required.extend(own);
    }
    schema.insert("type".to_owned(), "object".into());
    schema.insert("properties".to_owned(), properties.into());
    schema.insert("required".to_owned(), required.into());
    schema
}
