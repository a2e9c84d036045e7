//! The report of an evaluation for people: a web page, Markdown and CSV of one content.
//!
//! The page is one file that needs no network and no script: it can be mailed, archived and printed. What was not
//! measured is not shown, and what makes numbers incomparable stands above them.
//!
//! ```text
//! ReportInput → content (what is said) → html, markdown, csv (how it is written)
//! ```

mod classes;
mod compare;
mod content;
mod csv;
mod curves;
mod gallery;
mod html;
mod log;
mod making;
mod markdown;
mod matrix;
mod mistakes;
mod notices;
mod text;

use std::path::{Path, PathBuf};

use zeg_base::file::{self, Overwrite};

use crate::{EvalError, Evaluation};

pub use log::{CurvePoint, read_log};

use content::Content;

/// What a report is made from.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportInput {
    /// Headline.
    pub title: String,
    /// The runs, which are measurements of one thing: same benchmark, protocol and settings, other seeds.
    pub runs: Vec<RunInput>,
}

/// A run of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInput {
    /// Its record.
    pub evaluation: Evaluation,
    /// Folder of the record, where the files of its gallery are.
    pub folder: PathBuf,
    /// The log of its training; empty if there is none. See [`read_log`].
    pub curves: Vec<CurvePoint>,
    /// The experiment as TOML, shown as it is.
    pub experiment: Option<String>,
}

/// What a report is written as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `report.html`, everything in one file.
    Html,
    /// `report.md`, for repositories and issues: all numbers, no images.
    Markdown,
    /// `report.csv` (RFC 4180), for programs: a row a number, `run,scope,class,split,metric,value,std,n`. `run` is a number
    /// from 1, or `mean` over several. Values are fractions of 1; an undefined one is empty.
    Csv,
}

impl Format {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Html, Self::Markdown, Self::Csv];

    /// Name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Html => "report.html",
            Self::Markdown => "report.md",
            Self::Csv => "report.csv",
        }
    }
}

/// Writes a report into a folder, which is made if there is none. Each file is there whole or not at all.
///
/// Returns the files, in the order of `formats`.
///
/// # Errors
/// [`EvalError::Nothing`] without runs; [`EvalError::Differs`] if they are not measurements of one thing; what
/// [`Evaluation::validate`] finds; [`EvalError::Unwritable`].
pub fn write_report(
    input: &ReportInput,
    folder: &Path,
    formats: &[Format],
) -> Result<Vec<PathBuf>, EvalError> {
    let content = Content::of(input)?;
    let mut files = Vec::with_capacity(formats.len());
    for format in formats {
        let text = match format {
            Format::Html => html::render(&content, input),
            Format::Markdown => Ok(markdown::render(&content)),
            Format::Csv => Ok(csv::render(&content)),
        };
        let path = folder.join(format.file_name());
        let write = |text: String| -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            file::write(&path, text, Overwrite::Replace)
        };
        match text.and_then(write) {
            Ok(()) => files.push(path),
            Err(source) => return Err(EvalError::Unwritable { path, source }),
        }
    }
    Ok(files)
}
