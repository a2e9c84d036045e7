//! Errors of reading weight files and configurations and of building models.

use std::path::PathBuf;

/// An error of the model crate; it carries the value that caused it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// A file does not hold what its name promises: it is truncated, damaged, or of another format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with the file.
        reason: String,
    },
    /// A file is intact, but is no table of class embeddings, or has a layout that is not read.
    #[error("{}: {reason}", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// What the file is, and what is expected.
        reason: String,
    },
    /// A tensor that the model needs is not in the weights.
    #[error("{origin}: tensor {key:?} is missing")]
    MissingTensor {
        /// Name of the tensor in the layout of the reference checkpoints.
        key: String,
        /// The weight file.
        origin: String,
    },
    /// A tensor does not have the shape that the architecture needs.
    #[error("{origin}: tensor {key:?} has shape {found:?}, this architecture needs {expected:?}")]
    TensorShape {
        /// Name of the tensor in the layout of the reference checkpoints.
        key: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the configuration implies.
        expected: Vec<usize>,
        /// The weight file.
        origin: String,
    },
    /// A tensor of the weights holds a value that is infinite or not a number.
    #[error(
        "{origin}: tensor {key:?} holds the value {value} at index {index}; weights must be finite"
    )]
    NotFiniteTensor {
        /// Name of the tensor in the layout of the reference checkpoints.
        key: String,
        /// The weight file.
        origin: String,
        /// Row-major index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// A matrix of the weights holds nothing but zeros, as in a file whose values were never written.
    #[error("{origin}: tensor {key:?} holds nothing but zeros")]
    ZeroTensor {
        /// Name of the tensor in the layout of the reference checkpoints.
        key: String,
        /// The weight file.
        origin: String,
    },
    /// A model computed a score that is infinite or not a number.
    #[error(
        "the model computed the score {value} for class {class} (counted from 0); scores must be finite"
    )]
    NotFiniteScore {
        /// The score.
        value: f32,
        /// Index of the class.
        class: usize,
    },
    /// A configuration is inconsistent, or does not suit the data.
    #[error("{0}")]
    Config(String),
    /// Sliding windows have a side that the method cannot encode without padding them.
    #[error(
        "inference.crop = {crop}: the side of a window must be a multiple of {multiple} pixels, because windows are \
         stretched and their padding would be stretched with them"
    )]
    WindowSide {
        /// Side of the windows in pixels.
        crop: usize,
        /// Its possible values are the multiples of this.
        multiple: usize,
    },
    /// A setting changes the size of images, but the model stretches every image to a size of its own.
    #[error("{setting} has no effect: the model stretches every image to a canvas of its own size")]
    FixedSize {
        /// The setting, as the user gave it.
        setting: String,
    },
    /// Another thread requested a stop; see [`crate::stop::StopSign`].
    #[error("the computation was stopped, as nobody waits for its result")]
    Stopped,
    /// An image or a window cannot be held in memory.
    #[error("{what}: {source}")]
    Memory {
        /// What needs the memory, with its sizes.
        what: String,
        /// The estimate and the memory of the machine.
        source: zeg_base::memory::TooMuchMemory,
    },
    /// A class name has no row in the table of class embeddings.
    #[error("{table}: no embedding for class {name:?}; the table has {known}")]
    UnknownClass {
        /// The class name asked for.
        name: String,
        /// The table's file.
        table: String,
        /// The class names in the table, shortened.
        known: String,
    },
    /// A text contains a word that the text tower's vocabulary lacks.
    #[error("the text tower does not know the word {word:?}; it knows: {known}")]
    UnknownWord {
        /// The missing word.
        word: String,
        /// The words of the vocabulary, separated by spaces.
        known: String,
    },
    /// A weight file is wrong.
    #[error(transparent)]
    Weights(#[from] zeg_weights::WeightsError),
    /// A text does not fit the text encoder.
    #[error(transparent)]
    Text(#[from] zeg_vocab::tokenizer::TokenizeError),
}
