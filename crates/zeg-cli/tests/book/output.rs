//! The reference of JSON output, written from the types that are written.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    pages::{assert_file, assert_page, book},
    reference::plain,
};

/// Folder of the pages.
const FOLDER: &str = "reference/json";
/// Fields that every document has; the head of the page describes them.
const SHARED: [&str; 2] = ["schema_version", "command"];

const HEAD: &str = "\
Every command has `--json [FILE]`. Without `FILE`, or with `-`, the JSON goes to standard output in place of the text; \
`--json FILE` writes a file beside the text. Keys are in snake_case. Every document is an object that begins with \
`schema_version`, which grows when a field changes its name or its meaning, and `command`, such as `data list`; new \
fields may be added without notice. Scores and shares are fractions of 1, an undefined number is `null`, and bytes of \
file names that are not UTF-8 are written as `\\xE9`.

A command that fails writes a document with [`error`](#errors) in place of the result, and exits with another code than \
0. Where some of several images or models fail, the document holds the results of the others and a list `failed`.

A path such as `images[].classes[].name` names a field of the objects of a list; `*` stands for the keys of a map.
";

#[test]
fn the_json_reference_is_that_of_the_output() {
    let mut page = format!("# JSON output\n\n{HEAD}\n| command | schema |\n|---|---|\n");
    let mut sections = String::new();
    let mut files = vec!["index.md".to_owned()];
    let mut add = |name: &str, title: &str, command: &str, schema: &Value| {
        let file = format!("{}.schema.json", name.replace(' ', "-"));
        let text = serde_json::to_string_pretty(schema).unwrap();
        assert_file(&format!("{FOLDER}/{file}"), &format!("{text}\n"));
        writeln!(page, "| {command} | [{file}]({file}) |").unwrap();
        write!(sections, "\n## {title}\n\n").unwrap();
        document(&mut sections, schema);
        files.push(file);
    };
    for (command, schema) in zeg_cli::schema::outputs() {
        let shown = format!("`zeg {command}`");
        add(command, &shown, &shown, schema.as_value());
    }
    let error = zeg_cli::schema::error();
    add("error", "Errors", "a command that fails", error.as_value());
    page.push_str(&sections);
    assert_page(&format!("{FOLDER}/index.md"), &page);
    for file in std::fs::read_dir(book().join(FOLDER)).unwrap() {
        let file = file.unwrap().file_name().into_string().unwrap();
        assert!(
            files.contains(&file),
            "{FOLDER}/{file}: nothing is generated there"
        );
    }
}

#[test]
fn keys_of_json_output_are_in_snake_case() {
    let error = ("error", zeg_cli::schema::error());
    for (command, schema) in zeg_cli::schema::outputs().into_iter().chain([error]) {
        for_each_key(schema.as_value(), &mut |key| {
            let is_snake = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            assert!(key.chars().all(is_snake), "{command}: {key}");
        });
    }
}

/// Calls a function for the key of every property in a schema.
fn for_each_key(schema: &Value, visit: &mut dyn FnMut(&str)) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::Object(properties)) = fields.get("properties") {
                properties.keys().for_each(|key| visit(key));
            }
            fields.values().for_each(|value| for_each_key(value, visit));
        }
        Value::Array(values) => values.iter().for_each(|value| for_each_key(value, visit)),
        _ => {}
    }
}

/// Writes the tables of a document: one, or one for each form that it may have.
fn document(out: &mut String, schema: &Value) {
    let describe = |out: &mut String, value: &Value| {
        let text = value.get("description").and_then(Value::as_str);
        if let Some(text) = text.or_else(|| resolved(schema, value).get("description")?.as_str()) {
            write!(out, "{}\n\n", plain(text)).unwrap();
        }
    };
    describe(out, schema);
    let forms = alternatives(schema);
    if forms.is_empty() {
        return table(out, schema, schema);
    }
    for form in forms {
        describe(out, form);
        table(out, schema, form);
        out.push('\n');
    }
}

fn table(out: &mut String, root: &Value, schema: &Value) {
    out.push_str("| field | type | meaning |\n|---|---|---|\n");
    Rows { root, out }.fields(schema, "");
}

/// Returns the definition that a value refers to, or the value itself.
fn resolved<'a>(root: &'a Value, value: &'a Value) -> &'a Value {
    let reference = value.get("$ref").and_then(Value::as_str);
    match reference.and_then(|reference| reference.strip_prefix('#')) {
        Some(pointer) => resolved(root, root.pointer(pointer).unwrap()),
        None => value,
    }
}

/// The rows of a table, field by field.
struct Rows<'a> {
    root: &'a Value,
    out: &'a mut String,
}

impl<'a> Rows<'a> {
    /// Writes the fields of an object, and below each the fields of the objects in it.
    ///
    /// - `path`: what stands before the keys, such as `images[].`
    fn fields(&mut self, schema: &'a Value, path: &str) {
        let schema = resolved(self.root, schema);
        let required = schema.get("required").and_then(Value::as_array);
        let properties = schema.get("properties").and_then(Value::as_object);
        for (key, value) in properties.into_iter().flatten() {
            if path.is_empty() && SHARED.contains(&key.as_str()) {
                continue;
            }
            let is_required =
                required.is_some_and(|keys| keys.contains(&Value::from(key.as_str())));
            let optional = if is_required { "" } else { ", optional" };
            self.row(
                &format!("{path}{key}"),
                &format!("{}{optional}", self.type_name(value)),
                value,
            );
            self.inner(value, &format!("{path}{key}"));
        }
        if let Some(values) = schema.get("additionalProperties").filter(|v| v.is_object()) {
            self.row(&format!("{path}*"), &self.type_name(values), values);
            self.inner(values, &format!("{path}*"));
        }
    }

    fn row(&mut self, path: &str, type_name: &str, value: &'a Value) {
        let text = |value: &Value| Some(plain(value.get("description")?.as_str()?));
        let meaning = text(value).or_else(|| text(resolved(self.root, value)));
        let mut meaning = meaning.unwrap_or_default();
        let names = self.names(value);
        if !names.is_empty() {
            write!(meaning, "<br>Values: {}.", names.join(", ")).unwrap();
        }
        let meaning = meaning.replace('|', "\\|");
        writeln!(self.out, "| `{path}` | {type_name} | {meaning} |").unwrap();
    }

    /// Writes the fields of the objects that a value holds.
    fn inner(&mut self, value: &'a Value, path: &str) {
        let value = resolved(self.root, value);
        for form in alternatives(value) {
            self.inner(form, path);
        }
        if let Some(items) = value.get("items") {
            self.inner(items, &format!("{path}[]"));
        }
        let is_object = |key: &str| value.get(key).is_some_and(Value::is_object);
        if is_object("properties") || is_object("additionalProperties") {
            self.fields(value, &format!("{path}."));
        }
    }

    /// Returns the type of a value, in words.
    fn type_name(&self, value: &'a Value) -> String {
        let value = resolved(self.root, value);
        let or_null = if is_nullable(value) { " or null" } else { "" };
        if value.get("const").is_some() || value.get("enum").is_some() {
            return format!("text{or_null}");
        }
        let forms = alternatives(value);
        if !forms.is_empty() {
            let mut names: Vec<String> = forms.iter().map(|form| self.type_name(form)).collect();
            names.dedup();
            return format!("{}{or_null}", names.join(" or "));
        }
        let name = match value.get("type") {
            Some(Value::String(name)) => name.as_str(),
            Some(Value::Array(names)) => names
                .iter()
                .filter_map(Value::as_str)
                .find(|name| *name != "null")
                .unwrap_or("null"),
            _ => "any",
        };
        let name = match name {
            "string" => "text".to_owned(),
            "boolean" => "true or false".to_owned(),
            "object" if value.get("properties").is_none() => "map".to_owned(),
            "array" => match value.get("items") {
                Some(items) => format!("list of {}", self.type_name(items)),
                None => "list".to_owned(),
            },
            other => other.to_owned(),
        };
        format!("{name}{or_null}")
    }

    /// Returns the names that a value may have; none if it may be any text or is no text.
    fn names(&self, value: &'a Value) -> Vec<String> {
        let value = resolved(self.root, value);
        let listed = value.get("enum").and_then(Value::as_array);
        let listed = listed.into_iter().flatten().chain(value.get("const"));
        let shown = listed.filter_map(Value::as_str);
        let mut names: Vec<String> = shown.map(|name| format!("`{name}`")).collect();
        for form in alternatives(value) {
            names.extend(self.names(form));
        }
        names
    }
}

/// Returns the alternatives of a value, without `null`.
fn alternatives(value: &Value) -> Vec<&Value> {
    let list = value.get("anyOf").or_else(|| value.get("oneOf"));
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter(|form| form.get("type") != Some(&"null".into()))
        .collect()
}

fn is_nullable(value: &Value) -> bool {
    let null = Value::from("null");
    let types = value.get("type").and_then(Value::as_array);
    let forms = value.get("anyOf").and_then(Value::as_array);
    types.is_some_and(|types| types.contains(&null))
        || forms.is_some_and(|forms| forms.iter().any(|form| form.get("type") == Some(&null)))
}
