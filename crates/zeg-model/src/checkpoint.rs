//! Reads checkpoints: one safetensors file with the trained parameters, the experiment, and a reference to the frozen
//! weights.
//!
//! The tensors are the trained parameters under the reference checkpoints' names, the class embeddings, and, in a
//! training checkpoint, the optimiser's moments. The frozen encoder is not copied: the metadata hold the SHA-256 of its
//! files. `zeg-train` writes these files.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use zeg_base::fingerprint::Fingerprint;
use zeg_vocab::classes::ClassSet;

use crate::{
    ModelError,
    config::Activation,
    embeddings::ClassEmbeddings,
    inference::Inference,
    method::Architecture,
    methods::Methods,
    renamed::{Renames, rename_all, value_at},
    section::ModelSection,
    weights::{HostTensor, StateDict, StatedHeads},
};

/// Version of the layout. Older versions can be read: in format 1, keys of single methods were mixed with the common
/// keys, and format 2 had `inference.view` and `training.cached-views`.
pub const FORMAT: u32 = 3;
/// Metadata key of [`CheckpointInfo`].
pub const INFO_KEY: &str = "zeg";
/// Name of the class embeddings' tensor.
pub const EMBEDDINGS: &str = "class_embeddings";

/// Everything about a checkpoint except its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct CheckpointInfo {
    /// Version of the layout.
    pub format: u32,
    /// Name and version of the program that wrote it.
    pub writer: String,
    /// Number of training steps done.
    pub step: u64,
    /// The experiment, as in its file.
    pub experiment: Value,
    /// The classes of the stored embeddings.
    pub classes: Vec<StoredClass>,
    /// The frozen encoder's file.
    pub base: BaseWeights,
    /// Everything that the training follows from besides the experiment: labels, classes, images, weights, templates. Empty
    /// in checkpoints of earlier versions.
    #[serde(default, skip_serializing_if = "Fingerprint::is_empty")]
    pub fingerprint: Fingerprint,
    /// Activation of the frozen encoder; `None` in older checkpoints, whose image encoder has QuickGELU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activation: Option<Activation>,
    /// Numbers of heads of the frozen encoders in training; `None` in older checkpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<StatedHeads>,
    /// Name of the table that the stored class embeddings come from; `None` if a text tower made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table: Option<String>,
    /// Optimiser steps done for each parameter; empty in a model without optimiser state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub optimizer_time: BTreeMap<String, u64>,
}

/// A class of a trained model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredClass {
    /// Name of the class.
    pub name: String,
    /// Its synonyms; left out in older checkpoints.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub synonyms: Vec<String>,
    /// Whether the class was seen in training.
    pub seen: bool,
}

impl StoredClass {
    /// Returns all names, the class name first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.synonyms.iter().map(String::as_str))
    }
}

/// Returns the class of a model that each class of a list is; `None` for a class that the model was not trained with.
///
/// Several classes may have one name, as in ADE20K's 847 classes. Classes are therefore the same if they have the same
/// position in lists of the same names, or else if all their names are equal, or else if only one class has the name.
///
/// `[classes]`
pub fn trained_classes<'a>(
    trained: &'a [StoredClass],
    classes: &ClassSet,
) -> Vec<Option<&'a StoredClass>> {
    let names = trained.iter().map(|class| &class.name);
    if names.eq(&classes.classes) {
        return trained.iter().map(Some).collect();
    }
    let find = |label: usize| {
        let wanted = classes.names_of(label);
        let has_all = |class: &&StoredClass| class.names().eq(wanted.iter().map(String::as_str));
        if let Some(class) = trained.iter().find(has_all) {
            return Some(class);
        }
        let named = |class: &&StoredClass| Some(&class.name) == wanted.first();
        let mut found = trained.iter().filter(named);
        match (found.next(), found.next()) {
            (Some(class), None) => Some(class),
            _ => None,
        }
    };
    (0..classes.len()).map(find).collect()
}

/// The file, or the index or folder of several files, that a model's frozen weights are read from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaseWeights {
    /// Path of the file when the checkpoint was written.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub path: PathBuf,
    /// SHA-256 of the contents of all files, as [`WeightFiles::sha256`] computes it.
    ///
    /// [`WeightFiles::sha256`]: crate::weights::WeightFiles::sha256
    pub sha256: String,
}

/// An open checkpoint.
#[derive(Debug)]
pub struct Checkpoint {
    /// Everything except the tensors.
    pub info: CheckpointInfo,
    /// The tensors.
    pub weights: StateDict,
    /// Settings of an older format that no longer have an effect, as `key = value`.
    pub dropped: Vec<String>,
    path: PathBuf,
}

impl Checkpoint {
    /// Returns whether weights are a checkpoint of this program.
    pub fn is_checkpoint(weights: &StateDict) -> bool {
        weights.metadata().contains_key(INFO_KEY)
    }

    /// Opens a checkpoint. One of an older format is converted to the current one.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a checkpoint of this program.
    pub fn open(path: &Path, methods: &Methods) -> Result<Self, ModelError> {
        let weights = StateDict::open(path, &methods.key_tables())?;
        let invalid = |reason: String| ModelError::Format {
            path: path.to_owned(),
            reason,
        };
        let json = weights.metadata().get(INFO_KEY).ok_or_else(|| {
            invalid(format!(
                "holds {} weights and is not a zeg checkpoint",
                weights.family()
            ))
        })?;
        let mut info: CheckpointInfo = serde_json::from_str(json)
            .map_err(|error| invalid(format!("cannot parse its metadata: {error}")))?;
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
                    "has format {other}; this program reads formats 1 to {FORMAT}"
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

    /// Returns the path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the architecture of the model.
    ///
    /// # Errors
    /// Returns an error if the method is unknown, or its section is inconsistent.
    pub fn architecture(
        &self,
        methods: &Methods,
    ) -> Result<std::sync::Arc<dyn Architecture>, ModelError> {
        let section: ModelSection = self.read_part("model")?;
        let activation = self.info.activation.unwrap_or_default();
        section.with_activation(activation).architecture(methods)
    }

    /// Returns the inference settings of the model.
    ///
    /// # Errors
    /// Returns an error if the settings cannot be parsed.
    pub fn inference(&self) -> Result<Inference, ModelError> {
        match self.info.experiment.get("inference") {
            Some(_) => self.read_part("inference"),
            None => Ok(Inference::default()),
        }
    }

    /// Reads a part of the experiment.
    ///
    /// # Errors
    /// Returns an error if the part is missing or cannot be parsed.
    pub fn read_part<T: serde::de::DeserializeOwned>(&self, part: &str) -> Result<T, ModelError> {
        let value = self.info.experiment.get(part).cloned();
        serde_json::from_value(value.unwrap_or_default()).map_err(|error| ModelError::Format {
            path: self.path.clone(),
            reason: format!("cannot parse `{part}` of the experiment in its metadata: {error}"),
        })
    }

    /// Reads the stored class embeddings.
    ///
    /// # Errors
    /// Returns an error if they are missing or damaged.
    pub fn embeddings(&self) -> Result<ClassEmbeddings, ModelError> {
        let matrix = self.read(EMBEDDINGS)?;
        let classes = self.info.classes.iter();
        // All names, because several classes may have one class name.
        let names = classes.map(|class| class.names().collect::<Vec<_>>().join(", "));
        let names = names.collect();
        let dim = matrix.shape.last().copied().unwrap_or(0);
        ClassEmbeddings::new(names, matrix.values, dim, self.path.clone())
    }

    /// Reads a tensor by its name.
    ///
    /// # Errors
    /// Returns an error if the tensor is missing or damaged.
    pub fn read(&self, key: &str) -> Result<HostTensor, ModelError> {
        self.weights
            .read(key)?
            .ok_or_else(|| ModelError::MissingTensor {
                key: key.to_owned(),
                origin: self.path.display().to_string(),
            })
    }
}
