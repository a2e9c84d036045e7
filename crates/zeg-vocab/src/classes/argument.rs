//! Parses the argument of `--classes`: class names, a class file, or the class list of a benchmark.
//!
//! The forms are tried in this order: `@rooms.txt` is a file; the name of a benchmark's list (`voc20`) is this list;
//! the path of an existing file is this file; a path with the extension of a class file is a missing file, which is an
//! error, and so is the name of a data set; anything else is a list of class names.

use std::path::Path;

use thiserror::Error;

use super::ClassSet;
use super::builtin;
use super::class_file::{ClassFileError, read_class_file};
use super::other_form::ENDINGS as OTHER_ENDINGS;
use super::query::{ClassQuery, QueryError, parse_class_list};

/// File extensions of class files, which no class name ends in.
const FILE_ENDINGS: [&str; 3] = ["txt", "toml", "csv"];

/// An error of parsing the argument of `--classes`.
#[derive(Debug, Error)]
pub enum ClassArgumentError {
    /// The class names in the argument are invalid.
    #[error(transparent)]
    List(#[from] QueryError),
    /// The class file in the argument is invalid or cannot be read.
    #[error(transparent)]
    File(#[from] ClassFileError),
    /// The argument is the name of a data set, not of a class list.
    #[error("{name:?} is a data set, not a class list; did you mean {}?", lists.join(" or "))]
    Dataset {
        /// The argument.
        name: String,
        /// Class lists of the data set.
        lists: Vec<&'static str>,
    },
}

/// Returns the classes of an argument: class names, the name of a built-in list, or the path of a class file.
///
/// An argument that begins with `@` is a file. Otherwise the name of a built-in list comes first, then an existing file
/// or a path that ends in `.txt`, `.toml` or `.csv`, and then a list of class names.
///
/// # Errors
/// Returns an error if the names or the file are invalid, or the file cannot be read.
///
/// ```
/// use zeg_vocab::classes::parse_classes_argument;
///
/// assert_eq!(parse_classes_argument("dog, sofa|couch")?.len(), 2);
/// assert_eq!(parse_classes_argument("voc20")?.len(), 20);
/// # Ok::<(), zeg_vocab::classes::ClassArgumentError>(())
/// ```
pub fn parse_classes_argument(argument: &str) -> Result<Vec<ClassQuery>, ClassArgumentError> {
    let trimmed = argument.trim();
    if let Some(path) = trimmed.strip_prefix('@') {
        return Ok(read_class_file(Path::new(path))?);
    }
    if builtin::named(trimmed).is_none() {
        for path in [argument, trimmed].map(Path::new) {
            if path.is_file() || looks_like_file(path) {
                return Ok(read_class_file(path)?);
            }
        }
    }
    parse_class_names(argument)
}

/// Returns the classes of a text that is no path: the name of a built-in list, or class names.
///
/// Nothing is read from the disk, so the text may come from a stranger.
///
/// # Errors
/// Returns an error if the names are invalid, or the text is the name of a data set.
///
/// ```
/// use zeg_vocab::classes::parse_class_names;
///
/// assert_eq!(parse_class_names("voc20")?.len(), 20);
/// assert_eq!(parse_class_names("@rooms.txt")?[0].name, "@rooms.txt");
/// # Ok::<(), zeg_vocab::classes::ClassArgumentError>(())
/// ```
pub fn parse_class_names(text: &str) -> Result<Vec<ClassQuery>, ClassArgumentError> {
    let trimmed = text.trim();
    if let Some(name) = builtin::named(trimmed)
        && let Ok(set) = ClassSet::by_name(name)
    {
        let synonyms = set
            .synonyms
            .into_iter()
            .chain(std::iter::repeat(Vec::new()));
        let classes = set.classes.into_iter().zip(synonyms);
        return Ok(classes
            .map(|(name, synonyms)| ClassQuery {
                synonyms,
                ..ClassQuery::new(name)
            })
            .collect());
    }
    let lists = builtin::of_dataset(trimmed);
    if !lists.is_empty() {
        let name = trimmed.to_owned();
        return Err(ClassArgumentError::Dataset { name, lists });
    }
    Ok(parse_class_list(text)?)
}

fn looks_like_file(path: &Path) -> bool {
    let extension = path.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| {
        let endings = OTHER_ENDINGS.iter().map(|(ending, _)| ending);
        FILE_ENDINGS
            .iter()
            .chain(endings)
            .any(|ending| extension.eq_ignore_ascii_case(ending))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text_file::TextFileError;

    fn names(argument: &str) -> Vec<String> {
        let classes = parse_classes_argument(argument).unwrap();
        classes.into_iter().map(|class| class.name).collect()
    }

    #[test]
    fn names_files_and_benchmarks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rooms, upstairs");
        std::fs::write(&path, "bed\nlamp\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(names(path), ["bed", "lamp"]);
        assert_eq!(names(&format!("@{path}")), ["bed", "lamp"]);
        assert_eq!(names(" pascal-context59 ").len(), 59);
        assert_eq!(names("voc20, cat"), ["voc20", "cat"]);
        assert_eq!(names("dog, cat"), ["dog", "cat"]);
        // A folder is not a class file, so its name is a class name.
        assert_eq!(names("src"), ["src"]);
    }

    #[test]
    fn a_data_set_is_not_a_class() {
        let error = parse_classes_argument("ade20k").unwrap_err().to_string();
        assert_eq!(
            error,
            "\"ade20k\" is a data set, not a class list; did you mean ade20k-150?"
        );
        assert!(parse_classes_argument("voc12").is_err());
        assert_eq!(names("VOC20").len(), 20);
    }

    #[test]
    fn lists_in_other_forms_are_not_classes() {
        for list in [
            "\"cat\", \"dog\"",
            "'cat', 'dog'",
            "[\"cat\", \"dog\"]",
            "{cat, dog}",
            "0: cat, 1: dog",
        ] {
            let error = parse_classes_argument(list).unwrap_err();
            assert!(
                matches!(error, ClassArgumentError::List(_)),
                "{list}: {error}"
            );
        }
        assert_eq!(
            names("driver's seat, 7 up, 3d printer"),
            ["driver's seat", "7 up", "3d printer"]
        );
    }

    #[test]
    fn a_missing_file_is_not_a_class() {
        for argument in [
            "@no-such-file",
            "no/rooms.txt",
            "rooms.TOML",
            "no-such.json",
            "@",
            "@src",
        ] {
            let error = parse_classes_argument(argument).unwrap_err();
            assert!(
                matches!(
                    error,
                    ClassArgumentError::File(ClassFileError::File(
                        TextFileError::Unreadable { .. } | TextFileError::NotRegular { .. }
                    ))
                ),
                "{argument}: {error}"
            );
        }
        assert!(matches!(
            parse_classes_argument(" "),
            Err(ClassArgumentError::List(QueryError::EmptyList))
        ));
    }
}
