//! Class files in TOML; [`super::class_file`] describes the format.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::{Spanned, Value};
use zeg_base::keys::suggestion;

use super::class_file::ClassFileError;
use super::query::{ClassQuery, Collector, Place, QueryError, Role, check_name, shortened};
use crate::text_file::line_after;

/// Content of the file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    #[serde(default)]
    background: Vec<Spanned<String>>,
    #[serde(default)]
    class: Vec<WrittenClass>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenClass {
    name: Spanned<String>,
    #[serde(default)]
    synonyms: Vec<Spanned<String>>,
    #[serde(alias = "colour")]
    color: Option<Spanned<Value>>,
    threshold: Option<Spanned<f64>>,
    #[serde(default)]
    background: bool,
}

/// Parses the content of a file; `name` is used in errors.
pub(super) fn parse(text: &str, name: &Path) -> Result<Vec<ClassQuery>, ClassFileError> {
    let written: Written = toml::from_str(text).map_err(|error| ClassFileError::Toml {
        path: name.into(),
        line: line_of(text, &error.span().unwrap_or_default()),
        reason: shortened_reason(error.message()) + &suggestion(error.message()),
    })?;
    let list_error = |source| ClassFileError::List {
        path: name.into(),
        source,
    };
    let mut collector = Collector::default();
    for class in written.class {
        let place = Place::Line(line_of(text, &class.name.span()));
        let class = checked(class, text, name)?;
        collector.push(class, place).map_err(list_error)?;
    }
    for name in written.background {
        let place = Place::Line(line_of(text, &name.span()));
        let class = check_name(name.get_ref(), place).map(|name| ClassQuery {
            role: Role::Background,
            ..ClassQuery::new(name)
        });
        class
            .and_then(|class| collector.push(class, place))
            .map_err(list_error)?;
    }
    collector.finish().map_err(list_error)
}

/// Checks every value and returns the class.
fn checked(class: WrittenClass, text: &str, file: &Path) -> Result<ClassQuery, ClassFileError> {
    let checked_name = |name: &Spanned<String>| {
        let place = Place::Line(line_of(text, &name.span()));
        check_name(name.get_ref(), place).map_err(|source: QueryError| ClassFileError::List {
            path: file.into(),
            source,
        })
    };
    let name = checked_name(&class.name)?;
    let synonyms = class
        .synonyms
        .iter()
        .map(checked_name)
        .collect::<Result<_, _>>()?;
    let colour = match class.color {
        None => None,
        Some(value) => match colour(value.get_ref()) {
            Some(colour) => Some(colour),
            None => {
                return Err(ClassFileError::Colour {
                    path: file.into(),
                    line: line_of(text, &value.span()),
                    class: shortened(&name),
                    value: shortened(&value.get_ref().to_string()),
                });
            }
        },
    };
    let threshold = match class.threshold {
        Some(value) if !(0.0..=1.0).contains(value.get_ref()) => {
            return Err(ClassFileError::Threshold {
                path: file.into(),
                line: line_of(text, &value.span()),
                class: shortened(&name),
                value: *value.get_ref(),
            });
        }
        threshold => threshold.map(|value| *value.get_ref() as f32),
    };
    Ok(ClassQuery {
        name,
        synonyms,
        role: if class.background {
            Role::Background
        } else {
            Role::Foreground
        },
        colour,
        threshold,
    })
}

/// Parses `"#rrggbb"` or `[r, g, b]`; `None` for any other value.
fn colour(value: &Value) -> Option<[u8; 3]> {
    match value {
        Value::String(text) => zeg_base::hex::parse_colour(text),
        Value::Array(channels) => {
            let channels: Vec<u8> = channels
                .iter()
                .map(|channel| u8::try_from(channel.as_integer()?).ok())
                .collect::<Option<_>>()?;
            channels.try_into().ok()
        }
        _ => None,
    }
}

/// Returns the line, from 1, on which a span begins.
fn line_of(text: &str, span: &Range<usize>) -> usize {
    line_after(text.as_bytes().get(..span.start).unwrap_or_default())
}

/// Returns the first line of a message of the TOML parser, shortened: it may quote a key or value of any length.
fn shortened_reason(message: &str) -> String {
    let line = message.lines().next().unwrap_or_default();
    line.chars().take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<ClassQuery>, ClassFileError> {
        super::parse(text, Path::new("rooms.toml"))
    }

    #[test]
    fn all_keys_of_a_class_are_read() {
        let classes = parse(
            r##"
            background = ["wall"]
            [[class]]
            name = " Paris, France "
            synonyms = ["paris"]
            color = "#0aFF80"
            threshold = 0.25
            [[class]]
            name = "curtain"
            colour = [1, 2, 255]
            background = true
            threshold = 0
            "##,
        )
        .unwrap();
        assert_eq!(
            classes,
            [
                ClassQuery {
                    synonyms: vec!["paris".into()],
                    colour: Some([10, 255, 128]),
                    threshold: Some(0.25),
                    ..ClassQuery::new("Paris, France")
                },
                ClassQuery {
                    role: Role::Background,
                    colour: Some([1, 2, 255]),
                    threshold: Some(0.0),
                    ..ClassQuery::new("curtain")
                },
                ClassQuery {
                    role: Role::Background,
                    ..ClassQuery::new("wall")
                },
            ]
        );
    }

    #[test]
    fn errors_name_file_line_and_value() {
        for (text, expected) in [
            ("", "rooms.toml: the class list names no class"),
            (
                "background = ['wall']",
                "rooms.toml: every class of the list is a background class",
            ),
            (
                "[[class]]\nname = ''",
                "rooms.toml: line 2: a name is missing in \"\"",
            ),
            (
                "[[class]]\nname = 'dog'\nsynonyms = [\n'pup',\n'Dog',\n]",
                "rooms.toml: line 2: \"Dog\" is already named, in line 2",
            ),
            (
                "background = ['dog']\n[[class]]\nname = 'dog'",
                "rooms.toml: line 1: \"dog\" is already named, in line 3",
            ),
            (
                "[[class]]\nname = 'dog'\ncolor = 'red'",
                "rooms.toml: line 3: colour \"red\" of class \"dog\"; write \"#rrggbb\" or [r, g, b] with numbers from 0 to 255",
            ),
            (
                "[[class]]\nname = 'dog'\nthreshold = nan",
                "rooms.toml: line 3: threshold NaN of class \"dog\"; write a score from 0 to 1",
            ),
            (
                "[[class]]\nname = 'dog'\nnmae = 'cat'",
                "rooms.toml: line 3: unknown field `nmae`, expected one of `name`, `synonyms`, `color`, `colour`, `threshold`, `background`; did you mean \"name\"?",
            ),
            (
                "[[class]]\nname = 7",
                "rooms.toml: line 2: invalid type: integer `7`, expected a string",
            ),
            (
                "[[class]]\n\nsynonyms = ['a']",
                "rooms.toml: line 1: missing field `name`",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected, "{text}");
        }
    }

    #[test]
    fn colours_are_exact() {
        for text in [
            "'#12345'",
            "'#+12345'",
            "'123456'",
            "'#12345é'",
            "[1, 2]",
            "[1, 2, 256]",
            "[1, 2, -1]",
            "[1, 2, 3, 4]",
            "[1.0, 2, 3]",
            "7",
        ] {
            let file = format!("[[class]]\nname = 'dog'\ncolor = {text}");
            let error = parse(&file).unwrap_err();
            assert!(
                matches!(error, ClassFileError::Colour { line: 3, .. }),
                "{error}"
            );
        }
    }

    /// Deep nesting that would overflow the stack of a recursive parser.
    #[test]
    fn deep_nesting_is_an_error() {
        for opening in ["[", "{a="] {
            let text = format!("x = {}", opening.repeat(200_000));
            assert!(matches!(parse(&text), Err(ClassFileError::Toml { .. })));
        }
    }
}
