//! What can go wrong in training.

use std::{collections::BTreeMap, path::PathBuf};

/// Errors of the training crate; each carries the value that caused it.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A configuration contradicts itself or the data it meets.
    #[error("{0}")]
    Config(String),
    /// A configuration file does not parse.
    #[error("{}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        reason: String,
    },
    /// A label is no class of the model.
    #[error("label {value} in image {image} of the batch; the model has {classes} classes")]
    Label {
        /// The label.
        value: u16,
        /// Position in the batch.
        image: usize,
        /// Number of classes.
        classes: usize,
    },
    /// The loss is no longer a number.
    #[error("step {step}: the loss is {value} ({}) on {}", named(terms), images.join(", "))]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// The sum.
        value: f32,
        /// Its terms.
        terms: BTreeMap<&'static str, f32>,
        /// Ids of the batch's images.
        images: Vec<String>,
    },
    /// A file could not be written; what was there before is untouched.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A checkpoint does not hold what a checkpoint holds.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What is missing or wrong.
        reason: String,
    },
    /// The user asked to stop.
    #[error("stopped")]
    Interrupted,
    /// The tensor library failed.
    #[error("the tensor backend failed: {0}")]
    Backend(String),
    /// The model or its weights.
    #[error(transparent)]
    Model(#[from] zeg_model::ModelError),
    /// The data set.
    #[error(transparent)]
    Data(#[from] zeg_data::DataError),
    /// The mini world.
    #[error(transparent)]
    World(#[from] zeg_data::mini_world::WorldError),
    /// The tokenizer's table.
    #[error(transparent)]
    Tokenizer(#[from] zeg_vocab::tokenizer::TokenizerError),
}

impl From<zeg_model::weights::WeightsError> for TrainError {
    fn from(error: zeg_model::weights::WeightsError) -> Self {
        Self::Model(error.into())
    }
}

/// Terms of a loss in words.
fn named(terms: &BTreeMap<&'static str, f32>) -> String {
    let words: Vec<String> = terms
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    words.join(", ")
}
