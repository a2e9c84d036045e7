//! Checkpoints: one safetensors file with what was trained, how, and where the rest of the model is.
//!
//! The tensors are the trained parameters under the reference checkpoints' names, the class embeddings, and in a
//! training checkpoint the optimiser's moments. The frozen encoder is not copied: its file's SHA-256 stands in the
//! metadata. A full disk or a crash while one is written leaves the last good one.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};
use zeg_base::file::{self, Overwrite};
use zeg_model::{
    embeddings::ClassEmbeddings, key_tables::METHODS, method::Model, params::trained_values,
    weights::StateDict,
};

use crate::{TrainError, experiment::Experiment, optimizer::Moments};

/// Version of the layout.
const FORMAT: u32 = 1;
/// Metadata key of [`CheckpointInfo`].
const INFO: &str = "zeg";
/// Tensor of the class embeddings.
const EMBEDDINGS: &str = "class_embeddings";
const FIRST: &str = "optimizer.first.";
const SECOND: &str = "optimizer.second.";

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
    /// The experiment.
    pub experiment: Experiment,
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

/// What to save.
pub struct Contents<'a> {
    /// Everything but tensors; `format`, `writer` and `optimizer_time` are filled in.
    pub info: CheckpointInfo,
    /// The model.
    pub model: &'a Model,
    /// Class embeddings for use after training.
    pub embeddings: &'a ClassEmbeddings,
    /// The optimiser's state; `None` for a model that is done.
    pub moments: Option<BTreeMap<String, Moments>>,
}

/// Writes a checkpoint; the file appears complete or not at all.
///
/// # Errors
/// The file cannot be written; what was there before is untouched.
pub fn save(path: &Path, contents: Contents) -> Result<(), TrainError> {
    let Contents {
        mut info,
        model,
        embeddings,
        moments,
    } = contents;
    let mut tensors = trained_values(model);
    let shape = vec![embeddings.names().len(), embeddings.dim()];
    tensors.push((EMBEDDINGS.to_owned(), shape, embeddings.values().to_vec()));
    info.format = FORMAT;
    concat!("zeg ", env!("CARGO_PKG_VERSION")).clone_into(&mut info.writer);
    info.optimizer_time.clear();
    for (name, moments) in moments.into_iter().flatten() {
        info.optimizer_time.insert(name.clone(), moments.time);
        tensors.push((
            format!("{FIRST}{name}"),
            vec![moments.first.len()],
            moments.first,
        ));
        tensors.push((
            format!("{SECOND}{name}"),
            vec![moments.second.len()],
            moments.second,
        ));
    }
    let invalid = |reason: String| TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    let json = serde_json::to_string(&info).map_err(|error| invalid(error.to_string()))?;
    let metadata = HashMap::from([(INFO.to_owned(), json)]);
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|(name, shape, values)| {
            (
                name,
                shape,
                values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            )
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((
                name.as_str(),
                TensorView::new(Dtype::F32, shape.clone(), bytes)?,
            ))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| invalid(error.to_string()))?;
    let file = safetensors::serialize(views, Some(metadata))
        .map_err(|error| invalid(error.to_string()))?;
    write_atomically(path, &file)
}

/// Writes a file whole or not at all, and its folder where there is none.
///
/// # Errors
/// The file cannot be written; what was there before is untouched.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    file::make_folder_of(path)
        .and_then(|()| file::write(path, bytes, Overwrite::Replace))
        .map_err(|source| TrainError::Write {
            path: path.to_owned(),
            source,
        })
}

/// A checkpoint, opened.
#[derive(Debug)]
pub struct Checkpoint {
    /// Everything but tensors.
    pub info: CheckpointInfo,
    /// The tensors.
    pub weights: StateDict,
    path: PathBuf,
}

impl Checkpoint {
    /// Whether a file is a checkpoint of this program.
    pub fn is_checkpoint(weights: &StateDict) -> bool {
        weights.metadata().contains_key(INFO)
    }

    /// Opens a checkpoint.
    ///
    /// # Errors
    /// The file cannot be read, or is no checkpoint of this program.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let weights = StateDict::open(path, METHODS)?;
        let invalid = |reason: String| TrainError::Checkpoint {
            path: path.to_owned(),
            reason,
        };
        let json = weights.metadata().get(INFO).ok_or_else(|| {
            invalid(format!(
                "holds {} weights but is no zeg checkpoint",
                weights.family()
            ))
        })?;
        let info: CheckpointInfo = serde_json::from_str(json)
            .map_err(|error| invalid(format!("its metadata do not parse: {error}")))?;
        if info.format != FORMAT {
            return Err(invalid(format!(
                "has format {}, this program reads format {FORMAT}",
                info.format
            )));
        }
        Ok(Self {
            info,
            weights,
            path: path.to_owned(),
        })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The stored class embeddings.
    ///
    /// # Errors
    /// They are missing or damaged.
    pub fn embeddings(&self) -> Result<ClassEmbeddings, TrainError> {
        let matrix = self.read(EMBEDDINGS)?;
        let names = self
            .info
            .classes
            .iter()
            .map(|class| class.name.clone())
            .collect();
        let dim = matrix.shape.last().copied().unwrap_or(0);
        Ok(ClassEmbeddings::new(
            names,
            matrix.values,
            dim,
            self.path.clone(),
        )?)
    }

    /// The optimiser's state; empty where the file has none.
    ///
    /// # Errors
    /// A tensor that the metadata name is missing.
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>, TrainError> {
        self.info
            .optimizer_time
            .iter()
            .map(|(name, &time)| {
                let first = self.read(&format!("{FIRST}{name}"))?.values;
                let second = self.read(&format!("{SECOND}{name}"))?.values;
                Ok((
                    name.clone(),
                    Moments {
                        time,
                        first,
                        second,
                    },
                ))
            })
            .collect()
    }

    fn read(&self, key: &str) -> Result<zeg_model::weights::HostTensor, TrainError> {
        self.weights
            .read(key)?
            .ok_or_else(|| TrainError::Checkpoint {
                path: self.path.clone(),
                reason: format!("tensor {key:?} is missing"),
            })
    }
}
