//! Checkpoints, read: one safetensors file with what was trained, how, and where the rest of the model is.
//!
//! The tensors are the trained parameters under the reference checkpoints' names, the class embeddings, and in a
//! training checkpoint the optimiser's moments. The frozen encoder is not copied: its file's SHA-256 stands in the
//! metadata. `zeg-train` writes these files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    ModelError,
    embeddings::ClassEmbeddings,
    inference::Inference,
    method::Architecture,
    methods::Methods,
    renamed::{Renames, rename_all, value_at},
    section::ModelSection,
    weights::{HostTensor, StateDict},
};

/// Version of the layout. Older ones are read as they were meant: format 1 had keys of single methods beside those of
/// all, format 2 had `inference.view` and `training.cached-views`.
pub const FORMAT: u32 = 3;
/// Metadata key of [`CheckpointInfo`].
pub const INFO_KEY: &str = "zeg";
/// Tensor of the class embeddings.
pub const EMBEDDINGS: &str = "class_embeddings";

/// Everything about a checkpoint but its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckpointInfo {
    /// Version of the layout.
    pub format: u32,
    /// The program that wrote it.
    pub writer: String,
    /// Steps done.
    pub step: u64,
    /// The experiment, as its file has it.
    pub experiment: Value,
    /// The classes of the stored embeddings.
    pub classes: Vec<StoredClass>,
    /// The frozen encoder's file.
    pub base: BaseWeights,
    /// Optimiser steps that each parameter has seen; empty in a model without optimiser state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub optimizer_time: BTreeMap<String, u64>,
}

/// A class of a trained model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredClass {
    /// Its name.
    pub name: String,
    /// Whether training saw it.
    pub seen: bool,
}

/// The file that a model's frozen weights are read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseWeights {
    /// Where it was.
    pub path: PathBuf,
    /// Its contents' SHA-256.
    pub sha256: String,
}

/// A checkpoint, opened.
#[derive(Debug)]
pub struct Checkpoint {
    /// Everything but tensors.
    pub info: CheckpointInfo,
    /// The tensors.
    pub weights: StateDict,
    /// Settings of an older format that had an effect then and have none now, as `key = value`.
    pub dropped: Vec<String>,
    path: PathBuf,
}

impl Checkpoint {
    /// Whether a file is a checkpoint of this program.
    pub fn is_checkpoint(weights: &StateDict) -> bool {
        weights.metadata().contains_key(INFO_KEY)
    }

    /// Opens a checkpoint. One of an older format is brought up to date.
    ///
    /// # Errors
    /// The file cannot be read, or is no checkpoint of this program.
    pub fn open(path: &Path, methods: &Methods) -> Result<Self, ModelError> {
        let weights = StateDict::open(path, &methods.key_tables())?;
        let invalid = |reason: String| ModelError::Format {
            path: path.to_owned(),
            reason,
        };
        let json = weights.metadata().get(INFO_KEY).ok_or_else(|| {
            invalid(format!(
                "holds {} weights but is no zeg checkpoint",
                weights.family()
            ))
        })?;
        let mut info: CheckpointInfo = serde_json::from_str(json)
            .map_err(|error| invalid(format!("its metadata do not parse: {error}")))?;
        match info.format {
            FORMAT | 2 => {}
            1 => {
                let section: ModelSection = value_at(&info.experiment, "model")
                    .and_then(|model| serde_json::from_value(model.clone()).ok())
                    .unwrap_or_default();
                let method = section.method(methods)?;
                method.upgrade_experiment(&mut info.experiment);
            }
            other => {
                return Err(invalid(format!(
                    "has format {other}, this program reads formats 1 to {FORMAT}"
                )));
            }
        }
        let Renames { dropped, .. } = rename_all(&mut info.experiment);
        info.format = FORMAT;
        Ok(Self {
            info,
            weights,
            dropped,
            path: path.to_owned(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The architecture of the model.
    ///
    /// # Errors
    /// The method is not known, or its section contradicts itself.
    pub fn architecture(
        &self,
        methods: &Methods,
    ) -> Result<std::sync::Arc<dyn Architecture>, ModelError> {
        let section: ModelSection = self.read_part("model")?;
        section.architecture(methods)
    }

    /// How images go through the model.
    ///
    /// # Errors
    /// The settings do not parse.
    pub fn inference(&self) -> Result<Inference, ModelError> {
        match self.info.experiment.get("inference") {
            Some(_) => self.read_part("inference"),
            None => Ok(Inference::default()),
        }
    }

    /// A part of the experiment.
    ///
    /// # Errors
    /// It is missing or does not parse.
    pub fn read_part<T: serde::de::DeserializeOwned>(&self, part: &str) -> Result<T, ModelError> {
        let value = self.info.experiment.get(part).cloned();
        serde_json::from_value(value.unwrap_or_default()).map_err(|error| ModelError::Format {
            path: self.path.clone(),
            reason: format!("the experiment in its metadata does not parse: {part}: {error}"),
        })
    }

    /// The stored class embeddings.
    ///
    /// # Errors
    /// They are missing or damaged.
    pub fn embeddings(&self) -> Result<ClassEmbeddings, ModelError> {
        let matrix = self.read(EMBEDDINGS)?;
        let classes = self.info.classes.iter();
        let names = classes.map(|class| class.name.clone()).collect();
        let dim = matrix.shape.last().copied().unwrap_or(0);
        ClassEmbeddings::new(names, matrix.values, dim, self.path.clone())
    }

    /// A tensor by its name.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn read(&self, key: &str) -> Result<HostTensor, ModelError> {
        self.weights
            .read(key)?
            .ok_or_else(|| ModelError::MissingTensor {
                key: key.to_owned(),
                origin: self.path.display().to_string(),
            })
    }
}
