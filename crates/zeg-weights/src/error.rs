//! What can go wrong between a weight file and its tensors; every error names the file and the offending value.

use std::{io, path::PathBuf};

/// Errors of the weights crate; each carries the value that caused it.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file is not what its name says: truncated, damaged, or of another format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A pickle that asks the reader to call something other than the known makers of tensors and plain values.
    #[error(
        "{}: refused: reading it as Python does would call {callable}, which no weight file needs",
        path.display()
    )]
    ForbiddenCall {
        /// The file.
        path: PathBuf,
        /// What it wanted to call, such as `os.system`.
        callable: String,
    },
    /// A tar file, the form in which PyTorch saved before version 0.1.10; it is not read.
    #[error(
        "{}: a tar file, as torch.save wrote them before PyTorch 0.1.10; they are not read. If you trust the file, \
         convert it with a newer PyTorch: torch.save(torch.load(OLD, weights_only=False), NEW). If it is an archive of \
         other files, unpack it",
        path.display()
    )]
    TarFile {
        /// The file.
        path: PathBuf,
    },
    /// The weights are of an architecture that `zeg` does not compute.
    #[error("{}: {reason}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is not supported.
        reason: String,
    },
    /// A file could not be written; whatever stood there before is untouched.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// What is wrong with the contents of a file, before the file's name is known.
#[derive(Debug)]
pub(crate) enum Defect {
    /// Reading failed.
    Io(io::Error),
    /// The contents are no such format.
    Format(String),
    /// See [`WeightsError::ForbiddenCall`].
    Call(String),
    /// See [`WeightsError::TarFile`].
    Tar,
}

impl Defect {
    /// The defect of a named file.
    pub(crate) fn of(self, path: &std::path::Path) -> WeightsError {
        let path = path.to_owned();
        match self {
            Self::Io(source) => WeightsError::Read { path, source },
            Self::Format(reason) => WeightsError::Format {
                path,
                reason: printable(&reason),
            },
            Self::Call(callable) => WeightsError::ForbiddenCall { path, callable },
            Self::Tar => WeightsError::TarFile { path },
        }
    }

    /// A defect in words.
    pub(crate) fn format(reason: impl Into<String>) -> Self {
        Self::Format(reason.into())
    }
}

/// Longest reason, in characters.
const MOST_CHARACTERS: usize = 400;

/// A reason that may hold words of the file: cut, and without control characters, which terminals obey.
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
