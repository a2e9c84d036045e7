//! Validates JSON against the part of JSON Schema that schemars writes; any other keyword is an error of the test.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

/// Keywords that say nothing about whether a value is valid.
const SILENT: [&str; 6] = [
    "$schema",
    "$defs",
    "title",
    "description",
    "default",
    "format",
];

/// Returns what is wrong with a document; a key that the schema does not name is wrong.
pub(crate) fn faults(schema: &Value, document: &Value) -> Option<String> {
    Validator { root: schema }.check(schema, document, "").err()
}

struct Validator<'a> {
    root: &'a Value,
}

/// The keys of an object that a schema knows.
type Known = BTreeSet<String>;

impl Validator<'_> {
    /// Checks a value, and that the schema knows all keys of an object.
    fn check(&self, schema: &Value, value: &Value, path: &str) -> Result<(), String> {
        let known = self.keys(schema, value, path)?;
        let mut keys = value.as_object().into_iter().flat_map(Map::keys);
        match keys.find(|key| !known.contains(*key)) {
            Some(key) => Err(format!("{path}.{key}: not in the schema")),
            None => Ok(()),
        }
    }

    /// Checks a value; returns the keys that the schema knows.
    fn keys(&self, schema: &Value, value: &Value, path: &str) -> Result<Known, String> {
        let Some(schema) = schema.as_object() else {
            assert_eq!(schema, &Value::Bool(true), "{path}");
            return Ok(value
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .cloned()
                .collect());
        };
        let mut known = Known::new();
        for (keyword, rule) in schema {
            let is_valid = match keyword.as_str() {
                "type" => is_type(rule, value),
                "const" => rule == value,
                "enum" => list(rule).contains(value),
                "minimum" => value.as_f64() >= rule.as_f64() || !value.is_number(),
                "maximum" => value.as_f64() <= rule.as_f64() || !value.is_number(),
                "minItems" => value
                    .as_array()
                    .is_none_or(|v| v.len() as u64 >= size(rule)),
                "maxItems" => value
                    .as_array()
                    .is_none_or(|v| v.len() as u64 <= size(rule)),
                "required" => list(rule).iter().all(|key| {
                    let key = key.as_str().unwrap();
                    value
                        .as_object()
                        .is_none_or(|object| object.contains_key(key))
                }),
                "$ref" => {
                    let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                    known.extend(self.keys(self.root.pointer(pointer).unwrap(), value, path)?);
                    true
                }
                "allOf" => {
                    for part in list(rule) {
                        known.extend(self.keys(part, value, path)?);
                    }
                    true
                }
                "anyOf" | "oneOf" => {
                    let parts = list(rule).iter().map(|part| self.keys(part, value, path));
                    let (good, bad): (Vec<_>, Vec<_>) = parts.partition(Result::is_ok);
                    if good.is_empty() {
                        let reasons: Vec<_> = bad.into_iter().filter_map(Result::err).collect();
                        return Err(format!("{path}: no alternative fits: {reasons:?}"));
                    }
                    known.extend(good.into_iter().flatten().flatten());
                    true
                }
                "properties" => {
                    for (key, rule) in rule.as_object().unwrap() {
                        if let Some(value) = value.get(key) {
                            self.check(rule, value, &format!("{path}.{key}"))?;
                            known.insert(key.clone());
                        }
                    }
                    true
                }
                "additionalProperties" => {
                    let named = schema.get("properties").and_then(Value::as_object);
                    for (key, value) in value.as_object().into_iter().flatten() {
                        if named.is_some_and(|named| named.contains_key(key)) {
                            continue;
                        }
                        if rule == &Value::Bool(false) {
                            return Err(format!("{path}.{key}: not in the schema"));
                        }
                        self.check(rule, value, &format!("{path}.{key}"))?;
                        known.insert(key.clone());
                    }
                    true
                }
                "items" => {
                    for (position, item) in value.as_array().into_iter().flatten().enumerate() {
                        self.check(rule, item, &format!("{path}[{position}]"))?;
                    }
                    true
                }
                silent => {
                    assert!(SILENT.contains(&silent), "{path}: unknown keyword {silent}");
                    true
                }
            };
            if !is_valid {
                return Err(format!("{path}: {value} breaks {keyword:?}: {rule}"));
            }
        }
        Ok(known)
    }
}

fn list(rule: &Value) -> &[Value] {
    rule.as_array().unwrap()
}

fn size(rule: &Value) -> u64 {
    rule.as_u64().unwrap()
}

fn is_type(rule: &Value, value: &Value) -> bool {
    if let Some(names) = rule.as_array() {
        return names.iter().any(|name| is_type(name, value));
    }
    match rule.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("there is no type {other}"),
    }
}

#[test]
fn faults_are_found() {
    let schema = serde_json::json!({
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": { "type": "integer", "minimum": 0 },
            "b": { "anyOf": [{ "$ref": "#/$defs/B" }, { "type": "null" }] },
        },
        "$defs": { "B": { "type": "array", "items": { "enum": ["x"] } } },
    });
    let fault = |document: Value| faults(&schema, &document);
    assert_eq!(fault(serde_json::json!({ "a": 1, "b": ["x", "x"] })), None);
    assert_eq!(fault(serde_json::json!({ "a": 1, "b": null })), None);
    for wrong in [
        serde_json::json!({}),
        serde_json::json!({ "a": -1 }),
        serde_json::json!({ "a": 1.5 }),
        serde_json::json!({ "a": 1, "b": ["y"] }),
        serde_json::json!({ "a": 1, "c": 2 }),
    ] {
        assert!(fault(wrong.clone()).is_some(), "{wrong}");
    }
}
