//! Checkpoints of a pre-training, from which a stopped run continues to the same bytes.
//!
//! One safetensors file holds the values of all parameters and the optimiser's moments in `f32`; its metadata hold the
//! settings and the number of steps.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use zeg_model::params::trained_values;

use crate::{
    TrainError,
    checkpoint::write_atomically,
    optimizer::Moments,
    pretrain::{PretrainConfig, Pretrainer},
};

/// Version of the layout.
const FORMAT: u32 = 1;
/// Metadata key of [`Info`].
const INFO_KEY: &str = "zeg.pretraining-checkpoint";
const VALUE: &str = "value.";
const FIRST: &str = "optimizer.first.";
const SECOND: &str = "optimizer.second.";

/// Everything about a checkpoint except its tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Info {
    format: u32,
    config: PretrainConfig,
    step: u64,
    /// Optimiser steps done for each parameter.
    optimizer_time: BTreeMap<String, u64>,
}

/// The state of a pre-training after a number of steps.
#[derive(Debug, Clone, PartialEq)]
pub struct PretrainCheckpoint {
    /// Settings of the run.
    pub config: PretrainConfig,
    /// Number of steps done.
    pub step: u64,
    /// Values of every parameter: `[count]`
    pub(crate) values: BTreeMap<String, Vec<f32>>,
    /// Moments of every parameter that had a gradient.
    pub(crate) moments: BTreeMap<String, Moments>,
    path: PathBuf,
}

impl PretrainCheckpoint {
    /// Writes the state of a pre-training atomically.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written; a previous file is then unchanged.
    pub fn save(path: &Path, trainer: &Pretrainer) -> Result<(), TrainError> {
        let values = trained_values(trainer.model()).into_iter();
        let mut tensors: BTreeMap<String, Vec<f32>> = values
            .map(|param| (format!("{VALUE}{}", param.name), param.values))
            .collect();
        let mut info = Info {
            format: FORMAT,
            config: *trainer.config(),
            step: trainer.step_number(),
            optimizer_time: BTreeMap::new(),
        };
        for (name, moments) in trainer.moments()? {
            tensors.insert(format!("{FIRST}{name}"), moments.first);
            tensors.insert(format!("{SECOND}{name}"), moments.second);
            info.optimizer_time.insert(name, moments.time);
        }
        let invalid = |reason: String| damaged(path, reason);
        let bytes: Vec<(String, usize, Vec<u8>)> = tensors
            .into_iter()
            .map(|(name, values)| {
                let bytes = values.iter().flat_map(|value| value.to_le_bytes());
                (name, values.len(), bytes.collect())
            })
            .collect();
        let views = bytes
            .iter()
            .map(|(name, count, bytes)| {
                let view = TensorView::new(Dtype::F32, vec![*count], bytes)?;
                Ok((name.as_str(), view))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
            .map_err(|error| invalid(error.to_string()))?;
        let json = serde_json::to_string(&info).map_err(|error| invalid(error.to_string()))?;
        let metadata = HashMap::from([(INFO_KEY.to_owned(), json)]);
        let file = safetensors::serialize(views, Some(metadata))
            .map_err(|error| invalid(error.to_string()))?;
        write_atomically(path, &file)
    }

    /// Opens a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is damaged, or is no checkpoint of a pre-training.
    pub fn open(path: &Path) -> Result<Self, TrainError> {
        let invalid = |reason: String| damaged(path, reason);
        let bytes = std::fs::read(path).map_err(|error| invalid(error.to_string()))?;
        let (_, header) =
            SafeTensors::read_metadata(&bytes).map_err(|error| invalid(error.to_string()))?;
        let json = header.metadata().as_ref().and_then(|all| all.get(INFO_KEY));
        let json = json.ok_or_else(|| invalid("no checkpoint of a pre-training".to_owned()))?;
        let info: Info = serde_json::from_str(json).map_err(|error| invalid(error.to_string()))?;
        if info.format != FORMAT {
            return Err(invalid(format!(
                "has format {}; this program reads format {FORMAT}",
                info.format
            )));
        }
        let tensors =
            SafeTensors::deserialize(&bytes).map_err(|error| invalid(error.to_string()))?;
        let mut read = BTreeMap::new();
        for (name, view) in tensors.tensors() {
            if view.dtype() != Dtype::F32 {
                return Err(invalid(format!("{name:?} is not stored as f32")));
            }
            let values = view.data().chunks_exact(4);
            let values = values.map(|v| f32::from_le_bytes([v[0], v[1], v[2], v[3]]));
            read.insert(name, values.collect::<Vec<_>>());
        }
        let mut take = |key: String| {
            let found = read.remove(&key);
            found.ok_or_else(|| invalid(format!("{key:?} is missing")))
        };
        let mut moments = BTreeMap::new();
        for (name, time) in info.optimizer_time {
            let first = take(format!("{FIRST}{name}"))?;
            let second = take(format!("{SECOND}{name}"))?;
            moments.insert(
                name,
                Moments {
                    time,
                    first,
                    second,
                },
            );
        }
        let values = read.into_iter();
        Ok(Self {
            config: info.config,
            step: info.step,
            values: values
                .filter_map(|(key, values)| Some((key.strip_prefix(VALUE)?.to_owned(), values)))
                .collect(),
            moments,
            path: path.to_owned(),
        })
    }

    /// Checks that the checkpoint holds a parameter with this number of values, and moments of the same size.
    pub(crate) fn check(&self, name: &str, count: usize) -> Result<(), TrainError> {
        let values = self.values.get(name).map(Vec::len);
        let moments = self.moments.get(name);
        let sizes = moments.map(|moments| (moments.first.len(), moments.second.len()));
        if values == Some(count) && sizes.is_none_or(|sizes| sizes == (count, count)) {
            return Ok(());
        }
        Err(damaged(
            &self.path,
            format!("{name:?} is missing or has another size than {count} values"),
        ))
    }
}

fn damaged(path: &Path, reason: String) -> TrainError {
    TrainError::PretrainCheckpoint {
        path: path.to_owned(),
        reason,
    }
}
