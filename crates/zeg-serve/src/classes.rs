//! The classes of a request: names with synonyms, as text or as JSON, and the checks of a class list.
//!
//! The command line takes the path of a class file in place of names; a request never does.

use serde::Deserialize;
use serde_json::Value;
use zeg::vocab::classes::{
    ClassArgumentError, ClassQuery, ClassSet, QueryError, Role, parse_class_names,
};
use zeg_base::hex::parse_colour;

use crate::{
    json_body,
    problem::{Code, Problem},
};

/// Most names, synonyms included, for each class that a request may have.
const MOST_SYNONYMS: usize = 10;

/// A class as JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClassObject {
    name: String,
    #[serde(default)]
    synonyms: Vec<String>,
    #[serde(default)]
    background: bool,
    #[serde(default)]
    threshold: Option<f32>,
    #[serde(default)]
    colour: Option<String>,
}

/// Reads the classes of a request, followed by its background classes.
///
/// - `classes`: text such as `red, blue|azure`, the name of a built-in list, or a JSON array of texts and objects
/// - `background`: the same; every class of it is a background class
/// - `most`: most classes
///
/// # Errors
/// Returns a problem that names the first entry that cannot be used.
pub(crate) fn read_classes(
    classes: &Value,
    background: Option<&Value>,
    most: usize,
) -> Result<Vec<ClassQuery>, Problem> {
    let mut read = entries(classes, "classes")?;
    if let Some(background) = background {
        for mut class in entries(background, "background")? {
            class.role = Role::Background;
            read.push(class);
        }
    }
    if read.len() > most {
        return Err(Problem::new(
            Code::BadClasses,
            format!(
                "there are {} classes; a request takes at most {most}",
                read.len()
            ),
        )
        .with_hint("leave some out, or segment with `zeg segment`"));
    }
    // Names are compared with each other, which takes long where there are very many.
    let names: usize = read.iter().map(|class| class.names().count()).sum();
    if names > most.saturating_mul(MOST_SYNONYMS) {
        return Err(Problem::new(
            Code::BadClasses,
            format!(
                "there are {names} names and synonyms; a request takes at most {}",
                most.saturating_mul(MOST_SYNONYMS)
            ),
        )
        .with_hint("leave synonyms out"));
    }
    if !read.iter().any(|class| class.role.is_foreground()) {
        return Err(of_query(&QueryError::OnlyBackground));
    }
    checked(read)
}

/// Checks the names of all classes together, so that no name occurs twice.
fn checked(classes: Vec<ClassQuery>) -> Result<Vec<ClassQuery>, Problem> {
    let names = classes.iter().map(|class| class.name.clone()).collect();
    let synonyms = classes.iter().map(|class| class.synonyms.clone()).collect();
    let set = ClassSet::custom("classes", names, synonyms, Vec::new())
        .map_err(|error| bad(error.to_string()))?;
    let checked = classes
        .into_iter()
        .enumerate()
        .map(|(label, class)| ClassQuery {
            name: set.classes.get(label).cloned().unwrap_or(class.name),
            synonyms: set.synonyms.get(label).cloned().unwrap_or_default(),
            ..class
        });
    Ok(checked.collect())
}

/// Reads the classes of one field.
fn entries(value: &Value, field: &str) -> Result<Vec<ClassQuery>, Problem> {
    match value {
        Value::String(text) => of_text(text, field),
        Value::Array(entries) => {
            let mut classes = Vec::with_capacity(entries.len());
            for (position, entry) in (1..).zip(entries) {
                classes.push(of_entry(entry, position, field)?);
            }
            if classes.is_empty() && field == "classes" {
                return Err(of_query(&QueryError::EmptyList));
            }
            Ok(classes)
        }
        other => Err(bad(format!(
            "`{field}` is {}; write class names separated by commas, or an array of names",
            kind(other)
        ))),
    }
}

/// Reads classes as the command line takes them, or a JSON array in a field of a form.
fn of_text(text: &str, field: &str) -> Result<Vec<ClassQuery>, Problem> {
    if text.trim_start().starts_with('[') {
        let value = json_body::value(text)
            .map_err(|problem| bad(format!("`{field}` is no JSON array: {problem}")))?;
        return entries(&value, field);
    }
    parse_class_names(text).map_err(|error| match (field, &error) {
        ("classes", ClassArgumentError::List(error)) => of_query(error),
        ("classes", error) => bad(error.to_string()),
        _ => bad(format!("`{field}`: {error}")),
    })
}

/// Reads an entry of a JSON array.
fn of_entry(entry: &Value, position: usize, field: &str) -> Result<ClassQuery, Problem> {
    let place = |reason: String| bad(format!("entry {position} of `{field}`: {reason}"));
    match entry {
        // A comma belongs to the name here, as the entries are separate already.
        Value::String(text) => {
            let mut names = text.split('|').map(|name| name.trim().to_owned());
            Ok(ClassQuery {
                name: names.next().unwrap_or_default(),
                synonyms: names.collect(),
                ..ClassQuery::default()
            })
        }
        Value::Object(_) => {
            let object: ClassObject =
                serde_json::from_value(entry.clone()).map_err(|error| place(error.to_string()))?;
            if let Some(threshold) = object.threshold
                && !(0.0..=1.0).contains(&threshold)
            {
                return Err(place(format!(
                    "the threshold {threshold} is not from 0 to 1"
                )));
            }
            let colour = match &object.colour {
                Some(text) => Some(parse_colour(text).ok_or_else(|| {
                    place(format!(
                        "the colour {text:?} is not of the form \"#rrggbb\""
                    ))
                })?),
                None => None,
            };
            Ok(ClassQuery {
                name: object.name,
                synonyms: object.synonyms,
                role: if object.background {
                    Role::Background
                } else {
                    Role::Foreground
                },
                colour,
                threshold: object.threshold,
            })
        }
        other => Err(place(format!(
            "{}; write a name or an object with \"name\"",
            kind(other)
        ))),
    }
}

/// Returns what kind of JSON a value is.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::BadClasses, detail)
        .with_hint("write names separated by commas, with `|` between synonyms: dog, sofa|couch")
}

fn of_query(error: &QueryError) -> Problem {
    bad(error.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(classes: Value) -> Result<Vec<ClassQuery>, Problem> {
        read_classes(&classes, None, 100)
    }

    #[test]
    fn text_and_arrays_mean_the_same() {
        let text = read(json!("dog|puppy, sofa")).unwrap();
        assert_eq!(read(json!(["dog|puppy", "sofa"])).unwrap(), text);
        assert_eq!(read(json!("[\"dog | puppy\", \"sofa\"]")).unwrap(), text);
        let objects = json!([{"name": "dog", "synonyms": ["puppy"]}, {"name": "sofa"}]);
        assert_eq!(read(objects).unwrap(), text);
        let with_comma = read(json!(["salt, fine"])).unwrap();
        assert_eq!(with_comma[0].name, "salt, fine");
    }

    #[test]
    fn built_in_lists_are_known_and_files_are_not() {
        assert_eq!(read(json!(" VOC20 ")).unwrap().len(), 20);
        let named = read(json!("/etc/passwd")).unwrap();
        assert_eq!(named[0].name, "/etc/passwd");
        assert_eq!(read(json!("@classes.txt")).unwrap().len(), 1);
    }

    #[test]
    fn background_comes_last_and_cannot_be_all() {
        let both = read_classes(&json!("dog"), Some(&json!("wall, floor")), 9).unwrap();
        let roles: Vec<bool> = both.iter().map(|c| c.role.is_foreground()).collect();
        assert_eq!(roles, [true, false, false]);
        let only = json!([{"name": "wall", "background": true}]);
        assert_eq!(read(only).unwrap_err().code(), Code::BadClasses);
        assert!(read_classes(&json!("dog"), Some(&json!("Dog")), 9).is_err());
    }

    #[test]
    fn every_mistake_is_named() {
        for (classes, part) in [
            (json!(""), "names no class"),
            (json!([]), "names no class"),
            (json!(7), "a number"),
            (json!(["a", 7]), "entry 2"),
            (json!([{"nam": "a"}]), "nam"),
            (json!([{"name": "a", "threshold": 2}]), "0 to 1"),
            (json!([{"name": "a", "colour": "red"}]), "#rrggbb"),
            (json!("a, a"), "already named"),
            (json!("ade20k"), "did you mean ade20k-150"),
            (json!(["a", ""]), "missing"),
            (json!("[\"a\""), "JSON"),
            (json!(vec!["x"; 101]), "101 classes"),
        ] {
            let problem = read(classes.clone()).unwrap_err();
            assert_eq!(problem.code(), Code::BadClasses);
            assert!(problem.detail().contains(part), "{classes}: {problem}");
        }
    }
}
