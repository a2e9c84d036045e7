//! Class files: the classes to look for, kept in a file instead of typed again.
//!
//! A text file has a class a line, with synonyms after commas:
//!
//! ```text
//! # what stands in a living room
//! sofa, couch, settee
//! potted plant
//! tv | television     # a bar separates as well
//! ```
//!
//! A file named `*.toml`, or whose first line is `[[class]]`, says more about its classes:
//!
//! ```toml
//! background = ["wall", "floor"]   # words that compete for pixels but are not labelled
//!
//! [[class]]
//! name = "sofa"
//! synonyms = ["couch", "settee"]
//! color = "#c04080"                # or [192, 64, 128]; `colour` as well
//! threshold = 0.2                  # least score of a pixel, 0 to 1
//!
//! [[class]]
//! name = "curtain"
//! background = true
//! ```
//!
//! Labels follow the order of the classes in the file; the words of `background` come last.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::class_toml;
use super::query::{ClassQuery, Collector, Place, QueryError, parse_names};
use crate::text_file::{self, TextFileError};

/// Bytes of the largest class file: 65,534 classes of 250 bytes each.
const MAX_FILE_BYTES: u64 = 1 << 24;

/// A class file that cannot be used; every error names the file.
#[derive(Debug, Error)]
pub enum ClassFileError {
    /// The file cannot be read as text.
    #[error(transparent)]
    File(#[from] TextFileError),
    /// The file holds a list that cannot be used.
    #[error("{}: {source}", path.display())]
    List {
        /// The file.
        path: PathBuf,
        /// What is wrong with the list.
        source: QueryError,
    },
    /// The file is not TOML, or has keys that class files do not have.
    #[error("{}: line {line}: {reason}", path.display())]
    Toml {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What the TOML reader said.
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

/// Reads a class file of either form.
///
/// # Errors
/// [`ClassFileError`], which names the file and the line.
pub(super) fn read_class_file(path: &Path) -> Result<Vec<ClassQuery>, ClassFileError> {
    let text = text_file::read(path, MAX_FILE_BYTES)?;
    parse_class_file(&text, path)
}

/// Reads the content of a class file; `name` decides the form as the module says, and is used in errors.
///
/// # Errors
/// [`ClassFileError`], all but its variant `File`.
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
    parse_lines(text).map_err(|source| ClassFileError::List {
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

fn parse_lines(text: &str) -> Result<Vec<ClassQuery>, QueryError> {
    let mut collector = Collector::default();
    for (number, line) in (1..).zip(text.split('\n')) {
        let line = without_comment(line);
        if !line.is_empty() {
            let place = Place::Line(number);
            collector.push(parse_names(line, &[',', '|'], place)?, place)?;
        }
    }
    collector.finish()
}

/// The line up to a `#` that begins it or follows white space, without the white space around it.
fn without_comment(line: &str) -> &str {
    let mut before = ' ';
    let comment = line.char_indices().find(|(_, character)| {
        let starts = *character == '#' && before.is_whitespace();
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
                "rooms.txt: line 1: the name \"a\\tb\" holds the control character '\\t'; remove it",
            ),
            (
                "dog\rcat",
                "rooms.txt: line 1: the name \"dog\\rcat\" holds the control character '\\r'; remove it",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn the_form_is_recognised() {
        let toml = "# mine\n[[class]] # first\nname = 'dog'\n";
        assert_eq!(names(&parse(toml).unwrap()), [["dog"]]);
        let error = parse_class_file("dog\n", Path::new("dogs.TOML")).unwrap_err();
        assert!(
            error.to_string().starts_with("dogs.TOML: line 1: "),
            "{error}"
        );
    }
}
