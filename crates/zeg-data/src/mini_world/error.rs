//! Errors of making a mini world and writing it to a folder.

use std::io;
use std::path::PathBuf;

use zeg_image::ImageError;
use zeg_vocab::classes::ClassError;

/// An error of making or writing a mini world.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A setting is out of range.
    #[error("{setting} is {value}; it must be {legal}")]
    Setting {
        /// The setting's name in a configuration.
        setting: &'static str,
        /// Its value.
        value: String,
        /// A description of the legal values.
        legal: &'static str,
    },

    /// The names of the classes are not a valid class list. This is a defect of the program.
    #[error(transparent)]
    Classes(#[from] ClassError),

    /// A label map could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),

    /// An image, a list, the description or a folder could not be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// A file that is not of this export exists at the path of one of its files.
    #[error("{}: a file that is not from this mini world already exists here", path.display())]
    Occupied {
        /// The file that would be replaced.
        path: PathBuf,
    },

    /// The threads could not be started.
    #[error("threads cannot be started: {reason}")]
    Threads {
        /// The error of the thread pool.
        reason: String,
    },
}
