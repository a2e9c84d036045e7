//! Defines the errors of training.

use std::{collections::BTreeMap, path::PathBuf};

/// Errors of the training crate; each carries the value that caused it.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A configuration contradicts itself or the data.
    #[error("{0}")]
    Config(String),
    /// A configuration file cannot be parsed.
    #[error("{}: {reason}", path.display())]
    ConfigFile {
        /// The file.
        path: PathBuf,
        /// Line and reason.
        reason: String,
    },
    /// A number of a configuration is out of range.
    #[error("{setting} = {value}: {legal}")]
    Setting {
        /// The dotted path of the setting, such as `training.schedule.base`.
        setting: String,
        /// Its value.
        value: f64,
        /// What it must be.
        legal: &'static str,
    },
    /// The batches of a configuration cannot fit into memory.
    #[error("{what}: {source}")]
    Memory {
        /// The settings and their values.
        what: String,
        /// The estimate and the memory of the machine.
        source: zeg_base::memory::TooMuchMemory,
    },
    /// No image so far had a label of a training class, so nothing was learned.
    #[error(
        "none of {images} training images has a pixel with the label of a training class; all pixels are unlabelled, or \
         their classes are unseen"
    )]
    Unlabelled {
        /// Number of images, those that were used several times counted as often.
        images: u64,
    },
    /// A label is not a class of the model.
    #[error(
        "image {image} of the batch: label value {value}; legal values are the indices of the {classes} training classes \
         and the ignore index"
    )]
    Label {
        /// The label.
        value: u16,
        /// Position of the image in the batch, from 0.
        image: usize,
        /// Number of classes.
        classes: usize,
    },
    /// The loss is not finite.
    #[error("step {step}: the loss is {value} ({}) on {}", named(terms), images.join(", "))]
    NotFinite {
        /// The step, from 0.
        step: u64,
        /// The sum of the terms.
        value: f32,
        /// The terms of the loss, by name.
        terms: BTreeMap<String, f32>,
        /// Ids of the batch's images.
        images: Vec<String>,
    },
    /// A parameter, or the optimiser's state of one, is not finite after a step whose loss was.
    #[error("after {step} steps: {name:?} holds the value {value}; nothing is written")]
    NotFiniteWeight {
        /// Number of steps.
        step: u64,
        /// Name of the tensor in a checkpoint.
        name: String,
        /// The value.
        value: f32,
    },
    /// A file could not be written; a previous file is unchanged.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// A checkpoint is damaged or incomplete.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// The part that is missing or wrong.
        reason: String,
    },
    /// A checkpoint of a pre-training is damaged or of another kind.
    #[error("{}: cannot be continued from: {reason}", path.display())]
    PretrainCheckpoint {
        /// The file.
        path: PathBuf,
        /// The part that is missing or wrong.
        reason: String,
    },
    /// The user stopped the training.
    #[error("stopped")]
    Interrupted,
    /// Another of the processes that train together failed, or does not answer.
    #[error(transparent)]
    Ranks(#[from] zeg_base::ranks::RanksError),
    /// The tensor library failed.
    #[error("the tensor backend failed: {0}")]
    Backend(String),
    /// An error of the model or its weights.
    #[error(transparent)]
    Model(#[from] zeg_model::ModelError),
    /// An error of the data set.
    #[error(transparent)]
    Data(#[from] zeg_data::DataError),
    /// An error of the mini world.
    #[error(transparent)]
    World(#[from] zeg_data::mini_world::WorldError),
    /// An error of the tokenizer's table.
    #[error(transparent)]
    Tokenizer(#[from] zeg_vocab::tokenizer::TokenizerError),
}

impl From<zeg_model::weights::WeightsError> for TrainError {
    fn from(error: zeg_model::weights::WeightsError) -> Self {
        Self::Model(error.into())
    }
}

/// Returns the terms of a loss as text.
fn named(terms: &BTreeMap<String, f32>) -> String {
    let named: Vec<String> = terms
        .iter()
        .map(|(name, value)| format!("{name} {value}"))
        .collect();
    named.join(", ")
}
