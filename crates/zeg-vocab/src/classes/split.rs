//! Splits of a class list into seen and unseen classes.
//!
//! A split is a list of unseen classes. [`ClassSet::with_split`] accepts the name of a published split, a text file
//! with one class per line, or the class names themselves.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::builtin;
use super::{ClassError, ClassSet};
use crate::text_file::{self, TextFileError};

/// Largest size of a split file in bytes: the longest class list with 250 bytes per class.
const MAX_FILE_BYTES: u64 = 1 << 24;

/// An error in a split.
#[derive(Debug, Error)]
pub enum SplitError {
    /// The text is empty.
    #[error(
        "no split is named; write `published`, `none`, `all`, {}names of unseen classes or a text file",
        known(list)
    )]
    Empty {
        /// The class list.
        list: String,
    },
    /// A name is neither a class of the list nor a split of it.
    #[error(
        "{class}; {list} has the splits {}{}",
        known(list),
        "`published`, `none` and `all`"
    )]
    Unknown {
        /// The class list.
        list: String,
        /// Error of looking up the name among the classes.
        class: ClassError,
    },
    /// The split file cannot be read as text.
    #[error(transparent)]
    File(#[from] TextFileError),
    /// A line of the split file names no class of the list.
    #[error("{}: line {line}: {class}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Error of looking up the name.
        class: ClassError,
    },
    /// The split file names no class; a split without unseen classes is written as `none`.
    #[error("{}: names no class; write `none` for a split without unseen classes", path.display())]
    EmptyFile {
        /// The file.
        path: PathBuf,
    },
}

/// Returns the names of the published splits of a list, each followed by a comma.
fn known(list: &str) -> String {
    builtin::splits_of(list).fold(String::new(), |names, name| names + "`" + name + "`, ")
}

impl ClassSet {
    /// Returns the same classes with another split.
    ///
    /// `text` is, in this order:
    /// 1. `published`: the split of [`ClassSet::by_name`]; a custom list keeps its split
    /// 2. `none`: every class is seen; `all`: every class is unseen
    /// 3. the name of a published split of the list, such as `zs3-4` or `voc20/zs3-4`
    /// 4. names of unseen classes, separated by commas
    /// 5. the path of a text file with one unseen class per line; lines that begin with `#` are comments
    ///
    /// # Errors
    /// Returns an error if the text is none of these; an unknown class name comes with the most similar one.
    ///
    /// ```
    /// use zeg_vocab::classes::ClassSet;
    ///
    /// let voc = ClassSet::by_name("voc20")?;
    /// assert_eq!(voc.clone().with_split("cow, motorbike")?.unseen, [9, 13]);
    /// assert_eq!(voc.with_split("zs3-2")?.unseen, [9, 13]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with_split(self, text: &str) -> Result<Self, SplitError> {
        let text = text.trim();
        let unseen = match text {
            "" => return Err(SplitError::Empty { list: self.name }),
            "published" => match builtin::by_name(&self.name) {
                Ok(published) if published.classes == self.classes => published.unseen,
                _ => self.unseen.clone(),
            },
            "none" => Vec::new(),
            "all" => (0..self.len()).collect(),
            _ => self.unseen_of(text)?,
        };
        Ok(Self { unseen, ..self })
    }

    /// Returns the labels of the unseen classes, ascending, from the name of a split, class names or a file.
    fn unseen_of(&self, text: &str) -> Result<Vec<usize>, SplitError> {
        let unknown = |class| SplitError::Unknown {
            list: self.name.clone(),
            class,
        };
        if let Some(split) = builtin::split_of(&self.name, text) {
            let names: Vec<&str> = split.lines().collect();
            return self.labels_of(&names).map_err(unknown);
        }
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        let classes = self.labels_of(&names);
        let path = Path::new(text);
        if classes.is_err() && (path.is_file() || looks_like_file(path)) {
            return self.read_split(path);
        }
        classes.map_err(unknown)
    }

    /// Returns the labels of the classes in a split file, ascending.
    fn read_split(&self, path: &Path) -> Result<Vec<usize>, SplitError> {
        let text = text_file::read(path, MAX_FILE_BYTES)?;
        let mut unseen = Vec::new();
        for (line, name) in (1..).zip(text.lines().map(str::trim)) {
            if name.is_empty() || name.starts_with('#') {
                continue;
            }
            unseen.push(self.label_of(name).map_err(|class| SplitError::Line {
                path: path.into(),
                line,
                class,
            })?);
        }
        if unseen.is_empty() {
            return Err(SplitError::EmptyFile { path: path.into() });
        }
        unseen.sort_unstable();
        unseen.dedup();
        Ok(unseen)
    }
}

/// Returns true if an argument has the file extension of a split file.
fn looks_like_file(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("txt"))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn unseen(list: &str, split: &str) -> Result<Vec<usize>, SplitError> {
        let set = ClassSet::by_name(list).unwrap();
        set.with_split(split).map(|set| set.unseen)
    }

    #[test]
    fn every_form_of_a_split_is_read() {
        for (list, split, expected) in [
            ("voc20", "published", &[15, 16, 17, 18, 19][..]),
            ("voc21", " published ", &[16, 17, 18, 19, 20]),
            ("voc20", "none", &[]),
            ("voc20", "zs3-2", &[9, 13]),
            ("voc21", "voc20/zs3-2", &[10, 14]),
            ("voc20", "sofa,cow , cow", &[9, 17]),
            ("pascal-context60", "zs3-4", &[15, 20, 34, 49]),
            ("pascal-context59", "zs3-4", &[14, 19, 33, 48]),
            ("ade20k-150", "published", &[]),
        ] {
            assert_eq!(unseen(list, split).unwrap(), expected, "{list} {split}");
        }
        assert_eq!(unseen("cityscapes19", "all").unwrap().len(), 19);
        let own = ClassSet::by_name("voc20")
            .unwrap()
            .with_split("dog")
            .unwrap();
        assert_eq!(own.with_split("published").unwrap().unseen.len(), 5);
    }

    #[test]
    fn a_file_has_a_class_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.txt");
        fs::write(&path, "# mine\r\n\r\n cow \r\nmotorbike\r\ncow").unwrap();
        let name = path.to_str().unwrap();
        assert_eq!(unseen("voc20", name).unwrap(), [9, 13]);

        fs::write(&path, "cow\n\nmotorbyke\n").unwrap();
        let error = unseen("voc20", name).unwrap_err().to_string();
        let end = "mine.txt: line 3: unknown class \"motorbyke\"; did you mean \"motorbike\"?";
        assert!(error.ends_with(end), "{error}");

        fs::write(&path, "# nothing\n").unwrap();
        assert!(matches!(
            unseen("voc20", name),
            Err(SplitError::EmptyFile { .. })
        ));
        assert!(matches!(
            unseen("voc20", "no/such.txt"),
            Err(SplitError::File(TextFileError::Unreadable { .. }))
        ));
    }

    #[test]
    fn an_invalid_split_is_an_error_that_lists_the_valid_ones() {
        let error = unseen("voc20", "zs3-3").unwrap_err().to_string();
        assert!(
            error.starts_with("unknown class \"zs3-3\"") && error.contains("`zs3-4`, "),
            "{error}"
        );
        assert!(matches!(
            unseen("voc20", " "),
            Err(SplitError::Empty { .. })
        ));
        let error = unseen("cityscapes19", "cars").unwrap_err().to_string();
        assert_eq!(
            error,
            "unknown class \"cars\"; did you mean \"car\"?; cityscapes19 has the splits `published`, `none` and `all`"
        );
    }

    #[test]
    fn all_names_together_identify_a_class() {
        let set = ClassSet::by_name("ade20k-full847").unwrap();
        let label = |name: &str| set.label_of(name);
        assert_eq!(label("bag").unwrap(), 114);
        assert_eq!(label("bag, handbag, pocketbook, purse").unwrap(), 252);
        assert_eq!(label("edifice").unwrap(), 1);
        let error = label("screen").unwrap_err().to_string();
        assert!(
            error.contains("\"screen, crt screen\"") && error.contains("silver screen"),
            "{error}"
        );
        // The name is a synonym of two classes and the class name of none.
        assert!(matches!(
            label("paper towels"),
            Err(ClassError::UnknownClass { closest: Some(closest), .. }) if closest == "paper towel"
        ));
    }
}
