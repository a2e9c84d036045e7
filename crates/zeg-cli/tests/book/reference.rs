//! Pages of the configuration reference: tables of keys, made from JSON schemas.

use std::fmt::Write as _;

use regex::Regex;
use schemars::Schema;
use serde_json::{Map, Value};

use crate::{
    pages::{assert_page, escaped},
    schema::LEFT_OUT,
};

/// A page of the reference in the making.
pub(crate) struct Page {
    out: String,
    /// Definitions of all schemas of the page.
    definitions: Map<String, Value>,
    sections: Vec<(&'static str, &'static str, Schema)>,
    /// Headings that are written, each with its definition.
    written: Vec<(String, Value)>,
    /// Optional keys without a default that is known.
    unknown: Vec<String>,
}

/// A value of a key, as far as the reference tells kinds of values apart.
enum Kind {
    /// Described by its name alone.
    Plain(String),
    /// A table with keys of its own; the text names other forms that it may have.
    Table(Value, Option<String>),
    /// A list of tables.
    Tables(Value),
    /// A table whose key `kind` says which keys it has.
    Kinds(Vec<Value>),
    /// A table that belongs to the method.
    Section,
}

impl Page {
    pub(crate) fn new(
        title: &str,
        text: &str,
        sections: Vec<(&'static str, &'static str, Schema)>,
    ) -> Self {
        let mut page = Self {
            out: format!("# {title}\n\n{text}"),
            definitions: Map::new(),
            sections: Vec::new(),
            written: Vec::new(),
            unknown: Vec::new(),
        };
        for (_, _, schema) in &sections {
            page.define(schema);
        }
        page.sections = sections;
        page
    }

    fn define(&mut self, schema: &Schema) {
        let definitions = schema.get("$defs").and_then(Value::as_object).cloned();
        self.definitions.extend(definitions.unwrap_or_default());
    }

    /// Writes the keys of a file.
    pub(crate) fn file(&mut self, schema: &Schema) {
        self.define(schema);
        let value = schema.as_value().clone();
        let tables: Vec<(String, Value)> = properties(&value)
            .filter(|(_, value)| !matches!(self.kind(value), Kind::Plain(_)))
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect();
        let plain = properties(&value).any(|(_, value)| matches!(self.kind(value), Kind::Plain(_)));
        if plain {
            self.table("## Keys of the file", "", &value);
        }
        for (key, value) in tables {
            if !plain {
                self.part(&key, &value);
            }
        }
    }

    /// Writes a page, after a check that it leaves no default open.
    pub(crate) fn write(self, page: &str) {
        let unknown: Vec<_> = self.unknown.iter().collect();
        assert!(
            unknown.is_empty(),
            "keys whose defaults the schemas leave out; name them in LEFT_OUT: {unknown:?}"
        );
        assert_page(page, &self.out);
    }

    /// Writes what belongs to a key that is a table, or a list of tables.
    fn part(&mut self, path: &str, value: &Value) {
        match self.kind(value) {
            Kind::Plain(_) => {}
            Kind::Table(table, _) => self.section(&format!("`[{path}]`"), path, &table),
            Kind::Tables(table) => self.section(&format!("`[[{path}]]`"), path, &table),
            Kind::Kinds(kinds) => {
                for kind in kinds {
                    let name = &kind["properties"]["kind"]["const"];
                    self.section(&format!("`[{path}]` with `kind = {name}`"), path, &kind);
                }
            }
            Kind::Section => self.method_parts(path),
        }
    }

    /// Writes the sections that methods have at a place.
    fn method_parts(&mut self, path: &str) {
        let parts: Vec<_> = self
            .sections
            .iter()
            .filter(|(place, _, _)| *place == path)
            .cloned()
            .collect();
        for (_, method, schema) in parts {
            self.section(
                &format!("`[{path}]` of method `{method}`"),
                path,
                schema.as_value(),
            );
        }
    }

    fn section(&mut self, title: &str, path: &str, table: &Value) {
        if self
            .written
            .iter()
            .any(|(written, of)| written == title && of == table)
        {
            return;
        }
        self.written.push((title.to_owned(), table.clone()));
        let level = 2 + path.matches('.').count().min(2);
        let heading = format!("{} {title}", "#".repeat(level));
        self.table(&heading, path, table);
        // The model's part of an experiment: a method, and the keys that belong to it.
        if table.get("additionalProperties") == Some(&Value::Bool(true)) {
            self.method_parts(path);
        }
    }

    /// Writes a heading, the table of keys, and then the tables that stand in it.
    fn table(&mut self, heading: &str, path: &str, table: &Value) {
        write!(self.out, "\n{heading}\n\n").unwrap();
        let text = self.text(table);
        if !text.is_empty() && !path.is_empty() {
            write!(self.out, "{text}\n\n").unwrap();
        }
        self.out
            .push_str("| key | type | default | meaning |\n|---|---|---|---|\n");
        let required: Vec<&str> = table["required"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let mut parts = Vec::new();
        for (key, value) in properties(table) {
            let place = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            let kind = self.kind(value);
            let default = self.default(&place, value, required.contains(&key.as_str()), &kind);
            let (name, values) = (type_name(&kind), self.values(value));
            let meaning = format!("{}{values}", self.text(value));
            writeln!(
                self.out,
                "| `{key}` | {name} | {default} | {} |",
                meaning.replace('|', "\\|")
            )
            .unwrap();
            if !matches!(kind, Kind::Plain(_)) {
                parts.push((place, value.clone()));
            }
        }
        for (place, value) in parts {
            self.part(&place, &value);
        }
    }

    fn default(&mut self, place: &str, value: &Value, required: bool, kind: &Kind) -> String {
        if required {
            return String::new();
        }
        if let Some((_, value)) = LEFT_OUT.iter().find(|(key, _)| *key == place) {
            let is_name = value.parse::<f64>().is_err() && value.parse::<bool>().is_err();
            return if is_name {
                format!("`\"{value}\"`")
            } else {
                format!("`{value}`")
            };
        }
        match (value.get("default"), kind) {
            // Its keys have defaults of their own.
            (_, Kind::Table(..) | Kind::Section | Kind::Kinds(_)) if !is_optional(value) => {
                String::new()
            }
            (Some(Value::Null) | None, _) if is_optional(value) => "none".to_owned(),
            (Some(Value::Array(list)), _) if list.is_empty() => "none".to_owned(),
            (Some(default), _) => format!("`{}`", as_toml(default)),
            (None, Kind::Tables(_)) => "none".to_owned(),
            (None, _) => {
                self.unknown.push(place.to_owned());
                String::new()
            }
        }
    }

    fn resolved<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value.get("$ref").and_then(Value::as_str) {
            Some(reference) => {
                self.resolved(&self.definitions[reference.trim_start_matches("#/$defs/")])
            }
            None => value,
        }
    }

    fn kind(&self, value: &Value) -> Kind {
        let value = self.resolved(value);
        if let Some(name) = value.get("const") {
            return Kind::Plain(format!("`{name}`"));
        }
        let alternatives = alternatives(value);
        if let [only] = alternatives[..]
            && only.get("const").is_none()
        {
            return self.kind(only);
        }
        if !alternatives.is_empty() {
            return self.union(&alternatives);
        }
        let types: Vec<&str> = match value.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names
                .iter()
                .filter_map(Value::as_str)
                .filter(|name| *name != "null")
                .collect(),
            _ => Vec::new(),
        };
        match types[..] {
            ["object"] if value.get("properties").is_some() => Kind::Table(value.clone(), None),
            ["object"] => Kind::Section,
            ["array"] => self.list(value),
            [name] => Kind::Plain(name.to_owned()),
            _ => panic!("a schema without a type: {value}"),
        }
    }

    fn list(&self, value: &Value) -> Kind {
        let name = |item: &Value| type_name(&self.kind(item));
        if let Some(items) = value.get("prefixItems").and_then(Value::as_array) {
            let names: Vec<String> = items.iter().map(name).collect();
            return Kind::Plain(format!("\\[{}\\]", names.join(", ")));
        }
        let item = &value["items"];
        match (
            self.kind(item),
            value.get("maxItems").and_then(Value::as_u64),
        ) {
            (Kind::Table(table, _), _) => Kind::Tables(table),
            (kind, Some(count)) => Kind::Plain(format!("list of {count} × {}", type_name(&kind))),
            (kind, None) => Kind::Plain(format!("list of {}", type_name(&kind))),
        }
    }

    fn union(&self, alternatives: &[&Value]) -> Kind {
        let is_name = |value: &&Value| value.get("const").is_some() || value.get("enum").is_some();
        if alternatives.iter().all(is_name) {
            return Kind::Plain("name".to_owned());
        }
        let is_kind = |value: &&Value| value.pointer("/properties/kind/const").is_some();
        if alternatives.iter().all(is_kind) {
            let kinds = alternatives.iter().map(|value| self.merged(value));
            return Kind::Kinds(kinds.collect());
        }
        let mut table = None;
        let mut names = Vec::new();
        for value in alternatives {
            // A variant with a value, as `{ first = 11 }`.
            let inner: Vec<_> = properties(value).collect();
            if let ([(key, inner)], None) = (&inner[..], value.get("$ref")) {
                names.push(format!("`{{ {key} = {} }}`", type_name(&self.kind(inner))));
                continue;
            }
            match self.kind(value) {
                Kind::Table(found, _) => table = Some(found),
                kind => names.push(type_name(&kind)),
            }
        }
        let names = names.join(" or ");
        match table {
            Some(table) => Kind::Table(table, Some(names)),
            None => Kind::Plain(names),
        }
    }

    /// A variant of a tagged type with the keys of the type that it holds.
    fn merged(&self, value: &Value) -> Value {
        let mut merged = value.clone();
        if value.get("$ref").is_some() {
            let held = self.resolved(value).clone();
            let (own, held) = (properties(value), properties(&held));
            let all: Map<String, Value> = own
                .chain(held)
                .map(|(k, v)| (k.clone(), v.clone()))
                .collect();
            merged["properties"] = Value::Object(all);
            merged.as_object_mut().unwrap().remove("$ref");
        }
        // The heading names the kind.
        merged
    }

    /// The description of a value, or else that of its type, as Markdown on one line.
    fn text(&self, value: &Value) -> String {
        let of = |value: &Value| {
            value
                .get("description")
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let text = of(value).or_else(|| of(self.resolved(value)));
        text.map(|text| plain(&text)).unwrap_or_default()
    }

    /// The names that a value may have, with their meanings.
    fn values(&self, value: &Value) -> String {
        let mut resolved = self.resolved(value);
        let mut choices = alternatives(resolved);
        if let [only] = choices[..]
            && only.get("const").is_none()
        {
            resolved = self.resolved(only);
            choices = alternatives(resolved);
        }
        let mut out = String::new();
        if let Some(names) = resolved.get("enum").and_then(Value::as_array) {
            let names: Vec<String> = names
                .iter()
                .filter_map(Value::as_str)
                .map(|name| format!("`{name}`"))
                .collect();
            write!(out, "<br>Values: {}.", names.join(", ")).unwrap();
        }
        for value in choices {
            let text = self.text(value);
            let names: Vec<String> = match (
                value.get("const"),
                value.get("enum").and_then(Value::as_array),
            ) {
                (Some(name), _) => vec![name.as_str().unwrap_or_default().to_owned()],
                (None, Some(names)) => names
                    .iter()
                    .filter_map(Value::as_str)
                    .map(str::to_owned)
                    .collect(),
                (None, None) if value.get("$ref").is_none() && !text.is_empty() => {
                    properties(value)
                        .take(1)
                        .map(|(key, _)| key.clone())
                        .filter(|key| key != "kind")
                        .collect()
                }
                (None, None) => Vec::new(),
            };
            for name in names {
                let text = if text.is_empty() {
                    String::new()
                } else {
                    format!(": {text}")
                };
                write!(out, "<br>`{name}`{text}").unwrap();
            }
        }
        out
    }
}

/// The alternatives of a value, without `null`.
fn alternatives(value: &Value) -> Vec<&Value> {
    let list = value
        .get("anyOf")
        .or(value.get("oneOf"))
        .and_then(Value::as_array);
    let list = list.map_or(&[][..], Vec::as_slice);
    list.iter()
        .filter(|value| value.get("type") != Some(&"null".into()))
        .collect()
}

/// The type of a value, in words.
fn type_name(kind: &Kind) -> String {
    match kind {
        Kind::Plain(name) => name.clone(),
        Kind::Table(_, Some(others)) => format!("{others} or table"),
        Kind::Tables(_) => "list of tables".to_owned(),
        Kind::Table(_, None) | Kind::Kinds(_) | Kind::Section => "table".to_owned(),
    }
}

/// The keys of a table.
fn properties(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    let keys = value.get("properties").and_then(Value::as_object);
    keys.into_iter().flatten()
}

/// Whether a value may be left out without a default.
fn is_optional(value: &Value) -> bool {
    let null = |value: &Value| value == &Value::from("null");
    let alternatives = value
        .get("anyOf")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    value
        .get("type")
        .and_then(Value::as_array)
        .is_some_and(|types| types.iter().any(null))
        || alternatives
            .into_iter()
            .any(|value| value.get("type").is_some_and(null))
}

/// A value as TOML writes it. Single-precision numbers are shown without the digits of their conversion.
fn as_toml(value: &Value) -> String {
    if let Some(list) = value.as_array() {
        let list: Vec<String> = list.iter().map(as_toml).collect();
        return format!("[{}]", list.join(", "));
    }
    match value.as_f64() {
        Some(number) if value.is_f64() && number.abs() < 1e-3 && number != 0.0 => {
            format!("{number:e}")
        }
        Some(number)
            if value.is_f64() && f64::from(number as f32).to_bits() == number.to_bits() =>
        {
            format!("{:?}", number as f32)
        }
        _ => value.to_string(),
    }
}

/// A doc comment as Markdown: links to items become code, lines one line.
pub(crate) fn plain(text: &str) -> String {
    let link = Regex::new(r"\[(`[^`]+`)\](\([^)]*\))?").unwrap();
    let named = Regex::new(r"\[([^\]`]+)\]\([^)]*\)").unwrap();
    let text = link.replace_all(text, "$1");
    let text = named.replace_all(&text, "$1");
    let words: Vec<&str> = text.split_whitespace().collect();
    escaped(&words.join(" "))
}
