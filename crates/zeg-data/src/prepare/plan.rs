//! What is to be done with a download: tasks, and what can be said about them beforehand.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::PrepareError;
use super::detail::Detail;
use super::labels::{Form, SharedRule};
use crate::datasets::DatasetEntry;

/// What [`plan`](super::plan) found and what [`Plan::run`] will make.
///
/// `Display` shows it in a few lines.
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

/// Something a complete download has and this one has not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Missing {
    /// What is not there.
    pub what: String,
    /// How many files, 1 for a folder or an archive.
    pub count: usize,
    /// The first few of them.
    pub examples: Vec<String>,
    /// What the result lacks because of it.
    pub consequence: &'static str,
}

/// Images of a split, against the published number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SplitImages {
    /// The split's name.
    pub split: &'static str,
    /// Images that will be in it.
    pub images: usize,
    /// Images the published split has.
    pub official: usize,
}

/// One file of the result.
#[derive(Debug)]
pub(crate) struct Task {
    /// Its place below the result's folder.
    pub(crate) to: PathBuf,
    pub(crate) work: Work,
}

/// How a file of the result comes about.
#[derive(Debug)]
pub(crate) enum Work {
    /// The file as it is.
    Place { from: PathBuf },
    /// An image, shrunk where it is too large.
    Image { from: PathBuf },
    /// A label map.
    Labels {
        from: PathBuf,
        form: Form,
        rule: SharedRule,
        /// The image it belongs to, which must have the same size.
        image: PathBuf,
        size: LabelSize,
    },
}

/// Which size a label map gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LabelSize {
    /// Its own.
    Own,
    /// That of the shrunk image.
    Shrunk,
}

/// A list of ids, one a line.
#[derive(Debug)]
pub(crate) struct List {
    /// Its place below the result's folder.
    pub(crate) to: PathBuf,
    pub(crate) ids: Vec<String>,
}

impl Task {
    /// A file that is taken over as it is.
    pub(crate) fn place(to: impl Into<PathBuf>, from: impl Into<PathBuf>) -> Self {
        Self {
            to: to.into(),
            work: Work::Place { from: from.into() },
        }
    }

    /// A label map of its own size.
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

    /// The file of the download this one comes from.
    pub(crate) fn from(&self) -> &Path {
        match &self.work {
            Work::Place { from } | Work::Image { from } | Work::Labels { from, .. } => from,
        }
    }
}

impl Plan {
    /// Returns a plan of nothing.
    ///
    /// - `title`: the name of the download in messages
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

    /// Notes files that are missing; none is no note.
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

    /// Notes how many images a split will have.
    pub(crate) fn split(&mut self, split: &'static str, images: usize) {
        let official = self.entry.official(split);
        self.splits.push(SplitImages {
            split,
            images,
            official: official.map_or(0, |official| official.images),
        });
    }

    /// Returns the error of a download in which nothing was recognised.
    pub(crate) fn not_found(&self, looked_for: &[&'static str]) -> PrepareError {
        PrepareError::NotFound {
            dataset: self.title,
            from: self.from.clone(),
            looked_for: looked_for.to_vec(),
        }
    }

    /// The data set's name.
    pub fn name(&self) -> &'static str {
        self.entry.name
    }

    /// What was recognised, in words, one finding each.
    pub fn findings(&self) -> &[String] {
        &self.findings
    }

    /// What a complete download has and this one has not.
    pub fn missing(&self) -> &[Missing] {
        &self.missing
    }

    /// Images of each split, against the published numbers.
    pub fn splits(&self) -> &[SplitImages] {
        &self.splits
    }

    /// Number of files the result will have, lists not counted.
    pub fn files(&self) -> usize {
        self.tasks.len() + self.detail.as_ref().map_or(0, |detail| detail.images.len())
    }

    /// Where the lists of ids will be, below the result's folder.
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
            writeln!(f, "  split    {split}: {images} of {official} images")?;
        }
        write!(f, "  makes    {} files", self.files())?;
        if !self.lists.is_empty() {
            write!(f, " and {} lists", self.lists.len())?;
        }
        Ok(())
    }
}
