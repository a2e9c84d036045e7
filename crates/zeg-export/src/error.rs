//! What can go wrong between a label map and the files made of it; every error names the offending value.

use std::io;
use std::path::{Path, PathBuf};

/// Why something could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file could not be written; whatever stood there before is untouched.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system or the encoder said.
        source: io::Error,
    },
    /// Something stands where a file is to go, and it was not allowed to replace it.
    #[error("{}: exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Two images of one run would be written to the same file.
    #[error("{}: is already the output of another image", path.display())]
    DuplicateOutput {
        /// The file.
        path: PathBuf,
    },
    /// The name of an image's outputs leads out of the output folder, or is empty.
    #[error("{}: not a name for outputs; it must be a relative path without `..`", stem.display())]
    Stem {
        /// The name.
        stem: PathBuf,
    },
    /// The image has no pixels.
    #[error("{}: label map of {width}×{height} pixels has no content", image.display())]
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
    /// The class list is longer than labels can count.
    #[error("{classes} classes; labels count to {limit}")]
    TooManyClasses {
        /// Length of the list.
        classes: usize,
        /// The longest list possible.
        limit: usize,
    },
    /// Two classes have one name, in a format that knows classes by their names.
    #[error("class name {name:?} occurs twice; this format tells classes apart by their names")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// The number of confidences is not the number of pixels.
    #[error("{}: {given} confidences for {expected} pixels", image.display())]
    ConfidenceCount {
        /// The image.
        image: PathBuf,
        /// Confidences given.
        given: usize,
        /// Pixels of the label map.
        expected: usize,
    },
    /// Probability maps were asked for, but the image comes without probabilities.
    #[error("{}: no probabilities were given", image.display())]
    NoProbabilities {
        /// The image.
        image: PathBuf,
    },
    /// A buffer of probabilities does not have the stated shape.
    #[error("{given} probabilities do not fill {classes} maps of {width}×{height}")]
    ProbabilityCount {
        /// Values given.
        given: usize,
        /// Classes.
        classes: usize,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The map falls into more regions than a file of them could reasonably hold.
    #[error("{}: more than {limit} regions of at least {minimal_area} pixels", image.display())]
    TooManyRegions {
        /// The image.
        image: PathBuf,
        /// The limit.
        limit: usize,
        /// The smallest area that counted, in pixels.
        minimal_area: u64,
    },
}

impl ExportError {
    /// Turns a system's error into one that names the file.
    pub(crate) fn unwritable(path: &Path) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Unwritable {
            path: path.into(),
            source,
        }
    }
}
