//! The description of the API: as OpenAPI 3.1 for programs, and as a page for people.

use std::{fmt::Write as _, sync::LazyLock};

use axum::{
    http::header,
    response::{Html, IntoResponse},
};
use serde_json::{Map, Value};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityRequirement, SecurityScheme},
};

use crate::{assets::CONTENT_POLICY, problem::Code, routes};

/// Style of the page.
const STYLE: &str = include_str!("docs.css");
/// Methods in the order of the page.
const METHODS: [&str; 3] = ["get", "post", "delete"];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "zeg",
        description = "Zero-shot semantic segmentation: every pixel of an image labelled with classes that are given by name.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    paths(
        routes::segment::segment,
        routes::encodings::create,
        routes::encodings::show,
        routes::encodings::remove,
        routes::encodings::segment,
        routes::facts::models,
        routes::facts::class_lists,
        routes::facts::class_list,
        routes::health::status,
        routes::health::healthz,
        routes::health::readyz,
        routes::health::metrics,
    ),
    modifiers(&BearerToken),
)]
struct Description;

/// Adds the token, which is needed if the server was started with one.
struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let components = openapi.components.get_or_insert_with(Default::default);
        components.add_security_scheme(
            "token",
            SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)),
        );
        // The empty requirement says that a server without a token takes every request.
        openapi.security = Some(vec![
            SecurityRequirement::default(),
            SecurityRequirement::new::<_, [&str; 0], &str>("token", []),
        ]);
    }
}

/// The description as JSON.
static JSON: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(Description::openapi()).unwrap_or_default());
/// The page.
static PAGE: LazyLock<String> = LazyLock::new(|| written(&JSON));

/// Answers `/openapi.json`.
pub(crate) async fn openapi() -> impl IntoResponse {
    axum::Json(&*JSON)
}

/// Answers `/docs`.
pub(crate) async fn page() -> impl IntoResponse {
    let policy = (header::CONTENT_SECURITY_POLICY, CONTENT_POLICY);
    ([policy], Html(PAGE.as_str()))
}

/// Answers `/docs/style.css`.
pub(crate) async fn style() -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/css; charset=utf-8")], STYLE)
}

/// Returns text for HTML.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            other => safe.push(other),
        }
    }
    safe
}

/// Writes the page.
fn written(api: &Value) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\"><title>zeg: API</title><link rel=\"stylesheet\" \
         href=\"/docs/style.css\"></head><body><main>\n<h1>The API of zeg</h1>\n",
    );
    page.push_str(INTRODUCTION);
    let paths = api["paths"].as_object();
    let mut operations = Vec::new();
    for (path, methods) in paths.into_iter().flatten() {
        for method in METHODS {
            if let Some(operation) = methods.get(method) {
                operations.push((path.as_str(), method, operation));
            }
        }
    }
    let mut tags = vec!["Segment", "Encode once, ask many times"];
    for (_, _, operation) in &operations {
        if let Some(tag) = operation["tags"][0].as_str()
            && !tags.contains(&tag)
        {
            tags.push(tag);
        }
    }
    // Writing to a string does not fail.
    for tag in tags {
        let _ = writeln!(page, "<h2>{}</h2>", escaped(tag));
        let of_tag = operations.iter().filter(|(_, _, it)| it["tags"][0] == tag);
        for (path, method, operation) in of_tag {
            write_operation(&mut page, path, method, operation);
        }
    }
    page.push_str("<h2>Types</h2>\n");
    let schemas = api["components"]["schemas"].as_object();
    for (name, schema) in schemas.into_iter().flatten() {
        write_schema(&mut page, name, schema);
    }
    page.push_str(
        "<h2>Errors</h2>\n<p>An error is a document of the type <code>application/problem+json</code> (RFC 9457) with \
         a <code>detail</code>, mostly a <code>hint</code>, and one of these codes.</p>\n<table>\n",
    );
    for code in Code::ALL {
        let _ = writeln!(
            page,
            "<tr id=\"{0}\"><td><code>{0}</code></td><td>{1}</td><td>{2}</td></tr>",
            code.name(),
            code.status().as_u16(),
            escaped(code.title())
        );
    }
    page.push_str("</table>\n</main></body></html>\n");
    page
}

/// What comes before the list of addresses.
const INTRODUCTION: &str = "\
<p>Send an image and class names, get labels. The same description for programs is \
<a href=\"/openapi.json\">/openapi.json</a> (OpenAPI 3.1).</p>
<pre><code>curl -F image=@photo.jpg -F 'classes=dog, sofa|couch' -F output=labels ADDRESS/v1/segment -o labels.png
curl -F image=@photo.jpg -F 'classes=dog, sofa|couch' -F output=rle,overlay ADDRESS/v1/segment</code></pre>
<p>Encoding an image is the work; asking it about classes is cheap. Encode once, then ask as often as you like:</p>
<pre><code>id=$(curl -s -F image=@photo.jpg ADDRESS/v1/encodings | jq -r .id)
curl -s ADDRESS/v1/encodings/$id/segment -H 'Content-Type: application/json' \\
     -d '{\"classes\": [{\"name\": \"dog\"}, {\"name\": \"sofa\", \"synonyms\": [\"couch\"]}], \"output\": [\"rle\"]}'</code></pre>
<p>If the server was started with a token, every call needs it: <code>-H 'Authorization: Bearer TOKEN'</code>.</p>
";

fn write_operation(page: &mut String, path: &str, method: &str, operation: &Value) {
    let _ = writeln!(
        page,
        "<section><h3><b class=\"{method}\">{}</b> <code>{}</code></h3>",
        method.to_uppercase(),
        escaped(path)
    );
    for text in ["summary", "description"] {
        if let Some(text) = operation[text].as_str() {
            let _ = writeln!(page, "<p>{}</p>", escaped(text));
        }
    }
    let contents = |value: &Value| -> Vec<String> {
        let contents = value["content"].as_object();
        let entries = contents.into_iter().flatten();
        let one = |(kind, content): (&String, &Value)| {
            format!(
                "<code>{}</code>: {}",
                escaped(kind),
                type_of(&content["schema"])
            )
        };
        entries.map(one).collect()
    };
    let body = contents(&operation["requestBody"]);
    if !body.is_empty() {
        let _ = writeln!(page, "<p>Takes {}</p>", body.join(" or "));
    }
    let responses = operation["responses"].as_object();
    page.push_str("<ul>\n");
    for (status, response) in responses.into_iter().flatten() {
        let contents = contents(response);
        let with = if contents.is_empty() {
            String::new()
        } else {
            format!(" ({})", contents.join(", "))
        };
        let about = response["description"].as_str().unwrap_or_default();
        let _ = writeln!(
            page,
            "<li><code>{}</code> {}{with}</li>",
            escaped(status),
            escaped(about)
        );
    }
    page.push_str("</ul></section>\n");
}

fn write_schema(page: &mut String, name: &str, schema: &Value) {
    let _ = writeln!(
        page,
        "<section><h3 id=\"{0}\"><code>{0}</code></h3>",
        escaped(name)
    );
    if let Some(about) = schema["description"].as_str() {
        let _ = writeln!(page, "<p>{}</p>", escaped(about));
    }
    let parts = schema["allOf"].as_array().map(Vec::as_slice);
    let parts = parts.unwrap_or(std::slice::from_ref(schema));
    let mut rows = String::new();
    for part in parts {
        if part["$ref"].is_string() {
            let _ = writeln!(
                rows,
                "<tr><td></td><td>and all of {}</td><td></td></tr>",
                type_of(part)
            );
        }
        let required = part["required"].as_array();
        let is_required =
            |field: &str| required.is_some_and(|all| all.iter().any(|it| it == field));
        let empty = Map::new();
        for (field, about) in part["properties"].as_object().unwrap_or(&empty) {
            let mark = if is_required(field) {
                ""
            } else {
                " (optional)"
            };
            let _ = writeln!(
                rows,
                "<tr><td><code>{}</code></td><td>{}{mark}</td><td>{}</td></tr>",
                escaped(field),
                type_of(about),
                escaped(about["description"].as_str().unwrap_or_default())
            );
        }
    }
    if rows.is_empty() {
        let _ = writeln!(page, "<p>{}</p>", type_of(schema));
    } else {
        let _ = writeln!(page, "<table>\n{rows}</table>");
    }
    page.push_str("</section>\n");
}

/// Returns the type of a schema in words, as HTML.
fn type_of(schema: &Value) -> String {
    if let Some(reference) = schema["$ref"].as_str() {
        let name = escaped(reference.rsplit('/').next().unwrap_or_default());
        return format!("<a href=\"#{name}\">{name}</a>");
    }
    for any in ["oneOf", "anyOf"] {
        if let Some(parts) = schema[any].as_array() {
            let parts: Vec<String> = parts.iter().map(type_of).collect();
            return parts.join(" or ");
        }
    }
    let kinds: Vec<&str> = match &schema["type"] {
        Value::String(kind) => vec![kind],
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => vec!["anything"],
    };
    let one = |kind: &&str| match *kind {
        "array" if schema["items"].is_object() => format!("array of {}", type_of(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("{} by name", type_of(&schema["additionalProperties"]))
        }
        "string" if schema["format"] == "binary" => "file".to_owned(),
        kind => escaped(kind),
    };
    kinds.iter().map(one).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::{ASK_FIELDS, IMAGE_FIELDS};

    #[test]
    fn the_description_is_openapi_3_1_and_names_every_route() {
        assert!(JSON["openapi"].as_str().unwrap().starts_with("3.1"));
        for path in [
            "/v1/segment",
            "/v1/encodings",
            "/v1/encodings/{id}",
            "/v1/encodings/{id}/segment",
            "/v1/models",
            "/v1/class-lists",
            "/v1/class-lists/{name}",
            "/v1/status",
            "/healthz",
            "/readyz",
            "/metrics",
        ] {
            assert!(JSON["paths"][path].is_object(), "{path}");
        }
        let schemas = &JSON["components"]["schemas"];
        let parts = schemas["SegmentForm"]["allOf"].as_array().unwrap();
        let referred = |name: &str| {
            let reference = format!("#/components/schemas/{name}");
            parts.iter().any(|part| part["$ref"] == reference)
        };
        assert!(referred("EncodingForm") && referred("AskForm"));
        for (fields, form) in [
            (&IMAGE_FIELDS[..], "EncodingForm"),
            (&IMAGE_FIELDS[..], "EncodingBody"),
            (&ASK_FIELDS[..], "AskForm"),
            (&ASK_FIELDS[..], "AskBody"),
        ] {
            for field in fields {
                assert!(
                    schemas[form]["properties"][field].is_object(),
                    "{form}: {field}"
                );
            }
        }
        let form = &schemas["EncodingForm"];
        assert_eq!(form["required"], serde_json::json!(["image"]));
        assert_eq!(form["properties"]["image"]["format"], "binary");
        let threshold = &schemas["AskForm"]["properties"]["threshold"];
        assert_eq!(threshold["type"], "number");
    }

    #[test]
    fn the_page_describes_every_type_and_error() {
        let page = &*PAGE;
        let schemas = JSON["components"]["schemas"].as_object().unwrap();
        for name in schemas.keys() {
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        // Every reference leads to a type.
        for part in page.split("href=\"#").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(page.contains(&format!("id=\"{name}\"")), "{name}");
        }
        for code in Code::ALL {
            assert!(page.contains(&format!("id=\"{}\"", code.name())));
        }
        assert!(!page.contains("<script") && !page.contains("style="));
    }
}
