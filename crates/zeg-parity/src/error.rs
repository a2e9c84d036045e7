//! Defines the errors that keep a file of reference numbers from being compared.

use std::path::PathBuf;

/// Errors of a comparison; an error of one file does not keep the other files from being compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A file could not be opened or read.
    #[error("{}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The report could not be written.
    #[error("the report cannot be written: {0}")]
    Report(#[from] std::io::Error),
    /// A file is damaged, or is not a file of reference numbers.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// An entry of a file's metadata is missing or has an unexpected form.
    #[error("{}: metadata {key:?} {reason}", path.display())]
    Metadata {
        /// The file.
        path: PathBuf,
        /// The entry, with the names of the entries that contain it.
        key: String,
        /// The reason.
        reason: String,
    },
    /// A tensor that others are computed from is missing or has another shape.
    #[error("{}: tensor {name:?} {reason}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The reason.
        reason: String,
    },
    /// Weights or class embeddings that a file names do not exist.
    #[error("{}: it needs {folder}/{name}, which was not found; give the folder that contains {folder}/ with --assets", path.display())]
    Asset {
        /// The file of reference numbers.
        path: PathBuf,
        /// `weights` or `text`.
        folder: &'static str,
        /// The file that it names.
        name: String,
    },
    /// The tensor library panicked, as it does on contradictory shapes.
    #[error("{}: the comparison was aborted by a panic: {reason}", path.display())]
    Panic {
        /// The file.
        path: PathBuf,
        /// The message of the panic.
        reason: String,
    },
    /// The tensor library failed.
    #[error("the tensor backend failed: {0}")]
    Backend(String),
    /// An error of the model or its weights.
    #[error(transparent)]
    Model(#[from] zeg_model::ModelError),
    /// An error of the training.
    #[error(transparent)]
    Train(#[from] zeg_train::TrainError),
    /// An error of the metrics.
    #[error(transparent)]
    Eval(#[from] zeg_eval::EvalError),
    /// An error of a class list.
    #[error(transparent)]
    Classes(#[from] zeg_vocab::classes::ClassError),
    /// An error of a prompt template.
    #[error(transparent)]
    Template(#[from] zeg_vocab::templates::TemplateError),
    /// An error of the tokenizer's built-in vocabulary.
    #[error(transparent)]
    Tokenizer(#[from] zeg_vocab::tokenizer::TokenizerError),
    /// A text that does not fit into the context length.
    #[error(transparent)]
    Text(#[from] zeg_vocab::tokenizer::TokenizeError),
    /// An error of a weights file.
    #[error(transparent)]
    Weights(#[from] zeg_model::weights::WeightsError),
}
