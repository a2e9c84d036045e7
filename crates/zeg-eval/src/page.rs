//! Reports of evaluations for people: a web page, Markdown and CSV with the same content.
//!
//! The page is one file that needs no network and no script: it can be mailed, archived and printed. Numbers that were
//! not measured are not shown, and notices above the numbers name everything that makes them incomparable.
//!
//! ```text
//! ReportInput → content → html, markdown, csv
//! ```

mod bars;
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
mod panels;
mod relation;
mod reliability;
mod text;

use std::path::{Path, PathBuf};

use zeg_base::file::{self, Overwrite};

use crate::{EvalError, Evaluation};

pub use log::{CurvePoint, read_log};

use content::Content;

/// Input of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct ReportInput {
    /// Title of the report.
    pub title: String,
    /// Evaluations on one benchmark.
    ///
    /// Seeds of one configuration are averaged: the same method with the same settings, except for the seed. Different
    /// methods or settings are shown side by side, each with its name, and nothing is averaged or summed over them.
    pub runs: Vec<RunInput>,
    /// Ids of the images that are shown with the predictions of several evaluations side by side; at least two galleries
    /// must have each. Empty for the first twelve images that several galleries have.
    pub images: Vec<String>,
}

/// One evaluation of a report.
#[derive(Debug, Clone, PartialEq)]
pub struct RunInput {
    /// Record of the evaluation.
    pub evaluation: Evaluation,
    /// Folder of the record and of the files of its gallery.
    pub folder: PathBuf,
    /// Training log of the model; empty if there is none. See [`read_log`].
    pub curves: Vec<CurvePoint>,
    /// Experiment of the training as TOML; shown unchanged.
    pub experiment: Option<String>,
}

/// File format of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// `report.html`, everything in one file.
    Html,
    /// `report.md`, for repositories and issues: all numbers, no images.
    Markdown,
    /// `report.csv` (RFC 4180), for programs: one row per number, `run,scope,class,split,metric,value,std,n`. `run` is
    /// the number of the run, from 1, or `mean` for the mean over seeds; where different methods stand side by side it
    /// is the name of the evaluation. Values are fractions of 1; an undefined value is empty.
    Csv,
}

impl Format {
    /// All formats.
    pub const ALL: [Self; 3] = [Self::Html, Self::Markdown, Self::Csv];

    /// Returns the name of the file.
    pub fn file_name(self) -> &'static str {
        match self {
            Self::Html => "report.html",
            Self::Markdown => "report.md",
            Self::Csv => "report.csv",
        }
    }
}

/// Writes a report into a folder, which is created if it does not exist. Each file is written completely or not at all,
/// and behind a symbolic link.
///
/// Returns the paths of the files, in the order of `formats`.
///
/// # Errors
/// Returns [`EvalError::Nothing`] without evaluations, [`EvalError::Differs`] if they are of different benchmarks,
/// classes or numbers of images, [`EvalError::NotShared`] if one of [`ReportInput::images`] is not in two galleries, the
/// errors of [`Evaluation::validate`], and [`EvalError::Unwritable`].
pub fn write_report(
    input: &ReportInput,
    folder: &Path,
    formats: &[Format],
) -> Result<Vec<PathBuf>, EvalError> {
    let content = Content::of(input)?;
    let mut files = Vec::with_capacity(formats.len());
    for format in formats {
        let text = match format {
            Format::Html => html::render(&content),
            Format::Markdown => Ok(markdown::render(&content)),
            Format::Csv => Ok(csv::render(&content)),
        };
        let path = folder.join(format.file_name());
        let write = |text: String| -> std::io::Result<()> {
            std::fs::create_dir_all(folder)?;
            let behind = file::behind_link(&path, Overwrite::Replace)?;
            file::write(&behind, text, Overwrite::Replace)
        };
        match text.and_then(write) {
            Ok(()) => files.push(path),
            Err(source) => return Err(EvalError::Unwritable { path, source }),
        }
    }
    Ok(files)
}
