//! What keeps a file of reference numbers from being compared.

use std::path::PathBuf;

/// Errors of a comparison; those of one file do not keep the others from being compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The report could not be written.
    #[error("the report cannot be written: {0}")]
    Report(#[from] std::io::Error),
    /// A file is damaged, or no file of reference numbers.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// An entry of a file's metadata is missing or of another form.
    #[error("{}: metadata {key:?} {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry, with the names of those around it.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor that others are computed from is missing or has another shape.
    #[error("{}: tensor {name:?} {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Weights or class embeddings that a file names are not there.
    #[error("{} is computed from {folder}/{name}, which is not there; --assets names the folder that holds {folder}/", path.display())]
    Asset {
        /// The file of reference numbers.
        path: PathBuf,
        /// `weights` or `text`.
        folder: &'static str,
        /// The file that it names.
        name: String,
    },
    /// The tensor library gave up, as it does on shapes that contradict each other.
    #[error("{}: the comparison broke off: {reason}", path.display())]
    Panic {
        /// The file.
        path: PathBuf,
        /// The message of the panic.
        reason: String,
    },
    /// The tensor library failed.
    #[error("the tensor backend failed: {0}")]
    Backend(String),
    /// The model or its weights.
    #[error(transparent)]
    Model(#[from] zeg_model::ModelError),
    /// The training.
    #[error(transparent)]
    Train(#[from] zeg_train::TrainError),
    /// The metrics.
    #[error(transparent)]
    Eval(#[from] zeg_eval::EvalError),
    /// A class list.
    #[error(transparent)]
    Classes(#[from] zeg_vocab::classes::ClassError),
    /// A prompt template.
    #[error(transparent)]
    Template(#[from] zeg_vocab::templates::TemplateError),
    /// The tokenizer's built-in vocabulary.
    #[error(transparent)]
    Tokenizer(#[from] zeg_vocab::tokenizer::TokenizerError),
    /// A text that does not fit.
    #[error(transparent)]
    Text(#[from] zeg_vocab::tokenizer::TokenizeError),
    /// A weight file.
    #[error(transparent)]
    Weights(#[from] zeg_model::weights::WeightsError),
}
