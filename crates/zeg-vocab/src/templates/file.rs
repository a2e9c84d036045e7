//! Template sets from files: one template per line; blank lines and lines that begin with `#` are skipped.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{TemplateError, TemplateSet};
use crate::{
    classes::shortened,
    text_file::{self, TextFileError},
};

/// Largest size of a template file in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// An error of loading a template set from a file or by name.
#[derive(Debug, Error)]
pub enum TemplateFileError {
    /// The file cannot be read as text.
    #[error(transparent)]
    File(#[from] TextFileError),
    /// A line of the file is not a template.
    #[error("{}: line {line}: {source}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The error in the template.
        source: TemplateError,
    },
    /// A line has the quotes or brackets of a list in a program or in JSON, which would become part of every prompt.
    #[error(
        "{}: line {line}: {text:?} has the quotes or brackets of a list; write one template per line, without them",
        path.display()
    )]
    ListSyntax {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// The line, shortened.
        text: String,
    },
    /// The file has no templates or too many, or no built-in set has the given name.
    #[error(transparent)]
    Set(#[from] TemplateError),
}

impl TemplateSet {
    /// Reads a set from a file; its name is the file name without extension.
    ///
    /// # Errors
    /// Returns an error that names the file and the line.
    pub fn open(path: &Path) -> Result<Self, TemplateFileError> {
        Self::parse_file(&text_file::read(path, MAX_FILE_BYTES)?, path)
    }

    /// Parses the content of a template file; the file name `name` gives the set its name and is used in errors.
    ///
    /// # Errors
    /// Returns an error that names the file and the line.
    pub fn parse_file(text: &str, name: &Path) -> Result<Self, TemplateFileError> {
        let mut templates = Vec::new();
        for (line, template) in (1..).zip(text.lines().map(str::trim)) {
            if template.is_empty() || template.starts_with('#') {
                continue;
            }
            if has_list_syntax(template) {
                return Err(TemplateFileError::ListSyntax {
                    path: name.into(),
                    line,
                    text: shortened(template),
                });
            }
            super::Template::parse(template).map_err(|source| TemplateFileError::Line {
                path: name.into(),
                line,
                source,
            })?;
            templates.push(template);
        }
        let stem = name.file_stem().unwrap_or_default().to_string_lossy();
        Ok(Self::custom(&stem, &templates)?)
    }

    /// Returns the set that an argument of the command line names: the file `prompts.txt` for `@prompts.txt`, the
    /// built-in set of this name, or the file with this path.
    ///
    /// # Errors
    /// Returns the errors of [`TemplateSet::open`], and [`TemplateError::UnknownSet`] if the argument is neither the
    /// name of a set nor an existing file.
    pub fn by_name_or_file(argument: &str) -> Result<Self, TemplateFileError> {
        if let Some(path) = argument.strip_prefix('@') {
            return Self::open(Path::new(path));
        }
        match Self::by_name(argument) {
            Ok(set) => Ok(set),
            Err(_) if Path::new(argument).is_file() => Self::open(Path::new(argument)),
            Err(unknown) => Err(unknown.into()),
        }
    }
}

/// Returns whether a line is part of a list in Python or JSON, such as `'a photo of a {}.',`.
fn has_list_syntax(line: &str) -> bool {
    let begins = line.starts_with(['"', '\'', '[', '`'])
        || ["f'", "f\"", "r'", "r\""]
            .iter()
            .any(|start| line.starts_with(start));
    begins || line.ends_with("',") || line.ends_with("\",") || line.ends_with('[')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aerial.txt");
        let text = "\u{feff}# from above\r\n\r\nan aerial photo of a {}.\r\n  a {} #1 from above";
        std::fs::write(&path, text).unwrap();
        let argument = path.to_str().unwrap();
        for set in [
            TemplateSet::open(&path),
            TemplateSet::by_name_or_file(argument),
            TemplateSet::by_name_or_file(&format!("@{argument}")),
        ] {
            let set = set.unwrap();
            assert_eq!(set.name(), "aerial");
            assert_eq!(
                set.render("road"),
                ["an aerial photo of a road.", "a road #1 from above"]
            );
        }
        let multi = TemplateSet::by_name_or_file("multi").unwrap();
        assert_eq!(multi, TemplateSet::multi());
    }

    #[test]
    fn errors_name_file_and_line() {
        let parse = |text: &str| {
            let set = TemplateSet::parse_file(text, Path::new("mine.txt"));
            set.unwrap_err().to_string()
        };
        assert_eq!(
            parse("a {}\n\na photo\n"),
            "mine.txt: line 3: template \"a photo\" has 0 placeholders for the class name; write {} exactly once"
        );
        assert_eq!(parse("# nothing"), "the template set \"mine\" is empty");
        assert!(parse(&"{}\n".repeat(1001)).contains("1001 templates"));
        for line in [
            "'a photo of a {}.',",
            "\"a photo of a {}.\"",
            "[\"a photo of a {}.\"]",
            "templates = [",
            "f'a photo of a {}'",
            "a photo of a {}.',",
        ] {
            let error = parse(&format!("# mine\n{line}\n"));
            assert!(error.starts_with("mine.txt: line 2:"), "{error}");
            assert!(error.contains("quotes or brackets of a list"), "{error}");
        }
        let unknown = TemplateSet::by_name_or_file("no/such/file").unwrap_err();
        assert!(
            unknown.to_string().contains("unknown template set"),
            "{unknown}"
        );
        assert!(matches!(
            TemplateSet::by_name_or_file("@src"),
            Err(TemplateFileError::File(TextFileError::NotRegular { .. }))
        ));
    }
}
