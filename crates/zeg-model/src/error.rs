//! What can go wrong between a weight file or a configuration and a model.

use std::path::PathBuf;

/// Errors of the model crate; each carries the value that caused it.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A file is not what its name says: truncated, damaged, or of another format.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that the model needs is not in the weights.
    #[error("{origin}: tensor {key:?} is missing")]
    MissingTensor {
        /// Name of the tensor in the layout of the reference checkpoints.
        key: String,
        /// Where the weights came from.
        origin: String,
    },
    /// A tensor has another shape than the architecture asks for.
    #[error("{origin}: tensor {key:?} has shape {found:?}, this architecture needs {expected:?}")]
    TensorShape {
        /// Name of the tensor in the layout of the reference checkpoints.
        key: String,
        /// Shape in the file.
        found: Vec<usize>,
        /// Shape that the configuration implies.
        expected: Vec<usize>,
        /// Where the weights came from.
        origin: String,
    },
    /// A configuration contradicts itself or the data it meets.
    #[error("{0}")]
    Config(String),
    /// A class name has no row in the table of class embeddings.
    #[error("{table}: no embedding for class {name:?}; the table has {known}")]
    UnknownClass {
        /// The class asked for.
        name: String,
        /// The table's file.
        table: String,
        /// What the table holds, shortened.
        known: String,
    },
    /// A text has a word that the text tower was never taught.
    #[error("the text tower does not know the word {word:?}; it knows: {known}")]
    UnknownWord {
        /// The word.
        word: String,
        /// The words it knows, with spaces between them.
        known: String,
    },
    /// A weight file.
    #[error(transparent)]
    Weights(#[from] zeg_weights::WeightsError),
    /// A text does not fit the text encoder.
    #[error(transparent)]
    Text(#[from] zeg_vocab::tokenizer::TokenizeError),
}
