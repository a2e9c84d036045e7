//! Errors of reading and writing weight files; each names the file and the offending value.

use std::{io, path::PathBuf};

/// Reason why a weight file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file could not be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A file is truncated, damaged, or of an unknown format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pickle requests a call other than the known constructors of tensors and plain values.
    #[error(
        "{}: refused, because loading the file in Python would call {callable}, which no weight file needs",
        path.display()
    )]
    ForbiddenCall {
        /// The file.
        path: PathBuf,
        /// The requested function or class, such as `os.system`.
        callable: String,
    },
    /// A tar file, the format of `torch.save` before PyTorch 0.1.10, is not supported.
    #[error(
        "{}: tar files, which torch.save wrote before PyTorch 0.1.10, are not supported. If you trust the file, \
         convert it with a newer PyTorch: torch.save(torch.load(OLD, weights_only=False), NEW). If it is an archive of \
         other files, unpack it",
        path.display()
    )]
    TarFile {
        /// The file.
        path: PathBuf,
    },
    /// The weights have an architecture that `zeg` does not support.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        reason: String,
    },
    /// A tensor stands inside a tower or layer, but no model reads it; without it, a model computes something else.
    #[error(
        "{}: tensor {key:?} is no part of the model here, and without it the model computes something else",
        path.display()
    )]
    UnknownTensor {
        /// The file.
        path: PathBuf,
        /// Name of the first such tensor in the file.
        key: String,
    },
    /// A weight is stored as numbers of a type that is not read, such as integers without scales.
    #[error("{}: tensor {key:?} is stored as {dtype}, a number type that is not read as weights", path.display())]
    NumberType {
        /// The file.
        path: PathBuf,
        /// Name of the first such tensor in the file.
        key: String,
        /// The type, such as `I8`.
        dtype: String,
    },
    /// The file to be imported is a model that `zeg train` wrote, which has nothing to convert.
    #[error("{}: a model that `zeg train` wrote; it cannot be imported", path.display())]
    OwnCheckpoint {
        /// The file.
        path: PathBuf,
    },
    /// Nothing states the number of attention heads of a tower, and no published model has this width.
    #[error(
        "{}: {tower}: the tokens have {width} channels; they cannot be split into heads of {usual_width} channels, and no \
         configuration file states the number of heads",
        path.display()
    )]
    UnknownHeads {
        /// The file.
        path: PathBuf,
        /// `image tower` or `text tower`.
        tower: &'static str,
        /// Number of channels of a token.
        width: usize,
        /// Number of channels of a head in almost every published model.
        usual_width: usize,
    },
    /// A tensor holds a value that is infinite or not a number.
    #[error("{}: tensor {key:?} holds the value {value} at index {index}", path.display())]
    NotFinite {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        key: String,
        /// Index of the first such value, row-major.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A matrix holds nothing but zeros.
    #[error("{}: tensor {key:?} holds nothing but zeros", path.display())]
    AllZero {
        /// The file.
        path: PathBuf,
        /// Name of the tensor.
        key: String,
    },
    /// A file could not be written; an existing file at the path is unchanged.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A defect in the contents of a file, before the path of the file is added.
#[derive(Debug)]
pub(crate) enum Defect {
    /// Reading failed.
    Io(io::Error),
    /// The contents are not valid in their format.
    Format(String),
    /// See [`WeightsError::NumberType`].
    NumberType { key: String, dtype: String },
    /// See [`WeightsError::Unsupported`].
    Unsupported(String),
    /// See [`WeightsError::ForbiddenCall`].
    Call(String),
    /// See [`WeightsError::TarFile`].
    Tar,
}

impl Defect {
    /// Converts the defect to an error with the path of the file.
    pub(crate) fn of(self, path: &std::path::Path) -> WeightsError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => WeightsError::Read { path, source },
            Self::Format(reason) => WeightsError::Format {
                path,
                reason: printable(&reason),
            },
            Self::Unsupported(reason) => WeightsError::Unsupported {
                path,
                reason: printable(&reason),
            },
            Self::NumberType { key, dtype } => WeightsError::NumberType { path, key, dtype },
            Self::Call(callable) => WeightsError::ForbiddenCall { path, callable },
            Self::Tar => WeightsError::TarFile { path },
        }
    }

    /// Returns a [`Defect::Format`] with this reason.
    pub(crate) fn format(reason: impl Into<String>) -> Self {
        Self::Format(reason.into())
    }
}

/// The largest length of a reason, in characters.
const MOST_CHARACTERS: usize = 400;

/// Shortens a reason and replaces control characters, since it may quote the file and is shown in a terminal.
fn printable(reason: &str) -> String {
    let mut text: String = reason
        .chars()
        .take(MOST_CHARACTERS)
        .map(|c| if c.is_control() { '\u{fffd}' } else { c })
        .collect();
    if text.len() < reason.len() {
        text.push('…');
    }
    text
}

impl From<io::Error> for Defect {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}
