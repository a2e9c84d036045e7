//! Class files: class lists that are stored in a file.
//!
//! A text file has one class per line, with synonyms after commas:
//!
//! ```text
//! # furniture of a living room
//! sofa, couch, settee
//! potted plant
//! tv | television     # names may be separated by a bar as well
//! ```
//!
//! A file named `*.toml`, or whose first line is `[[class]]`, can hold more settings of a class:
//!
//! ```toml
//! background = ["wall", "floor"]   # background classes: they compete for pixels but are not labelled
//!
//! [[class]]
//! name = "sofa"
//! synonyms = ["couch", "settee"]
//! color = "#c04080"                # or [192, 64, 128]; `colour` works as well
//! threshold = 0.2                  # lowest score of a labelled pixel, 0 to 1
//!
//! [[class]]
//! name = "curtain"
//! background = true
//! ```
//!
//! Labels follow the order of the classes in the file; the classes of `background` come last.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::class_toml;
use super::other_form::{self, OtherForm};
use super::query::{ClassQuery, Collector, Place, QueryError, parse_names};
use crate::text_file::{self, TextFileError};

/// Largest size of a class file in bytes: 65,534 classes of 250 bytes each.
const MAX_FILE_BYTES: u64 = 1 << 24;

/// An error in a class file; every error names the file.
#[derive(Debug, Error)]
pub enum ClassFileError {
    /// The file cannot be read as text.
    #[error(transparent)]
    File(#[from] TextFileError),
    /// The class list in the file is invalid.
    #[error("{}: {source}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// The error in the list.
        source: QueryError,
    },
    /// The file, or a line of it, is in a form that would give wrong class names.
    #[error(
        "{}: {}{form} is not a class file; write one class per line, with commas between its names",
        path.display(),
        line.map_or_else(String::new, |line| format!("line {line}: "))
    )]
    OtherForm {
        /// The file.
        path: PathBuf,
        /// Line, from 1; `None` if the extension says it.
        line: Option<usize>,
        /// The form.
        form: OtherForm,
    },
    /// The file is not valid TOML, or has unknown keys.
    #[error("{}: line {line}: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Message of the TOML parser.
        reason: String,
    },
    /// A colour is neither `"#rrggbb"` nor three numbers from 0 to 255.
    #[error("{}: line {line}: colour {value} of class {class:?}; write \"#rrggbb\" or [r, g, b] with numbers from 0 to 255", path.display())]
    Colour {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Name of the class.
        class: String,
        /// The value as it was given, shortened.
        value: String,
    },
    /// A threshold is not between 0 and 1.
    #[error("{}: line {line}: threshold {value} of class {class:?}; write a score from 0 to 1", path.display())]
    Threshold {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Name of the class.
        class: String,
        /// The value as it was given.
        value: f64,
    },
}

/// Reads a class file in either format.
///
/// # Errors
/// Returns an error that names the file and the line.
pub(super) fn read_class_file(path: &Path) -> Result<Vec<ClassQuery>, ClassFileError> {
    let text = text_file::read(path, MAX_FILE_BYTES)?;
    parse_class_file(&text, path)
}

/// Parses the content of a class file. It is TOML if the file name `name` ends in `.toml` or the first line is
/// `[[class]]`, else plain text; `name` is also used in errors.
///
/// # Errors
/// Returns any [`ClassFileError`] except `File`.
///
/// ```
/// use zeg_vocab::classes::parse_class_file;
///
/// let classes = parse_class_file("# animals\ndog, puppy\ncat\n", "animals.txt".as_ref())?;
/// assert_eq!(classes.len(), 2);
/// assert_eq!(classes[0].synonyms, ["puppy"]);
/// # Ok::<(), zeg_vocab::classes::ClassFileError>(())
/// ```
pub fn parse_class_file(text: &str, name: &Path) -> Result<Vec<ClassQuery>, ClassFileError> {
    if is_toml(text, name) {
        return class_toml::parse(text, name);
    }
    let other_form = |line: Option<usize>, form: OtherForm| ClassFileError::OtherForm {
        path: name.into(),
        line,
        form,
    };
    if let Some(form) = other_form::of_extension(name) {
        return Err(other_form(None, form));
    }
    if let Some(form) = other_form::of_start(text) {
        return Err(other_form(None, form));
    }
    let lines = (1..).zip(text.split('\n').map(without_comment));
    let lines: Vec<(usize, &str)> = lines.filter(|(_, line)| !line.is_empty()).collect();
    for (position, (number, line)) in lines.iter().enumerate() {
        if let Some(form) = other_form::of_line(line, position == 0, name) {
            return Err(other_form(Some(*number), form));
        }
    }
    parse_lines(&lines).map_err(|source| ClassFileError::List {
        path: name.into(),
        source,
    })
}

fn is_toml(text: &str, name: &Path) -> bool {
    let named = name
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    let mut lines = text.lines().map(without_comment);
    named || lines.find(|line| !line.is_empty()) == Some("[[class]]")
}

/// Parses lines, each with its number from 1.
fn parse_lines(lines: &[(usize, &str)]) -> Result<Vec<ClassQuery>, QueryError> {
    let texts: Vec<&str> = lines.iter().map(|(_, line)| *line).collect();
    if let Some((number, line)) = lines.first()
        && other_form::is_numbered(&texts)
    {
        return Err(QueryError::numbered(line, Place::Line(*number)));
    }
    let mut collector = Collector::default();
    for (number, line) in lines {
        let place = Place::Line(*number);
        collector.push(parse_names(line, &[',', '|'], place)?, place)?;
    }
    collector.finish()
}

/// Returns the trimmed line up to a `#` that begins the line or follows white space. Before a digit it is a part of the
/// name, as in `jersey #7`, unless it begins the line.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    let is_inside = |start: usize| !line.get(..start).unwrap_or_default().trim().is_empty();
    let precedes_digit = |start: usize| {
        let rest = line.get(start + 1..).unwrap_or_default();
        rest.starts_with(|character: char| character.is_ascii_digit())
    };
    let comment = line.char_indices().find(|(start, character)| {
        let starts = *character == '#'
            && before.is_whitespace()
            && !(is_inside(*start) && precedes_digit(*start));
        before = *character;
        starts
    });
    let text = comment.and_then(|(start, _)| line.get(..start));
    text.unwrap_or(line).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<ClassQuery>, ClassFileError> {
        parse_class_file(text, Path::new("rooms.txt"))
    }

    fn names(classes: &[ClassQuery]) -> Vec<Vec<&str>> {
        classes
            .iter()
            .map(|class| class.names().collect())
            .collect()
    }

    #[test]
    fn a_class_a_line_with_comments_and_any_line_end() {
        let classes =
            parse("# rooms\r\n\r\nsofa, couch | settee\r\n  tv  # the set\r\nc# code").unwrap();
        assert_eq!(
            names(&classes),
            [vec!["sofa", "couch", "settee"], vec!["tv"], vec!["c# code"]]
        );
    }

    #[test]
    fn lists_in_other_forms_are_not_classes() {
        let refused = |name: &str, text: &str| {
            parse_class_file(text, Path::new(name))
                .unwrap_err()
                .to_string()
        };
        for (name, text, expected) in [
            (
                "a.csv",
                "id,name\n0,cat\n1,dog\n",
                "a.csv: line 1: the header of a table",
            ),
            (
                "q.csv",
                "name\n\"door, double door\"\n",
                "q.csv: line 1: the header of a table",
            ),
            (
                "q.csv",
                "\"door, double door\"\n\"cat\"\n",
                "q.csv: line 1: the name \"\\\"door\" begins with '\"'",
            ),
            ("d.json", "{\"0\": \"cat\"}", "d.json: JSON"),
            ("d.txt", "{\"0\": \"cat\"}", "d.txt: JSON"),
            ("y.yaml", "names:\n- cat\n", "y.yaml: YAML"),
            ("y.txt", "names:\n- cat\n", "y.txt: line 1: YAML"),
            ("y.txt", "- cat\n- dog\n", "y.txt: line 1: YAML"),
            (
                "l.txt",
                "item {\n  id: 1\n}\n",
                "l.txt: line 1: a text protocol buffer",
            ),
            (
                "n.txt",
                "# COCO\n0: unlabeled\n1: person\n",
                "n.txt: line 2: \"0: unlabeled\"",
            ),
            ("n.csv", "0,cat\n1,dog\n", "n.csv: line 1: \"0,cat\""),
        ] {
            let error = refused(name, text);
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn a_number_sign_before_a_digit_is_part_of_a_name() {
        let classes = parse("jersey #7\n#1 a comment\nbus #12 # the red one\n").unwrap();
        assert_eq!(names(&classes), [["jersey #7"], ["bus #12"]]);
    }

    #[test]
    fn errors_name_file_and_line() {
        for (text, expected) in [
            ("", "rooms.txt: the class list names no class"),
            (
                "# only words\n\n",
                "rooms.txt: the class list names no class",
            ),
            (
                "dog\n\ncat,,kitten\n",
                "rooms.txt: line 3: a name is missing in \"cat,,kitten\"",
            ),
            (
                "dog\ncat\nDOG\n",
                "rooms.txt: line 3: \"DOG\" is already named, in line 1",
            ),
            (
                "a\tb",
                "rooms.txt: line 1: the name \"a\\tb\" contains the control character '\\t'; remove it",
            ),
            (
                "dog\rcat",
                "rooms.txt: line 1: the name \"dog\\rcat\" contains the control character '\\r'; remove it",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_format_is_recognised() {
        let toml = "# mine\n[[class]] # first\nname = 'dog'\n";
        assert_eq!(names(&parse(toml).unwrap()), [["dog"]]);
        let error = parse_class_file("dog\n", Path::new("dogs.TOML")).unwrap_err();
        assert!(
            error.to_string().starts_with("dogs.TOML: line 1: "),
            "{error}"
        );
    }
}
