//! The plan of a conversion: its tasks, and what is known about them before it is carried out.

use std::fmt;
use std::path::{Path, PathBuf};
use zeg_base::plural::counted;

use serde::Serialize;

use super::PrepareError;
use super::detail::Detail;
use super::labels::{Form, SharedRule};
use crate::datasets::DatasetEntry;

/// A planned conversion: what [`plan`](super::plan) found and what [`Plan::run`] will make.
///
/// `Display` prints it in a few lines.
#[derive(Debug)]
pub struct Plan {
    pub(crate) entry: &'static DatasetEntry,
    pub(crate) title: &'static str,
    pub(crate) from: PathBuf,
    pub(crate) findings: Vec<String>,
    pub(crate) missing: Vec<Missing>,
    pub(crate) splits: Vec<SplitImages>,
    pub(crate) tasks: Vec<Task>,
    pub(crate) detail: Option<Detail>,
    pub(crate) lists: Vec<List>,
}

/// A part of a complete download that this download lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Missing {
    /// What is missing.
    pub what: String,
    /// Number of missing files; 1 for a folder or an archive.
    pub count: usize,
    /// The first few of them.
    pub examples: Vec<String>,
    /// What this means for the result.
    pub consequence: &'static str,
}

/// Number of images of a split, here and as published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SplitImages {
    /// The split's name.
    pub split: &'static str,
    /// Number of images the split will have.
    pub images: usize,
    /// Number of images of the published split.
    pub official: usize,
}

/// The work for one file of the result.
#[derive(Debug)]
pub(crate) struct Task {
    /// The file's path relative to the result's folder.
    pub(crate) to: PathBuf,
    pub(crate) work: Work,
}

/// The way in which a file of the result is made.
#[derive(Debug)]
pub(crate) enum Work {
    /// Link or copy the file unchanged.
    Place { from: PathBuf },
    /// Link or copy an image, or shrink it if it is too large.
    Image { from: PathBuf },
    /// Convert a label map.
    Labels {
        from: PathBuf,
        form: Form,
        rule: SharedRule,
        /// The image it belongs to, which must have the same size.
        image: PathBuf,
        size: LabelSize,
    },
}

/// The size of a converted label map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelSize {
    /// The size of the original label map.
    Own,
    /// The size of the shrunk image.
    Shrunk,
}

/// A list of ids to write, one per line.
#[derive(Debug)]
pub(crate) struct List {
    /// The list's path relative to the result's folder.
    pub(crate) to: PathBuf,
    pub(crate) ids: Vec<String>,
}

impl Task {
    /// Returns the task of linking or copying a file unchanged.
    pub(crate) fn place(to: impl Into<PathBuf>, from: impl Into<PathBuf>) -> Self {
        Self {
            to: to.into(),
            work: Work::Place { from: from.into() },
        }
    }

    /// Returns the task of converting a label map without resizing it.
    pub(crate) fn labels(
        to: impl Into<PathBuf>,
        (from, form): (&Path, Form),
        rule: &SharedRule,
        image: &Path,
    ) -> Self {
        Self {
            to: to.into(),
            work: Work::Labels {
                from: from.into(),
                form,
                rule: SharedRule::clone(rule),
                image: image.into(),
                size: LabelSize::Own,
            },
        }
    }

    /// Returns the file of the download from which the task's file is made.
    pub(crate) fn from(&self) -> &Path {
        match &self.work {
            Work::Place { from } | Work::Image { from } | Work::Labels { from, .. } => from,
        }
    }
}

impl Plan {
    /// Returns an empty plan.
    ///
    /// - `title`: name of the download in messages
    pub(crate) fn new(entry: &'static DatasetEntry, title: &'static str, from: &Path) -> Self {
        Self {
            entry,
            title,
            from: from.into(),
            findings: Vec::new(),
            missing: Vec::new(),
            splits: Vec::new(),
            tasks: Vec::new(),
            detail: None,
            lists: Vec::new(),
        }
    }

    /// Adds an entry for missing files, if `examples`, which holds all of them, is not empty.
    pub(crate) fn note_missing(
        &mut self,
        what: impl Into<String>,
        examples: &[String],
        consequence: &'static str,
    ) {
        if !examples.is_empty() {
            self.missing.push(Missing {
                what: what.into(),
                count: examples.len(),
                examples: examples.iter().take(5).cloned().collect(),
                consequence,
            });
        }
    }

    /// Adds a split with the number of images it will have.
    pub(crate) fn split(&mut self, split: &'static str, images: usize) {
        let official = self.entry.official(split);
        self.splits.push(SplitImages {
            split,
            images,
            official: official.map_or(0, |official| official.images),
        });
    }

    /// Returns the error for a download in which nothing was recognised.
    pub(crate) fn not_found(&self, looked_for: &[&'static str]) -> PrepareError {
        PrepareError::NotFound {
            dataset: self.title,
            from: self.from.clone(),
            looked_for: looked_for.to_vec(),
        }
    }

    /// Returns the data set's name.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// Returns descriptions of the recognised parts of the download.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// Returns the parts of a complete download that this download lacks.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Returns the number of images of each split, here and as published.
    pub fn splits(&self) -> &[SplitImages] {
        &self.splits
    }

    /// Returns the number of files the result will have, not counting lists.
    pub fn files(&self) -> usize {
        self.tasks.len() + self.detail.as_ref().map_or(0, |detail| detail.images.len())
    }

    /// Returns the paths of the lists of ids, relative to the result's folder.
    pub fn lists(&self) -> impl Iterator<Item = &Path> {
        self.lists.iter().map(|list| list.to.as_path())
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} in {}", self.title, self.from.display())?;
        for finding in &self.findings {
            writeln!(f, "  found    {finding}")?;
        }
        for missing in &self.missing {
            let examples = missing.examples.join(", ");
            write!(f, "  missing  {}: {examples}", missing.what)?;
            if missing.count > missing.examples.len() {
                write!(f, ", … ({} in all)", missing.count)?;
            }
            writeln!(f, "; {}", missing.consequence)?;
        }
        for split in &self.splits {
            let SplitImages {
                split,
                images,
                official,
            } = split;
            writeln!(
                f,
                "  split    {split}: {images} of {}",
                counted(*official, "official image")
            )?;
        }
        write!(f, "  makes    {}", counted(self.files(), "file"))?;
        if !self.lists.is_empty() {
            write!(f, " and {}", counted(self.lists.len(), "list"))?;
        }
        Ok(())
    }
}
