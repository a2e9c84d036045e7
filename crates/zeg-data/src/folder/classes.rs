//! Reads the classes of a description: names, with optional synonyms, values or colours.

use std::collections::BTreeMap;
use std::ops::Range;

use serde::Deserialize;
use toml::{Spanned, Value};
use zeg_base::hex;
use zeg_image::IGNORE_LABEL;
use zeg_vocab::classes::ClassSet;

use super::written::At;
use crate::DataError;
use crate::labels::{IGNORE_8_BIT, IGNORE_16_BIT, LabelKind};

/// A class as written in the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClass {
    name: String,
    #[serde(default)]
    synonyms: Vec<String>,
    value: Option<Value>,
    #[serde(alias = "color")]
    colour: Option<Value>,
}

/// A class of a description.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) synonyms: Vec<String>,
    /// Its value in index files.
    value: Option<u16>,
    /// Its colour in palette files.
    colour: Option<[u8; 3]>,
    span: Range<usize>,
}

/// Reads `["sofa", { name = "tv", synonyms = […] }]`, or the name of a built-in class list.
pub(super) fn entries(written: &Spanned<Value>, at: At) -> Result<Vec<Entry>, DataError> {
    let span = written.span();
    let plain = |name: &str| Entry {
        name: name.to_owned(),
        synonyms: Vec::new(),
        value: None,
        colour: None,
        span: span.clone(),
    };
    match written.get_ref() {
        Value::String(list) => {
            let set =
                ClassSet::by_name(list).map_err(|error| at.error(&span, error.to_string()))?;
            Ok(set.classes.iter().map(|name| plain(name)).collect())
        }
        Value::Array(classes) => {
            let class = |class: &Value| match class {
                Value::String(name) => match name.split_once('|') {
                    Some((first, other)) => Err(at.error(&span, with_bar(name, first, other))),
                    None => Ok(plain(name)),
                },
                Value::Table(_) => entry(class, &span, at),
                _ => Err(at.error(&span, "a class must be a name or a table with a `name`")),
            };
            classes.iter().map(class).collect()
        }
        _ => Err(at.error(
            &span,
            "`classes` must be a list of classes or the name of a class list",
        )),
    }
}

/// Returns the reason why a class like `sofa|couch` is refused, which is the form of synonyms in other lists.
fn with_bar(name: &str, first: &str, other: &str) -> String {
    let synonyms: Vec<String> = other
        .split('|')
        .map(|name| format!("{:?}", name.trim()))
        .collect();
    format!(
        "class {name:?}: write synonyms as {{ name = {:?}, synonyms = [{}] }}",
        first.trim(),
        synonyms.join(", ")
    )
}

fn entry(value: &Value, span: &Range<usize>, at: At) -> Result<Entry, DataError> {
    let written: WrittenClass = value
        .clone()
        .try_into()
        .map_err(|error| at.toml(Some(span.clone()), &error))?;
    let wrong = |key: &str, value: &Value, form: &str| {
        let reason = format!(
            "`{key}` of class {:?} is {value}; write {form}",
            written.name
        );
        at.error(span, reason)
    };
    let number = match &written.value {
        None => None,
        Some(value) => {
            let number = value
                .as_integer()
                .and_then(|number| u16::try_from(number).ok());
            Some(number.ok_or_else(|| wrong("value", value, "a number from 0 to 65535"))?)
        }
    };
    let colour = match &written.colour {
        None => None,
        Some(value) => {
            let colour = colour(value);
            Some(colour.ok_or_else(|| wrong("colour", value, "\"#rrggbb\" or [r, g, b]"))?)
        }
    };
    Ok(Entry {
        name: written.name,
        synonyms: written.synonyms,
        value: number,
        colour,
        span: span.clone(),
    })
}

/// Parses a colour written as `"#rrggbb"` or `[r, g, b]`.
fn colour(value: &Value) -> Option<[u8; 3]> {
    match value {
        Value::String(text) => hex::parse_colour(text),
        Value::Array(channels) => {
            let channels = channels
                .iter()
                .map(|channel| u8::try_from(channel.as_integer()?).ok());
            channels.collect::<Option<Vec<u8>>>()?.try_into().ok()
        }
        _ => None,
    }
}

/// Returns the values of the classes, or `None` if no class has one, so that its position is its value.
pub(super) fn table(
    entries: &[Entry],
    span: &Range<usize>,
    at: At,
) -> Result<Option<BTreeMap<u16, u16>>, DataError> {
    if entries.iter().all(|entry| entry.value.is_none()) {
        return Ok(None);
    }
    let mut table = BTreeMap::new();
    for (class, entry) in (0..).zip(entries) {
        let Some(value) = entry.value else {
            let reason = format!(
                "class {:?} has no `value`, but other classes have one",
                entry.name
            );
            return Err(at.error(span, reason));
        };
        if table.insert(value, class).is_some() {
            let reason = format!(
                "class {:?} has the same `value` {value} as another class",
                entry.name
            );
            return Err(at.error(&entry.span, reason));
        }
    }
    Ok(Some(table))
}

/// Returns the class of each colour; ignored colours have the class [`IGNORE_LABEL`].
pub(super) fn palette(
    entries: &[Entry],
    ignored: Option<&Spanned<Vec<String>>>,
    span: &Range<usize>,
    at: At,
) -> Result<BTreeMap<[u8; 3], u16>, DataError> {
    let mut palette = BTreeMap::new();
    for (class, entry) in (0..).zip(entries) {
        let Some(colour) = entry.colour else {
            let reason = format!("class {:?} needs a `colour`", entry.name);
            return Err(at.error(span, reason));
        };
        if palette.insert(colour, class).is_some() {
            let reason = format!(
                "class {:?} has the same `colour` {} as another class",
                entry.name,
                hex::colour(colour)
            );
            return Err(at.error(&entry.span, reason));
        }
    }
    let Some(ignored) = ignored else {
        return Ok(palette);
    };
    for text in ignored.get_ref() {
        let Some(colour) = colour(&Value::String(text.clone())) else {
            let reason = format!("{text:?} is not a colour; write \"#rrggbb\"");
            return Err(at.error(&ignored.span(), reason));
        };
        if palette.insert(colour, IGNORE_LABEL).is_some() {
            let reason = format!("{text} is the colour of a class, or is listed twice");
            return Err(at.error(&ignored.span(), reason));
        }
    }
    Ok(palette)
}

/// Returns an error if a class has a colour, because colours are only used with kind = "palette".
pub(super) fn refuse_colours(entries: &[Entry], at: At) -> Result<(), DataError> {
    match entries.iter().find(|entry| entry.colour.is_some()) {
        Some(entry) => {
            let reason = format!(
                "class {:?} has a `colour`, which is only allowed with kind = \"palette\"",
                entry.name
            );
            Err(at.error(&entry.span, reason))
        }
        None => Ok(()),
    }
}

/// Returns an error if an ignored value is that of a class, or the level of bright pixels in binary masks.
pub(super) fn refuse_ignored_classes(
    kind: &LabelKind,
    entries: &[Entry],
    ignore: &Spanned<Vec<u16>>,
    at: At,
) -> Result<(), DataError> {
    let class_of = |value: u16| match kind {
        LabelKind::Identity => Some(usize::from(value)),
        LabelKind::ReduceZero => usize::from(value).checked_sub(1),
        LabelKind::Table(table) => table.get(&value).map(|class| usize::from(*class)),
        LabelKind::Binary { .. } => (value == IGNORE_8_BIT).then_some(1),
        LabelKind::Palette(_) => None,
    };
    let mut values = ignore.get_ref().iter();
    let taken = values.find_map(|value| Some((value, entries.get(class_of(*value)?)?)));
    match taken {
        Some((value, entry)) => {
            let reason = format!(
                "`ignore` lists {value}, which is the value of class {:?}; leave out one of them",
                entry.name
            );
            Err(at.error(&ignore.span(), reason))
        }
        None => Ok(()),
    }
}

/// Returns the default ignored values: 255, or 65535 if 255 is a class; none for palettes and binary masks.
pub(super) fn usual_ignore(kind: &LabelKind, classes: usize) -> Vec<u16> {
    let taken = match kind {
        LabelKind::Identity => classes > usize::from(IGNORE_8_BIT),
        LabelKind::ReduceZero => classes >= usize::from(IGNORE_8_BIT),
        LabelKind::Table(table) => table.contains_key(&IGNORE_8_BIT),
        LabelKind::Palette(_) | LabelKind::Binary { .. } => return Vec::new(),
    };
    vec![if taken { IGNORE_16_BIT } else { IGNORE_8_BIT }]
}
