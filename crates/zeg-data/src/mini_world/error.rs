//! What can go wrong with a mini world: its settings, and the folder it is written to.

use std::io;
use std::path::PathBuf;

use zeg_image::ImageError;
use zeg_vocab::classes::ClassError;

/// Why a mini world cannot be made or written.
#[derive(Debug, thiserror::Error)]
pub enum WorldError {
    /// A setting is out of range.
    #[error("{setting} is {value}; it must be {legal}")]
    Setting {
        /// The setting's name in a configuration.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is allowed, in words.
        legal: &'static str,
    },

    /// The names of the classes are no class list. This is a defect of the program.
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
        /// What the operating system said.
        source: io::Error,
    },

    /// Something else stands where a file of the export is to go.
    #[error("{}: stands there already and is not from this mini world", path.display())]
    Occupied {
        /// The file that would have been replaced.
        path: PathBuf,
    },

    /// The threads could not be started.
    #[error("threads cannot be started: {reason}")]
    Threads {
        /// What the system said.
        reason: String,
    },
}
