//! Errors of exporting a label map; every error names the offending value.

use std::io;
use std::path::{Path, PathBuf};

/// An error of an export.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file could not be written; an existing file at this path is unchanged.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Error of the operating system or of the encoder.
        source: io::Error,
    },
    /// A file exists already and may not be replaced.
    #[error("{}: exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Two images would be written to the same file.
    #[error("{}: is already the output of another image", path.display())]
    DuplicateOutput {
        /// The file.
        path: PathBuf,
    },
    /// The name of an image's output files is empty or leads out of the output folder.
    #[error("{}: not a valid name for output files; it must be a relative path without `..`", stem.display())]
    Stem {
        /// The name.
        stem: PathBuf,
    },
    /// The image has no pixels.
    #[error("{}: label map of {width}×{height} has no pixels", image.display())]
    ZeroSize {
        /// The image.
        image: PathBuf,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The label map has more pixels than an image may have.
    #[error("{}: label map of {width}×{height} pixels exceeds the limit of {limit} pixels", image.display())]
    TooLarge {
        /// The image.
        image: PathBuf,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// The limit on columns · rows.
        limit: usize,
    },
    /// A label map holds a label beyond the class list.
    #[error("{}: label {label} at ({x}, {y}), but the class list has {classes} names", image.display())]
    UnknownLabel {
        /// The image.
        image: PathBuf,
        /// The label.
        label: u16,
        /// Column of its first pixel.
        x: usize,
        /// Row of its first pixel.
        y: usize,
        /// Length of the class list.
        classes: usize,
    },
    /// The class list is longer than the number of labels.
    #[error("{classes} classes; at most {limit} can be labelled")]
    TooManyClasses {
        /// Length of the list.
        classes: usize,
        /// The longest list possible.
        limit: usize,
    },
    /// Two classes have the same name, in a format that identifies classes by name.
    #[error("class name {name:?} occurs twice; this format identifies classes by name")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The number of confidences is not the number of pixels.
    #[error("{}: {given} confidences for {expected} pixels", image.display())]
    ConfidenceCount {
        /// The image.
        image: PathBuf,
        /// Number of confidences.
        given: usize,
        /// Pixels of the label map.
        expected: usize,
    },
    /// Probability maps were requested, but the image has no probabilities.
    #[error("{}: no probabilities were given", image.display())]
    NoProbabilities {
        /// The image.
        image: PathBuf,
    },
    /// A buffer of probabilities does not have the stated shape.
    #[error("{given} probabilities do not fill {classes} maps of {width}×{height}")]
    ProbabilityCount {
        /// Number of values.
        given: usize,
        /// Classes.
        classes: usize,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The label map has more regions than the limit.
    #[error("{}: more than {limit} regions of at least {minimal_area} pixels", image.display())]
    TooManyRegions {
        /// The image.
        image: PathBuf,
        /// The limit.
        limit: usize,
        /// The smallest area of a counted region, in pixels.
        minimal_area: u64,
    },
}

impl ExportError {
    /// Returns a function that turns an I/O error into one that names the file.
    pub(crate) fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Unwritable {
            path: path.into(),
            source,
        }
    }
}
